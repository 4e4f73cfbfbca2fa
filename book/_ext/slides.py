"""The slides of the evening on the page for instructors: `slides.md` with the figures of the chapters, as one page."""

import base64
import html
from pathlib import Path

import nbformat
from markdown_it import MarkdownIt

from tension_book import SANDBOX, STUDY, is_synthetic

HERE = Path(__file__).parent
RULE = "\n---\n"
FIGURE = "figure: "
VERDICTS = "verdicts"  # the figure of the first page
FOLDERS = {STUDY: "the study", SANDBOX: "your run"}  # where figures are looked for, in this order
MADE_UP = "the sandbox: made-up data"

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Slides: Helpful, Harmless, or Both?</title>
<link rel="icon" href="data:,">
<style>
  html {{ scroll-snap-type: y mandatory; font: 1.5rem/1.5 "DejaVu Sans", Verdana, sans-serif; }}
  html {{ color: #1a1a1a; background: #fff; }}
  body {{ margin: 0; }}
  section {{ min-height: 100vh; box-sizing: border-box; padding: 5vh 8vw; scroll-snap-align: start;
    display: flex; flex-direction: column; justify-content: center; break-after: page; }}
  section > * {{ max-width: 46rem; margin-block: 0.5em; }}
  h1 {{ font-size: 2.6rem; line-height: 1.2; }} h2 {{ font-size: 2rem; line-height: 1.2; }}
  blockquote {{ margin-inline: 0; padding-left: 1em; border-left: 4px solid #767676; }}
  code {{ font-size: 0.85em; overflow-wrap: anywhere; }}
  figure {{ margin: 0; max-width: 62rem; }}
  img {{ width: 100%; max-height: 64vh; object-fit: contain; object-position: left; }}
  .source {{ font-size: 0.9rem; color: #595959; }}
  @media (max-width: 700px) {{ html {{ font-size: 1.1rem; }} h1 {{ font-size: 1.8rem; }} h2 {{ font-size: 1.5rem; }} }}
  @media print {{ html {{ font-size: 1rem; }} section {{ min-height: 95vh; }} }}
</style>
</head>
<body>
<main>
{slides}
</main>
<script>
  addEventListener("keydown", (event) => {{
    const slides = [...document.querySelectorAll("section")];
    const here = Math.round(scrollY / innerHeight);
    const steps = {{ ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1 }};
    const step = steps[event.key];
    if (event.key === "Escape") location.href = "book/instructor.html";
    if (step === undefined) return;
    event.preventDefault();
    slides[Math.max(0, Math.min(slides.length - 1, here + step))].scrollIntoView();
  }});
</script>
</body>
</html>
"""


def chapter_figures(root: Path) -> dict[str, tuple[bytes, str, str]]:
    """Return the figures of all executed chapters: name -> (SVG, what it shows, where it is from in words)."""
    found = {}
    for folder, source in FOLDERS.items():
        for path in sorted((root / folder).glob("*.ipynb")):
            text = path.read_text(encoding="utf-8")
            told = MADE_UP if is_synthetic(text) else source
            for cell in nbformat.reads(text, as_version=4).cells:
                book = cell.metadata.get("mystnb", {})
                name = book.get("figure", {}).get("name")
                pictures = [
                    o.data["image/svg+xml"] for o in cell.get("outputs", []) if "image/svg+xml" in o.get("data", {})
                ]
                if name and pictures and name not in found:
                    found[name] = (pictures[0].encode(), book.get("image", {}).get("alt", ""), told)
    verdicts = root / "book" / "generated" / "verdicts.svg"
    if verdicts.is_file():
        found[VERDICTS] = (
            verdicts.read_bytes(),
            "The primary effects of the five claims, with intervals.",
            "the claims",
        )
    return found


def slide_deck(text: str, figures: dict[str, tuple[bytes, str, str]]) -> str:
    """Return the page of the slides.

    Args:
        text: Markdown; a rule of three dashes between slides, and a line ``figure: name`` where a figure stands.
        figures: of `chapter_figures`. A figure that a run lacks is left out, its text stays.
    """
    markdown = MarkdownIt("commonmark", {"html": False})
    slides = []
    for slide in text.strip().split(RULE):
        names = [line.removeprefix(FIGURE).strip() for line in slide.splitlines() if line.startswith(FIGURE)]
        words = "\n".join(line for line in slide.splitlines() if not line.startswith(FIGURE))
        pictures = [_picture(*figures[name]) for name in names if name in figures]
        slides.append(f"<section>{''.join(pictures)}\n{markdown.render(words)}</section>")
    return PAGE.format(slides="\n".join(slides))


def _picture(svg: bytes, alt: str, source: str) -> str:
    address = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    return f'<figure><img src="{address}" alt="{html.escape(alt)}"><p class="source">From {source}.</p></figure>'


def write_slides(root: Path, site: Path) -> None:
    """Write ``slides.html`` into a built site.

    Args:
        root: the project's folder, with executed chapters.
        site: the folder with ``index.html``.
    """
    page = slide_deck((HERE / "slides.md").read_text(encoding="utf-8"), chapter_figures(root))
    (site / "slides.html").write_text(page, encoding="utf-8")
