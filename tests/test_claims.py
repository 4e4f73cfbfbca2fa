"""The ledger on tables small enough to count by hand: findings, the rule, Holm, and what was not run."""

from collections.abc import Callable
from dataclasses import replace
from math import nan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tension_utils.analysis.accuracy import mixed_against_single
from tension_utils.analysis.claims import Evidence, ledger
from tension_utils.analysis.findings import (
    CLAIMS,
    LITTLE_TO_LOSE,
    POINTS,
    SD,
    SMALLEST,
    VERDICTS,
    WAYS,
    Finding,
    Part,
    judge,
    primary_of,
    verdict_of,
)
from tension_utils.artifacts import OWN_SCORES, TABLES, find_runs, write_table
from tension_utils.conditions import ONLY
from tension_utils.config import MATCHED_ARM, MIXED, OBJECTIVES, SINGLE_OBJECTIVES, Run, list_runs
from tension_utils.planted.rates import WORLDS
from tension_utils.scores import NeuronScores
from tension_utils.show.ledger import (
    answer,
    claim_words,
    extent_words,
    finding_table,
    result_of,
    sentence,
    smallest_words,
    subject_of,
    verdict_sentence,
    verdict_table,
)
from tension_utils.statistics import Spread

PUBLISHED, CONTROLLED = WAYS
N = 20  # items per test


# The rule.


def finding(claim: str = "C2", value: float = -0.5, low: float = -0.8, high: float = -0.2, **other: object) -> Finding:
    what = {"claim": claim, "way": CONTROLLED, "is_primary": True, "quantity": "removal", "metric": "margin"}
    what |= {"objective": "both", "arm": "single", "test": "own", "neuron_set": "top 10 %", "score_kind": "rms_change"}
    what |= {"control": "layer", "value": value, "ci_low": low, "ci_high": high, "p_value": 0.001, "unit": SD}
    return Finding(**what | {"n_items": 500, "n_seeds": 3, "n_draws": 12} | other)


@pytest.mark.parametrize(
    ("claim", "low", "high", "p_value", "verdict"),
    [
        ("C2", -0.8, -0.2, 0.05, "supported"),
        ("C2", -0.8, -0.2, 0.051, "undecided"),  # off the mean random set, yet not unusual among random sets
        ("C2", -0.8, 0.1, 0.001, "undecided"),
        ("C2", -0.8, 0.0, 0.001, "undecided"),
        ("C2", 0.2, 0.8, 0.999, "refuted"),  # beyond zero on the other side
        ("C2", -0.09, 0.09, 0.5, "refuted"),  # too small to matter
        ("C2", -0.09, -0.01, 0.001, "refuted"),  # surely there, and surely too small
        ("C2", -0.1, 0.09, 0.5, "undecided"),
        ("C3", 0.2, 0.8, 0.01, "supported"),
        ("C3", -0.8, -0.2, 0.99, "refuted"),
        ("C2", nan, nan, nan, "undecided"),  # one seed has no interval
    ],
)
def test_the_rule_by_hand(claim: str, low: float, high: float, p_value: float, verdict: str) -> None:
    assert verdict_of(finding(claim, 0.0, low, high), p_value) == verdict


@pytest.mark.parametrize(
    ("low", "high", "to_lose", "verdict"),
    [
        (-0.04, 0.07, 0.07, "no verdict"),
        (-0.04, 0.07, -0.2, "no verdict"),
        (-0.04, 0.07, 0.1, "refuted"),
        (-0.04, 0.07, nan, "refuted"),
        (0.01, 0.07, 0.0, "refuted"),
        (-0.3, -0.2, 0.0, "supported"),
        (-0.2, 0.07, 0.0, "undecided"),
    ],
)
def test_no_fall_is_no_evidence_where_there_was_too_little_to_lose(
    low: float, high: float, to_lose: float, verdict: str
) -> None:
    one = finding("C5", (low + high) / 2, low, high, to_lose=to_lose)
    (row,) = judge([replace(one, p_value=0.01)]).itertuples()
    assert row.verdict == verdict and row.reason == (LITTLE_TO_LOSE if verdict == "no verdict" else "")


def test_parts_that_disagree_contradict_each_other() -> None:
    parts = (Part("helpful", -0.5, -0.8, -0.2), Part("harmless", 0.5, 0.2, 0.8))
    assert verdict_of(finding(value=0.0, low=-0.2, high=0.2, parts=parts), 0.5) == "contradictory"
    unclear = (parts[0], Part("harmless", 0.5, -0.2, 0.8))
    assert verdict_of(finding(parts=unclear), 0.001) == "supported"


