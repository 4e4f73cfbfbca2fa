"""This book's Sphinx extension: launch buttons that open a chapter's source, docstrings as plain text, mended pages.

Executed notebooks are not in the repository, so the theme's links to them would be dead. Pages come with scripts that
nothing uses, without names for screen readers, and with pictures whose size shows only when they arrive.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx
from sphinx.errors import ConfigError

AFTER_THEME = 900  # the theme adds its buttons at 501
BEFORE_CONTENTS = 100  # the table of contents is read at 500
REFERENCE = "book/generated/api"  # where autosummary writes a page per module
KNOWN_HOSTS = re.compile(r"https://(github|gitlab)\.com/[\w.-]+/[\w.-]+/?")
MARKUP = re.compile(
    r"\||(?<=\w)_(?!\w)"
)  # |x| and x_ have a meaning in reStructuredText that no docstring here intends
EXECUTED = re.compile(r"\b(executed|study)/(?=[\w.-]+\.ipynb)")
SANDBOX = "executed/"  # pages that ran on the machine that built the book
OF_BOTH = (
    "executed/09_ledger",
    "executed/10_runs",
)  # pages with results of the study, too, which say for each source what it is
BASE_MODELS = re.compile(r"^base_models\b", re.MULTILINE)
TOY = re.compile(r"^base_models\b.*=\s*\[[\"']toy[\"']\]", re.MULTILINE)
SANDBOX_TITLE = "Synthetic sandbox"
DRAWINGS = ["fig-neuron"]  # figures without data
SANDBOX_NOTE = (
    "The pairs on this page are made up, by rules, on the machine that built the book. They have the layout of HH-RLHF "
    "and none of its text. The models have about a million parameters. The page shows how the method works; its "
    "numbers say nothing about language models."
)
QUESTION = re.compile(r"(```\{admonition\} Question\n.*?)\n```$", re.DOTALL | re.MULTILINE)  # up to its fence
RUN_FOUND, STUDY_FOUND = "What this run found", "What the study found"
WITHOUT_WEIGHTS = "the weights are not stored"  # what a cell prints that needs them
EXPLANATIONS = ("Method", "Reading the figure", "Reading the figures", "Differences from the paper")  # headings
HEADING = re.compile(r"^#+ ", re.MULTILINE)
FENCE = 8 * ":"  # more than chapters use
CHAPTER_LINK = re.compile(r"\]\((?:\.\./study/)?(\w+\.ipynb)")  # from a chapter of the study, or from a written page
CHAPTER_ARCHIVE = re.compile(r"generated/downloads/\w+\.zip")
WRITTEN = "book/"  # pages in Markdown
STUDY = "study/"  # pages of the committed study: the chapters of executed/ once more, so their labels are
LABEL = re.compile(r":(?:label|name): ([\w-]+)|\"name\": \"(fig-[\w-]+)\"|(?<=\")\(([\w-]+)\)=")
REFERENCE_TO = re.compile(r"(\{(?:numref|eq|ref)\}`(?:[^`<]*<)?)([\w-]+)")
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


def settle_address(app: Sphinx, config: Any) -> None:
    """Leave launch buttons out where no repository is named, and refuse one that they could not open.

    Args:
        app: the Sphinx application.
        config: its settings; ``html_theme_options["repository_url"]`` is ``repository: url`` of ``_config.yml``.

    Raises:
        ConfigError: the address is set, and not one of a repository on GitHub or GitLab.
    """
    options = config.html_theme_options
    url = options.get("repository_url")
    if not url:
        options.pop("launch_buttons", None)
    elif not KNOWN_HOSTS.fullmatch(url):
        raise ConfigError(
            f"_config.yml: repository: url: expected https://github.com/OWNER/NAME or https://gitlab.com/GROUP/NAME; "
            f"got {url!r}; leave it empty for a book without launch buttons"
        )


def sources_instead(buttons: list[dict]) -> list[dict]:
    """Return header buttons whose links name the source of a chapter instead of the executed notebook.

    Args:
        buttons: of the theme; groups hold further ones under ``buttons``.

    >>> sources_instead([{"url": "https://mybinder.org/v2/gh/a/b/main?urlpath=lab/tree/executed/01_train.ipynb"}])
    [{'url': 'https://mybinder.org/v2/gh/a/b/main?urlpath=lab/tree/notebooks/01_train.ipynb'}]
    """
    changed = []
    for button in buttons:
        if isinstance(button.get("buttons"), list):
            button = button | {"buttons": sources_instead(button["buttons"])}
        if str(button.get("url", "")).startswith("https://"):
            button = button | {"url": EXECUTED.sub("notebooks/", button["url"])}
        changed.append(button)
    return changed


def point_at_sources(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Change the links of one page's header; called for every page that is written."""
    context["header_buttons"] = sources_instead(context.get("header_buttons", []))


