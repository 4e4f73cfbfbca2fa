"""Checks of a built book: its links, its resources, and what its outputs show."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

# Where a page names something that the browser loads by itself: tag, attribute, and the values of rel that load.
RESOURCES = (
    ("script", "src", None),
    ("img", "src", None),
    ("iframe", "src", None),
    ("source", "src", None),
    ("video", "src", None),
    ("audio", "src", None),
    ("embed", "src", None),
    ("object", "data", None),
    ("link", "href", {"stylesheet", "icon", "shortcut", "preload", "modulepreload", "prefetch", "preconnect"}),
)
CSS_LOADS = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")
MAX_WEIGHT = 3_000_000  # bytes of a page with all it loads first, not compressed
# What a file loads by itself once it is there: a style it imports, the font of icons, math without its rare fonts.
FOLLOWERS = {
    "vendor/mathjax/startup.js": (
        "vendor/mathjax/core.js",
        "vendor/mathjax/input/tex.js",
        "vendor/mathjax/output/chtml.js",
        "vendor/mathjax/output/chtml/fonts/tex.js",
        "vendor/mathjax/a11y/assistive-mml.js",
        "vendor/mathjax/output/chtml/fonts/woff-v2/MathJax_[AMSZ]*-[RI]*.woff",
        "vendor/mathjax/output/chtml/fonts/woff-v2/MathJax_Zero.woff",
    ),
    "_static/styles/theme.css": ("_static/basic.css",),
    "_static/styles/pydata-sphinx-theme.css": ("_static/vendor/fontawesome/webfonts/fa-solid-900.woff2",),
}
IMAGE_PATH = re.compile(r"\.(png|svg|jpe?g|gif|webp)$", re.IGNORECASE)


@dataclass
class SiteReport:
    """What a check found: ``errors`` must be mended, ``notes`` should be; ``weights`` are bytes per page."""

    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    weights: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """One parsed page: its path below the site's root, its tree, and the names that a fragment may point to."""

    path: str
    tree: BeautifulSoup
    anchors: frozenset[str]


def check_site(html: Path) -> SiteReport:
    """Check every page of a built book.

    Args:
        html: the folder with the site's ``index.html``.

    Returns:
        Errors (foreign resources, dead links and anchors, error outputs, pages above 3 MB), notes (images without a
        description) and the weight of each page with what it loads first.

    Raises:
        FileNotFoundError: if the folder holds no page.
    """
    pages = {
        path.relative_to(html).as_posix(): _parse(path, html)
        for path in sorted(html.rglob("*.html"))
        if "_static" not in path.relative_to(html).parts and "vendor" not in path.relative_to(html).parts
    }
    if not pages:
        raise FileNotFoundError(f"expected a built book in {html}, found no page; run `make book` first")
    report = SiteReport()
    for page in pages.values():
        loaded = _check_resources(page, html, report)
        _check_links(page, pages, html, report)
        _check_outputs(page, report)
        _weigh(page, loaded, html.resolve(), report)
    for sheet in sorted(html.rglob("*.css")):
        for url in CSS_LOADS.findall(sheet.read_text(errors="replace")):
            report.errors.append(f"{sheet.relative_to(html).as_posix()}: style loads from another host: {url}")
    return report


def _weigh(page: Page, loaded: set[Path], html: Path, report: SiteReport) -> None:
    loads = {path.relative_to(html).as_posix() for path in loaded}
    patterns = [pattern for name, then in FOLLOWERS.items() if name in loads for pattern in then]
    files = {html / page.path, *loaded, *(path for pattern in patterns for path in html.glob(pattern))}
    weight = report.weights[page.path] = sum(path.stat().st_size for path in files)
    if weight > MAX_WEIGHT:
        heaviest = sorted(files, key=lambda path: -path.stat().st_size)[:3]
        names = ", ".join(f"{path.relative_to(html)} {path.stat().st_size:,}" for path in heaviest)
        report.errors.append(f"{page.path}: loads {weight:,} bytes, above {MAX_WEIGHT:,}; heaviest: {names}")


def _parse(path: Path, html: Path) -> Page:
    tree = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    anchors = {tag["id"] for tag in tree.find_all(id=True)} | {
        tag["name"] for tag in tree.find_all("a", attrs={"name": True})
    }
    return Page(path.relative_to(html).as_posix(), tree, frozenset(anchors))


def _is_foreign(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.netloc) or parts.scheme in ("http", "https", "ftp")


def _resolve(page: Page, url: str, html: Path) -> Path:
    target = unquote(urlsplit(url).path)
    base = html if target.startswith("/") else (html / page.path).parent
    return Path(base, target.lstrip("/")).resolve()


def _check_resources(page: Page, html: Path, report: SiteReport) -> set[Path]:
    loaded = set()
    for tag_name, attribute, rels in RESOURCES:
        for tag in page.tree.find_all(tag_name, attrs={attribute: True}):
            url = tag[attribute].strip()
            if (rels and not rels & set(tag.get("rel", []))) or url.startswith("data:"):
                continue
            if _is_foreign(url):
                report.errors.append(f"{page.path}: <{tag_name}> loads from another host: {url}")
            elif not _resolve(page, url, html).is_file():
                report.errors.append(f"{page.path}: <{tag_name}> loads a missing file: {url}")
            else:
                loaded.add(_resolve(page, url, html))
    for style in page.tree.find_all("style"):
        for url in CSS_LOADS.findall(style.get_text()):
            report.errors.append(f"{page.path}: style loads from another host: {url}")
    return loaded


def _check_links(page: Page, pages: dict[str, Page], html: Path, report: SiteReport) -> None:
    for tag in page.tree.find_all("a", href=True):
        url = tag["href"].strip()
        parts = urlsplit(url)
        if parts.scheme == "javascript":
            report.errors.append(f"{page.path}: a link runs a script: {url[:80]}")
        if parts.scheme or parts.netloc or url in ("", "#"):
            continue
        target = _resolve(page, url, html) if parts.path else (html / page.path).resolve()
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file():
            report.errors.append(f"{page.path}: link to a missing file: {url}")
        elif parts.fragment and target.suffix == ".html":
            name = target.relative_to(html.resolve()).as_posix()
            anchors = pages[name].anchors if name in pages else _parse(target, html.resolve()).anchors
            if unquote(parts.fragment) not in anchors:
                report.errors.append(f"{page.path}: link to a missing anchor: {url}")


def _check_outputs(page: Page, report: SiteReport) -> None:
    for output in page.tree.select(".cell_output .traceback, .cell_output .stderr"):
        first = output.get_text().strip().splitlines()[:1]
        report.errors.append(f"{page.path}: an output shows an error: {first[0][:100] if first else 'empty'}")
    for image in page.tree.select("main img, article img"):
        alt = image.get("alt", "").strip()
        if not alt or IMAGE_PATH.search(alt):
            report.notes.append(f"{page.path}: image without a description: {image.get('src', '')[:80]}")
