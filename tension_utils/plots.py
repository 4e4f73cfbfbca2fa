"""The book's figures: a tidy table goes in, Axes come out.

Color is the objective, line style the method, a band the 95 % interval, grey and dotted a chance level or control.
Call `use_style` once in a notebook's Setup.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tension_utils.evaluation_plots import (
    difference_forest,
    margin_densities,
    radar,
    refuse_respond_plane,
    reliability_diagram,
)
from tension_utils.neuron_plots import ablation_curves, ablation_panels, depth_profile
from tension_utils.plot_style import (
    CONTROL_COLOR,
    OBJECTIVE_COLORS,
    PERCENT,
    control_handle,
    forest_axes,
    new_axes,
    note_not_run,
    objective_color,
    objective_handles,
    objective_marker,
    ordered_objectives,
    outside_legend,
    require_range,
    require_rows,
    use_style,
)

__all__ = [
    "ablation_curves",
    "ablation_panels",
    "accuracy_forest",
    "depth_profile",
    "difference_forest",
    "margin_densities",
    "radar",
    "refuse_respond_plane",
    "reliability_diagram",
    "tension_matrix",
    "training_curves",
    "use_style",
]


def tension_matrix(table: pd.DataFrame, ax: Axes | None = None, test: str = "test") -> Axes:
    """Draw accuracy by training objective (rows) and test (columns).

    Args:
        table: objective, the column ``test``, accuracy, ci_low, ci_high in [0, 1], n_items; one row per cell.
        ax: where to draw; new Axes if None.
        test: name of the test column.
    """
    require_rows(table, ["objective", test, "accuracy", "ci_low", "ci_high", "n_items"], ["objective", test])
    objectives, tests = ordered_objectives(table.objective), list(dict.fromkeys(table[test]))
    if set(tests) <= set(OBJECTIVE_COLORS):
        tests = ordered_objectives(table[test])
    ax = new_axes(ax, 2.9 + 1.55 * len(tests), 1.3 + 0.85 * len(objectives))
    grid = table.pivot(index="objective", columns=test, values="accuracy").loc[objectives, tests]
    image = ax.imshow(grid.to_numpy(float), cmap="PuOr_r", vmin=0, vmax=1, aspect="auto")
    for row in table.itertuples():
        x, y = tests.index(getattr(row, test)), objectives.index(row.objective)
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
    table: pd.DataFrame, ax: Axes | None = None, value: str = "validation_accuracy", label: str = "validation accuracy"
) -> Axes:
    """Draw a training log: thin lines are seeds, the thick one their mean.

    Args:
        table: objective, seed, step and the column ``value``; rows without a value are skipped.
        ax: where to draw; new Axes if None.
        value: column drawn; names with "accuracy" get a percent axis and a chance line.
        label: of the y axis, with its unit.
    """
    require_rows(table, ["objective", "seed", "step", value])
    table = table.dropna(subset=[value])
    require_rows(table, [value], ["objective", "seed", "step"])
    ax = new_axes(ax)
    for objective in ordered_objectives(table.objective):
        part, color = table[table.objective == objective], objective_color(objective)
        for _, run in part.groupby("seed"):
            run = run.sort_values("step")
            ax.plot(run.step, run[value], color=color, alpha=0.35, linewidth=0.9)
        mean = part.groupby("step")[value].mean()
        ax.plot(mean.index, mean, color=color, linewidth=2.4, label=f"{objective} (mean of {part.seed.nunique()})")
    if "accuracy" in value:
        ax.axhline(0.5, color=CONTROL_COLOR, linestyle=":", label="chance")
        ax.yaxis.set_major_formatter(PERCENT)
    ax.set(xlabel="step (optimizer updates)", ylabel=label)
    outside_legend(ax)
    return ax


def accuracy_forest(
    table: pd.DataFrame, ax: Axes | None = None, row: str = "subset", reference: tuple[str, str] | None = None
) -> Axes:
    """Draw accuracies with intervals, one line per row name, one marker per objective.

    Args:
        table: objective, the column ``row``, accuracy, ci_low, ci_high, chance_accuracy in [0, 1]. A row whose accuracy
            is missing says why in a column ``not_run``, and the figure shows it; its objective may be missing too.
        ax: where to draw; new Axes if None.
        row: column that names the lines, drawn from top to bottom in the order of the table.
        reference: a column of other accuracies, drawn as hollow markers, and its name in the legend.
    """
    shares = ["accuracy", "ci_low", "ci_high", "chance_accuracy", *(reference or ())[:1]]
    require_rows(table, ["objective", row, *shares], ["objective", row])
    require_range(table, shares)
    ax, y, objectives = forest_axes(table, row, ax)
    for objective in objectives:
        is_part, color = (
            (table.objective == objective).to_numpy() & table.accuracy.notna().to_numpy(),
            objective_color(objective),
        )
        part = table[is_part]
        ax.hlines(y[is_part], part.ci_low, part.ci_high, color=color, linewidth=1.8)
        style = {"marker": objective_marker(objective), "color": color, "linestyle": ""}
        ax.plot(part.accuracy, y[is_part], **style)
        if reference:
            ax.plot(part[reference[0]], y[is_part], **style, markerfacecolor="none", markersize=10)
    names = list(dict.fromkeys(table[row]))
    chance = table.dropna(subset=["accuracy"]).drop_duplicates(row)
    middle = chance[row].map(names.index).to_numpy(float)
    ax.vlines(chance.chance_accuracy, middle - 0.45, middle + 0.45, color=CONTROL_COLOR, linestyle=":", zorder=1.4)
    ax.set(xlabel="accuracy, 95 % interval", xlim=(-0.02, 1.02))
    note_not_run(ax, table, row, "accuracy", y)
    ax.xaxis.set_major_formatter(PERCENT)
    handles = [*objective_handles(objectives), control_handle("chance")]
    if reference:
        hollow = {"marker": "o", "markersize": 10, "markerfacecolor": "none", "color": "black", "linestyle": ""}
        handles.append(Line2D([], [], label=reference[1], **hollow))
    outside_legend(ax, handles)
    return ax
