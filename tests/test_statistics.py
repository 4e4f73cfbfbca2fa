"""Statistics and effects: hand-computed cases, slow independent versions, properties, coverage."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tension_utils import statistics
from tension_utils import statistics as bootstrap
from tension_utils import statistics as comparisons
from tension_utils import statistics as effects
from tension_utils.data import chance_credit
from tension_utils.statistics import Bootstrap, complete_models

RUN = {"objective": "helpful", "base_model": "toy-llama", "benchmark": "toy", "subset": "all"}


def rng():
    """Return the generator every test starts from."""
    return np.random.default_rng(0)


def evaluation_rows(credits, margins=None, objective="helpful", cluster_size=1) -> pd.DataFrame:
    """Build evaluation rows from credits (seeds, items)."""
    credits = np.asarray(credits, float)
    margins = credits - 0.5 if margins is None else np.asarray(margins, float)
    rows = [
        RUN
        | {
            "objective": objective,
            "seed": seed,
            "item_id": f"i{item}",
            "cluster": f"c{item // cluster_size}",
            "group": "helpful",
            "direction": "none",
            "margin": np.float32(margins[seed, item]),
            "credit": credits[seed, item],
            "chance": 0.5,
            "n_chosen": 1,
            "n_rejected": 1,
            "n_tokens": 9,
            "is_truncated": item == 0,
        }
        for seed in range(credits.shape[0])
        for item in range(credits.shape[1])
    ]
    return pd.DataFrame(rows)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4))
def test_chance_credit_counts_the_orders_that_are_right(n_chosen, n_rejected):
    labels = [True] * n_chosen + [False] * n_rejected
    orders = list(itertools.permutations(range(len(labels)))) if len(labels) <= 6 else []
    right = sum(all(labels[i] for i in order[:n_chosen]) for order in orders)
    if orders:
        assert chance_credit(n_chosen, n_rejected) == pytest.approx(right / len(orders))


def test_chance_credit_refuses_an_empty_side():
    with pytest.raises(ValueError, match="at least one chosen"):
        chance_credit([1, 0], [1, 1])


@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_wilson_interval_solves_its_equation(n, data):
    k = data.draw(st.integers(0, n))
    z, p = 1.959963984540054, k / n
    center, half = (p + z * z / (2 * n)), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [max(0, (center - half) / (1 + z * z / n)), min(1, (center + half) / (1 + z * z / n))]
    assert statistics.wilson_interval(k, n) == pytest.approx(expected, abs=1e-9)


def test_resampled_counts_draw_n_units_with_equal_chance():
    counts = bootstrap.resampled_counts(5, 4000, rng())
    assert (counts.sum(1) == 5).all()
    assert counts.mean(0) == pytest.approx(np.ones(5), abs=0.05)
    assert counts.var(0) == pytest.approx(np.full(5, 0.8), abs=0.08)  # multinomial: 1 - 1/n


def test_cluster_bootstrap_equals_explicit_resampling_of_rows():
    """One seed: the weights must give exactly the mean of the rows of the drawn clusters."""
    sizes, generator = [1, 3, 2], np.random.default_rng(4)
    values = [generator.normal(size=size) for size in sizes]
    sums = np.array([v.sum() for v in values])[:, None, None]
    fast = bootstrap.crossed_bootstrap(sums, np.array(sizes, float)[:, None, None], Bootstrap(50))[:, 0]
    draws = rng().integers(0, 3, size=(50, 3))
    slow = [np.concatenate([values[c] for c in row]).mean() for row in draws]
    assert fast == pytest.approx(np.array(slow))


def test_seeds_without_item_noise_give_the_t_interval():
    """Three seeds at .6, .7, .8 on identical items: mean .7, standard error .1 / sqrt 3, t(2) quantile 4.303."""
    sums = np.tile(np.array([0.6, 0.7, 0.8])[None, :, None], (40, 1, 1))
    low, high = np.quantile(
        bootstrap.crossed_bootstrap(sums, np.ones_like(sums), Bootstrap(40_000))[:, 0], [0.025, 0.975]
    )
    assert (low, high) == pytest.approx((0.7 - 0.2484, 0.7 + 0.2484), abs=0.02)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0, 0], [1, 1]], 0.0),  # only items differ
        ([[0, 1], [0, 1]], np.inf),  # only seeds differ
        ([[0, 1], [1, 0]], 0.0),  # only noise: seed means agree
        ([[0, 2], [0, 0]], 1.0),  # deviations -.5, 1.5, -.5, -.5: 2 (.5^2 + .5^2) over 4 x .5^2
        ([[0], [1]], 0.0),  # one seed
    ],
)
def test_seed_ratio_by_hand(values, expected):
    sums = np.array(values, float)[..., None]
    assert bootstrap.seed_ratio(sums, np.ones_like(sums)) == pytest.approx([expected])


def test_a_prior_moves_the_variance_and_adds_freedom():
    """The spread that seeds add is that of the moderated ratio (2 x 5 + 2 x F) / 4, whatever the seeds did; t(4)."""
    generator = np.random.default_rng(3)
    sums = generator.normal(size=(50, 3, 1)) + np.array([-0.3, 0.0, 0.3])[None, :, None]
    one, (ratio,) = np.ones_like(sums), bootstrap.seed_ratio(sums, np.ones_like(sums))
    alone, moderated = (
        bootstrap.crossed_bootstrap(sums, one, Bootstrap(60_000), prior)[:, 0]
        for prior in (bootstrap.NO_PRIOR, bootstrap.SeedPrior(5.0, 2))
    )
    by_seed, noise = sums.mean(0)[:, 0], sums - sums.mean(0) - sums.mean(1, keepdims=True) + sums.mean()
    assert ratio == pytest.approx(50 * by_seed.var(ddof=1) / ((noise**2).sum() / (49 * 2)))
    unit = (noise**2).sum() / (49 * 2) / (50 * 3)  # variance of the mean by noise alone
    items = sums.mean(1).var() / 50
    level = (2 * 5 + 2 * ratio) / 4
    scale = np.sqrt(np.sqrt(1 - 1 / level) * level * unit)
    draws = np.random.default_rng(4)
    expected = np.sqrt(items) * draws.normal(size=60_000) + scale * draws.standard_t(4, 60_000)
    quantiles = [0.025, 0.25, 0.75, 0.975]
    assert np.quantile(moderated - sums.mean(), quantiles) == pytest.approx(np.quantile(expected, quantiles), rel=0.06)
    assert np.ptp(np.quantile(moderated, [0.025, 0.975])) < np.ptp(np.quantile(alone, [0.025, 0.975]))


def test_peers_of_one_seed_or_without_noise_tell_nothing():
    assert bootstrap.seed_prior([np.array([2.0])] * 3, 1) == bootstrap.seed_prior([np.array([2.0])], 3)
    prior = bootstrap.seed_prior([np.array([np.inf, 2.0]), np.array([np.inf, 4.0])], 4)
    assert prior.ratio.tolist() == [1.0, 3.0] and prior.freedom == 3


def test_columns_are_paired():
    sums = np.random.default_rng(1).normal(size=(30, 3, 1))
    both = np.concatenate([sums, sums + 1, 2 * sums], axis=2)
    draws = bootstrap.crossed_bootstrap(both, np.ones_like(both), Bootstrap(100))
    assert draws[:, 1] - draws[:, 0] == pytest.approx(np.ones(100))
    assert draws[:, 2] == pytest.approx(2 * draws[:, 0])


def test_accuracy_table_by_hand():
    table = statistics.accuracy_table(evaluation_rows([[1, 0, 1, 0.5], [1, 0, 0, 0.5]]), ["objective"], Bootstrap(500))
    row = table.iloc[0]
    assert len(table) == 1
    assert row.accuracy == 0.5
    assert (row.n_items, row.n_clusters, row.n_seeds) == (4, 4, 2)
    assert row.chance_accuracy == 0.5
    assert row.tie_rate == 0.25
    assert row.truncated_share == 0.25
    assert row.seed_std == pytest.approx(0.25 / math.sqrt(2))  # means .625 and .375
    assert 0 <= row.ci_low < 0.5 < row.ci_high <= 1


def test_accuracy_table_separates_conditions_and_repeats_with_its_seed():
    data = pd.concat(
        [
            evaluation_rows(np.ones((2, 8)), objective="helpful"),
            evaluation_rows(np.tile([1.0, 0.0], (2, 4)), objective="harmless", cluster_size=2),
        ]
    )
    first, second = (statistics.accuracy_table(data, ["objective"]) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    harmless, helpful = (row for _, row in first.iterrows())
    assert (harmless.objective, harmless.n_clusters) == ("harmless", 4)
    assert (harmless.accuracy, helpful.accuracy) == (0.5, 1.0)
    assert (helpful.ci_low, helpful.ci_high) == pytest.approx(statistics.wilson_interval(8, 8))


def test_clusters_do_not_matter_to_the_estimate_and_row_order_not_to_its_interval():
    generator = np.random.default_rng(3)
    data = evaluation_rows(generator.integers(0, 2, (3, 60)), cluster_size=3)
    wide = statistics.accuracy_table(data, []).iloc[0]
    narrow = statistics.accuracy_table(data.assign(cluster=data.item_id), []).iloc[0]
    shuffled = statistics.accuracy_table(data.sample(frac=1, random_state=0), []).iloc[0]
    assert wide.accuracy == pytest.approx(narrow.accuracy)
    assert (wide.n_clusters, narrow.n_clusters, wide.n_items) == (20, 60, 60)
    pd.testing.assert_series_equal(wide, shuffled)  # the interval, too: one effect has one on every page
    for table in (data, data.sample(frac=1, random_state=1)):
        sums, counts, _ = statistics.crossed_parts(table, "credit", ["objective"])
        assert (sums[..., 0] == data.groupby(["cluster", "seed"]).credit.sum().unstack()).all(axis=None)
        assert (counts == 3).all()


def test_correlated_clusters_widen_the_interval():
    credits = np.repeat(np.random.default_rng(5).integers(0, 2, 40), 5)[None]
    data = evaluation_rows(credits, cluster_size=5)
    wide = statistics.accuracy_table(data, []).iloc[0]
    narrow = statistics.accuracy_table(data.assign(cluster=data.item_id), []).iloc[0]
    assert wide.ci_high - wide.ci_low > 1.8 * (narrow.ci_high - narrow.ci_low)  # sqrt 5 = 2.2 in theory


def test_errors_name_what_is_missing():
    data = evaluation_rows([[1, 0]])
    with pytest.raises(ValueError, match="missing credit"):
        statistics.accuracy_table(data.drop(columns="credit"), [])
    with pytest.raises(ValueError, match="empty table"):
        statistics.accuracy_table(data[:0], [])
    with pytest.raises(ValueError, match="expected finite credit"):
        statistics.accuracy_table(data.assign(credit=[1, np.nan]), [])


def test_pair_differences_by_hand():
    data = pd.concat(
        [
            evaluation_rows([[1, 0, 1]], objective="helpful"),
            evaluation_rows([[0, 0, 0.5]], objective="harmless").sample(frac=1, random_state=1),
        ]
    )
    differences = comparisons.pair_differences(data, "objective", ("helpful", "harmless")).set_index("item_id")
    assert differences.credit.to_dict() == {"i0": 1.0, "i1": 0.0, "i2": 0.5}
    with pytest.raises(ValueError, match="1 have no partner"):
        comparisons.pair_differences(data.iloc[1:], "objective", ("helpful", "harmless"))
    with pytest.raises(ValueError, match="objective = 'mixed'; got none"):
        comparisons.pair_differences(data, "objective", ("helpful", "mixed"))
    with pytest.raises(ValueError, match="got repeats"):
        comparisons.pair_differences(pd.concat([data, data[:1]]), "objective", ("helpful", "harmless"))


def test_an_interval_is_the_same_whatever_else_a_table_holds():
    """One seed, so that conditions tell each other nothing."""
    credits = np.random.default_rng(2).random((1, 30))
    parts = [evaluation_rows(credits + shift).assign(subset=f"s{shift}") for shift in (0, 1, 2)]
    together = statistics.mean_table(pd.concat(parts), ["credit"], ["subset"]).set_index("subset")
    alone = statistics.mean_table(parts[2], ["credit"], ["subset"]).set_index("subset")
    assert together.loc["s2"].to_dict() == alone.loc["s2"].to_dict()
    assert together.credit_ci_low["s1"] - together.credit_ci_low["s0"] == pytest.approx(1)
    bootstrap = statistics.Bootstrap(50)
    again = [statistics.mean_table(parts[0], ["credit"], [], bootstrap).credit_ci_low[0] for _ in range(2)]
    assert again[0] == again[1], "an interval leaves its source as it was"


def test_the_p_value_of_a_difference_agrees_with_its_interval():
    """Zero is a bound of the interval whose level is 1 - p."""
    difference = np.random.default_rng(1).normal(0.2, 1.0, size=40)
    data = evaluation_rows([list(difference)]).assign(condition="first")
    data = pd.concat([data, data.assign(condition="second", credit=0.0)])
    row = comparisons.paired_bootstrap(data, "condition", ("first", "second"), bootstrap=Bootstrap(4000)).iloc[0]
    sums, counts = statistics.crossed_sums(
        comparisons.pair_differences(data, "condition", ("first", "second")), ["credit"]
    )
    draws = bootstrap.crossed_bootstrap(sums, counts, Bootstrap(4000))
    assert np.quantile(draws, row.p_value / 2) == pytest.approx(0, abs=0.01) and 0.05 < row.p_value < 0.8


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_benjamini_hochberg_equals_the_definition(p_values):
    n = len(p_values)
    ranks = sorted(p_values)
    expected = [min(min(1, n * ranks[k] / (k + 1)) for k in range(n) if ranks[k] >= p) for p in p_values]
    assert comparisons.benjamini_hochberg(p_values) == pytest.approx(np.array(expected))


def test_intervals_of_few_different_seeds_stay_within_what_accuracies_allow():
    """Three seeds that disagree give t intervals that would pass one."""
    rows = [
        {"objective": o, "seed": seed, "benchmark": "b", "subset": "s", "item_id": f"i{i}", "cluster": f"c{i}"}
        | {"credit": credit, "margin": 2 * credit - 1}
        for o, credits in (("first", (1.0, 1.0, 0.4)), ("second", (0.0, 0.0, 0.4)))
        for seed, credit in enumerate(credits)
        for i in range(8)
    ]
    table = pd.DataFrame(rows)
    wide = statistics.mean_table(comparisons.pair_differences(table, "objective", ("first", "second")), ["credit"], [])
    assert wide.credit_ci_high[0] > 1
    found = comparisons.paired_bootstrap(table, "objective", ("first", "second"))
    assert found.ci_high[0] == 1 and found.ci_low[0] >= -1
    flips = comparisons.compare_evaluations(
        table[table.objective == "first"], table[table.objective == "second"].assign(objective="first")
    )
    assert flips.flip_rate_ci_high[0] <= 1


def test_paired_bootstrap_finds_a_difference_and_no_difference():
    generator = np.random.default_rng(6)
    base = generator.random((3, 80))
    better = (base + 0.3 * generator.random((3, 80)) > 0.5).astype(float)
    worse = (base > 0.5).astype(float)
    real = pd.concat([evaluation_rows(better, objective="helpful"), evaluation_rows(worse, objective="harmless")])
    same = real.assign(subset="same", credit=np.tile(worse.ravel(), 2))
    table = comparisons.paired_bootstrap(pd.concat([real, same]), "objective", ("helpful", "harmless"), ["subset"])
    found, none = (row for _, row in table.iterrows())
    assert found.difference == pytest.approx((better - worse).mean())
    assert found.ci_low > 0
    assert found.p_value < 0.001
    assert (none.difference, none.ci_low, none.ci_high, none.p_value) == (0, 0, 0, 1)
    assert table.p_adjusted.tolist() == comparisons.benjamini_hochberg(table.p_value).tolist()


def ablation_rows(evaluation: pd.DataFrame, name: str, draw: int, drop, fraction: float = 0.1) -> pd.DataFrame:
    """Build ablation rows whose credit and margin are the intact ones minus ``drop``."""
    columns = ["objective", "base_model", "seed", "benchmark", "subset", "item_id", "chance"]
    return evaluation[columns].assign(
        set=name,
        fraction=fraction,
        ablation_kind="zero",
        draw=draw,
        n_neurons=4,
        credit=evaluation.credit - drop,
        margin=evaluation.margin.astype(float) - drop,
    )


def test_ablation_effects_by_hand():
    """Intact margins +-.5; the set takes .4, random draws .1 and .3 (mean .2): effect -.2 in credit."""
    intact = evaluation_rows(np.tile([1.0, 0.0], (2, 10)))
    ablation = pd.concat(
        [
            ablation_rows(intact, "top", 0, 0.4),
            ablation_rows(intact, "random", 0, 0.1),
            ablation_rows(intact, "random", 1, 0.3),
        ]
    )
    by = ["objective", "set", "fraction", "ablation_kind"]
    table = effects.ablation_effects(ablation, intact, by, bootstrap=Bootstrap(200)).set_index("metric")
    accuracy, margin = table.loc["accuracy"], table.loc["margin"]
    found = [accuracy.change, accuracy.control, accuracy.effect, accuracy.ci_low, accuracy.ci_high]
    assert found == pytest.approx([-0.4, -0.2, -0.2, -0.2, -0.2])
    assert margin.effect == pytest.approx(-0.2 / np.std([0.5, -0.5] * 10, ddof=1))
    assert (accuracy.control_low, accuracy.control_high) == pytest.approx((-0.295, -0.105))
    assert accuracy.p_value == pytest.approx(2 / 3)  # below both draws: 2 x 1 / (1 + 2)
    assert (accuracy.n_draws, accuracy.n_items, accuracy.n_seeds) == (2, 20, 2)


def test_ablation_effects_keep_settings_apart():
    intact = evaluation_rows(np.tile([1.0, 0.0], (2, 10)))
    ablation = pd.concat(
        [
            ablation_rows(intact, name, draw, drop * fraction, fraction)
            for fraction in (0.1, 0.2)
            for name, draw, drop in [("top", 0, 2.0), ("random", 0, 1.0), ("random", 1, 1.0)]
        ]
    )
    by = ["set", "fraction", "ablation_kind"]
    table = effects.ablation_effects(ablation, intact, by, bootstrap=Bootstrap(100))
    accuracy = table[table.metric == "accuracy"]
    assert accuracy.fraction.tolist() == [0.1, 0.2]
    assert accuracy.effect.tolist() == pytest.approx([-0.1, -0.2])
    assert accuracy.control.tolist() == pytest.approx([-0.1, -0.2])


def test_ablation_effects_refuse_unmatched_rows():
    intact = evaluation_rows(np.tile([1.0, 0.0], (1, 4)))
    top, random = ablation_rows(intact, "top", 0, 0.4), ablation_rows(intact, "random", 0, 0.1)
    by = ["set", "fraction", "ablation_kind"]
    with pytest.raises(ValueError, match="set = 'random'; got top"):
        effects.ablation_effects(top, intact, by)
    with pytest.raises(ValueError, match="random draws for every set"):
        effects.ablation_effects(pd.concat([top, random[1:]]), intact, by)
    with pytest.raises(ValueError, match="intact row in evaluation"):
        effects.ablation_effects(pd.concat([top, random]), intact[1:], by)
    with pytest.raises(ValueError, match="expected `by` to hold set, fraction"):
        effects.ablation_effects(pd.concat([top, random]), intact, ["set"])


def test_complete_models_are_those_with_every_arm():
    rows = pd.DataFrame(
        {"base_model": "m", "objective": ["a", "b", "c", "a", "b", "a"], "seed": [0, 0, 0, 1, 1, 2], "item_id": "x"}
    )
    both = complete_models(rows, "objective", ["a", "b"])
    assert list(zip(both.objective, both.seed, strict=True)) == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert set(complete_models(rows, "objective", ["a", "b", "c"]).seed) == {0}
    assert complete_models(rows, "objective", ["a", "d"]).empty
    assert len(complete_models(rows.drop(columns="base_model"), "objective", ["a"])) == 3
