"""The book as a course: exercises with executed solutions, no dead ends, a plan for every profile."""

import ast
import json
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import copy_project, run_pipeline
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROSE = sorted(p for p in (ROOT / "book").rglob("*.md") if not {"generated", "_ext"} & set(p.parts))
PACKAGE = ROOT / "tension_utils"
RECORDS = "10_runs"  # a page of records, without a question
every_chapter = pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path.stem != RECORDS], ids=lambda path: path.stem
)
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def exercise_part(path: Path) -> list[nbformat.NotebookNode]:
    """Cells from the heading Exercises to the heading Next."""
    cells = nbformat.read(path, as_version=4).cells
    starts = [i for i, cell in enumerate(cells) if cell.cell_type == "markdown" and "## Exercises" in cell.source]
    assert len(starts) == 1, f"{path.stem}: expected one section Exercises, found {len(starts)}"
    ends = [i for i, cell in enumerate(cells) if cell.cell_type == "markdown" and cell.source.startswith("## Next")]
    assert ends and starts[0] < ends[0], f"{path.stem}: the section Next follows the exercises in a cell of its own"
    return cells[starts[0] : ends[0]]


@every_chapter
def test_two_exercises_each_with_a_folded_answer(path: Path) -> None:
    text = "\n".join(cell.source for cell in exercise_part(path) if cell.cell_type == "markdown")
    numbers = re.findall(r"^\*\*(\d+)\. \(", text, flags=re.MULTILINE)
    assert numbers == ["1", "2"], f"exercises {numbers}, expected `**1. (...)**` and `**2. (...)**`"
    assert len(re.findall(r"^`{3}\{dropdown\} Solution", text, flags=re.MULTILINE)) == 2


@every_chapter
def test_solutions_hold_executable_code_that_is_folded(path: Path) -> None:
    solutions = [cell for cell in exercise_part(path) if cell.cell_type == "code"]
    assert len(solutions) == 2, f"{path.stem}: {len(solutions)} cells of code, expected one per exercise"
    for number, cell in enumerate(solutions, start=1):
        assert "hide-cell" in cell.metadata.tags, "a solution is folded until the reader asks for it"
        calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
        shown = {ast.unparse(call.func) for call in calls} & {"print", "show", "plt.show"}
        assert shown, f"{path.stem}: solution {number} shows nothing"
        computed = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, (ast.BinOp, ast.Compare))]
        assert len(calls) > 1 or computed, f"{path.stem}: solution {number} computes nothing"


@pytest.mark.parametrize(
    "stem",
    [
        *("01_train", "02_evaluate", "02b_tension", "03_identify", "04_ablate", "05_overlap", "05b_part", "05c_dial"),
        *("a1_heads", "a2_removal_details"),
    ],
)
def test_a_solution_stands_right_below_its_exercise(stem: str) -> None:
    kinds = [cell.cell_type for cell in exercise_part(ROOT / "notebooks" / f"{stem}.ipynb")]
    assert kinds == ["markdown", "code", "markdown", "code"]


TOC = list(parse_toc_yaml(ROOT / "_toc.yml"))


def test_every_notebook_and_page_is_in_the_book() -> None:
    assert {f"executed/{path.stem}" for path in NOTEBOOKS} <= set(TOC)
    assert {path.relative_to(ROOT).with_suffix("").as_posix() for path in PROSE} <= set(TOC)


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.stem)
def test_no_page_is_a_dead_end(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    if path.stem != "intro":
        head = "\n".join(lines[:8])
        assert re.search(r"Before this page:[^*]*\]\(", head), f"{path.name}: say what comes before it"
    if path.stem != "bibliography":
        assert re.search(r"^Next: .*\]\([\w./]+\)", text, flags=re.MULTILINE), f"{path.name} ends without `Next: [...]`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_chapter_says_what_comes_next(path: Path) -> None:
    last = nbformat.read(path, as_version=4).cells[-1].source
    assert last.startswith("## Next") and re.search(r"\]\([\w./]+\)", last)


def test_cited_works_are_in_the_references_and_all_are_cited_or_named() -> None:
    known = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.M))
    for path in [*PROSE, *NOTEBOOKS, *PACKAGE.rglob("*.py")]:
        for keys in re.findall(r"\{cite(?::\w+)?\}`([\w,]+)`", path.read_text(encoding="utf-8")):
            assert set(keys.split(",")) <= known, f"{path.name}: {keys}"


def test_linked_terms_are_in_the_glossary() -> None:
    glossary = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    entries = set(re.findall(r"^(\S.*)\n  \S", glossary.split("```{glossary}")[1], flags=re.MULTILINE))
    names = {name.strip() for entry in entries for name in (entry, *entry.split(","))}
    for path in [*PROSE, *NOTEBOOKS]:
        for term in re.findall(r"\{term\}`([^`]+)`", path.read_text(encoding="utf-8")):
            name = re.sub(r"^.*<(.+)>$", r"\1", term).replace("\\n", " ")
            assert name in names, f"{path.name}: {name!r} is no entry of the glossary"


@pytest.mark.parametrize("profile", ["tiny", "laptop", "paper"])
def test_profiles_that_the_pages_name_can_be_planned(profile: str, tmp_path: Path) -> None:
    """The dry run that the pages tell readers to make, on a copy without results."""
    done = run_pipeline(copy_project(tmp_path), profile, "--dry-run", "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr


def test_binder_installs_what_the_package_needs() -> None:
    lines = (ROOT / ".binder" / "requirements.txt").read_text().splitlines()
    assert "-r ../requirements.txt" in lines
    script = (ROOT / ".binder" / "postBuild").read_text()
    assert (ROOT / ".binder" / "postBuild").stat().st_mode & 0o100, "Binder runs an executable file"
    profile = re.search(r"--profile (\w+)", script)[1]
    assert (ROOT / "config" / f"{profile}.yaml").is_file()
    assert subprocess.run(["bash", "-n", ROOT / ".binder" / "postBuild"]).returncode == 0
    python = (ROOT / ".binder" / "runtime.txt").read_text().strip()
    assert python.startswith("python-3.") and int(python.split(".")[1]) >= 11


def test_defaults_of_stage_notebooks_are_those_of_the_default_profile() -> None:
    """A notebook opened by hand then finds what `make book` computed, instead of computing something else."""
    profile = yaml.safe_load((ROOT / "config" / "tiny.yaml").read_text())
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        cell = next(c for c in cells if "parameters" in c.metadata.get("tags", []))
        defaults = {n.target.id: ast.literal_eval(n.value) for n in ast.parse(cell.source).body}
        section = profile.get(path.stem.split("_", 1)[1])
        if isinstance(section, dict):
            differing = {k: (defaults[k], v) for k, v in section.items() if defaults.get(k, v) != v}
            assert not differing, f"{path.stem}: default and config/tiny.yaml differ: {json.dumps(differing)}"
