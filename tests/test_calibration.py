"""Calibration, score shifts, length and style bias: by hand, and against scipy and simulation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tension_utils.analysis import margins as calibration
from tension_utils.analysis import margins as response_bias
from tension_utils.config import MATCHED_ARM, MIXED, OBJECTIVES
from tension_utils.statistics import Bootstrap


def rng():
    return np.random.default_rng(0)


def margin_rows(margins, objective="helpful", benchmark="hh-rlhf", **columns) -> pd.DataFrame:
    """Build evaluation rows from margins (seeds, items)."""
    margins = np.atleast_2d(np.asarray(margins, float))
    n_seeds, n_items = margins.shape
    names = [f"i{item}" for item in range(n_items)] * n_seeds
    table = {
        "base_model": "a",
        "objective": objective,
        "seed": np.repeat(np.arange(n_seeds), n_items),
        "benchmark": benchmark,
        "subset": "all",
        "item_id": names,
        "cluster": names,
        "group": "helpful",
        "margin": margins.ravel().astype(np.float32),
        "credit": np.where(margins == 0, 0.5, margins > 0).ravel(),
        "n_chosen": 1,
        "n_rejected": 1,
        "chosen_reward": margins.ravel() + 1,
    }
    return pd.DataFrame(table | columns)


def test_standardized_margins_by_hand():
    """Reference margins -1, 1, 3: standard deviation 2. The other benchmark is divided by the same."""
    data = pd.concat([margin_rows([-1, 1, 3]), margin_rows([10], benchmark="other")])
    table = calibration.standardized_margins(data)
    assert table.standardized_margin.to_list() == [-0.5, 0.5, 1.5, 5.0]
    assert (table.margin_std == 2).all()
    own = calibration.standardized_margins(data, reference=None)
    assert own.margin_std.iloc[0] == pytest.approx(np.std([-1, 1, 3, 10], ddof=1))
    with pytest.raises(ValueError, match="margins that differ"):
        calibration.standardized_margins(margin_rows([1, 1]))
    with pytest.raises(ValueError, match="one chosen and one rejected"):
        calibration.standardized_margins(margin_rows([1, 2], n_rejected=3))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=3, max_size=9).filter(lambda x: len(set(x)) > 1), st.floats(0.1, 10))
def test_standardized_margins_ignore_temperature(margins, scale):
    one = calibration.standardized_margins(margin_rows(margins)).standardized_margin
    other = calibration.standardized_margins(margin_rows(np.array(margins) * scale)).standardized_margin
    assert one.to_numpy() == pytest.approx(other.to_numpy(), rel=1e-5)


def test_reliability_by_hand():
    """Margins +-log 4 predict .8, +-log 9 predict .9; half and three quarters of them are right; a tie is at .5."""
    data = margin_rows(np.r_[np.log(4) * np.array([1, -1]), np.log(9) * np.array([1, 1, -1, 1]), 0] * 1.0001)
    table = calibration.reliability_table(data, n_bins=5, bootstrap=Bootstrap(200))
    assert table.bin.to_list() == [0, 3, 4]
    assert table.predicted.to_list() == pytest.approx([0.5, 0.8, 0.9], abs=1e-4)
    assert table.accuracy.to_list() == [0.5, 0.5, 0.75]
    assert table.n_pairs.to_list() == [1, 2, 4]
    assert table.bin_low.to_list() == pytest.approx([0.5, 0.8, 0.9])
    assert (table.ci_low < table.accuracy).all()  # also for the single pair: Wilson's
    errors = calibration.calibration_errors(data, n_bins=5, bootstrap=Bootstrap(200)).iloc[0]
    assert errors.ece == pytest.approx((0 + 2 * 0.3 + 4 * 0.15) / 7, abs=1e-4)
    assert errors.overconfidence == pytest.approx((2 * 0.3 + 4 * 0.15) / 7, abs=1e-4)


def test_order_of_the_pair_does_not_matter_to_the_prediction():
    """Swapping the responses of a pair flips margin and label; the preferred side and its chance stay."""
    margins = np.random.default_rng(1).normal(size=30)
    rows = calibration.preferences(margin_rows(margins))
    assert rows.predicted.to_numpy() == pytest.approx(np.maximum(1 / (1 + np.exp(-margins)), 1 / (1 + np.exp(margins))))
    assert calibration.preferences(margin_rows(-margins)).predicted.to_list() == pytest.approx(rows.predicted.to_list())


def test_calibrated_model_has_the_error_of_chance_and_an_overconfident_one_more():
    generator = np.random.default_rng(2)
    size = np.abs(generator.normal(size=4000)) * 1.5
    agrees = generator.random(4000) < 1 / (1 + np.exp(-size))
    good = calibration.calibration_errors(margin_rows(np.where(agrees, size, -size)), bootstrap=Bootstrap(500)).iloc[0]
    bad = calibration.calibration_errors(margin_rows(np.where(agrees, size, -size) * 3), bootstrap=Bootstrap(500)).iloc[
        0
    ]
    assert good.ece == pytest.approx(good.ece_chance, abs=0.008)
    assert good.overconfidence_ci_low < 0 < good.overconfidence_ci_high
    assert bad.ece_ci_low > 5 * bad.ece_chance
    assert bad.overconfidence == pytest.approx(bad.ece)  # overconfident in every bin


def test_score_shifts_by_hand():
    """Margins of the mixed model are half the helpful ones, of which two are right in both; standardized: no shift."""
    helpful, harmless = np.array([-2.0, 2.0, 6.0]), np.array([2.0, -2.0, 2.0])
    parts = zip(OBJECTIVES, (helpful, harmless, helpful / 2), strict=True)
    data = pd.concat([margin_rows(margins, name) for name, margins in parts])
    shifts = calibration.score_shifts(data)
    own = shifts[shifts.against == "helpful"]
    assert own.margin_shift.to_list() == pytest.approx([0, 0, 0])
    assert own.reward_shift.to_list() == [1, -1, -3]
    assert own.is_both_right.to_list() == [False, True, True]
    assert shifts[shifts.against == "harmless"].is_both_right.to_list() == [False, False, True]
    table = calibration.shift_table(shifts, [], bootstrap=Bootstrap(200)).set_index(["against", "version"])
    assert table.loc[("helpful", "as published"), "shift"] == -2
    assert table.loc[("helpful", "as published"), "shift_std"] == pytest.approx(np.sqrt(2))
    assert table.loc[("helpful", "as published"), "n_items"] == 2
    assert table.loc[("helpful", "under control"), ["shift", "ci_low", "ci_high"]].to_list() == pytest.approx([0, 0, 0])
    assert table.loc[("harmless", "under control"), "n_items"] == 3


def test_length_bias_by_hand():
    """Chosen longer: right, right, wrong; shorter: right, wrong; equal: right. Bias 2/3 - 1/2."""
    data = margin_rows([1, 2, -1, 1, -2, 3], chosen_length=[5, 9, 4, 1, 2, 4], rejected_length=[1, 3, 2, 3, 4, 4])
    row = response_bias.length_bias_table(data, bootstrap=Bootstrap(500)).iloc[0]
    assert (row.accuracy_longer, row.accuracy_shorter) == pytest.approx((2 / 3, 1 / 2))
    assert row.length_bias == pytest.approx(1 / 6)
    assert row.ci_low < 1 / 6 < row.ci_high
    assert (row.n_longer, row.n_shorter, row.n_equal, row.n_clusters, row.n_seeds) == (3, 2, 1, 6, 1)
    expected = stats.spearmanr(data.margin, np.log(data.chosen_length / data.rejected_length)).statistic
    assert row.rank_correlation == pytest.approx(expected)
    with pytest.raises(ValueError, match="above 0"):
        response_bias.length_bias_table(data.assign(chosen_length=0))


def test_length_bias_of_one_kind_and_of_no_spread():
    data = margin_rows([1, 2, -1], chosen_length=2, rejected_length=1)
    row = response_bias.length_bias_table(data, []).iloc[0]
    assert row.accuracy_longer == pytest.approx(2 / 3)
    assert np.isnan([row.accuracy_shorter, row.length_bias, row.ci_low, row.rank_correlation]).all()
    assert (row.n_longer, row.n_shorter, row.n_equal) == (3, 0, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=4, max_size=20))
def test_rank_correlation_values_average_to_spearman(pairs):
    first, second = np.array(pairs, float).T
    values = response_bias.rank_correlation_values(first, second)
    if np.ptp(first) and np.ptp(second):
        assert values.mean() == pytest.approx(stats.spearmanr(first, second).statistic)
    else:
        assert np.isnan(values).all()


def test_rank_correlation_values_equal_the_jackknife():
    """Leaving an item out moves the correlation by its value's distance from the mean, over n - 1."""
    first, noise = np.random.default_rng(3).normal(size=(2, 400))
    second = first + noise
    values = response_bias.rank_correlation_values(first, second)
    whole = stats.spearmanr(first, second).statistic
    for item in range(0, 400, 40):
        left = stats.spearmanr(np.delete(first, item), np.delete(second, item)).statistic
        assert 399 * (whole - left) == pytest.approx(values[item] - whole, abs=0.03)


