"""Passages of plain prose: what is kept, how it is cut, and that a draw comes back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tension_utils.stages import LONGEST, SHORTEST, cut_passages, load_passages

SENTENCES = st.lists(st.integers(1, 90).map(lambda n: "Word" + " word" * n + "."), min_size=1, max_size=12)


@given(SENTENCES)
def test_passages_are_whole_sentences_in_order(sentences: list[str]) -> None:
    found = list(cut_passages("   " + "\n   ".join(sentences)))
    assert all(SHORTEST <= len(passage) <= LONGEST for passage in found)
    left = list(sentences)
    for passage in found:
        kept = passage.count(".")
        while " ".join(left[:kept]) != passage:
            left.pop(0)  # raises where a passage is not made of consecutive sentences
        left = left[kept:]


def test_code_headings_and_tables_are_left_out() -> None:
    prose = (
        "The value of an object can change, if the object is mutable. Others are *immutable* once they are made. " * 2
    )
    others = [
        "Objects\n*******",
        "   >>> x = 1\n   A.",
        "   x ::= y. " * 20,
        "| A table. | " * 20,
        "no capital, " * 20 + ".",
    ]
    found = list(cut_passages("\n\n".join([*others, prose, *others])))
    assert found == [prose.replace("*", "").strip()]
    assert list(cut_passages("A non-\n  string " + "word " * 30 + "is one word.")) == [
        "A non-string " + "word " * 30 + "is one word."
    ]


def test_the_language_reference_gives_prose_and_the_same_draw_again() -> None:
    passages = load_passages("pydoc", 200)
    assert passages[:50] == load_passages("pydoc", 50) and len(set(passages)) == 200
    assert load_passages("pydoc", 50, seed=1) != passages[:50]
    assert all(SHORTEST <= len(passage) <= LONGEST and "\n" not in passage for passage in passages)
    letters = sum(c.isalpha() or c.isspace() for passage in passages for c in passage) / sum(map(len, passages))
    assert letters > 0.93


def test_a_text_file_is_read_by_paragraphs(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(
        "\n\n".join(f"Paragraph {n} is about the weather, {'which is fine, ' * 8}and ends." for n in range(4))
    )
    found = load_passages(str(file), 4)
    assert sorted(passage.split()[1] for passage in found) == list("0123")
    with pytest.raises(ValueError, match="n_generic: expected at most 4, .*got 5"):
        load_passages(str(file), 5)
    with pytest.raises(FileNotFoundError, match="expected 'pydoc' or a text file; there is no file .*other"):
        load_passages(str(tmp_path / "other"), 1)
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match="save it as UTF-8"):
        load_passages(str(file), 1)
