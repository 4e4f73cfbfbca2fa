"""The explorer's states: the numbers of the tables, in lists, drawings and words."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_ablation_tables import ablated, evaluation_of, with_draws

from tension_utils.analysis.findings import CLAIMS, WAYS
from tension_utils.analysis.removal import effect_table
from tension_utils.config import MATCHED_ARM, OBJECTIVES
from tension_utils.planted.rates import COUNTED, DESIGN, ENDPOINT, error_rates, read_study
from tension_utils.show.choices import Choices, embedded
from tension_utils.show.explorer import (
    DIGITS,
    UNITS,
    removal_choices,
    removal_effects,
    removal_sentence,
    removal_table,
    world_choices,
    world_rates,
    world_sentence,
    world_table,
)
from tension_utils.statistics import Bootstrap

ROOT = Path(__file__).parents[1]
HELPFUL, HARMLESS, MIXED = OBJECTIVES
KEYS = ["objective", "test", "set", "family", "fraction", "ablation_kind", "metric"]
VALUES = ["change", "change_ci_low", "change_ci_high", "control", "effect", "ci_low", "ci_high", "p_value"]


def removed(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Two scores at two fractions, all neurons, the mixed model's family, and another ablation kind."""
    mixed = evaluation[evaluation.objective == MIXED]
    parts = [
        with_draws(evaluation, name, 10 * i + j, fraction=fraction)
        for i, name in enumerate(("signed_mean", "rms_change"))
        for j, fraction in enumerate((0.1, 0.3))
    ]
    parts += [ablated(evaluation, "all", lambda rows: -rows.margin, fraction=1.0, n_neurons=40)]
    parts += [with_draws(evaluation, "rms_change", 50, ablation_kind="mean")]
    for i, name in enumerate(("shared", "only-helpful", "only-harmless")):
        parts += [with_draws(mixed, name, 60 + i, family="natural")]
        parts += [with_draws(mixed, name, 70 + i, n_neurons=2, family="equal-size")]
    return pd.concat(parts, ignore_index=True)


def scaled_and_matched(evaluation: pd.DataFrame) -> pd.DataFrame:
    """A scaled set, a set whose random ones match in activity alone, and a set without random ones."""
    parts = [with_draws(evaluation, "rms_change", 80, scale=0.5)]
    parts += [with_draws(evaluation, "contrast", 81, control="activity")]
    parts += [ablated(evaluation, "attribution", lambda rows: rows.margin)]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def evaluation() -> pd.DataFrame:
    return evaluation_of()


@pytest.fixture(scope="module")
def effects(evaluation) -> pd.DataFrame:
    return removal_effects(removed(evaluation), evaluation, Bootstrap(200))


@pytest.fixture(scope="module")
def choices(effects) -> Choices:
    return removal_choices(effects, "rms_change", 0.1)


def test_effects_are_those_of_chapter_four(evaluation, effects):
    table = effect_table(removed(evaluation), evaluation, bootstrap=Bootstrap(200))
    both = effects.merge(table, on=KEYS, suffixes=("", "_table"), validate="one_to_one")
    assert len(both) == len(effects) == len(table) == 2 * 3 * (3 * 5 + 6)
    for value in VALUES:
        assert both[value].to_numpy() == pytest.approx(both[f"{value}_table"].to_numpy(), nan_ok=True)
    assert (effects.p_value >= effects.smallest_p - 1e-12).all()
    assert (effects.smallest_p == 2 / (1 + effects.n_draws) ** effects.seed_changes.map(len)).all()


