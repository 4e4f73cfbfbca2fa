"""Figures of overlap: the right numbers are drawn, and a wrong table is refused clearly."""

import itertools
from functools import partial

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from tension_utils import config
from tension_utils.analysis.overlap import LEVELS, RELATIONS, SHAM
from tension_utils.show.figures_neurons import agreement_heatmap, cross_design_dots, intersection_sizes, level_dots
from tension_utils.show.style import OBJECTIVE_COLORS

OBJECTIVES = list(config.OBJECTIVES)


pytestmark = pytest.mark.usefixtures("book_style")


def levels() -> pd.DataFrame:
    """Two comparisons of each level but the sham, which nobody trained."""
    rows = [
        {"level": level, "score_kind": kind, "jaccard": 0.2 + 0.1 * i + 0.04 * seed, "jaccard_chance_by_layer": 0.06}
        for kind in ("rms_change", "signed_mean")
        for i, level in enumerate(LEVELS)
        for seed in (0, 1)
        if level != SHAM
    ]
    return pd.DataFrame(rows)


def regions() -> pd.DataFrame:
    members = sorted(itertools.product((True, False), repeat=3), key=sum)[1:]
    table = pd.DataFrame(members, columns=[f"in_{objective}" for objective in OBJECTIVES])
    counts = np.arange(10.0, 80.0, 10.0)
    return table.assign(n_neurons=counts, n_expected=counts[::-1], lowest=counts - 5, highest=counts + 5)


def agreement() -> pd.DataFrame:
    return pd.DataFrame(
        [("rms", "mean_abs", 0.75), ("rms", "contrast", 0.25), ("contrast", "mean_abs", 0.1)],
        columns=["first", "second", "jaccard"],
    )


def cross() -> pd.DataFrame:
    rows = [
        {"score_kind": kind, "relation": relation, "models": f"models {i}", "seed": seed}
        | {"jaccard": 0.2 + 0.2 * i + 0.1 * seed, "jaccard_chance_by_layer": 0.06, "first": "a", "second": "b"}
        for kind in ("rms", "rms_change")
        for i, relation in enumerate(RELATIONS)
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def segments_of(ax: plt.Axes) -> list[np.ndarray]:
    return [segment for group in ax.collections for segment in group.get_segments()]


def test_levels_stand_below_each_other_and_the_missing_one_says_so() -> None:
    axes = level_dots(levels(), LEVELS)
    assert [ax.get_title() for ax in axes] == ["sets by rms_change", "sets by signed_mean"]
    for ax in axes:
        lines = [line for line in ax.lines if line.get_linestyle() != ":"]
        assert [list(line.get_xdata()) for line in lines[::2]] == [
            pytest.approx([x, x + 0.04]) for x in (0.2, 0.3, 0.5)
        ]
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines[1::2]] == [
            pytest.approx(place) for place in ((0.22, 0), (0.32, 1), (0.52, 3))
        ]
        assert [text.get_text() for text in ax.texts] == ["0.22", "0.32", "none", "0.52"]
        (chance,) = (line for line in ax.lines if line.get_linestyle() == ":")
        assert chance.get_xdata() == pytest.approx([0.06, 0.06])
    assert [label.get_text().replace("\n", " ") for label in axes[0].get_yticklabels()] == list(LEVELS)
    assert axes[0].get_ylim()[0] > axes[0].get_ylim()[1], "the first level is on top"


def test_shares_must_be_shares() -> None:
    with pytest.raises(ValueError, match="jaccard from 0 to 1.*got 60"):
        level_dots(levels().assign(jaccard=60), LEVELS)


