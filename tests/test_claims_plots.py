"""The figure of the five claims: places by hand, what is cut and what was not run."""

from math import nan
from pathlib import Path

import pytest

from tension_utils.analysis.findings import CLAIMS, SMALLEST, WAYS, Finding, judge
from tension_utils.show.figures_claims import FARTHEST, forest_words, paper_effects, toward_claim, verdict_forest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("book_style")
PAPER = {"C1": -6.0, "C3": 3.0}


def ledger_of(bases: tuple[str, str] = ("toy", "toy"), **values: tuple[float, float, float]) -> object:
    """A ledger whose primary findings under control have these values and intervals; others were not run."""
    findings = []
    for claim, facts in CLAIMS.items():
        value, low, high = values.get(claim, (nan, nan, nan))
        what = {"claim": claim, "is_primary": True, "quantity": "removal", "metric": "margin", "objective": "both"}
        what |= {"arm": "single", "test": "own", "neuron_set": "top 10 %", "score_kind": "rms_change", "control": ""}
        numbers = {"value": value, "ci_low": low, "ci_high": high, "p_value": 0.01, "unit": facts.unit}
        reason = "" if value == value else "no set was removed"
        runs = {"by_seed": (value - 0.1, value + 0.1), "bases": bases} if value == value else {}
        found = runs | {"reason": reason, "n_items": 9}
        findings += [Finding(**what, **numbers, **found, way=way) for way in WAYS]
    return judge(findings)


def test_effects_stand_on_the_claimed_side_in_smallest_effects() -> None:
    assert toward_claim("C1", -6.0, "points") == 6.0 / SMALLEST["points"] and toward_claim("C3", -0.2, "SD") == -2
    ax = verdict_forest({"study": ledger_of(C1=(-6.0, -9.0, 3.0), C2=(-0.2, -0.3, -0.1))}, PAPER)
    estimates = [line for line in ax.lines if line.get_marker() == "o" and line.get_markersize() == 7]
    assert [line.get_xdata()[0] for line in estimates] == pytest.approx([2.0, 2.0])
    spans = [
        sorted(line.get_xdata()) for line in ax.lines if line.get_linewidth() == 1.6 and len(line.get_xdata()) == 2
    ]
    assert spans[0] == pytest.approx([-1, 3]) and spans[1] == pytest.approx([1, 3])
    hollow = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"]
    assert hollow == pytest.approx([2.0, 1.0]), "the paper's points over three points"
    assert [text.get_text() for text in ax.texts] == ["not run"] * 3


def test_training_runs_of_base_models_look_different_and_the_legend_names_them() -> None:
    ax = verdict_forest({"study": ledger_of(C1=(-6.0, -9.0, 3.0))}, {})
    assert "one training run" in [text.get_text() for text in ax.figure.legends[0].get_texts()]
    ax = verdict_forest({"study": ledger_of(("one", "two"), C1=(-6.0, -9.0, 3.0), C2=(-0.2, -0.3, -0.1))}, {})
    runs = [line for line in ax.lines if line.get_markersize() == 3.5]
    assert [line.get_xdata()[0] for line in runs] == pytest.approx([6.1 / 3, 5.9 / 3, 3.0, 1.0])
    assert [line.get_mfc() for line in runs] == ["#888888", "white"] * 2
    names = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert [name for name in names if "run" in name] == ["one training run of one", "one training run of two"]


def test_an_interval_without_end_is_cut_and_says_so() -> None:
    ax = verdict_forest({"study": ledger_of(C2=(-0.2, -4.0, 4.0))}, {})
    assert ax.get_xlim() == pytest.approx((-FARTHEST, FARTHEST))
    assert {line.get_marker() for line in ax.lines} >= {"<", ">"}


def test_words_say_what_is_drawn() -> None:
    words = forest_words({"study": ledger_of(C1=(-6.0, -9.0, 3.0))}, PAPER)
    assert "C1 +2.0 [-1.0, +3.0], paper +2.0" in words and "C2 not run;" in words
    assert "C4 +2.0 without interval" in forest_words({"study": ledger_of(C4=(0.1, nan, nan))}, {})
    two = forest_words({"study": ledger_of(C1=(-6.0, -9.0, 3.0)), "other": ledger_of()}, {})
    assert "C1 +2.0 [-1.0, +3.0] (study); C1 not run (other)" in two


def test_the_papers_effects_are_means_of_both_objectives() -> None:
    assert paper_effects(ROOT / "results" / "paper" / "claims.csv") == pytest.approx(
        {"C1": -5.57, "C2": -10.095, "C3": 3.255}
    )
