"""The repository's own rules: lint, spelling, sizes, import order, and nothing of one machine in the files."""

import ast
import json
import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from downloads import source_files

ROOT = Path(__file__).parents[1]
# A part, which is a file or a folder of the package, may import only parts that stand before it.
PARTS = (
    *("config", "locks", "artifacts", "sources", "pair_layouts", "data", "scores", "neurons", "architectures"),
    *("checkpoints", "masking", "models", "engine", "benchmarks", "evaluation", "activations", "ablation", "training"),
    *("adoption", "statistics", "conditions", "cosines", "stages", "interpolation", "depth", "geometry", "export"),
    # nothing up to here imports anything below
    *("toy", "analysis", "planted", "show", "command", "__main__"),
)
MODULES = sorted((ROOT / "tension_utils").rglob("*.py"))
# These use the package, and it knows nothing of them.
PROGRAMS = sorted(path for folder in ("workflow", "book/_ext") for path in (ROOT / folder).glob("*.py"))
MACHINE_PATH = re.compile(r"(?<![\w.<>{}$~-])/(?:home(?!/someone)|root|Users|work|mnt|scratch|private)/[\w.-]+")
every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "tension_utils")))
every_source = pytest.mark.parametrize("path", [*MODULES, *PROGRAMS], ids=lambda path: str(path.relative_to(ROOT)))


@cache
def own_files() -> list[Path]:
    """The project's own files, in a git checkout or not."""
    return source_files(ROOT)


def run_tool(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint() -> None:
    run_tool("ruff", "check", ".")


def test_format() -> None:
    run_tool("ruff", "format", "--check", ".")


def test_spelling() -> None:
    run_tool("codespell_lib", "--toml", "pyproject.toml", *[str(p.relative_to(ROOT)) for p in own_files()])


def test_american_spelling_in_prose() -> None:
    british = re.compile(
        r"\b(behaviour|colour|normalis|optimis|standardis|labelled|neighbour|favour|centre|modelling)", re.I
    )
    for path in [*(p for p in prose_files() if p.suffix != ".bib"), *MODULES, *PROGRAMS]:
        found = british.findall(path.read_text(encoding="utf-8"))
        assert not found, f"{path.name}: {sorted(set(found))}"


def prose_files() -> list[Path]:
    folders = [ROOT.glob("*.md"), (ROOT / "book").rglob("*.md"), (ROOT / "book").glob("*.bib")]
    return [path for part in [*folders, (ROOT / "notebooks").glob("*.ipynb")] for path in part]


def test_addresses_are_well_formed() -> None:
    found = {}
    for path in prose_files():
        for url in re.findall(r"\b(?:\w+:)?//[^\s)<>\"'`}\]\\]+", path.read_text(encoding="utf-8")):
            found.setdefault(url, path.relative_to(ROOT))
    assert len(found) > 5
    for url, path in found.items():
        parts = urlsplit(url)
        is_here = parts.hostname in ("localhost", "127.0.0.1") and parts.scheme == "http"
        assert is_here or parts.scheme == "https", f"{path}: {url}: expected https"
        assert is_here or re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), f"{path}: {url}: expected a host name"
        assert url[-1] not in ".,;:", f"{path}: {url}: ends with a mark that belongs to the sentence"


def test_links_of_plain_files_lead_somewhere() -> None:
    for path in ROOT.glob("*.md"):  # those of the book are checked by its build
        for target in re.findall(r"\]\((?!https?://)([^)#\s]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: link to {target}, which is not there"


def test_nothing_of_one_machine() -> None:
    for path in own_files():
        if path.suffix in (".parquet", ".safetensors", ".png") or path == Path(__file__):
            continue
        found = MACHINE_PATH.findall(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(ROOT)}: {found[:3]}"


def test_no_large_or_unsafe_files() -> None:
    for path in own_files():
        assert path.stat().st_size < 2_000_000, f"{path.relative_to(ROOT)} is {path.stat().st_size} bytes"
        assert path.suffix not in (".pkl", ".pickle", ".pt", ".bin", ".pth"), (
            f"{path.relative_to(ROOT)}: safetensors only"
        )


def test_requirements_are_pinned_with_a_reason() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+ +# \S.*", line), line
    assert len(lines) == len({line.split("==")[0] for line in lines})


@every_source
def test_functions_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            docstring = node.body[0] if ast.get_docstring(node, clean=False) else None
            length -= docstring.end_lineno - docstring.lineno + 1 if docstring else 0
            assert length <= 40, f"{node.name}: {length} lines without its docstring"


def part_of(path: Path) -> str:
    """Return the file or folder of the package that a module belongs to."""
    return path.relative_to(ROOT / "tension_utils").with_suffix("").parts[0]


def imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "tension_utils":
            parts |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tension_utils."):
            parts.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            parts |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tension_utils.")}
    return parts


@every_module
def test_imports_follow_the_order(path: Path) -> None:
    part, imported = part_of(path), imported_parts(path)
    if path.stem == "__init__":
        assert not imported
    else:
        allowed = PARTS[: PARTS.index(part) + 1]
        assert imported <= set(allowed), f"{part} imports {sorted(imported - set(allowed))}, which come later"


@every_module
def test_the_package_imports_nothing_of_the_workflow_or_the_book(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.stem}: import by the package's name"
            imported.add(node.module.split(".")[0])
    assert not imported & {"workflow", "book", *(program.stem for program in PROGRAMS)}


def test_importing_prints_nothing_and_draws_nothing() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES if path.stem != "__init__"]
    code = f"""
import importlib, os, random
import numpy, torch
before = os.getcwd(), random.getstate(), torch.get_rng_state().tolist(), str(numpy.random.get_state())
for name in {names!r}:
    importlib.import_module(name)
after = os.getcwd(), random.getstate(), torch.get_rng_state().tolist(), str(numpy.random.get_state())
assert before == after and not torch.cuda.is_initialized()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_find_what_they_import(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(path.parent)
    assert runpy.run_path(str(path), run_name="imported")["__doc__"]


# Chapters that read tables and stored scores; the others train, load or take apart a model.
READING_CHAPTERS = ("02b_tension", "05_overlap", "07_errata", "08_explorer", "09_ledger", "10_runs", "a1_heads") + (
    *("a2_removal_details", "b1_calibration", "b2_length_style_template", "b3_transferability"),
)


def notebook_imports(name: str) -> str:
    """Return the import statements of a notebook's cells, solutions included."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    return "\n".join(ast.unparse(node) for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)))


def test_chapters_that_read_stored_results_import_no_model_library() -> None:
    code = "import sys\n"
    for name in READING_CHAPTERS:
        imports = notebook_imports(name)
        assert "tension_utils" in imports
        code += f"{imports}\nassert not {{'torch', 'transformers'}} & {{*sys.modules}}, {name!r}\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + "python -X importtime tells which import loads them"


def test_nothing_is_left_to_do() -> None:
    for path in [p for p in own_files() if p.suffix in (".py", ".ipynb", ".md", ".yaml", ".yml")]:
        if path != Path(__file__):
            found = re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text(encoding="utf-8"))
            assert not found, f"{path.relative_to(ROOT)}: {found[0]}"
