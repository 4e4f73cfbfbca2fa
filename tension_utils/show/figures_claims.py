"""The five claims in one figure: primary effects in multiples of the smallest effect of interest."""

import textwrap
from collections import Counter
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tension_utils.analysis.findings import CLAIMS, POINTS, SMALLEST, primary_of
from tension_utils.show.style import CONTROL_COLOR, OTHER_COLORS, new_axes

PAPER_CLAIMS = Path("results", "paper", "claims.csv")  # described in the README beside it
FARTHEST = 12.0  # of the axis, in smallest effects; what lies beyond ends in an arrow
PAPER_COLOR = OTHER_COLORS[1]
RUN_COLOR = "#888888"
RUN_STYLES = [{"marker": marker, "mfc": fill} for marker in "o^v" for fill in (RUN_COLOR, "white")]  # by base model


def paper_effects(path: Path = PAPER_CLAIMS) -> dict[str, float]:
    """Return the paper's printed effects in percentage points: claim -> mean of both objectives.

    Args:
        path: a table with claim, objective and effect_points.
    """
    return pd.read_csv(path).groupby("claim").effect_points.mean().to_dict()


def toward_claim(claim: str, value: float, unit: str) -> float:
    """Return an effect in multiples of the smallest effect of interest, positive on the claimed side.

    >>> toward_claim("C2", -0.25, "SD")
    2.5
    """
    return CLAIMS[claim].sign * value / SMALLEST[unit]


def verdict_forest(ledgers: Mapping[str, pd.DataFrame], paper: Mapping[str, float]) -> Axes:
    """Draw the primary effect under control of every claim, with interval and training runs, and the paper's numbers.

    Args:
        ledgers: where findings come from, in words -> table of `claims.ledger`; one line each, first on top.
        paper: of `paper_effects`.
    """
    ax = new_axes(5.4, 1.2 + 0.66 * len(CLAIMS) + 0.2 * len(CLAIMS) * (len(ledgers) - 1))
    rows = [
        (number + 0.36 * (place - (len(ledgers) - 1) / 2), claim, style, primary_of(ledger, claim))
        for number, claim in enumerate(CLAIMS)
        for place, (ledger, style) in enumerate(zip(ledgers.values(), ("o", "s", "D"), strict=False))
    ]
    bases = Counter(base for *_, row in rows for base in row.bases)
    styles = dict(zip([base for base, _ in bases.most_common()], cycle(RUN_STYLES), strict=False))
    drawn = [_draw_finding(ax, y, claim, marker, row, styles) for y, claim, marker, row in rows]
    for number, claim in enumerate(CLAIMS):
        if claim in paper:
            place = toward_claim(claim, paper[claim], POINTS)
            ax.plot(place, number, "D", markersize=8, mfc="none", mec=PAPER_COLOR, mew=1.6, zorder=2.5)
            drawn.append(abs(place))
    limit = min(FARTHEST, 1.15 * max([3.0, *drawn]))
    ax.axvspan(-1, 1, color="#EEEEEE", zorder=0)
    ax.axvline(0, color="black", linewidth=0.8, zorder=1)
    ax.set(xlim=(-limit, limit), ylim=(len(CLAIMS) - 0.4, -0.6))
    ax.set_yticks(range(len(CLAIMS)), [f"{key}. {textwrap.fill(claim.title, 18)}" for key, claim in CLAIMS.items()])
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("effect, in smallest effects worth naming")
    ax.set_title("against the claim", loc="left", size=10, color=CONTROL_COLOR)
    ax.set_title("as claimed", loc="right", size=10, color=CONTROL_COLOR)
    names = list(ledgers) if len(ledgers) > 1 else ["95 % interval"]
    line = {"color": "black", "linewidth": 1.6, "markersize": 6}
    handles = [Line2D([], [], marker=m, label=name, **line) for name, m in zip(names, "osD", strict=False)]
    of_base = {"": RUN_STYLES[0]} if len(styles) < 2 else {f" of {name}": style for name, style in styles.items()}
    handles += [
        Line2D([], [], ls="", markersize=4, color=RUN_COLOR, label=f"one training run{words}", **style)
        for words, style in of_base.items()
    ]
    handles += [
        Line2D([], [], marker="D", ls="", markersize=7, mfc="none", mec=PAPER_COLOR, label="printed in the paper"),
        Patch(color="#EEEEEE", label="too small to matter"),
    ]
    ax.figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9)
    return ax


def _places(claim: str, row: pd.Series) -> tuple[float, float, float]:
    """Return where a finding and both ends of its interval stand, see `toward_claim`."""
    middle, *ends = (toward_claim(claim, number, row.unit) for number in (row.value, row.ci_low, row.ci_high))
    return middle, *sorted(ends)


def _draw_finding(
    ax: Axes, y: float, claim: str, marker: str, row: pd.Series, styles: Mapping[str, Mapping[str, str]]
) -> float:
    """Draw one finding at a height, and return how far it reaches, its interval cut at `FARTHEST`.

    Args:
        ax: to draw on.
        y: height.
        claim: key of `CLAIMS`.
        marker: of the estimate.
        row: the finding.
        styles: how a training run of each base model is drawn.
    """
    if row.value != row.value:
        style = {"transform": ax.get_yaxis_transform(), "ha": "left", "va": "center", "size": 9, "style": "italic"}
        ax.text(0.02, y, "not run", color=CONTROL_COLOR, **style)
        return 0.0
    middle, low, high = _places(claim, row)
    ax.plot([max(low, -FARTHEST), min(high, FARTHEST)], [y, y], color="black", linewidth=1.6, zorder=3)
    for end, side in ((low, "<"), (high, ">")):
        if abs(end) > FARTHEST:
            ax.plot(FARTHEST * (1 if end > 0 else -1), y, side, color="black", markersize=7, clip_on=False, zorder=3)
    runs = [toward_claim(claim, value, row.unit) for value in row.by_seed]
    for place, base in zip(runs, row.bases, strict=True):
        ax.plot(place, y + 0.13, ls="", markersize=3.5, color=RUN_COLOR, zorder=2, **styles[base])
    ax.plot(middle, y, marker, markersize=7, color="black", zorder=4)
    return min(FARTHEST, max(abs(number) for number in [middle, low, high, *runs] if number == number))


def forest_words(ledgers: Mapping[str, pd.DataFrame], paper: Mapping[str, float]) -> str:
    """Return what `verdict_forest` shows, for readers who do not see it."""
    parts = []
    for claim in CLAIMS:
        for words, ledger in ledgers.items():
            source = f" ({words})" if len(ledgers) > 1 else ""
            row = primary_of(ledger, claim)
            if row.value == row.value:
                middle, low, high = _places(claim, row)
                ends = f"[{low:+.1f}, {high:+.1f}]" if low == low else "without interval"
                parts.append(f"{claim} {middle:+.1f} {ends}{source}")
            else:
                parts.append(f"{claim} not run{source}")
        if claim in paper:
            parts[-1] += f", paper {toward_claim(claim, paper[claim], POINTS):+.1f}"
    return f"Primary effects in smallest effects of interest, above zero as claimed: {'; '.join(parts)}."
