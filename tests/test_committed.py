"""Notebooks as they are committed: without outputs, and with what Colab needs where the repository has an address."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
import yaml

import committed

ROOT = Path(__file__).parents[1]
ADDRESS = {"url": "https://github.com/someone/a-book/", "branch": "main"}
HERE = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_have_the_cell_that_the_address_asks_for(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert committed.as_committed(notebook, committed.first_cell(HERE)) == notebook, "run `make clear`"
    code = committed.first_cell(ADDRESS)
    with_cell = committed.as_committed(notebook, code)
    nbformat.validate(with_cell)
    first = next(cell for cell in with_cell.cells if cell.cell_type == "code")
    assert first.source == code and "remove-cell" in first.metadata.tags
    assert committed.as_committed(with_cell, code) == with_cell
    assert committed.as_committed(with_cell, "") == notebook


@pytest.mark.parametrize(
    "url", ["", None, "https://gitlab.com/a/b", "https://github.com/a", "https://github.com/a/b;x"]
)
def test_there_is_no_cell_where_colab_could_not_fetch_the_book(url: str | None) -> None:
    assert committed.first_cell({"url": url, "branch": "main"}) == ""


@pytest.mark.parametrize("is_colab", [True, False])
def test_the_cell_fetches_and_installs_the_book_once_and_only_on_colab(
    is_colab: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def run(command: list[str], *, check: bool) -> None:
        assert check
        commands.append(command)
        Path("book").mkdir(exist_ok=True)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    if is_colab:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    for _ in range(2):
        os.chdir(tmp_path)
        exec(committed.first_cell(ADDRESS), {})
    if not is_colab:
        assert commands == [] and Path.cwd() == tmp_path
        return
    clone, install = commands
    assert clone[:2] == ["git", "clone"] and clone[-2:] == ["https://github.com/someone/a-book", "book"]
    assert install[1:4] == ["-m", "pip", "install"] and install[-1] == "./book[book]"


def test_the_cell_clones_a_repository_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        names = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *names, *words], cwd=tmp_path / "origin", check=True, capture_output=True)

    (tmp_path / "origin").mkdir()
    (tmp_path / "origin" / "_toc.yml").write_text("x")
    for words in (("init",), ("add", "."), ("commit", "-m", "x"), ("branch", "-M", "main")):
        git(*words)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda words, check: words[0] == "git" and real(words, check=check))
    exec(committed.ON_COLAB.format(url=f"file://{tmp_path}/origin", branch="main"), {})
    assert Path.cwd() == tmp_path / "book" and Path("_toc.yml").is_file()
