"""What the study found, in hand-written words: each holds for the stored results, and fails when they change."""

import re
from pathlib import Path

import pandas as pd
import pytest

import findings
from findings import FINDINGS, Study, Unfounded
from stored import APPENDICES, CHAPTERS, stored_chapters

ROOT = Path(__file__).parents[1]
STORED = [chapter for chapter in stored_chapters(ROOT) if chapter not in APPENDICES]
TOLD = [chapter for chapter in (*STORED, "09_ledger") if chapter in FINDINGS]


@pytest.fixture(scope="module")
def study() -> Study:
    """The committed results."""
    return Study(ROOT / "results")


def test_every_chapter_that_the_study_fills_has_a_finding_and_a_page() -> None:
    assert set(STORED) <= set(FINDINGS), "write what was found: book/_ext/findings.py"
    toc = (ROOT / "_toc.yml").read_text()
    pages = {f"study/{chapter}" for chapter in CHAPTERS}
    assert pages <= set(re.findall(r"file: (study/\w+)", toc)), "name the page in _toc.yml"


@pytest.mark.parametrize("chapter", TOLD)
def test_every_sentence_follows_from_the_stored_results(study: Study, chapter: str) -> None:
    text = FINDINGS[chapter](study)
    assert text.startswith("**") and "nan" not in text and "{" not in text


class Changed(Study):
    """The study with every accuracy, finding and checkpoint at chance."""

    def __init__(self, study: Study) -> None:
        super().__init__(study.folder)
        self.matrix = study.matrix.assign(accuracy=0.5, ci_low=0.4, ci_high=0.6)
        self.ledger = study.ledger.assign(value=0.0, ci_low=-50.0, ci_high=50.0, p_value=0.5)
        self.errors = study.errors.assign(overconfidence_ci_low=-0.1)
        self.lengths = study.lengths.assign(ci_low=-0.5, ci_high=0.5)
        self.transfer = study.transfer.assign(excess_transferability_ci_low=-0.1)
        self.scores_agree = pd.Series({**study.scores_agree, "jaccard": 0.9})
        self.signs = study.signs.assign(ci_low=-0.2, ci_high=0.2)
        self.levels = study.levels.assign(jaccard=0.1)
        self.removals = study.removals.assign(p_value=0.5)
        self.by_size = {n: rows.assign(credit=0.5) for n, rows in study.by_size.items()}
        self.kept = study.kept.assign(validation_accuracy=0.5, ci_low=0.4, ci_high=0.6)


@pytest.mark.parametrize("chapter", TOLD)
def test_no_sentence_outlives_its_numbers(study: Study, chapter: str) -> None:
    with pytest.raises(Unfounded, match="the stored results no longer say that .*; look at the tables"):
        FINDINGS[chapter](Changed(study))


def test_words_that_do_not_hold_are_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def tell(study: Study) -> str:
        findings.require(False, "water is dry")
        return "Water is dry."

    monkeypatch.setitem(findings.FINDINGS, "02_evaluate", tell)
    monkeypatch.setitem(findings.FINDINGS, "01_train", lambda study: "**Yes.**")
    arguments = ["01_train", "02_evaluate", "09_none", "--results", str(tmp_path), "--output", str(tmp_path / "words")]
    assert findings.main(arguments) == 0
    written = {path.stem: path.read_text() for path in (tmp_path / "words").glob("*.md")}
    assert written == {"01_train": "**Yes.**\n", "02_evaluate": "", "09_none": ""}
    assert "02_evaluate: the stored results no longer say that water is dry" in capsys.readouterr().err


def test_one_reading_is_asked_for_and_none_or_two_are_refused() -> None:
    study = Study(ROOT / "nowhere")
    study.ledger = pd.DataFrame({"way": ["under control"] * 2, "claim": ["C1", "C1"], "arm": ["a", "b"]})
    assert study.reading(arm="a").claim == "C1"
    for fields in ({"claim": "C1"}, {"arm": "c"}):
        with pytest.raises(Unfounded, match="expected one reading"):
            study.reading(**fields)
