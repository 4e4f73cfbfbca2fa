"""Plots: the right numbers are drawn in the right color, and a wrong table is refused clearly."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from tension_utils import config
from tension_utils.show import figures_accuracy, figures_neurons
from tension_utils.show.style import LINE_STYLES, OBJECTIVE_COLORS, PERCENT, new_axes, objective_color

OBJECTIVES = list(config.OBJECTIVES)


pytestmark = pytest.mark.usefixtures("book_style")


def matrix() -> pd.DataFrame:
    """Accuracies .1, .2 ... .9 in reading order, rows shuffled."""
    rows = [
        {"objective": objective, "test": test, "accuracy": 0.1 * (3 * i + j + 1), "n_items": 1000 + 3 * i + j}
        for i, objective in enumerate(OBJECTIVES)
        for j, test in enumerate(OBJECTIVES)
    ]
    table = pd.DataFrame(rows).sample(frac=1, random_state=0)
    return table.assign(ci_low=table.accuracy - 0.05, ci_high=table.accuracy + 0.04)


def curves() -> pd.DataFrame:
    """Ablation effects of two sets, two objectives, three fractions, rows shuffled."""
    rows = [
        {"objective": objective, "set": name, "fraction": f, "change": -f * (1 + i + 2 * k), "control": -f / 10}
        for i, objective in enumerate(OBJECTIVES[:2])
        for k, name in enumerate(("rms", "attribution"))
        for f in (0.1, 0.2, 0.3)
    ]
    table = pd.DataFrame(rows).sample(frac=1, random_state=0)
    return table.assign(
        change_ci_low=table.change - 0.02,
        change_ci_high=table.change + 0.02,
        control_low=table.control - 0.01,
        control_high=table.control + 0.01,
    )


def layers() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"objective": o, "score_kind": "rms", "layer": layer, "share": share}
            for o in OBJECTIVES
            for layer, share in enumerate((0.4, 0.3, 0.2, 0.1))
        ]
    )


def log() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "objective": "helpful",
                "seed": seed,
                "step": step,
                "loss": 0.7,
                "validation_accuracy": np.nan if step == 5 else 0.5 + 0.01 * step + 0.1 * seed,
            }
            for seed in (0, 1)
            for step in (10, 0, 5)
        ]
    )


def forest() -> pd.DataFrame:
    table = pd.DataFrame(
        [
            {"objective": o, "subset": subset, "accuracy": 0.2 + 0.1 * i + 0.3 * j, "chance_accuracy": (0.5, 0.25)[j]}
            for i, o in enumerate(OBJECTIVES[:2])
            for j, subset in enumerate(("own", "Factuality"))
        ]
    )
    return table.assign(ci_low=table.accuracy - 0.1, ci_high=table.accuracy + 0.1)


def test_matrix_cells_hold_their_numbers():
    ax = figures_accuracy.tension_matrix(matrix())
    assert np.asarray(ax.images[0].get_array()) == pytest.approx(np.arange(0.1, 0.95, 0.1).reshape(3, 3))
    texts = {tuple(np.round(text.get_position())): [] for text in ax.texts}
    for text in ax.texts:
        texts[tuple(np.round(text.get_position()))].append(text.get_text())
    assert texts[(1.0, 0.0)] == ["20.0 %", "[15.0, 24.0]\nn = 1,001"]
    assert texts[(0.0, 2.0)] == ["70.0 %", "[65.0, 74.0]\nn = 1,006"]
    assert [label.get_text() for label in ax.get_xticklabels()] == OBJECTIVES
    assert [label.get_text() for label in ax.get_yticklabels()] == OBJECTIVES


def ablation_curves(table: pd.DataFrame, **options: object) -> Axes:
    ax = new_axes()
    figures_neurons.ablation_curves(table, ax, **options)
    return ax


def test_ablation_curves_are_ordered_colored_and_banded():
    table = curves()
    ax = ablation_curves(table, sets=["rms", "attribution"])
    lines = {(to_hex(line.get_color()).upper(), line.get_label()): line for line in ax.lines}
    line = lines[OBJECTIVE_COLORS["harmless"], "attribution"]
    assert line.get_xdata() == pytest.approx([10, 20, 30])
    assert line.get_ydata() == pytest.approx([-40, -80, -120])
    assert lines[OBJECTIVE_COLORS["helpful"], "random sets"].get_ydata() == pytest.approx([-1, -2, -3])
    assert lines[OBJECTIVE_COLORS["helpful"], "rms"].get_linestyle() == LINE_STYLES[0]
    assert line.get_linestyle() == LINE_STYLES[1]
    assert len(ax.collections) == 8, "a band per set and per control"
    heights = ax.collections[0].get_paths()[0].get_extents()
    assert heights.y1 - heights.y0 > 4
    assert "percentage points" in ax.get_ylabel()
    assert ablation_curves(table, unit="margin (intact std)").lines[0].get_ydata().min() > -2


def test_every_set_stands_beside_its_own_random_sets():
    table = curves().assign(control=lambda t: np.where(t.set == "rms", -0.1, -0.2))
    ax = ablation_curves(table[table.objective == "helpful"], sets=["rms", "attribution"])
    controls = {line.get_marker(): line.get_ydata() for line in ax.lines if line.get_label() == "random sets"}
    assert {marker: set(values) for marker, values in controls.items()} == {"o": {-10.0}, "s": {-20.0}}


def scatter_points() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"objective": o, "is_targeted": t, "distance": x, "change": (-0.5 if t else -0.1) * x}
            for o in OBJECTIVES[:2]
            for t in (True, False)
            for x in (-0.2, 0.1, 0.4)
        ]
    )


SLOPES = pd.DataFrame({"sets": ["targeted", "random"], "slope": [-0.5, -0.1]})


def test_regression_scatter_draws_points_fits_and_full_regression():
    ax = figures_neurons.regression_scatter(scatter_points(), SLOPES)
    controls, helpful, harmless = (np.asarray(group.get_offsets()) for group in ax.collections)
    assert len(controls) == 6 and helpful.tolist() == harmless.tolist()
    assert helpful[:, 1] == pytest.approx([10, -5, -20])
    assert to_hex(ax.collections[1].get_facecolor()[0]).upper() == OBJECTIVE_COLORS["helpful"]
    full, targeted, random = ax.lines[2:]
    assert full.get_xdata() == pytest.approx([-20, 40]) and full.get_ydata() == pytest.approx([20, -40])
    assert targeted.get_ydata() == pytest.approx([10, -20]) and random.get_ydata() == pytest.approx([2, -4])
    assert len({line.get_linestyle() for line in (targeted, random)}) == 2
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "fit, targeted: slope -0.50" in labels and "everything to chance" in labels
    low, high = ax.get_ylim()
    assert -40 < low < -20 and 10 < high < 20, "the points fill the height, not the dotted line"
    for column in scatter_points():
        with pytest.raises(ValueError, match=f"missing {column}"):
            figures_neurons.regression_scatter(scatter_points().drop(columns=column), SLOPES)
    with pytest.raises(ValueError, match="one row per sets"):
        figures_neurons.regression_scatter(scatter_points(), pd.concat([SLOPES, SLOPES]))


def test_ablation_panels_share_styles_even_if_a_set_is_missing():
    table = curves()
    table = table[~((table.objective == "harmless") & (table.set == "rms"))]
    axes = figures_neurons.ablation_panels(table, sets=["rms", "attribution"])
    assert [ax.get_title() for ax in axes] == ["helpful", "harmless"]
    assert axes[1].lines[0].get_label() == "attribution"
    assert axes[1].lines[0].get_linestyle() == LINE_STYLES[1]
    labels = [text.get_text() for text in axes[0].figure.legends[0].get_texts()]
    assert labels == ["rms", "attribution", "random sets"]


def test_depth_profile_draws_shares_and_the_uniform_level():
    ax = figures_neurons.depth_profile(layers())
    assert len(ax.lines) == 4
    assert ax.lines[0].get_ydata() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert ax.lines[3].get_ydata() == pytest.approx([0.25, 0.25])
    assert ax.get_ylabel() == "share of the selected neurons"
    assert figures_neurons.depth_profile(layers(), units="heads").get_ylabel().endswith("heads")


def test_axes_in_percent_print_what_their_ticks_are():
    assert [PERCENT(share) for share in (0, 0.025, 0.125, 0.3, -0.2, 1)] == [
        "0 %",
        "2.5 %",
        "12.5 %",
        "30 %",
        "-20 %",
        "100 %",
    ]


def test_training_curves_draw_seeds_and_their_mean():
    ax = figures_accuracy.training_curves(log())
    first, second, mean, chance = ax.lines
    assert first.get_xdata() == pytest.approx([0, 10])
    assert second.get_ydata() == pytest.approx([0.6, 0.7])
    assert mean.get_ydata() == pytest.approx([0.55, 0.65])
    assert chance.get_ydata() == pytest.approx([0.5, 0.5])
    assert len(figures_accuracy.training_curves(log(), value="loss", label="loss (nats)").lines) == 3


def test_forest_draws_intervals_and_chance_per_row():
    ax = figures_accuracy.accuracy_forest(forest())
    assert ax.lines[1].get_xdata() == pytest.approx([0.3, 0.6])
    segments = np.array([segment for group in ax.collections for segment in group.get_segments()])
    assert segments[0][:, 0] == pytest.approx([0.1, 0.3])
    assert segments[4:, 0, 0] == pytest.approx([0.5, 0.25])
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first row is on top"


@pytest.mark.parametrize(
    ("draw", "table"),
    [
        (figures_accuracy.tension_matrix, matrix),
        (ablation_curves, curves),
        (figures_neurons.depth_profile, layers),
        (figures_accuracy.training_curves, log),
        (figures_accuracy.accuracy_forest, forest),
    ],
)
def test_wrong_tables_are_refused_and_right_ones_labeled(draw, table):
    needed = table().columns.difference(["loss"])
    for column in needed:
        with pytest.raises(ValueError, match=f"missing {column}"):
            draw(table().drop(columns=column))
    with pytest.raises(ValueError, match="at least one row"):
        draw(table()[:0])
    double = pd.concat([table().assign(kind="zero"), table().assign(kind="mean")])
    with pytest.raises(ValueError, match="select one value of: .*kind"):
        draw(double)
    ax = draw(table())
    assert ax.get_xlabel()
    assert ax.get_ylabel() or draw is figures_accuracy.accuracy_forest
    assert to_hex(ax.figure.get_facecolor()) == "#ffffff"


def test_unknown_objectives_have_no_color():
    with pytest.raises(ValueError, match="helpful, harmless, helpful-harmless, helpful-harmless-matched; got 'mixed'"):
        objective_color("mixed")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures_accuracy.tension_matrix(matrix()),
        lambda: figures_neurons.ablation_panels(curves())[0],
        lambda: figures_neurons.ablation_panels(curves(), unit="opposing-test accuracy (percentage points)")[0],
        lambda: figures_neurons.regression_scatter(scatter_points(), SLOPES),
        lambda: figures_accuracy.accuracy_forest(forest()),
    ],
)
def test_no_text_is_cut_off(draw):
    figure = draw().figure
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert width <= 9.2, "wider, and its letters get small in a page"
    assert -0.01 <= box.x0 <= box.x1 <= width + 0.01
    assert -0.01 <= box.y0 <= box.y1 <= height + 0.01


def test_a_cost_curve_dashes_what_nobody_trained():
    table = pd.DataFrame({"n_pairs": [100, 400], "cost": [0.1, 0.2], "ci_low": [0.0, 0.1], "ci_high": [0.2, 0.3]})
    line = pd.DataFrame({"n_pairs": [100, 400, 1600], "cost": [0.1, 0.2, 0.3], "low": 0.0, "high": 0.4})
    ax = figures_accuracy.cost_curve(table, table[["n_pairs", "cost"]], line)
    measured, beyond, runs, means = ax.lines[:4]
    assert measured.get_xdata().tolist() == [100, 400] and measured.get_linestyle() == "-"
    assert beyond.get_xdata().tolist() == [400, 1600] and beyond.get_linestyle() == "--"
    assert runs.get_ydata() == pytest.approx([0.1, 0.2]) and means.get_ydata() == pytest.approx([0.1, 0.2])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["100", "400", "1,600"]
    with pytest.raises(ValueError, match="ci_low"):
        figures_accuracy.cost_curve(table.drop(columns="ci_low"), table)


def test_mixtures_are_lines_of_both_tests_and_their_mean():
    table = pd.DataFrame({"helpful_share": [0.0, 0.5], "helpful": [0.4, 0.6], "harmless": [0.7, 0.5]})
    table = table.assign(mean=[0.55, 0.55])
    bounds = {f"{name}_ci_{end}": 0.5 for name in ("helpful", "harmless", "mean") for end in ("low", "high")}
    ax = figures_accuracy.mixture_lines(table.assign(**bounds))
    assert [line.get_ydata().tolist() for line in ax.lines[:3]] == [[0.4, 0.6], [0.7, 0.5], [0.55, 0.55]]
    assert [line.get_label() for line in ax.lines[:3]] == ["helpful test", "harmless test", "mean of both"]
