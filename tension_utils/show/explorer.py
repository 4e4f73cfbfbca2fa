"""The explorer: every neuron set, figure by figure, without a kernel."""

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tension_utils.analysis.accuracy import seeds_text
from tension_utils.analysis.removal import effect_table, placed
from tension_utils.conditions import CONTROL, EQUAL_SIZE, EVERYTHING, MIXED_SETS, NATURAL
from tension_utils.config import MIXED, SINGLE_OBJECTIVES
from tension_utils.show.figures_neurons import ablation_curves
from tension_utils.show.style import CONTROL_COLOR, STYLE, control_handle, objective_color
from tension_utils.statistics import Bootstrap, ablation_changes, compared_rows, mean_table

INCHES = (4.6, 4.6)  # of every picture, so that nothing moves when one takes another's place

FONTS = "DejaVu Sans,Verdana,Arial,sans-serif"

SVG = "http://www.w3.org/2000/svg"

PIXELS = tuple(round(72 * inches) for inches in INCHES)  # of the SVG: a point is a pixel

SVG_STYLE = MappingProxyType(
    STYLE
    | {
        "svg.fonttype": "none",  # letters as text: a third of the bytes
        "axes.titlesize": 11,
        "axes.grid.axis": "y",
        "xtick.bottom": False,
        "ytick.left": False,
    }
)


def few(values: Sequence[float], limit: int) -> list[float]:
    """Return at most ``limit`` (two or more) of the sorted values, first and last among them, evenly spread.

    >>> few([0.02, 0.04, 0.06, 0.3, 1.0], 3)
    [0.02, 0.06, 1.0]
    """
    values = sorted(set(values))
    if len(values) <= limit:
        return values
    return [values[index] for index in np.linspace(0, len(values) - 1, max(2, limit)).round().astype(int)]


