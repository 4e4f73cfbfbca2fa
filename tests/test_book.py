"""The book, built from the chapters of the chain test and opened in a real browser."""

import functools
import http.server
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page
from site_check import MAX_WEIGHT, SiteReport, check_site
from sphinx_external_toc.parsing import parse_toc_yaml

import build
from stored import stored_chapters
from tension_utils.data import Item, Turn
from tension_utils.show import tables

pytestmark = pytest.mark.xdist_group("chain")
ROOT = Path(__file__).parents[1]
RUN_AXE = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
  .filter(v => ["serious", "critical"].includes(v.impact))
  .map(v => `${v.id}: ${v.help}: ${v.nodes.map(n => n.target.join(" ")).slice(0, 3).join("; ")}`)"""
OBSERVE_SHIFTS = """window.shifted = 0;
new PerformanceObserver(list => list.getEntries().forEach(e => { if (!e.hadRecentInput) window.shifted += e.value; }))
  .observe({type: "layout-shift", buffered: true});"""
PHONE = {"viewport": {"width": 390, "height": 844}}
DESK = {"viewport": {"width": 1280, "height": 900}}
PAYLOAD = (
    "<script>window.hostile=1</script><img src=x onerror='window.hostile=2'></script></pre>"
    "$$\\href{javascript:hostile=3}{x}$$ [a](javascript:hostile=4) **bold** {{ x }} &lt;b&gt;"
)
LAUNCH = "a[href*='mybinder.org'], a[href*='colab']"


def toc_pages() -> list[str]:
    """Return the pages of the book; those of the stored study are there as far as it is done."""
    stored = {f"{build.STUDY}{chapter}" for chapter in stored_chapters(ROOT)}
    return [name for name in parse_toc_yaml(ROOT / "_toc.yml") if not name.startswith(build.STUDY) or name in stored]


A_MODULE = "book/generated/api/tension_utils.neurons"
every_page = pytest.mark.parametrize("name", [*toc_pages(), A_MODULE, "index", "search"])


def hostile_notebook() -> nbformat.NotebookNode:
    """A chapter whose outputs carry hostile text in every form that the book's notebooks use."""
    table = pd.DataFrame({PAYLOAD: [PAYLOAD]}, index=[PAYLOAD])
    v4 = nbformat.v4
    outputs = [
        v4.new_output("stream", name="stdout", text=PAYLOAD),
        v4.new_output("execute_result", data={"text/plain": repr(PAYLOAD)}, execution_count=1),
    ]
    item = Item("item", (Turn("human", PAYLOAD),), (PAYLOAD,), (PAYLOAD,))
    pages = [table.to_html(), tables.table_html(tables.formatted_table(table), caption=PAYLOAD)]
    pages += [tables.text_html(PAYLOAD, title=PAYLOAD), tables.pairs_html([item], notes={"item": PAYLOAD})]
    outputs += [v4.new_output("display_data", data={"text/html": page, "text/plain": ""}) for page in pages]
    cell = v4.new_code_cell("show(payload)", outputs=outputs, execution_count=1)
    metadata = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    return v4.new_notebook(cells=[v4.new_markdown_cell("# Hostile text"), cell], metadata=metadata)


