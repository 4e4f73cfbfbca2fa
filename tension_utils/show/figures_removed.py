"""Figures of one ablation: the targeted set beside its random ones, a gated neuron, and effects on more items."""

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tension_utils.analysis.claims import TARGETED
from tension_utils.analysis.findings import SD, SMALLEST
from tension_utils.conditions import ONLY, SHARED
from tension_utils.show.style import CONTROL_COLOR, new_axes, objective_color, require_rows


def ablation_anatomy(changes: pd.DataFrame) -> Axes:
    """Draw what one model's margin does without its targeted set (a line) and without each random one (dots).

    Args:
        changes: objective, draw (-1 for the targeted set), change; one model and test of `removed.changes_by_draw`.
    """
    require_rows(changes, ["objective", "draw", "change"], ["draw"])
    ax, color = new_axes(8.0, 2.6), objective_color(changes.objective.iloc[0])
    random = changes[changes.draw != TARGETED].change
    (target,), mean = changes[changes.draw == TARGETED].change, random.mean()
    ax.scatter(random, [0.0] * len(random), color=CONTROL_COLOR, s=42, alpha=0.7, zorder=3)
    ax.plot([mean, mean], [-0.3, 0.3], color=CONTROL_COLOR, linestyle=":")
    ax.plot([target, target], [-0.45, 0.45], color=color, linewidth=3)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.annotate("", (target, 0.62), (mean, 0.62), arrowprops={"arrowstyle": "->", "color": "black"})
    ax.text((target + mean) / 2, 0.7, f"effect {target - mean:+.2f}", ha="center", va="bottom")
    ax.text(target, -0.55, "targeted set", color=color, ha="center", va="top")
    ax.text(mean, -0.95, f"mean of {len(random)} random sets", color=CONTROL_COLOR, ha="center", va="top")
    ax.set(ylim=(-1.4, 1.1), yticks=[], xlabel="change in mean margin (intact standard deviations); 0: nothing removed")
    ax.margins(x=0.25)
    ax.spines["left"].set_visible(False)
    return ax


def shared_beside_only(changes: pd.DataFrame) -> list[Axes]:
    """Draw margins without shared neurons and without as many only ones (lines), beside random sets (dots).

    Args:
        changes: test, set, draw (-1 for the set itself), change, as `removed.shared_changes` returns; a line and its
            dots for every seed.
    """
    require_rows(changes, ["test", "set", "draw", "change"], ["test", "set", "base_model", "seed", "draw"])
    tests = list(dict.fromkeys(changes.test))
    figure, axes = plt.subplots(1, len(tests), figsize=(8.0, 2.4), sharex=True, sharey=True, squeeze=False)
    for ax, test in zip(axes[0], tests, strict=True):
        ax.axvline(0, color="black", linewidth=0.8)
        for height, name in ((1, SHARED), (0, ONLY[test])):
            rows = changes[(changes.test == test) & (changes.set == name)]
            is_set = rows.draw == TARGETED
            ax.scatter(rows.change[~is_set], [height] * (~is_set).sum(), color=CONTROL_COLOR, s=30, alpha=0.6, zorder=3)
            color = "black" if name == SHARED else objective_color(test)
            ax.vlines(rows.change[is_set], height - 0.32, height + 0.32, color=color, linewidth=3, zorder=4)
        ax.set(title=f"{test} test", ylim=(-0.6, 1.6), xlabel="change in mean margin (SD)")
        ax.set_yticks([1, 0], [SHARED, "only this\nobjective's"])
        ax.margins(x=0.15)
        ax.locator_params(axis="x", nbins=5)
    return list(axes[0])


def effects_on_more_items(table: pd.DataFrame) -> list[Axes]:
    """Draw effects with their intervals on growing samples of items; the band holds what is too small to matter.

    Args:
        table: test, n_items, effect, ci_low, ci_high, as `removed.effects_by_items` returns.
    """
    require_rows(table, ["test", "n_items", "effect", "ci_low", "ci_high"], ["test", "n_items"])
    tests = list(dict.fromkeys(table.test))
    figure, axes = plt.subplots(1, len(tests), figsize=(8.0, 3.0), sharey=True, squeeze=False)
    for ax, test in zip(axes[0], tests, strict=True):
        part = table[table.test == test]
        ax.axhspan(-SMALLEST[SD], SMALLEST[SD], color="#DDDDDD", alpha=0.6, linewidth=0)
        ax.axhline(0, color="black", linewidth=0.8)
        ax.vlines(part.n_items, part.ci_low, part.ci_high, color=CONTROL_COLOR, linewidth=2)
        ax.plot(part.n_items, part.effect, "o", color="black")
        ax.set_title(f"{test} test")
        ax.set(xlabel="items", xscale="log")
        ax.set_xticks(part.n_items, [f"{n}" for n in part.n_items], minor=False)
        ax.minorticks_off()
    axes[0, 0].set_ylabel("effect on margin (SD)")
    return list(axes[0])


def gated_neuron() -> Axes:
    """Draw a gated MLP's neuron: two branches, their product, a column; what scores read and what removal zeroes."""
    ax = new_axes(8.0, 2.6)
    boxes = {
        (0.08, 0.5): "h\n(residual)",
        (0.32, 0.8): "act(gate · h)\nread by the paper",
        (0.32, 0.2): "up · h",
        (0.58, 0.5): "a = product\nread by scores here",
        (0.86, 0.5): "a × its column of down\nremoval zeroes this",
    }
    for (x, y), text in boxes.items():
        frame = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": CONTROL_COLOR}
        ax.text(x, y, text, ha="center", va="center", size=10, bbox=frame, zorder=3)
    arrows = [((0.12, 0.55), (0.22, 0.75)), ((0.12, 0.45), (0.26, 0.24)), ((0.42, 0.75), (0.5, 0.62))]
    arrows += [((0.38, 0.24), (0.5, 0.4)), ((0.68, 0.5), (0.73, 0.5))]
    for start, end in arrows:
        ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "black"})
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_axis_off()
    return ax
