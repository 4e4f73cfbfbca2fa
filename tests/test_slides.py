"""The slides: every slide of the text, the figures of the chapters, nothing from data as markup."""

import base64
import re
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup

import slides

SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><title>%s</title></svg>"


def chapter(folder: Path, name: str, picture: bytes, alt: str = "a picture", models: str = "toy") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    output = nbformat.v4.new_output("display_data", {"image/svg+xml": picture.decode()})
    cell = nbformat.v4.new_code_cell("plot()", outputs=[output])
    cell.metadata["mystnb"] = {"figure": {"name": name}, "image": {"alt": alt}}
    parameters = nbformat.v4.new_code_cell(f'base_models = ["{models}"]', metadata={"tags": ["injected-parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[parameters, cell]), folder / f"{name}.ipynb")


def test_the_study_comes_before_the_sandbox_and_each_says_what_it_is(tmp_path: Path) -> None:
    chapter(tmp_path / "executed", "fig-a", SVG % b"sandbox")
    chapter(tmp_path / "executed", "fig-b", SVG % b"sandbox")
    chapter(tmp_path / "study", "fig-a", SVG % b"study", 'with "quotes" <b>', models="real")
    chapter(tmp_path / "executed", "fig-c", SVG % b"own", models="real")
    found = slides.chapter_figures(tmp_path)
    assert b"study" in found["fig-a"][0] and b"sandbox" in found["fig-b"][0]
    assert [found[name][2] for name in ("fig-a", "fig-c")] == ["the study", "your run"]
    page = BeautifulSoup(
        slides.slide_deck("one\n\n---\n\nfigure: fig-a\n\ntwo\n\n---\n\nfigure: fig-b", found), "html.parser"
    )
    parts = page.find_all("section")
    assert [part.find("img") is not None for part in parts] == [False, True, True]
    assert base64.b64decode(parts[1].img["src"].split(",")[1]) == SVG % b"study"
    assert parts[1].img["alt"] == 'with "quotes" <b>' and "made-up" in parts[2].get_text()


def test_a_figure_that_a_run_lacks_leaves_its_text() -> None:
    page = slides.slide_deck("# One\n\n---\n\nfigure: fig-none\n\nSay it.", {})
    assert page.count("<section>") == 2 and "Say it." in page and "<img" not in page


def test_markup_in_the_text_is_shown_and_not_run() -> None:
    assert "&lt;script&gt;" in slides.slide_deck("<script>alert(1)</script>", {})


def test_the_deck_names_figures_of_the_chapters() -> None:
    text = (slides.HERE / "slides.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^figure: (\S+)$", text, flags=re.MULTILINE)) - {slides.VERDICTS}
    notebooks = (slides.HERE.parents[1] / "notebooks").glob("*.ipynb")
    defined = {name for path in notebooks for name in re.findall(r'"name": "(fig-[\w-]+)"', path.read_text("utf-8"))}
    assert named and named <= defined
    assert len(text.split(slides.RULE)) >= 12