@pytest.fixture(scope="module")
def small_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built book that knows its repository: a bare page per notebook, and one of hostile text."""
    root = tmp_path_factory.mktemp("small") / "book"
    (root / "executed").mkdir(parents=True)
    for name in ("_assets", "_ext"):
        shutil.copytree(ROOT / "book" / name, root / "book" / name)
    shutil.copy(ROOT / "book" / "references.bib", root / "book")
    address = 'repository: {url: "https://github.com/someone/book"'
    (root / "_config.yml").write_text((ROOT / "_config.yml").read_text().replace('repository: {url: ""', address))
    (root / "book" / "intro.md").write_text("# Intro\n\n$x$\n")
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebooks = {"hostile": hostile_notebook()}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = [nbformat.v4.new_markdown_cell(f"# {path.stem}")]
        notebooks[path.stem] = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    for name, notebook in notebooks.items():
        nbformat.write(notebook, root / "executed" / f"{name}.ipynb")
    files = ", ".join(f"{{file: executed/{name}}}" for name in sorted(notebooks))
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/intro\nchapters: [{files}]\n")
    return build.build(root, ROOT / ".cache")


@pytest.fixture(scope="module")
def html(executed_book: Path) -> Path:
    """The built book."""
    return build.build(executed_book, ROOT / ".cache", force=True)


def serve(folder: Path) -> tuple[http.server.ThreadingHTTPServer, str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/"


@pytest.fixture(scope="module")
def address(html: Path) -> Iterator[str]:
    """The book on loopback, under a sub-path as on a project's public pages."""
    server, base = serve(html.parent)
    yield f"{base}{html.name}/"
    server.shutdown()


