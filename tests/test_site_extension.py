"""Launch buttons: which addresses they take, and which links change; `test_book` sees them on built pages."""

import json
from types import SimpleNamespace

import pytest
from sphinx.errors import ConfigError

import tension_book


@pytest.mark.parametrize("url", ["https://example.org/a/b", "github.com/a/b", "https://github.com/a", "javascript:x"])
def test_other_addresses_are_refused(url: str) -> None:
    config = SimpleNamespace(html_theme_options={"repository_url": url, "launch_buttons": {"binderhub_url": "x"}})
    with pytest.raises(ConfigError, match="expected https://github.com/OWNER/NAME"):
        tension_book.settle_address(None, config)


def test_only_links_to_executed_notebooks_change() -> None:
    kept = {"url": "_sources/executed/01_train.ipynb", "text": ".ipynb"}
    group = {"type": "group", "buttons": [kept, {"url": "https://x.org/executed/01_train.ipynb"}]}
    changed = tension_book.sources_instead([group])
    assert changed == [{"type": "group", "buttons": [kept, {"url": "https://x.org/notebooks/01_train.ipynb"}]}]
    assert group["buttons"][1]["url"].endswith("executed/01_train.ipynb"), "the given buttons stay as they are"


def page_of(*parameters: str) -> str:
    """A notebook with a title and cells of parameters, the first its own, the second injected."""
    cells = [{"cell_type": "markdown", "metadata": {}, "source": ["# Title\n", "text"]}]
    for tag, source in zip(("parameters", "injected-parameters"), parameters, strict=False):
        cells.append({"cell_type": "code", "metadata": {"tags": [tag]}, "source": [source], "outputs": []})
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


OWN = 'base_models: list = ["toy"]  # as in chapter 1'


@pytest.mark.parametrize(
    ("parameters", "is_marked"),
    [
        ((OWN,), True),
        ((OWN, 'seeds = [0]\nbase_models = ["toy"]'), True),
        ((OWN, "seeds = [0]"), True),
        ((OWN, 'base_models = ["owner/name"]'), False),
        ((OWN, "base_models = ['models/toy']"), False),
        ((), False),
    ],
)
def test_only_chapters_on_the_embedded_world_are_marked(parameters: tuple[str, ...], is_marked: bool) -> None:
    text = page_of(*parameters)
    marked = tension_book.with_banner(text)
    assert (marked != text) == is_marked
    if is_marked:
        title, note, *rest = json.loads(marked)["cells"]
        assert title["source"][0] == "# Title\n" and len(rest) == len(parameters)
        assert "Synthetic sandbox" in note["source"] and "real models" not in note["source"]
        assert (
            "[here](../study/x.ipynb)"
            in json.loads(tension_book.with_banner(text, "../study/x.ipynb"))["cells"][1]["source"]
        )


def test_a_finding_stands_below_the_question_and_an_empty_one_nowhere() -> None:
    text = page_of(OWN)
    assert tension_book.with_finding(text, " \n") == text
    title, _, note, *_ = json.loads(tension_book.with_finding(text, "**Yes.** 3 of 4.\n"))["cells"]
    assert title["source"][0] == "# Title\n" and "What this run found" in note["source"]
    assert "**Yes.** 3 of 4." in note["source"]
