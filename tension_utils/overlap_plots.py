"""Figures of overlap: bars between chance, floor and ceiling, sizes of intersections, agreement, the cross design."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tension_utils.plot_style import (
    CONTROL_COLOR,
    MARKERS,
    OTHER_COLORS,
    control_handle,
    new_axes,
    objective_color,
    objective_marker,
    ordered_objectives,
    outside_legend,
    require_range,
    require_rows,
)

HATCHES = ("", "///", "...", "xx", "---", "\\\\\\", "++")  # tell bars apart in grey print
REFERENCES = {  # column -> marker, line style, words
    "floor": ("v", "--", "floor (base model)"),
    "ceiling": ("^", "-", "ceiling (other seeds)"),
}
IN = "in_"  # prefix of the columns that say in which objectives' sets a neuron is


def overlap_bars(table: pd.DataFrame, ax: Axes | None = None, method: str = "score_kind") -> Axes:
    """Draw Jaccard overlaps of neuron sets beside what they are measured against.

    Args:
        table: pair, the column ``method``, jaccard, jaccard_chance in [0, 1]. If known: lowest and highest over seeds,
            floor and ceiling (NaN where there is none), as `overlap_controls.reference_table` returns.
        ax: where to draw; new Axes if None.
        method: column whose values stand side by side within a pair.
    """
    require_rows(table, ["pair", method, "jaccard", "jaccard_chance"], ["pair", method])
    known = [name for name in REFERENCES if name in table and table[name].notna().any()]
    require_range(table, ["jaccard", "jaccard_chance", *known])
    pairs, methods = list(dict.fromkeys(table.pair)), list(dict.fromkeys(table[method]))
    ax, width = new_axes(ax, 2.8 + 1.8 * len(pairs), 4.2), 0.84 / len(methods)
    for index, name in enumerate(methods):
        rows = table[table[method] == name]
        x = rows.pair.map(pairs.index).to_numpy() + (index - (len(methods) - 1) / 2) * width
        style = {"color": OTHER_COLORS[index % len(OTHER_COLORS)], "hatch": HATCHES[index % len(HATCHES)]}
        ax.bar(x, rows.jaccard, 0.9 * width, edgecolor="black", linewidth=0.6, label=name, zorder=2, **style)
        if {"lowest", "highest"} <= set(rows.columns):
            ax.vlines(x, rows.lowest, rows.highest, color="black", linewidth=1.6, zorder=3)
        ends = (x - 0.46 * width, x + 0.46 * width)
        ax.hlines(rows.jaccard_chance, *ends, color="black", linestyle=":", linewidth=2.2, zorder=3)
        for reference in known:
            marker, line, _ = REFERENCES[reference]
            has = rows[reference].notna().to_numpy()
            level, style = rows[reference][has], {"marker": marker, "markeredgecolor": "black"}
            ax.hlines(level, *(end[has] for end in ends), color="black", linestyle=line, linewidth=1.4, zorder=3)
            ax.plot(x[has], level, linestyle="", markerfacecolor="white", **style)
    ax.set_xticks(range(len(pairs)), [pair.replace(" / ", " /\n") for pair in pairs])
    highest = table[["jaccard", *known, *({"highest"} & set(table))]].max().max()
    ax.set(ylabel="Jaccard overlap (0 to 1)", ylim=(0, 1.08 * highest))
    ax.grid(visible=False, axis="x")
    marks = [Line2D([], [], color="black", linestyle=":", linewidth=2.2, label="chance")]
    for name in known:
        style = dict(zip(("marker", "linestyle", "label"), REFERENCES[name], strict=True))
        marks.append(Line2D([], [], color="black", markerfacecolor="white", **style))
    outside_legend(ax, [*ax.get_legend_handles_labels()[0], *marks])
    return ax


def intersection_sizes(table: pd.DataFrame) -> list[Axes]:
    """Draw how many neurons lie in exactly these sets: a bar per combination above a matrix of dots that names it.

    Args:
        table: in_<objective> (bool) for every objective, n_neurons, n_expected of independent sets; lowest and highest
            over seeds if known; as `overlap.region_table` returns.

    Returns:
        The Axes of the bars and of the matrix.

    Source: the layout is UpSet's (Lex et al. 2014).
    """
    columns = [column for column in table.columns if column.startswith(IN)]
    require_rows(table, ["n_neurons", "n_expected"], columns)
    if len(columns) < 2:
        raise ValueError(f"the figure needs a column {IN}<objective> for at least two objectives; got {columns}")
    objectives = ordered_objectives(pd.Series([column.removeprefix(IN) for column in columns]))
    size = (2.6 + 0.72 * len(table), 3.2 + 0.32 * len(objectives))
    figure, (bars, dots) = plt.subplots(
        2, 1, sharex=True, figsize=size, gridspec_kw={"height_ratios": [2.6, 0.34 * len(objectives)], "hspace": 0.0}
    )
    x = np.arange(len(table))
    bars.bar(x, table.n_neurons, 0.62, color=OTHER_COLORS[2], edgecolor="black", linewidth=0.6)
    if {"lowest", "highest"} <= set(table.columns):
        bars.vlines(x, table.lowest, table.highest, color="black", linewidth=1.6)
    bars.hlines(table.n_expected, x - 0.4, x + 0.4, color="black", linestyle=":", linewidth=2.2)
    limit = 1.14 * max(table[["n_neurons", "n_expected", *({"highest"} & set(table))]].max().max(), 1)
    for position, row in zip(x, table.itertuples(), strict=True):
        above = max(row.n_neurons, getattr(row, "highest", 0))
        if above < row.n_expected < above + 0.1 * limit:  # the dotted mark would strike the number out
            above = row.n_expected
        bars.text(position, above + 0.015 * limit, f"{row.n_neurons:,.0f}", ha="center", va="bottom", size=9)
    bars.set(ylabel="neurons in exactly\nthese sets", ylim=(0, limit))
    bars.grid(visible=False, axis="x")
    _membership(dots, table, objectives)
    handles = [control_handle("expected of independent sets with the same layer counts")]
    figure.legend(handles=handles, loc="outside lower center")
    return [bars, dots]


def _membership(ax: Axes, table: pd.DataFrame, objectives: Sequence[str]) -> None:
    """Draw a row of symbols per objective, colored where the combination lies in its set."""
    x = np.arange(len(table))
    for row, objective in enumerate(objectives):
        inside = table[IN + objective].to_numpy(bool)
        style = {"linestyle": "", "marker": objective_marker(objective), "markersize": 9}
        ax.plot(x[~inside], np.full((~inside).sum(), row), color="#DDDDDD", **style)
        ax.plot(x[inside], np.full(inside.sum(), row), color=objective_color(objective), **style)
    ax.set_yticks(range(len(objectives)), objectives)
    ax.set(ylim=(len(objectives) - 0.5, -0.5), xlabel="in the sets marked by a colored symbol, in no other")
    ax.set_xticks([])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def agreement_heatmap(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the Jaccard overlap of every two ways to select neurons, in the lower half of a matrix.

    Args:
        table: first, second, jaccard in [0, 1]; one row per pair, in either order.
        ax: where to draw; new Axes if None.
    """
    require_rows(table, ["first", "second", "jaccard"], ["first", "second"])
    require_range(table, ["jaccard"])
    names = list(dict.fromkeys([*table["first"], *table["second"]]))
    values = np.full((len(names), len(names)), np.nan)
    for row in table.itertuples():
        below, above = sorted((names.index(row.first), names.index(row.second)), reverse=True)
        values[below, above] = row.jaccard
    shown = values[1:, :-1]  # the diagonal is 1 by definition
    ax = new_axes(ax, 3.4 + 0.55 * len(names), 1.9 + 0.42 * len(names))
    image = ax.imshow(shown, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(shown):
        if not np.isnan(value):
            color = "white" if value < 0.5 else "black"
            ax.text(x, y, f"{value:.2f}", ha="center", va="center", size=9, color=color)
    ax.set_xticks(range(len(names) - 1), names[:-1], rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names) - 1), names[1:])
    ax.set(xlabel="score", ylabel="compared with")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = ax.figure.colorbar(image, ax=ax, ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.set_label("Jaccard overlap")
    bar.outline.set_visible(False)
    return ax


def cross_design_dots(table: pd.DataFrame, relations: Sequence[str] | None = None) -> list[Axes]:
    """Draw the overlaps of models on texts, sorted by what a pair shares; one panel per score kind.

    Args:
        table: score_kind, relation, models, seed, first, second, jaccard, jaccard_chance_by_layer in [0, 1], as
            `overlap_controls.cross_design_table` returns.
        relations: from top to bottom; those of the table if None.
    """
    names = ["score_kind", "relation", "models", "seed", "first", "second"]
    require_rows(table, [*names, "jaccard", "jaccard_chance_by_layer"], names)
    require_range(table, ["jaccard", "jaccard_chance_by_layer"])
    kinds, relations = list(dict.fromkeys(table.score_kind)), list(relations or dict.fromkeys(table.relation))
    lines = [(r, m) for r in relations for m in dict.fromkeys(table[table.relation == r].models)]
    y = {line: number + 0.7 * relations.index(line[0]) for number, line in enumerate(lines)}  # a gap between relations
    width, height = min(3.6 + 2.6 * len(kinds), 9.0), 1.7 + 0.3 * len(lines)
    figure, axes = plt.subplots(1, len(kinds), figsize=(width, height), sharey=True, squeeze=False)
    for ax, kind in zip(axes[0], kinds, strict=True):
        part = table[table.score_kind == kind]
        for (relation, models), rows in part.groupby(["relation", "models"], sort=False):
            index, at = relations.index(relation), y[relation, models]
            style = {"color": OTHER_COLORS[index % 3], "marker": MARKERS[index % len(MARKERS)], "linestyle": ""}
            ax.plot(rows.jaccard, np.full(len(rows), at), markersize=4, alpha=0.7, **style)
            edge = {"markeredgecolor": "black", "markersize": 9, "zorder": 3}
            ax.plot(rows.jaccard.mean(), at, **style, **edge)
        chance = part.jaccard_chance_by_layer.mean()
        ax.axvline(chance, color=CONTROL_COLOR, linestyle=":")
        ax.set(xlabel="Jaccard overlap", xlim=(0, 1.03), ylim=(max(y.values()) + 0.7, -0.7))
        ax.set_title(kind)
        ax.xaxis.set_major_locator(MaxNLocator(5 if len(kinds) < 3 else 2))
        ax.grid(visible=False, axis="y")
    axes[0, 0].set_yticks(list(y.values()), [textwrap.fill(models, 30) for _, models in lines])
    handles = [
        Line2D([], [], linestyle="", color=OTHER_COLORS[i % 3], marker=MARKERS[i], markeredgecolor="black", label=name)
        for i, name in enumerate(relations)
    ]
    handles.append(control_handle("chance, same layer counts"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return list(axes[0])
