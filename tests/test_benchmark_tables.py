"""Accuracies per benchmark, and the study's numbers beside them."""

import numpy as np
import pandas as pd
import pytest

from tension_utils.analysis.accuracy import PAPER, benchmark_table, beside_paper


def evaluation_rows() -> pd.DataFrame:
    """40 items per cell; the helpful model is right on 30 of 40 normal pairs, 10 of 40 hard ones, 20 of 40 others."""
    cells = {("rm-bench", "chat", "normal"): 30, ("rm-bench", "chat", "hard"): 10, ("reward-bench", "math-prm", ""): 20}
    rows = [
        {
            "base_model": "m",
            "objective": "helpful",
            "seed": 0,
            "benchmark": benchmark,
            "subset": subset,
            "style": style,
            "item_id": f"{subset}{style}{i}",
            "cluster": str(i),
            "credit": float(i < n_right),
            "margin": 1.0 if i < n_right else -1.0,
            "chance": 0.5,
            "is_truncated": False,
        }
        for (benchmark, subset, style), n_right in cells.items()
        for i in range(40)
    ]
    return pd.DataFrame(rows)


def paper_rows(**changed: float) -> pd.DataFrame:
    cells = {"Chat": ("rm-bench", "chat"), "Math PRM": ("reward-bench", "math-prm"), "Code": ("rm-bench", "code")}
    percents = {"Chat": 70.0, "Math PRM": 20.0, "Code": 50.0} | changed
    return pd.DataFrame(
        [
            {
                "objective": "helpful",
                "sub_task": name,
                "benchmark": benchmark,
                "subset": subset,
                "percent_correct": percents[name],
                "n_train_pairs": 1000,
                "n_seeds": 3,
            }
            for name, (benchmark, subset) in cells.items()
        ]
    )


def test_the_studys_pairs_of_equal_style_stand_beside_its_numbers() -> None:
    table = benchmark_table(evaluation_rows())
    assert len(table) == 3
    found = beside_paper(table, paper_rows()).set_index("sub_task")
    assert list(found.index) == ["Chat", "Math PRM"]  # Code was not evaluated
    assert found.loc["Chat"].accuracy == pytest.approx(0.75) and found.loc["Chat"].paper == pytest.approx(0.7)
    assert found.loc["Chat"].n_items == 40 and found.loc["Chat"].paper_train_pairs == 1000
    assert found.is_same_side["Chat"] == 1
    assert np.isnan(found.is_same_side["Math PRM"])  # 50 %: the interval holds chance


def test_a_clear_result_on_the_other_side_is_told() -> None:
    found = beside_paper(benchmark_table(evaluation_rows()), paper_rows(Chat=30.0)).set_index("sub_task")
    assert found.is_same_side["Chat"] == 0


def test_a_table_from_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match="missing sub_task"):
        beside_paper(benchmark_table(evaluation_rows()), paper_rows().drop(columns="sub_task"))


def test_the_committed_numbers_are_percentages_of_every_model_on_every_sub_task() -> None:
    paper = pd.read_csv(PAPER)
    assert paper.percent_correct.between(0, 100).all() and not paper.duplicated(["objective", "sub_task"]).any()
    assert (paper.groupby("sub_task").objective.nunique() == 3).all()
