"""The planted truth: the plant is real, finders count by hand, false worlds are false, the ledger judges them."""

import json
import sys
from contextlib import nullcontext
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
from tension_utils.analysis import claims
from tension_utils.analysis.claims import Evidence
from tension_utils.analysis.findings import CLAIMS, POINTS, SD, SMALLEST
from tension_utils.artifacts import OWN_SCORES, TABLES, write_table
from tension_utils.conditions import EQUAL_SIZE, ONLY, SHARED
from tension_utils.config import FAMILIES, MATCHED_ARM, MIXED, OBJECTIVES, SINGLE_OBJECTIVES, Run, list_pairs
from tension_utils.evaluation import score_items
from tension_utils.neurons import NeuronSet, activity_bins, top_neurons
from tension_utils.planted import study as planted_study
from tension_utils.planted.model import COINS, PlainRewards, reward_model, verify_plant
from tension_utils.planted.rates import ENDPOINT, WORLDS, error_rates, kind_rates, read_study
from tension_utils.planted.study import (
    Design,
    PlantedWorld,
    StudyConfig,
    calibrated,
    evaluation_rows,
    evidence_of,
    finder_rates,
    finder_table,
    judged,
    ranking_quality,
    reduced,
    run_worlds,
    true_claims,
    world_truth,
)
from tension_utils.planted.truth import OWN, WorldTruth, call, knock_outs, lift, measured_truth
from tension_utils.planted.world import (
    FAINT_EFFECT,
    MAX_LENGTH,
    PLANTED_SCENARIOS,
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

SMALL = StudyConfig((Design((1,), 6, 6, 2, True),), n_text=4, n_truth=6, truth_seeds=1, n_resamples=50)
planted_scenarios = pytest.mark.parametrize("scenario", PLANTED_SCENARIOS)
BUILT = [name for name, rules in SCENARIOS.items() if not rules.is_trained]
built_scenarios = pytest.mark.parametrize("scenario", BUILT)


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
        assert sizes.sum() == SHAPE[1] and set(sizes.tolist()) == {1, 4} and (sizes == 1).sum() == 16


def test_scenarios_that_carry_nothing_in_neurons_plant_none() -> None:
    assert not len(true_neurons(WorldConfig(0, "direct"), MIXED))


# The plant is real.


@planted_scenarios
def test_removing_a_plant_changes_what_it_should_and_nothing_else(scenario: str) -> None:
    table = verify_plant(WorldConfig(5, scenario), n_items=60).set_index(["set", "test"])
    for single, other in (SINGLE_OBJECTIVES, SINGLE_OBJECTIVES[::-1]):
        assert table.margin_change[ONLY[single], single] < -0.04
        assert table.largest_change[ONLY[single], other] < 0.05
        if SCENARIOS[scenario].n_shared:
            assert table.margin_change[SHARED, single] < -0.15
        assert abs(table.accuracy["planted", single] - 0.5) < 0.2, "without its carriers a model guesses"
        assert table.accuracy["everything else", single] > (0.75 if SCENARIOS[scenario].joint == 1 else 0.6)
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


@built_scenarios
def test_drift_leaves_rewards_alone_and_untrained_groups_cancel(scenario: str) -> None:
    config = WorldConfig(4, scenario, drift=0.0)
    quiet, drifted = (PlantedWorld(each, n_items=20) for each in (config, replace(config, drift=0.4)))
    for objective in OBJECTIVES:
        first, second = (margins(each, objective) for each in (quiet, drifted))
        assert np.abs(first - second).max() < 0.3 * first.std()
    other = PlantedWorld(replace(config, damage=0.0), n_items=20)
    bases = [PlainRewards(each.base, each.tokens).rewards() for each in (quiet, other)]
    assert np.abs(bases[0] - bases[1]).max() < 1e-3


def test_removing_a_member_of_a_group_leaves_noise_and_removing_the_group_none(world: PlantedWorld) -> None:
    layer, groups = 0, neuron_groups(world.config)[0]
    members = [(layer, int(index)) for index in np.flatnonzero(groups == 0)]
    base = PlainRewards(world.base, world.tokens)
    one, whole = (
        np.abs(base.rewards(NeuronSet.of(SHAPE, part)) - base.rewards()).max() for part in (members[:1], members)
    )
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
    assert first.items == again.items and torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.tokens, other.tokens)
    assert planted_sets(first.config)[SHARED] != planted_sets(other.config)[SHARED]
    assert draw_world(3, "even") == replace(draw_world(3, "planted"), scenario="even"), "scenarios share their knobs"


