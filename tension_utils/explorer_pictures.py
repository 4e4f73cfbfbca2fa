"""Pictures of the explorer: small SVG files of one size, so that a page can hold one per setting."""

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tension_utils.conditions import EQUAL_SIZE, NATURAL
from tension_utils.config import MIXED, SINGLE_OBJECTIVES
from tension_utils.neuron_plots import ablation_curves
from tension_utils.plot_style import CONTROL_COLOR, STYLE, control_handle, objective_color

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
