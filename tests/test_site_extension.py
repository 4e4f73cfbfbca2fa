"""Launch buttons: which addresses they take, and which links change; `test_book` sees them on built pages."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup
from sphinx.errors import ConfigError

import tension_book
from tension_utils.show.sentences import NO_WEIGHTS


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


def test_the_sandbox_folds_what_the_study_explains() -> None:
    def markdown(source: str) -> dict:
        return {"cell_type": "markdown", "metadata": {}, "source": source}

    kept = [
        "# Title\ntext",
        "## Result\nwords",
        "## Method\n{glue:text}`n` pairs",
        "## Method\na\n### More\nb",
        "Method",
        "## Method",
    ]
    code = {"cell_type": "code", "metadata": {}, "source": "## Method\nx = 1", "outputs": []}
    cells = [
        *map(markdown, kept),
        code,
        markdown("## Method\n\n```{math}\nx\n```\nwords"),
        markdown("### Differences from the paper\n| a |"),
    ]
    *same, method, differences = json.loads(tension_book.with_folds(json.dumps({"cells": cells})))["cells"]
    assert [cell["source"] for cell in same] == [*kept, code["source"]]
    heading, _, opened, *words, closed = method["source"].splitlines()
    assert heading == "## Method" and opened.endswith("{dropdown} The same words as on real models")
    assert words == ["```{math}", "x", "```", "words"] and opened.startswith(closed) and set(closed) == {":"}
    assert differences["source"].startswith("### Differences from the paper\n\n::::")


def test_every_caption_of_a_sandbox_page_says_so_but_a_drawing_of_no_data(tmp_path: Path) -> None:
    figure = (
        '<figure id="{}"><figcaption><p><span class="caption-number">Fig. 1</span><span class="caption-text">Up.</span>'
    )
    ends = "</p></figcaption></figure>"
    table = "<table><caption><span>Rows</span></caption></table>"
    body = f"{figure.format('fig-own')}{ends}{figure.format('fig-neuron')}{ends}{table}"
    page = f'<html><main><div><p class="admonition-title">{{}}</p></div>{body}</main></html>'
    marked = BeautifulSoup(tension_book.mended(page.format("Synthetic sandbox"), tmp_path / "x.html"), "html.parser")
    said = [found.get_text() for found in marked.select(".caption-text, caption > span")]
    assert said == ["Sandbox. Up.", "Up.", "Sandbox. Rows"]
    assert "Sandbox." not in tension_book.mended(page.format("Question"), tmp_path / "x.html")


def test_a_cell_without_weights_leads_to_the_page_that_has_them() -> None:
    ran, told = ({"cell_type": "code", "outputs": [{"text": [words]}]} for words in ("loss 0.69", NO_WEIGHTS))
    found = json.loads(tension_book.with_sandbox(json.dumps({"cells": [ran, told, ran]}), "../executed/01.ipynb"))
    assert [cell["cell_type"] for cell in found["cells"]] == ["code", "code", "markdown", "code"]
    assert "](../executed/01.ipynb)" in found["cells"][2]["source"]


def test_a_finding_stands_below_the_question_in_place_of_generated_sentences_and_an_empty_one_nowhere() -> None:
    title = {"cell_type": "markdown", "metadata": {}, "source": ["# Title\n", "text"]}
    boxed = "```{admonition} Question\n:class: important\nIs it so?\n\n**In this run:** {glue:text}`answer`.\n```"
    question = {"cell_type": "markdown", "metadata": {}, "source": boxed.splitlines(keepends=True)}
    text = json.dumps({"cells": [title, question, title]})
    assert tension_book.with_finding(text, " \n") == text
    first, asked, note, last = json.loads(tension_book.with_finding(text, "**Yes.** 3 of 4.\n"))["cells"]
    assert first == last == title
    assert asked["source"] == "```{admonition} Question\n:class: important\nIs it so?\n```"
    assert "What this run found" in note["source"] and "**Yes.** 3 of 4." in note["source"]
    figure = "```{glue:figure} plane\n:name: fig\n\nAccuracy.\n```"
    beside = question | {"source": f"::::{{grid}}\n{boxed}\n\n{figure}\n::::"}  # a question in a layout of its own
    kept = json.loads(tension_book.with_finding(json.dumps({"cells": [title, beside]}), "Yes."))["cells"]
    assert kept[1]["source"] == f"::::{{grid}}\n{asked['source']}\n\n{figure}\n::::" and len(kept) == 3
    assert "What the study found" in tension_book.with_finding(text, "Yes.", tension_book.STUDY_FOUND)
