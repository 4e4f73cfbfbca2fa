"""Figures of training and evaluation."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.stats import gaussian_kde

from tension_utils.config import MASKED_ARMS, RATIO_ARMS, SHAM_ARMS, SINGLE_OBJECTIVES
from tension_utils.show.style import (
    CONTROL_COLOR,
    OBJECTIVE_COLORS,
    PERCENT,
    control_handle,
    forest_axes,
    method_handles,
    new_axes,
    note_not_run,
    objective_color,
    objective_handles,
    objective_marker,
    ordered_objectives,
    outside_legend,
    percent_axes,
    require_range,
    require_rows,
    style_of,
)


def tension_matrix(table: pd.DataFrame) -> Axes:
    """Draw accuracy by training objective (rows) and test (columns).

    Args:
        table: objective, test, accuracy, ci_low, ci_high in [0, 1], n_items; one row per cell.
    """
    require_rows(table, ["objective", "test", "accuracy", "ci_low", "ci_high", "n_items"], ["objective", "test"])
    objectives, tests = ordered_objectives(table.objective), list(dict.fromkeys(table.test))
    if set(tests) <= set(OBJECTIVE_COLORS):
        tests = ordered_objectives(table.test)
    ax = new_axes(2.9 + 1.55 * len(tests), 1.3 + 0.85 * len(objectives))
    grid = table.pivot(index="objective", columns="test", values="accuracy").loc[objectives, tests]
    image = ax.imshow(grid.to_numpy(float), cmap="PuOr_r", vmin=0, vmax=1, aspect="auto")
    for row in table.itertuples():
        x, y = tests.index(row.test), objectives.index(row.objective)
        color = "white" if abs(row.accuracy - 0.5) > 0.36 else "black"
        ax.text(x, y - 0.2, f"{100 * row.accuracy:.1f} %", ha="center", va="center", color=color, weight="bold")
        ax.text(
            x,
            y + 0.17,
            f"[{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]\nn = {row.n_items:,}",
            ha="center",
            va="center",
            color=color,
            size=9,
        )
    ax.set_xticks(range(len(tests)), tests)
    ax.set_yticks(range(len(objectives)), objectives)
    ax.set(xlabel="test", ylabel="trained on")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = ax.figure.colorbar(image, ax=ax, format=PERCENT, ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.set_label("accuracy (50 % = chance)")
    bar.outline.set_visible(False)
    return ax


def training_curves(
    table: pd.DataFrame, value: str = "validation_accuracy", label: str = "validation accuracy"
) -> Axes:
    """Draw a training log: thin lines are models, one per seed and base model, the thick one their mean.

    Args:
        table: objective, seed, step and the column ``value``, and base_model where there are several; rows without a
            value are skipped.
        value: column drawn; names with "accuracy" get a percent axis and a chance line.
        label: of the y axis, with its unit.
    """
    require_rows(table, ["objective", "seed", "step", value])
    table = table.dropna(subset=[value])
    models = [*(["base_model"] if "base_model" in table else []), "seed"]
    require_rows(table, [value], ["objective", *models, "step"])
    ax = new_axes()
    for objective in ordered_objectives(table.objective):
        part, color = table[table.objective == objective], objective_color(objective)
        for _, run in part.groupby(models):
            run = run.sort_values("step")
            ax.plot(run.step, run[value], color=color, alpha=0.35, linewidth=0.9)
        mean = part.groupby("step")[value].mean()
        ax.plot(
            mean.index, mean, color=color, linewidth=2.4, label=f"{objective} (mean of {part.groupby(models).ngroups})"
        )
    if "accuracy" in value:
        ax.axhline(0.5, color=CONTROL_COLOR, linestyle=":", label="chance")
        ax.yaxis.set_major_formatter(PERCENT)
    ax.set(xlabel="step (optimizer updates)", ylabel=label)
    outside_legend(ax)
    return ax


def accuracy_forest(table: pd.DataFrame) -> Axes:
    """Draw accuracies with intervals, one line per subset, one marker per objective.

    Args:
        table: objective, subset, accuracy, ci_low, ci_high, chance_accuracy in [0, 1]. A row whose accuracy
            is missing says why in a column ``not_run``, and the figure shows it; its objective may be missing too.
            Subsets are drawn from top to bottom in the order of the table.
    """
    shares = ["accuracy", "ci_low", "ci_high", "chance_accuracy"]
    require_rows(table, ["objective", "subset", *shares], ["objective", "subset"])
    require_range(table, shares)
    ax, y, objectives = forest_axes(table, "subset")
    for objective in objectives:
        is_part, color = (
            (table.objective == objective).to_numpy() & table.accuracy.notna().to_numpy(),
            objective_color(objective),
        )
        part = table[is_part]
        ax.hlines(y[is_part], part.ci_low, part.ci_high, color=color, linewidth=1.8)
        ax.plot(part.accuracy, y[is_part], marker=objective_marker(objective), color=color, linestyle="")
    names = list(dict.fromkeys(table.subset))
    chance = table.dropna(subset=["accuracy"]).drop_duplicates("subset")
    middle = chance.subset.map(names.index).to_numpy(float)
    ax.vlines(chance.chance_accuracy, middle - 0.45, middle + 0.45, color=CONTROL_COLOR, linestyle=":", zorder=1.4)
    ax.set(xlabel="accuracy, 95 % interval", xlim=(-0.02, 1.02))
    note_not_run(ax, table, "subset", "accuracy", y)
    ax.xaxis.set_major_formatter(PERCENT)
    outside_legend(ax, [*objective_handles(objectives), control_handle("chance")])
    return ax


SIGNIFICANCE = 0.05  # adjusted p-values below it get a filled marker

BALANCED_LEVELS = (0.25, 0.5, 0.75)

CORNERS = {(0, 1): "refuses everything", (1, 1): "right on both", (0, 0): "wrong on both", (1, 0): "answers everything"}

PLANE_COLUMNS = [f"{name}_accuracy{end}" for name in ("respond", "refuse") for end in ("", "_ci_low", "_ci_high")]

MIN_DENSITY_VALUES = 5  # fewer margins are drawn one by one

TAIL = 0.002  # share of margins at either end that the density axis may leave out


def difference_forest(table: pd.DataFrame, row: str = "subset", prefix: str = "against ") -> Axes:
    """Draw mixed minus single accuracy with intervals; a filled marker stays significant after adjustment.

    Args:
        table: the column ``row``; objective, the single one compared against; difference, ci_low, ci_high in [-1, 1];
            p_adjusted. A row whose difference is missing says why in a column ``not_run``, and the figure shows it.
        row: column that names the lines, drawn from top to bottom in the order of the table.
        prefix: of the objectives in the legend.
    """
    require_rows(table, ["objective", row, "difference", "ci_low", "ci_high", "p_adjusted"], ["objective", row])
    require_range(table, ["difference", "ci_low", "ci_high"], -1, 1)
    require_range(table, ["p_adjusted"])
    ax, y, objectives = forest_axes(table, row)
    ax.axvline(0, color="black", linewidth=0.8, zorder=1.4)
    for objective in objectives:
        is_part = ((table.objective == objective) & table.difference.notna()).to_numpy()
        part, color = table[is_part], objective_color(objective)
        faces = [color if p < SIGNIFICANCE else "white" for p in part.p_adjusted]
        ax.hlines(y[is_part], 100 * part.ci_low, 100 * part.ci_high, color=color, linewidth=1.8)
        style = {"marker": objective_marker(objective), "edgecolors": color, "linewidths": 1.4, "zorder": 3}
        ax.scatter(100 * part.difference, y[is_part], s=36, facecolors=faces, **style)
    farthest = table[["difference", "ci_low", "ci_high"]].abs().max().max()
    limit = 1.08 * max(5.0, 100 * farthest) if farthest == farthest else 5.0  # NaN if nothing was run
    ax.set(xlabel="mixed minus single accuracy\n(percentage points), 95 % interval", xlim=(-limit, limit))
    note_not_run(ax, table, row, "difference", y)
    ax.set_title("mixed is worse", loc="left", size=10, color=CONTROL_COLOR)
    ax.set_title("mixed is better", loc="right", size=10, color=CONTROL_COLOR)
    faces = {f"adjusted p < {SIGNIFICANCE}": CONTROL_COLOR, f"adjusted p ≥ {SIGNIFICANCE}": "white"}
    style = {"marker": "o", "linestyle": "", "color": CONTROL_COLOR}
    fills = [Line2D([], [], **style, markerfacecolor=face, label=label) for label, face in faces.items()]
    outside_legend(ax, [*objective_handles(objectives, prefix=prefix), *fills])
    return ax


def _draw_plane(ax: Axes) -> None:
    """Draw what a point in the plane is compared with: the unit square, balanced accuracies, chance, the corners."""
    ax.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0], color="#BBBBBB", linewidth=0.8)
    for level in BALANCED_LEVELS:
        ends = np.array([max(0.0, 2 * level - 1), min(1.0, 2 * level)])
        ax.plot(ends, 2 * level - ends, color="#999999", linewidth=0.9, linestyle=(0, (5, 4)))
        x = level + 0.36 * (ends[1] - ends[0]) / 2
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        text = f"balanced {100 * level:.0f} %"
        ax.text(x, 2 * level - x, text, rotation=-45, ha="center", va="center", size=8.5, color="#666666", bbox=box)
    for (x, y), words in CORNERS.items():
        side = {"ha": "right" if x else "left", "va": "bottom" if y else "top"}
        ax.text(x, 1.025 if y else -0.025, words, size=9.5, style="italic", color=CONTROL_COLOR, **side)
    ax.plot(0.5, 0.5, marker="X", markersize=9, color=CONTROL_COLOR, linestyle="")


def refuse_respond_plane(table: pd.DataFrame, runs: pd.DataFrame | None = None) -> Axes:
    """Draw accuracy where answering is right (across) and where refusing is right (up), with interval crosses.

    Args:
        table: objective, respond_accuracy and refuse_accuracy, each with _ci_low and _ci_high, in [0, 1]; one row per
            objective.
        runs: objective, respond_accuracy, refuse_accuracy of single reward models, drawn as small points.
    """
    require_rows(table, ["objective", *PLANE_COLUMNS], ["objective"])
    for rows in [table] if runs is None else [table, runs]:
        require_rows(rows, ["objective", "respond_accuracy", "refuse_accuracy"])
        require_range(rows, [column for column in PLANE_COLUMNS if column in rows])
        if rows[["respond_accuracy", "refuse_accuracy"]].isna().any(axis=None):
            raise ValueError("the figure needs items of both kinds; select rows that have respond and refuse")
    ax, objectives = new_axes(6.8, 5.0), ordered_objectives(table.objective)
    _draw_plane(ax)
    for objective in ordered_objectives(runs.objective) if runs is not None else []:
        part, marker = runs[runs.objective == objective], objective_marker(objective)
        ax.scatter(
            part.respond_accuracy,
            part.refuse_accuracy,
            s=16,
            marker=marker,
            color=objective_color(objective),
            alpha=0.45,
            lw=0,
        )
    for row in table.itertuples():
        color = objective_color(row.objective)
        ax.hlines(
            row.refuse_accuracy, row.respond_accuracy_ci_low, row.respond_accuracy_ci_high, color=color, linewidth=2
        )
        ax.vlines(
            row.respond_accuracy, row.refuse_accuracy_ci_low, row.refuse_accuracy_ci_high, color=color, linewidth=2
        )
        style = {"markersize": 11, "markeredgecolor": "white", "linestyle": "", "zorder": 4}
        ax.plot(row.respond_accuracy, row.refuse_accuracy, marker=objective_marker(row.objective), color=color, **style)
    ax.set(xlabel="accuracy where answering is right", ylabel="accuracy where refusing is right")
    ax.set(xlim=(-0.06, 1.06), ylim=(-0.09, 1.09), aspect="equal", xticks=np.arange(5) / 4, yticks=np.arange(5) / 4)
    percent_axes(ax)
    ax.grid(visible=False)
    chance_handle = Line2D([], [], marker="X", color=CONTROL_COLOR, linestyle="", label="chance")
    small = Line2D([], [], marker="o", markersize=3, color=CONTROL_COLOR, alpha=0.6, linestyle="", label="one model")
    outside_legend(ax, [*objective_handles(objectives), *([] if runs is None else [small]), chance_handle])
    return ax


FURTHER_KINDS = {"sham labels": SHAM_ARMS, "mixing ratios": RATIO_ARMS, "trained under a mask": MASKED_ARMS}

FURTHER_MARKERS = dict(zip(FURTHER_KINDS, ("x", "d", "*"), strict=True))


def frontier_plane(lines: pd.DataFrame, arms: pd.DataFrame) -> Axes:
    """Draw accuracy on helpful (across) and harmless tests (up): frontiers as lines, reward models as points.

    Args:
        lines: of `plane_table` by frontier and harmless_weight; a point per weight, with faint interval crosses.
        arms: of `plane_table` by objective, drawn with interval crosses; arms beyond the main four are small and grey.
    """
    require_rows(lines, ["frontier", "harmless_weight", *SINGLE_OBJECTIVES], ["frontier", "harmless_weight"])
    require_rows(arms, ["objective", *SINGLE_OBJECTIVES], ["objective"])
    require_range(lines, SINGLE_OBJECTIVES)
    require_range(arms, SINGLE_OBJECTIVES)
    ax, (across, up), frontiers = new_axes(4.4, 5.0), SINGLE_OBJECTIVES, list(dict.fromkeys(lines.frontier))
    for index, (_, line) in enumerate(lines.groupby("frontier", sort=False)):
        line = line.sort_values("harmless_weight")
        _crosses(ax, line, CONTROL_COLOR, alpha=0.15)
        ax.plot(line[across], line[up], color=CONTROL_COLOR, markersize=4, **style_of(index))
    kinds = {}
    for _, row in arms.iterrows():
        kind = next((kind for kind, names in FURTHER_KINDS.items() if row.objective in names), row.objective)
        is_main = kind == row.objective
        color = objective_color(row.objective) if is_main else CONTROL_COLOR
        look = {"marker": objective_marker(row.objective) if is_main else FURTHER_MARKERS[kind], "linestyle": ""}
        look |= {"color": color, "markersize": 11 if is_main else 7, "markeredgecolor": "white" if is_main else color}
        _crosses(ax, row.to_frame().T, color, alpha=0.6 if is_main else 0.25)
        ax.plot(row[across], row[up], zorder=4, **look)
        kinds.setdefault(kind, Line2D([], [], label=kind, **look | {"markersize": 6}))
    for draw in (ax.axvline, ax.axhline):
        draw(0.5, color=CONTROL_COLOR, linestyle=":", linewidth=1)
    ax.set(xlabel=f"accuracy on the {across} test", ylabel=f"accuracy on the {up} test")
    percent_axes(ax)
    handles = [*kinds.values(), *method_handles(frontiers)]
    ax.figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9)
    return ax


def _crosses(ax: Axes, rows: pd.DataFrame, color: str, alpha: float) -> None:
    """Draw the intervals of points in the plane, where they have any."""
    across, up = SINGLE_OBJECTIVES
    if f"{across}_ci_low" not in rows:
        return
    ax.hlines(rows[up], rows[f"{across}_ci_low"], rows[f"{across}_ci_high"], color=color, alpha=alpha, linewidth=1.4)
    ax.vlines(rows[across], rows[f"{up}_ci_low"], rows[f"{up}_ci_high"], color=color, alpha=alpha, linewidth=1.4)


def reliability_diagram(table: pd.DataFrame) -> Axes:
    """Draw how often a ranking is right against how sure the model was of it; a larger marker holds more items.

    Args:
        table: objective, predicted in [0.5, 1], accuracy, ci_low, ci_high in [0, 1], n_pairs; one row per bin. Bins
            without items (accuracy missing) are left out.
    """
    require_rows(table, ["objective", "predicted", "accuracy", "ci_low", "ci_high", "n_pairs"])
    table = table.dropna(subset=["accuracy"]).sort_values("predicted")
    require_rows(table, ["accuracy"], ["objective", "predicted"])
    require_range(table, ["predicted"], 0.5, 1)
    require_range(table, ["accuracy", "ci_low", "ci_high"])
    ax, objectives, most = new_axes(7.0, 4.6), ordered_objectives(table.objective), table.n_pairs.max()
    ax.plot([0.5, 1], [0.5, 1], color=CONTROL_COLOR, linestyle=":")
    for objective in objectives:
        part, color = table[table.objective == objective], objective_color(objective)
        ax.vlines(part.predicted, part.ci_low, part.ci_high, color=color, linewidth=1.4)
        ax.plot(part.predicted, part.accuracy, color=color, linewidth=1.2)
        style = {"marker": objective_marker(objective), "color": color, "edgecolors": "white", "zorder": 3}
        ax.scatter(part.predicted, part.accuracy, s=20 + 130 * part.n_pairs / most, **style)
    lowest = min(0.5, table[["accuracy", "ci_low"]].min().min())
    bottom = 0.5 if lowest >= 0.5 else np.floor(10 * lowest) / 10  # below chance must stay in sight
    ax.set(xlim=(0.49, 1.01), ylim=(bottom - 0.02, 1.02))
    ax.set(xlabel="predicted probability of the ranking", ylabel="share of rankings that are right")
    percent_axes(ax)
    for x, y, words, va in ((0.02, 0.97, "underconfident", "top"), (0.75, 0.03, "overconfident", "bottom")):
        ax.text(x, y, words, va=va, transform=ax.transAxes, size=9.5, style="italic", color=CONTROL_COLOR)
    sizes = [
        Line2D([], [], marker="o", markersize=(20 + 130 * n / most) ** 0.5, color="#999999", lw=0, label=f"n = {n:,}")
        for n in sorted({int(table.n_pairs.min()), int(most)})
    ]
    outside_legend(ax, [*objective_handles(objectives, "-"), control_handle("as predicted"), *sizes])
    return ax


def margin_densities(table: pd.DataFrame) -> list[Axes]:
    """Draw the density of margins by objective, one panel per test; below zero the ranking is wrong.

    Args:
        table: objective, test, margin in standard deviations of its reward model; one row per item.
            Fewer than five margins, or equal ones, are drawn as ticks. The outermost 0.2 % may lie outside the axis.
    """
    require_rows(table, ["objective", "test", "margin"])
    if not np.isfinite(table.margin.to_numpy(float)).all():
        raise ValueError("the figure needs finite margins; drop or mend the rows without one")
    objectives, facets = ordered_objectives(table.objective), list(dict.fromkeys(table.test))
    n_columns = 2 if len(facets) == 4 else min(3, len(facets))
    low, high = min(table.margin.quantile(TAIL), 0.0), max(table.margin.quantile(1 - TAIL), 0.0)
    pad = 0.08 * (high - low) or 1.0
    grid, n_rows = np.linspace(low - pad, high + pad, 300), -(-len(facets) // n_columns)
    figure, axes = plt.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    figure.set_size_inches(0.9 + (2.7 if n_columns == 3 else 3.2) * max(n_columns, 1.4), 1.1 + 2.6 * n_rows)
    for index, (ax, name) in enumerate(zip(axes.flat, facets, strict=False)):
        panel = table[table.test == name]
        ax.axvline(0, color="black", linewidth=0.8)
        for objective in objectives:
            _draw_density(ax, panel.margin[panel.objective == objective].to_numpy(float), grid, objective)
        n = " to ".join(f"{count:,}" for count in sorted(set(panel.objective.value_counts().agg(["min", "max"]))))
        ax.set_title(f"{textwrap.fill(str(name), 30)}\nn = {n}", size=10)
        ax.set(xlim=(grid[0], grid[-1]), yticks=[])
        ax.tick_params(labelbottom=index + n_columns >= len(facets))
    for ax in axes.flat[len(facets) :]:
        ax.remove()
    axes.flat[0].set_ylim(bottom=0)  # only now: it ends the scaling to the highest panel
    figure.supxlabel("margin (standard deviations); above 0: ranked right", size=11)
    figure.supylabel("density", size=11)
    figure.legend(handles=objective_handles(objectives, "-"), loc="outside upper center", ncols=len(objectives))
    return list(axes.flat[: len(facets)])


def _draw_density(ax: Axes, values: np.ndarray, grid: np.ndarray, objective: str) -> None:
    """Draw one density with its marker at the peak, or ticks where there is none to estimate."""
    color, marker = objective_color(objective), objective_marker(objective)
    if len(values) < MIN_DENSITY_VALUES or np.ptp(values) < 1e-9 * max(1.0, np.abs(values).max()):
        ax.plot(values, np.zeros(len(values)), marker="|", markersize=28, markeredgewidth=2, color=color, linestyle="")
        return
    density = gaussian_kde(values)(grid)
    ax.plot(grid, density, color=color, marker=marker, markevery=[int(density.argmax())], markersize=6)
    ax.fill_between(grid, density, color=color, alpha=0.1, linewidth=0)


SPREADS = ((0.05, 0.95, 1.2), (0.25, 0.75, 5.0))  # quantiles, and the width of the line between them


def conflict_margins(conflicts: pd.DataFrame, sides: pd.DataFrame) -> list[Axes]:
    """Draw the margins on conflicting pairs, one panel per test: median, middle half and middle nine tenths.

    Args:
        conflicts: model (an objective, or another name, drawn in grey), test, margin; of `margins.conflicting_margins`.
        sides: model, test, share_with_own; of `margins.conflict_sides`.
    """
    require_rows(conflicts, ["model", "test", "margin"])
    require_rows(sides, ["model", "test", "share_with_own"], ["model", "test"])
    models, tests = list(dict.fromkeys(conflicts.model)), ordered_objectives(conflicts.test)
    shares = sides.set_index(["model", "test"]).share_with_own
    figure, axes = plt.subplots(
        1, len(tests), figsize=(9.0, 1.5 + 0.55 * len(models)), sharex=True, sharey=True, squeeze=False
    )
    for ax, test in zip(axes[0], tests, strict=True):
        ax.axvline(0, color="black", linewidth=0.8, zorder=1.4)
        for y, model in enumerate(models):
            margin = conflicts.margin[(conflicts.model == model) & (conflicts.test == test)].astype(float)
            color = objective_color(model) if model in OBJECTIVE_COLORS else CONTROL_COLOR
            for low, high, width in SPREADS:
                ax.hlines(y, margin.quantile(low), margin.quantile(high), color=color, linewidth=width)
            ax.plot(margin.median(), y, marker="o", markersize=8, color=color, markeredgecolor="white", zorder=3)
            words = f"{100 * shares[model, test]:.0f} %"
            ax.text(1.02, y, words, transform=ax.get_yaxis_transform(), va="center")
        ax.set_title(f"{test} test", size=11)
        ax.text(1.02, -0.62, "with own", transform=ax.get_yaxis_transform(), va="center", size=8.5, color=CONTROL_COLOR)
        ax.set(ylim=(len(models) - 0.5, -0.9))
        ax.grid(visible=False, axis="y")
    axes[0, 0].set_yticks(range(len(models)), [textwrap.fill(name, 18, break_on_hyphens=True) for name in models])
    figure.supxlabel("margin (SD): left, with the other objective's model; right, with the own one's", size=11)
    return list(axes[0])


def cost_curve(table: pd.DataFrame, points: pd.DataFrame, line: pd.DataFrame | None = None) -> Axes:
    """Draw what mixing costs against training pairs: a dot with its interval per size, and the line through them.

    Args:
        table: n_pairs, cost, ci_low, ci_high, shares in [-1, 1].
        points: n_pairs and cost of every training run.
        line: n_pairs, cost, low and high of the fitted line and its band; its part beyond the largest size is dashed.
    """
    require_rows(table, ["n_pairs", "cost", "ci_low", "ci_high"], ["n_pairs"])
    ax, largest = new_axes(), table.n_pairs.max()
    if line is not None:
        ax.fill_between(line.n_pairs, line.low, line.high, color=CONTROL_COLOR, alpha=0.15, linewidth=0, label="95 %")
        for part, style, name in (
            (line[line.n_pairs <= largest], "-", "line through the runs"),
            (line[line.n_pairs >= largest], "--", "if it goes on"),
        ):
            ax.plot(part.n_pairs, part.cost, style, color=CONTROL_COLOR, label=name)
    color = OBJECTIVE_COLORS["helpful-harmless"]
    ax.plot(points.n_pairs, points.cost, ".", color=color, alpha=0.5, label="one training run")
    ax.vlines(table.n_pairs, table.ci_low, table.ci_high, color=color, linewidth=1.8)
    ax.plot(table.n_pairs, table.cost, "o", color=color, label="mean of a size, 95 % interval")
    ax.axhline(0, color=CONTROL_COLOR, linestyle=":")
    ends = [] if line is None else [line.n_pairs.max()]
    ax.set_xscale("log", base=2)
    ticks = [*table.n_pairs.iloc[[0, -1]], *ends]  # those between would run into each other
    ax.set_xticks(ticks, [f"{value:,.0f}" for value in ticks])
    ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}")
    ax.set(xlabel="training pairs per model", ylabel="cost of mixing (points)")
    outside_legend(ax)
    return ax


def mixture_lines(table: pd.DataFrame) -> Axes:
    """Draw accuracy on both tests against the share of helpful pairs among as many.

    Args:
        table: helpful_share, and helpful, harmless and mean in [0, 1], each with <name>_ci_low and <name>_ci_high.
    """
    require_rows(table, ["helpful_share", "helpful", "harmless", "mean"], ["helpful_share"])
    ax = new_axes()
    names = {test: f"{test} test" for test in SINGLE_OBJECTIVES} | {"mean": "mean of both"}
    for name, label in names.items():
        color = CONTROL_COLOR if name == "mean" else objective_color(name)
        marker = "d" if name == "mean" else objective_marker(name)
        ax.vlines(table.helpful_share, table[f"{name}_ci_low"], table[f"{name}_ci_high"], color=color, linewidth=1.4)
        ax.plot(
            table.helpful_share, table[name], "--" if name == "mean" else "-", marker=marker, color=color, label=label
        )
    ax.axhline(0.5, color=CONTROL_COLOR, linestyle=":", label="chance")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PERCENT)
    ax.set(xlabel="helpful pairs among all", ylabel="accuracy, 95 % interval", xticks=table.helpful_share)
    outside_legend(ax)
    return ax