def test_as_published_the_signs_decide_and_what_cannot_fail_gives_no_verdict() -> None:
    published = replace(finding(low=nan, high=nan), way=PUBLISHED, unit=POINTS, p_value=nan)
    assert verdict_of(published, nan) == "supported" and verdict_of(replace(published, claim="C3"), nan) == "refuted"
    parts = (Part("helpful", -1.0), Part("harmless", 2.0))
    assert verdict_of(replace(published, parts=parts), nan) == "contradictory"
    assert verdict_of(replace(published, reason="cannot fail"), nan) == "no verdict"
    assert verdict_of(replace(published, value=nan, reason="nothing there"), nan) == "not run"


def test_holm_runs_over_the_primary_findings_by_hand() -> None:
    p_values = {"C1": 0.011, "C2": 0.001, "C3": 0.04, "C4": 0.02, "C5": 0.6}
    bounds = {claim: (0.2, 0.8) if CLAIMS[claim].sign > 0 else (-0.8, -0.2) for claim in CLAIMS}
    primaries = [finding(claim, 0.0, *bounds[claim], p_value=p) for claim, p in p_values.items()]
    secondary = replace(primaries[2], is_primary=False)
    table = judge([*primaries, secondary, replace(primaries[0], way=PUBLISHED, p_value=nan)])
    # Sorted .001, .011, .02, .04, .6 times 5, 4, 3, 2, 1: .005, .044, .06, .08, .6.
    assert table.p_adjusted.tolist()[:6] == pytest.approx([0.044, 0.005, 0.08, 0.06, 0.6, 0.04])
    words = ["supported", "supported", "undecided", "undecided", "undecided", "supported"]
    assert table.verdict.tolist()[:6] == words, "a secondary finding is not corrected, and decides nothing"
    without = judge([f for f in primaries if f.claim != "C1"] + [replace(primaries[0], value=nan, p_value=nan)])
    assert without.set_index("claim").p_adjusted["C4"] == pytest.approx(0.06), "what was not run is not counted"


@settings(deadline=None)
@given(st.sampled_from(sorted(CLAIMS)), st.floats(-2, 2), st.floats(0, 2), st.floats(0, 1))
def test_the_rule_is_symmetric_and_monotone(claim: str, low: float, width: float, p_value: float) -> None:
    one = finding(claim, low, low, low + width)
    verdict = verdict_of(one, p_value)
    twin = {"C2": "C3", "C3": "C2"}.get(claim)
    if twin:
        assert verdict_of(finding(twin, -low, -low - width, -low), p_value) == verdict
    if verdict == "supported":
        assert CLAIMS[claim].sign * low > 0 or CLAIMS[claim].sign * (low + width) > 0
        assert verdict_of(one, p_value / 2) == "supported"
        assert max(abs(low), abs(low + width)) >= SMALLEST[SD]
    assert verdict in VERDICTS


# Artifacts by hand: N helpful and N harmless items; a model's margins are given as a function of (test, item number).


def items(objective: str, seed: int, margin: Callable[[str, int], float], base_model: str = "toy") -> pd.DataFrame:
    rows = [
        {"subset": f"{group}-base", "item_id": f"{group}/{i}", "cluster": f"{group} {i}", "group": group}
        | {"margin": margin(group, i)}
        for group in SINGLE_OBJECTIVES
        for i in range(N)
    ]
    table = pd.DataFrame(rows).assign(base_model=base_model, objective=objective, seed=seed, benchmark="hh-rlhf")
    facts = {"direction": "none", "style": "", "chance": 0.5, "n_chosen": 1, "n_rejected": 1, "n_tokens": 9}
    facts |= {"is_truncated": False, "chosen_reward": 0.0, "chosen_spread": 0.0}
    facts |= {"chosen_length": 1.0, "rejected_length": 1.0}
    return table.assign(credit=(table.margin > 0) + 0.5 * (table.margin == 0), **facts)[list(TABLES["evaluation"])]


def spread(group: str, i: int) -> float:
    """Margins -1 and 1 in turn."""
    return 1.0 if i % 2 else -1.0


UNIT = sqrt(2 * N / (2 * N - 1))  # their standard deviation over both tests


Shifts = dict[str, list[float]]


def removal(intact: pd.DataFrame, name: str, shifts: Shifts, control: str, family: str = "") -> pd.DataFrame:
    """Rows of ablation.parquet; shifts: test -> what the set, then each random set, adds to margins, in their SD."""
    parts = []
    for place in range(len(next(iter(shifts.values())))):
        shift = intact.group.map({group: values[place] for group, values in shifts.items()}).astype(float)
        label = {"set": "random" if place else name, "matched_to": name, "draw": max(0, place - 1), "family": family}
        label |= {"control": control if place else "", "fraction": 0.1, "ablation_kind": "zero", "scale": 0.0}
        margin = intact.margin + shift * UNIT
        credit = (margin > 0) + 0.5 * (margin == 0)
        parts.append(intact.assign(margin=margin, credit=credit, n_neurons=9, **label))
    return pd.concat(parts, ignore_index=True)[list(TABLES["ablation"])]


