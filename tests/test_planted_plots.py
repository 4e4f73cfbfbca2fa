"""Figures of planted worlds show the numbers of their tables."""

from collections.abc import Iterator

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from tension_utils.show.figures_planted import error_rate_forest, finder_dots, plant_effects


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close every figure."""
    yield
    plt.close("all")


def test_plant_effects_end_at_the_changes() -> None:
    rows = [
        ("shared", "helpful", -1.0),
        ("shared", "harmless", -0.8),
        ("rest", "helpful", 0.1),
        ("rest", "harmless", 0.0),
    ]
    ax = plant_effects(pd.DataFrame(rows, columns=["set", "test", "margin_change"]))
    drawn = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert drawn["helpful test"] == [-1.0, 0.1] and drawn["harmless test"] == [-0.8, 0.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["rest", "shared"]


def test_finder_dots_stand_at_the_precisions_best_score_on_top() -> None:
    rows = [
        {"site": "gate", "score_kind": kind, "plant": plant, "precision": value, "chance": 0.1}
        for kind, values in (("rms", (0.2, 0.1, 0.4)), ("contrast", (0.9, 0.7, 0.6)))
        for plant, value in zip(("loud", "quiet", "trained"), values, strict=True)
    ]
    (ax,) = finder_dots(pd.DataFrame(rows))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["rms", "contrast"]
    assert [list(line.get_xdata()) for line in ax.lines[:3]] == [[0.2, 0.9], [0.1, 0.7], [0.4, 0.6]]
    with pytest.raises(ValueError, match="precision"):
        finder_dots(pd.DataFrame(rows).assign(precision=1.2))


def test_error_rates_leave_out_what_was_not_measured() -> None:
    row = {"name": "a", "power": 0.8, "power_ci_low": 0.7, "power_ci_high": 0.9}
    row |= {
        "false_positives": float("nan"),
        "false_positives_ci_low": float("nan"),
        "false_positives_ci_high": float("nan"),
    }
    ax = error_rate_forest(pd.DataFrame([row]))
    drawn = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert drawn["claim true: power"] == [0.8] and drawn["claim false: false positives"] == []
    with pytest.raises(ValueError, match="name"):
        error_rate_forest(pd.DataFrame([row]).drop(columns="name"))
