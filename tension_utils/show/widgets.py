"""Widgets of the interactive chapter: they work in a page without a kernel, and every text in them is escaped.

In a page, `book/_assets/widgets.js` shows the saved state of the few kinds used here; in Jupyter they are ordinary
ipywidgets. Choices are linked in the front end, so nothing is computed when one is made.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Protocol
from urllib.parse import quote

import ipywidgets as ipw
import pandas as pd
from IPython.display import display

from tension_utils.show.tables import ROOT_CLASS, formatted_table, table_html, text_html

SAFE = " /:=',;()+-.!*~$@?[]{}|^`<>"  # characters that a data address inside double quotes may hold as they are

COLORS = {1: "0, 114, 178", -1: "213, 94, 0"}  # blue raises the reward, orange lowers it

MAX_ALPHA = 0.45  # of the ground: text keeps a contrast above 4.5 on it, in light and dark

SPACE = "\u2423"  # stands for a token of nothing but space

MIN_SHARE = 0.05  # of the strongest token: below it a token gets no line

WIDE = {"description_width": "initial"}

NEEDS_KERNEL = (
    "Scoring needs a running kernel, which a page in a browser has not: run make lab in the project's folder, open "
    "notebooks/08_explorer.ipynb and run all cells. There, editing a text wakes the button."
)


class FrameLike(Protocol):
    """What `frame_html` reads of a frame; see `tension_utils.show.explorer.Frame`."""

    title: str
    lines: Sequence[str]
    svg: str
    alt: str
    width: int
    height: int


class TokensLike(Protocol):
    """What `tokens_html` reads of a response; see `tension_utils.show.own_pair.TokenContributions`."""

    pieces: Sequence[str]
    values: Sequence[float]


class PairLike(Protocol):
    """What `pair_html` reads of a scored pair; see `tension_utils.show.own_pair.PairScores`."""

    rewards: pd.DataFrame
    tokens: Mapping[tuple[str, str], TokensLike]
    ablation: pd.DataFrame


def frame_html(frame: FrameLike, longest: Sequence[str] = ()) -> str:
    """Return a frame: its picture beside its words, or above them where there is little room.

    Args:
        frame: picture and words; without a picture its place stays empty.
        longest: the longest words of all frames. They are laid out unseen behind the frame's own, so that frames have
            one height at every width of the page.
    """
    box = "flex: 1.6 1 17rem; min-width: 0; max-width: 27rem; align-self: start"
    box += f"; aspect-ratio: {frame.width} / {frame.height}"
    picture = f'<div style="{box}"></div>'
    if frame.svg:
        source = f"data:image/svg+xml,{quote(frame.svg, safe=SAFE)}"
        size = f'width="{frame.width}" height="{frame.height}"'
        picture = f'<img style="{box}; width: 100%; height: auto" {size} alt="{html.escape(frame.alt)}" src="{source}">'
    unseen = f'<div style="grid-area: 1 / 1; visibility: hidden" aria-hidden="true">{_lines(longest)}</div>'
    seen = f'<div style="grid-area: 1 / 1">{_lines([frame.title, *frame.lines])}</div>'
    words = f'<div style="flex: 1 1 13rem; display: grid; line-height: 1.45">{unseen}{seen}</div>'
    return (
        f'<div class="{ROOT_CLASS}" style="display: flex; flex-wrap: wrap; gap: 0.8rem 1.2rem">{picture}{words}</div>'
    )


def _lines(texts: Sequence[str]) -> str:
    """Return texts as paragraphs, the first one strong."""
    parts = [html.escape(text) for text in texts]
    parts[:1] = [f"<strong>{part}</strong>" for part in parts[:1]]
    return "".join(f'<p style="margin: 0 0 0.5em">{part}</p>' for part in parts)


def explorer(
    controls: Mapping[str, Sequence[str]],
    frames: Mapping[tuple[int, ...], FrameLike],
    start: Sequence[int] | None = None,
) -> ipw.VBox:
    """Return toggles and a slider that choose a frame, linked in the front end.

    Args:
        controls: label -> options. Toggles, but for the last one: a slider.
        frames: numbers of the chosen options -> frame. A frame that several choices share is sent once.
        start: the choice that is shown first; the first option of each control if None.

    Raises:
        ValueError: a choice has no frame, or ``start`` is none.
    """
    start = tuple(start or [0] * len(controls))
    choices = set(product(*(range(len(options)) for options in controls.values())))
    if choices != set(frames) or start not in choices:
        lost = sorted(choices.symmetric_difference(frames))[:3]
        raise ValueError(f"expected one frame for each of {len(choices)} choices, start {start} among them; see {lost}")
    kinds = [ipw.ToggleButtons] * (len(controls) - 1) + [ipw.SelectionSlider]
    made = [
        kind(description=name, options=[(label, i) for i, label in enumerate(options)], index=index, style=WIDE)
        for kind, (name, options), index in zip(kinds, controls.items(), start, strict=True)
    ]
    longest = max(([frame.title, *frame.lines] for frame in frames.values()), key=lambda lines: sum(map(len, lines)))
    layout, pages = ipw.Layout(), {}
    style = ipw.HTML().style  # one for all: each is sent with the page

    def build(chosen: tuple[int, ...]) -> ipw.Widget:
        if len(chosen) == len(made):
            frame = frames[chosen]
            if id(frame) not in pages:
                pages[id(frame)] = ipw.HTML(frame_html(frame, longest), layout=layout, style=style)
            return pages[id(frame)]
        control = made[len(chosen)]
        children = [build((*chosen, index)) for index in range(len(control.options))]
        if len(set(map(id, children))) == 1:  # this control changes nothing here
            return children[0]
        stack = ipw.Stack(children, selected_index=control.index, layout=layout)
        ipw.jslink((control, "index"), (stack, "selected_index"))
        return stack

    return ipw.VBox([*made, build(())])


def tokens_html(tokens: TokensLike, title: str, scale: float) -> str:
    """Return a response with each token on a ground as strong as its contribution, and the strongest ones in numbers.

    Blue ground and a solid line raise the reward, orange ground and a dotted line lower it.

    Args:
        tokens: pieces of text and their contributions.
        title: plain text above.
        scale: contribution of the strongest ground.
    """
    share_of, spans = [min(1.0, abs(value) / scale) if scale else 0.0 for value in tokens.values], []
    for piece, value, share in zip(tokens.pieces, tokens.values, share_of, strict=True):
        sign = 1 if value > 0 else -1
        line = f"; border-bottom: 2px {'solid' if sign > 0 else 'dotted'} currentColor" if share >= MIN_SHARE else ""
        ground = f"rgba({COLORS[sign]}, {MAX_ALPHA * share:.2f})"
        spans.append(f'<span title="{value:+.3f}" style="background: {ground}{line}">{html.escape(piece)}</span>')
    order = sorted((i for i in range(len(spans)) if share_of[i] >= MIN_SHARE), key=lambda i: tokens.values[i])
    ends = {"raise it most": [i for i in order[::-1] if tokens.values[i] > 0][:3]}
    ends["lower it most"] = [i for i in order if tokens.values[i] < 0][:3]
    named = {
        name: [f"\u201c{tokens.pieces[i].strip() or SPACE}\u201d {tokens.values[i]:+.2f}" for i in part]
        for name, part in ends.items()
    }
    words = "; ".join(f"{name}: {', '.join(part)}" for name, part in named.items() if part)
    return (
        f'<div class="{ROOT_CLASS}" style="flex: 1 1 17rem; margin: 0.6em 0"><strong>{html.escape(title)}</strong>'
        f'<div style="white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9">{"".join(spans)}</div>'
        f'<div style="font-size: 0.9em">{html.escape(words)}</div></div>'
    )


def pair_html(pair: PairLike) -> str:
    """Return everything about a scored pair: the rewards, both responses token by token, and the ablations."""
    rewards, parts = formatted_table(pair.rewards), []
    for name in pair.rewards.objective:
        own = {side: pair.tokens[name, side] for side in ("A", "B")}
        scale = max((abs(value) for tokens in own.values() for value in tokens.values), default=0.0)
        both = [tokens_html(tokens, f"{name} model, response {side}", scale) for side, tokens in own.items()]
        parts.append(f'<div style="display: flex; flex-wrap: wrap; column-gap: 1.5rem">{"".join(both)}</div>')
    tables = [table_html(rewards, "Rewards; a margin is r(A) - r(B), and only its sign compares across models")]
    if len(pair.ablation):
        caption = "Margin without a set of neurons, and without matched random sets (mean, and 95 % of the draws)"
        tables.append(table_html(formatted_table(pair.ablation), caption))
    return f'<div class="{ROOT_CLASS}">{tables[0]}{"".join(parts)}{"".join(tables[1:])}</div>'


def show_pair(pair: PairLike) -> None:
    """Show what `pair_html` says, in a page or in Jupyter."""
    display({"text/html": pair_html(pair), "text/plain": pair.rewards.to_string(index=False)}, raw=True)


def pair_form(score: Callable[[str, str, str], PairLike], start: tuple[str, str, str]) -> ipw.VBox:
    """Return a form for a prompt and two responses that scores them, where a kernel runs.

    The button is off until a kernel answers an edit, so it stays off in a page.

    Args:
        score: prompt, response A, response B -> a scored pair; a ValueError of it is shown as text.
        start: the texts that stand there at first.
    """
    names = ("Prompt", "Response A", "Response B")
    width = ipw.Layout(width="100%")
    texts = [
        ipw.Textarea(value=text, description=name, layout=width, style=WIDE)
        for name, text in zip(names, start, strict=True)
    ]
    button, output = ipw.Button(description="Score", disabled=True), ipw.HTML(text_html(NEEDS_KERNEL))

    def wake(change: dict) -> None:
        button.disabled = False

    def answer(clicked: ipw.Button) -> None:
        try:
            output.value = pair_html(score(*(text.value for text in texts)))
        except ValueError as error:
            output.value = text_html(str(error), title="Not scored")

    for text in texts:
        text.observe(wake, "value")
    button.on_click(answer)
    return ipw.VBox([*texts, button, output])
