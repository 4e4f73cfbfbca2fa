"""Is a targeted set unusual among random sets: by hand, against a slow version, and its size in simulated studies."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from tension_utils.statistics import holm, prediction_test


def test_two_models_and_three_draws_by_hand() -> None:
    # Means of the draws 2 and 10, so the effects are -4 and -6, in the mean -5. Squared deviations 2 and 8 over
    # 2 (3 - 1) = 4 degrees of freedom: s^2 = 2.5. Standard error sqrt(2.5 (1 + 1/3) / 2) = sqrt(5 / 3).
    found = prediction_test(np.array([-2.0, 4.0]), np.array([[1.0, 2.0, 3.0], [8.0, 10.0, 12.0]]), "less")
    assert found.effect == -5 and found.freedom == 4
    assert found.t == pytest.approx(-5 / math.sqrt(5 / 3)) == pytest.approx(-3.8730, abs=1e-4)
    # Below t, Student's t with 4 has 1/2 + 3/8 (t / sqrt(19/4)) (1 - (1/12) 15 / (19/4)), as t^2 = 15.
    assert found.p_value == pytest.approx(0.5 - 3 / 8 * math.sqrt(15 / 4.75) * (1 - 15 / 4.75 / 12))
    assert prediction_test(np.array([-2.0, 4.0]), np.array([[1, 2, 3], [8, 10, 12]])).p_value == pytest.approx(
        2 * found.p_value
    )


def slow(targeted: list[float], draws: list[list[float]]) -> tuple[float, float]:
    """Return t and the two-sided p-value by loops, and the tail by integrating the density."""
    effect = sum(t - sum(own) / len(own) for t, own in zip(targeted, draws, strict=True)) / len(targeted)
    squares = [(value - sum(own) / len(own)) ** 2 for own in draws for value in own]
    freedom = len(draws) * (len(draws[0]) - 1)
    error = math.sqrt(sum(squares) / freedom * (1 + 1 / len(draws[0])) / len(draws))
    t = effect / error
    constant = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
    x = np.linspace(0, abs(t), 200_001)
    inside = np.trapezoid(constant * (1 + x**2 / freedom) ** (-(freedom + 1) / 2), x)
    return t, 1 - 2 * inside


@settings(deadline=None, max_examples=40)
@given(
    values=hnp.arrays(float, st.tuples(st.integers(1, 4), st.integers(3, 6)), elements=st.floats(-3, 3), unique=True)
)
def test_agrees_with_a_slow_version_and_mirrors(values: np.ndarray) -> None:
    targeted, draws = values[:, 0], values[:, 1:]
    if draws.std(axis=1).max() < 1e-3:
        return
    t, p_value = slow(targeted.tolist(), draws.tolist())
    found = prediction_test(targeted, draws)
    assert found.t == pytest.approx(t) and found.p_value == pytest.approx(p_value, abs=1e-6)
    less, greater = (prediction_test(targeted, draws, side).p_value for side in ("less", "greater"))
    assert less + greater == pytest.approx(1) and min(less, greater) == pytest.approx(found.p_value / 2)
    assert prediction_test(-targeted, -draws, "less").p_value == pytest.approx(greater)
    assert prediction_test(7 * targeted + 2, 7 * draws + 2).p_value == pytest.approx(found.p_value)


@pytest.mark.parametrize(("n_models", "n_draws"), [(1, 3), (1, 12), (2, 8), (6, 12)])
def test_size_is_five_percent_however_small_the_items_noise(n_models: int, n_draws: int) -> None:
    """A random set in the place of the targeted one: 4,000 studies; its binomial error is .35 points."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=(4000, n_models, 1))  # what removing anything does to a model
    changes = level + 0.03 * rng.normal(size=(4000, n_models, 1 + n_draws))
    p = np.array([prediction_test(each[:, 0], each[:, 1:], "less").p_value for each in changes])
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.011)
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_draws_that_all_agree_decide_by_the_effect_alone() -> None:
    same = np.ones((1, 4))
    assert prediction_test(np.array([2.0]), same, "greater").p_value == 0
    assert prediction_test(np.array([2.0]), same, "less").p_value == 1
    assert prediction_test(np.array([1.0]), same).p_value == 1


@pytest.mark.parametrize(
    ("targeted", "draws", "said"),
    [
        (np.zeros(2), np.zeros((1, 3)), "shapes"),
        (np.zeros(1), np.zeros((1, 1)), "D >= 2"),
        (np.zeros(0), np.zeros((0, 3)), "shapes"),
        (np.array([np.nan]), np.zeros((1, 3)), "finite"),
    ],
)
def test_what_cannot_be_tested_is_refused(targeted: np.ndarray, draws: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        prediction_test(targeted, draws)
    with pytest.raises(ValueError, match="alternative: expected one of two-sided"):
        prediction_test(np.zeros(1), np.zeros((1, 3)), "lower")


def test_holm_by_hand() -> None:
    # Sorted .01, .02, .04 times 3, 2, 1 are .03, .04, .04.
    assert holm([0.04, 0.01, 0.02]).tolist() == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0] and holm([]).tolist() == []
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([1.5])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_what_its_steps_reject(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.3):
        rejected: set[int] = set()
        for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[index] * (len(p_values) - step) > level:
                break
            rejected.add(index)
        assert rejected == {i for i, p in enumerate(adjusted) if p <= level}
    for a, b in itertools.combinations(range(len(p_values)), 2):
        assert (adjusted[a] <= adjusted[b]) or p_values[a] >= p_values[b]
