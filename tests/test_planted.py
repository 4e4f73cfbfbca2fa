"""The planted truth: the plant is real, finders count by hand, false worlds are false, the study resumes."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tension_utils.ablation import ablated
from tension_utils.activations import KINDS
from tension_utils.analysis.claims import error_rates, ledger_rates, read_study
from tension_utils.analysis.overlap import shared_count_p_value
from tension_utils.conditions import EQUAL_SIZE, NATURAL, ONLY, SHARED
from tension_utils.config import MIXED, OBJECTIVES, SINGLE_OBJECTIVES
from tension_utils.evaluation import score_items
from tension_utils.neurons import NeuronSet
from tension_utils.planted import study as planted_study
from tension_utils.planted.model import reward_model, verify_plant
from tension_utils.planted.study import (
    BOTH,
    INTERVAL,
    PLANT,
    RAW,
    READINGS,
    TEST_KINDS,
    PlantedWorld,
    StudyConfig,
    ablation_rows,
    claim_rates,
    credits,
    decide_effects,
    decide_overlap,
    decide_weight,
    decide_world,
    finder_rates,
    finder_table,
    ranking_quality,
    removal_changes,
    run_worlds,
)
from tension_utils.planted.world import (
    MAX_LENGTH,
    SCENARIOS,
    SHAPE,
    WORDS,
    WorldConfig,
    draw_world,
    neuron_groups,
    planted_sets,
    preference_items,
    true_neurons,
)
from tension_utils.statistics import seed_interval

SMALL = StudyConfig(n_items=6, n_text=4, n_seeds=1, n_draws=2)
planted_scenarios = pytest.mark.parametrize("scenario", [name for name, rules in SCENARIOS.items() if rules.is_planted])
empty_scenarios = pytest.mark.parametrize(
    "scenario", [name for name, rules in SCENARIOS.items() if not rules.is_planted]
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def world() -> PlantedWorld:
    return PlantedWorld(WorldConfig(3, loudness=2.0), n_items=60)


# The truth.


@planted_scenarios
def test_planted_sets_are_disjoint_and_of_the_declared_sizes(scenario: str) -> None:
    config, sets = WorldConfig(0, scenario), planted_sets(WorldConfig(0, scenario))
    sizes = (config.rules.n_only, config.rules.n_only, config.rules.n_shared)
    assert tuple(map(len, sets.values())) == sizes
    assert len(true_neurons(config, MIXED)) == sum(sizes)
    for objective in SINGLE_OBJECTIVES:
        assert true_neurons(config, objective) == sets[SHARED] | sets[ONLY[objective]]


def test_groups_hold_four_neurons_or_one() -> None:
    for groups in neuron_groups(WorldConfig(1)):
        sizes = np.bincount(groups)
        assert sizes.sum() == SHAPE[1] and set(sizes.tolist()) == {1, 4} and (sizes == 1).sum() == 12


def test_scenarios_that_carry_nothing_in_neurons_plant_none() -> None:
    assert not len(true_neurons(WorldConfig(0, "direct"), MIXED))


# The plant is real.


@planted_scenarios
def test_removing_a_plant_changes_what_it_should_and_nothing_else(scenario: str) -> None:
    table = verify_plant(WorldConfig(5, scenario), n_items=60).set_index(["set", "test"])
    for single, other in (SINGLE_OBJECTIVES, SINGLE_OBJECTIVES[::-1]):
        assert table.margin_change[ONLY[single], single] < -0.2
        assert table.largest_change[ONLY[single], other] < 0.05
        if SCENARIOS[scenario].n_shared:
            assert table.margin_change[SHARED, single] < -0.4
        assert abs(table.accuracy["planted", single] - 0.5) < 0.2, "without its carriers a model guesses"
        assert table.accuracy["everything else", single] > 0.75
        assert table.rank_correlation["everything else", single] > 0.98
        assert abs(table.accuracy_change["everything else", single]) < 0.05


@pytest.mark.parametrize("objective", SINGLE_OBJECTIVES)
def test_a_single_model_carries_its_own_objective_alone(objective: str) -> None:
    table = verify_plant(WorldConfig(6, "even"), objective, n_items=60).set_index(["set", "test"])
    (other,) = set(SINGLE_OBJECTIVES) - {objective}
    assert table.n_neurons[ONLY[other]].eq(0).all()
    assert table.accuracy_change["planted", objective] < -0.2
    assert abs(table.accuracy_change["planted", other]) < 0.1


def test_a_planted_neuron_is_active_and_adds_to_the_reward_as_the_formula_says() -> None:
    config = WorldConfig(2, drift=0.0)
    world = PlantedWorld(config, n_items=10)
    model = world.model("helpful")
    layer, index = planted_sets(config)[ONLY["helpful"]].neurons[0]
    mlp, found = model.model.layers[layer].mlp, {}
    hook = mlp.down_proj.register_forward_pre_hook(lambda _, inputs: found.update(a=inputs[0][:, -1, index]))
    ids = world.tokens.flatten(0, 1)  # (20, 15)
    with torch.no_grad():
        intact = model(ids).logits[:, 0]
        activation = found["a"].clone()
        with ablated(model, NeuronSet.of(SHAPE, [(layer, index)])):
            contribution = (intact - model(ids).logits[:, 0]).numpy()
    hook.remove()
    good, bad = (world.tokenizer.convert_tokens_to_ids(list(words)) for words in WORDS["helpful"])
    feature = 6.0 * (np.isin(ids, good).mean(axis=1) - np.isin(ids, bad).mean(axis=1))  # f, by hand
    (sign,), (bias, size) = (np.sign(mlp.down_proj.weight[1, [index]].detach().numpy()),
                             [5.0 * part.weight[index, 0].item() for part in (mlp.gate_proj, mlp.up_proj)])  # fmt: skip
    sign *= np.sign(size)
    gate = 2.0 * sign * feature + bias
    np.testing.assert_allclose(activation, size * gate / (1 + np.exp(-gate)), rtol=0.3, atol=0.05 * abs(size))
    written = activation.numpy() * mlp.down_proj.weight[1, index].item()
    assert feature.std() > 0.1 and np.ptp(written) > 0
    np.testing.assert_allclose(contribution, written, rtol=0.1, atol=0.003)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_drift_leaves_rewards_alone_and_untrained_groups_cancel(scenario: str) -> None:
    config = WorldConfig(4, scenario, drift=0.0)
    quiet, drifted = (PlantedWorld(each, n_items=20) for each in (config, replace(config, drift=0.4)))
    for objective in OBJECTIVES:
        margins = [each.margins(each.model(objective)) for each in (quiet, drifted)]
        assert np.abs(margins[0] - margins[1]).max() < 0.3 * margins[0].std()
    other = PlantedWorld(replace(config, damage=0.0), n_items=20)
    assert np.abs(quiet.margins(quiet.base) - other.margins(other.base)).max() < 1e-3


def test_removing_a_member_of_a_group_leaves_noise_and_removing_the_group_none(world: PlantedWorld) -> None:
    layer, groups = 0, neuron_groups(world.config)[0]
    members = np.flatnonzero(groups == 0)
    intact = world.margins(world.base)
    with ablated(world.base, NeuronSet.of(SHAPE, [(layer, int(members[0]))])):
        one = np.abs(world.margins(world.base) - intact).max()
    with ablated(world.base, NeuronSet.of(SHAPE, [(layer, int(index)) for index in members])):
        whole = np.abs(world.margins(world.base) - intact).max()
    assert whole < 0.2 * one


# Items and determinism.


@given(seed=st.integers(0, 50), objective=st.sampled_from(SINGLE_OBJECTIVES), conflict=st.floats(0, 1))
def test_the_chosen_response_has_more_of_the_feature(seed: int, objective: str, conflict: float) -> None:
    (other,) = set(SINGLE_OBJECTIVES) - {objective}
    for item in preference_items(WorldConfig(seed), objective, 5, conflict=conflict):
        count = {
            (side, each): sum((word in WORDS[each][0]) - (word in WORDS[each][1]) for word in response.split())
            for side, response in (("chosen", item.chosen[0]), ("rejected", item.rejected[0]))
            for each in SINGLE_OBJECTIVES
        }
        assert 1 <= count["chosen", objective] - count["rejected", objective] <= 3
        assert count["chosen", other] == 0 and 0 <= count["rejected", other] <= 1
        if conflict in (0, 1):
            assert count["rejected", other] == conflict


def test_worlds_are_deterministic_by_seed_and_differ_between_seeds() -> None:
    first, again, other = (PlantedWorld(WorldConfig(seed), n_items=5) for seed in (7, 7, 8))
    for objective in OBJECTIVES:
        a, b = (each.model(objective).state_dict() for each in (first, again))
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert first.place.equals(again.place) and torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.tokens, other.tokens)
    assert planted_sets(first.config)[SHARED] != planted_sets(other.config)[SHARED]
    assert draw_world(3, "even") == replace(draw_world(3, "planted"), scenario="even"), "scenarios share their knobs"


def test_seeds_of_a_world_share_the_plant_and_differ_in_drift(world: PlantedWorld) -> None:
    first, second = (world.model("helpful", seed) for seed in (0, 1))
    downs = [each.model.layers[1].mlp.up_proj.weight for each in (first, second)]
    assert not torch.equal(*downs)
    assert true_neurons(world.config, "helpful") == true_neurons(world.config, "helpful")


def test_plain_forward_gives_the_rewards_of_the_engine(world: PlantedWorld) -> None:
    model, items = world.model("helpful"), preference_items(world.config, "helpful", 60)
    slow = [each.margin for each in score_items(model, world.tokenizer, items, max_length=MAX_LENGTH, progress=False)]
    np.testing.assert_allclose(world.margins(model)[:60], slow, atol=1e-5)
    assert credits(np.array([0.5, -1.0, 0.0])).tolist() == [1.0, 0.0, 0.5]


# Finders.


def test_precision_by_hand_on_two_layers() -> None:
    scores = np.array([[9.0, 1.0, 7.0, 0.0], [8.0, 6.0, 2.0, 3.0]])  # order: 00, 10, 02, 11, 13, 12, 01, 03
    truth = NeuronSet.of((2, 4), [(0, 0), (0, 2), (1, 1)])
    quality = ranking_quality(scores, truth)
    assert quality["precision"] == pytest.approx(2 / 3)  # of 00, 10, 02 two are true
    assert quality["recall_twice"] == 1.0
    assert quality["average_precision"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 4) / 3)
    assert quality["chance"] == 3 / 8 and quality["n_true"] == 3


@given(scores=hnp.arrays(np.float32, (2, 5), elements=st.floats(-3, 3, width=32)), mask=hnp.arrays(bool, (2, 5)))
def test_ranking_quality_against_a_slow_count(scores: np.ndarray, mask: np.ndarray) -> None:
    if not mask.any():
        mask[0, 0] = True
    truth = NeuronSet(mask)
    order = sorted(range(10), key=lambda i: (-scores.ravel()[i], i))
    hits = [bool(mask.ravel()[i]) for i in order]
    n = len(truth)
    quality = ranking_quality(scores, truth)
    assert quality["precision"] == pytest.approx(sum(hits[:n]) / n)
    assert quality["recall_twice"] == pytest.approx(sum(hits[: 2 * n]) / n)
    slow = [sum(hits[: rank + 1]) / (rank + 1) for rank in range(10) if hits[rank]]
    assert quality["average_precision"] == pytest.approx(np.mean(slow))


def test_finders_rank_loud_plants_and_random_scores_do_not() -> None:
    loud = PlantedWorld(WorldConfig(9, loudness=8.0, drift=0.05))
    table = finder_table(loud)
    assert len(table) == len(OBJECTIVES) * 2 * len(KINDS) and set(table.score_kind) == set(KINDS)
    by_kind = table[table.site == "down_input"].groupby("score_kind").precision.mean()
    assert by_kind["rms_change"] > 0.9 and by_kind["relative_change"] > 0.9 and by_kind["mean_abs"] > 0.6
    assert by_kind["contrast"] < 0.8 < by_kind["absolute_contrast"], "some neurons support by being less active"
    generator, truth = np.random.default_rng(0), true_neurons(loud.config, MIXED)
    random = [ranking_quality(generator.normal(size=SHAPE), truth)["precision"] for _ in range(200)]
    assert np.mean(random) == pytest.approx(truth.fraction, abs=0.03)


def test_quiet_plants_hide_from_activation_but_not_from_change() -> None:
    quiet = PlantedWorld(WorldConfig(9, loudness=0.5, drift=0.05))
    truth = true_neurons(quiet.config, "helpful")
    found = {kind: ranking_quality(quiet.scores("helpful")[kind], truth)["precision"] for kind in TEST_KINDS}
    assert found["mean_abs"] < 0.3 < 0.6 < found["rms_change"]


# Claims: false worlds are really false, and true ones true, with the true sets and many items.


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_neurons_carry_the_objective_exactly_where_c2_and_c3_say_so(scenario: str) -> None:
    config = WorldConfig(11, scenario, damage=0.1)
    world = PlantedWorld(config, n_items=200)
    model = world.model("helpful")
    is_own = (world.place.group == "helpful").to_numpy()
    before = credits(world.margins(model))
    removed = true_neurons(config, "helpful") if config.rules.is_planted else world.top("rms_change", "helpful")
    with ablated(model, removed):
        change = credits(world.margins(model)) - before
    assert (change[is_own].mean() < -0.2) == config.rules.truth["C2"]
    assert (change[~is_own].mean() > 0.08) == config.rules.truth["C3"]


@pytest.mark.parametrize("scenario", [name for name, rules in SCENARIOS.items() if "C4" in rules.truth])
def test_objectives_share_carriers_exactly_where_c4_says_so(scenario: str) -> None:
    config = WorldConfig(0, scenario)
    own = [true_neurons(config, objective) for objective in SINGLE_OBJECTIVES]
    assert (len(own[0] & own[1]) > 0) == config.rules.truth["C4"]


@pytest.mark.parametrize("scenario", [name for name, rules in SCENARIOS.items() if "C5" in rules.truth])
def test_a_shared_neuron_weighs_more_exactly_where_c5_says_so(scenario: str) -> None:
    world = PlantedWorld(WorldConfig(12, scenario, conflict=0.8), n_items=200)
    changes = removal_changes(world, PLANT, 1)
    means = changes.groupby(["family", "group", "set"]).margin.mean()
    natural, equal = means[NATURAL], means[EQUAL_SIZE]
    ratios = [equal[single, SHARED] / equal[single, ONLY[single]] for single in SINGLE_OBJECTIVES]
    assert (min(ratios) > 1.3) == world.config.rules.truth["C5"]
    if not world.config.rules.truth["C5"]:
        assert max(ratios) < 1.3
        assert natural["helpful", SHARED] / natural["helpful", ONLY["helpful"]] > 1.5, "there are more of them"


def test_effects_decide_by_the_sign_that_the_claim_names(world: PlantedWorld) -> None:
    decisions = pd.DataFrame([asdict(each) for each in decide_effects(*ablation_rows(world, 1, 3))])
    assert set(decisions.claim) == {"C2", "C3"} and set(decisions.n_seeds) == {1}
    raw = decisions[decisions.reading == RAW].set_index(["claim", "score_kind"])
    for (claim, _), row in raw.iterrows():
        assert row.is_supported == (row.value < 0 if claim == "C2" else row.value > 0)
    rank = decisions[decisions.reading == "interval and rank"]
    assert not rank.is_supported.any(), "three draws cannot make a rank significant"
    clear = decisions[(decisions.reading == INTERVAL) & decisions.is_supported]
    assert {("C2", "rms_change"), ("C3", "rms_change")} <= set(zip(clear.claim, clear.score_kind, strict=True))


def test_overlap_decisions_follow_the_sets(world: PlantedWorld) -> None:
    found = {(each.score_kind, each.reading): each for each in decide_overlap(world, 1)}
    assert found["rms_change", "chance"].is_supported and found["relative_change", "chance"].is_supported
    assert not found["mean_abs", "chance and base floor"].is_supported
    assert found["mean_abs", "chance"].value == found["mean_abs", "half is shared"].value
    assert found["mean_abs", "half is shared"].is_supported == (found["mean_abs", "chance"].value >= 1 / 3)
    assert {("C4", reading) for _, reading in found} <= set(READINGS)


def test_the_p_value_outside_a_set_is_the_plain_one_where_the_set_is_empty(world: PlantedWorld) -> None:
    pair = [world.top("rms_change", objective) for objective in SINGLE_OBJECTIVES]
    nothing, everything = NeuronSet.of(SHAPE, []), NeuronSet(np.ones(SHAPE, bool))
    assert shared_count_p_value(*pair, nothing) == shared_count_p_value(*pair)
    assert shared_count_p_value(*pair, everything) == 1.0


def changes_by_hand(shared: float, only: float) -> pd.DataFrame:
    """Four items per test; removal changes margin and accuracy by a constant plus a little."""
    rows = []
    for test in SINGLE_OBJECTIVES:
        for number in range(4):
            for name in (SHARED, *ONLY.values()):
                for family in (NATURAL, EQUAL_SIZE):
                    value = (shared if name == SHARED else only * (ONLY[test] == name)) + 0.01 * number
                    place = {"benchmark": "b", "subset": test, "item_id": f"{test}{number}", "group": test}
                    place |= {"cluster": f"{test}{number}", "base_model": "m", "seed": 0, "set": name, "family": family}
                    rows.append(place | {"accuracy": value, "margin": value})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("shared", "only", "own", "both"), [(-0.5, -0.3, True, True), (-0.3, -0.3, False, True)])
def test_on_both_tests_a_shared_neuron_seems_heavier_than_one_of_the_same_weight(shared, only, own, both) -> None:
    found = {(each.reading, each.metric): each for each in decide_weight(changes_by_hand(shared, only), "hand")}
    assert found[INTERVAL, "margin"].is_supported == own
    assert found[INTERVAL, "margin"].value == pytest.approx(shared - only)
    assert found[BOTH, "margin"].value == pytest.approx(shared - only / 2)
    assert found[RAW, "accuracy"].is_supported == both


def test_an_empty_set_supports_no_claim_on_weight() -> None:
    changes = changes_by_hand(-0.5, -0.1)
    decisions = list(
        decide_weight(changes[~((changes.set == ONLY["harmless"]) & (changes.family == EQUAL_SIZE))], "hand")
    )
    assert len(decisions) == 5 and not any(each.is_supported for each in decisions)
    assert all(np.isnan(each.value) for each in decisions)


def test_a_world_decides_the_claims_it_has_a_truth_for() -> None:
    for scenario, rules in SCENARIOS.items():
        decisions = decide_world(PlantedWorld(WorldConfig(0, scenario), 6, 4), n_seeds=1, n_draws=2)
        assert {each.claim for each in decisions} == set(rules.truth)
        assert {(each.claim, each.reading) for each in decisions} <= set(READINGS)


# The study.


@pytest.fixture
def few_scenarios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted_study, "SCENARIOS", {name: SCENARIOS[name] for name in ("planted", "loud")})


@pytest.mark.usefixtures("few_scenarios")
def test_study_resumes_and_gives_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = run_worlds(1, SMALL, tmp_path / "work", progress=False)
    stopped = tmp_path / "work" / "loud-0.json"
    stopped.unlink()
    calls, real = [], planted_study.study_world
    monkeypatch.setattr(planted_study, "study_world", lambda *place: calls.append(place) or real(*place))
    again = run_worlds(1, SMALL, tmp_path / "work", progress=False)
    assert [place[:2] for place in calls] == [(0, "loud")]
    for first, second in zip(one, again, strict=True):
        assert {**first, "seconds": 0} == {**json.loads(json.dumps(second)), "seconds": 0}
    monkeypatch.setattr(planted_study, "study_world", lambda *place: calls.append(place) or {})
    run_worlds(1, replace(SMALL, n_text=5), tmp_path / "work", progress=False)
    assert len(calls) == 1 + 2, "other sizes make kept worlds stale"


def test_rates_by_hand() -> None:
    decision = {"claim": "C2", "way": "under control", "reading": RAW, "metric": "accuracy", "score_kind": "rms_change"}
    worlds = [
        {
            "world": {"seed": seed, "scenario": scenario, "loudness": 0.7 if seed else 2.0},
            "decisions": [decision | {"n_seeds": 1, "value": -0.1 * seed, "is_supported": seed > 0}],
            "finders": [{"site": "gate", "score_kind": "rms", "precision": seed / 4, "recall_twice": 1.0,
                         "average_precision": 0.5, "chance": 0.1}],
        }
        for seed in range(4)
        for scenario in ("planted", "direct")
    ]  # fmt: skip
    rates = claim_rates(worlds).set_index("is_true")
    assert rates.scenario.to_dict() == {True: "planted", False: "direct"}
    assert rates.n_supported.tolist() == [3, 3] and rates.rate.tolist() == [0.75, 0.75]
    assert rates.ci_low[True] == pytest.approx(0.3006, abs=1e-3) and rates.ci_high[True] == pytest.approx(
        0.9544, abs=1e-3
    )
    finders = finder_rates(worlds[::2]).set_index("plant")
    assert finders.n_worlds.to_dict() == {"all": 4, "quiet": 3, "loud": 1}
    assert finders.precision["all"] == pytest.approx(0.375) and finders.precision["quiet"] == pytest.approx(0.5)
    assert np.isnan(finders.ci_low["loud"]) and np.isnan(seed_interval(np.ones(1))[0])


@pytest.mark.usefixtures("few_scenarios")
def test_command_writes_tables_that_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted_study, "StudyConfig", lambda: SMALL)
    arguments = ["study", "--worlds", "1", "--output", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", arguments)
    planted_study.main()
    tables, manifest = read_study(tmp_path / "out")
    assert manifest["n_worlds"] == 1 and manifest["config"] == asdict(SMALL)
    assert set(tables["claims"].claim) == set(SCENARIOS["planted"].truth) and len(tables["worlds"]) == 1
    assert tables["claims"].n_worlds.eq(1).all() and tables["claims"].rate.isin([0, 1]).all()
    assert set(tables["finders"].score_kind) == set(KINDS)


# Bad input.


@pytest.mark.parametrize(
    ("knobs", "name"),
    [
        ({"seed": -1}, "seed"),
        ({"scenario": "other"}, "scenario"),
        ({"loudness": 0.0}, "loudness"),
        ({"drift": 2.0}, "drift"),
        ({"conflict": -0.1}, "conflict"),
        ({"damage": -1.0}, "damage"),
    ],
)
def test_bad_knobs_are_named(knobs: dict, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        WorldConfig(**{"seed": 0, **knobs})


def test_bad_requests_say_what_was_expected(world: PlantedWorld, tmp_path: Path, monkeypatch, capsys) -> None:
    with pytest.raises(ValueError, match="objective: expected one of helpful"):
        reward_model(world.base, world.config, "kind")
    with pytest.raises(ValueError, match="objective"):
        preference_items(world.config, MIXED, 3)
    with pytest.raises(ValueError, match="n_items"):
        preference_items(world.config, "helpful", 0)
    with pytest.raises(ValueError, match="no planted neurons; take one of planted, even, separate"):
        verify_plant(WorldConfig(0, "direct"))
    with pytest.raises(ValueError, match="nothing is planted"):
        ranking_quality(np.zeros(SHAPE), NeuronSet.of(SHAPE, []))
    with pytest.raises(ValueError, match="n_draws"):
        StudyConfig(n_draws=0)
    with pytest.raises(FileNotFoundError, match="tension_utils.planted.study --worlds 100"):
        read_study(tmp_path)
    monkeypatch.setattr(sys, "argv", ["study", "--worlds", "0", "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        planted_study.main()
    assert "n_worlds" in capsys.readouterr().err and not (tmp_path / "out").exists()


# What is committed.


def test_committed_study_has_a_hundred_worlds() -> None:
    tables, manifest = read_study(Path(__file__).parents[1] / "results" / "planted")
    assert manifest["n_worlds"] >= 100 and len(tables["worlds"]) == manifest["n_worlds"]
    claims = tables["claims"]
    assert (claims.n_worlds == manifest["n_worlds"]).all() and claims.rate.between(claims.ci_low, claims.ci_high).all()
    truths = {(claim, is_true) for rules in SCENARIOS.values() for claim, is_true in rules.truth.items()}
    assert set(zip(claims.claim, claims.is_true, strict=True)) == truths
    assert set(tables["finders"].score_kind) == set(KINDS)


def test_ledger_rates_pool_worlds_of_one_truth() -> None:
    claims = read_study(Path(__file__).parents[1] / "results" / "planted")[0]["claims"]
    rates = ledger_rates(claims, ["rms_change"]).set_index(["claim", "way", "metric"])
    assert set(rates.score_kind) == {"rms_change"} and {claim for claim, *_ in rates.index} == {"C2", "C3", "C4", "C5"}
    last = claims.n_seeds.max()
    here = claims[(claims.claim == "C2") & (claims.reading == "interval") & (claims.metric == "margin")]
    here = here[(here.score_kind == "rms_change") & (here.n_seeds == last)]
    for truth, name in ((True, "power"), (False, "false_positives")):
        part, row = here[here.is_true == truth], rates.loc["C2", "under control", "margin"]
        assert row[name] == pytest.approx(part.n_supported.sum() / part.n_worlds.sum())
        assert row[f"n_worlds_{name}"] == part.n_worlds.sum() and row[f"{name}_ci_low"] < row[name]
    only_true = error_rates(here[here.is_true])
    assert "false_positives" not in only_true or only_true.false_positives.isna().all()
