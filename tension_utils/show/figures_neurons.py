"""Figures of neurons: scores, removal, overlap."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tension_utils.show.style import (
    CONTROL_COLOR,
    MARKERS,
    OTHER_COLORS,
    PERCENT,
    control_handle,
    legend_handles,
    method_handles,
    new_axes,
    objective_color,
    objective_handles,
    objective_marker,
    ordered_objectives,
    outside_legend,
    require_range,
    require_rows,
    style_of,
)

UNIT = "accuracy (percentage points)"

CURVE_COLUMNS = (
    ("objective", "set", "fraction", "change", "change_ci_low", "change_ci_high")  # the first three name a row
    + ("control", "control_low", "control_high")
)


def ablation_curves(table: pd.DataFrame, ax: Axes, unit: str = UNIT, sets: Sequence[str] | None = None) -> None:
    """Draw the change against the share of neurons removed, beside matched random sets.

    Args:
        table: objective, set, fraction in (0, 1], change, change_ci_low, change_ci_high, control, control_low,
            control_high, as `effects.ablation_effects` returns; one metric, kind and benchmark.
        ax: where to draw.
        unit: of the change. Shares are drawn as percentage points if it says so, else as they are.
        sets: all names of sets, in the order of line styles; those of the table if None.
    """
    require_rows(table, CURVE_COLUMNS, CURVE_COLUMNS[:3])
    objectives, sets = ordered_objectives(table.objective), sets or list(dict.fromkeys(table.set))
    scale = 100 if "percentage points" in unit else 1
    for objective in objectives:
        rows, color = table[table.objective == objective].sort_values("fraction"), objective_color(objective)
        control_color = CONTROL_COLOR if len(objectives) == 1 else color
        for name, part in rows.groupby("set", sort=False):
            x, style = 100 * part.fraction, style_of(sets.index(name))
            ax.plot(x, scale * part.change, color=color, **style, label=name)
            low, high = scale * part.change_ci_low, scale * part.change_ci_high
            ax.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
            own = style | {"linestyle": ":", "markersize": 3, "color": control_color}  # random sets match one set
            ax.plot(x, scale * part.control, **own, label="random sets")
            low, high = scale * part.control_low, scale * part.control_high
            ax.fill_between(x, low, high, color=control_color, alpha=0.15, linewidth=0)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xlabel="neurons removed (% of all)", ylabel=f"change in {unit}".replace(" (", "\n("))


def ablation_panels(table: pd.DataFrame, unit: str = UNIT, sets: Sequence[str] | None = None) -> list[Axes]:
    """Draw `ablation_curves` with one panel per objective, a shared scale and one legend.

    Args:
        table: as for `ablation_curves`.
        unit: likewise.
        sets: likewise.
    """
    require_rows(table, ["objective", "set"])
    objectives, sets = ordered_objectives(table.objective), sets or list(dict.fromkeys(table.set))
    figure, axes = plt.subplots(
        1, len(objectives), figsize=(1.2 + 2.5 * max(len(objectives), 1.6), 3.7), sharey=True, squeeze=False
    )
    for ax, objective in zip(axes[0], objectives, strict=True):
        ablation_curves(table[table.objective == objective], ax, unit, sets)
        ax.set_title(objective, color=objective_color(objective))
        ax.label_outer()
    handles = [*method_handles(sets), control_handle("random sets")]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
    return list(axes[0])


def regression_scatter(points: pd.DataFrame, slopes: pd.DataFrame) -> Axes:
    """Draw the change in accuracy against the intact accuracy's distance from chance, with lines through the origin.

    Args:
        points: objective, is_targeted, distance, change in [-1, 1], as `chance_regression.regression_to_chance`
            returns.
        slopes: sets ("targeted" and "random"), slope, as `chance_regression.chance_slopes` returns; one fit.
    """
    require_rows(points, ["objective", "is_targeted", "distance", "change"])
    require_rows(slopes, ["sets", "slope"], ["sets"])
    ax, objectives = new_axes(7.6, 4.8), ordered_objectives(points.objective)
    ends = 100 * np.array([min(points.distance.min(), 0), max(points.distance.max(), 0)])
    ax.axhline(0, color="black", linewidth=0.8)
    ax.axvline(0, color="black", linewidth=0.8)
    controls = points[~points.is_targeted]
    ax.scatter(100 * controls.distance, 100 * controls.change, s=9, color=CONTROL_COLOR, alpha=0.35, linewidth=0)
    for objective in objectives:
        part = points[points.is_targeted & (points.objective == objective)]
        style = {"color": objective_color(objective), "marker": objective_marker(objective)}
        ax.scatter(100 * part.distance, 100 * part.change, s=30, edgecolor="white", linewidth=0.5, zorder=3, **style)
    lines = [Line2D([], [], marker="o", color=CONTROL_COLOR, linestyle="", markersize=3, label="random set")]
    lines += ax.plot(ends, -ends, color="black", linestyle=(0, (1, 1)), linewidth=1.2, label="everything to chance")
    fitted = slopes.set_index("sets").slope
    for name, color, style in (("targeted", "black", "-"), ("random", CONTROL_COLOR, "--")):
        label = f"fit, {name}: slope {fitted[name]:+.2f}"
        lines += ax.plot(ends, fitted[name] * ends, color=color, linestyle=style, linewidth=1.8, label=label)
    low, high = 100 * min(points.change.min(), 0), 100 * max(points.change.max(), 0)
    pad = 1 + 0.1 * (high - low)
    ax.set_ylim(low - pad, high + pad)  # the dotted line may leave it
    ax.set(xlabel="intact accuracy minus chance (percentage points)", ylabel="change in accuracy (percentage points)")
    outside_legend(ax, [*objective_handles(objectives, prefix="targeted set, "), *lines])
    return ax


def depth_profile(table: pd.DataFrame, units: str = "neurons") -> Axes:
    """Draw which share of the selected neurons lies in each layer; dotted: the same number in every layer.

    Args:
        table: objective, score_kind (a line style each), layer (0-based), share in [0, 1] that sums to 1 over layers.
        units: what lies in layers, for the axis.
    """
    require_rows(table, ["objective", "score_kind", "layer", "share"], ["objective", "score_kind", "layer"])
    ax, kinds, objectives = new_axes(), list(dict.fromkeys(table.score_kind)), ordered_objectives(table.objective)
    for objective in objectives:
        color = objective_color(objective)
        for name, part in table[table.objective == objective].sort_values("layer").groupby("score_kind", sort=False):
            ax.plot(part.layer, part.share, color=color, **style_of(kinds.index(name)), label=name)
    ax.axhline(1 / table.layer.nunique(), color=CONTROL_COLOR, linestyle=":", label="uniform")
    ax.set(xlabel="layer (0 = first)", ylabel=f"share of the selected {units}", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PERCENT)
    outside_legend(ax, legend_handles(objectives, kinds, "uniform"))
    return ax


IN = "in_"  # prefix of the columns that say in which objectives' sets a neuron is


def level_dots(table: pd.DataFrame, levels: Sequence[str]) -> list[Axes]:
    """Draw the overlap of two objectives beside what gives it a meaning; one panel per score kind.

    Args:
        table: level, score_kind, jaccard, jaccard_chance_by_layer in [0, 1], one row per comparison, as
            `overlap.level_rows` returns.
        levels: from top to bottom; one without rows is marked as having none.
    """
    require_rows(table, ["level", "score_kind", "jaccard", "jaccard_chance_by_layer"])
    require_range(table, ["jaccard", "jaccard_chance_by_layer"])
    kinds = list(dict.fromkeys(table.score_kind))
    size = (min(3.6 + 2.7 * len(kinds), 9.0), 1.6 + 0.42 * len(levels))
    figure, axes = plt.subplots(1, len(kinds), figsize=size, sharey=True, squeeze=False)
    for ax, kind in zip(axes[0], kinds, strict=True):
        part = table[table.score_kind == kind]
        for y, level in enumerate(levels):
            found = part[part.level == level].jaccard
            color = OTHER_COLORS[0] if y == 0 else CONTROL_COLOR
            if found.empty:
                ax.text(0.12, y, "none", va="center", size=9, style="italic", color=CONTROL_COLOR)
                continue
            ax.plot(found, np.full(len(found), y), marker="o", markersize=4, alpha=0.6, linestyle="", color=color)
            edge = {"marker": MARKERS[min(y, 1)], "markersize": 10, "markeredgecolor": "black", "linestyle": ""}
            ax.plot(found.mean(), y, color=color, zorder=3, **edge)
            ax.text(found.max() + 0.05, y, f"{found.mean():.2f}", va="center", size=9.5)
        ax.axvline(part.jaccard_chance_by_layer.mean(), color=CONTROL_COLOR, linestyle=":")
        ax.set(xlabel="Jaccard overlap", xlim=(0, 1.2), ylim=(len(levels) - 0.5, -0.5))
        ax.set_title(f"sets by {kind}", size=11)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
        ax.grid(visible=False, axis="y")
    axes[0, 0].set_yticks(range(len(levels)), [textwrap.fill(level, 24) for level in levels])
    figure.legend(handles=[control_handle("chance, same layer counts")], loc="outside lower center")
    return list(axes[0])


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


def agreement_heatmap(table: pd.DataFrame) -> Axes:
    """Draw the Jaccard overlap of every two ways to select neurons, in the lower half of a matrix.

    Args:
        table: first, second, jaccard in [0, 1]; one row per pair, in either order.
    """
    require_rows(table, ["first", "second", "jaccard"], ["first", "second"])
    require_range(table, ["jaccard"])
    names = list(dict.fromkeys([*table["first"], *table["second"]]))
    values = np.full((len(names), len(names)), np.nan)
    for row in table.itertuples():
        below, above = sorted((names.index(row.first), names.index(row.second)), reverse=True)
        values[below, above] = row.jaccard
    shown = values[1:, :-1]  # the diagonal is 1 by definition
    ax = new_axes(3.4 + 0.55 * len(names), 1.9 + 0.42 * len(names))
    image = ax.imshow(shown, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(shown):
        if not np.isnan(value):
            color = "white" if value > 0.6 else "black"
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
            `overlap.cross_design_table` returns; and base_model where there are several.
        relations: from top to bottom; those of the table if None.
    """
    names = ["score_kind", "relation", "models", "seed", "first", "second"]
    models = ["base_model"] if "base_model" in table else []
    require_rows(table, [*names, "jaccard", "jaccard_chance_by_layer"], [*models, *names])
    require_range(table, ["jaccard", "jaccard_chance_by_layer"])
    kinds, relations = list(dict.fromkeys(table.score_kind)), list(relations or dict.fromkeys(table.relation))
    lines = [(r, m) for r in relations for m in dict.fromkeys(table[table.relation == r].models)]
    y = {line: number + 0.7 * relations.index(line[0]) for number, line in enumerate(lines)}  # a gap between relations
    width, height = min(3.6 + 2.6 * len(kinds), 9.0), 1.7 + 0.3 * len(lines)
    figure, axes = plt.subplots(1, len(kinds), figsize=(width, height), sharey=True, squeeze=False)
    for ax, kind in zip(axes[0], kinds, strict=True):
        part = table[table.score_kind == kind]
        for (relation, pair), rows in part.groupby(["relation", "models"], sort=False):
            index, at = relations.index(relation), y[relation, pair]
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
