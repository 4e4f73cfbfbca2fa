"""Figures of the evaluation: what is drawn equals what was given, and names from data stay text."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex

from tension_utils import config
from tension_utils.analysis.margins import AVERAGE
from tension_utils.config import MIXED
from tension_utils.show import figures_accuracy
from tension_utils.show.style import OBJECTIVE_COLORS

OBJECTIVES = list(config.OBJECTIVES)
HOSTILE = ("$x$", "<b>bold</b>", "_under_score_", r"\frac{1}{2} 50 %", "$\\broken{$")


pytestmark = pytest.mark.usefixtures("book_style")


def differences(names=("chat", "safety")) -> pd.DataFrame:
    """Differences -.1, .1 ... in reading order; every second one significant."""
    rows = [
        {"subset": name, "objective": objective, "difference": 0.2 * j - 0.1 - 0.15 * i, "p_adjusted": (0.01, 0.05)[j]}
        for i, name in enumerate(names)
        for j, objective in enumerate(OBJECTIVES[:2])
    ]
    table = pd.DataFrame(rows)
    return table.assign(ci_low=table.difference - 0.02, ci_high=table.difference + 0.03)


def plane() -> pd.DataFrame:
    table = pd.DataFrame(
        {"objective": OBJECTIVES, "respond_accuracy": [0.9, 0.1, 0.6], "refuse_accuracy": [0.1, 0.8, 0.7]}
    )
    for column in ("respond_accuracy", "refuse_accuracy"):
        table[f"{column}_ci_low"], table[f"{column}_ci_high"] = table[column] - 0.02, table[column] + 0.03
    return table


def bins() -> pd.DataFrame:
    table = pd.DataFrame(
        [
            {"objective": o, "predicted": p, "accuracy": p - 0.1 * i, "n_pairs": 10 * (i + 1)}
            for i, o in enumerate(OBJECTIVES)
            for p in (0.9, 0.6)
        ]
    )
    return table.assign(ci_low=table.accuracy - 0.05, ci_high=(table.accuracy + 0.06).clip(upper=1))


def margins(names=("helpful", "harmless")) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.concat(
        [
            pd.DataFrame({"objective": o, "test": name, "margin": rng.normal(i - j, 1, 200)})
            for i, o in enumerate(OBJECTIVES)
            for j, name in enumerate(names)
        ]
    )


def scatters(ax) -> list[PathCollection]:
    return [group for group in ax.collections if isinstance(group, PathCollection)]


def offsets(ax) -> np.ndarray:
    return np.concatenate([np.asarray(group.get_offsets()) for group in scatters(ax)])


def segments(ax) -> np.ndarray:
    groups = [group for group in ax.collections if isinstance(group, LineCollection)]
    return np.array([segment for group in groups for segment in group.get_segments()])


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_differences_and_their_intervals_are_drawn_in_percentage_points():
    table = differences()
    ax = figures_accuracy.difference_forest(table)
    order = table.sort_values("objective", key=lambda column: column.map(OBJECTIVES.index), kind="stable")
    assert offsets(ax)[:, 0] == pytest.approx(100 * order.difference)
    assert segments(ax)[:, 0, 0] == pytest.approx(100 * order.ci_low)
    assert segments(ax)[:, 1, 0] == pytest.approx(100 * order.ci_high)
    assert segments(ax)[:, 0, 1] == pytest.approx(offsets(ax)[:, 1]), "an interval lies on its marker's line"
    assert np.round(offsets(ax)[:, 1]) == pytest.approx([0, 1, 0, 1])
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first row is on top"
    assert sum(ax.get_xlim()) == pytest.approx(0)


def test_only_significant_differences_are_filled():
    groups = scatters(figures_accuracy.difference_forest(differences()))
    helpful, harmless = (to_hex(group.get_facecolor()[0]).upper() for group in groups)
    assert helpful == OBJECTIVE_COLORS["helpful"]
    assert harmless == "#FFFFFF", "p = 0.05 is not below 0.05"
    assert to_hex(groups[1].get_edgecolor()[0]).upper() == OBJECTIVE_COLORS["harmless"]


def test_a_difference_without_a_p_value_is_hollow():
    ax = figures_accuracy.difference_forest(differences().assign(p_adjusted=np.nan))
    assert all(to_hex(group.get_facecolor()[0]) == "#ffffff" for group in scatters(ax))


@pytest.mark.parametrize(
    ("draw", "value"),
    [(figures_accuracy.difference_forest, "difference"), (figures_accuracy.accuracy_forest, "accuracy")],
)
def test_what_was_not_run_says_why(draw, value):
    table = differences(("chat", "safety", "ties"))
    table = table.assign(accuracy=0.5, ci_low=0.4, ci_high=0.6, chance_accuracy=0.5, difference=0.5, not_run=None)
    is_lost = (table.subset == "ties") | ((table.subset == "chat") & (table.objective == "helpful"))
    table.loc[is_lost, [value, "ci_low", "ci_high"]] = np.nan
    with pytest.raises(ValueError, match=f"needs {value}, or a reason in the column not_run, for chat, ties"):
        draw(table)
    with pytest.raises(ValueError, match="for chat, ties"):
        draw(table.drop(columns="not_run"))
    table.loc[is_lost, "not_run"] = "no $file$ here"
    ax = draw(table)
    assert texts(ax) == ["helpful not run: no $file$ here", "not run: no $file$ here"]
    assert ax.texts[1].get_position()[1] == 2, "beside its name"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["chat", "safety", "ties"]
    nothing = table[table.subset == "ties"].assign(objective=None)[:1]
    assert texts(draw(nothing)) == ["not run: no $file$ here"]
    draw(nothing).figure.canvas.draw()


def test_the_plane_draws_markers_crosses_and_what_to_compare_with():
    table = plane()
    ax = figures_accuracy.refuse_respond_plane(table)
    large = [line for line in ax.lines if line.get_markersize() == 11]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in large] == [(0.9, 0.1), (0.1, 0.8), (0.6, 0.7)]
    assert len({line.get_marker() for line in large}) == 3, "told apart in grey print"
    first = segments(ax)[:2]
    assert first[0] == pytest.approx(np.array([[0.88, 0.1], [0.93, 0.1]]))
    assert first[1] == pytest.approx(np.array([[0.9, 0.08], [0.9, 0.13]]))
    assert {"refuses everything", "answers everything", "balanced 75 %"} <= set(texts(ax))
    level = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [np.add(line.get_xdata(), line.get_ydata()) / 2 for line in level] == [
        pytest.approx([share, share]) for share in figures_accuracy.BALANCED_LEVELS
    ]
    chance = [line for line in ax.lines if line.get_marker() == "X"]
    assert [*chance[0].get_xydata()[0]] == [0.5, 0.5]


def test_the_plane_draws_single_models_small():
    runs = pd.concat([plane(), plane()]).assign(seed=0)
    ax = figures_accuracy.refuse_respond_plane(plane(), runs=runs)
    assert sorted(map(tuple, offsets(ax).tolist())) == sorted(
        zip(runs.respond_accuracy, runs.refuse_accuracy, strict=True)
    )
    assert "one model" in [text.get_text() for text in ax.get_legend().get_texts()]
    with pytest.raises(ValueError, match="items of both kinds"):
        figures_accuracy.refuse_respond_plane(plane().assign(refuse_accuracy=np.nan))


def frontier_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two frontiers of three points, and the four main arms with one of every further kind."""
    lines = [
        {"frontier": name, "harmless_weight": a, "helpful": 0.8 - 0.3 * a, "harmless": 0.5 + 0.3 * a - 0.02 * at}
        for at, name in enumerate(("interpolation", "ensemble"))
        for a in (1.0, 0.0, 0.5)
    ]
    arms = ["helpful", "harmless", "helpful-harmless", "helpful-harmless-matched", "helpful-coin"]
    arms += ["helpful-harmless-3-to-1", "matched-without-shared"]
    points = [{"objective": arm, "helpful": 0.5 + at / 50, "harmless": 0.6} for at, arm in enumerate(arms)]
    points = pd.DataFrame(points).assign(helpful_ci_low=0.4, helpful_ci_high=0.7, harmless_ci_low=0.5)
    return pd.DataFrame(lines), points.assign(harmless_ci_high=0.7)


