"""Which sets are removed from a reward model: names, families, controls, scales, and draws that never move."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tension_utils.analysis.keystone import keystone_table
from tension_utils.conditions import (
    Condition,
    keystone_neurons,
    list_conditions,
    mixed_sets,
    score_sources,
    set_label,
)
from tension_utils.config import FAMILIES, MIXED_ARMS, AblateConfig, Run
from tension_utils.neurons import NeuronSet, activity_bins, equalized, top_neurons
from tension_utils.scores import NeuronScores, load_view, own_scores

SHAPE = (3, 40)
ARMS = ("helpful", "harmless", *MIXED_ARMS)
sets = hnp.arrays(bool, SHAPE).map(NeuronSet)


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Run]:
    """Runs of every arm with random scores."""
    runs = {arm: Run(tmp_path, "toy", arm, 0) for arm in ARMS}
    for number, run in enumerate(runs.values()):
        rng = np.random.default_rng(number)
        tensors = {(kind, "both", "all"): rng.random(SHAPE, np.float32) for kind in ("rms_change", "rms", "mean_abs")}
        run.folder.mkdir(parents=True)
        NeuronScores(tensors, "down_input", 1, 1).save(run.folder / "neuron_scores.safetensors")
    generic = {("mean_abs", "both", "all"): np.random.default_rng(99).random(SHAPE, np.float32)}
    (runs["helpful"].folder / "score_views").mkdir()
    view = runs["helpful"].folder / "score_views" / "base-generic.safetensors"
    NeuronScores(generic, "down_input", 1, 1).save(view)
    return runs


def config_of(**values: object) -> AblateConfig:
    standard = {"score_kinds": ("rms_change",), "fraction": 0.4, "fractions": (0.2,), "n_draws": 3}
    return AblateConfig(**standard | values)


def targeted(conditions: list[Condition]) -> list[Condition]:
    return [condition for condition in conditions if condition.set != "random"]


@pytest.mark.parametrize("arm", MIXED_ARMS)
def test_mixed_models_have_the_sets_of_the_single_ones(runs: dict[str, Run], arm: str) -> None:
    found = {(c.set, c.family): c for c in targeted(list_conditions(runs[arm], config_of())) if c.fraction == 0.4}
    helpful, harmless = (top_neurons(own_scores(runs[o]).get("rms_change"), 0.4) for o in ("helpful", "harmless"))
    assert found["shared", "natural"].neurons == helpful & harmless
    assert found["only-helpful", "natural"].neurons == helpful - harmless
    assert found["rms_change", ""].neurons == top_neurons(own_scores(runs[arm]).get("rms_change"), 0.4)
    assert len({len(found[name, "equal-size"].neurons) for name in ("shared", "only-helpful", "only-harmless")}) == 1
    assert len(found) == 7
    assert {c.set for c in list_conditions(runs["helpful"], config_of())} == {"rms_change", "random"}


def test_blocks_can_be_asked_for_alone(runs: dict[str, Run]) -> None:
    mixed = runs[MIXED_ARMS[1]]
    alone = {block: list_conditions(mixed, config_of(blocks=(block,))) for block in ("scored", "mixed")}
    assert {c.family for c in alone["scored"]} == {""} and {c.family for c in alone["mixed"]} == {*FAMILIES[:2]}
    assert alone["scored"] + alone["mixed"] == list_conditions(mixed, config_of())
    assert list_conditions(runs["helpful"], config_of(blocks=("mixed",))) == []


def test_scores_are_read_where_a_set_needs_them(runs: dict[str, Run]) -> None:
    mixed = runs[MIXED_ARMS[0]]
    only_mixed = config_of(blocks=("mixed",))
    assert score_sources(mixed, only_mixed) == [runs["helpful"], runs["harmless"]]
    assert score_sources(mixed, only_mixed, config_of())[0] == mixed
    for values in ({"families": FAMILIES}, {"controls": ("activity",)}, {"ablation_kinds": ("mean",)}):
        assert score_sources(mixed, config_of(blocks=("mixed",), **values))[0] == mixed
    assert score_sources(runs["helpful"], config_of()) == [runs["helpful"]]
    (mixed.folder / "neuron_scores.safetensors").unlink()
    assert len(list_conditions(mixed, only_mixed)) == 6 * 4
    with pytest.raises(FileNotFoundError, match=r"helpful-harmless.*03_identify"):
        score_sources(mixed, config_of())
    (runs["harmless"].folder / "neuron_scores.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"harmless.*03_identify"):
        score_sources(mixed, only_mixed)


def test_every_target_has_its_draws_of_every_control(runs: dict[str, Run]) -> None:
    config = config_of(controls=("layer", "activity"), families=FAMILIES, n_activity_bins=4, scales=(0.0, 0.5, 2.0))
    run = runs[MIXED_ARMS[0]]
    bins = activity_bins(own_scores(run).get("mean_abs"), 4)
    conditions = list_conditions(run, config)
    keys = [tuple(c.key.values()) for c in conditions]
    assert len(set(keys)) == len(keys) == (2 + 12) * 3 * (1 + 2 * 3)
    target = None
    for condition in conditions:
        if condition.set != "random":
            target = condition
            assert condition.control == "" and condition.draw == 0 and condition.matched_to == condition.set
            continue
        same = ("family", "matched_to", "fraction", "ablation_kind", "scale")
        assert all(getattr(condition, name) == getattr(target, name) for name in same)
        cells = bins == np.arange(4)[:, None, None] if condition.control == "activity" else np.ones((1, *SHAPE), bool)
        for cell in cells:
            counts = [(neurons.mask & cell).sum(axis=1).tolist() for neurons in (condition.neurons, target.neurons)]
            assert counts[0] == counts[1]
        assert condition.neurons != target.neurons


def test_scaled_sets_are_those_that_are_removed_and_keep_the_activation(runs: dict[str, Run]) -> None:
    config = config_of(ablation_kinds=("mean", "zero"), fractions=(0.2, 1.0), scales=(0.0, 0.5))
    conditions = list_conditions(runs["helpful"], config)
    removed, half = ([c for c in conditions if c.scale == scale] for scale in (0.0, 0.5))
    assert {c.ablation_kind for c in half} == {"zero"} and {c.ablation_kind for c in removed} == {"mean", "zero"}
    by_key = {(c.set, c.matched_to, c.fraction, c.draw): c.neurons for c in removed if c.ablation_kind == "mean"}
    assert all(by_key[c.set, c.matched_to, c.fraction, c.draw] == c.neurons for c in half)
    assert {c.set for c in removed} - {c.set for c in half} == {"all"}, "scaling every neuron has no control"
    only_half = list_conditions(runs["helpful"], config_of(scales=(0.5,), ablation_kinds=("zero", "mean")))
    assert {(c.ablation_kind, c.scale) for c in only_half} == {("zero", 0.5)}


def test_draws_depend_on_the_set_and_not_on_its_place_in_the_list(runs: dict[str, Run]) -> None:
    run = runs[MIXED_ARMS[0]]

    def by_key(config: AblateConfig) -> dict[tuple, NeuronSet]:
        return {tuple(c.key.values()): c.neurons for c in list_conditions(run, config)}

    small = by_key(config_of(families=("equal-size",)))
    large = config_of(
        score_kinds=("rms", "rms_change"),
        fractions=(0.1, 0.2, 0.3),
        n_draws=5,
        families=("equal-activity", "natural", "equal-size"),
        controls=("activity", "layer"),
        n_activity_bins=4,
    )
    found = by_key(large)
    assert small.items() <= found.items(), "a longer list and more draws hold the same sets"
    draws = [neurons for key, neurons in found.items() if key[0] == "random"]
    assert len(set(draws)) > 0.95 * len(draws), "sets differ from each other"


@settings(max_examples=40)
@given(sets, sets, hnp.arrays(np.float32, SHAPE, elements=st.floats(0, 9, width=32)), st.integers(1, 5))
def test_equal_activity_sets_have_the_least_count_of_every_cell(
    helpful: NeuronSet, harmless: NeuronSet, activity: np.ndarray, n_bins: int
) -> None:
    bins = activity_bins(activity, n_bins)
    whole = {"shared": helpful & harmless, "only-helpful": helpful - harmless, "only-harmless": harmless - helpful}
    found = mixed_sets(helpful, harmless, "equal-activity", np.random.default_rng(0), bins)
    total = 0
    for layer in range(SHAPE[0]):
        for number in range(n_bins):
            members = [{i for i in range(SHAPE[1]) if s.mask[layer, i] and bins[layer, i] == number}
                       for s in whole.values()]  # fmt: skip
            least = min(map(len, members))
            total += least
            for name, own in zip(whole, members, strict=True):
                if found:
                    drawn = {i for i in range(SHAPE[1]) if found[name].mask[layer, i] and bins[layer, i] == number}
                    assert len(drawn) == least and drawn <= own
    assert bool(found) == (total > 0)
    assert found == mixed_sets(helpful, harmless, "equal-activity", np.random.default_rng(0), bins)


def test_equalized_parts_are_uniform_within_a_cell() -> None:
    bins = np.array([[0, 0, 0, 0, 1, 1]])
    one, other = (NeuronSet(np.array([mask], bool)) for mask in ([1, 1, 1, 1, 1, 0], [0, 0, 1, 0, 1, 1]))
    generator = np.random.default_rng(0)
    draws = np.array([[part.mask for part in equalized([one, other], bins, generator)] for _ in range(3000)])
    expected = [[[0.25, 0.25, 0.25, 0.25, 1, 0]], [[0, 0, 1, 0, 0.5, 0.5]]]
    assert draws.mean(axis=0) == pytest.approx(np.array(expected), abs=0.04)


def test_mixed_sets_by_hand() -> None:
    helpful, harmless = (NeuronSet.of((1, 6), [(0, i) for i in indices]) for indices in ((0, 1, 2, 3), (2, 3, 4)))
    found = mixed_sets(helpful, harmless)
    assert found["shared"].neurons == [(0, 2), (0, 3)] and found["only-helpful"].neurons == [(0, 0), (0, 1)]
    assert found["only-harmless"].neurons == [(0, 4)]
    equal = mixed_sets(helpful, harmless, "equal-size", np.random.default_rng(0))
    assert list(equal) == list(found) and {len(neurons) for neurons in equal.values()} == {1}
    assert all(len(equal[name] - found[name]) == 0 for name in found)
    assert list(mixed_sets(helpful, helpful)) == ["shared"]  # nothing is only helpful, so nothing has an equal size
    assert mixed_sets(helpful, helpful, "equal-size", np.random.default_rng(0)) == {}
    bins = np.array([[0, 0, 0, 1, 1, 1]])  # the only harmless neuron is loud, the only helpful ones are quiet
    assert mixed_sets(helpful, harmless, "equal-activity", np.random.default_rng(0), bins) == {}


def test_sets_without_keystone_neurons_by_hand() -> None:
    helpful, harmless = (NeuronSet.of((1, 8), [(0, i) for i in places]) for places in (range(5), (3, 4, 5, 6)))
    keystone = NeuronSet.of((1, 8), [(0, 3), (0, 0), (0, 7)])
    sets = mixed_sets(helpful, harmless, "without-keystone", np.random.default_rng(0), keystone=keystone)
    assert sets["shared"] == NeuronSet.of((1, 8), [(0, 4)]), "of 3 and 4"
    assert len(sets["only-helpful"]) == 1 and sets["only-helpful"] - NeuronSet.of((1, 8), [(0, 1), (0, 2)]) == (
        NeuronSet.of((1, 8), [])
    )
    assert len(sets["only-harmless"]) == 1 and not len(sets["only-harmless"] & keystone)
    everything = NeuronSet.of((1, 8), [(0, i) for i in range(8)])
    assert mixed_sets(helpful, harmless, "without-keystone", np.random.default_rng(0), keystone=everything) == {}


def test_keystone_neurons_are_the_loudest_of_the_base_model_on_generic_text(runs: dict[str, Run]) -> None:
    loud = load_view(runs["helpful"], "base-generic").get("mean_abs")
    keystone = keystone_neurons(runs["helpful"], 0.25)
    assert keystone == top_neurons(loud, 0.25)
    (condition,) = (
        c
        for c in targeted(list_conditions(runs[MIXED_ARMS[1]], config_of(families=("without-keystone",))))
        if c.set == "shared"
    )
    assert not len(condition.neurons & keystone_neurons(runs["helpful"], 0.4)) and len(condition.neurons)
    with pytest.raises(FileNotFoundError, match="03_identify"):
        keystone_neurons(runs["harmless"], 0.25)


def test_keystone_shares_by_hand(runs: dict[str, Run]) -> None:
    table = keystone_table(list(runs.values()), ["rms_change"], 0.25).set_index("set")
    keystone = keystone_neurons(runs["helpful"], 0.25)
    tops = {name: top_neurons(own_scores(run).get("rms_change"), 0.25) for name, run in runs.items()}
    for name, neurons in tops.items():
        assert table.share[name] == len(neurons & keystone) / len(neurons)
    shared = tops["helpful"] & tops["harmless"]
    assert table.share["shared"] == len(shared & keystone) / len(shared) and table.n_neurons["shared"] == len(shared)
    assert (table.chance == 0.25).all() and (table.n_seeds == 1).all() and table.ci_low.isna().all()
    assert keystone_table([runs["harmless"]], ["rms_change"], 0.25).empty


def test_bad_requests_say_what_was_expected(runs: dict[str, Run]) -> None:
    one = NeuronSet.of((1, 2), [(0, 0)])
    with pytest.raises(ValueError, match="family: expected one of natural, equal-size, .*; got 'loud'"):
        mixed_sets(one, one, "loud")
    for family in FAMILIES[1:]:
        with pytest.raises(ValueError, match="expected a generator, bins for 'equal-activity', keystone neurons for"):
            mixed_sets(one, one, family)
    with pytest.raises(ValueError, match="n_bins: expected 1 to 40"):
        list_conditions(runs["helpful"], config_of(controls=("activity",), n_activity_bins=41))
    with pytest.raises(KeyError, match="no scores contrast/both/all"):
        list_conditions(runs["helpful"], config_of(score_kinds=("contrast",)))


def test_labels_of_figures_tell_families_apart() -> None:
    assert len({set_label("shared", family) for family in FAMILIES}) == 4 and set_label("rms", "") == "rms"
