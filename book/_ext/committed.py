"""Write notebooks as they are committed: ``python book/_ext/committed.py``, which is ``make clear``.

Outputs go. Where ``_config.yml`` names a repository on GitHub, a first code cell makes a chapter work on Colab, which
opens one file and has nothing else of the book; without an address there is no such cell.
"""

import sys
from pathlib import Path

import nbformat
import yaml

from tension_book import KNOWN_HOSTS

ON_COLAB = """# On Colab, fetch the book and what it needs; elsewhere, do nothing.
import os
import subprocess
import sys

if "google.colab" in sys.modules and not os.path.exists("book"):
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", "--branch", "{branch}", "{url}", "book"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "./book[book]"], check=True)
    os.chdir("book")"""
TAG = "colab"


def first_cell(repository: dict) -> str:
    """Return the code of a chapter's first code cell; "" where Colab could not fetch the book.

    Args:
        repository: of ``_config.yml``: url, branch.
    """
    url = repository.get("url") or ""
    known = KNOWN_HOSTS.fullmatch(url)
    is_github = known is not None and known[1] == "github"
    return ON_COLAB.format(url=url.rstrip("/"), branch=repository["branch"]) if is_github else ""


def as_committed(notebook: nbformat.NotebookNode, code: str) -> nbformat.NotebookNode:
    """Return a notebook without outputs and counts, and with this first code cell, in place of the one it may have."""
    kept = [cell for cell in notebook.cells if TAG not in cell.metadata.get("tags", ())]
    for cell in kept:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if code:
        first = next(number for number, cell in enumerate(kept) if cell.cell_type == "code")
        kept.insert(first, nbformat.v4.new_code_cell(code, metadata={"tags": [TAG, "remove-cell"]}, id=TAG))
    return nbformat.from_dict(notebook | {"cells": kept})


def main(root: Path = Path()) -> int:
    """Write all notebooks that differ from what is committed."""
    code = first_cell(yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"])
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        changed = nbformat.writes(as_committed(nbformat.reads(text, as_version=4), code)) + "\n"
        if changed != text:
            path.write_text(changed, encoding="utf-8")
            print(f"cleared {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
