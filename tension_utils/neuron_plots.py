"""Figures of neuron sets: what removing them does, where they lie."""

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
    require_rows,
    style_of,
)

UNIT = "accuracy (percentage points)"
CURVE_COLUMNS = (
    ("objective", "set", "fraction", "change", "change_ci_low", "change_ci_high")  # the first three name a row
    + ("control", "control_low", "control_high")
)


def ablation_curves(
    table: pd.DataFrame, ax: Axes | None = None, unit: str = UNIT, sets: Sequence[str] | None = None
) -> Axes:
    """Draw the change against the share of neurons removed, beside matched random sets.

    Args:
        table: objective, set, fraction in (0, 1], change, change_ci_low, change_ci_high, control, control_low,
            control_high, as `effects.ablation_effects` returns; one metric, kind and benchmark.
        ax: where to draw; new Axes if None.
        unit: of the change. Shares are drawn as percentage points if it says so, else as they are.
        sets: all names of sets, in the order of line styles; those of the table if None.
    """
    require_rows(table, CURVE_COLUMNS, CURVE_COLUMNS[:3])
    ax, objectives, sets = new_axes(ax), ordered_objectives(table.objective), sets or list(dict.fromkeys(table.set))
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
    outside_legend(ax, legend_handles(objectives, sets, "random sets"))
    return ax


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
        ax.get_legend().remove()
        ax.set_title(objective, color=objective_color(objective))
        ax.label_outer()
    handles = [*method_handles(sets), control_handle("random sets")]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
    return list(axes[0])


def effect_forest(
    table: pd.DataFrame,
    value: str = "effect",
    bounds: tuple[str, str] = ("ci_low", "ci_high"),
    unit: str = UNIT,
    sets: Sequence[str] | None = None,
) -> list[Axes]:
    """Draw effects with intervals: a panel per trained objective, a line per set, a color and marker per test.

    Args:
        table: objective, test (both objectives), set, the columns ``value`` and ``bounds``; one metric, fraction and
            ablation kind. A missing interval is not drawn.
        value: column drawn, such as "per_neurons" of `mixed_ablation.per_neuron`.
        bounds: its interval.
        unit: of the value. Shares are drawn as percentage points if it says so, else as they are.
        sets: all names of sets, from top to bottom; those of the table if None.
    """
    require_rows(table, ["objective", "test", "set", value, *bounds], ["objective", "test", "set"])
    objectives, sets = ordered_objectives(table.objective), sets or list(dict.fromkeys(table.set))
    tests = ordered_objectives(table.test)
    scale = 100 if "percentage points" in unit else 1
    height = 1.8 + 0.22 * len(sets) * (1 + len(tests))
    figure, axes = plt.subplots(
        1,
        len(objectives),
        figsize=(2.4 + 2.0 * max(len(objectives), 2), height),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for ax, objective in zip(axes[0], objectives, strict=True):
        for index, test in enumerate(tests):
            part = table[(table.objective == objective) & (table.test == test)]
            y = part.set.map(sets.index) + (index - (len(tests) - 1) / 2) * 0.7 / len(tests)
            low, high = (scale * part[bound] for bound in bounds)
            ax.hlines(y, low, high, color=objective_color(test), linewidth=1.8)
            ax.plot(scale * part[value], y, color=objective_color(test), marker=objective_marker(test), linestyle="")
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_title(objective, color=objective_color(objective))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.grid(visible=False, axis="y")
    axes[0, 0].set_yticks(range(len(sets)), [textwrap.fill(name, 26) for name in sets])
    axes[0, 0].set_ylim(len(sets) - 0.5, -0.5)
    figure.supxlabel(f"effect beyond random sets, {unit}", size=11)
    figure.legend(
        handles=objective_handles(tests, prefix="test: "), loc="outside upper center", ncols=min(3, len(tests))
    )
    return list(axes[0])


def regression_scatter(points: pd.DataFrame, slopes: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the change in accuracy against the intact accuracy's distance from chance, with lines through the origin.

    Args:
        points: objective, is_targeted, distance, change in [-1, 1], as `chance_regression.regression_to_chance`
            returns.
        slopes: sets ("targeted" and "random"), slope, as `chance_regression.chance_slopes` returns; one fit.
        ax: where to draw; new Axes if None.
    """
    require_rows(points, ["objective", "is_targeted", "distance", "change"])
    require_rows(slopes, ["sets", "slope"], ["sets"])
    ax, objectives = new_axes(ax, 7.6, 4.8), ordered_objectives(points.objective)
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


def depth_profile(table: pd.DataFrame, ax: Axes | None = None, method: str = "score_kind") -> Axes:
    """Draw which share of the selected neurons lies in each layer; dotted: the same number in every layer.

    Args:
        table: objective, the column ``method``, layer (0-based), share in [0, 1] that sums to 1 over layers.
        ax: where to draw; new Axes if None.
        method: column drawn as line style.
    """
    require_rows(table, ["objective", method, "layer", "share"], ["objective", method, "layer"])
    ax, methods, objectives = new_axes(ax), list(dict.fromkeys(table[method])), ordered_objectives(table.objective)
    for objective in objectives:
        color = objective_color(objective)
        for name, part in table[table.objective == objective].sort_values("layer").groupby(method, sort=False):
            ax.plot(part.layer, part.share, color=color, **style_of(methods.index(name)), label=name)
    ax.axhline(1 / table.layer.nunique(), color=CONTROL_COLOR, linestyle=":", label="uniform")
    ax.set(xlabel="layer (0 = first)", ylabel="share of the selected neurons", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PERCENT)
    outside_legend(ax, legend_handles(objectives, methods, "uniform"))
    return ax
