"""Chapters on six base models, three arms and three seeds: they run, say which base model, and stay small."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from conftest import MICRO, ROOT
from one_kernel import execute_chapters

from run_notebook import declared_parameters
from tension_utils.artifacts import TABLES, atomic_path, file_hash, find_runs, read_manifest
from tension_utils.config import OBJECTIVES, Run
from tension_utils.scores import NeuronScores

pytestmark = pytest.mark.xdist_group("chain")
BASES = ("a-135m", "a-360m", "a-1.7b", "b-small", "b-medium", "b-large")
SEEDS = (0, 247, 932)
CHAPTERS = (
    *("01_train", "02_evaluate", "02b_tension", "03_identify", "04_ablate", "05_overlap", "08_explorer", "09_ledger"),
    *("a1_heads", "a2_removal_details", "b1_calibration", "b2_length_style_template", "b3_transferability"),
)
POOR = ("02_evaluate", "02b_tension", "04_ablate", "05_overlap")
PAIR = ("05_overlap", "b1_calibration", "b3_transferability")
LIMIT = 3_000_000  # bytes of an executed notebook


def copy_as(source: Run, target: Run, generator: np.random.Generator, columns: dict[str, object]) -> None:
    """Write the artifacts of a run as those of another reward model, a little changed, as an export without weights."""
    with atomic_path(target.folder) as folder:
        shutil.copytree(source.folder, folder, ignore=shutil.ignore_patterns("reward_model", "ablation_parts", ".*"))
        for name in TABLES:
            if (folder / f"{name}.parquet").exists():
                table = pd.read_parquet(folder / f"{name}.parquet")
                if "margin" in table:
                    noise = generator.normal(0, table.margin.std() / 2, len(table)).astype(table.margin.dtype)
                    table["margin"] = table.margin + noise
                    table["credit"] = (table.margin > 0).astype(table.credit.dtype)
                own = {column: value for column, value in (target.label | columns).items() if column in table}
                table.assign(**own).to_parquet(folder / f"{name}.parquet", index=False)
        for path in folder.rglob("*.safetensors"):
            scores = NeuronScores.load(path)
            factors = {
                shape: np.exp(generator.normal(0, 0.3, shape)) for shape in {t.shape for t in scores.tensors.values()}
            }
            for key, values in scores.tensors.items():  # one factor per neuron, so that kinds still fit together
                scores.tensors[key] = (values * factors[values.shape]).astype(values.dtype)
            scores.save(path)
        manifest = read_manifest(source.folder)
        for section in manifest.values():
            section["config"] |= target.label
            made = folder / section["artifact"]
            section["artifact_hash"] = file_hash(made) if made.exists() else str(target.folder)
            section["beside"] = {}
        files = {p.relative_to(folder).as_posix(): file_hash(p) for p in folder.rglob("*") if p.is_file()}
        files.pop("manifest.json")
        (folder / "manifest.json").write_text(json.dumps(manifest | {"export": {"files": files}}))


def relabeled(source: Path, target: Path, bases: tuple[str, ...], seeds: tuple[int, ...], **columns: object) -> Path:
    """Fill ``target`` with reward models of several base models and seeds from those of one; set columns of tables."""
    generator = np.random.default_rng(0)
    runs = {run.objective: run for run in find_runs(source)}
    for base in bases:
        for objective in OBJECTIVES:
            for seed in seeds:
                copy_as(runs[objective], Run(target, base, objective, seed), generator, columns)
    return target


def project_with(executed_book: Path, project: Path, bases: tuple[str, ...], seeds: tuple[int, ...], **columns) -> Path:
    """Fill a folder with what chapters read: relabeled runs, the toy world, the committed results."""
    for name in ("_toc.yml", "results"):
        (project / name).symlink_to(ROOT / name)
    micro = executed_book / "runs" / "micro"
    root = relabeled(micro, project / "runs" / "many", bases, seeds, **columns)
    shutil.copytree(micro / "toy-world", root / "toy-world")
    return project


@pytest.fixture(scope="module")
def pages(executed_book: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, nbformat.NotebookNode]:
    """The chapters, executed one after the other by one kernel, in a project whose runs are those of many models."""
    project = project_with(executed_book, tmp_path_factory.mktemp("many"), BASES, SEEDS)
    return chapters_of(project, CHAPTERS, BASES, SEEDS, OBJECTIVES)


@pytest.fixture(scope="module")
def poor_pages(executed_book: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, nbformat.NotebookNode]:
    """Chapters of one base model and one seed, with a benchmark missing, and tests that say nothing of refusing."""
    project = project_with(executed_book, tmp_path_factory.mktemp("poor"), BASES[:1], SEEDS[:1], direction="none")
    return chapters_of(project, POOR, BASES[:1], SEEDS[:1], OBJECTIVES)


@pytest.fixture(scope="module")
def pair_pages(executed_book: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, nbformat.NotebookNode]:
    """Chapters of one pair of objectives, without a mixed model."""
    project = project_with(executed_book, tmp_path_factory.mktemp("pair"), BASES[:1], SEEDS[:2])
    shutil.rmtree(project / "runs" / "many" / BASES[0] / OBJECTIVES[2])
    return chapters_of(project, PAIR, BASES[:1], SEEDS[:2], OBJECTIVES[:2])


def chapters_of(
    project: Path,
    chapters: tuple[str, ...],
    bases: tuple[str, ...],
    seeds: tuple[int, ...],
    objectives: tuple[str, ...],
) -> dict[str, nbformat.NotebookNode]:
    """Return executed chapters of some base models and seeds, with the settings of the micro profile."""
    values = {"root": "runs/many", "base_models": list(bases), "seeds": list(seeds), "objectives": list(objectives)}
    settings = {}
    for chapter in chapters:
        declared = declared_parameters(nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4))
        own = values | MICRO.get(chapter.split("_", 1)[1], {})
        settings[chapter] = {name: value for name, value in own.items() if name in declared}
    return execute_chapters(project, settings)


def tables_of(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Return the column names of every table of a page."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for table in BeautifulSoup(output.get("data", {}).get("text/html", ""), "html.parser").find_all("table"):
                found.append([" ".join(head.get_text().split()) for head in table.select("tr:first-of-type th")])
    return found


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_of_54_models_is_whole_and_small(pages: dict[str, nbformat.NotebookNode], chapter: str) -> None:
    page = pages[chapter]
    assert len(nbformat.writes(page).encode()) < LIMIT
    tables = tables_of(page)
    assert tables
    for columns in tables:
        if "seed" in columns:
            assert "base model" in columns, columns


def check_references(page: nbformat.NotebookNode) -> None:
    """Check that every figure and result that a page's text refers to is there."""
    text = "\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")
    figures = {cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in page.cells}
    figures |= set(re.findall(r"^:name: (fig-[\w-]+)$", text, re.MULTILINE))
    assert set(re.findall(r"{numref}`(?:[^`<]*<)?([\w-]+)", text)) <= figures
    glued = set(re.findall(r"{glue:\w*}[` ](\w+)", text))
    names = {
        output.get("metadata", {}).get("scrapbook", {}).get("name")
        for c in page.cells
        for output in c.get("outputs", [])
    }
    assert glued <= {str(name).removeprefix("application/papermill.record/") for name in names}


@pytest.mark.parametrize("chapter", POOR)
def test_what_text_refers_to_is_there_whatever_a_run_lacks(
    poor_pages: dict[str, nbformat.NotebookNode], chapter: str
) -> None:
    check_references(poor_pages[chapter])


@pytest.mark.parametrize("chapter", PAIR)
def test_a_chapter_does_without_a_mixed_model(pair_pages: dict[str, nbformat.NotebookNode], chapter: str) -> None:
    check_references(pair_pages[chapter])