def label_study(app: Sphinx, page: str, source: list[str]) -> None:
    """Put its finding on a page of the study, and give its labels names of their own; in place."""
    if page.startswith(STUDY) or page in OF_BOTH:
        words = Path(app.srcdir) / "book" / "generated" / "findings" / f"{Path(page).name}.md"
        if words.is_file():
            title = STUDY_FOUND if page in OF_BOTH else RUN_FOUND
            source[0] = with_finding(source[0], words.read_text(encoding="utf-8"), title)
    if page.startswith(STUDY):
        source[0] = with_sandbox(source[0], f"../{SANDBOX}{page.removeprefix(STUDY)}.ipynb")
        notebooks = sorted((Path(app.srcdir) / STUDY).glob("*.ipynb"))
        names = {name for path in notebooks for name in labels_in(path.read_text(encoding="utf-8"))}
        source[0] = CHAPTER_ARCHIVE.sub("generated/downloads/study.zip", source[0])
        source[0] = with_own_labels(with_links(source[0], {path.name for path in notebooks}), names)


def reach_chapters(app: Sphinx, page: str, source: list[str]) -> None:
    """Lead links of written pages to the sandbox's chapters where the study has none yet; in place."""
    if page.startswith(WRITTEN):
        there = {path.name for path in (Path(app.srcdir) / STUDY).glob("*.ipynb")}
        source[0] = with_links(source[0], there)


def mark_sandbox(app: Sphinx, page: str, source: list[str]) -> None:
    """Say on every chapter that ran on the embedded world that its data are synthetic; in place.

    What the same chapter on real models explains in the same words is folded.
    """
    if page.startswith(SANDBOX) and page not in OF_BOTH:
        has_twin = (Path(app.srcdir) / STUDY / f"{page.removeprefix(SANDBOX)}.ipynb").exists()
        source[0] = with_banner(source[0], f"../{STUDY}{page.removeprefix(SANDBOX)}.ipynb" if has_twin else "")
        source[0] = with_folds(source[0]) if has_twin else source[0]


def with_banner(text: str, twin: str = "") -> str:
    """Return a notebook's JSON text with a note below its title, if its parameters name the embedded world.

    Args:
        text: the notebook.
        twin: address of the same chapter on real models; "" where there is none.
    """
    if not is_synthetic(text):
        return text
    notebook = json.loads(text)
    cells = notebook["cells"]
    real = f" The same chapter on real models is [here]({twin})." if twin else ""
    note = f":::{{admonition}} {SANDBOX_TITLE}\n:class: warning\n{SANDBOX_NOTE}{real}\n:::"
    cells.insert(1, {"cell_type": "markdown", "id": "sandbox", "metadata": {}, "source": note})
    return json.dumps(notebook)


def is_synthetic(text: str) -> bool:
    """Say whether the parameters of a notebook, given as JSON text, name the embedded world."""
    cells = json.loads(text)["cells"]
    given = ["".join(cell["source"]) for cell in cells if "parameters" in "".join(cell["metadata"].get("tags", []))]
    named = [lines for lines in given if BASE_MODELS.search(lines)]
    return bool(named and TOY.search(named[-1]))  # what is injected comes last


def with_folds(text: str) -> str:
    """Return a notebook's JSON text whose explanations, the same on every run, are folded below their headings.

    Args:
        text: the notebook; what has a value of its run (``{glue:``) or a heading inside stays.
    """
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        heading, _, words = source.partition("\n")
        is_plain = cell["cell_type"] == "markdown" and "{glue:" not in words and not HEADING.search(words)
        if is_plain and heading.lstrip("# ") in EXPLANATIONS and words.strip():
            cell["source"] = (
                f"{heading}\n\n{FENCE}{{dropdown}} The same words as on real models\n{words.strip()}\n{FENCE}"
            )
    return json.dumps(notebook)


def with_sandbox(text: str, twin: str) -> str:
    """Return a notebook's JSON text with a link below every cell that could not run without the weights.

    Args:
        text: the notebook.
        twin: address of the same chapter on the embedded world.
    """
    notebook, cells = json.loads(text), []
    for cell in notebook["cells"]:
        cells.append(cell)
        if any(WITHOUT_WEIGHTS in "".join(output.get("text", "")) for output in cell.get("outputs", [])):
            link = f"[The sandbox's page]({twin}) shows what these lines print."
            cells.append({"cell_type": "markdown", "id": f"sandbox-{len(cells)}", "metadata": {}, "source": link})
    return json.dumps(notebook | {"cells": cells})


