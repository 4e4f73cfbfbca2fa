"""Tension: mixed against single, refuse and respond, transferability; by hand, and against slow versions."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tension_utils import statistics
from tension_utils import statistics as bootstrap
from tension_utils import statistics as comparisons
from tension_utils.analysis import accuracy, transfer
from tension_utils.config import OBJECTIVES
from tension_utils.statistics import Bootstrap

BOOLEANS = st.lists(st.tuples(*[st.booleans()] * 3, st.integers(0, 2)), min_size=2, max_size=12)


def rng():
    return np.random.default_rng(0)


def rows_of(credits, objective="helpful", subset="all", direction="none", base="a", first=0) -> pd.DataFrame:
    """Build evaluation rows from credits (seeds, items)."""
    credits = np.asarray(credits, float)
    n_seeds, n_items = credits.shape
    names = [f"{subset}-{item + first}" for item in range(n_items)]
    return pd.DataFrame(
        {
            "base_model": base,
            "objective": objective,
            "seed": np.repeat(np.arange(n_seeds), n_items),
            "benchmark": "bench",
            "subset": subset,
            "item_id": names * n_seeds,
            "cluster": names * n_seeds,
            "group": "harmless",
            "direction": direction,
            "margin": (credits.ravel() - 0.5).astype(np.float32),
            "credit": credits.ravel(),
            "chance": 0.5,
        }
    )


def behavior_rows(objective: str, refuse, small, respond) -> pd.DataFrame:
    parts = (("r1", "refuse", refuse), ("r2", "refuse", small), ("p", "respond", respond))
    return pd.concat([rows_of(credits, objective, subset, direction) for subset, direction, credits in parts])


def test_mixed_against_single_by_hand():
    data = pd.concat(
        [
            rows_of([[1, 0, 0, 0], [1, 1, 0, 0]], "helpful"),
            rows_of([[1, 1, 1, 1], [1, 1, 1, 1]], "harmless"),
            rows_of([[1, 1, 0, 1], [1, 1, 0, 0]], "helpful-harmless"),
        ]
    )
    table = accuracy.mixed_against_single(data, bootstrap=Bootstrap(200)).set_index("against")
    assert table.difference.to_dict() == pytest.approx({"helpful": 0.25, "harmless": -0.375})
    assert (table.mixed == 0.625).all()
    assert table.single.to_dict() == {"helpful": 0.375, "harmless": 1.0}
    assert table.is_own.to_dict() == {"helpful": False, "harmless": True}
    assert (table.chance_accuracy == 0.5).all()
    assert ((table.p_value > 0.05) == ((table.ci_low <= 0) & (table.ci_high >= 0))).all()
    assert (table.p_adjusted == comparisons.benjamini_hochberg(table.p_value)).all()
    assert (table.n_items == 4).all()
    assert (table.n_seeds == 2).all()


def test_every_mixed_arm_is_compared_with_the_test_s_own_specialist():
    data = pd.concat(
        [
            rows_of([[1, 0, 0, 0], [1, 1, 0, 0]], "helpful"),
            rows_of([[1, 1, 1, 1], [1, 1, 1, 1]], "harmless"),
            rows_of([[1, 1, 0, 1], [1, 1, 0, 0]], "helpful-harmless"),
            rows_of([[1, 0, 0, 0], [0, 0, 0, 0]], "helpful-harmless-matched"),
        ]
    )
    table = accuracy.own_costs(data, Bootstrap(200)).set_index("objective")
    assert table.difference.to_dict() == pytest.approx({"helpful-harmless": -0.375, "helpful-harmless-matched": -0.875})
    assert set(table.against) == {"harmless"}, "the items' own group"
    assert (table.p_adjusted == comparisons.benjamini_hochberg(table.p_value)).all()
    with pytest.raises(ValueError, match="expected rows of helpful-harmless or .*; got harmless, helpful"):
        accuracy.own_costs(data[data.objective.isin(["helpful", "harmless"])])


def test_behavior_by_hand():
    """Refuse: subsets at 3/4 and 1/2 count equally, .625; respond 1/4: balanced .4375, over-refusal .75."""
    data = behavior_rows("helpful", [[1, 1, 1, 0]], [[1, 0]], [[1, 0, 0, 0]])
    row = accuracy.behavior_table(pd.concat([data, rows_of([[1, 1]])])).iloc[0]
    assert (row.refuse_accuracy, row.respond_accuracy) == pytest.approx((0.625, 0.25))
    assert (row.balanced_accuracy, row.over_refusal) == pytest.approx((0.4375, 0.75))
    assert row.over_refusal_ci_low == pytest.approx(1 - row.respond_accuracy_ci_high)
    assert row.balanced_accuracy_ci_low < 0.4375 < row.balanced_accuracy_ci_high
    sizes = [row.n_refuse_items, row.n_respond_items, row.n_refuse_subsets, row.n_respond_subsets, row.n_clusters]
    assert sizes == [6, 4, 2, 1, 10]
    assert (row.n_seeds, row.chance_accuracy) == (1, 0.5)


def test_behavior_interval_has_the_standard_error_of_the_formula():
    generator = np.random.default_rng(1)
    credits = [generator.integers(0, 2, (1, n)) for n in (200, 50, 90)]
    row = accuracy.behavior_table(behavior_rows("helpful", *credits), bootstrap=Bootstrap(8000)).iloc[0]
    variances = [x.var(ddof=1) / x.size for x in credits]
    expected = 2 * 1.96 * np.sqrt((variances[0] + variances[1]) / 16 + variances[2] / 4)
    assert row.balanced_accuracy_ci_high - row.balanced_accuracy_ci_low == pytest.approx(expected, rel=0.04)


def test_behavior_that_never_varies_gets_an_interval():
    row = accuracy.behavior_table(behavior_rows("helpful", [[1] * 6], [[1] * 4], [[0] * 10])).iloc[0]
    low, high = statistics.wilson_interval(10, 10)
    assert (row.refuse_accuracy_ci_low, row.refuse_accuracy_ci_high) == pytest.approx((low, high))
    assert row.balanced_accuracy_ci_low == pytest.approx(0.5 - (1 - low) / 2)
    assert row.over_refusal_ci_low == pytest.approx(low)


def test_behavior_without_a_direction():
    data = rows_of([[1, 0]], subset="r", direction="refuse")
    row = accuracy.behavior_table(data).iloc[0]
    assert row.refuse_accuracy == 0.5
    assert np.isnan([row.respond_accuracy, row.balanced_accuracy, row.over_refusal, row.chance_accuracy]).all()
    with pytest.raises(ValueError, match="refuse or respond; got none"):
        accuracy.behavior_table(rows_of([[1, 0]]))


def test_contrast_of_one_part_is_the_mean():
    """With one part the draws are those of the plain bootstrap, stretched by sqrt(C / (C - 1))."""
    sums = np.random.default_rng(3).normal(size=(20, 3, 1))
    counts = np.ones_like(sums)
    estimate, draws = bootstrap.contrast_draws(sums, counts, np.ones((1, 1)), Bootstrap(100))
    plain = bootstrap.crossed_bootstrap(sums, counts, Bootstrap(100))
    assert estimate == pytest.approx(sums.mean())
    assert draws - estimate == pytest.approx((plain - estimate) * np.sqrt(20 / 19))


def slow_measures(helpful, harmless, mixed, strata) -> list[float]:
    """Python sets; the expectation under independence from its definition."""
    items = range(len(strata))
    he, ha, hh = ({i for i in items if own[i]} for own in (helpful, harmless, mixed))
    either = he | ha
    expected = 0.0
    for k in set(strata):
        own = {i for i in items if strata[i] == k}
        expected += len(hh & own) / len(own) * len(either & own)

    def share(part, whole):
        return len(part) / len(whole) if whole else np.nan

    kept, expected = share(hh & either, either), expected / len(either) if either else np.nan
    return [kept, expected, kept - expected, share(hh & he, hh | he), share(hh & ha, hh | ha)]


@settings(max_examples=60, deadline=None)
@given(BOOLEANS)
def test_measures_equal_sets(items):
    *sets, strata = (np.array(column) for column in zip(*items, strict=True))
    strata = np.unique(strata, return_inverse=True)[1]
    estimates, pulls = transfer.measure_sets(*[own[None] for own in sets], strata)
    assert estimates[0] == pytest.approx(np.array(slow_measures(*sets, strata)), nan_ok=True)
    for k in range(strata.max() + 1):
        means = pulls[0, strata == k].mean(0)
        assert means[np.isfinite(means)] == pytest.approx(0, abs=1e-9)


def test_expectation_is_the_mean_over_shuffled_models():
    """Dealing the mixed model's successes anew inside strata, in all orders, gives exactly the expectation."""
    helpful, harmless = np.array([[1, 0, 1, 0, 1, 1], [0, 0, 1, 0, 0, 1]], bool)
    strata = np.array([0, 0, 0, 0, 1, 1])
    mixed = np.array([1, 1, 0, 0, 1, 0], bool)
    found = [
        slow_measures(helpful, harmless, [*a, *b], strata)[0]
        for a in itertools.permutations(mixed[:4])
        for b in itertools.permutations(mixed[4:])
    ]
    estimates, _ = transfer.measure_sets(helpful[None], harmless[None], mixed[None], strata)
    assert estimates[0, 1] == pytest.approx(np.mean(found))