def test_seeds_of_a_world_share_the_plant_and_differ_in_drift(world: PlantedWorld) -> None:
    first, second = (world.model("helpful", seed) for seed in (0, 1))
    downs = [each.model.layers[1].mlp.up_proj.weight for each in (first, second)]
    assert not torch.equal(*downs)
    assert true_neurons(world.config, "helpful") == true_neurons(world.config, "helpful")


@pytest.mark.parametrize("objective", ["helpful", MIXED, "harmless-coin"])
@pytest.mark.parametrize("scenario", ["planted", "trained"])
def test_plain_forward_gives_the_rewards_of_the_engine(scenario: str, objective: str) -> None:
    world, rng = PlantedWorld(WorldConfig(3, scenario), n_items=20), np.random.default_rng(0)
    model = world.model(objective)
    for removed in (None, NeuronSet(rng.random(SHAPE) < 0.2), NeuronSet(np.ones(SHAPE, bool))):
        with ablated(model, removed) if removed else nullcontext():
            slow = [each.margin for each in score_items(model, world.tokenizer, world.items, max_length=MAX_LENGTH,
                                                        progress=False)]  # fmt: skip
        np.testing.assert_allclose(margins(world, objective, removed), slow, atol=2e-5)


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
    table = finder_table(loud, world_truth(loud, 20, 1))
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
    scores = quiet.scores("helpful")
    found = {kind: ranking_quality(scores.get(kind), truth)["precision"] for kind in ("mean_abs", "rms_change")}
    assert found["mean_abs"] < 0.3 < 0.6 < found["rms_change"]


# Claims: false worlds are really false, and true ones true, with the true sets and many items.


def margins(world: PlantedWorld, objective: str, removed: NeuronSet | None = None, seed: int = 0) -> np.ndarray:
    rewards = world.plain(objective, seed).rewards(removed)
    return rewards[:, 0] - rewards[:, 1]


def groups_of(world: PlantedWorld) -> np.ndarray:
    return np.array([item.group for item in world.items])


@built_scenarios
def test_neurons_carry_the_objective_exactly_where_c2_and_c3_say_so(scenario: str) -> None:
    config = WorldConfig(11, scenario, damage=0.1)
    world = PlantedWorld(config, n_items=200)
    removed = true_neurons(config, "helpful")
    if not config.rules.is_planted:
        removed = top_neurons(world.scores("helpful").get("rms_change"), 0.1)
    change = (margins(world, "helpful", removed) > 0).astype(float) - (margins(world, "helpful") > 0)
    is_own = groups_of(world) == "helpful"
    assert (change[is_own].mean() < -0.2) == config.rules.truth.get("C2", True)
    assert (change[~is_own].mean() > 0.08) == config.rules.truth.get("C3", change[~is_own].mean() > 0.08)


@built_scenarios
def test_objectives_share_carriers_exactly_where_c4_says_so(scenario: str) -> None:
    config = WorldConfig(0, scenario)
    own = [true_neurons(config, objective) for objective in SINGLE_OBJECTIVES]
    assert (len(own[0] & own[1]) > 0) == config.rules.truth["C4"]