def open_page(browser: Browser, url: str, base: str, **context: object) -> tuple[Page, list[str], Callable[[], int]]:
    """Open a page; return what went wrong until the network was quiet and math was set, and the bytes it has loaded."""
    page = browser.new_context(**context).new_page()
    page.add_init_script(OBSERVE_SHIFTS)
    page.set_default_timeout(120_000)
    faults: list[str] = []
    sizes: dict[str, int] = {}
    page.on("requestfinished", lambda request: sizes.update({request.url: request.sizes()["responseBodySize"]}))
    page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda e: faults.append(f"script: {e}"))
    page.on("requestfailed", lambda r: faults.append(f"failed: {r.url}"))
    page.on("response", lambda r: faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    page.on("dialog", lambda d: (faults.append(f"dialog: {d.message}"), d.dismiss()))
    local = (base, "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(local) else faults.append(f"foreign: {r.url}"))
    page.goto(url)
    page.wait_for_load_state("networkidle")
    page.wait_for_function("!window.MathJax || !document.querySelector('.math:not(:has(mjx-container))')")
    return page, faults, lambda: sum(sizes.values())


@pytest.fixture(scope="module")
def report(html: Path) -> SiteReport:
    """What the check of the built book finds."""
    return check_site(html)


def test_every_page_passes_the_check(html: Path, report: SiteReport) -> None:
    assert report.errors == []
    assert {f"{name}.html" for name in toc_pages()} <= set(report.weights)
    assert (html / ".nojekyll").exists()


def test_reference_has_a_page_for_every_module_and_lists_it(html: Path) -> None:
    folder = html / "book" / "generated" / "api"
    package = ROOT / "tension_utils"
    for init in package.rglob("__init__.py"):
        part = ".".join(init.parent.relative_to(ROOT).parts)
        listed = BeautifulSoup((folder / f"{part}.html").read_text(encoding="utf-8"), "html.parser")
        names = {path.stem for path in init.parent.glob("*.py")} - {"__init__", "__main__"}
        names |= {path.parent.name for path in init.parent.glob("*/__init__.py")}
        links = {link["href"].split("#")[0] for link in listed.select("article table a")}
        assert {f"{part}.{name}.html" for name in names} == links
    page = BeautifulSoup((html / f"{A_MODULE}.html").read_text(encoding="utf-8"), "html.parser")
    assert page.select_one("dt[id='tension_utils.neurons.NeuronSet'], span[id='tension_utils.neurons.NeuronSet']")


def test_images_of_chapters_are_described(report: SiteReport) -> None:
    assert report.notes == []


def test_figures_are_numbered_through_and_cited(html: Path) -> None:
    numbers = []
    for name in toc_pages():
        tree = BeautifulSoup((html / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        for figure in tree.select("article figure[id]"):
            numbers.append(figure.select_one("figcaption .caption-number").get_text(strip=True))
            cited = tree.select(f"article p a[href='#{figure['id']}'] .std-numref")
            assert numbers[-1] in {link.get_text(strip=True) for link in cited}, f"{name}: {numbers[-1]} is not cited"
    assert numbers == [f"Fig. {number}" for number in range(1, len(numbers) + 1)] and len(numbers) > 10


def test_second_build_has_nothing_to_do(executed_book: Path, html: Path, capsys: pytest.CaptureFixture) -> None:
    before = (html / "index.html").stat().st_mtime_ns
    build.build(executed_book, ROOT / ".cache")
    assert "up to date" in capsys.readouterr().out
    assert (html / "index.html").stat().st_mtime_ns == before


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, which finds faults of accessibility; never part of the site."""
    with build.node_modules(ROOT / ".cache", "--include=dev") as modules:
        return (modules / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def faults_of_access(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    return page.wait_for_function(RUN_AXE, polling=100).json_value()  # an evaluation has no limit of time


def settle(page: Page) -> None:
    """Wait for what a change of size or color starts; a page that never settles fails, and does not hang."""
    page.wait_for_function(SETTLED, polling=100)


# Observers and transitions have ended; one in a part that is not drawn never does, and none lasts for seconds.
SETTLED = """async () => {
  const frame = () => new Promise((go) => requestAnimationFrame(go));
  for (let i = 0; i < 3; i++) await frame();
  const finite = document.getAnimations().filter((each) => each.effect.getComputedTiming().endTime < 1e5);
  const late = new Promise((go) => setTimeout(go, 5000));
  await Promise.race([late, Promise.allSettled(finite.map((each) => each.finished))]);
  for (let i = 0; i < 3; i++) await frame();
  return true;
}"""


@every_page
def test_page_loads_cleanly_and_is_accessible_on_a_phone_and_a_desk_by_day_and_by_night(
    browser: Browser, address: str, axe: str, report: SiteReport, name: str
) -> None:
    page, faults, weight = open_page(browser, f"{address}{name}.html", address, color_scheme="light", **PHONE)
    page.wait_for_timeout(200)  # for shifts after the network is quiet
    assert faults == []
    assert weight() <= MAX_WEIGHT
    if name != "index":  # it leads to the first page
        assert weight() <= report.weights[f"{name}.html"], "the check overlooks something that a page loads"
    assert page.evaluate("window.shifted") < 0.1
    assert faults_of_access(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    check_content(page)
    page.set_viewport_size(DESK["viewport"])
    settle(page)
    assert faults_of_access(page, axe) == []
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'", timeout=5000)
    settle(page)
    assert faults_of_access(page, axe) == []
    page.context.close()


def check_content(page: Page) -> None:
    """Check that math is set, widgets are drawn and no markup is left over."""
    assert page.locator("mjx-merror").count() == 0
    views = page.locator("script[type='application/vnd.jupyter.widget-view+json']").count()
    assert page.locator(".jupyter-widgets").count() >= views
    math = page.locator("mjx-assistive-mml").all_inner_texts()
    assert not [text for text in math if "\\" in text], "TeX that was not set"
    prose = page.locator("article p").all_inner_texts()
    assert not [text for text in prose if re.search(r"\{(cite|ref|numref|glue|doc)[:}]|\]\(\S+\)|\$\$", text)]


def test_axe_finds_a_fault(browser: Browser, axe: str) -> None:
    page = browser.new_context().new_page()
    page.set_content("<html lang=en><title>x</title><main><img src='data:,'><p style='color: #bbb'>pale</p></main>")
    found = faults_of_access(page, axe)
    assert [fault.split(":")[0] for fault in found] == ["color-contrast", "image-alt"]
    page.context.close()


def test_keyboard_skips_unfolds_and_opens_the_side_bar(browser: Browser, address: str) -> None:
    page, *_ = open_page(browser, f"{address}executed/04_ablate.html", address, **PHONE)
    focused = "document.activeElement"
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.textContent").strip() == "Skip to main content"
    assert page.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main-content"
    summary = page.locator("article details > summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("article details").first.get_attribute("open") is not None
    page.locator("button.primary-toggle").focus()
    page.keyboard.press("Enter")
    page.locator("#pst-primary-sidebar-modal a").first.wait_for(state="visible", timeout=5000)
    page.keyboard.press("Escape")
    page.wait_for_function("!document.querySelector('#pst-primary-sidebar-modal').open", timeout=5000)
    page.context.close()


def test_side_bar_folds_on_a_wide_screen(browser: Browser, address: str) -> None:
    page, *_ = open_page(browser, f"{address}book/intro.html", address, **DESK)
    bar, toggle = page.locator("#pst-primary-sidebar"), page.locator("button.primary-toggle")
    assert bar.is_visible()
    toggle.click()
    bar.wait_for(state="hidden", timeout=5000)
    toggle.click()
    bar.wait_for(state="visible", timeout=5000)
    page.context.close()


def test_wide_figures_and_code_scroll_by_keyboard_and_tables_not_at_all(browser: Browser, address: str) -> None:
    page, *_ = open_page(browser, f"{address}executed/04_ablate.html", address, **PHONE)
    wide = "all => all.filter(e => e.scrollWidth > e.clientWidth && e.clientWidth).map(e => e.tabIndex)"
    for kind in ("article figure", "article pre"):
        boxes = page.locator(kind).evaluate_all(wide)
        assert boxes and set(boxes) == {0}, kind
    assert page.locator("article .output.text_html:has(table)").evaluate_all(wide) == [], "a row is a list on a phone"
    page.context.close()


def test_chapter_prints(browser: Browser, address: str) -> None:
    page, *_ = open_page(browser, f"{address}executed/04_ablate.html", address, color_scheme="dark", **DESK)
    printed = page.pdf(prefer_css_page_size=True, outline=True, tagged=True)
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 5 <= pages <= 40
    for heading in ("Ablate Neuron Sets", "Parameters", "Result", "Reading the figure", "Exercises"):
        assert heading.encode() in printed, f"the outline lacks {heading}"
    page.set_viewport_size({"width": 702, "height": 1000})  # A4 between its margins
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for unwanted in (
        ".bd-sidebar-primary",
        ".bd-sidebar-secondary",
        ".bd-header-article",
        ".prev-next-area",
        ".copybtn",
    ):
        assert not any(part.is_visible() for part in page.locator(unwanted).all()), unwanted
    for kind in ("article figure img", "article table", "article pre"):
        ends = page.locator(kind).evaluate_all("all => all.map(e => e.getBoundingClientRect().right)")
        assert max(ends) <= 702, f"{kind} is cut off"
    assert page.evaluate("document.documentElement.dataset.theme") == "light", "paper is white"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.context.close()


def test_math_is_typeset(browser: Browser, address: str) -> None:
    page, *_ = open_page(browser, f"{address}book/background.html", address)
    assert page.locator(".math mjx-container").count() == page.locator(".math").count() > 10
    assert page.locator("mjx-assistive-mml").count() > 10
    page.context.close()


def test_search_finds_a_term(browser: Browser, address: str) -> None:
    page, faults, _ = open_page(browser, f"{address}search.html?q=ablation", address)
    page.wait_for_selector("#search-results li a")
    assert faults == []
    page.context.close()


def test_opens_from_a_file(browser: Browser, html: Path) -> None:
    page, faults, _ = open_page(browser, (html / "book" / "background.html").as_uri(), "file://")
    assert faults == []
    assert page.locator(".math mjx-container").count() > 10
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, address: str, scheme: str) -> None:
    page, *_ = open_page(browser, f"{address}book/intro.html", address, color_scheme=scheme)
    script = "s => getComputedStyle(document.querySelector(s[0]))[s[1]].match(/[\\d.]+/g).slice(0, 3).map(Number)"
    colors = [page.evaluate(script, pair) for pair in (["article p", "color"], ["body", "backgroundColor"])]

    def luminance(color: list[float]) -> float:
        linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, colors))
    assert (high + 0.05) / (low + 0.05) >= 7
    assert (luminance(colors[1]) < 0.05) == (scheme == "dark")
    page.context.close()


def test_hostile_text_is_shown_as_text(browser: Browser, small_book: Path) -> None:
    server, base = serve(small_book)
    page, faults, _ = open_page(browser, f"{base}executed/hostile.html", base)
    assert faults == []
    assert page.evaluate("window.hostile") is None
    shown = page.locator(".cell_output").inner_text()
    assert shown.count("<script>window.hostile=1</script><img src=x onerror=") == 14  # one per place
    assert page.locator(".cell_output :is(mjx-container, a, img, b)").count() == 0
    assert page.locator(".cell_output strong").get_by_text("bold", exact=True).count() == 0
    page.context.close()
    server.shutdown()


def test_without_an_address_there_are_no_launch_buttons(html: Path) -> None:
    assert 'repository: {url: ""' in (ROOT / "_config.yml").read_text(), "off by default"
    pages = [BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in html.glob("executed/*.html")]
    assert pages and not [page for page in pages if page.select(LAUNCH)]


def test_launch_buttons_name_files_of_the_repository(small_book: Path) -> None:
    pages = sorted((small_book / "executed").glob("*.html"))
    found = [BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select(LAUNCH) for path in pages]
    links = [link["href"] for path, links in zip(pages, found, strict=True) for link in links if path.stem != "hostile"]
    assert len(links) == 2 * len(list((ROOT / "notebooks").glob("*.ipynb")))
    for link in links:
        binder = re.fullmatch(r"https://mybinder\.org/v2/gh/someone/book/main\?urlpath=lab/tree/(.+)", unquote(link))
        colab = re.fullmatch(r"https://colab\.research\.google\.com/github/someone/book/blob/main/(.+)", link)
        assert (ROOT / (binder or colab)[1]).is_file(), link


EXPLORER = "executed/08_explorer.html"


def test_explorer_follows_the_keyboard_on_the_page(browser: Browser, address: str) -> None:
    page, faults, _ = open_page(browser, address + EXPLORER, address, **PHONE)
    for number, name in enumerate(("Reward model", "Training runs")):
        root = page.locator(".choices").nth(number)
        words, drawing, height = root.locator("[aria-live]"), root.locator("svg"), root.bounding_box()["height"]
        before = words.inner_text(), drawing.inner_html()
        root.get_by_label(name).focus()
        page.keyboard.press("End" if number == 0 else "ArrowDown")
        assert words.inner_text() != before[0] and drawing.inner_html() != before[1]
        assert root.bounding_box()["height"] == height, "nothing below the explorer moves"
    assert faults == []
    page.context.close()


def test_explorer_is_short_and_light(browser: Browser, address: str) -> None:
    page, _, weight = open_page(browser, address + EXPLORER, address, viewport={"width": 1440, "height": 900})
    assert page.evaluate("document.documentElement.scrollHeight") < 8000 and weight() < MAX_WEIGHT
    page.context.close()


def test_explorer_works_from_a_file(browser: Browser, html: Path) -> None:
    page, faults, _ = open_page(browser, (html / EXPLORER).as_uri(), "file://")
    page.get_by_label("Reward model").select_option(index=1)
    assert page.locator(".choices [aria-live]").first.inner_text().startswith("The harmless model")
    assert faults == []
    page.context.close()


def test_form_says_how_to_bring_it_alive(browser: Browser, address: str) -> None:
    page, *_ = open_page(browser, f"{address}executed/c1_own_pair.html", address)
    assert page.get_by_role("button", name="Score").is_disabled()
    assert page.get_by_text("Scoring needs a running kernel").is_visible()
    assert page.get_by_label("Response A").input_value()
    assert page.locator("pre", has_text="tension score").is_visible()
    page.context.close()
