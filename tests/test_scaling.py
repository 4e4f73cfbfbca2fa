"""Tension against training pairs: hand-computed lines, slow implementations, coverage in simulated studies."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tension_utils.analysis import scaling
from tension_utils.config import MATCHED_ARM, MIXTURES
from tension_utils.statistics import Bootstrap

HELPFUL, HARMLESS = "helpful", "harmless"


def evaluation(right: dict[tuple[str, str], list[int]], seeds: tuple[int, ...] = (0,)) -> pd.DataFrame:
    """Return rows of evaluation.parquet: (arm, test) -> which items are right, in every seed."""
    rows = [
        {"objective": arm, "group": test, "seed": seed, "item_id": f"{test}-{item}", "credit": float(credit)}
        for (arm, test), credits in right.items()
        for seed in seeds
        for item, credit in enumerate(credits)
    ]
    table = pd.DataFrame(rows).assign(base_model="m", benchmark="hh-rlhf", chance=0.5)
    return table.assign(subset=table.group, cluster=table.item_id)


def costs(matched: int) -> pd.DataFrame:
    """Return an evaluation of eight items per test: the single models have 8 right, half of each has ``matched``."""
    singles = {(arm, test): [1] * 8 for arm in (HELPFUL, HARMLESS) for test in (HELPFUL, HARMLESS)}
    mixed = {(MATCHED_ARM, test): [1] * matched + [0] * (8 - matched) for test in (HELPFUL, HARMLESS)}
    return evaluation(singles | mixed)


def test_costs_and_their_line_by_hand() -> None:
    rows = scaling.cost_rows({100: costs(7), 200: costs(6), 400: costs(5)})  # 1/8, 2/8 and 3/8 are lost
    table = scaling.cost_table(rows)
    assert table.n_pairs.tolist() == [100, 200, 400]
    assert table.cost.tolist() == pytest.approx([0.125, 0.25, 0.375])
    assert (table.n_items == 16).all() and (table.ci_low < table.cost).all() and (table.cost < table.ci_high).all()
    outlook = scaling.cost_outlook(rows, target=1600).set_index("outlook")
    assert outlook.cost.tolist() == pytest.approx([0.125, 0.375, 0.625])  # per doubling; stops; two doublings more
    assert outlook.loc["as measured, per doubling", ["ci_low", "ci_high"]].tolist() == pytest.approx([0.125, 0.125])
    assert outlook.ci_low["goes on as a line"] < 0.625 < outlook.ci_high["goes on as a line"], "items are a choice"


def test_sizes_may_have_seeds_of_their_own() -> None:
    more = costs(6).assign(seed=1)
    rows = scaling.cost_rows({100: costs(7), 200: pd.concat([costs(5), more])})
    table = scaling.cost_table(rows)
    assert table.n_seeds.tolist() == [1, 2] and (table.n_items == 16).all()
    assert table.cost.tolist() == pytest.approx([0.125, 0.3125])
    assert scaling.cost_points(rows).cost.tolist() == pytest.approx([0.125, 0.375, 0.25])


def test_two_sizes_have_a_slope_without_an_interval_and_one_has_none() -> None:
    rows = scaling.cost_rows({100: costs(7), 400: costs(5)})
    outlook = scaling.cost_outlook(rows, target=400).set_index("outlook")
    assert outlook.cost["as measured, per doubling"] == pytest.approx(0.125)
    assert np.isnan(outlook.ci_low["as measured, per doubling"]) and np.isnan(outlook.ci_high["goes on as a line"])
    with pytest.raises(ValueError, match="n_pairs: expected at least two sizes, got .100.; train on more"):
        scaling.cost_outlook(rows[rows.n_pairs == 100])


def test_a_missing_arm_is_refused() -> None:
    rows = costs(7)
    with pytest.raises(ValueError, match="objective = 'helpful-harmless-matched'"):
        scaling.cost_rows({100: rows[rows.objective != MATCHED_ARM]})


def test_the_line_agrees_with_normal_equations() -> None:
    rng = np.random.default_rng(3)
    points = pd.DataFrame({"n_pairs": [100, 200, 200, 800, 1400], "cost": rng.normal(scale=0.01, size=5)})
    trend = scaling.cost_trend(points, 5000, 0.003)
    design = np.c_[np.ones(5), np.log2(points.n_pairs)]
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ points.cost
    variance = ((points.cost - design @ beta) ** 2).sum() / 3
    quantile, at = stats.t.ppf(0.975, 3), np.array([1, np.log2(5000)])
    half = quantile * np.sqrt(variance * inverse[1, 1])
    assert trend[:3] == pytest.approx((beta[1], beta[1] - half, beta[1] + half))
    half = quantile * np.sqrt(variance * at @ inverse @ at + 0.003**2)
    assert trend[3:6] == pytest.approx((at @ beta, at @ beta - half, at @ beta + half))
    assert trend.n_points == 5


@pytest.mark.parametrize("slope", [0.0, 0.02])
def test_intervals_cover_in_simulated_studies(slope: float) -> None:
    rng, n_studies, sizes = np.random.default_rng(8), 2000, [100, 200, 400, 800, 1400]
    x, hits = np.log2(sizes), np.zeros(2)
    for _ in range(n_studies):
        cost = 0.03 + slope * x + rng.normal(0, 0.01, 5) + rng.normal(0, 0.01)  # runs, and the items they share
        trend = scaling.cost_trend(pd.DataFrame({"n_pairs": sizes, "cost": cost}), scaling.STUDY_PAIRS, 0.01)
        truth = 0.03 + slope * np.log2(scaling.STUDY_PAIRS)
        hits += [trend.slope_low <= slope <= trend.slope_high, trend.line_low <= truth <= trend.line_high]
    covered = hits / n_studies
    assert 0.935 < covered[0] < 0.965 and 0.95 < covered[1] < 0.985


def sized(own: int, mixed: int) -> pd.DataFrame:
    """Return an evaluation of eight items per test, of which single and mixed models have so many right."""
    right = {(arm, test): [1] * own + [0] * (8 - own) for arm in (HELPFUL, HARMLESS) for test in (HELPFUL, HARMLESS)}
    return evaluation(right | {(MATCHED_ARM, test): [1] * mixed + [0] * (8 - mixed) for test in (HELPFUL, HARMLESS)})


def test_a_cost_is_split_by_hand() -> None:
    sizes = {100: sized(5, 4), 200: sized(7, 4), 300: sized(8, 5)}  # 300 has no half
    table = scaling.halving_table(sizes)
    assert table.n_pairs.tolist() == [200]
    row = table.iloc[0]
    assert (row.cost, row.fewer_own_pairs, row.other_pairs) == pytest.approx((3 / 8, 2 / 8, 1 / 8))
    assert row.other_pairs_ci_low < 1 / 8 < row.other_pairs_ci_high and row.n_items == 16 and row.n_seeds == 1
    single = sizes[100][sizes[100].objective != MATCHED_ARM]
    pd.testing.assert_frame_equal(scaling.halving_table(sizes | {100: single}), table)
    assert scaling.halving_table({100: single, 200: sized(7, 4).query("objective != @MATCHED_ARM")}).empty
    none = scaling.halving_table({100: sized(5, 4), 300: sized(8, 5)})
    assert none.empty and np.allclose(none.fewer_own_pairs + none.other_pairs, none.cost)


def test_a_split_agrees_with_a_slow_bootstrap() -> None:
    rng, arms = np.random.default_rng(6), (HELPFUL, HARMLESS, MATCHED_ARM)
    sizes = {
        n: evaluation({(arm, test): rng.integers(0, 2, 40).tolist() for arm in arms for test in (HELPFUL, HARMLESS)})
        for n in (50, 100)
    }
    row = scaling.halving_table(sizes, Bootstrap(4000)).iloc[0]
    parts = []
    for test in (HELPFUL, HARMLESS):
        half, mixed = (
            rows[(rows.objective == arm) & (rows.group == test)].set_index("item_id").credit
            for rows, arm in ((sizes[50], test), (sizes[100], MATCHED_ARM))
        )
        parts.append((half - mixed).to_numpy())
    draws = [np.mean([rng.choice(part, 40).mean() for part in parts]) for _ in range(4000)]
    assert row.other_pairs == pytest.approx(np.mean([part.mean() for part in parts]))
    ends = [row.other_pairs_ci_low, row.other_pairs_ci_high]
    assert ends == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)


def mixtures() -> pd.DataFrame:
    """Return four items per test of every mixture; more helpful pairs, more helpful items right."""
    share = dict(zip(MIXTURES, (4, 0, 2, 3, 1), strict=True))
    right = {(arm, HELPFUL): [1] * n + [0] * (4 - n) for arm, n in share.items()}
    right |= {(arm, HARMLESS): [1] * (4 - n) + [0] * n for arm, n in share.items()}
    right[MIXTURES[3], HARMLESS] = [1, 1, 0, 0]  # three to one loses less than a quarter of it
    return evaluation(right, seeds=(0, 1))


def test_mixtures_by_hand() -> None:
    table = scaling.mixture_table(mixtures())
    assert table.objective.tolist() == [
        HARMLESS,
        "helpful-harmless-1-to-3",
        MATCHED_ARM,
        "helpful-harmless-3-to-1",
        HELPFUL,
    ]
    assert table.helpful_share.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert table.helpful.tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert table.harmless.tolist() == pytest.approx([1, 0.75, 0.5, 0.5, 0])
    assert table["mean"].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.625, 0.5])
    assert table.gain.tolist() == pytest.approx([0, 0, 0, 0.125, 0])
    assert table.gain_ci_low[2] == table.gain_ci_high[2] == 0, "half of each is compared with itself"
    assert scaling.best_mixture(table).objective == "helpful-harmless-3-to-1"
    assert (table.n_items == 8).all() and (table.n_seeds == 2).all()


def test_gains_agree_with_a_slow_bootstrap() -> None:
    rng = np.random.default_rng(5)
    right = {(arm, test): rng.integers(0, 2, 40).tolist() for arm in MIXTURES for test in (HELPFUL, HARMLESS)}
    rows = evaluation(right)
    row = scaling.mixture_table(rows, Bootstrap(4000)).set_index("objective").loc["helpful-harmless-3-to-1"]
    wide = rows.pivot_table(index=["group", "item_id"], columns="objective", values="credit")
    gain = wide["helpful-harmless-3-to-1"] - wide[MATCHED_ARM]
    draws = [np.mean([rng.choice(gain[test], 40).mean() for test in (HELPFUL, HARMLESS)]) for _ in range(4000)]
    assert row.gain == pytest.approx(np.mean([gain[test].mean() for test in (HELPFUL, HARMLESS)]))
    assert [row.gain_ci_low, row.gain_ci_high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)


def test_mixtures_without_half_of_each_are_refused() -> None:
    rows = mixtures()
    with pytest.raises(ValueError, match="expected rows of helpful-harmless-matched, got those of harmless"):
        scaling.mixture_table(rows[rows.objective != MATCHED_ARM])
    singles = rows[rows.objective.isin([HELPFUL, HARMLESS, MATCHED_ARM])]
    with pytest.raises(ValueError, match="mixtures: expected one besides half of each, got none"):
        scaling.best_mixture(scaling.mixture_table(singles))


def test_sizes_that_have_every_arm() -> None:
    whole, part = costs(7), costs(7)
    part = part[part.objective == HELPFUL]
    assert scaling.sizes_of({400: whole, 100: whole, 200: part}, (HELPFUL, MATCHED_ARM)) == [100, 400]