def test_further_sets_and_arms_leave_these_as_they_are(evaluation, effects):
    arm = evaluation[evaluation.objective == MIXED].assign(objective=MATCHED_ARM)
    everything = pd.concat([evaluation, arm])
    further = [scaled_and_matched(evaluation), with_draws(arm, "shared", 90, family="natural")]
    rows = pd.concat([removed(evaluation), *further])
    found = removal_effects(rows, everything, Bootstrap(200))
    is_old = found.objective.isin(OBJECTIVES) & (found.control_kind == "layer") & (found["scale"] == 0)
    pd.testing.assert_frame_equal(found[is_old].reset_index(drop=True), effects)
    new = found[~is_old]
    assert set(zip(new.objective, new.set, new["scale"], new.control_kind, strict=True)) == {
        *((name, "rms_change", 0.5, "layer") for name in OBJECTIVES),
        *((name, "contrast", 0.0, "activity") for name in OBJECTIVES),
        (MATCHED_ARM, "shared", 0.0, "layer"),
    }


def test_every_random_set_and_every_seed_is_a_plain_mean(evaluation, effects):
    intact = evaluation.set_index(["objective", "seed", "benchmark", "subset", "item_id"]).credit
    rows = removed(evaluation)
    rows = rows[rows.subset == "harmless-base"]
    gone = rows.set_index(["objective", "seed", "benchmark", "subset", "item_id"])
    rows = rows.assign(gone=gone.credit.to_numpy() - intact.loc[gone.index].to_numpy())
    own = (rows.matched_to == "rms_change") & (rows.fraction == 0.3) & (rows.objective == HELPFUL)
    row = effects[(effects.set == "rms_change") & (effects.fraction == 0.3) & (effects.objective == HELPFUL)]
    (row,) = row[(row.test == HARMLESS) & (row.metric == "accuracy")].itertuples()
    by_draw = rows[own & (rows.set == "random")].groupby("draw").gone.mean()
    by_seed = rows[own & (rows.set != "random")].groupby("seed").gone.mean()
    assert row.random_changes == pytest.approx(by_draw.to_list()) and len(row.random_changes) == row.n_draws == 3
    assert row.seed_changes == pytest.approx(by_seed.to_list())
    assert np.mean(row.seed_changes) == pytest.approx(row.change)
    assert np.mean(row.random_changes) == pytest.approx(row.control)


def test_without_random_sets_there_is_nothing_to_explore(evaluation):
    alone = ablated(evaluation, "all", lambda rows: rows.margin, fraction=1.0)
    with pytest.raises(ValueError, match="found none: run chapter 4 first"):
        removal_effects(alone, evaluation)


def offered(payload: dict, chosen: list[int]) -> set[int]:
    """Options of the next list after some choices, as `choices.js` finds them."""
    n = len(chosen)
    return {state["at"][n] for state in payload["states"] if state["at"][:n] == chosen}


@pytest.mark.parametrize("name", ["removals", "worlds"])
def test_every_offered_choice_leads_to_a_state_and_every_state_can_be_chosen(name, choices):
    payload = json.loads(embedded((choices if name == "removals" else planted()).payload))
    reached = []

    def walk(chosen: list[int]) -> None:
        if len(chosen) == len(payload["controls"]):
            reached.append(tuple(chosen))
            return
        options = offered(payload, chosen)
        assert options, "an empty list"
        for option in options:
            walk([*chosen, option])

    walk([])
    assert len(reached) == len(set(reached)) == len(payload["states"]) > 50
    assert set(reached) == {tuple(state["at"]) for state in payload["states"]}


def test_lists_leave_out_what_is_the_same_everywhere(choices):
    lists = {control["name"]: control["options"] for control in choices.payload["controls"]}
    assert list(lists) == ["Reward model", "Its neurons", "Share of all", "Activations", "Test", "Measured by"]
    assert lists["Reward model"] == [HELPFUL, HARMLESS, MIXED]
    assert lists["Its neurons"][:3] == ["top by rms_change", "top by signed_mean", "shared"]
    assert lists["Activations"] == ["set to zero", "set to their mean"] and lists["Test"] == [HELPFUL, HARMLESS, "both"]