def primary(evidence: Evidence, claim: str, way: str = CONTROLLED) -> pd.Series:
    return primary_of(ledger(evidence), claim, way)


# C1.


def first_wrong(counts: dict[str, int]) -> Callable[[str, int], float]:
    return lambda group, i: -1.0 if i < counts[group] else 1.0


def mixing_world(matched: dict[str, int], seeds: int = 3) -> pd.DataFrame:
    """The single models get all of their own test right; the matched one has as many wrong as given."""
    own = {"helpful": {"helpful": 0, "harmless": 9}, "harmless": {"helpful": 9, "harmless": 0}}
    wrong = own | {MATCHED_ARM: matched, MIXED: {"helpful": 1, "harmless": 0}}
    parts = [items(arm, seed, first_wrong(counts)) for arm, counts in wrong.items() for seed in range(seeds)]
    return pd.concat(parts, ignore_index=True)


def test_what_mixing_costs_by_hand() -> None:
    row = primary(Evidence(mixing_world({"helpful": 4, "harmless": 8})), "C1")
    assert row.value == pytest.approx(-30) and row.arm == MATCHED_ARM and row.unit == POINTS
    assert {part.name: part.value for part in row.parts} == pytest.approx({"helpful": -20, "harmless": -40})
    assert (row.n_items, row.n_seeds, row.n_draws) == (2 * N, 3, 0) and row.verdict == "supported"
    assert row.ci_low < -30 < row.ci_high < 0 and row.p_value == pytest.approx(1 / 2001)
    table = ledger(Evidence(mixing_world({"helpful": 4, "harmless": 8}))).query("claim == 'C1' and way == @CONTROLLED")
    (mixed,) = (row for _, row in table[(table.arm == MIXED) & (table.quantity == "mixing")].iterrows())
    assert not mixed.is_primary and mixed.value == pytest.approx(-2.5), "one of 20, and none of 20"


def test_one_effect_has_one_interval_in_the_ledger_and_in_the_table_of_a_chapter() -> None:
    """Seeds that differ, so that the interval draws from what the tests tell each other about them."""
    rows = mixing_world({"helpful": 4, "harmless": 8})
    is_flipped = (rows.objective == MATCHED_ARM) & (np.random.default_rng(3).random(len(rows)) < 0.1 + 0.2 * rows.seed)
    rows["credit"] = np.where(is_flipped, 1 - rows.credit, rows.credit)
    parts = {part.name: part for part in primary(Evidence(rows), "C1").parts}
    table = mixed_against_single(rows, by=["group"], arm=MATCHED_ARM).query("is_own").set_index("group")
    for name, row in table.iterrows():
        part, shown = parts[name], [100 * row.difference, 100 * row.ci_low, 100 * row.ci_high]
        assert [part.value, part.ci_low, part.ci_high] == pytest.approx(shown)
        assert part.ci_low < part.value < part.ci_high


def test_the_gap_to_the_ensemble_by_hand() -> None:
    """The ensemble reaches (1, .55) and, where its halves tie, (.775, .775), in sum 1.55; the mixed model has 1.4."""
    table = ledger(Evidence(mixing_world({"helpful": 4, "harmless": 8})))
    (row,) = (row for _, row in table[(table.quantity == "frontier") & (table.arm == MATCHED_ARM)].iterrows())
    assert row.value == pytest.approx(-7.5) and row.control == "ensemble" and not row.is_primary
    assert row.ci_low < -7.5 < row.ci_high and (row.n_items, row.n_seeds) == (2 * N, 3)
    words = "mixed model on as many pairs beside both single-objective models together, both tests, "
    end = "beyond the two models' ensemble at the same balance, accuracy: -7.5 points ["
    assert sentence(row).startswith(words + end)


def test_mixing_that_costs_nothing_is_refuted_and_gains_are_too() -> None:
    assert primary(Evidence(mixing_world({"helpful": 0, "harmless": 0})), "C1").verdict == "refuted"
    evaluation = mixing_world({"helpful": 0, "harmless": 0})
    is_single = evaluation.objective == evaluation.group
    worse = evaluation.assign(credit=evaluation.credit.where(~(is_single & evaluation.item_id.str.endswith("5")), 0.0))
    row = primary(Evidence(worse), "C1")
    assert row.value == pytest.approx(10) and row.verdict == "refuted"


