"""The book's figure style: colors, line styles, sizes and legends.

Color is the objective, line style the method, a band the 95 % interval, grey and dotted a chance level or control.
"""

import textwrap
from collections.abc import Sequence
from types import MappingProxyType

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

# Okabe and Ito (2008): distinct with every common kind of color blindness, and in grey.
OBJECTIVE_COLORS = MappingProxyType(
    {
        "helpful": "#0072B2",
        "harmless": "#D55E00",
        "helpful-harmless": "#009E73",
        "helpful-harmless-matched": "#56B4E9",
    }
)

OTHER_COLORS = ("#E69F00", "#CC79A7", "#999999", "#F0E442")

CONTROL_COLOR = "#555555"

LINE_STYLES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)))

MARKERS = ("o", "s", "^", "D", "v", "P")

STYLE = MappingProxyType(
    {
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "axes.facecolor": "white",
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.w_pad": 0.1,
        "figure.constrained_layout.h_pad": 0.1,
        "figure.figsize": (6.4, 4.0),
        "figure.dpi": 100,
        "savefig.dpi": 150,
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "axes.labelsize": 11,
        "axes.titlesize": 12,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "legend.fontsize": 9.5,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#DDDDDD",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "lines.linewidth": 1.8,
        "lines.markersize": 5,
        "svg.fonttype": "path",
        "svg.hashsalt": "tension",
        "text.parse_math": False,  # names come from data: a "$" in one is a dollar, not TeX
    }
)

PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.3g} %")  # of axes: 12.5 % stays what it is


def use_style() -> None:
    """Set matplotlib's defaults to the book's style, and a notebook's inline pictures to SVG."""
    mpl.rcParams.update(STYLE)
    if mpl.get_backend().lower().endswith("inline"):
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg")


def new_axes(width: float = 6.4, height: float = 4.0) -> Axes:
    """Return new Axes of a size in inches."""
    return plt.subplots(figsize=(width, height))[1]


def empty_figure(reason: str) -> Axes:
    """Draw why there is nothing to draw, in the place of a figure that text refers to, and return the axes."""
    ax = new_axes(height=1.2)
    ax.set_axis_off()
    ax.text(0.5, 0.5, textwrap.fill(reason, 60), ha="center", va="center", transform=ax.transAxes)
    return ax


def percent_axes(ax: Axes) -> None:
    """Label both axes in percent."""
    ax.xaxis.set_major_formatter(PERCENT)
    ax.yaxis.set_major_formatter(PERCENT)


def require_rows(table: pd.DataFrame, columns: Sequence[str], unique: Sequence[str] = ()) -> None:
    """Check columns, rows, and that ``unique`` columns name each row once.

    Raises:
        ValueError: says what is missing, or which selection is ambiguous.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"the figure needs columns {', '.join(columns)}; missing {', '.join(missing)}")
    if table.empty:
        raise ValueError("the figure needs at least one row, got an empty table")
    if unique and table.duplicated(list(unique)).any():
        varied = [
            c
            for c in table.columns
            if c not in unique and not pd.api.types.is_float_dtype(table[c]) and table[c].nunique() > 1
        ]
        raise ValueError(f"the figure needs one row per {', '.join(unique)}; select one value of: {', '.join(varied)}")


def require_range(table: pd.DataFrame, columns: Sequence[str], low: float = 0.0, high: float = 1.0) -> None:
    """Check that columns hold shares; missing values pass.

    Raises:
        ValueError: names the column and the first value outside [low, high].
    """
    for column in columns:
        values = table[column].to_numpy(float)
        outside = values[(values < low - 1e-9) | (values > high + 1e-9)]  # rounding in a mean is no error
        if len(outside):
            raise ValueError(
                f"the figure needs {column} from {low:g} to {high:g}, as shares and not percentages; got {outside[0]:g}"
            )


def objective_color(objective: str) -> str:
    """Return an objective's color.

    Raises:
        ValueError: the objective is unknown.
    """
    if objective not in OBJECTIVE_COLORS:
        raise ValueError(f"expected an objective of {', '.join(OBJECTIVE_COLORS)}; got {objective!r}")
    return OBJECTIVE_COLORS[objective]


def objective_marker(objective: str) -> str:
    """Return an objective's marker, which tells it apart where color cannot: in grey print."""
    objective_color(objective)  # raises for an unknown one
    return MARKERS[list(OBJECTIVE_COLORS).index(objective)]


