"""Launch buttons: off without an address, and with one they name files that the repository has."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import nbformat
import pytest
from bs4 import BeautifulSoup
from sphinx.errors import ConfigError

import build
import tension_book

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def links(tmp_path: Path, url: str) -> list[str]:
    """Build a small book with one page per notebook and return the launch links of all pages."""
    (tmp_path / "executed").mkdir()
    for name in ("_assets", "_ext"):
        shutil.copytree(ROOT / "book" / name, tmp_path / "book" / name)
    shutil.copy(ROOT / "book" / "references.bib", tmp_path / "book")
    config = (ROOT / "_config.yml").read_text()
    assert 'repository: {url: ""' in config, "off by default"
    (tmp_path / "_config.yml").write_text(config.replace('repository: {url: ""', f'repository: {{url: "{url}"'))
    (tmp_path / "book" / "intro.md").write_text("# Intro\n\nText.\n")
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for path in NOTEBOOKS:
        cells = [nbformat.v4.new_markdown_cell(f"# {path.stem}")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "executed" / path.name)
    files = ", ".join(f"{{file: executed/{path.stem}}}" for path in NOTEBOOKS)
    (tmp_path / "_toc.yml").write_text(f"format: jb-book\nroot: book/intro\nchapters: [{files}]\n")
    html = build.build(tmp_path, ROOT / ".cache")
    pages = [BeautifulSoup(path.read_text(), "html.parser") for path in sorted((html / "executed").glob("*.html"))]
    return [a["href"] for page in pages for a in page.select("a[href*='mybinder.org'], a[href*='colab']")]


@pytest.mark.xdist_group("chain")
def test_launch_buttons_name_files_of_the_repository(tmp_path: Path) -> None:
    found = links(tmp_path, "https://github.com/someone/book")
    assert len(found) == len(NOTEBOOKS)
    for link in found:
        assert link.startswith("https://mybinder.org/v2/gh/someone/book/main?")
        assert (ROOT / re.search(r"urlpath=lab/tree/(.+)$", unquote(link))[1]).is_file(), link


@pytest.mark.xdist_group("chain")
def test_without_an_address_there_are_no_buttons(tmp_path: Path) -> None:
    assert links(tmp_path, "") == []


@pytest.mark.parametrize("url", ["https://example.org/a/b", "github.com/a/b", "https://github.com/a", "javascript:x"])
def test_other_addresses_are_refused(url: str) -> None:
    config = SimpleNamespace(html_theme_options={"repository_url": url, "launch_buttons": {"binderhub_url": "x"}})
    with pytest.raises(ConfigError, match="expected https://github.com/OWNER/NAME"):
        tension_book.settle_address(None, config)


def test_only_links_to_executed_notebooks_change() -> None:
    kept = {"url": "_sources/executed/01_train.ipynb", "text": ".ipynb"}
    group = {"type": "group", "buttons": [kept, {"url": "https://x.org/executed/01_train.ipynb"}]}
    changed = tension_book.sources_instead([group])
    assert changed == [{"type": "group", "buttons": [kept, {"url": "https://x.org/notebooks/01_train.ipynb"}]}]
    assert group["buttons"][1]["url"].endswith("executed/01_train.ipynb"), "the given buttons stay as they are"