def test_one_objective_that_loses_while_the_other_gains_is_contradictory() -> None:
    evaluation = mixing_world({"helpful": 10, "harmless": 0})
    is_single = (evaluation.objective == "harmless") & (evaluation.group == "harmless")
    odd = is_single & evaluation.item_id.str[-1].isin(list("13579"))
    row = primary(Evidence(evaluation.assign(credit=evaluation.credit.where(~odd, 0.0))), "C1")
    assert row.verdict == "contradictory" and row.value == pytest.approx(0)


def test_seeds_that_differ_decide_less_than_items_alone_would() -> None:
    """The cost is 0, 20 and 40 points in three runs: t(2) over them holds zero, the items of one run would not."""
    parts = [mixing_world({"helpful": n, "harmless": n}, 3).query("seed == @seed") for seed, n in enumerate((0, 4, 8))]
    row = primary(Evidence(pd.concat(parts, ignore_index=True)), "C1")
    assert row.value == pytest.approx(-20) and row.ci_high > 0 and row.p_value > 0.025 and row.verdict == "undecided"
    assert row.by_seed == pytest.approx((0, -20, -40))


def test_subsets_weigh_the_same_as_published_and_ties_are_wrong() -> None:
    # Subset a: 1 item, mixed right, helpful wrong: +100. Subset b: 3 items, helpful right on all, mixed tied: -100.
    rows = []
    for subset, n, mixed, single in (("a", 1, 1.0, -1.0), ("b", 3, 0.0, 1.0)):
        for i in range(n):
            for objective, margin in ((MIXED, mixed), ("helpful", single), ("harmless", single)):
                rows += [(group, subset, f"{group}{subset}{i}", objective, margin) for group in SINGLE_OBJECTIVES]
    table = pd.DataFrame(rows, columns=["group", "subset", "item_id", "objective", "margin"])
    facts = {"benchmark": "x", "seed": 0, "base_model": "toy", "direction": "none", "credit": 0.0}
    row = primary(Evidence(table.assign(cluster=table.item_id, **facts)), "C1", PUBLISHED)
    assert row.value == pytest.approx(0) and [part.value for part in row.parts] == pytest.approx([0, 0])
    assert row.n_items == 8 and row.verdict == "refuted" and np.isnan(row.ci_low)


def test_both_directions_of_safety_weigh_the_same() -> None:
    """A model that refuses everything is right on 15 refuse items and wrong on 5 respond items: balanced, one half."""
    parts = [mixing_world({"helpful": 0, "harmless": 0}, 2)]
    for direction, n in (("refuse", 15), ("respond", 5)):
        for arm, credit in (
            ("helpful", direction == "respond"),
            ("harmless", direction == "refuse"),
            (MATCHED_ARM, 1.0),
        ):
            rows = pd.concat([items(arm, seed, spread) for seed in range(2)])
            rows = rows[rows.item_id.isin([f"harmless/{i}" for i in range(n)])]
            names = {"benchmark": "safe", "subset": direction, "direction": direction, "credit": float(credit)}
            parts.append(rows.assign(**names, item_id=rows.item_id + direction, cluster=rows.cluster + direction))
    table = ledger(Evidence(pd.concat(parts, ignore_index=True)))
    (row,) = (row for _, row in table[table.test == "safety"].iterrows())
    assert row.value == pytest.approx(50) and row.n_items == 20 and row.verdict == "refuted"


# C2, C3 and C5, with the changes of the hand-computed prediction test.

T, R = (-2.0, 4.0), ((1.0, 2.0, 3.0), (8.0, 10.0, 12.0))  # effects -4 and -6; see test_prediction


Tables = tuple[pd.DataFrame, pd.DataFrame]  # evaluation and ablation


def ablated_world(sign: float = 1.0, control: str = "layer", base_model: str = "toy") -> Tables:
    """The helpful and the harmless model, one seed; the opposing test changes the other way."""
    evaluation, ablation = [], []
    for objective, other, target, draws in zip(SINGLE_OBJECTIVES, SINGLE_OBJECTIVES[::-1], T, R, strict=True):
        intact = items(objective, 0, spread, base_model)
        own = [sign * change for change in (target, *draws)]
        shifts = {objective: own, other: [-change for change in own]}
        ablation.append(removal(intact, "rms_change", shifts, control))
        evaluation.append(intact)
    return pd.concat(evaluation, ignore_index=True), pd.concat(ablation, ignore_index=True)