def svg_text(figure: Figure) -> str:
    """Return a figure as SVG without what a page does not need, numbers to a tenth of a pixel; close it."""
    buffer = io.StringIO()
    for artist in figure.findobj(lambda artist: artist.get_clip_on()):
        artist.set_clip_on(False)  # the limits hold everything
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    plt.close(figure)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(buffer.getvalue())
    root[:] = [child for child in _without_plain_groups(root) if not child.tag.endswith("metadata")]
    root.set("font-family", FONTS)
    svg = ElementTree.tostring(root, encoding="unicode")
    svg = re.sub(r"font-family: [^;\"]*;? ?|; stroke-linecap: \w+", "", svg)
    svg = re.sub(r"-?\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), svg)
    return re.sub(r"\s*\n\s*|(?<=[:;]) ", "", svg).replace('"', "'")  # in an address " takes three bytes


def _without_plain_groups(node: ElementTree.Element) -> list[ElementTree.Element]:
    """Return the children of a node, those of groups that say nothing but their name in place of the group."""
    kept = []
    for child in node:
        child[:] = _without_plain_groups(child)
        is_plain = child.tag == f"{{{SVG}}}g" and not set(child.attrib) - {"id"}
        kept += list(child) if is_plain else [child]
    return kept


@contextmanager
def _panels(limits: tuple[float, float]) -> Iterator[tuple[Figure, dict[str, Axes]]]:
    """Give a figure with one panel per test, above each other, in the style of these pictures."""
    with mpl.rc_context(dict(SVG_STYLE)):
        figure, axes = plt.subplots(2, 1, figsize=INCHES, sharex=True, sharey=True)
        panels = dict(zip(SINGLE_OBJECTIVES, axes, strict=True))
        for test, ax in panels.items():
            ax.set_title(f"{test} test", loc="left")
            ax.set_ylim(limits)
            ax.yaxis.set_major_locator(MaxNLocator(4))
        figure.supylabel("change in accuracy (percentage points)", size=10)
        yield figure, panels


def curve_picture(rows: pd.DataFrame, fraction: float, limits: tuple[float, float]) -> str:
    """Return the change in accuracy against the fraction removed, one fraction marked, as SVG.

    Args:
        rows: of `explorer.explorer_effects`; one objective and score kind, with the set of all neurons.
        fraction: the marked one.
        limits: of the vertical axes, in percentage points.
    """
    with _panels(limits) as (figure, panels):
        for test, ax in panels.items():
            part = rows[rows.test == test]
            ablation_curves(part, ax)
            ax.get_legend().remove()
            ax.set(xlabel="", ylabel="")
            ax.axvline(100 * fraction, color=CONTROL_COLOR, linewidth=0.8)
            _mark(ax, 100 * part.fraction, part, np.isclose(part.fraction, fraction))
        ticks = few(rows.fraction, 5)
        ax.set(xscale="log", xlabel="neurons removed (% of all, log scale)")
        ax.set_xticks([100 * tick for tick in ticks], [f"{100 * tick:g}" for tick in ticks])
        ax.minorticks_off()
        color = objective_color(rows.objective.iloc[0])
        handles = [Line2D([], [], color=color, marker="o", label="this set"), control_handle("random sets")]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        return svg_text(figure)


def family_picture(rows: pd.DataFrame, marked: str, names: Sequence[str], limits: tuple[float, float]) -> str:
    """Return the change in accuracy without the shared and only sets, one of them marked, as SVG.

    Natural size is filled, equal size hollow; the grey bars are the random sets that match each.

    Args:
        rows: of `explorer.explorer_effects`; the mixed model's.
        marked: one of ``names``.
        names: the sets, from left to right.
        limits: of the vertical axes, in percentage points.
    """
    color = objective_color(MIXED)
    with _panels(limits) as (figure, panels):
        for test, ax in panels.items():
            for family, shift, fill in ((NATURAL, -0.12, color), (EQUAL_SIZE, 0.12, "white")):
                places = {name: index + shift for index, name in enumerate(names)}
                part = rows[(rows.test == test) & (rows.family == family) & rows.set.isin(places)]
                x = part.set.map(places)
                ax.vlines(x, 100 * part.control_low, 100 * part.control_high, CONTROL_COLOR, alpha=0.3, linewidth=9)
                ax.vlines(x, 100 * part.change_ci_low, 100 * part.change_ci_high, color)
                ax.plot(x, 100 * part.change, "o", color=color, markerfacecolor=fill)
                _mark(ax, x, part, (part.set == marked).to_numpy() & (family == NATURAL))
            ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xticks(range(len(names)), names)
        ax.set_xlim(-0.5, len(names) - 0.5)
        marks = [
            Line2D([], [], color=color, marker="o", markerfacecolor=fill, linestyle="") for fill in (color, "white")
        ]
        handles = [*marks, Line2D([], [], color=CONTROL_COLOR, alpha=0.3, linewidth=7)]
        labels = ["natural size", "equal size", "random sets"]
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        return svg_text(figure)


def _mark(ax: Axes, x: pd.Series, rows: pd.DataFrame, is_marked: np.ndarray) -> None:
    """Ring the marked points and draw their intervals above everything else."""
    x, rows = x[is_marked], rows[is_marked]
    if rows.empty:
        return
    ax.vlines(x, 100 * rows.change_ci_low, 100 * rows.change_ci_high, color="black", linewidth=1.2, zorder=4)
    style = {"markerfacecolor": "none", "markeredgecolor": "black", "markersize": 11, "markeredgewidth": 1.8}
    ax.plot(x, 100 * rows.change, "o", zorder=5, **style)


OWN = "top by score"

BOUNDS = {"change": ("", "_ci_low", "_ci_high"), "control": ("", "_low", "_high")}

NOT_MEASURED = "Not measured in this run. Chapter 4 lists what was; it ablates more if its parameters say so."

ONLY_MIXED = f"The shared and only sets are removed from the {MIXED} model alone: choose that model."


@dataclass(frozen=True)
class Frame:
    """One view of the explorer.

    Args:
        title: what was removed from which model.
        lines: what is seen, a sentence or two each.
        svg: the picture; "" where there is nothing to draw.
        alt: the picture in words.
        width: of every picture, in pixels.
        height: likewise.
    """

    title: str
    lines: tuple[str, ...]
    svg: str = ""
    alt: str = ""
    width: int = PIXELS[0]
    height: int = PIXELS[1]


def explorer_effects(
    ablation: pd.DataFrame, evaluation: pd.DataFrame, ablation_kind: str = "zero", bootstrap: Bootstrap | None = None
) -> pd.DataFrame:
    """Return what removing each set does to accuracy on the helpful and on the harmless HH-RLHF test.

    Args:
        ablation: rows of ablation.parquet.
        evaluation: rows of evaluation.parquet of the same reward models.
        ablation_kind: the one that is shown.

    Returns:
        objective, test, set, family, fraction, n_neurons, change and control with their intervals, effect, ci_low,
        ci_high, n_draws, n_items, n_seeds, as `effect_table` has them; in rows of the set "all" control and effect are
        NaN.

    Raises:
        ValueError: nothing was ablated in this way on the HH-RLHF tests.
    """
    rows = ablation[(ablation.ablation_kind == ablation_kind) & (ablation.benchmark == "hh-rlhf")]
    if rows.empty:
        kinds = ", ".join(sorted(ablation.ablation_kind.unique())) or "none"
        raise ValueError(f"expected HH-RLHF rows with ablation_kind = {ablation_kind!r}; the kinds there are: {kinds}")
    removed, tables = compared_rows(rows), []
    whole = removed[removed.set == EVERYTHING]
    if (~removed.set.isin([EVERYTHING, CONTROL])).any():
        effects = effect_table(rows, evaluation, bootstrap=bootstrap)
        tables.append(effects[effects.metric == "accuracy"])
    if len(whole):
        changes = placed(ablation_changes(whole, evaluation), evaluation)
        by = ["objective", "test", "set", "family", "fraction", "ablation_kind"]
        means = mean_table(changes, ["accuracy_change"], by, bootstrap)
        means = means.rename(columns=lambda name: name.replace("accuracy_change", "change"))
        means = means.merge(changes.groupby(by, as_index=False).n_neurons.mean(), on=by)
        tables.append(means.assign(**dict.fromkeys(("control", "control_low", "control_high", "effect"), np.nan)))
    table = pd.concat(tables, ignore_index=True)
    shares = [f"{name}{end}" for name, ends in BOUNDS.items() for end in ends]
    table[shares] = table[shares].clip(-1, 1)  # with few seeds a draw may leave the possible
    return table[table.test.isin(SINGLE_OBJECTIVES)].reset_index(drop=True)


def percent(share: float) -> str:
    r"""Return a share as a percentage.

    >>> percent(0.1), percent(0.025)
    ('10\xa0%', '2.5\xa0%')
    """
    return f"{100 * share:g}\u00a0%"


def points(row: pd.Series, name: str, low: str, high: str) -> str:
    """Return a share of a row in percentage points, with its interval.

    >>> points(pd.Series({"x": -0.03, "a": -0.05, "b": 0.01}), "x", "a", "b")
    '-3.0 points [-5.0, +1.0]'
    """
    return f"{100 * row[name]:+.1f} points [{100 * row[low]:+.1f}, {100 * row[high]:+.1f}]"


def in_words(row: pd.Series) -> str:
    """Say what one row of `explorer_effects` shows."""
    change = f"{row.test.capitalize()} test: {points(row, 'change', 'change_ci_low', 'change_ci_high')}"
    if np.isnan(row.effect):
        return f"{change}. No random set can match the set of all neurons."
    found = "not told apart from random sets"
    found = "more is lost than with random sets" if row.ci_high < 0 else found
    found = "less is lost, or more gained, than with random sets" if row.ci_low > 0 else found
    effect = points(row, "effect", "ci_low", "ci_high")
    return f"{change}; random sets {100 * row.control:+.1f}. Beyond random {effect}: {found}."


def sizes(rows: pd.DataFrame) -> str:
    """Say how many neurons, items, seeds and random sets the rows rest on."""
    first = rows.iloc[0]
    items = " and ".join(f"{row.n_items} {row.test}" for row in in_order(rows))
    has_draws = "n_draws" in rows and first.n_draws > 0
    draws = f", {first.n_draws:.0f} random sets" if has_draws else ""
    seeds = seeds_text(first.n_seeds)
    return f"{first.n_neurons:,.0f} neurons, {items} items, {seeds}{draws}; {percent(0.95)} intervals."


def in_order(rows: pd.DataFrame) -> list[pd.Series]:
    """Return the rows as a list, the helpful test first."""
    return [row for test in SINGLE_OBJECTIVES for _, row in rows[rows.test == test].iterrows()]


class Explorer:
    """Settings and frames of one profile.

    Args:
        effects: of `explorer_effects`.
        objectives: of the reward models that the page is about, also those without rows.
        family_from: how the shared and only sets were chosen, such as "top 10 % by rms_change".
        max_pictures: curves drawn at most; the slider has as few positions as that takes, and the page stays light.
    """

    def __init__(
        self, effects: pd.DataFrame, objectives: Sequence[str], family_from: str = "", max_pictures: int = 36
    ) -> None:
        self.effects, self.objectives, self.family_from = effects, list(objectives), family_from
        curves = effects[effects.family == ""]
        self.score_kinds = [name for name in dict.fromkeys(curves.set) if name != EVERYTHING]
        self.fractions = few(curves.fraction, max_pictures // (len(self.objectives) * max(1, len(self.score_kinds))))
        self.sets = [OWN, *(name for name in MIXED_SETS if name in set(effects.set))]
        drawn = 100 * effects[[f"{name}{end}" for name, ends in BOUNDS.items() for end in ends]].to_numpy()
        low, high = min(0.0, float(np.nanmin(drawn))), max(0.0, float(np.nanmax(drawn)))
        margin = 1 + 0.05 * (high - low)
        self.limits = (low - margin, high + margin)

    @property
    def controls(self) -> dict[str, list[str]]:
        """Name of each control -> its options, the slider last."""
        shares = ["all" if fraction == 1 else percent(fraction) for fraction in self.fractions]
        kinds = self.score_kinds or ["any"]
        return {"Reward model": self.objectives, "Neurons": self.sets, "Score": kinds, "Share removed": shares}

    def frames(self) -> dict[tuple[int, ...], Frame]:
        """Return the frame of every choice, keyed by the number of the option of each control."""
        found = {}
        for i, objective in enumerate(self.objectives):
            families = {j: self.family_frame(objective, name) for j, name in enumerate(self.sets) if name != OWN}
            for k, kind in enumerate(self.controls["Score"]):
                for m, fraction in enumerate(self.fractions):
                    found[i, 0, k, m] = self.own_frame(objective, kind, fraction)
                    found |= {(i, j, k, m): frame for j, frame in families.items()}
        return found

    def own_frame(self, objective: str, kind: str, fraction: float) -> Frame:
        """Return the curve over fractions of the sets that one score chooses, with one fraction marked."""
        rows = self.effects[(self.effects.objective == objective) & self.effects.set.isin([kind, EVERYTHING])]
        at = rows[np.isclose(rows.fraction.astype(float), fraction)]
        share = "any MLP neuron" if fraction == 1 else f"its top {percent(fraction)} of neurons by {kind}"
        title = f"The {objective} model without {share}"
        if at.empty:
            return Frame(title, (NOT_MEASURED,))
        svg = curve_picture(rows.assign(set=kind), fraction, self.limits)
        alt = f"Change in accuracy against the share removed, a panel per test, with {percent(fraction)} marked."
        return Frame(title, (*map(in_words, in_order(at)), sizes(at)), svg, alt)

    def family_frame(self, objective: str, name: str) -> Frame:
        """Return the shared and only sets side by side, with one of them marked."""
        rows = self.effects[self.effects.objective == objective]
        at, equal = (rows[(rows.set == name) & (rows.family == family)] for family in (NATURAL, EQUAL_SIZE))
        title = f"The {objective} model without its {name} neurons"
        if at.empty:
            return Frame(title, (NOT_MEASURED if objective == MIXED else ONLY_MIXED,))
        lines = list(map(in_words, in_order(at)))
        if len(equal):
            found = [f"{row.test} {points(row, 'effect', 'ci_low', 'ci_high')}" for row in in_order(equal)]
            lines.append(
                f"Cut to equal size ({equal.n_neurons.mean():.0f} neurons), beyond random: {'; '.join(found)}."
            )
        source = f"From the {self.family_from} of the two single models; s" if self.family_from else "S"
        lines.append(f"{source}core and slider change nothing here. {sizes(at)}")
        alt = f"Change in accuracy without the shared and only sets, a panel per test, with {name} marked."
        return Frame(title, tuple(lines), family_picture(rows, name, self.sets[1:], self.limits), alt)
