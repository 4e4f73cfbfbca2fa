"""Mends what the theme writes into every page: scripts that nothing uses, names for screen readers, picture sizes."""

import re
from pathlib import Path

from bs4 import BeautifulSoup, Tag

# Icons come from the theme's font, and only the search page searches.
UNUSED = re.compile(r"_static/scripts/fontawesome\.js")
SEARCH = re.compile(r"(_static/(searchtools|language_data)|(^|/)searchindex)\.js")
SVG_SIZE = re.compile(r"<svg[^>]*?\s(width|height)=\"([\d.]+)pt\"[^>]*?\s(width|height)=\"([\d.]+)pt\"")
PIXELS_PER_POINT = 96 / 72
# The theme settles for light or dark only once the page is read: until then borders are missing and the dark is white.
SETTLE_THEME = """if (document.documentElement.dataset.theme === "auto")
  document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";"""
TEX_WORDS = re.compile(r"\\(text|math\w+|big|[()])|[{}^_\s]")  # what takes no room once math is set
TEX_COMMAND = re.compile(r"\\[a-zA-Z]+|\\.")


def mend_pages(html: Path) -> None:
    """Mend every page of a built book, in place.

    Args:
        html: the folder with the site's ``index.html``.
    """
    for path in sorted(html.rglob("*.html")):
        if not {"_static", "vendor"} & set(path.relative_to(html).parts):
            path.write_text(mended(path.read_text(encoding="utf-8"), path), encoding="utf-8")
    for unused in html.glob("_static/scripts/fontawesome.js*"):
        unused.unlink()


def mended(page: str, path: Path) -> str:
    """Return one page without unused scripts, with names that say what is seen, and with the sizes of its pictures.

    Args:
        page: HTML.
        path: its file; pictures are looked up beside it.
    """
    tree = BeautifulSoup(page, "html.parser")
    for script in tree.find_all("script", src=True):
        if UNUSED.search(script["src"]) or (SEARCH.search(script["src"]) and path.name != "search.html"):
            script.decompose()
    for script in tree.find_all("script", string=re.compile(r"dataset\.theme = ")):
        script.append(f"\n{SETTLE_THEME}\n")
    for button in tree.select("header.bd-header .sidebar-toggle"):  # never seen, and wired instead of those that are
        button.decompose()
    _name(tree)
    for image in tree.select("main img[src]:not([width])"):
        _size(image, path.parent)
    for math in tree.select("span.math"):
        math["style"] = f"--width: {tex_width(math.get_text())}em"
    return str(tree)


def tex_width(tex: str) -> float:
    r"""Return about how wide inline math will be, in em, for the place that is kept for it until it is set.

    >>> tex_width(r"\(r(x, y)\)"), tex_width(r"\(\text{a} \le \theta\)")
    (3.6, 1.8)
    """
    return round(0.6 * len(TEX_COMMAND.sub("x", TEX_WORDS.sub("", tex))), 1)


def _name(tree: BeautifulSoup) -> None:
    """Let what is seen be the name, give icons one, and every part of the page a landmark or none."""
    for tag in tree.select("details > summary[aria-label], button.search-button-field[aria-label]"):
        del tag["aria-label"]
    for button in tree.select("button[title]:not([aria-label])"):
        if not button.get_text(strip=True):
            button["aria-label"] = button["title"]
    for icon in tree.select("button i, button span[class*=fa-], a i[class*=fa-], summary span[class*=fa-]"):
        icon["aria-hidden"] = "true"
    for entry in tree.select("li.has-children"):
        for toggle in entry.select(":scope > details > summary"):
            toggle["aria-label"] = f"Pages of {entry.a.get_text(strip=True)}"
    for params in tree.select("dl:not(:has(> dt))"):  # a signature's lines: a list without terms is none
        params.name, params["class"] = "div", "sig-params"
        for param in params.find_all("dd", recursive=False):
            param.name = "div"
    for bar in tree.select("div.bd-sidebar-primary"):
        bar["role"], bar["aria-label"] = "region", "Side bar"
    for entry in tree.select("div.citation-list[role], div.citation[role]"):  # roles that their tags may not have
        del entry["role"]


def _size(image: Tag, folder: Path) -> None:
    """Write a picture's size into its tag, so that nothing moves when it arrives."""
    picture = folder / image["src"]
    if picture.suffix != ".svg" or not picture.is_file():
        return
    found = SVG_SIZE.search(picture.read_text(encoding="utf-8")[:2000])
    if found:
        sizes = {found[1]: found[2], found[3]: found[4]}
        for side in ("width", "height"):
            image[side] = str(round(PIXELS_PER_POINT * float(sizes[side])))
