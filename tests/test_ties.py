"""The Ties score: by hand, against a slow version from plain rewards, and its bad input."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tension_utils.analysis.accuracy import ties_score


def make_rows(*rewards: tuple[str, list[float], list[float]]) -> pd.DataFrame:
    """Return evaluation rows from (id, rewards of right answers, rewards of wrong ones)."""
    rows = [
        {
            "item_id": f"reward-bench-2/Ties/{name}",
            "subset": "Ties",
            "margin": np.float32(min(right) - max(wrong)),
            "chosen_spread": np.float32(max(right) - min(right)),
        }
        for name, right, wrong in rewards
    ]
    return pd.DataFrame(rows)


def test_by_hand() -> None:
    score = ties_score(
        make_rows(
            ("ref:0", [3.0], [1.0]),  # margin 2
            ("tied:0", [4.0, 3.0], [0.0, -1.0]),  # margin 3, spread 1: preferred, and the smaller margin 2 too
            ("ref:1", [1.0], [0.5]),  # margin 0.5
            ("tied:1", [5.0, 3.0], [0.0]),  # margin 3, spread 2: preferred, but the smaller margin 0.5 is not
            ("ref:2", [0.0], [1.0]),  # margin -1: wrong
            ("tied:2", [1.0, 0.0], [0.0]),  # margin 0: a tie is wrong
        )
    )
    assert (score.ref_accuracy, score.tied_accuracy) == (2 / 3, 2 / 3)
    assert (score.preferred, score.preferred_hard) == (2 / 3, 1 / 3)
    margin_score = (math.tanh(2 / 1 - 1) + math.tanh(0.5 / 2 - 1) + math.tanh(-1 / 1 - 1)) / 3
    assert score.margin_score == pytest.approx(margin_score)
    assert score.score == pytest.approx(0.3 * 4 / 3 + 0.2 * 1 + 0.01 * margin_score)
    assert (score.n_ref, score.n_tied, score.n_both) == (3, 3, 3)


@pytest.mark.parametrize("margin, expected", [(2.0, 1.0), (-2.0, -1.0), (0.0, 0.0)])
def test_right_answers_with_one_reward(margin: float, expected: float) -> None:
    score = ties_score(make_rows(("ref:0", [margin], [0.0]), ("tied:0", [margin, margin], [0.0])))
    assert score.margin_score == expected
    assert score.preferred == score.preferred_hard == score.tied_accuracy == float(margin > 0)


def slow_score(prompts: dict[tuple[str, int], tuple[list[float], list[float]]]) -> float:
    """Count pair by pair, from the rewards themselves."""

    def is_right(key: tuple[str, int]) -> bool:
        return all(a > b for a in prompts[key][0] for b in prompts[key][1])

    def gap(key: tuple[str, int]) -> float:
        return min(a - b for a in prompts[key][0] for b in prompts[key][1])

    def spread(key: tuple[str, int]) -> float:
        return max(abs(a - b) for a in prompts[key][0] for b in prompts[key][0])

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    accuracies = [mean([is_right(key) for key in prompts if key[0] == kind]) for kind in ("ref", "tied")]
    both = [number for kind, number in prompts if kind == "tied" and ("ref", number) in prompts]
    total = 0.3 * sum(accuracies)
    for number in both:
        own, reference, width = gap(("tied", number)), gap(("ref", number)), spread(("tied", number))
        least = own if own < reference else reference
        total += 0.2 * (own > width) / len(both) + 0.2 * (own > width and reference > width) / len(both)
        ratio = least / width if width else math.copysign(math.inf, least) if least else math.nan
        total += 0 if math.isnan(ratio) else 0.01 * math.tanh(ratio - 1) / len(both)
    return total


REWARDS = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=4)
PROMPTS = st.lists(
    st.tuples(st.tuples(REWARDS.map(lambda r: r[:1]), REWARDS), st.tuples(REWARDS, REWARDS)), min_size=1, max_size=6
)


@settings(max_examples=200, deadline=None)
@given(PROMPTS, st.booleans(), st.randoms())
def test_agrees_with_a_slow_version(pairs: list, has_extra: bool, random: object) -> None:
    prompts = {("ref", i): ref for i, (ref, _) in enumerate(pairs)} | {("tied", i): t for i, (_, t) in enumerate(pairs)}
    if has_extra:
        prompts[("ref", 99)] = ([1.0], [0.0])
    rows = make_rows(*((f"{kind}:{number}", *rewards) for (kind, number), rewards in prompts.items()))
    order = random.sample(range(len(rows)), len(rows))
    other = make_rows(("ref:0", [0.0], [1.0])).assign(subset="Math")
    assert ties_score(pd.concat([other, rows.iloc[order]])).score == pytest.approx(slow_score(prompts))


def test_parts_without_prompts_are_undefined() -> None:
    score = ties_score(make_rows(("ref:0", [1.0], [0.0]), ("tied:1", [1.0, 2.0], [0.0])))
    assert (score.ref_accuracy, score.tied_accuracy, score.n_both) == (1, 1, 0)
    assert math.isnan(score.preferred) and math.isnan(score.score)


def test_rows_of_other_benchmarks_do_not_count() -> None:
    rows = make_rows(("ref:0", [1.0], [0.0]), ("tied:0", [2.0, 1.0], [0.0])).assign(benchmark="reward-bench-2")
    foreign = make_rows(("ref:0", [0.0], [1.0])).assign(benchmark="toy")
    assert ties_score(pd.concat([rows, foreign])) == ties_score(rows)


def test_bad_rows() -> None:
    rows = make_rows(("ref:0", [1.0], [0.0]), ("tied:0", [2.0, 1.0], [0.0]))
    with pytest.raises(ValueError, match=r"expected rows of subset Ties; got \['Math'\]"):
        ties_score(rows.assign(subset="Math"))
    with pytest.raises(ValueError, match="every id once; got 'reward-bench-2/Ties/ref:0' again"):
        ties_score(pd.concat([rows, rows]))
    with pytest.raises(ValueError, match="end in ref:NUMBER or tied:NUMBER; got 'reward-bench-2/Ties/12'"):
        ties_score(rows.assign(item_id=["reward-bench-2/Ties/12", "reward-bench-2/Ties/tied:0"]))
