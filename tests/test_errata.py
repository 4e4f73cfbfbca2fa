"""The errata chapters: every fact has its heading, status and code, and its checks follow from its arrays."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import nbformat
import pytest

from tension_utils.data import Item, Turn, render_prompt, render_response

NOTEBOOKS = [Path(__file__).parents[1] / "notebooks" / f"{name}.ipynb" for name in ("07_errata", "07b_errata")]
CELLS = [cell for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells]
CODE = [cell.source for cell in CELLS if cell.cell_type == "code"]
N_FACTS = 20


def run(monkeypatch: pytest.MonkeyPatch, replace: dict[str, str] | None = None, times: int = 1) -> dict:
    """Execute both pages, texts replaced first, each ``times`` times; return names and glued texts."""
    code, glued = "\n\n".join(CODE), {}
    for old, new in (replace or {}).items():
        assert code.count(old) == times, old
        code = code.replace(old, new)
    fake = SimpleNamespace(glue=lambda name, value, display: glued.update({name: value}))
    monkeypatch.setitem(sys.modules, "myst_nb", fake)
    names: dict = {}
    with mpl.rc_context():
        mpl.use("agg")
        exec(compile(code, NOTEBOOKS[0].name, "exec"), names)
        names["plt"].close("all")
    return names | glued


@pytest.fixture(scope="module")
def page() -> dict:
    """Names of the untouched page."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return run(monkeypatch)


def test_every_fact_has_a_heading_a_status_and_code() -> None:
    found = []
    for index, cell in enumerate(CELLS):
        sections = re.split(r"^### (?=\d)", cell.source, flags=re.MULTILINE)[1:] if cell.cell_type == "markdown" else []
        for section in sections:
            found.append(int(section.split(".")[0]))
            assert all(f"**{word}:**" in section for word in ("Status", "Not verified", "Here")), found[-1]
            assert "verified in" in section and re.search(r"\]\(\d\w*\.ipynb\)", section), found[-1]
            assert CELLS[index + 1].cell_type == "code", found[-1]
    assert found == list(range(1, N_FACTS + 1))


def test_cited_chapters_exist() -> None:
    linked = set(re.findall(r"\]\((\d\w*)\.ipynb\)", "\n".join(cell.source for cell in CELLS)))
    assert linked and all((NOTEBOOKS[0].parent / f"{name}.ipynb").is_file() for name in linked)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_checks_hold_for_other_seeds(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    run(monkeypatch, {"seed: int = 0": f"seed: int = {seed}"}, times=len(NOTEBOOKS))


def test_answer_counts_every_fact(page: dict) -> None:
    assert list(page["facts"].fact) == list(range(1, N_FACTS + 1))
    assert page["errata_answer"].startswith(f"of {N_FACTS} details, 9 ") and "facts 1 and 9" in page["errata_answer"]


def test_table_agrees_with_the_text(page: dict) -> None:
    facts = page["facts"].set_index("fact")
    text = "\n".join(cell.source for cell in CELLS if cell.cell_type == "markdown")
    for section in re.split(r"^##+ (?=\d)", text, flags=re.MULTILINE)[1:]:
        row = facts.loc[int(section.split(".")[0])]
        assert f"verified in {'printed' if row.shown_by == 'output' else 'the released'} {row.shown_by}" in section
        assert f"[chapter {row.chapter}]" in section, row.detail


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.4118, 0.3908, 0.1]", "0.4118, 0.3908, 0.5]"),  # fact 1
        ("(46.97, 61.87)", "(36.97, 61.87)"),  # fact 4
        ("47.9, 47.2, 50.9", "43.9, 47.2, 50.9"),  # fact 5
        ("2151, 5525]", "2151, 6525]"),  # fact 8
        ("0.5566, 0.5387]", "0.5566, 0.5487]"),  # fact 9
        ("42_537}", "52_537}"),  # fact 15
    ],
)
def test_a_changed_number_fails_the_checks(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    with pytest.raises(AssertionError, match="checks failed"):
        run(monkeypatch, {old: new})


def test_templates_are_the_ones_of_the_package(page: dict) -> None:
    item = Item("x", (Turn("human", "Hi"),), ("Hello",), ("No",))
    for template, ours in (("hh", "in_training"), ("published", "on_benchmarks")):
        text = render_prompt(item.prompt, template) + render_response("Hello", template)
        assert page[ours].format("Hi", "Hello") == text