def test_style_bias_by_hand_and_paired_by_prompt():
    """Easy and hard pairs of a prompt always agree but for one prompt in 20: the gap's interval is short."""
    right = np.tile([1.0, -1.0], 10)
    hard = right.copy()
    hard[0] = -1
    data = pd.concat([margin_rows(right, style="easy"), margin_rows(hard, style="hard")])
    data["item_id"] += data["style"]
    row = response_bias.style_bias_table(data).iloc[0]
    assert (row.accuracy_easy, row.accuracy_hard) == (0.5, 0.45)
    assert row.style_bias == pytest.approx(0.05)
    assert -0.01 <= row.ci_low <= 0.05 < row.ci_high < 0.2
    assert (row.n_easy, row.n_hard, row.n_clusters) == (20, 20, 20)
    with pytest.raises(ValueError, match="style easy or hard; got none"):
        response_bias.style_bias_table(data.assign(style="none"))


def conflicting_rows() -> pd.DataFrame:
    """Two tests of four pairs, on which the single models disagree on the first three; the mixed one leans helpful."""
    margins = {"helpful": [2, 2, -2, 1, 2, 2, -2, 1], "harmless": [-1, -1, 1, 1, -1, -1, 1, 1]}
    margins |= {MIXED: [1, 1, 0, -1, 1, 1, -1, -1], MATCHED_ARM: [1, 1, -1, 1, -1, -1, 1, 1]}
    groups = ["helpful"] * 4 + ["harmless"] * 4
    return pd.concat([margin_rows(values, objective=name, group=groups) for name, values in margins.items()])


