"""Downloads: a chapter's archive holds what it needs, nothing else, and runs in an empty folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from tension_utils import downloads

ROOT = Path(__file__).parents[1]
FILES = (
    *("LICENSE", "pyproject.toml", "requirements.txt", "_toc.yml", "tension_utils/a.py", "config/tiny.yaml"),
    *("config/mine.yaml", "results/laptop/x.csv", "book/intro.md", "book/generated/claims.md", "Makefile"),
    "runs/tiny/toy/helpful/seed0/evaluation.parquet",
    "runs/tiny/toy/helpful/seed0/ablation.parquet",
    "runs/tiny/toy/helpful/seed0/manifest.json",
    "runs/tiny/toy/helpful/seed0/.manifest.lock",
    "runs/tiny/toy/helpful/seed0/reward_model/config.json",
    "runs/tiny/toy/helpful/seed0/reward_model/model.safetensors",
    "runs/other/toy/helpful/seed0/evaluation.parquet",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "project"


def executed(folder: Path, name: str) -> Path:
    output = nbformat.v4.new_output("stream", text="secret")
    cell = nbformat.v4.new_code_cell("print(x)", outputs=[output], execution_count=1)
    cell.metadata = nbformat.from_dict({"papermill": {"status": "completed"}, "tags": ["injected-parameters"]})
    path = folder / f"{name}.ipynb"
    metadata = {"provenance": {"device": "cpu"}, "kernelspec": {"name": "python3", "display_name": "x"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=metadata), path)
    return path


def test_archive_holds_package_notebook_and_inputs_without_weights(root: Path, tmp_path: Path) -> None:
    archive = downloads.chapter_archive(root, executed(tmp_path, "02b_tension"), "tiny", tmp_path / "out")
    with zipfile.ZipFile(archive) as found:
        names = {name.removeprefix("02b_tension/") for name in found.namelist()}
        notebook = nbformat.reads(found.read("02b_tension/notebooks/02b_tension.ipynb").decode(), as_version=4)
    run = "runs/tiny/toy/helpful/seed0/"
    assert names == {
        *("LICENSE", "README.md", "pyproject.toml", "requirements.txt", "_toc.yml", "tension_utils/a.py"),
        *("notebooks/02b_tension.ipynb", f"{run}evaluation.parquet", f"{run}manifest.json"),
        f"{run}reward_model/config.json",
    }
    assert notebook.cells[0].outputs == [] and notebook.cells[0].execution_count is None
    assert notebook.cells[0].metadata.tags == ["injected-parameters"] and set(notebook.metadata) == {"kernelspec"}


def test_pages_of_committed_tables_carry_those(root: Path, tmp_path: Path) -> None:
    archive = downloads.chapter_archive(root, executed(tmp_path, "06_real_run"), "tiny", tmp_path / "out")
    names = zipfile.ZipFile(archive).namelist()
    assert "06_real_run/results/laptop/x.csv" in names and not any("/runs/" in name for name in names)


def test_large_inputs_stay_out_and_the_readme_says_so(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "LIMIT", 10)
    archive = downloads.chapter_archive(root, executed(tmp_path, "02b_tension"), "tiny", tmp_path / "out")
    with zipfile.ZipFile(archive) as found:
        assert not any("/runs/" in name for name in found.namelist())
        assert "make book PROFILE=tiny" in found.read("02b_tension/README.md").decode()


def test_equal_content_gives_equal_bytes(root: Path, tmp_path: Path) -> None:
    first = downloads.project_archive(root, tmp_path / "a").read_bytes()
    (root / "LICENSE").touch()
    assert downloads.project_archive(root, tmp_path / "b").read_bytes() == first
    (root / "LICENSE").write_text("other")
    assert downloads.project_archive(root, tmp_path / "c").read_bytes() != first


def test_project_leaves_out_what_is_made_and_what_is_the_users(root: Path, tmp_path: Path) -> None:
    names = zipfile.ZipFile(downloads.project_archive(root, tmp_path)).namelist()
    top = "helpful-harmless/"
    assert {f"{top}Makefile", f"{top}config/tiny.yaml", f"{top}book/intro.md"} <= set(names)
    assert not any("mine" in name or "generated" in name or "runs/" in name for name in names)


def test_project_holds_every_file_of_the_repository(tmp_path: Path) -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: cannot tell made files from source files")
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
    archive = downloads.project_archive(ROOT, tmp_path)
    held = {name.split("/", 1)[1] for name in zipfile.ZipFile(archive).namelist()}
    assert {name for name in tracked - held if not name.startswith(".github/")} == set()


@pytest.mark.xdist_group("chain")
@pytest.mark.parametrize("chapter", ["02b_tension", "06_real_run"])
def test_downloaded_chapter_runs_in_an_empty_folder(executed_book: Path, tmp_path: Path, chapter: str) -> None:
    archive = executed_book / "book" / "generated" / "downloads" / f"{chapter}.zip"
    with zipfile.ZipFile(archive) as found:
        found.extractall(tmp_path)
    folder = tmp_path / chapter
    arguments = [f"notebooks/{chapter}.ipynb", "--output", "executed.ipynb", "--work", "work.ipynb"]
    done = subprocess.run(
        [sys.executable, "-m", "tension_utils.runner", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "executed.ipynb").is_file()