def test_removal_by_hand() -> None:
    table = ledger(Evidence(*ablated_world()))
    for claim, sign in (("C2", -1), ("C3", 1)):
        row = primary_of(table, claim)
        assert row.value == pytest.approx(sign * 5) and row.unit == SD and row.control == "layer"
        # All items agree, so their interval has no width; the random sets do not, and give the p-value.
        assert [row.ci_low, row.ci_high] == pytest.approx([sign * 5] * 2)
        assert row.p_value == pytest.approx(stats.t.cdf(-5 / sqrt(5 / 3), 4)) == pytest.approx(0.008974, abs=1e-6)
        assert row.p_adjusted == pytest.approx(2 * row.p_value) and row.verdict == "supported"
        assert (row.n_items, row.n_seeds, row.n_draws) == (2 * N, 1, 3)
        assert {part.name: part.value for part in row.parts} == pytest.approx(
            {"helpful": sign * 4, "harmless": sign * 6}
        )
    opposite = ledger(Evidence(*ablated_world(-1.0)))
    assert [primary_of(opposite, claim).verdict for claim in ("C2", "C3")] == ["refuted", "refuted"]


def test_a_set_like_its_random_ones_is_not_unusual_however_clear_its_interval() -> None:
    evaluation, _ = ablated_world()
    shifts = {"helpful": [-3.0, -4.0, 0.0, 2.0], "harmless": [-3.0, -4.0, 0.0, 2.0]}
    parts = [removal(own, "rms_change", shifts, "layer") for _, own in evaluation.groupby("objective")]
    row = primary(Evidence(evaluation, pd.concat(parts)), "C2")
    assert row.value == pytest.approx(-7 / 3) and row.ci_high < 0 and row.p_value > 0.05 and row.verdict == "undecided"


def test_the_control_that_matches_most_is_taken_and_the_record_says_which() -> None:
    evaluation, by_layer = ablated_world()
    weaker = ablated_world(control="activity")[1]
    is_random = weaker["set"] == "random"
    weaker = weaker[is_random].assign(margin=weaker.margin - 1.5 * UNIT)
    table = ledger(Evidence(evaluation, pd.concat([by_layer, weaker], ignore_index=True)))
    row = primary_of(table, "C2")
    assert row.control == "activity" and row.value == pytest.approx(-3.5)
    (other,) = (r for _, r in table[(table.claim == "C2") & (table.control == "layer")].iterrows())
    assert not other.is_primary and other.value == pytest.approx(-5)


def test_base_models_are_pooled_and_may_contradict_each_other() -> None:
    one, two = ablated_world(), ablated_world(-1.0, base_model="other")
    row = primary(Evidence(*(pd.concat(pair, ignore_index=True) for pair in zip(one, two, strict=True))), "C2")
    values = {part.name: part.value for part in row.parts}
    assert values == pytest.approx({"helpful": 0, "harmless": 0, "toy": -5, "other": 5})
    assert row.verdict == "contradictory" and row.n_seeds == 2
    assert dict(zip(row.bases, row.by_seed, strict=True)) == pytest.approx({"toy": -5, "other": 5})
    assert extent_words(row).endswith("2 runs of 2 base models")


def test_row_order_and_a_shift_of_every_set_change_nothing() -> None:
    evaluation, ablation = ablated_world()
    rows = [
        ledger(Evidence(evaluation, ablation)),
        ledger(Evidence(evaluation, ablation.sample(frac=1, random_state=0))),
    ]
    rows.append(ledger(Evidence(evaluation, ablation.assign(margin=ablation.margin + 0.7))))
    for other in rows[1:]:
        for claim in ("C2", "C3"):
            a, b = primary_of(rows[0], claim), primary_of(other, claim)
            assert a.value == pytest.approx(b.value) and a.p_value == pytest.approx(b.p_value)


def weight_world(arm: str, family: str = "equal-size") -> Tables:
    """Shared minus only, set and draws: helpful test -4 - (1, 2, 3), harmless test -6 + mean, as by hand above."""
    intact = items(arm, 0, spread)
    shared = {"helpful": [-3.0, 1.0, 2.0, 3.0], "harmless": [3.0, 7.0, 9.0, 11.0]}
    only = {"helpful": [-1.0, 0.0, 0.0, 0.0], "harmless": [-1.0, -1.0, -1.0, -1.0]}
    sets = {"shared": shared, "only-helpful": only, "only-harmless": only}
    parts = [removal(intact, name, shifts, "layer", family) for name, shifts in sets.items()]
    parts += [removal(intact, name, shifts, "layer", "natural") for name, shifts in sets.items()]
    return intact, pd.concat(parts, ignore_index=True)


