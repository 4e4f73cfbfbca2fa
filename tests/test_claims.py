"""The ledger of claims on evaluations small enough to count by hand, and on worlds where the truth is known."""

import numpy as np
import pandas as pd
import pytest

from tension_utils.activations import NeuronScores
from tension_utils.analysis.claims import (
    CLAIMS,
    FINDING,
    OPPOSITION,
    SHARING,
    VERDICTS,
    WAYS,
    WEIGHT,
    Evidence,
    ledger_table,
    mixing_as_published,
    mixing_under_control,
    overall_verdict,
    result_text,
    statement_table,
    verdict_of,
)
from tension_utils.conditions import MIXED_SETS
from tension_utils.config import MATCHED_ARM, MIXED, OBJECTIVES, Run
from tension_utils.show.pages import ledger_page, overview, verdict_line
from tension_utils.statistics import seed_interval


def world(rates: dict[str, dict[str, float]], n: int = 200, seeds: int = 3, direction: str = "none") -> pd.DataFrame:
    """Items of both tests; a model gets those right whose difficulty is below its rate, the same with every seed."""
    rng = np.random.default_rng(0)
    difficulty = {group: rng.random(n) for group in ("helpful", "harmless")}
    parts = []
    for objective, by_group in rates.items():
        for group, rate in by_group.items():
            for seed in range(seeds):
                credit = (difficulty[group] < rate).astype(float)
                parts.append(
                    pd.DataFrame(
                        {
                            "base_model": "toy",
                            "objective": objective,
                            "seed": seed,
                            "benchmark": "hh-rlhf",
                            "subset": f"{group}-base",
                            "item_id": [f"{group}/{i}" for i in range(n)],
                            "cluster": [f"{group} {i}" for i in range(n)],
                            "group": group,
                            "direction": direction,
                            "margin": np.float32(2 * credit - 1),
                            "credit": credit,
                            "chance": 0.5,
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True)


TRUE = {
    "helpful": {"helpful": 0.9, "harmless": 0.3},
    "harmless": {"helpful": 0.3, "harmless": 0.9},
    MIXED: {"helpful": 0.6, "harmless": 0.6},
}
FALSE = TRUE | {MIXED: {"helpful": 0.98, "harmless": 0.98}}


def verdicts(evaluation: pd.DataFrame) -> dict[str, set[str]]:
    table = ledger_table(Evidence(evaluation))
    table = table[table.claim == "C1"]
    return {way: set(table[table.way == way].verdict) - {"not run"} for way in WAYS}


def test_a_true_claim_is_supported_and_a_false_one_is_not() -> None:
    assert verdicts(world(TRUE)) == {WAYS[0]: {"supported"}, WAYS[1]: {"supported"}}
    assert verdicts(world(FALSE)) == {WAYS[0]: {"not supported"}, WAYS[1]: {"not supported"}}


def test_no_difference_is_no_support_under_control() -> None:
    same = {objective: {"helpful": 0.7, "harmless": 0.7} for objective in OBJECTIVES}
    statements = mixing_under_control(Evidence(world(same)))
    assert {s.verdict for s in statements} == {"mixed", "not run"}


def test_subsets_weigh_the_same_as_published_and_ties_count_as_wrong() -> None:
    rows = []
    # Subset a: 1 item, mixed right, helpful wrong: +1. Subset b: 3 items, helpful right on all, mixed tied: -1.
    for subset, n, mixed, single in (("a", 1, 1.0, -1.0), ("b", 3, 0.0, 1.0)):
        for i in range(n):
            for objective, margin in ((MIXED, mixed), ("helpful", single), ("harmless", single)):
                rows.append(("helpful", subset, f"{subset}{i}", objective, margin))
    table = pd.DataFrame(rows, columns=["group", "subset", "item_id", "objective", "margin"])
    table = table.assign(benchmark="x", seed=0, direction="none")
    helpful, harmless = mixing_as_published(Evidence(table))
    assert helpful.value == pytest.approx(0) and helpful.n_items == 4 and helpful.verdict == "not supported"
    assert np.isnan(helpful.ci_low) and harmless.verdict == "not run" and "harmless test" in harmless.reason


def test_the_matched_arm_has_its_own_rows() -> None:
    without = mixing_under_control(Evidence(world(TRUE)))
    matched = [s for s in without if "as many pairs" in s.statistic]
    assert {s.verdict for s in matched} == {"not run"} and MATCHED_ARM in matched[0].reason
    rates = TRUE | {MATCHED_ARM: {"helpful": 0.98, "harmless": 0.98}}
    matched = [s for s in mixing_under_control(Evidence(world(rates))) if "as many pairs" in s.statistic]
    assert [s.verdict for s in matched] == ["not supported", "not supported"]
    assert all(s.ci_low <= s.value <= s.ci_high and s.n_items == 200 and s.n_seeds == 3 for s in matched)


def test_both_directions_of_safety_weigh_the_same() -> None:
    """A model that refuses everything is right on every refuse item: only the balanced accuracy tells."""
    refuse = world({o: {"harmless": r} for o, r in (("helpful", 0.1), ("harmless", 0.95), (MIXED, 0.7))}, n=300)
    respond = world({o: {"harmless": r} for o, r in (("helpful", 0.9), ("harmless", 0.05), (MIXED, 0.7))}, n=100)
    parts = [(refuse, "refuse"), (respond, "respond")]
    parts = [
        p.assign(benchmark="s", subset=d, direction=d, cluster=p.cluster + d, item_id=p.item_id + d) for p, d in parts
    ]
    balanced = [
        s for s in mixing_under_control(Evidence(pd.concat(parts, ignore_index=True))) if "balanced" in s.statistic
    ]
    assert [s.verdict for s in balanced] == ["not supported", "not supported"]
    assert [s.value for s in balanced] == pytest.approx([20, 20], abs=5)


def test_verdicts_follow_the_interval() -> None:
    assert [verdict_of(*pair) for pair in ((-2, -1), (-1, 1), (1, 2), (-1, 0))] == [
        "supported",
        "mixed",
        "not supported",
        "mixed",
    ]
    assert verdict_of(1, 2, is_claimed_negative=False) == "supported"
    assert overall_verdict(["supported", "not supported"]) == "mixed"
    assert overall_verdict(["not run", "not run"]) == "not run"


def test_every_claim_has_rows_and_nothing_disappears() -> None:
    table = ledger_table(Evidence(world(TRUE)))
    assert set(table.claim) == set(CLAIMS) and set(table.verdict) <= set(VERDICTS) and set(table.way) == set(WAYS)
    silent = table[(table.verdict == "not run") & (table.reason == "")]
    assert silent.empty
    with pytest.raises(ValueError, match="there is no evaluation of helpful-harmless"):
        ledger_table(Evidence(world({o: TRUE[o] for o in ("helpful", "harmless")})))


def test_pages_hold_every_statement_and_escape_nothing_by_hand() -> None:
    table = ledger_table(Evidence(world(TRUE)))
    page = ledger_page({"Real run": table, "Profile x": table}).replace("\xa0", " ")
    statements = statement_table(table[table.claim == "C1"])
    assert len(statements) == (table.claim == "C1").sum() and "(points)" not in "".join(statements.statement)
    for row in statements.itertuples():
        assert page.count(f"| {row.statement} | {row.result} | {row.verdict} |") == 2
    assert page.count(":::{dropdown} Profile x\n") == 1  # the second source is folded
    assert page.count("**Real run:** not run") == page.count("**Profile x:** not run") == 4  # C2 to C5
    assert verdict_line(table, "C1").endswith("as published **supported**, under control **supported**.")
    assert "+" in result_text(pd.Series(table.iloc[0]).replace({table.iloc[0].value: 3.0}))


def test_overview_has_both_verdicts_of_every_source() -> None:
    real, toy = (ledger_table(Evidence(world(rates))) for rates in (TRUE, FALSE))
    lines = overview({"Real run": real, "The embedded world": toy}).splitlines()
    assert lines[0] == (
        "| claim | real run, as published | real run, under control "
        "| the embedded world, as published | the embedded world, under control |"
    )
    assert [line.split(" | ")[1:] for line in lines[2:4]] == [
        ["supported", "supported", "not supported", "not supported |"],
        ["not run", "not run", "not run", "not run |"],
    ]
    assert len(lines) == 2 + len(CLAIMS) and "{ref}`C1. Mixing costs accuracy <claim-c1>`" in lines[2]


CHANGES = {  # set -> change in the share of right items on (own test, opposing test); both tests for the mixed model
    "true": {"rms_change": (-0.4, 0.3), "shared": (-0.4, -0.4), "only-helpful": (-0.1, -0.1)},
    "false": {"rms_change": (-0.1, 0.1), "shared": (-0.1, -0.1), "only-helpful": (-0.1, -0.1)},
}


def ablated(evaluation: pd.DataFrame, truth: str) -> pd.DataFrame:
    """Rows of ablation.parquet: sets change accuracy as `CHANGES` says, random ones toward chance by a tenth."""
    rng, parts = np.random.default_rng(1), []
    changes = CHANGES[truth] | {"only-harmless": CHANGES[truth]["only-helpful"]}
    for (objective, _), rows in evaluation.groupby(["objective", "seed"]):
        is_own = (rows.group == objective) | (objective == MIXED)
        families = [(name, family) for name in MIXED_SETS for family in ("natural", "equal-size")]
        for name, family in families if objective == MIXED else [("rms_change", "")]:
            of_set = np.where(is_own, *changes[name])
            of_random = np.where(is_own, -0.1, 0.1)
            for draw, change in enumerate([of_set, of_random, of_random]):
                flips = rng.random(len(rows)) < np.abs(change) / np.where(change < 0, rows.credit.mean(), 0.3)
                credit = np.where(flips, change > 0, rows.credit).astype(float)
                label = {"set": "random" if draw else name, "matched_to": name, "draw": max(0, draw - 1)}
                label |= {"family": family, "control": "layer" if draw else ""}
                setting = {"fraction": 0.1, "ablation_kind": "zero", "scale": 0.0, "n_neurons": 50}
                kept = rows.drop(columns=["group", "direction"])
                parts.append(kept.assign(credit=credit, margin=2 * credit - 1, **label, **setting))
    return pd.concat(parts, ignore_index=True)


MORE = {
    "helpful": {"helpful": 0.9, "harmless": 0.3},
    "harmless": {"helpful": 0.3, "harmless": 0.9},
    MIXED: {"helpful": 0.8, "harmless": 0.8},
}


@pytest.mark.parametrize("truth, expected", [("true", "supported"), ("false", "mixed")])
def test_removing_neurons_decides_only_beyond_random_sets(truth: str, expected: str) -> None:
    evaluation = world(MORE, n=400)
    evidence = Evidence(evaluation, ablated(evaluation, truth))
    for published, controlled in (FINDING, OPPOSITION, WEIGHT):
        if published is not WEIGHT[0] or truth == "true":  # sets that do the same differ by chance alone
            assert {s.verdict for s in published(evidence)} == {"supported"}
        found = [s for s in controlled(evidence) if "accuracy" in s.statistic]
        assert [s.verdict for s in found] == [expected] * 2, [result_text(pd.Series(vars(s))) for s in found]
        assert all(s.ci_low <= s.value <= s.ci_high and s.n_seeds == 3 for s in found)


def score_files(root: object, seeds: int, n_shared: int) -> tuple[Run, ...]:
    """Runs whose top ten of 100 neurons share ``n_shared``; the base model's top ten are the same on both texts."""
    runs = []
    for objective in ("helpful", "harmless"):
        for seed in range(seeds):
            run = Run(root, "toy", objective, seed)
            values = np.zeros((1, 100), np.float32)
            start = 0 if objective == "helpful" else 10 - n_shared
            values[0, start : start + 10] = 1
            base = np.zeros((1, 100), np.float32)
            base[0, :10] = 1
            folder = run.folder / "score_views"
            folder.mkdir(parents=True)
            own = {(kind, "both", "all"): values for kind in ("signed_mean", "rms_change")}
            NeuronScores(own, "down_input", 1, 1).save(run.folder / "neuron_scores.safetensors")
            loud = np.zeros((1, 100), np.float32)
            loud[0, :5] = loud[0, 95:] = 1  # five of the helpful model's ten, and five of nobody's
            of_base = {("signed_mean", "both", "all"): base, ("mean_abs", "both", "all"): loud + base / 2}
            NeuronScores(of_base, "down_input", 1, 1).save(folder / f"base-text-{objective}.safetensors")
            runs.append(run)
    return tuple(runs)


def test_sharing_is_judged_against_chance_and_against_the_base_model(tmp_path: object) -> None:
    evaluation = world(TRUE)
    evidence = Evidence(evaluation, ablated(evaluation, "true"), score_files(tmp_path, 2, 8))
    published, controlled = SHARING
    assert [s.value for s in published(evidence)] == pytest.approx([8 / 12])
    quiet, floor = controlled(evidence)
    # Loud are 0-4 and 95-99. Of the helpful 0-9 five are left, of the harmless 2-11 seven; they share five of 90.
    assert quiet.verdict == "supported" and quiet.value == pytest.approx(5 - 5 * 7 / 90) and quiet.n_items == 5
    assert floor.verdict == "not run" and "zero in the base model" in floor.reason  # a change score has no floor
    activations = Evidence(evaluation, None, evidence.runs)
    by_text = {s.statistic: s for s in controlled(activations)}
    below = next(s for name, s in by_text.items() if "signed_mean" in name and "Jaccard" in name)
    assert below.value == pytest.approx(8 / 12 - 1) and below.verdict == "not supported"
    one = Evidence(evaluation, None, tuple(run for run in evidence.runs if run.seed == 0))
    assert any("one seed" in s.reason for s in controlled(one))


def test_disjoint_sets_are_not_shared(tmp_path: object) -> None:
    evidence = Evidence(world(TRUE), None, score_files(tmp_path, 2, 0))
    beyond = [s for s in SHARING[1](evidence) if "chance" in s.statistic]
    assert {s.verdict for s in beyond} == {"not supported"}
    assert {s.verdict for s in SHARING[0](evidence)} == {"not supported"}


def test_the_seed_interval_is_students() -> None:
    """Mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.303."""
    assert seed_interval(pd.Series([1.0, 2.0, 3.0])) == pytest.approx(
        (2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3
    )
    assert all(np.isnan(seed_interval(pd.Series([1.0]))))
    assert seed_interval(pd.Series([2.0, 2.0])) == (2.0, 2.0)