def test_the_first_state_is_the_one_asked_for(choices):
    assert (
        choices.states[choices.start]["say"].startswith("The helpful model without its top 10\xa0% by rms_change")
        and "on the helpful test" in choices.states[choices.start]["say"]
    )


def test_numbers_of_the_drawing_are_those_of_the_table(effects, choices):
    table = removal_table(effects)
    assert len(table) == len(choices.states) == len(effects)
    for row, state in zip(table.itertuples(), choices.states, strict=True):
        factor, digits, _ = UNITS[row.metric]
        numbers = [row.change, row.change_ci_low, row.change_ci_high]
        assert state["set"] == pytest.approx([factor * number for number in numbers], rel=10.0 ** (1 - DIGITS))
        assert np.mean(state["random"]) == pytest.approx(factor * row.control, rel=1e-3, abs=1e-4)
        assert len(state["random"]) == row.n_draws and len(state["seeds"]) == row.n_seeds
        assert f"{factor * row.effect:+z.{digits}f}" in state["say"], "the sentence has the effect"
        assert f"n\xa0=\xa0{row.n_items}." in state["say"]


SENTENCE_ROW = {
    "objective": HELPFUL, "set": "rms_change", "family": "", "fraction": 0.1, "ablation_kind": "zero", "scale": 0.0,
    "control_kind": "layer", "test": HELPFUL, "metric": "accuracy", "change": -0.071, "change_ci_low": -0.09,
    "change_ci_high": -0.05, "control": -0.02, "random_changes": [-0.044, 0.004], "effect": -0.051, "ci_low": -0.07,
    "ci_high": -0.03, "p_value": 0.004, "n_draws": 12, "n_neurons": 139.0, "n_seeds": 3, "n_items": 250,
}  # fmt: skip


def sentence_of(**values: object) -> str:
    return removal_sentence(pd.Series(SENTENCE_ROW | values))


def test_a_removal_in_words():
    assert sentence_of() == (
        "The helpful model without its top 10\xa0% by rms_change loses 7.1 points on the helpful test [-9.0, -5.0]; 12 "
        "random sets, as many in every layer, lose 2.0 on average (-4.4 to +0.4). Beyond them -5.1 points "
        "[-7.0, -3.0], p = 0.004: unusual among random sets. 139 neurons, 3 runs, n\xa0=\xa0250."
    )
    alike = sentence_of(change=0.0, change_ci_low=0.0, change_ci_high=-0.0)
    assert "gains 0.0 points on the helpful test [less than 0.1 wide]; 12 random" in alike
    assert "p = 0.051: not unusual" in sentence_of(p_value=0.051)
    assert "p <\xa00.001: unusual" in sentence_of(p_value=1e-5)
    shared = {"set": "shared", "family": "equal-size", "objective": MIXED, "test": MIXED}
    assert "without its shared, equal size neurons gains 3.0 points on both tests" in sentence_of(change=0.03, **shared)
    half = sentence_of(scale=0.5, metric="margin", change=0.25)
    assert "with its top 10\xa0% by rms_change times 0.5 gains 0.25 SD of its margins on the helpful test" in half
    assert "with its top 10\xa0% by rms_change set to their mean" in sentence_of(ablation_kind="mean")


# Planted worlds ------------------------------------------------------------------------------------------------------


def counts(**columns: object) -> pd.DataFrame:
    """Counts of the deciding test of C2 in two kinds of worlds, and of another that does not decide."""
    names = dict.fromkeys(ENDPOINT, "") | {
        "claim": "C2", "way": WAYS[1], "is_primary": True, "quantity": "removal", "metric": "margin", "arm": "single",
        "test": "own", "neuron_set": "top 10 %", "score_kind": "rms_change", "control": "layer",
    }  # fmt: skip
    rows = [
        names
        | {"scenario": scenario, "is_true": is_true, "n_seeds": n_seeds, "n_items": 80, "n_draws": 12, "n_worlds": 25}
        | {"n_supported": n, "n_refuted": 5, "n_contradictory": 0, "value": 0.1}
        for n_seeds in (1, 3)
        for scenario, is_true, n in (("quiet", True, 20), ("loud", False, 1))
    ]
    table = pd.DataFrame(rows).assign(**columns)
    return pd.concat([table, table.assign(is_primary=False, metric="accuracy", n_supported=25)], ignore_index=True)


