"""Downloads: a chapter's archive holds what it needs, nothing else, and runs in an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

import downloads

ROOT = Path(__file__).parents[1]
FILES = (
    *("LICENSE", "pyproject.toml", "requirements.txt", "_toc.yml", "tension_utils/a.py", "config/tiny.yaml"),
    *("workflow/run_notebook.py", "workflow/accelerators.py", "workflow/Snakefile", "tension_utils/toy/topics.txt"),
    *("config/mine.yaml", "results/planted/x.csv", "book/intro.md", "book/generated/answer.md", "Makefile"),
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
    shutil.copy(ROOT / ".gitignore", tmp_path / "project")
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
        *("tension_utils/toy/topics.txt", "workflow/run_notebook.py", "workflow/accelerators.py"),
        *("notebooks/02b_tension.ipynb", f"{run}evaluation.parquet", f"{run}manifest.json"),
        *(f"{run}reward_model/config.json", f"{run}ablation.parquet", "results/planted/x.csv"),
    }
    assert notebook.cells[0].outputs == [] and notebook.cells[0].execution_count is None
    assert notebook.cells[0].metadata.tags == ["injected-parameters"] and set(notebook.metadata) == {"kernelspec"}


def test_pages_of_committed_tables_carry_those(root: Path, tmp_path: Path) -> None:
    archive = downloads.chapter_archive(root, executed(tmp_path, "02c_planted"), "tiny", tmp_path / "out")
    names = zipfile.ZipFile(archive).namelist()
    assert "02c_planted/results/planted/x.csv" in names and not any("/runs/" in name for name in names)


def test_the_study_comes_with_every_stored_result(root: Path, tmp_path: Path) -> None:
    pages = [executed(tmp_path, name) for name in ("01_train", "02b_tension")]
    archive = downloads.study_archive(root, pages, tmp_path / "out")
    with zipfile.ZipFile(archive) as found:
        names = {name.removeprefix("study/") for name in found.namelist()}
        notebook = nbformat.reads(found.read("study/notebooks/02b_tension.ipynb").decode(), as_version=4)
    assert {"results/planted/x.csv", "notebooks/01_train.ipynb", "tension_utils/a.py", "_toc.yml", "README.md"} <= names
    assert not any(name.startswith("runs/") for name in names)
    assert notebook.cells[0].outputs == [] and notebook.cells[0].metadata.tags == ["injected-parameters"]


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


def held(archive: Path) -> set[str]:
    return {name.removeprefix("helpful-harmless/") for name in zipfile.ZipFile(archive).namelist()}


def test_project_outside_git_leaves_out_what_is_made_what_is_the_users_and_what_is_large(
    root: Path, tmp_path: Path
) -> None:
    for name in (".venv/bin/python", "tension_utils/__pycache__/a.pyc", "data/pairs.jsonl", ".git"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    (root / "large.bin").write_bytes(bytes(downloads.SOURCE_LIMIT))
    made = {name for name in FILES if name.startswith(("runs/", "book/generated/"))}
    expected = {*FILES, ".gitignore"} - made - {"config/mine.yaml"}
    assert held(downloads.project_archive(root, tmp_path)) == expected


def test_sources_are_found_without_git_as_with_it(root: Path) -> None:
    for name in (
        ".venv/x",
        "tests/data/rows.jsonl",
        "data/x",
        "a/__pycache__/x",
        "x.egg-info/y",
        "config/mine-2.yaml",
        "a/runs/b",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    subprocess.run(["git", "-C", str(root), "init", "--quiet"], check=True)
    command = ["git", "-C", str(root), "ls-files", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = {path.relative_to(root).as_posix() for path in downloads.source_files(root)}
    assert found == set(listed.split("\0")) - {""} and "tests/data/rows.jsonl" in found


def test_project_in_git_is_what_git_tracks_as_it_is_now(root: Path, tmp_path: Path) -> None:
    for command in (["init", "--quiet"], ["add", "Makefile", "book/intro.md", "LICENSE"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    (root / "Makefile").write_text("changed")
    (root / "LICENSE").unlink()
    archive = downloads.project_archive(root, tmp_path)
    assert held(archive) == {"Makefile", "book/intro.md"}
    assert zipfile.ZipFile(archive).read("helpful-harmless/Makefile") == b"changed"


@pytest.mark.parametrize("git", ["a folder of another repository", "no git at all"])
def test_project_that_git_does_not_know_is_whole(
    root: Path, tmp_path: Path, git: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if git == "no git at all":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        subprocess.run(["git", "init", "--quiet", str(root.parent)], check=True)
    assert {"Makefile", "config/tiny.yaml", "book/intro.md"} <= held(downloads.project_archive(root, tmp_path))


@pytest.mark.xdist_group("chain")
@pytest.mark.parametrize(
    ("archive", "chapter"),
    [*((name, name) for name in ("02b_tension", "02c_planted", "02d_planted_details")), ("study", "02b_tension")],
)
def test_downloaded_chapter_runs_in_an_empty_folder(
    executed_book: Path, tmp_path: Path, archive: str, chapter: str
) -> None:
    with zipfile.ZipFile(executed_book / "book" / "generated" / "downloads" / f"{archive}.zip") as found:
        found.extractall(tmp_path)
    folder = tmp_path / archive
    arguments = [f"notebooks/{chapter}.ipynb", "--output", "executed.ipynb", "--work", "work.ipynb"]
    done = subprocess.run(
        [sys.executable, "workflow/run_notebook.py", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "executed.ipynb").is_file()
    if archive == "study":
        assert "smollm2-135m" in (folder / "executed.ipynb").read_text(), "a page of the study shows the study"