def test_frontiers_run_from_the_helpful_to_the_harmless_model():
    lines, points = frontier_tables()
    ax = figures_accuracy.frontier_plane(lines, points)
    first = ax.lines[0]
    assert list(first.get_xdata()) == pytest.approx([0.8, 0.65, 0.5])
    assert list(first.get_ydata()) == pytest.approx([0.5, 0.65, 0.8])
    drawn = [line for line in ax.lines if len(line.get_xdata()) == 1]
    assert [line.get_xdata()[0] for line in drawn] == pytest.approx(points.helpful.tolist())
    assert len({(line.get_marker(), line.get_color()) for line in drawn}) == 7, "every arm looks its own"
    named = ["sham labels", "mixing ratios", "trained under a mask", "interpolation", "ensemble"]
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()][4:] == named
    assert len(ax.collections) == 14, "a cross for every arm; lines have no intervals here"


def test_frontiers_refuse_what_is_no_share():
    lines, points = frontier_tables()
    with pytest.raises(ValueError, match="helpful"):
        figures_accuracy.frontier_plane(lines.assign(helpful=80.0), points)


def test_reliability_points_intervals_and_sizes():
    ax = figures_accuracy.reliability_diagram(bins())
    assert offsets(ax)[:2] == pytest.approx(np.array([[0.6, 0.6], [0.9, 0.9]])), "sorted along the axis"
    assert segments(ax)[0] == pytest.approx(np.array([[0.6, 0.55], [0.6, 0.66]]))
    sizes = [group.get_sizes()[0] for group in scatters(ax)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]
    assert [*ax.lines[0].get_xdata(), *ax.lines[0].get_ydata()] == [0.5, 1, 0.5, 1]
    assert ax.get_ylim()[0] <= bins().ci_low.min(), "below chance stays in sight"
    assert "n = 30" in [text.get_text() for text in ax.get_legend().get_texts()]
    with pytest.raises(ValueError, match="predicted from 0.5 to 1"):
        figures_accuracy.reliability_diagram(bins().assign(predicted=lambda t: t.predicted - 0.3))
    empty_bins = pd.concat([bins(), bins()[:2].assign(predicted=np.nan, accuracy=np.nan, n_pairs=0)])
    assert len(offsets(figures_accuracy.reliability_diagram(empty_bins))) == 6
    with pytest.raises(ValueError, match="at least one row"):
        figures_accuracy.reliability_diagram(bins().assign(accuracy=np.nan))


