"""Notebooks in git: no outputs, one typed parameters cell, the chapter template, small cells."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGES = (
    *("01_train", "02_evaluate", "02b_tension", "03_identify", "04_ablate", "04b_masked_training", "05_overlap"),
    *("05b_part", "a1_heads", "a2_removal_details"),
)
FITTING_WIDTH = 96  # characters of code that the text's column has room for on a desktop
SECTIONS = (
    "Parameters",
    "Setup",
    "Inputs",
    "Method",
    "Result",
    "Reading the figure",
    "Checks",
    "Exercise",
    "Next",
)
LITERALS = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.UnaryOp)


def read(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def markdown(path: Path) -> str:
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def headings(path: Path) -> list[str]:
    text = re.sub(r"^(`{3,}|:{3,}).*?^\1\s*$", "", markdown(path), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^## +(.+?) *$", text, flags=re.MULTILINE)


def is_literal(node: ast.expr) -> bool:
    return all(isinstance(part, (*LITERALS, ast.expr_context, ast.unaryop)) for part in ast.walk(node))


def test_every_stage_has_its_notebook() -> None:
    assert set(STAGES) <= {path.stem for path in NOTEBOOKS}


every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
every_chapter = pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem in STAGES], ids=lambda path: path.stem)


@every_notebook
def test_holds_no_outputs(path: Path) -> None:
    for cell in code_cells(path):
        assert not cell.outputs and cell.execution_count is None, f"{path.name} has outputs: run `make clear`"
    assert "widgets" not in read(path).metadata, f"{path.name} holds the state of widgets: take its source from git"


def test_make_clear_removes_outputs_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    for path in NOTEBOOKS:
        notebook = read(path)
        for number, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
            cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text="x")], number
        nbformat.write(notebook, tmp_path / "notebooks" / path.name)
    shutil.copy(ROOT / "_config.yml", tmp_path)
    (command,) = re.findall(r"^clear: .+\n\t@\$\(BIN\)/python (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    done = subprocess.run([sys.executable, ROOT / command], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.count("cleared") == len(NOTEBOOKS)
    for path in NOTEBOOKS:
        assert (tmp_path / "notebooks" / path.name).read_bytes() == path.read_bytes(), path.name


@every_notebook
def test_has_one_parameters_cell_of_typed_literals(path: Path) -> None:
    tagged = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    statements = ast.parse(tagged[0].source).body
    assert 1 <= len(statements) <= 15
    for statement in statements:
        assert isinstance(statement, ast.AnnAssign), f"{ast.unparse(statement)}: expected `name: type = literal`"
        assert is_literal(statement.value), f"{ast.unparse(statement)}: nothing is computed in the parameters cell"
    scalars = [line for line in tagged[0].source.splitlines() if re.match(r"\w+: (str|int|float|bool)\b", line)]
    assert all("#" in line for line in scalars), "a comment names each parameter's unit or allowed values"


@every_notebook
def test_visible_code_fits_its_column(path: Path) -> None:
    for cell in code_cells(path):
        if not {"hide-input", "hide-cell", "remove-cell"} & set(cell.metadata.get("tags", [])):
            wide = [line for line in cell.source.splitlines() if len(line) > FITTING_WIDTH]
            assert not wide, f"{path.stem}: more than {FITTING_WIDTH} characters: {wide[0]}"


@every_notebook
def test_code_parses_and_defines_no_class(path: Path) -> None:
    for cell in code_cells(path):
        tree = ast.parse(cell.source)
        assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(tree)), "classes live in tension_utils"


@every_notebook
def test_text_from_data_never_becomes_markup(path: Path) -> None:
    for cell in code_cells(path):
        for call in (node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func).split(".")[-1]
            assert name not in ("HTML", "Markdown", "HTMLMath"), "use tension_utils.show.tables, which escapes"


@every_chapter
def test_follows_the_chapter_template(path: Path) -> None:
    cells = read(path).cells
    assert cells[0].cell_type == "markdown" and re.match(r"# \S", cells[0].source)
    found = headings(path)
    positions = [next((i for i, h in enumerate(found) if h.lower().startswith(s.lower())), None) for s in SECTIONS]
    assert None not in positions, f"sections {found}, expected {SECTIONS}"
    assert positions == sorted(positions), f"sections {found}, expected the order {SECTIONS}"
    assert found[-1].startswith("Next")


@every_chapter
def test_opens_with_a_question_and_cites_the_study(path: Path) -> None:
    before = markdown(path).split("## Parameters")[0]
    question = re.search(r"\{admonition\} Question.*?\n(.*?)\n(`{3,}|:{3,})", before, flags=re.DOTALL)
    assert question, "expected an admonition titled Question before the parameters"
    assert "?" in question[1] and "tanwar2026" in question[1]


@every_chapter
def test_setup_is_folded_and_method_has_an_equation(path: Path) -> None:
    section, folded = None, False
    for cell in read(path).cells:
        if cell.cell_type == "markdown" and (found := re.findall(r"^## +(.+)$", cell.source, flags=re.MULTILINE)):
            section = found[-1]
        elif cell.cell_type == "code" and section and section.startswith("Setup"):
            folded |= bool({"hide-input", "hide-cell"} & set(cell.metadata.get("tags", [])))
    assert folded, "the cell under Setup carries the tag hide-input"
    assert re.search(r"\{math\}\s*\n:label:", markdown(path)), "Method shows a labeled equation"


@every_notebook
def test_figures_have_caption_name_description_and_are_cited(path: Path) -> None:
    figures = [c.metadata["mystnb"] for c in code_cells(path) if "figure" in c.metadata.get("mystnb", {})]
    assert figures or path.stem not in STAGES, "a chapter has a figure with its caption in the cell's metadata (mystnb)"
    names = [figure["figure"]["name"] for figure in figures]
    assert len(names) == len(set(names))
    for figure in figures:
        assert figure["figure"]["caption"].strip().endswith("."), "a caption is a sentence"
        assert len(figure.get("image", {}).get("alt", "")) >= 40, f"{figure['figure']['name']} is not described"
        assert f"{{numref}}`{figure['figure']['name']}`" in markdown(path), f"{figure['figure']['name']} is not cited"


@every_notebook
def test_figures_in_another_place_have_them_too(path: Path) -> None:
    for body in re.findall(r"^```\{glue:figure\} \w+\n(.*?)^```$", markdown(path), flags=re.MULTILINE | re.DOTALL):
        (name,), (alt,) = re.findall(r"^:name: (fig-[\w-]+)$", body, re.M), re.findall(r"^:alt: (.+)$", body, re.M)
        assert len(alt) >= 40 and body.strip().endswith("."), f"{name}: expected a description, and a caption"
        assert f"{{numref}}`{name}`" in markdown(path), f"{name} is not cited"


@every_notebook
def test_every_picture_is_a_figure(path: Path) -> None:
    for cell in code_cells(path):
        if "plt.show()" in cell.source:
            assert "figure" in cell.metadata.get("mystnb", {}), "give the cell a caption, a name and a description"


@every_notebook
def test_a_warning_comes_before_dialogues(path: Path) -> None:
    cells = read(path).cells
    for number, cell in enumerate(cells):
        if cell.cell_type == "code" and re.search(r"\bshow_pairs\(", cell.source):
            before = "\n".join(c.source for c in cells[:number] if c.cell_type == "markdown")
            assert re.search(r"[:`]{3,}\{warning\}", before), "people may have said upsetting things: warn first"


@every_chapter
def test_exercises_have_folded_solutions(path: Path) -> None:
    text = markdown(path).split("## Exercise", 1)[1]
    assert text.count("dropdown") >= 2, "two exercises, each with a dropdown solution"