@pytest.mark.parametrize("scenario", ["planted", "even", "antagonistic"])
def test_a_shared_neuron_weighs_more_exactly_where_c5_says_so(scenario: str) -> None:
    config = WorldConfig(12, scenario, conflict=0.8)
    world, sets = PlantedWorld(config, n_items=200), planted_sets(config)
    intact = margins(world, MIXED)
    for single in SINGLE_OBJECTIVES:
        is_own = groups_of(world) == single
        shared, only = (
            (margins(world, MIXED, sets[name]) - intact)[is_own].mean() / len(sets[name])
            for name in (SHARED, ONLY[single])
        )
        assert (shared / only > 1.3) == config.rules.truth["C5"] and only < 0


@built_scenarios
def test_mixing_costs_accuracy_exactly_where_c1_says_so(scenario: str) -> None:
    world = PlantedWorld(WorldConfig(11, scenario, conflict=0.8), n_items=200)
    costs = [
        (margins(world, single) > 0)[groups_of(world) == single].mean()
        - (margins(world, MIXED) > 0)[groups_of(world) == single].mean()
        for single in SINGLE_OBJECTIVES
    ]
    assert (min(costs) > 0.05) == world.config.rules.truth["C1"] and min(costs) > -0.05


def test_opposed_shared_neurons_help_one_objective_and_hurt_the_other() -> None:
    config = WorldConfig(12, "antagonistic")
    world, shared = PlantedWorld(config, n_items=200), planted_sets(config)[SHARED].neurons
    sides = [NeuronSet.of(SHAPE, [place for number, place in enumerate(shared) if number // 2 % 2 == side])
             for side in (0, 1)]  # fmt: skip
    for side, own, other in ((0, "helpful", "harmless"), (1, "harmless", "helpful")):
        change = margins(world, MIXED, sides[side]) - margins(world, MIXED)
        assert change[groups_of(world) == own].mean() < 0 < change[groups_of(world) == other].mean()


def test_runs_differ_in_strength_by_luck_alone() -> None:
    even, lucky = (PlantedWorld(WorldConfig(4, drift=0.0, luck=luck), n_items=40) for luck in (0.0, 0.5))
    spreads = [[margins(world, "helpful", seed=seed).std() for seed in range(4)] for world in (even, lucky)]
    assert np.std(np.log(spreads[0])) < 0.05 < np.std(np.log(spreads[1]))


def test_a_sham_model_drifts_and_learns_nothing() -> None:
    world = PlantedWorld(WorldConfig(5, drift=0.4), n_items=100)
    base = PlainRewards(world.base, world.tokens).rewards()
    for coin in COINS:
        sham = world.plain(coin).rewards()
        assert np.abs(sham - base).max() < 0.3 * base.std()
        assert not torch.equal(world.model(coin).model.layers[1].mlp.up_proj.weight,
                               world.base.model.layers[1].mlp.up_proj.weight)  # fmt: skip
        assert world.text(coin) == world.text(coin.removesuffix("-coin"))


# Truth by exhaustive knock-out.


@pytest.mark.parametrize("scenario", ["planted", "trained"])
def test_knock_outs_are_those_of_the_model_with_each_neuron_removed(scenario: str) -> None:
    world = PlantedWorld(WorldConfig(3, scenario), n_items=4)
    model, fast = world.model(MIXED), knock_outs(world.plain(MIXED), groups_of(world))
    options, slow = {"max_length": MAX_LENGTH, "progress": False}, {test: np.zeros(SHAPE) for test in SINGLE_OBJECTIVES}

    def scored() -> np.ndarray:
        return np.array([each.margin for each in score_items(model, world.tokenizer, world.items, **options)])

    intact = scored()
    for place in list(np.ndindex(SHAPE))[::7]:
        with ablated(model, NeuronSet.of(SHAPE, [place])):
            change = (scored() - intact) / intact.std(ddof=1)
        for test in SINGLE_OBJECTIVES:
            slow[test][place] = change[groups_of(world) == test].mean()
            assert fast[test][place] == pytest.approx(slow[test][place], abs=2e-4)
    assert max(np.abs(effects).max() for effects in slow.values()) > 0.01


def test_a_lift_is_what_a_set_does_beyond_the_mean_of_its_random_sets() -> None:
    rng = np.random.default_rng(0)
    effects, bins = rng.normal(size=SHAPE), activity_bins(rng.random(SHAPE), 4)
    neurons = NeuronSet(rng.random(SHAPE) < 0.1)
    random = [effects[each.mask].sum() for each in neurons.matched_random(rng, 4000, bins)]
    slow = effects[neurons.mask].sum() - np.mean(random)
    assert lift(effects, neurons, bins) == pytest.approx(slow, abs=4 * np.std(random) / 4000**0.5)


def test_single_knock_outs_add_up_to_the_removal_of_a_set(world: PlantedWorld) -> None:
    """What the truth sums is what the ledger measures, up to the curvature of a small model."""
    top = top_neurons(world.scores("helpful").get("rms_change"), 0.1)
    effects = knock_outs(world.plain("helpful"), groups_of(world))["helpful"]
    intact = margins(world, "helpful")
    whole = (margins(world, "helpful", top) - intact)[groups_of(world) == "helpful"].mean() / intact.std(ddof=1)
    assert effects[top.mask].sum() == pytest.approx(whole, abs=0.1) and whole < -0.5


@built_scenarios
def test_what_is_declared_of_a_world_is_what_knock_outs_measure(scenario: str) -> None:
    config = WorldConfig(12, scenario, loudness=3.0, drift=0.05, damage=0.15, conflict=0.8)
    config = calibrated(config, StudyConfig(n_truth=100, truth_seeds=1))
    measured = measured_truth(world_truth(PlantedWorld(config, 2), 150, 2))
    told = {claim: is_true for claim, is_true in config.rules.truth.items() if measured[claim] is not None}
    told.pop("C5", None)  # parts of equal activity hold few neurons, and not always the heavy ones
    assert told == {claim: measured[claim] for claim in told} and len(told) >= 2


def test_effects_between_negligible_and_interesting_are_neither_true_nor_false() -> None:
    assert [call("C1", value, POINTS) for value in (-3.1, -2.0, -0.9, 5.0)] == [True, None, False, False]
    assert [call("C3", value, SD) for value in (0.11, 0.05, 0.03, -0.5)] == [True, None, False, False]


class AddedUp:
    """A reward model whose margins lose a fixed amount with each neuron."""

    def __init__(self, intact: np.ndarray, lost: np.ndarray) -> None:
        self.intact, self.lost = intact, lost  # (B,), (L, N)

    def margins(self, neurons: NeuronSet | None = None) -> np.ndarray:
        return self.intact - (0.0 if neurons is None else self.lost[neurons.mask].sum())


def test_the_weight_of_shared_neurons_is_that_of_parts_as_large_and_as_active_as_only_ones() -> None:
    """Two neurons of each kind stand in one bin, and a third shared one in another bin, where no only one is as active.

    So a part has two, and by hand loses 3 with each shared and 1 with each only neuron: -4 beside margins of SD 2.
    """
    shared, only = [(0, 0), (0, 1), (0, 2)], {"helpful": [(0, 3), (0, 4)], "harmless": [(0, 5), (0, 6)]}
    tops = {single: NeuronSet.of((1, 8), shared + own) for single, own in only.items()}
    model = AddedUp(np.array([-1.0, 1.0, -1.0, 1.0]) * 3**0.5, np.array([[3.0, 3.0, 50.0, 1.0, 1.0, 1.0, 1.0, 0.0]]))
    groups = np.array(["helpful", "helpful", "harmless", "harmless"])

    def weight(bins: list[int]) -> float:
        top, bins_of = (lambda single, _: tops[single]), (lambda *_: np.array([bins]))
        return WorldTruth(lambda *_: model, top, bins_of, None, groups, [0]).weight()

    assert model.intact.std(ddof=1) == pytest.approx(2)
    assert weight([0, 0, 1, 0, 0, 0, 0, 1]) == pytest.approx(-2)
    assert np.isnan(weight([0, 0, 0, 1, 1, 1, 1, 0])), "no only neuron is as active as a shared one"


def test_what_is_built_in_counts_where_its_effect_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"C1": True, "C2": None, "C3": False, "C4": True, "C5": False}
    monkeypatch.setattr(planted_study, "measured_truth", lambda _: measured)
    monkeypatch.setattr(planted_study, "frontier_truth", lambda _: {})
    assert true_claims(SCENARIOS["planted"], None) == {"C1": True, "C2": None, "C3": None, "C4": True, "C5": None}
    assert true_claims(SCENARIOS["loud"], None) == {"C1": True, "C2": None, "C3": False, "C4": None, "C5": False}
    assert set(true_claims(SCENARIOS["faint"], None)) == {"C1", "C2", "C4"}
    assert true_claims(SCENARIOS["trained"], None) == measured


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_planted_mixed_models_have_something_to_lose(scenario: str) -> None:
    """So the worlds' rates are those of a ledger that withholds no verdict for want of it; `about.md` says so."""
    rows = evaluation_rows(PlantedWorld(draw_world(0, scenario), n_items=150), 1)
    rows = rows[rows.objective == MATCHED_ARM]
    in_sd = rows.groupby("group").margin.mean() / rows.margin.std()
    assert in_sd.mean() > 3 * SMALLEST[SD]


def test_a_faint_world_loses_what_the_study_prints() -> None:
    config = calibrated(WorldConfig(5, "faint"), StudyConfig(n_truth=150, truth_seeds=2))
    fresh = world_truth(PlantedWorld(config, 2), 400, 2)
    assert fresh.removal(OWN) == pytest.approx(FAINT_EFFECT, abs=0.04) and 0 < config.share < 0.8
    even = WorldConfig(5, "even")
    assert calibrated(even, StudyConfig()) is even


def test_merely_loud_neurons_enter_both_sets_and_carry_nothing() -> None:
    config = WorldConfig(7, "merely-loud", loudness=1.0)
    world = PlantedWorld(config, n_items=100)
    loud = NeuronSet(neuron_groups(config) < 2)
    tops = [top_neurons(world.scores(single).get("rms_change"), 0.1) for single in SINGLE_OBJECTIVES]
    keystone = top_neurons(world.generic_scores().get("mean_abs"), 0.1)
    assert len(loud) == 16 and len(loud & tops[0] & tops[1]) >= 6 and len(loud & keystone) >= 8
    changes = margins(world, MIXED, loud) - margins(world, MIXED)
    assert np.abs(changes).max() < 0.2 * margins(world, MIXED).std()


def test_loudness_says_nothing_of_weight_among_planted_neurons() -> None:
    pairs = []
    for seed in range(30):
        config = WorldConfig(seed, damage=0.0)
        world = PlantedWorld(config, n_items=2)
        mlps = [layer.mlp for layer in world.model("helpful").model.layers]
        for layer, index in planted_sets(config)[ONLY["helpful"]].neurons:
            size = mlps[layer].up_proj.weight[index].norm().item()
            pairs.append((size, size * mlps[layer].down_proj.weight[:, index].norm().item()))
    sizes, weights = np.log(np.array(pairs)).T
    assert abs(np.corrcoef(sizes, weights)[0, 1]) < 0.2 and sizes.std() > 0.4 and weights.std() > 0.3


def test_gradient_descent_learns_labels_and_coins_teach_nothing() -> None:
    world = PlantedWorld(WorldConfig(2, "trained-easy"), n_items=150)
    own = groups_of(world) == "helpful"
    right = {name: (margins(world, name)[own] > 0).mean() for name in ("helpful", "harmless", MIXED, "helpful-coin")}
    assert min(right["helpful"], right[MIXED]) > 0.75 and max(right["harmless"], right["helpful-coin"]) < 0.7
    again = reward_model(world.base, world.config, "helpful").state_dict()
    assert all(torch.equal(again[name], value) for name, value in world.model("helpful").state_dict().items())
    without = margins(world, "helpful", NeuronSet(np.ones(SHAPE, bool)))[own]
    assert abs((without > 0).mean() - 0.5) < 0.15, "neurons carry all of it"
    base = world.base.state_dict()
    changed = {name for name, value in again.items() if not torch.equal(value, base[name])}
    assert changed and all("mlp" in name for name in changed)


def test_labels_are_wrong_where_models_are_trained_alone() -> None:
    texts = {}
    for scenario in ("planted", "trained"):
        items = preference_items(WorldConfig(2, scenario), "helpful", 200)
        texts[scenario] = [sum((word in WORDS["helpful"][0]) - (word in WORDS["helpful"][1]) for word in text.split())
                           for item in items for text in (item.chosen[0], item.rejected[0])]  # fmt: skip
    wrong = {name: np.mean(np.array(found[::2]) < np.array(found[1::2])) for name, found in texts.items()}
    assert wrong["planted"] == 0 and 0.08 < wrong["trained"] < 0.22


# The ledger judges the worlds.


TINY = StudyConfig(
    (Design((1, 2), 6, 4, 2, False), Design((1, 2), 8, 6, 3, True)), n_text=4, n_truth=8, truth_seeds=1, n_resamples=50
)


@pytest.fixture(scope="module")
def small() -> PlantedWorld:
    return TINY.world(WorldConfig(3, loudness=2.0))


@pytest.fixture(scope="module")
def evidence(small: PlantedWorld) -> Evidence:
    return evidence_of(small, TINY)


def test_worlds_write_the_layout_of_the_artifacts(small: PlantedWorld, evidence: Evidence) -> None:
    assert list(evidence.evaluation) == list(TABLES["evaluation"])
    assert list(evidence.ablation) == list(TABLES["ablation"])
    assert set(evidence.evaluation.objective) == {*OBJECTIVES, MATCHED_ARM}
    assert {run.objective for run in evidence.scores} == {*SINGLE_OBJECTIVES, *COINS}
    names = ["objective", "set", "matched_to", "family", "control"]
    assert set(evidence.ablation[evidence.ablation["set"] == "random"].control) == {"layer", "activity"}
    sizes = evidence.ablation.groupby([*names, "seed", "draw"]).size()
    assert (sizes == 12).all(), "every condition has every ablated item once"
    assert set(evidence.interpolation.harmless_weight) == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert list(evidence.interpolation) == list(TABLES["interpolation"])
    assert set(evidence.ablation.family) == {"", *FAMILIES}
    # What a removed set does is what the library's own model does.
    rows = evidence.ablation.query("objective == 'helpful' and set == 'rms_change' and seed == 0")
    model, top = small.model("helpful"), top_neurons(small.scores("helpful").get("rms_change"), 0.1)
    with ablated(model, top):
        items = [item for item in small.items if int(item.item_id.rpartition("-")[2]) < 6]
        slow = [each.margin for each in score_items(model, small.tokenizer, items, max_length=MAX_LENGTH,
                                                    progress=False)]  # fmt: skip
    np.testing.assert_allclose(rows.margin, slow, atol=1e-5)


def test_the_files_of_a_world_are_read_and_judged_as_its_tables_are(evidence: Evidence, tmp_path: Path) -> None:
    full = reduced(evidence, TINY.designs[1], 2)
    runs = [Run(tmp_path, "planted", name, seed) for name in (*OBJECTIVES, MATCHED_ARM, *COINS) for seed in (0, 1)]
    for run in runs:
        for name in ("evaluation", "ablation"):
            rows = getattr(full, name)
            rows = rows[(rows.objective == run.objective) & (rows.seed == run.seed)]
            if len(rows):
                write_table(run.folder / f"{name}.parquet", rows)
    for run, scores in full.scores.items():
        folder = replace(run, root=tmp_path).folder
        folder.mkdir(parents=True, exist_ok=True)
        scores.save(folder / OWN_SCORES)
    for pair in list_pairs(runs):
        write_table(pair.folder / "interpolation.parquet", full.interpolation.query("seed == @pair.seed"))
    read = replace(Evidence.of(runs), n_resamples=full.n_resamples)
    assert len(read.ablation) == len(full.ablation) and len(read.scores) == 8
    pd.testing.assert_frame_equal(claims.ledger(read), claims.ledger(full))


def test_the_ledger_itself_judges_and_nothing_else_does(
    small: PlantedWorld, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planted_study.ledger is claims.ledger
    calls = []

    def spy(part: Evidence) -> pd.DataFrame:
        calls.append(part)
        return claims.ledger(part).assign(verdict="spied")

    monkeypatch.setattr(planted_study, "ledger", spy)
    monkeypatch.setattr(planted_study, "evidence_of", lambda *_: evidence)
    table = judged(small, TINY)
    assert len(calls) == 4 and set(table.verdict) == {"spied"}
    monkeypatch.setattr(planted_study, "ledger", claims.ledger)
    full = reduced(evidence, TINY.designs[1], 2)
    expected = claims.ledger(full).query("n_seeds == 2 and n_draws == 3")
    found = judged(small, TINY).query("n_seeds == 2 and n_draws == 3")
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected[list(found)].reset_index(drop=True))


def test_a_smaller_design_sees_less_of_the_same(evidence: Evidence) -> None:
    plain, full = (reduced(evidence, design, 1) for design in TINY.designs)
    assert plain.evaluation.groupby(["objective", "group"]).size().eq(6).all() and set(plain.evaluation.seed) == {0}
    assert plain.ablation.groupby(["objective", "set", "matched_to", "family", "draw"]).item_id.nunique().eq(8).all()
    assert plain.interpolation is None and full.interpolation.groupby("group").item_id.nunique().eq(8).all()
    assert set(plain.ablation.control) == {"", "layer"} and plain.ablation.draw.max() == 1
    assert set(plain.ablation.objective) == set(OBJECTIVES) and "equal-activity" not in set(plain.ablation.family)
    assert not {run.objective for run in plain.scores} & set(COINS)
    assert MATCHED_ARM in set(full.ablation.objective) and "activity" in set(full.ablation.control)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_world_is_judged_on_the_claims_it_has_a_truth_for(scenario: str) -> None:
    table = judged(SMALL.world(WorldConfig(0, scenario)), SMALL)
    assert {"C1", "C2", "C3", "C4"} <= set(table.claim) and "frontier" in set(table.quantity)
    assert set(table.n_seeds) == {1} and table.value.notna().all() and "not run" not in set(table.verdict)


# The study.


@pytest.fixture
def few_scenarios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted_study, "SCENARIOS", {name: SCENARIOS[name] for name in ("planted", "loud", "trained")})


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
    assert len(calls) == 1 + 3, "other sizes make kept worlds stale"