def test_conflicting_pairs_by_hand():
    table = calibration.conflicting_margins(conflicting_rows())
    assert table.model.drop_duplicates().tolist() == [MIXED, MATCHED_ARM, calibration.AVERAGE]
    assert set(table.item_id) == {"i0", "i1", "i2", "i4", "i5", "i6"}, "where the single models agree is no conflict"
    mixed = table[table.model == MIXED].set_index("item_id")
    assert mixed.with_own[["i0", "i1", "i2"]].tolist() == [1, 1, 0.5], "a tie is half with either"
    assert mixed.with_own[["i4", "i5", "i6"]].tolist() == [0, 0, 0] and (mixed.margin[["i4", "i5", "i6"]] < 0).all()
    spread = conflicting_rows().query("objective == @MIXED").margin.std(ddof=1)
    assert mixed.margin["i0"] == pytest.approx(1 / spread)
    sides = calibration.conflict_sides(table, Bootstrap(400)).set_index(["model", "test"])
    share = sides.share_with_own.unstack("test")
    assert share.loc[MIXED, ["helpful", "harmless", calibration.BOTH_TESTS]].tolist() == pytest.approx(
        [5 / 6, 0, 5 / 12]
    )
    assert share.loc[MATCHED_ARM].tolist() == [1, 1, 1], "a model that tells the tests apart"
    assert sides.n_items.unstack("test").loc[MIXED].tolist() == [6, 3, 3] and set(sides.n_seeds) == {1}
    bounds = sides.loc[(MIXED, "helpful")]
    assert 0 <= bounds.ci_low < 5 / 6 < bounds.ci_high <= 1


def test_no_conflict_without_both_single_models_or_where_they_agree():
    rows = conflicting_rows()
    assert calibration.conflicting_margins(rows[rows.objective != "harmless"]).empty
    alike = rows[rows.objective == "helpful"].assign(objective="harmless")
    agreed = calibration.conflicting_margins(pd.concat([rows[rows.objective != "harmless"], alike]))
    assert agreed.empty and calibration.conflict_sides(agreed).empty


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([-1, 1]), min_size=8, max_size=8), st.sampled_from([-1, 1]))
def test_a_model_that_always_leans_to_one_side_has_half_of_both_tests(preferred, lean):
    """Whatever the pairs: its share on one test is one minus that on the other, where both hold as many conflicts."""
    margins = {"helpful": np.array(preferred) * 2.0, "harmless": -np.array(preferred)}
    margins[MIXED] = lean * margins["helpful"]
    groups = ["helpful"] * 4 + ["harmless"] * 4
    if len(set(preferred)) == 1:
        return  # no spread of margins, no unit
    rows = pd.concat([margin_rows(values, objective=name, group=groups) for name, values in margins.items()])
    sides = calibration.conflict_sides(calibration.conflicting_margins(rows), Bootstrap(50)).set_index(
        ["model", "test"]
    )
    assert sides.share_with_own[MIXED, calibration.BOTH_TESTS] == pytest.approx(0.5)