def test_no_density_is_cut_at_the_top():
    rng = np.random.default_rng(0)
    parts = [("wide", rng.normal(0, 1, 200)), ("narrow", rng.normal(1, 0.05, 200))]
    table = pd.concat([pd.DataFrame({"objective": "helpful", "test": t, "margin": m}) for t, m in parts])
    axes = figures_accuracy.margin_densities(table)
    highest = max(line.get_ydata().max() for ax in axes for line in ax.lines if len(line.get_ydata()) > 2)
    assert all(ax.get_ylim()[0] == 0 and ax.get_ylim()[1] >= highest for ax in axes)


def test_densities_have_area_one_and_peak_at_their_mean():
    axes = figures_accuracy.margin_densities(margins())
    assert [ax.get_title() for ax in axes] == ["helpful\nn = 200", "harmless\nn = 200"]
    for panel, ax in enumerate(axes):
        curves = [line for line in ax.lines if len(line.get_xdata()) > 2]
        assert len(curves) == 3
        for index, line in enumerate(curves):
            x, y = line.get_xdata(), line.get_ydata()
            assert np.trapezoid(y, x) == pytest.approx(1, abs=0.03)
            assert x[y.argmax()] == pytest.approx(index - panel, abs=0.5)


@pytest.mark.parametrize("values", [[0.3], [1.0, 2.0], [0.7] * 50, [0.0] * 9, [1e6] * 9])
def test_few_or_equal_margins_become_ticks(values):
    table = pd.DataFrame({"objective": "helpful", "test": "own", "margin": values})
    (ax,) = figures_accuracy.margin_densities(table)
    ticks = [line for line in ax.lines if line.get_marker() == "|"]
    assert ticks[0].get_xdata() == pytest.approx(values)
    low, high = ax.get_xlim()
    assert low < min(values) and max(values) < high
    ax.figure.canvas.draw()


def test_margins_must_be_finite():
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite margins"):
            figures_accuracy.margin_densities(margins().assign(margin=value))


