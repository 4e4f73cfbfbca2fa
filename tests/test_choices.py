"""Lists to choose from and what they draw: hostile text is text, and a browser shows what was chosen."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page
from test_ablation_tables import evaluation_of
from test_display import HOSTILE
from test_explorer import committed_claims, planted, removed

from tension_utils.show.choices import NO_SCRIPTS, Choices, choices_html, embedded
from tension_utils.show.explorer import removal_choices, removal_effects, removal_table, world_table
from tension_utils.statistics import Bootstrap

STATE = {"name": "n", "unit": "u", "color": "#0072B2", "set": [-1.0, -2.0, 0.5], "seeds": [-1.0], "random": [0.0, 0.0]}


def small(text: str = "x") -> Choices:
    """Three states: of the second model there is one set, of the first two."""
    labels = pd.DataFrame({"Model": [text, text, "b"], "Set": ["own", "shared", "shared"], "Same": ["s"] * 3})
    return Choices("removal", labels, [STATE | {"say": f"{text} {number}"} for number in range(3)])


class Reader(HTMLParser):
    """Collects tags, attributes and the text outside scripts, as a browser's parser would."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.text, self.scripts = set(), set(), "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts.append(data)
        else:
            self.text += data


def test_payload_by_hand():
    payload = small().payload
    assert payload["controls"] == [
        {"name": "Model", "options": ["x", "b"]},
        {"name": "Set", "options": ["own", "shared"]},
    ]
    assert [state["at"] for state in payload["states"]] == [[0, 0], [0, 1], [1, 1]] and payload["start"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drawing": "pie"}, "drawing: expected one of removal, worlds; got 'pie'"),
        ({"start": 3}, "got 3 rows, 3 states, start 3"),
        ({"states": [STATE]}, "got 3 rows, 1 states"),
        ({"labels": pd.DataFrame({"Set": ["a", "b", "b"]})}, "two have {'Set': 'b'}"),
    ],
)
def test_choices_that_do_not_fit_are_refused(changes, message):
    plain = small()
    values = {"drawing": plain.drawing, "labels": plain.labels, "states": plain.states, "start": 0} | changes
    with pytest.raises(ValueError, match=message):
        Choices(**values)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(text):
    page = choices_html(small(text), pd.DataFrame({text: [text, "b", "c"], "n": [1, 2, 3]}), text, text)
    reader = Reader(page)
    assert reader.tags <= {
        *("div", "style", "p", "details", "summary", "script"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td", "span"),
    }
    assert reader.attributes <= {"class", "style", "type", "border", "data-label"}
    assert 'class="tension mathjax_ignore tex2jax_ignore choices"' in page
    (data,) = [script for script in reader.scripts if script.startswith("{")]
    assert json.loads(data)["controls"][0]["options"] == [text, "b"] and not set("<>&") & set(data)


def test_a_table_of_something_else_is_refused():
    with pytest.raises(ValueError, match="expected a row per state, 3; the table has 2"):
        choices_html(small(), pd.DataFrame({"a": [1, 2]}), "x")


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded([float("nan")])


# In a browser --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare page with the removals of an invented run, the committed worlds, and hostile labels."""
    evaluation = evaluation_of()
    effects = removal_effects(removed(evaluation), evaluation, Bootstrap(50))
    parts = [choices_html(removal_choices(effects, "rms_change", 0.1), removal_table(effects), "Effects", "key")]
    parts += [choices_html(planted(), world_table(committed_claims()), "Worlds", "key")]
    parts += [
        choices_html(small(text), pd.DataFrame({"a": [1, 2, 3], text: [text] * 3}), text, text) for text in HOSTILE
    ]
    path = tmp_path_factory.mktemp("page") / "page.html"
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>x</title>'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    path.write_text(f"{head}<body><main>{''.join(parts)}</main>", encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Browser, page_file: Path):
    """The page on a phone, from a file."""
    page = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
    faults: list[str] = []
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: faults.append(str(e)))
    page.on("dialog", lambda d: (faults.append(d.message), d.dismiss()))
    page.on("request", lambda r: None if r.url.startswith("file:") else faults.append(r.url))
    page.goto(page_file.as_uri())
    yield page
    assert faults == []
    page.context.close()


def said(page: Page, number: int = 0) -> str:
    return page.locator(".choices").nth(number).locator(".words > [aria-live]").inner_text()


def drawn(page: Page, number: int = 0) -> str:
    return page.locator(".choices").nth(number).locator("svg").inner_html()


def test_the_keyboard_chooses_and_words_and_drawing_follow(opened: Page):
    before, shown = (said(opened), drawn(opened)), opened.locator(".choices").first.bounding_box()
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.labels[0].textContent") == "Reward model"
    opened.keyboard.press("ArrowDown")
    assert "The harmless model without" in said(opened) and drawn(opened) != before[1]
    for name, key, word in (("Test", "End", "both tests"), ("Measured by", "End", " SD of its margins")):
        opened.get_by_label(name).first.focus()
        opened.keyboard.press(key)
        assert word in said(opened)
    assert opened.locator(".choices").first.bounding_box() == shown, "nothing below moves"


def test_lists_narrow_and_keep_what_they_can(opened: Page):
    names = ("Reward model", "Its neurons", "Share of all")
    models, neurons, share = (opened.get_by_label(name).first for name in names)
    assert "shared" not in neurons.inner_text()
    models.select_option(label="helpful-harmless")
    neurons.select_option(label="shared")
    assert [text.strip() for text in share.inner_text().split("\n") if text.strip()] == ["10\xa0%"]
    models.select_option(label="harmless")
    assert neurons.locator("option:checked").inner_text() == "top by rms_change", "no shared set here: the first one"
    assert said(opened).startswith("The harmless model without its top 10\xa0%")


