"""Widgets of the interactive chapter: every choice shows its frame, hostile text is text, and the form waits."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import product
from urllib.parse import unquote

import ipywidgets as ipw
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipywidgets.widgets.widget import _instances
from ipywidgets.widgets.widget_link import Link
from test_display import HOSTILE

from tension_utils.show import widgets

SVG = "<svg xmlns='http://www.w3.org/2000/svg'><text fill='#123456'>50 % &lt;b&gt; &amp; −1</text></svg>"
CONTROLS = {"Model": ["a", "b", "c"], "Set": ["own", "shared"], "Share": ["2 %", "10 %", "all"]}


@dataclass
class Frame:
    title: str
    lines: tuple[str, ...]
    svg: str = SVG
    alt: str = "a picture"
    width: int = 40
    height: int = 30


@dataclass
class Tokens:
    pieces: tuple[str, ...]
    values: tuple[float, ...]


@dataclass
class Pair:
    rewards: pd.DataFrame
    tokens: dict = field(default_factory=dict)
    ablation: pd.DataFrame = field(default_factory=pd.DataFrame)


class Reader(HTMLParser):
    """Collects tags with their attributes, and text, as a browser's parser would."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def frames_of() -> dict[tuple[int, ...], Frame]:
    """A frame per choice; those of the shared set are one per model."""
    shared = {i: Frame(f"shared {i}", ("only one",)) for i in range(3)}
    return {key: shared[key[0]] if key[1] else Frame(f"own {key}", ("x", "y" * key[2])) for key in made()}


def made() -> list[tuple[int, ...]]:
    return list(product(*(range(len(options)) for options in CONTROLS.values())))


def shown(widget: ipw.Widget) -> ipw.HTML:
    """The page that a tree of stacks shows."""
    while isinstance(widget, ipw.Stack):
        widget = widget.children[widget.selected_index]
    return widget


def links_of(box: ipw.VBox) -> list[tuple[tuple, tuple]]:
    """Source and target of every link made for the controls of a box."""
    controls = set(box.children[:-1])
    every = [widget for widget in _instances.values() if isinstance(widget, Link)]  # those that a page would save
    return [(link.source, link.target) for link in every if link.source[0] in controls]


def test_every_choice_shows_its_frame():
    frames = frames_of()
    box = widgets.explorer(CONTROLS, frames, (1, 0, 2))
    *controls, tree = box.children
    links = links_of(box)
    assert [control.index for control in controls] == [1, 0, 2]
    assert "own (1, 0, 2)" in shown(tree).value, "the start is shown before any link runs"
    for key in made():
        for control, index in zip(controls, key, strict=True):
            control.index = index
        for (source, name), (target, other) in links:  # what the front end does
            setattr(target, other, getattr(source, name))
        assert f"<strong>{frames[key].title}</strong>" in shown(tree).value
    stacks = {target for _, (target, _) in links}
    assert len(stacks) == 1 + 3 + 3, "the shared set needs no stack over shares"


def test_a_choice_without_a_frame_is_refused():
    frames = frames_of()
    with pytest.raises(ValueError, match="start"):
        widgets.explorer(CONTROLS, frames, (0, 0, 3))
    del frames[2, 0, 1]
    with pytest.raises(ValueError, match=r"\(2, 0, 1\)"):
        widgets.explorer(CONTROLS, frames)


