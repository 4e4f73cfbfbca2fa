"""Build, check and serve the book: ``python -m tension_utils.site vendor|build|check|serve``."""

import argparse
import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import time
import webbrowser
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import nbformat
import yaml

from tension_utils.site_check import SiteReport, check_site
from tension_utils.site_pages import mend_pages
from tension_utils.site_vendor import PACKAGES, SHIM, vendor

STAMP = "inputs.sha256"


def toc_files(root: Path) -> list[Path]:
    """Return the files that ``_toc.yml`` names, in order.

    Args:
        root: the project's folder.

    Raises:
        FileNotFoundError: naming every file of the table of contents that does not exist.
    """

    def names(node: object) -> list[str]:
        if isinstance(node, list):
            return [name for child in node for name in names(child)]
        if isinstance(node, dict):
            own = [node[key] for key in ("root", "file") if key in node]
            return own + [name for child in node.values() if isinstance(child, list) for name in names(child)]
        return []

    found, missing = [], []
    for name in names(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))):
        path = next((p for p in (root / f"{name}{end}" for end in ("", ".md", ".ipynb")) if p.is_file()), None)
        missing += [name] if path is None else []
        found += [] if path is None else [path]
    if missing:
        raise FileNotFoundError(
            f"_toc.yml names {', '.join(missing)}, expected as .md or .ipynb below {root}; chapters are made by "
            "`make book`, which runs the notebooks before it builds the pages"
        )
    return found


def check_executed(path: Path) -> None:
    """Refuse a notebook that did not run to its end.

    Args:
        path: an executed notebook.

    Raises:
        ValueError: if a code cell shows an error, or if papermill did not complete it.
    """
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells, start=1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        for output in cell.outputs:
            if output.output_type == "error":
                raise ValueError(
                    f"{path}: cell {number} ended with {output.ename}: {output.evalue[:200]}; run it again"
                )
        status = cell.metadata.get("papermill", {}).get("status", "completed")
        if status != "completed" or cell.execution_count is None:
            raise ValueError(f"{path}: cell {number} did not run (status {status!r}); expected every cell completed")


def inputs_digest(root: Path) -> str:
    """Return one hash over everything that the built pages depend on."""
    chapters = toc_files(root)
    prose = [p for p in sorted((root / "book").rglob("*")) if p.is_file() and not p.name.startswith(".")]
    tools = sorted(Path(__file__).parent.rglob("*.py"))  # the reference pages are made of their docstrings
    digest = hashlib.sha256(version("jupyter-book").encode() + version("sphinx").encode())
    digest.update(SHIM.encode() + "".join(package.integrity for package in PACKAGES).encode())
    for path in [root / "_config.yml", root / "_toc.yml", *tools, *sorted({*chapters, *prose})]:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def check_jupyter_book() -> None:
    """Raise RuntimeError unless Jupyter Book 1.x is installed: 2.x ignores ``_config.yml`` without saying so."""
    found = version("jupyter-book")
    if int(found.split(".")[0]) >= 2:
        raise RuntimeError(f"expected jupyter-book 1.x, found {found}; install the version of requirements.txt")


def build(root: Path, cache: Path, *, force: bool = False) -> Path:
    """Build the book, check it, and only then put it in place of the old one.

    Args:
        root: the project's folder, with executed chapters.
        cache: folder that keeps downloads.
        force: build even if nothing changed.

    Returns:
        The folder with ``index.html``.

    Raises:
        FileNotFoundError: if a chapter is missing.
        ValueError: if a chapter did not run to its end.
        RuntimeError: if Jupyter Book warns, or if the built pages fail their check.
    """
    check_jupyter_book()
    chapters = [path for path in toc_files(root) if path.suffix == ".ipynb"]
    for path in chapters:
        check_executed(path)
    digest = inputs_digest(root)
    final = root / "_build"
    if not force and (final / STAMP).is_file() and (final / STAMP).read_text() == digest:
        print(f"book is up to date: {final / 'html' / 'index.html'}")
        return final / "html"
    vendor(root, cache)
    new = _run_jupyter_book(root, root / ".cache" / "book.new")
    _complete_start_page(new / "html" / "index.html")
    mend_pages(new / "html")
    _refuse(check_site(new / "html"))
    (new / "html" / ".nojekyll").touch()
    (new / STAMP).write_text(digest)
    shutil.rmtree(final, ignore_errors=True)
    new.replace(final)
    shutil.rmtree(new.parent)
    return final / "html"


def _run_jupyter_book(root: Path, output: Path) -> Path:
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(root), "-W", "-n", "--keep-going"]
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    log = root / "logs" / "book.log"
    log.parent.mkdir(exist_ok=True)
    plain = os.environ | {"NO_COLOR": "1"}
    done = subprocess.run([*command, "--path-output", str(output)], capture_output=True, text=True, env=plain)
    log.write_text(done.stdout + done.stderr)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "WARNING" in line or "ERROR" in line]
        raise RuntimeError(
            "\n".join(["jupyter-book failed:", *(lines[:30] or done.stderr.splitlines()[-15:]), f"log: {log}"])
        )
    return output / "_build"


def _complete_start_page(index: Path) -> None:
    """Give Jupyter Book's bare redirection a language, a title and an empty icon, or browsers ask the host for one."""
    refresh = index.read_text(encoding="utf-8").strip()
    if refresh.startswith("<meta"):
        icon = '<link rel="icon" href="data:," />'
        page = f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n<title>Start</title>\n{icon}\n'
        index.write_text(f"{page}{refresh}\n</head>\n<body></body>\n</html>\n", encoding="utf-8")


def _refuse(report: SiteReport) -> None:
    for note in report.notes[:20]:
        print(f"note: {note}")
    if report.errors:
        raise RuntimeError("\n".join([f"{len(report.errors)} faults in the built pages:", *report.errors[:50]]))
    heaviest = max(report.weights, key=report.weights.get)
    print(f"{len(report.weights)} pages checked; heaviest {heaviest}, {report.weights[heaviest] / 1e6:.2f} MB to load")


def serve(root: Path, port: int) -> None:
    """Serve the built book on loopback until interrupted.

    Args:
        root: the project's folder.
        port: TCP port, 0 for a free one.

    Raises:
        FileNotFoundError: if there is no built book.
    """
    html = root / "_build" / "html"
    if not (html / "index.html").is_file():
        raise FileNotFoundError(f"expected a built book in {html}, found none; run `make book` first")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        print(f"serving the book at {address} (Ctrl-C ends)", flush=True)
        if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform in ("darwin", "win32"):
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 1 with one message on stderr."""
    parser = argparse.ArgumentParser(prog="python -m tension_utils.site", description=__doc__)
    parser.add_argument("command", choices=["vendor", "build", "check", "serve"])
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder (default: here)")
    parser.add_argument("--cache", type=Path, help="folder that keeps downloads (default: .cache below the root)")
    parser.add_argument("--port", type=int, default=8000, help="port of `serve`, 0 for a free one (default: 8000)")
    parser.add_argument("--force", action="store_true", help="`build` even if nothing changed")
    options = parser.parse_args(arguments)
    root, start = options.root.resolve(), time.perf_counter()
    cache = (options.cache or root / ".cache").resolve()
    commands = {
        "vendor": lambda: print(vendor(root, cache)),
        "build": lambda: print(f"book: {build(root, cache, force=options.force) / 'index.html'}"),
        "check": lambda: _refuse(check_site(root / "_build" / "html")),
        "serve": lambda: serve(root, options.port),
    }
    try:
        commands[options.command]()
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.command}: {time.perf_counter() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
