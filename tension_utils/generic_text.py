"""Plain English prose without preference labels, in passages of a few sentences."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PYDOC = "pydoc"  # the Python language reference, which ships with the standard library
LONGEST, SHORTEST = 500, 120  # characters of a passage
MARKUP = re.compile(r"[*\"`]|\\(?=\W)")
CODE = re.compile(r"::=|>>>|\.\.\. |^\s*[+|]|[*=~^-]{4}|[{}=<>]\s*\w*\(", re.MULTILINE)
SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[A-Z])")


def load_passages(source: str, n_passages: int, seed: int = 0) -> list[str]:
    """Return random passages of plain text, each a few sentences of one paragraph; more start with the same ones.

    Args:
        source: "pydoc", the Python language reference of the running Python; or the path of a UTF-8 text file with
            blank lines between paragraphs.
        n_passages: how many.
        seed: of the draw.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no UTF-8 text, or there are too few passages.
    """
    passages = list(dict.fromkeys(passage for text in _texts(source) for passage in cut_passages(text)))
    if len(passages) < n_passages:
        raise ValueError(
            f"n_generic: expected at most {len(passages)}, the passages of {SHORTEST} to {LONGEST} characters in "
            f"generic_text={source!r}; got {n_passages}"
        )
    order = np.random.default_rng(seed).permutation(len(passages))
    return [passages[i] for i in order[:n_passages]]


def _texts(source: str) -> list[str]:
    """Return the texts of a source, in a fixed order."""
    if source == PYDOC:
        from pydoc_data.topics import topics  # half a megabyte that few need

        return [topics[name] for name in sorted(topics)]
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"generic_text: expected {PYDOC!r} or a text file; there is no file {path}")
    try:
        return [path.read_text(encoding="utf-8")]
    except UnicodeDecodeError as error:
        raise ValueError(f"generic_text: expected UTF-8 text in {path}; got {error}; save it as UTF-8") from error


def cut_passages(text: str) -> Iterator[str]:
    r"""Yield the passages of a text: whole sentences of one paragraph of prose, without markup and line breaks.

    Headings, code, grammar and tables are left out, and so are sentences longer and passages shorter than a passage
    may be.

    >>> prose = "*Names* refer to objects, and names are introduced by\n   name binding operations. " * 2
    >>> list(cut_passages("Naming\n******\n\n" + prose + "\n\n   x ::= 1"))[0][:60]
    'Names refer to objects, and names are introduced by name bin'
    """
    for paragraph in re.split(r"\n\s*\n", text):
        if CODE.search(paragraph):
            continue
        prose = " ".join(re.sub(r"-\n\s*", "-", MARKUP.sub("", paragraph)).split())
        if not (prose[:1].isupper() and prose.endswith((".", "!", "?"))):
            continue
        passage = ""
        for sentence in (*SENTENCE_END.split(prose), ""):
            longer = f"{passage} {sentence}".strip()
            if sentence and len(longer) <= LONGEST:
                passage = longer
                continue
            if SHORTEST <= len(passage) <= LONGEST:
                yield passage
            passage = sentence