def test_intersections_are_counted_and_named() -> None:
    above, below = intersection_sizes(regions())
    assert [patch.get_height() for patch in above.patches] == pytest.approx(list(range(10, 80, 10)))
    flat = [segment[0][1] for segment in segments_of(above) if segment[0][1] == segment[1][1]]
    assert flat == pytest.approx(list(range(70, 0, -10)))
    assert [text.get_text() for text in above.texts] == [str(n) for n in range(10, 80, 10)]
    assert [label.get_text() for label in below.get_yticklabels()] == OBJECTIVES
    colored = {to_hex(line.get_color()).upper(): list(line.get_xdata()) for line in below.lines}
    for objective in OBJECTIVES:
        assert colored[OBJECTIVE_COLORS[objective]] == list(np.flatnonzero(regions()[f"in_{objective}"]))
    with pytest.raises(ValueError, match="at least two objectives"):
        intersection_sizes(regions()[["n_neurons", "n_expected"]][:1])


def test_heatmap_holds_each_pair_once_in_its_cell() -> None:
    ax = agreement_heatmap(agreement())
    assert [label.get_text() for label in ax.get_xticklabels()] == ["rms", "contrast"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["contrast", "mean_abs"]
    cells = {tuple(text.get_position()): text.get_text() for text in ax.texts}
    assert cells == {(0, 0): "0.25", (0, 1): "0.75", (1, 1): "0.10"}
    drawn = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert drawn == pytest.approx(np.array([[0.25, np.nan], [0.75, 0.1]]), nan_ok=True)


def test_cross_design_draws_means_and_every_pair() -> None:
    axes = cross_design_dots(cross(), RELATIONS)
    assert [ax.get_title() for ax in axes] == ["rms", "rms_change"]
    lines = [line for line in axes[0].lines if line.get_linestyle() != ":"]
    single, means = lines[::2], lines[1::2]
    assert [list(line.get_xdata()) for line in single] == [pytest.approx([x, x + 0.1]) for x in (0.2, 0.4, 0.6)]
    assert [line.get_xdata()[0] for line in means] == pytest.approx([0.25, 0.45, 0.65])
    assert len({line.get_marker() for line in means}) == 3, "told apart in grey"
    chance = next(line for line in axes[0].lines if line.get_linestyle() == ":")
    assert chance.get_xdata() == pytest.approx([0.06, 0.06])
    legend = [text.get_text() for text in axes[0].figure.legends[0].get_texts()]
    assert legend == [*RELATIONS, "chance, same layer counts"]
    heights = [line.get_ydata()[0] for line in means]
    assert heights == sorted(heights) and axes[0].get_ylim()[0] > axes[0].get_ylim()[1], "the first relation is on top"


FIGURES = [
    (partial(level_dots, levels=LEVELS), levels),
    (intersection_sizes, regions),
    (agreement_heatmap, agreement),
    (cross_design_dots, cross),
]


@pytest.mark.parametrize(("draw", "table"), FIGURES)
def test_wrong_tables_are_refused_and_right_ones_labeled(draw, table) -> None:
    optional = ["lowest", "highest", *(f"in_{objective}" for objective in OBJECTIVES)]
    for column in table().columns.difference(optional):
        with pytest.raises(ValueError, match=f"missing {column}"):
            draw(table().drop(columns=column))
    with pytest.raises(ValueError, match="at least one row"):
        draw(table()[:0])
    if table is not levels:  # its rows are comparisons, which may repeat
        double = pd.concat([table().assign(scope="all"), table().assign(scope="last")])
        with pytest.raises(ValueError, match="select one value of: .*scope"):
            draw(double)
    axes = draw(table())
    axes = axes if isinstance(axes, list) else [axes]
    assert axes[-1].get_xlabel()
    assert axes[0].get_ylabel() or table in (cross, levels)
    assert to_hex(axes[0].figure.get_facecolor()) == "#ffffff"


@pytest.mark.parametrize(("draw", "table"), FIGURES)
def test_no_text_is_cut_off(draw, table) -> None:
    axes = draw(table())
    figure = (axes[0] if isinstance(axes, list) else axes).figure
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert width <= 9.2, "wider, and its letters get small in a page"
    assert -0.01 <= box.x0 <= box.x1 <= width + 0.01
    assert -0.01 <= box.y0 <= box.y1 <= height + 0.01