def objective_handles(objectives: Sequence[str], linestyle: str = "", prefix: str = "") -> list[Line2D]:
    """Return a legend entry per objective: its color and marker."""
    return [
        Line2D([], [], color=objective_color(o), marker=objective_marker(o), linestyle=linestyle, label=prefix + o)
        for o in objectives
    ]


def ordered_objectives(values: pd.Series) -> list[str]:
    """Return distinct objectives in the book's order."""
    for name in values.unique():
        objective_color(name)  # raises for an unknown one
    return [name for name in OBJECTIVE_COLORS if name in set(values)]


def style_of(index: int) -> dict[str, object]:
    """Return line style and marker of the method with this number."""
    return {"linestyle": LINE_STYLES[index % len(LINE_STYLES)], "marker": MARKERS[index % len(MARKERS)]}


def method_handles(methods: Sequence[str], color: str = CONTROL_COLOR) -> list[Line2D]:
    """Return a legend entry per method: its line style and marker."""
    return [Line2D([], [], color=color, **style_of(index), label=name) for index, name in enumerate(methods)]


def control_handle(label: str) -> Line2D:
    """Return the legend entry of a chance level or control."""
    return Line2D([], [], color=CONTROL_COLOR, linestyle=":", label=label)


def legend_handles(objectives: Sequence[str], methods: Sequence[str], control: str) -> list[Line2D]:
    """Return legend entries: a color per objective, a line style per method, the dotted control.

    A single objective lends its color to the methods; a single method gets no entry.
    """
    if len(objectives) == 1:
        return [*method_handles(methods, objective_color(objectives[0])), control_handle(control)]
    colors = [Line2D([], [], color=objective_color(name), linewidth=4, label=name) for name in objectives]
    return [*colors, *(method_handles(methods) if len(methods) > 1 else []), control_handle(control)]


def outside_legend(ax: Axes, handles: Sequence | None = None) -> None:
    """Put the legend to the right of the Axes, where it hides nothing."""
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def forest_axes(table: pd.DataFrame, row: str) -> tuple[Axes, np.ndarray, list[str]]:
    """Lay out one line per name in the column ``row``, from top to bottom in the order of the table.

    Returns:
        The Axes; the height of every row of the table, objectives side by side within a line; the objectives.
    """
    names, objectives = list(dict.fromkeys(table[row])), ordered_objectives(table.objective.dropna())
    n, line_height = len(objectives), max(0.28, 0.11 * (1 + len(objectives)))  # inches
    ax = new_axes(8.4, max(2.4, 1.3 + line_height * len(names)))
    offsets = {objective: (index - (n - 1) / 2) * 0.7 / n for index, objective in enumerate(objectives)}
    y = table[row].map(names.index).to_numpy(float) + table.objective.map(offsets).fillna(0).to_numpy(float)
    ax.set_yticks(range(len(names)), [textwrap.fill(str(name), 36) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    return ax, y, objectives


def note_not_run(ax: Axes, table: pd.DataFrame, row: str, value: str, y: np.ndarray) -> None:
    """Write "not run" and why where a forest has no value to draw, once per line if the whole line has none.

    Raises:
        ValueError: a row has neither a value nor a reason in the column ``not_run``.
    """
    is_empty = table[value].isna().to_numpy()
    empty, lines = table[is_empty], list(dict.fromkeys(table[row]))
    reasons = empty.get("not_run", pd.Series("", empty.index)).fillna("").astype(str).str.strip()
    if (reasons == "").any():
        names = ", ".join(dict.fromkeys(empty[row][reasons == ""].astype(str)))
        raise ValueError(f"the figure needs {value}, or a reason in the column not_run, for {names}")
    notes = pd.DataFrame({"name": empty[row], "objective": empty.objective, "y": y[is_empty], "reason": reasons})
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # hides the chance mark behind, never a marker
    style = {"va": "center", "size": 9, "style": "italic", "bbox": box, "zorder": 1.5, "linespacing": 1.0}
    for name, part in notes.groupby("name", sort=False):
        if name in set(table[row][~is_empty]):
            texts = [
                (n.y, f"{n.objective} not run: {n.reason}", objective_color(n.objective)) for n in part.itertuples()
            ]
        else:
            texts = [(lines.index(name), f"not run: {'; '.join(dict.fromkeys(part.reason))}", CONTROL_COLOR)]
        for height, text, color in texts:
            text = textwrap.shorten(text, 54, placeholder=" …")
            ax.text(0.02, height, text, transform=ax.get_yaxis_transform(), color=color, **style)
