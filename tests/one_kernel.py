"""Chapters that one kernel executes one after the other: libraries are loaded once for all."""

from collections.abc import Mapping
from pathlib import Path

import nbformat
from conftest import ROOT
from nbclient import NotebookClient

from run_notebook import declared_parameters, missing_figures, own_kernel


def execute_chapters(project: Path, chapters: Mapping[str, dict]) -> dict[str, nbformat.NotebookNode]:
    """Return executed chapters; an error of a cell is raised, and so is a figure without a picture.

    Args:
        project: where they run.
        chapters: name of a notebook -> its parameters, all of which it has to declare.
    """
    together, pages = nbformat.v4.new_notebook(), {}
    for chapter, values in chapters.items():
        notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
        assert set(values) <= set(declared_parameters(notebook)), chapter
        at = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
        given = "\n".join(f"{name} = {value!r}" for name, value in values.items())
        notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(given))
        notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
        together.cells += notebook.cells
        pages[chapter] = notebook
    with own_kernel():
        NotebookClient(together, timeout=300, resources={"metadata": {"path": str(project)}}).execute()
    assert {name: missing_figures(page) for name, page in pages.items()} == dict.fromkeys(pages, [])
    return pages