def test_pulls_are_derivatives():
    """Doubling an item's weight slightly, with the stratum's total kept, moves each measure by its pull."""
    generator = np.random.default_rng(4)
    sets, strata = generator.random((3, 1, 30)) < 0.6, np.repeat([0, 1], 15)
    _, pulls = transfer.measure_sets(*sets, strata)
    copies, copied = 400, 40  # the item appears 440 times among 400 copies of the others

    def measured(weights):
        order = np.repeat(np.arange(30), weights)
        return np.array(slow_measures(*sets[:, 0, order], strata[order]))

    base = np.full(30, copies)
    for item in (0, 7, 20):
        weights = base.copy()
        weights[item] += copied
        weights[item + 1 if item % 15 < 14 else item - 1] -= copied
        other = item + 1
        moved = (measured(weights) - measured(base)) * copies / copied
        assert moved == pytest.approx(pulls[0, item] - pulls[0, other], abs=0.004)


def three_models(n_seeds=3, n_items=60, seed=5, base="a") -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    easy = generator.random((2, n_items // 2))
    return pd.concat(
        [
            rows_of(generator.random((n_seeds, n_items // 2)) < easy[k], name, subset, base=base)
            for name in OBJECTIVES
            for k, subset in enumerate(("x", "y"))
        ]
    )


def every_pairing(data: pd.DataFrame) -> pd.DataFrame:
    """Measure every combination of seeds of the three models of a base model, one by one."""
    rows = []
    for _, own in data.groupby("base_model"):
        right = own.assign(right=own.margin > 0).pivot(
            index=["subset", "item_id"], columns=["objective", "seed"], values="right"
        )
        strata = pd.factorize(right.index.get_level_values("subset"))[0]
        seeds = sorted(own.seed.unique())
        for chosen in itertools.product(seeds, repeat=3):
            sets = [right[name, seed].to_numpy(bool)[None] for name, seed in zip(OBJECTIVES, chosen, strict=True)]
            values = transfer.measure_sets(*sets, strata)[0][0]
            rows.append(dict(zip(transfer.MEASURES, values, strict=True)) | {"is_same_seed": len(set(chosen)) == 1})
    return pd.DataFrame(rows)


def test_transferability_table_averages_pairings_and_base_models():
    data = pd.concat([three_models(), three_models(seed=6, base="b")])
    table = transfer.transferability_table(data, bootstrap=Bootstrap(300)).set_index("pairings")
    pairs = every_pairing(data)
    for name in transfer.MEASURES:
        assert table.loc["all", name] == pytest.approx(pairs[name].mean())
        assert table.loc["same seed", name] == pytest.approx(pairs[pairs.is_same_seed][name].mean())
        assert table.loc["all", f"{name}_ci_low"] < table.loc["all", name] < table.loc["all", f"{name}_ci_high"]
    assert table.n_pairings.to_dict() == {"all": 54, "same seed": 6}
    assert (table.n_seeds == 6).all()


def test_transferability_refuses_incomplete_tables():
    data = three_models(n_seeds=1)
    with pytest.raises(ValueError, match="on the same items"):
        transfer.transferability_table(data.iloc[1:])
    with pytest.raises(ValueError, match="the same seeds for"):
        transfer.transferability_table(data[data.objective != "harmless"])
    with pytest.raises(ValueError, match="got repeats"):
        transfer.transferability_table(pd.concat([data, data[:1]]))


def test_nothing_right_is_unknown_and_harms_no_other_measure():
    data = three_models(n_seeds=1)
    data.loc[data.objective == "helpful", "margin"] = -1
    data.loc[data.objective == "helpful-harmless", "margin"] = -1
    row = transfer.transferability_table(data, bootstrap=Bootstrap(50)).iloc[0]
    assert np.isnan(row.jaccard_helpful)
    assert (row.transferability, row.jaccard_harmless) == (0, 0)