def conflicts() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Margins of a mixed model and of the average of both single ones on two tests, and how often above zero."""
    margin = {("helpful", MIXED): [-2, -1, 1], ("helpful", AVERAGE): [-1, 0, 1], ("harmless", MIXED): [1, 2, 3]}
    margin[("harmless", AVERAGE)] = [-3, 1, 2]
    rows = pd.DataFrame([{"model": m, "test": t, "margin": v} for (t, m), all_ in margin.items() for v in all_])
    sides = rows.assign(share_with_own=(np.sign(rows.margin) + 1) / 2).groupby(["model", "test"], as_index=False)
    return rows, sides.share_with_own.mean()


def test_margins_of_conflicting_pairs_are_drawn_by_test():
    rows, sides = conflicts()
    axes = figures_accuracy.conflict_margins(rows, sides)
    assert [ax.get_title() for ax in axes] == ["helpful test", "harmless test"]
    medians = [[line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"] for ax in axes]
    assert medians == [[-1, 0], [2, 1]]
    halves = segments(axes[0])[1]
    assert halves[:, 0] == pytest.approx([-1.5, 0.0]), "the middle half of -2, -1, 1"
    assert [text.get_text() for text in axes[0].texts if "%" in text.get_text()] == ["33 %", "50 %"]
    axes[0].figure.canvas.draw()
    box, (width, height) = axes[0].figure.get_tightbbox(), axes[0].figure.get_size_inches()
    assert -0.01 <= box.x0 <= box.x1 <= width + 0.01 and -0.01 <= box.y0 <= box.y1 <= height + 0.01
    with pytest.raises(ValueError, match="missing margin"):
        figures_accuracy.conflict_margins(rows.drop(columns="margin"), sides)


FIGURES = [
    (figures_accuracy.difference_forest, differences),
    (figures_accuracy.refuse_respond_plane, plane),
    (figures_accuracy.reliability_diagram, bins),
    (figures_accuracy.margin_densities, margins),
]


@pytest.mark.parametrize(("draw", "table"), FIGURES)
def test_wrong_tables_are_refused(draw, table):
    for column in table().columns:
        with pytest.raises(ValueError, match=f"missing {column}"):
            draw(table().drop(columns=column))
    with pytest.raises(ValueError, match="at least one row"):
        draw(table()[:0])
    with pytest.raises(ValueError, match="expected an objective of .*; got 'mixed'"):
        draw(table().assign(objective="mixed").drop_duplicates("objective"))
    if draw is not figures_accuracy.margin_densities:  # its rows are items, which may repeat
        double = pd.concat([table().assign(kind="zero"), table().assign(kind="mean")])
        with pytest.raises(ValueError, match="select one value of: .*kind"):
            draw(double)


@pytest.mark.parametrize(
    ("draw", "table", "column"),
    [
        (figures_accuracy.difference_forest, differences, "difference"),
        (figures_accuracy.refuse_respond_plane, plane, "respond_accuracy"),
        (figures_accuracy.reliability_diagram, bins, "accuracy"),
    ],
)
def test_percentages_are_refused_as_shares(draw, table, column):
    with pytest.raises(ValueError, match=f"needs {column} from .* as shares and not percentages"):
        draw(table().assign(**{column: lambda t: 100 * t[column]}))


@pytest.mark.parametrize(("draw", "table"), FIGURES)
def test_one_row_is_enough_and_no_text_is_cut_off(draw, table):
    for rows in (table()[:1], table()):
        figure = np.ravel(draw(rows))[0].figure
        figure.canvas.draw()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert width <= 9.2, "wider, and its letters get small in a page"
        assert -0.01 <= box.x0 <= box.x1 <= width + 0.01
        assert -0.01 <= box.y0 <= box.y1 <= height + 0.01
        assert to_hex(figure.get_facecolor()) == "#ffffff"


@pytest.mark.parametrize(
    ("draw", "table", "found"),
    [
        (figures_accuracy.difference_forest, differences, lambda ax: ax.get_yticklabels()),
        (figures_accuracy.margin_densities, margins, lambda axes: [ax.title for ax in axes]),
    ],
)
def test_hostile_names_are_shown_letter_for_letter(draw, table, found):
    drawn = draw(table(HOSTILE))
    np.ravel(drawn)[0].figure.canvas.draw()  # a parsed "$\broken{$" would raise here
    labels = found(drawn)
    assert [label.get_text().split("\nn =")[0] for label in labels] == list(HOSTILE)
    assert not any(label.get_parse_math() for label in labels)
