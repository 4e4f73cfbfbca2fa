"""Figures of where objectives part: what is drawn equals what was given."""

import numpy as np
import pandas as pd
import pytest

from tension_utils.config import MATCHED_ARM, OBJECTIVES
from tension_utils.show import figures_parting
from tension_utils.show.figures_parting import COSINES
from tension_utils.show.style import objective_color

ARMS = [*OBJECTIVES, MATCHED_ARM]
TESTS = OBJECTIVES[:2]


pytestmark = pytest.mark.usefixtures("book_style")


def curves() -> pd.DataFrame:
    rows = [
        {"objective": arm, "subset": test, "depth": depth, "accuracy": 0.5 + 0.1 * depth * (1 - 2 * j) - 0.01 * i}
        for i, arm in enumerate(ARMS)
        for j, test in enumerate(TESTS)
        for depth in (2, 0, 1)
    ]
    table = pd.DataFrame(rows).assign(chance_accuracy=0.5)
    return table.assign(ci_low=table.accuracy - 0.05, ci_high=table.accuracy + 0.04)


def cosines() -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [
        {"seed": seed, "layer": layer} | {name: 0.2 * k - 0.1 * layer + 0.01 * seed for k, name in enumerate(COSINES)}
        for seed in (0, 1)
        for layer in (0, 1, 2)
    ]
    table = pd.DataFrame(rows)
    means = table.groupby("layer", as_index=False)[list(COSINES)].mean()
    for name in COSINES:
        means[f"{name}_ci_low"], means[f"{name}_ci_high"] = means[name] - 0.1, means[name] + 0.1
    return table, means


def weights() -> pd.DataFrame:
    table = pd.DataFrame({"pair": ["helpful / harmless", "helpful / helpful-coin"], "cosine": [-0.2, 0.1]})
    return table.assign(cosine_ci_low=[-0.3, np.nan], cosine_ci_high=[-0.1, np.nan], random_cosine=0.01)


def points() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "helpful": [1.0, -2.0, 3.0, -0.5, 0.1],
            "harmless": [1.0, 2.0, -40.0, -0.5, 0.0],
            "is_marked": [True, True, True, False, False],
        }
    )


def test_depth_curves_have_a_panel_per_model_and_a_color_per_test():
    axes = figures_parting.depth_curves(curves())
    assert [ax.get_title().replace("\n", "") for ax in axes] == ARMS
    for ax, arm in zip(axes, ARMS, strict=True):
        for line, test in zip(ax.lines, TESTS, strict=False):
            own = curves()[(curves().objective == arm) & (curves().subset == test)].sort_values("depth")
            assert line.get_xdata().tolist() == [0, 1, 2] and line.get_color() == objective_color(test)
            assert line.get_ydata().tolist() == own.accuracy.tolist()
        assert ax.lines[2].get_ydata()[0] == 0.5 and len(ax.collections) == len(TESTS)


def test_gradient_cosines_draw_seeds_as_dots_and_means_as_lines():
    table, means = cosines()
    ax = figures_parting.gradient_cosines(table, means)
    lines = {line.get_label(): line for line in ax.lines if line.get_linestyle() != "None"}
    dots = [line for line in ax.lines if line.get_linestyle() == "None"]
    for (name, words), own in zip(COSINES.items(), dots, strict=True):
        assert lines[words].get_ydata() == pytest.approx(means[name].to_numpy())
        assert own.get_ydata().tolist() == table[name].tolist() and own.get_xdata().tolist() == table.layer.tolist()


def test_missing_cosines_leave_a_gap():
    table, means = cosines()
    missing = [name for name in means if name.startswith("corrected_cosine")]
    means.loc[1, missing] = np.nan
    line = figures_parting.gradient_cosines(table, means).lines[0]
    assert np.isnan(line.get_ydata()).tolist() == [False, True, False]


def test_weight_cosines_have_a_row_per_pair_the_first_on_top():
    ax = figures_parting.weight_cosines(weights())
    assert [label.get_text() for label in ax.get_yticklabels()] == weights().pair.tolist()
    assert ax.lines[0].get_xdata().tolist() == [-0.2, 0.1] and ax.lines[0].get_ydata().tolist() == [1, 0]
    assert [line.get_xdata()[0] for line in ax.lines[1:]] == [-0.01, 0.01]
    (first, *_) = ax.collections[0].get_segments()
    assert first.tolist() == [[-0.3, 1.0], [-0.1, 1.0]]


def test_attribution_scatter_tells_marked_opposing_and_other_neurons():
    ax = figures_parting.attribution_scatter(points(), "shared")
    found = {each.get_label(): each.get_offsets().data.tolist() for each in ax.collections}
    assert found == {
        "other neuron": [[-0.5, -0.5], [0.1, 0.0]],
        "shared, same sign": [[1.0, 1.0]],
        "shared, opposite": [[-2.0, 2.0], [3.0, -40.0]],
    }
    assert ax.get_ylim()[0] < -40 and ax.get_xlim()[1] > 3, "no neuron lies outside"
    assert all(each.get_rasterized() for each in ax.collections), "a large model's points would be a large page"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures_parting.depth_curves(pd.concat([curves(), curves()])), "one row per objective, subset, depth"),
        (lambda: figures_parting.depth_curves(curves().assign(accuracy=80.0)), "as shares and not percentages; got 80"),
        (lambda: figures_parting.gradient_cosines(*[each.drop(columns="cosine") for each in cosines()]), "cosine"),
        (lambda: figures_parting.weight_cosines(pd.concat([weights(), weights()])), "one row per pair"),
        (lambda: figures_parting.attribution_scatter(points()[:0], "shared"), "at least one row"),
    ],
)
def test_wrong_tables_are_refused(draw, message: str):
    with pytest.raises(ValueError, match=message):
        draw()