def test_finder_rates_by_hand() -> None:
    finder = {"site": "gate", "score_kind": "rms", "recall_twice": 1.0, "average_precision": 0.5, "chance": 0.1}
    worlds = [{"world": {"scenario": "trained" if seed == 4 else "planted", "seed": seed,
                         "loudness": 0.7 if seed else 2.0},
               "finders": [finder | {"precision": seed / 4, "rank_correlation": -seed / 4}]}
              for seed in range(5)]  # fmt: skip
    finders = finder_rates(worlds).set_index("plant")
    assert finders.n_worlds.to_dict() == {"all": 4, "quiet": 3, "loud": 1, "trained": 1}
    assert finders.precision["all"] == pytest.approx(0.375) and finders.precision["quiet"] == pytest.approx(0.5)
    assert finders.rank_correlation["trained"] == -1.0 and np.isnan(finders.precision_ci_low["loud"])
    low, high = finders.loc["quiet", ["rank_correlation_ci_low", "rank_correlation_ci_high"]]
    assert low == -1.0 and high == pytest.approx(-0.5 + 4.3027 * 0.25 / 3**0.5, abs=1e-3)


@pytest.mark.usefixtures("few_scenarios")
def test_command_writes_tables_that_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted_study, "StudyConfig", lambda: SMALL)
    arguments = ["study", "--worlds", "1", "--output", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", arguments)
    planted_study.main()
    tables, manifest = read_study(tmp_path / "out")
    assert manifest["n_worlds"] == 1 and manifest["config"] == json.loads(json.dumps(asdict(SMALL)))
    claims = tables["claims"]
    assert set(claims.claim) == set(SCENARIOS["planted"].truth) and len(tables["worlds"]) == 3
    assert claims.n_worlds.eq(1).all() and claims.n_supported.isin([0, 1]).all() and (claims.control == "").any()
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
        ({"luck": -0.1}, "luck"),
        ({"share": 1.5}, "share"),
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
    with pytest.raises(ValueError, match="no planted neurons; take one of planted, heavy, faint, even, antagonistic"):
        verify_plant(WorldConfig(0, "direct"))
    with pytest.raises(ValueError, match="nothing is planted"):
        ranking_quality(np.zeros(SHAPE), NeuronSet.of(SHAPE, []))
    with pytest.raises(ValueError, match="n_draws"):
        StudyConfig((Design((1,), 6, 6, 1, True),))
    with pytest.raises(FileNotFoundError, match="tension_utils.planted.study --worlds 20"):
        read_study(tmp_path)
    monkeypatch.setattr(sys, "argv", ["study", "--worlds", "0", "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        planted_study.main()
    assert "n_worlds" in capsys.readouterr().err and not (tmp_path / "out").exists()


# What is committed.


def test_committed_study_holds_every_claim_and_design() -> None:
    tables, manifest = read_study(Path(__file__).parents[1] / "results" / "planted")
    assert manifest["n_worlds"] >= 20 and len(tables["worlds"]) == manifest["n_worlds"] * len(manifest["scenarios"])
    counted = tables["claims"]
    assert counted.n_worlds.between(1, manifest["n_worlds"]).all()
    assert (counted[["n_supported", "n_refuted", "n_contradictory"]].sum(axis=1) <= counted.n_worlds).all()
    rates = error_rates(counted)
    primary = rates[rates.is_primary & (rates.way == "under control") & (rates.n_items != 80)]
    for claim, sizes in {"C1": {500, 1000}, "C2": {250, 500}, "C3": {250, 500}, "C5": {250, 500}}.items():
        rows = primary[(primary.claim == claim) & primary.n_items.isin(sizes)]
        lacking = {4} if claim == "C5" else set()  # in some trained worlds a run has no shared neurons
        assert set(rows.n_items) == sizes and set(rows.n_seeds) == {1, 2, 3, 5} | lacking
    n_worlds = primary[list(WORLDS)].sum(axis=1)
    most = n_worlds.groupby([primary[name] for name in ENDPOINT]).transform("max")
    taken = primary[(n_worlds >= most / 2) & (primary.neuron_set != EQUAL_SIZE)]  # others tell too little
    assert set(taken.claim) == set(CLAIMS) and taken.false_positives.notna().all() and taken.power.notna().all()
    tested = primary[(primary.n_seeds == 3) & primary.claim.isin(["C2", "C3"]) & (primary.control == "activity")]
    assert (tested.false_positives_ci_low <= 0.05).all(), "where its control is right, a test errs as rarely as it says"
    assert set(tables["finders"].score_kind) == set(KINDS)
    assert set(tables["finders"]["plant"]) == {"all", "quiet", "loud", "trained"}


def test_committed_study_measures_an_effect_of_the_size_that_is_printed() -> None:
    tables, _ = read_study(Path(__file__).parents[1] / "results" / "planted")
    rates = kind_rates(tables["claims"])
    (row,) = rates[(rates.scenario == "faint") & (rates.claim == "C2") & (rates.n_seeds == 3) & (rates.n_items == 500)
                   & (rates.control == "activity")].itertuples()  # fmt: skip
    assert row.value == pytest.approx(FAINT_EFFECT, abs=0.03) and row.n_draws == 12 and row.supported > 0.4