def test_weight_by_hand_and_the_fallback_is_marked() -> None:
    row = primary(Evidence(*weight_world(MATCHED_ARM)), "C5")
    # Helpful: (-3 + 1) - mean(1, 2, 3) = -4. Harmless: (3 + 1) - mean(8, 10, 12) = -6: the hand case again.
    assert row.value == pytest.approx(-5) and row.neuron_set == "equal-size" and row.control == "layer"
    assert row.p_value == pytest.approx(0.008974, abs=1e-6) and row.verdict == "supported"
    table = ledger(Evidence(*weight_world(MIXED)))
    assert primary_of(table, "C5").verdict == "not run" and MATCHED_ARM in primary_of(table, "C5").reason
    secondary = table[(table.claim == "C5") & (table.arm == MIXED) & (table.metric == "margin")].iloc[0]
    assert not secondary.is_primary and secondary.value == pytest.approx(-5) and secondary.verdict == "supported"
    families = [weight_world(MATCHED_ARM, family) for family in ("equal-size", "equal-activity")]
    both = pd.concat([ablation[ablation.family != "natural"] for _, ablation in families], ignore_index=True)
    assert primary(Evidence(families[0][0], both), "C5").neuron_set == "equal-activity"


def test_what_models_have_to_lose_by_hand() -> None:
    """Margins of the helpful test are 0 and 2 in turn, of the harmless one -1 and 1; the mean of both means is .5."""

    def lifted(group: str, i: int) -> float:
        return spread(group, i) + (group == "helpful")

    intact = items(MATCHED_ARM, 0, lifted)
    same = {group: [0.0, 0.01, -0.01, 0.0] for group in SINGLE_OBJECTIVES}
    ablation = pd.concat([removal(intact, name, same, "layer", "equal-size") for name in ("shared", *ONLY.values())])
    few = ablation[~ablation.item_id.isin([f"helpful/{N - 1}", f"helpful/{N - 3}"])]  # two of margin 2
    for rows, of_helpful, credit in ((ablation, 1.0, 15 / 20), (few, 16 / 18, 13 / 18)):  # 0 is a tie: credit .5
        table = ledger(Evidence(intact, rows))
        by_metric = table[(table.claim == "C5") & (table.arm == MATCHED_ARM)].set_index("metric")
        assert by_metric.to_lose["margin"] == pytest.approx(of_helpful / 2 / intact.margin.std())
        assert by_metric.to_lose["accuracy"] == pytest.approx(100 * (credit - 0.5) / 2), "half of the other are right"
    assert primary_of(table, "C5").verdict == "refuted"
    idle = items(MATCHED_ARM, 0, spread)
    ablation = pd.concat([removal(idle, name, same, "layer", "equal-size") for name in ("shared", *ONLY.values())])
    table = ledger(Evidence(idle, ablation))
    assert primary_of(table, "C5").verdict == "no verdict" and primary_of(table, "C5").to_lose == pytest.approx(0)
    words = claim_words(table, "C5")
    assert words[0] == f"No verdict: {LITTLE_TO_LOSE}." and "mean margin on these tests is +0.00 SD" in words[1]
    assert "Its models had too little to lose." in verdict_sentence(table, "C5")
    assert np.isnan(primary_of(table, "C3").to_lose)


def test_weight_reads_only_sets_on_their_own_test_alone() -> None:
    intact, ablation = weight_world(MATCHED_ARM)
    tested = ablation.matched_to.map({only: f"{objective}-base" for objective, only in ONLY.items()})
    lean = ablation[tested.isna() | (tested == ablation.subset)]
    assert len(lean) == len(ablation) * 2 / 3
    whole, part = (primary(Evidence(intact, rows), "C5") for rows in (ablation, lean))
    fields = ["value", "ci_low", "ci_high", "p_value", "n_items", "n_draws", "verdict"]
    assert whole[fields].tolist() == part[fields].tolist()


# C4.


def scores(top: list[int]) -> NeuronScores:
    """Scores of 100 neurons whose top ten can be read off."""
    values = np.zeros((1, 100), np.float32)
    values[0, top] = 1
    return NeuronScores({(kind, "both", "all"): values for kind in ("rms_change", "signed_mean")}, "down_input", 1, 1)


def shared_world(root: Path, seeds: int, coins: bool = True) -> dict[Run, NeuronScores]:
    """Helpful 0-9; harmless shares 8, or 7 in odd seeds; each coin model shares 5 with the other objective's."""
    found = {}
    for seed in range(seeds):
        start = 2 + seed % 2
        tops = {"helpful": range(10), "harmless": range(start, start + 10)}
        if coins:
            tops |= {"harmless-coin": range(-5, 5), "helpful-coin": range(start + 5, start + 15)}
        found |= {Run(root, "toy", arm, seed): scores([i % 100 for i in top]) for arm, top in tops.items()}
    return found