@pytest.mark.parametrize("number", [0, 1])
def test_whatever_is_chosen_has_words_and_a_drawing_that_fits(opened: Page, number: int):
    found = opened.evaluate(
        """(number) => {
          const root = document.querySelectorAll(".choices")[number], lists = [...root.querySelectorAll("select")];
          const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
          const says = new Set(data.states.map((state) => state.say)), faults = [];
          let seed = 1;
          for (let i = 0; i < 400; i++) {
            const list = lists[(seed = (seed * 48271) % 2147483647) % lists.length];
            list.selectedIndex = (seed = (seed * 48271) % 2147483647) % list.options.length;
            list.dispatchEvent(new Event("change"));
            const chosen = lists.map((each) => each.selectedOptions[0] && each.selectedOptions[0].textContent);
            const isChosen = (option, k) => data.controls[k].options[option] === chosen[k];
            const state = data.states.find((each) => each.at.every(isChosen));
            const words = root.querySelector("[aria-live]").textContent, svg = root.querySelector("svg");
            if (!state || state.say !== words || !says.has(words)) faults.push(`${chosen}: ${words}`);
            const box = svg.getBoundingClientRect();
            for (const mark of svg.querySelectorAll("*")) {
              const own = mark.getBoundingClientRect();
              const isOut = own.left < box.left - 1 || own.right > box.right + 1 || own.bottom > box.bottom + 1;
              if (isOut || /NaN|undefined/.test(mark.outerHTML)) faults.push(`${chosen}: ${mark.outerHTML}`);
            }
          }
          return faults.slice(0, 5);
        }""",
        number,
    )
    assert found == []


def test_marks_stand_at_the_numbers(opened: Page):
    marks = opened.evaluate(
        """() => {
          const root = document.querySelector(".choices");
          const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
          const at = (node, name) => Number(node.getAttribute(name));
          const svg = root.querySelector("svg"), isNumber = (text) => /^[+-]?[\\d.]+$/.test(text.textContent);
          const ticks = [...svg.querySelectorAll("text")].filter(isNumber)
            .map((text) => [Number(text.textContent), at(text, "x")]);
          return {state: data.states[data.start], ticks,
                  dots: [...svg.querySelectorAll(".random")].map((dot) => at(dot, "cx")),
                  seeds: [...svg.querySelectorAll(".seed")].map((dot) => at(dot, "cx")),
                  line: at(svg.querySelector("line[stroke-width='3']"), "x1"),
                  band: [at(svg.querySelector("rect"), "x"), at(svg.querySelector("rect"), "width")]};
        }"""
    )
    (low, x_low), *_, (high, x_high) = marks["ticks"]

    def place(value: float) -> float:
        return x_low + (value - low) / (high - low) * (x_high - x_low)

    state = marks["state"]
    assert marks["line"] == pytest.approx(place(state["set"][0]), abs=0.01)
    assert marks["band"] == pytest.approx(
        [place(state["set"][1]), place(state["set"][2]) - place(state["set"][1])], abs=0.01
    )
    assert sorted(marks["dots"]) == pytest.approx(sorted(map(place, state["random"])), abs=0.01)
    assert sorted(marks["seeds"]) == pytest.approx(sorted(map(place, state["seeds"])), abs=0.01)


def test_the_table_shows_what_is_one_choice_away(opened: Page):
    opened.locator("summary").first.click()
    table = opened.locator(".choices").first.locator("table")
    before = table.locator("tr:visible").count()
    cells = table.locator("tr[aria-current=true] td").all_inner_texts()
    assert cells[:4] == ["helpful", "top by rms_change, 10\xa0%, set to zero", "helpful", "accuracy"]
    # Two more models, another score, another share, another kind of removal, two tests and a metric; below the head.
    assert before == 1 + 1 + 2 + 1 + 1 + 1 + 2 + 1
    opened.get_by_label("Measured by").first.select_option(label="margin")
    assert table.locator("tr[aria-current=true] td").nth(3).inner_text() == "margin"


def test_nothing_scrolls_sideways_on_a_phone_and_the_drawing_follows_the_width(opened: Page):
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert opened.evaluate(overflow) <= 0
    narrow = opened.locator("svg").first.bounding_box()["width"]
    opened.set_viewport_size({"width": 900, "height": 800})
    opened.wait_for_function("document.querySelector('svg').getBoundingClientRect().width > 600")
    assert narrow <= 390 and opened.evaluate(overflow) <= 0


def test_hostile_labels_are_shown_as_text(opened: Page):
    n = opened.locator(".choices").count()
    for number, text in zip(range(n - len(HOSTILE), n), HOSTILE, strict=True):
        words = opened.locator(".choices").nth(number).locator("[aria-live]").evaluate("node => node.textContent")
        assert words == f"{text} 0"
    assert opened.locator(".choices :is(img, b, a, em, strong, script:not([type]) script)").count() == 0


def test_without_scripts_the_table_is_there(browser: Browser, page_file: Path):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(page_file.as_uri())
    assert page.get_by_text(NO_SCRIPTS).first.is_visible()
    page.locator("summary").first.click()
    table = page.locator(".choices").first.locator("table")
    assert table.is_visible() and table.locator("tbody tr").count() == 2 * 3 * (3 * 5 + 6)
    page.context.close()