def test_frames_keep_one_size_and_the_picture_whole():
    longest = ["title", "a long line"]
    page = Reader(widgets.frame_html(Frame("t", ("short",)), longest))
    (image,) = [attrs for tag, attrs in page.tags if tag == "img"]
    assert unquote(image["src"]).removeprefix("data:image/svg+xml,") == SVG
    assert (image["alt"], image["width"], image["height"]) == ("a picture", "40", "30")
    empty = Reader(widgets.frame_html(Frame("t", ("short",), svg=""), longest))
    boxes = [next(a["style"] for _, a in p.tags[1:] if "aspect-ratio: 40 / 30" in a["style"]) for p in (page, empty)]
    assert all(box.startswith(boxes[1]) for box in boxes)
    hidden = [attrs for _, attrs in page.tags if attrs.get("aria-hidden") == "true"]
    assert len(hidden) == 1 and "visibility: hidden" in hidden[0]["style"] and "a long line" in page.text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(text):
    frame = Frame(text, (text,), svg=f"<svg><text>{text}</text></svg>", alt=text)
    tokens = Tokens((text, "b"), (0.5, -0.5))
    rewards = pd.DataFrame({"objective": [text], "reward_A": [1.0]})
    pair = Pair(rewards, {(text, "A"): tokens, (text, "B"): tokens}, rewards.assign(**dict.fromkeys(BOUNDS, 0.0)))
    for page in (widgets.frame_html(frame, [text]), widgets.tokens_html(tokens, text, 1.0), widgets.pair_html(pair)):
        reader = Reader(page)
        assert {tag for tag, _ in reader.tags} <= TAGS
        assert not {name for _, attrs in reader.tags for name in attrs} - ATTRIBUTES
        assert text.replace("\x00", "") in reader.text.replace("\x00", "").replace("\ufffd", "")
        assert 'class="tension mathjax_ignore' in page


BOUNDS = ("without_random", "without_random_low", "without_random_high")
TAGS = {"div", "p", "img", "strong", "span", "table", "caption", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"class", "style", "alt", "src", "width", "height", "aria-hidden", "title", "border", "data-label"}


def test_tokens_by_hand():
    page = widgets.tokens_html(Tokens((" a", " b", " c", "d"), (1.0, -2.0, 0.01, 0.5)), "title", 2.0)
    spans = [attrs for tag, attrs in Reader(page).tags if tag == "span"]
    assert [span["title"] for span in spans] == ["+1.000", "-2.000", "+0.010", "+0.500"]
    assert "rgba(0, 114, 178, 0.23)" in spans[0]["style"] and "solid" in spans[0]["style"]
    assert "rgba(213, 94, 0, 0.45)" in spans[1]["style"] and "dotted" in spans[1]["style"]
    assert "border" not in spans[2]["style"], "next to nothing"
    assert "raise it most: “a” +1.00, “d” +0.50; lower it most: “b” -2.00" in page


@given(st.lists(st.tuples(st.text(max_size=6), st.floats(-5, 5)), max_size=12))
def test_the_response_can_be_read_whole(tokens):
    pieces, values = zip(*tokens, strict=True) if tokens else ((), ())
    scale = max(map(abs, values), default=0.0)
    page = widgets.tokens_html(Tokens(pieces, values), "", scale)
    reader = Reader(page)
    clean = "".join(pieces).replace("\r", "")
    assert clean in reader.text.replace("\r", "")
    alphas = [float(a["style"].split("rgba(")[1].split(")")[0].split(",")[3]) for t, a in reader.tags if t == "span"]
    assert len(alphas) == len(pieces) and all(0 <= alpha <= widgets.MAX_ALPHA for alpha in alphas)


def luminance(color: tuple[float, ...]) -> float:
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("text", "page"), [((34, 40, 50), (255, 255, 255)), ((206, 214, 221), (18, 18, 18))])
def test_text_stands_out_on_the_strongest_ground(sign, text, page):
    color = [float(part) for part in widgets.COLORS[sign].split(",")]
    ground = [widgets.MAX_ALPHA * c + (1 - widgets.MAX_ALPHA) * p for c, p in zip(color, page, strict=True)]
    low, high = sorted((luminance(text), luminance(ground)))
    assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG AA


def test_the_form_wakes_on_an_edit_and_answers():
    asked = []

    def score(*texts: str) -> Pair:
        asked.append(texts)
        if not texts[0].strip():
            raise ValueError("prompt <is> empty")
        return Pair(pd.DataFrame({"objective": []}))

    *texts, button, output = widgets.pair_form(score, ("p", "a", "b")).children
    assert button.disabled and "make lab" in output.value, "as saved for the page: nothing would answer"
    texts[1].value = "another"
    assert not button.disabled
    button.click()
    assert asked == [("p", "another", "b")] and "<table" in output.value
    texts[0].value = " "
    button.click()
    assert "Not scored" in output.value and "prompt &lt;is&gt; empty" in output.value