def test_sharing_is_judged_against_models_of_coin_flips_by_hand(tmp_path: Path) -> None:
    table = ledger(Evidence(scores=shared_world(tmp_path, 2)))
    row = primary_of(table, "C4")
    # Jaccard 8 / 12 and 7 / 13, each minus 5 / 15. Mean of .3333 and .2051, t(.975, 1) = 12.706.
    beyond = np.array([8 / 12, 7 / 13]) - 1 / 3
    assert row.value == pytest.approx(beyond.mean()) and row.control == "coin" and row.n_items == 10
    half = 12.7062 * abs(beyond[0] - beyond[1]) / 2
    assert [row.ci_low, row.ci_high] == pytest.approx([beyond.mean() - half, beyond.mean() + half], abs=1e-4)
    assert row.p_value == pytest.approx(0.5 - np.arctan(beyond.mean() / (abs(beyond[0] - beyond[1]) / 2)) / np.pi)
    assert row.verdict == "undecided" and row.n_seeds == 2
    published = primary_of(table, "C4", PUBLISHED)
    assert published.verdict == "no verdict" and published.value == pytest.approx((8 / 12 + 7 / 13) / 2)


def test_sharing_with_one_seed_has_a_number_and_without_shams_a_reason(tmp_path: Path) -> None:
    row = primary(Evidence(scores=shared_world(tmp_path, 1)), "C4")
    assert row.value == pytest.approx(1 / 3) and np.isnan(row.ci_low) and row.verdict == "undecided"
    row = primary(Evidence(scores=shared_world(tmp_path, 2, coins=False)), "C4")
    assert row.verdict == "not run" and "helpful-coin and harmless-coin" in row.reason


def test_sharing_in_many_seeds_that_agree_is_supported(tmp_path: Path) -> None:
    assert primary(Evidence(scores=shared_world(tmp_path, 6)), "C4").verdict == "supported"


# What is missing.


def test_nothing_at_all_gives_every_claim_a_reason() -> None:
    table = ledger(Evidence())
    assert set(table.claim) == set(CLAIMS) and set(table.verdict) == {"not run"} and (table.reason != "").all()
    assert all(primary_of(table, claim, way) is not None for claim in CLAIMS for way in WAYS)


def test_evidence_reads_what_is_there_of_several_base_models_and_arms(tmp_path: Path) -> None:
    for base_model in ("one", "two"):
        evaluation, ablation = ablated_world(base_model=base_model)
        for objective in SINGLE_OBJECTIVES:
            run = Run(tmp_path, base_model, objective, 0)
            run.folder.mkdir(parents=True)
            write_table(run.folder / "evaluation.parquet", evaluation[evaluation.objective == objective])
            write_table(run.folder / "ablation.parquet", ablation[ablation.objective == objective])
            scores(list(range(10))).save(run.folder / OWN_SCORES)
    matched = Run(tmp_path, "one", MATCHED_ARM, 0)
    matched.folder.mkdir(parents=True)
    perfect = items(MATCHED_ARM, 0, first_wrong({"helpful": 0, "harmless": 0}), "one")
    write_table(matched.folder / "evaluation.parquet", perfect)
    runs = list_runs(tmp_path, ["one", "two", "three"], [*OBJECTIVES, MATCHED_ARM], [0, 1])
    found = find_runs(tmp_path)
    assert {run.folder for run in found} == {run.folder for run in runs if run.folder.is_dir()} and len(found) == 5
    assert find_runs(tmp_path / "nowhere") == []
    pd.testing.assert_frame_equal(ledger(Evidence.of(found)), ledger(Evidence.of(runs)))
    table = ledger(Evidence.of(runs))
    assert primary_of(table, "C2").n_seeds == 2 and primary_of(table, "C2").verdict == "supported"
    assert primary_of(table, "C1").n_seeds == 1, "the matched arm has one base model and one seed"
    assert primary_of(table, "C1").value == pytest.approx(50)
    assert primary_of(table, "C4", PUBLISHED).value == 1
    assert ledger(Evidence.of([])).verdict.eq("not run").all()


# Words.


def test_sentences_are_made_from_records() -> None:
    one = finding(value=-0.163, low=-0.3, high=-0.02, p_value=0.0123, parts=(Part("helpful", -0.1, -0.2, 0.0),))
    assert sentence(one) == (
        "single-objective models without their top 10 % by rms_change, own test, beyond 12 random sets of the same "
        "layers, margin: -0.16 SD [-0.30, -0.02], p = 0.012; n = 500, 3 runs (helpful -0.10 SD [-0.20, +0.00])"
    )
    assert result_of(replace(one, value=nan, reason="no set was removed")) == "not run (no set was removed)"
    assert "p < 0.001" in result_of(replace(one, p_value=1e-6)) and "p =" not in result_of(replace(one, p_value=nan))


