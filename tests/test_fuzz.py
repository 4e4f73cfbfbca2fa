"""The fuzz campaign: it sees every outcome, and a slice of it is within the limits."""

import importlib
import json
from collections import Counter
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

FAKE = """
import os, sys, time
from pathlib import Path
from fuzz import Case, Misread

def own(message):
    from tension_utils.config import check_choice
    return lambda: check_choice(message, "x", ("a", "b"))

def misread():
    raise Misread("another value")

READERS = {
    "accepted": Case("", lambda: None),
    "refused": Case("a fault", own("file.txt"), ["file.txt"]),
    "nameless": Case("a fault", own("it"), ["file.txt"]),
    "bare": Case("a fault", lambda: int("x")),
    "other type": Case("a fault", lambda: {}["x"]),
    "takes all": Case("a fault", lambda: None),
    "misreads": Case("", misread),
    "refuses all": Case("", own("file.txt")),
    "hangs": Case("a fault", lambda: time.sleep(60)),
    "dies": Case("a fault", lambda: os._exit(3)),
    "after both": Case("", lambda: None),
}
KINDS = {name: (lambda rng, folder, case=case: case, 1) for name, case in READERS.items()}
"""
EXPECTED = {
    "accepted": "accepted rightly",
    "refused": "refused clearly",
    "nameless": "unclear",
    "bare": "unclear",
    "other type": "unclear",
    "takes all": "wrongly accepted",
    "misreads": "wrongly accepted",
    "refuses all": "wrongly refused",
    "hangs": "hang",
    "dies": "crash",
    "after both": "accepted rightly",
}


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("fuzz")


def test_every_outcome_is_seen(fuzz: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake_inputs.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(fuzz, "HANG_SECONDS", 2)
    found = {kind: outcome for kind, _, outcome, _ in fuzz.campaign(len(EXPECTED), 0, "fake_inputs")}
    assert found == EXPECTED
    assert set(found.values()) == set(fuzz.OUTCOMES)


@pytest.mark.parametrize("outcome, most", [("unclear", 5), ("wrongly accepted", 0), ("hang", 0), ("crash", 0)])
def test_the_limits_are_those_of_the_table(fuzz: object, outcome: str, most: int) -> None:
    right = Counter({fuzz.REFUSED: 1000})
    assert fuzz.is_within_limits({"a": right, "b": Counter({outcome: most})})
    assert not fuzz.is_within_limits({"a": right, "b": Counter({outcome: most + 1})})
    table = fuzz.report({"a": right, "b": Counter({outcome: 7})})
    assert table.splitlines()[-1].split()[:2] == ["all", "1007"] and " 7" in table.splitlines()[2]


def test_a_slice_of_the_campaign_is_within_the_limits(fuzz: object) -> None:
    found = list(fuzz.campaign(300, 1))
    bad = [(kind, number, outcome, word) for kind, number, outcome, word in found if outcome in fuzz.BAD]
    assert not bad, json.dumps(bad[:5], indent=1)
    assert len({kind for kind, *_ in found}) == 11 and {outcome for _, _, outcome, _ in found} == {
        fuzz.ACCEPTED,
        fuzz.REFUSED,
    }
