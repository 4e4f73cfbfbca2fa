"""Figures of where two objectives part: accuracy by depth, gradients by layer, weight changes, attribution on texts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tension_utils.show.style import (
    CONTROL_COLOR,
    LINE_STYLES,
    OTHER_COLORS,
    PERCENT,
    control_handle,
    new_axes,
    objective_color,
    objective_marker,
    ordered_objectives,
    outside_legend,
    require_range,
    require_rows,
)


def depth_curves(table: pd.DataFrame) -> list[Axes]:
    """Draw the accuracy of the reward read at every depth: a panel per trained objective, a color per test.

    Args:
        table: objective, subset (the test's objective), depth, accuracy, ci_low, ci_high, chance_accuracy in [0, 1], of
            one base model, as `accuracy.depth_accuracy` returns.
    """
    names = ["objective", "subset", "depth"]
    require_rows(table, [*names, "accuracy", "ci_low", "ci_high", "chance_accuracy"], names)
    require_range(table, ["accuracy", "ci_low", "ci_high", "chance_accuracy"])
    objectives, tests = ordered_objectives(table.objective), ordered_objectives(table.subset)
    size = (1.2 + 2.4 * max(len(objectives), 1.6), 3.5)
    figure, axes = plt.subplots(1, len(objectives), figsize=size, sharey=True, squeeze=False)
    for ax, objective in zip(axes[0], objectives, strict=True):
        for test in tests:
            part = table[(table.objective == objective) & (table.subset == test)].sort_values("depth")
            color = objective_color(test)
            ax.plot(part.depth, part.accuracy, color=color, marker=objective_marker(test), markersize=4)
            ax.fill_between(part.depth, part.ci_low, part.ci_high, color=color, alpha=0.18, linewidth=0)
        ax.axhline(table.chance_accuracy.mean(), color=CONTROL_COLOR, linestyle=":")
        ax.set_title(objective.replace("harmless-m", "harmless\n-m"), color=objective_color(objective))
        ax.set_xlabel("depth")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_formatter(PERCENT)
    axes[0, 0].set_ylabel("accuracy")
    handles = [
        Line2D([], [], color=objective_color(test), marker=objective_marker(test), label=f"test: {test}")
        for test in tests
    ]
    figure.legend(handles=[*handles, control_handle("chance")], loc="outside lower center", ncols=3)
    return list(axes[0])


COSINES = {  # column -> words
    "corrected_cosine": "helpful and harmless, without noise",
    "cosine": "helpful and harmless, as it is",
    "helpful_halves_cosine": "helpful, two halves",
    "harmless_halves_cosine": "harmless, two halves",
}


def gradient_cosines(table: pd.DataFrame, means: pd.DataFrame) -> Axes:
    """Draw the cosine of two gradients by layer, beside that of two halves of one objective: dots are seeds.

    Args:
        table: seed, layer (0-based) and the columns of `COSINES`, one row per seed and layer, as
            `cosines.objective_cosines` returns.
        means: layer and the same columns, means over seeds with their bounds (``_ci_low``, ``_ci_high``), as
            `parting.seed_means` returns.
    """
    require_rows(table, ["seed", "layer", *COSINES], ["seed", "layer"])
    require_rows(means, ["layer", *COSINES], ["layer"])
    ax, means = new_axes(8.2, 3.3), means.sort_values("layer")
    colors = (OTHER_COLORS[0], CONTROL_COLOR, objective_color("helpful"), objective_color("harmless"))
    for (column, words), color, style in zip(COSINES.items(), colors, LINE_STYLES, strict=False):
        ax.plot(means.layer, means[column], color=color, linestyle=style, label=words)
        ax.plot(table.layer, table[column], color=color, marker="o", linestyle="", markersize=3, alpha=0.6)
        if not column.endswith("halves_cosine"):  # more bands would hide each other
            low, high = means[f"{column}_ci_low"], means[f"{column}_ci_high"]
            ax.fill_between(means.layer, low, high, color=color, alpha=0.15, linewidth=0)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xlabel="layer (0 = first)", ylabel="cosine of gradients", ylim=(-1.15, 1.15))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    outside_legend(ax)
    return ax


def weight_cosines(table: pd.DataFrame) -> Axes:
    """Draw the cosine of the weight changes of two models, a row per pair, beside what blind directions reach.

    Args:
        table: pair, cosine with its bounds (NaN for one seed) and random_cosine, as `parting.weight_table` returns, of
            one base model.
    """
    columns = ["pair", "cosine", "cosine_ci_low", "cosine_ci_high", "random_cosine"]
    require_rows(table, columns, ["pair"])
    ax, y = new_axes(7.6, 1.2 + 0.3 * len(table)), np.arange(len(table))[::-1]
    ax.hlines(y, table.cosine_ci_low, table.cosine_ci_high, color="black", linewidth=1.8)
    ax.plot(table.cosine, y, "o", color="black", label="mean over seeds")
    level = float(table.random_cosine.max())
    for place, label in ((-level, None), (level, "blind directions")):
        ax.axvline(place, color=CONTROL_COLOR, linestyle=":", linewidth=2, label=label)
    ax.set_yticks(y, table.pair)
    ax.set(ylim=(-0.6, len(table) - 0.4), xlabel="cosine of weight changes")
    ax.grid(visible=False, axis="y")
    ax.figure.legend(loc="outside lower center", ncols=2)
    return ax


LINEAR = 1.0  # standard deviations around 0 that are drawn on a linear scale; beyond, the scale is logarithmic


def attribution_scatter(points: pd.DataFrame, words: str) -> Axes:
    """Draw every neuron's attribution on harmless text against that on helpful text, some of them marked.

    Args:
        points: helpful, harmless (standard deviations), is_marked, as `parting.attribution_points` returns.
        words: what is marked.
    """
    require_rows(points, ["helpful", "harmless", "is_marked"])
    ax = new_axes(7.6, 3.7)
    is_opposing = points.helpful * points.harmless < 0
    groups: Sequence[tuple[pd.Series, dict]] = (
        (~points.is_marked, {"color": OTHER_COLORS[2], "s": 4, "alpha": 0.35, "label": "other neuron"}),
        (points.is_marked & ~is_opposing, {"color": "#000000", "s": 14, "marker": "o", "label": f"{words}, same sign"}),
        (points.is_marked & is_opposing, {"color": "#CC79A7", "s": 20, "marker": "^", "label": f"{words}, opposite"}),
    )
    for mask, style in groups:  # one picture, also of a large model: its points would make a page of many megabytes
        ax.scatter(points.helpful[mask], points.harmless[mask], linewidth=0, rasterized=True, **style)
    for axis, values in (("x", points.helpful), ("y", points.harmless)):
        limit = 1.3 * max(float(np.abs(values).max()), LINEAR)
        getattr(ax, f"set_{axis}scale")("symlog", linthresh=LINEAR)
        getattr(ax, f"set_{axis}lim")(-limit, limit)
        getattr(ax, f"{axis}axis").set_major_formatter("{x:g}")
    ax.axhline(0, color="black", linewidth=0.8)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set(xlabel="attribution on helpful text (SD over neurons)", ylabel="attribution on harmless text (SD)")
    outside_legend(ax)
    return ax