def committed_claims() -> pd.DataFrame:
    """Counts of the committed worlds."""
    return read_study(ROOT / "results" / "planted")[0]["claims"]


def planted() -> Choices:
    """The choices of the committed worlds."""
    return world_choices(committed_claims())


def test_worlds_by_hand():
    dial = world_choices(counts())
    assert [control["name"] for control in dial.payload["controls"]] == ["Training runs", "Kind of world"]
    assert len(dial.states) == 4, "tests that do not decide are left out"
    bars = dial.shared["bars"][dial.states[0]["bars"]]
    assert [(bar[0], bar[1], bar[4], bar[5]) for bar in bars] == [("quiet", 0.8, 25, True), ("loud", 0.04, 25, False)]
    assert bars[1][2:4] == pytest.approx([0.0071, 0.1954], abs=1e-4), "Wilson's interval of 1 of 25"
    loud = next(state for state in dial.states if state["marked"] == 1)
    assert loud["say"] == (
        "In loud worlds, where C2 is false, this test wrongly says “supported” in 4 % (1 of 25 worlds; 95 % interval "
        "1 to 20 %), and “refuted” in 20 %. It says “supported” in 80 % of all worlds where it is true and in 4 % of "
        "all worlds where it is false."
    )
    assert dial.labels.iloc[0].to_dict() == {
        "Claim": f"C2. {CLAIMS['C2'].title}",
        "Read": "under control",
        "Test": "single-objective models without their top 10 % by rms_change, own test, beyond matched random sets of "
        "the same layers, margin",
        "Items": "80 items, 12 random sets",
        "Training runs": "3",
        "Kind of world": "quiet (claim true)",
    }


def test_a_kind_of_world_without_the_other_truth_says_only_what_is_known():
    only = counts()
    (row,) = world_rates(only[only.is_true & (only.n_seeds == 1)]).itertuples()
    pooled = pd.Series({"power": 0.8, "false_positives": np.nan})
    assert world_sentence(row, pooled).endswith("It says “supported” in 80 % of all worlds where it is true.")


def test_a_further_column_of_the_worlds_becomes_a_list():
    both = pd.concat([counts(loudness="x1"), counts(loudness="x4", n_supported=2)], ignore_index=True)
    lists = {control["name"]: control["options"] for control in world_choices(both).payload["controls"]}
    assert lists["loudness"] == ["x1", "x4"]


def test_bars_are_the_counts_of_the_committed_worlds():
    claims = committed_claims()
    dial, table, deciding = planted(), world_table(claims), claims[claims.is_primary]
    assert len(dial.states) == len(table) == len(deciding)
    for (_, row), state, labels in zip(table.iterrows(), dial.states, dial.labels.to_dict("records"), strict=True):
        assert labels["Kind of world"].startswith(row.scenario) and row.test == labels["Test"]
        bar = dial.shared["bars"][state["bars"]][state["marked"]]
        assert bar[0] == row.scenario and bar[1] == pytest.approx(row.rate, rel=1e-4) and bar[5] == row.is_true
    assert sum(bar[1] * bar[4] for bars in dial.shared["bars"] for bar in bars) == pytest.approx(
        deciding.n_supported.sum(), rel=1e-4
    )
    rates = error_rates(deciding).set_index([*ENDPOINT, *DESIGN])
    row = world_rates(claims).iloc[0]
    power = rates.power[tuple(row[name] for name in (*ENDPOINT, *DESIGN))]
    assert f"{100 * power:.0f} % of all worlds where it is true" in dial.states[0]["say"]
    assert set(COUNTED) <= set(claims)