def with_finding(text: str, words: str, title: str = RUN_FOUND) -> str:
    """Return a notebook's JSON text with a finding below its title and question; as it is where there is none.

    A sentence written by hand takes the place of those that the notebook generates for any run.

    Args:
        text: the notebook.
        words: Markdown, perhaps empty.
        title: of the box.
    """
    if not words.strip():
        return text
    notebook = json.loads(text)
    question, note = notebook["cells"][1], f"````{{admonition}} {title}\n:class: tip\n{words.strip()}\n````"
    question["source"] = QUESTION.sub(_without_answers, "".join(question["source"]), count=1)
    notebook["cells"].insert(2, {"cell_type": "markdown", "id": "finding", "metadata": {}, "source": note})
    return json.dumps(notebook)


def _without_answers(box: re.Match) -> str:
    """Return the box of a question without the paragraphs that a notebook generates."""
    return "\n\n".join(words for words in box[1].split("\n\n") if "{glue:" not in words) + "\n```"


def with_links(text: str, there: set[str]) -> str:
    """Return a text whose links to chapters lead to the sandbox where the study has no such chapter yet.

    >>> with_links("[2](02_evaluate.ipynb), [4](04_ablate.ipynb#x)", {"02_evaluate.ipynb"})
    '[2](02_evaluate.ipynb), [4](../executed/04_ablate.ipynb#x)'
    >>> with_links("[2](../study/02_evaluate.ipynb), [4](../study/04_ablate.ipynb#x)", {"02_evaluate.ipynb"})
    '[2](../study/02_evaluate.ipynb), [4](../executed/04_ablate.ipynb#x)'
    """
    return CHAPTER_LINK.sub(lambda link: link[0] if link[1] in there else f"](../{SANDBOX}{link[1]}", text)


def labels_in(text: str) -> set[str]:
    """Return the labels of formulas, figures and places that a notebook's JSON text defines."""
    return {name for found in LABEL.findall(text) for name in found if name}


def with_own_labels(text: str, names: set[str]) -> str:
    r"""Return a notebook's JSON text with some labels renamed where they are defined and where they are referred to.

    >>> text = '"name": "fig-own", ":label: effect", ":name: fig-top", "(place)=", "{numref}`F. %s <fig-own>`, {eq}`b`"'
    >>> print(with_own_labels(text, labels_in(text)).split(' "(')[0])
    "name": "study-fig-own", ":label: study-effect", ":name: study-fig-top",
    >>> print(with_own_labels(text, labels_in(text)).split('-top", ')[1])
    "(study-place)=", "{numref}`F. %s <study-fig-own>`, {eq}`b`"
    """

    def renamed(found: re.Match) -> str:
        name = found.group(found.lastindex)
        start = found.start(found.lastindex) - found.start()
        return found[0][:start] + "study-" + found[0][start:] if name in names else found[0]

    return REFERENCE_TO.sub(renamed, LABEL.sub(renamed, text))


def plain_text(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    r"""Escape bars and final underscores of a docstring in place; doctests, literals and formulas stay.

    >>> lines = ["|a and b| of x_, in `n_items`", ">>> a | b", r".. math:: |x_{c}| = \sum_{c}", "    y_{c}", "", "z_"]
    >>> plain_text(None, "", "", None, None, lines)
    >>> [lines[0], lines[5]] == [r"\|a and b\| of x\_, in `n_items`", r"z\_"]
    True
    >>> lines[1:4] == [">>> a | b", r".. math:: |x_{c}| = \sum_{c}", "    y_{c}"]
    True
    """
    in_formula = False
    for number, line in enumerate(lines):
        in_formula = line.lstrip().startswith(".. math::") or (in_formula and line.strip() != "")
        if not in_formula and not line.lstrip().startswith((">>>", "...")) and "``" not in line:
            lines[number] = MARKUP.sub(r"\\\g<0>", line)


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

    On a page that says it is the sandbox's, every caption says so, too.

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
    if tree.find("p", class_="admonition-title", string=SANDBOX_TITLE):
        for caption in tree.select("main figcaption .caption-text, main caption > span"):
            if not caption.find_parent("figure", id=DRAWINGS):
                caption.insert(0, "Sandbox. ")
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


def forget_reference(app: Sphinx, config: Any) -> None:
    """Remove the reference pages of an earlier build; the table of contents excludes those that are there before it."""
    shutil.rmtree(Path(app.srcdir) / REFERENCE, ignore_errors=True)


def finish(app: Sphinx, error: Exception | None) -> None:
    """Mend the pages of a build that came to its end."""
    if error is None and app.builder.format == "html":
        mend_pages(Path(app.outdir))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("config-inited", forget_reference, priority=BEFORE_CONTENTS)
    app.connect("config-inited", settle_address)
    app.connect("source-read", label_study)
    app.connect("source-read", mark_sandbox)
    app.connect("source-read", reach_chapters)
    app.connect("autodoc-process-docstring", plain_text)
    app.connect("html-page-context", point_at_sources, priority=AFTER_THEME)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