def test_every_reading_has_words_and_pages_have_all_of_them(tmp_path: Path) -> None:
    evaluation, ablation = ablated_world()
    full = ledger(Evidence(evaluation, ablation, shared_world(tmp_path, 2)))
    empty = ledger(Evidence())
    for table in (full, empty):
        assert all(subject_of(row) and "{" not in subject_of(row) for row in table.itertuples())
        assert len(finding_table(table)) == len(table)
    found = verdict_table({"A": full, "B": empty}).set_index("claim")
    assert list(found) == ["primary endpoint", "smallest effect", "A", "B"] and len(found) == len(CLAIMS)
    row = found.loc["C3. Neurons oppose"]
    assert row["smallest effect"] == "0.10 SD" and row["primary endpoint"].endswith("claimed above zero")
    assert found.A["C4. Neurons are shared"] == "undecided; as published no verdict" and set(found.B) == {"not run"}
    assert smallest_words().startswith("3.0 points (fewer than") and smallest_words().count("(") == len(SMALLEST)
    text = answer({"A": full, "B": empty}, "generated/verdicts.svg", "five effects")
    assert text.count("<claim-") == 2 * len(CLAIMS) and ":alt: five effects" in text
    assert CLAIMS["C2"].outcomes["supported"] in text and f"{CLAIMS['C2'].title}: not run yet" in text


def test_a_claim_in_words_says_once_what_its_verdict_rests_on() -> None:
    open_one = finding(value=-0.1, low=-0.3, high=0.1, spread=Spread(0.01, 0.0, 0.0, 4))
    secondary = [replace(open_one, is_primary=False, value=value, ci_low=value) for value in (-0.1, -0.2)]
    table = judge(
        [open_one, *secondary, replace(open_one, way=PUBLISHED), replace(secondary[0], value=nan, reason="x")]
    )
    title, text = claim_words(table, "C2")
    assert title == f"{CLAIMS['C2'].outcomes['undecided']}."
    assert text.splitlines() == [
        "-0.10 SD [-0.30, +0.10], p = 0.001; n = 500, 3 runs.",
        "A small p says that the set is unusual among random sets in these models; the interval asks whether another "
        "training run would show it, too. A verdict needs both.",
        "Four in five studies like this one would support a true effect of -0.28 SD.",
        "Would be decided, if the estimate stays, at about 2,000 items; more training runs alone would not.",
        "Further readings ask other questions and decide nothing: 2 undecided (rms_change, margin).",
    ]
    for other in (replace(open_one, ci_high=-0.01), replace(open_one, p_value=0.2)):
        assert "A small p" not in claim_words(judge([other, replace(other, way=PUBLISHED)]), "C2")[1]
    rates = {"power": 0.9, "false_positives": 0.2, "false_refutations": 0.05, "true_effect": -0.25}
    counts = dict(zip(WORLDS, (40, 30), strict=True))
    rated = table.assign(**rates, **counts, design="3 runs", sound_seeds=4)
    rated.loc[0, ["verdict", "reason"]] = [
        "no verdict",
        "its test supports it in 20 % of made-up worlds where it is false",
    ]
    title, text = claim_words(rated, "C2")
    assert title == "No verdict: its test supports it in 20 % of made-up worlds where it is false."
    assert "in which its test supports the claim: 90 % of 40 true and 20 % of 30 false (3 runs)." in text
    assert "Where it is true, the effect is -0.25 SD in the mean." in text and "It refutes" not in text
    assert "With 4 training runs the test errs rarely enough." in text
    assert "Would be decided" not in text and "Four in five" not in text
    rated.loc[0, ["verdict", "reason"]] = ["refuted", ""]
    assert "20 % of 30 false (3 runs). It refutes 5 % of the true ones." in claim_words(rated, "C2")[1]
    assert claim_words(ledger(Evidence()), "C2") == ("Not run.", "No such neuron set was removed.")


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("verdict", [*VERDICTS[:4], "no verdict", "not run"])
def test_the_first_page_says_what_each_verdict_means(claim: str, verdict: str) -> None:
    one = finding(claim, -0.163, -0.3, -0.02, reason="it errs too often")
    table = judge([one, replace(one, way=PUBLISHED, reason="")]).assign(verdict=[verdict, "supported"])
    text = verdict_sentence(table, claim)
    assert f"<claim-{claim.lower()}>" in text
    if verdict in CLAIMS[claim].outcomes:
        assert CLAIMS[claim].outcomes[verdict] in text and "-0.16 SD [-0.30, -0.02]; n = 500, 3 runs" in text
        assert "as published supported" in text
    else:
        assert verdict in text and ("Its test errs" in text) == ("-0.16 SD" in text) == (verdict == "no verdict")


def test_every_claim_has_words_for_every_decision_and_they_differ() -> None:
    words = [CLAIMS[claim].outcomes[verdict] for claim in CLAIMS for verdict in VERDICTS[:4]]
    assert len(set(words)) == len(words) == 4 * len(CLAIMS)
    assert all(set(claim.outcomes) == set(VERDICTS[:4]) for claim in CLAIMS.values())
