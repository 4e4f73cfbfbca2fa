"""Figures of planted worlds: what a plant carries, which scores find it, and how often claim tests are right."""

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tension_utils.show.style import (
    CONTROL_COLOR,
    OTHER_COLORS,
    PERCENT,
    new_axes,
    objective_color,
    objective_marker,
    outside_legend,
    require_range,
    require_rows,
)

PLANTS = {
    "loud": ("o", "black", "loud plant"),
    "quiet": ("o", "white", "quiet plant"),
    "trained": ("^", "white", "trained world"),
}  # name -> marker, face, words

TRUTHS = {
    "power": ("D", "#0072B2", "claim true: power"),
    "false_positives": ("X", "#D55E00", "claim false: false positives"),
}

LEVEL = 0.05  # of false positives that a test at 5 % may have


def plant_effects(table: pd.DataFrame) -> Axes:
    """Draw the mean margin change that the removal of each set makes on each test.

    Args:
        table: of `planted.verify_plant`: set, test, margin_change.
    """
    require_rows(table, ["set", "test", "margin_change"], ["set", "test"])
    sets, tests = list(dict.fromkeys(table.set)), list(dict.fromkeys(table.test))
    ax = new_axes(6.4, 1.4 + 0.45 * len(sets))
    for index, test in enumerate(tests):
        rows = table[table.test == test].set_index("set").loc[sets]
        y = [len(sets) - 1 - place + 0.14 * (1 - 2 * index) for place in range(len(sets))]
        ax.hlines(y, 0, rows.margin_change, color=objective_color(test), linewidth=2.2)
        style = {"color": objective_color(test), "marker": objective_marker(test), "linestyle": ""}
        ax.plot(rows.margin_change, y, label=f"{test} test", **style)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(sets)), sets[::-1])
    ax.set_xlabel("mean change of the margin (intact standard deviations)")
    ax.grid(visible=False, axis="y")
    outside_legend(ax)
    return ax


def finder_dots(table: pd.DataFrame) -> list[Axes]:
    """Draw how much of the plant each score finds, for loud and quiet plants and for trained worlds, site by site.

    Args:
        table: the table "finders" of a study.

    Returns:
        One Axes per site.
    """
    rows = table[table["plant"].isin(PLANTS)]
    require_rows(rows, ["site", "score_kind", "plant", "precision", "chance"], ["site", "score_kind", "plant"])
    require_range(rows, ["precision", "chance"])
    sites = list(dict.fromkeys(rows.site))
    means = rows.groupby("score_kind").precision.mean().sort_values()
    figure, axes = plt.subplots(
        1, len(sites), sharey=True, figsize=(3.6 * len(sites), 1.6 + 0.33 * len(means)), squeeze=False
    )
    for ax, site in zip(axes[0], sites, strict=True):
        for plant, (marker, face, _) in PLANTS.items():
            part = rows[(rows.site == site) & (rows["plant"] == plant)].set_index("score_kind").reindex(means.index)
            ax.plot(
                part.precision, range(len(means)), marker, markerfacecolor=face, markeredgecolor="black", markersize=7
            )
        ends = (
            rows[rows.site == site].pivot(index="score_kind", columns="plant", values="precision").reindex(means.index)
        )
        ax.hlines(range(len(means)), ends.min(axis=1), ends.max(axis=1), color=CONTROL_COLOR, linewidth=1, zorder=1)
        ax.axvline(rows.chance.mean(), color=CONTROL_COLOR, linestyle=":", linewidth=2)
        ax.set(title=f"site {site}", xlim=(-0.04, 1.04), xlabel="precision at the true count")
        ax.xaxis.set_major_formatter(PERCENT)
    axes[0][0].set_yticks(range(len(means)), means.index)
    style = {"linestyle": "", "markeredgecolor": "black", "markersize": 7}
    handles = [
        Line2D([], [], marker=marker, markerfacecolor=face, label=words, **style)
        for marker, face, words in PLANTS.values()
    ]
    handles.append(Line2D([], [], color=CONTROL_COLOR, linestyle=":", linewidth=2, label="a random ranking"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return list(axes[0])


def error_rate_forest(table: pd.DataFrame) -> Axes:
    """Draw how often each test supports its claim: where the claim is true, and where it is false.

    Args:
        table: of `rates.error_rates`, with a column name that labels each row.
    """
    columns = [f"{truth}{end}" for truth in TRUTHS for end in ("", "_ci_low", "_ci_high")]
    require_rows(table, ["name", *columns], ["name"])
    ax = new_axes(7.2, 1.7 + 0.34 * len(table))
    places = {name: len(table) - 1 - place for place, name in enumerate(table.name)}
    for offset, (truth, (marker, color, label)) in zip((0.13, -0.13), TRUTHS.items(), strict=True):
        rows = table[table[truth].notna()]
        y = [places[name] + offset for name in rows.name]
        ax.hlines(y, rows[f"{truth}_ci_low"], rows[f"{truth}_ci_high"], color=color, linewidth=1.8)
        ax.plot(rows[truth], y, marker, color=color, label=label, linestyle="")
    ax.axvline(LEVEL, color=CONTROL_COLOR, linestyle=":", linewidth=2, label="5 %")
    for place in range(0, len(table), 2):
        ax.axhspan(place - 0.5, place + 0.5, color=OTHER_COLORS[2], alpha=0.12, linewidth=0)
    ax.set_yticks(list(places.values()), list(places))
    ax.set(
        xlim=(-0.02, 1.02), ylim=(-0.5, len(table) - 0.5), xlabel="share of worlds in which the test says: supported"
    )
    ax.xaxis.set_major_formatter(PERCENT)
    ax.grid(visible=False, axis="y")
    ax.figure.legend(loc="outside lower center", ncols=3)
    return ax
