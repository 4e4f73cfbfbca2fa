"""Choices are checked when they are made, and their hash changes with every one of them."""

import dataclasses
import inspect
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tension_utils.config import (
    OBJECTIVES,
    AblateConfig,
    DataConfig,
    EngineConfig,
    EvaluateConfig,
    IdentifyConfig,
    TrainConfig,
    check_choice,
    check_choices,
    check_fields,
    check_range,
    config_hash,
)
from tension_utils.depth import DepthConfig
from tension_utils.geometry import GradientConfig, WeightChangeConfig
from tension_utils.interpolation import InterpolateConfig
from tension_utils.stages import ItemsConfig, MaskConfig
from tension_utils.toy.world import ToyConfig

CONFIGS = (DataConfig, TrainConfig, EngineConfig, EvaluateConfig, IdentifyConfig, AblateConfig)


def test_a_choice_passes_and_another_lists_them_all() -> None:
    assert check_choice("objective", "harmless", OBJECTIVES) == "harmless"
    with pytest.raises(ValueError, match="^objective: expected one of helpful, harmless, helpful-harmless; got 'kind'"):
        check_choice("objective", "kind", OBJECTIVES)


@pytest.mark.parametrize("values", [[], ["helpful", "helpful"]])
def test_collections_are_not_empty_and_hold_nothing_twice(values: list[str]) -> None:
    with pytest.raises(ValueError, match="objectives: expected at least one value and none twice"):
        check_choices("objectives", values, OBJECTIVES)


PINNED = {
    DataConfig: "76e7dc41d6e61926",
    TrainConfig: "8c5c0197c7831db8",
    EngineConfig: "9499062703d6c288",
    EvaluateConfig: "1e9bc7e2904a5544",
    IdentifyConfig: "65ddc4597756b475",
    AblateConfig: "36cb2f2829adc96f",
    ItemsConfig: "f4cf61aeabaa69b0",
    MaskConfig: "e810e8bb6aec306e",
    InterpolateConfig: "9bfd355da1c683de",
    GradientConfig: "bcb03c9d2ad52fc4",
    WeightChangeConfig: "4b61b09747c2d4ea",
    DepthConfig: "4345c79c6ed81bba",
    ToyConfig: "8a886df0f92462e0",
}


def test_stored_runs_are_found_again() -> None:
    """The hashes under which finished stages are recorded; a changed one trains and measures everything anew."""
    assert {kind: config_hash(kind()) for kind in PINNED} == PINNED
    assert config_hash(TrainConfig(n_epochs=1)) != config_hash(TrainConfig(n_epochs=1.0)), "values are kept as given"
    written = json.loads(json.dumps(dataclasses.asdict(AblateConfig())))
    assert config_hash(AblateConfig(**written)) == PINNED[AblateConfig], "lists of a manifest are the same choices"


@settings(deadline=None)
@given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_range_includes_its_ends_and_nothing_else(value: float, low: float, high: float) -> None:
    if low <= value and value <= high:
        check_range("x", value, low, high)
    else:
        with pytest.raises(ValueError, match="^x: expected a number from"):
            check_range("x", value, low, high)


def test_range_refuses_not_a_number() -> None:
    with pytest.raises(ValueError, match="got nan"):
        check_range("learning_rate", float("nan"), 0.0, 1.0)


@pytest.mark.parametrize("config_class", CONFIGS, ids=lambda c: c.__name__)
def test_defaults_are_valid_frozen_and_hash_stably(config_class: type) -> None:
    config = config_class()
    assert config_hash(config) == config_hash(config_class())
    assert len(config_hash(config)) == 16 and int(config_hash(config), 16) >= 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(config)[0].name, None)


OTHER_VALUES = {
    DataConfig: {
        "source": "Anthropic/hh-rlhf",
        "subsets": {"helpful": ("helpful-online",), "harmless": ("harmless-base",)},
        "n_train_pairs": 7,
        "n_validation_pairs": 7,
        "max_length": 77,
        "long_pairs": "drop",
        "bad_pairs": "drop",
    },
    TrainConfig: {
        "n_epochs": 2.0,
        "batch_size": 32,
        "tokens_per_batch": 512,
        "learning_rate": 1e-5,
        "warmup_share": 0.0,
        "n_evaluations": 1,
        "precision": "float32",
        "pad_with_eos": True,
    },
}


@pytest.mark.parametrize(
    "config_class, name, value",
    [(c, name, value) for c, values in OTHER_VALUES.items() for name, value in values.items()],
)
def test_every_field_changes_the_hash(config_class: type, name: str, value: object) -> None:
    assert config_hash(config_class(**{name: value})) != config_hash(config_class())


def test_every_field_is_among_the_changed_ones() -> None:
    for config_class, values in OTHER_VALUES.items():
        assert set(values) == {field.name for field in dataclasses.fields(config_class)}


def test_upstream_changes_the_hash_and_order_does_not() -> None:
    assert config_hash({"a": 1}, data="x") != config_hash({"a": 1}, data="y")
    assert config_hash({"a": 1}, data="x") != config_hash({"a": 1}, model="x")
    assert config_hash({"a": 1, "b": 2}, x="1", y="2") == config_hash({"b": 2, "a": 1}, y="2", x="1")


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(max_size=4), st.integers()), st.dictionaries(st.text(max_size=4), st.integers()))
def test_different_values_have_different_hashes(a: dict, b: dict) -> None:
    assert (config_hash(a) == config_hash(b)) == (a == b)


@pytest.mark.parametrize(
    "config_class, values, message",
    [
        (DataConfig, {"subsets": {"helpful": ["helpful-base"]}}, "^subsets: expected a list of folders for each of"),
        (DataConfig, {"subsets": {"helpful": ["helpful-base"], "harmless": []}}, "subsets: expected a list of folders"),
        (DataConfig, {"subsets": {"helpful": "helpful-base", "harmless": ["a"]}}, "subsets.helpful: expected a list"),
        (DataConfig, {"sources": "toy"}, "^sources: unknown name; did you mean 'source'. Known: source, subsets"),
        (DataConfig, {"source": ""}, "^source: expected a text that is not empty; got ''$"),
        (TrainConfig, {"batch_size": 16.0}, "^batch_size: expected a whole number; got 16.0$"),
        (TrainConfig, {"pad_with_eos": "yes"}, "^pad_with_eos: expected true or false; got 'yes'$"),
        (TrainConfig, {"learning_rate": float("nan")}, "^learning_rate: expected a finite number; got nan$"),
        (TrainConfig, {"precision": "bfloat"}, "; got 'bfloat'; did you mean 'bfloat16'"),
        (TrainConfig, {"n_epochs": 0, "batch_size": 0}, "^n_epochs: .*\n.*batch_size: "),
        (DataConfig, {"n_train_pairs": "40"}, "^n_train_pairs: expected a whole number; got '40'$"),
        (DataConfig, {"max_length": None}, "max_length: expected a whole number; got None"),
        (TrainConfig, {"n_evaluations": True}, "n_evaluations: expected a whole number; got True"),
        (DataConfig, {"n_train_pairs": -1}, "^n_train_pairs: expected at least 0; got -1$"),
        (DataConfig, {"n_validation_pairs": 0}, "n_validation_pairs: expected at least 1"),
        (DataConfig, {"max_length": 7}, "max_length: expected at least 8; got 7"),
        (DataConfig, {"long_pairs": "cut"}, "long_pairs: expected one of error, drop, truncate; got 'cut'"),
        (DataConfig, {"bad_pairs": "skip"}, "bad_pairs: expected one of error, drop; got 'skip'"),
        (TrainConfig, {"n_epochs": 0}, "n_epochs: expected at least 1e-06; got 0"),
        (TrainConfig, {"batch_size": 0}, "batch_size: expected at least 1"),
        (TrainConfig, {"tokens_per_batch": 0}, "tokens_per_batch: expected at least 1"),
        (TrainConfig, {"learning_rate": -1e-4}, "learning_rate: expected at least 0; got -0.0001"),
        (TrainConfig, {"warmup_share": 1.5}, "warmup_share: expected at most 1; got 1.5"),
        (TrainConfig, {"n_evaluations": 0}, "n_evaluations: expected at least 1"),
        (TrainConfig, {"precision": "fp8"}, "precision: expected one of auto, float32, bfloat16; got 'fp8'"),
        (EngineConfig, {"precision": "half"}, "precision: expected one of auto, float32, bfloat16; got 'half'"),
        (EngineConfig, {"tokens_per_batch": 0}, "tokens_per_batch: expected at least 1"),
        (EngineConfig, {"n_items": -1}, "n_items: expected at least 0"),
        (IdentifyConfig, {"score_kinds": ("rms", "entropy")}, "score_kinds.1.: expected one of .*'entropy'"),
        (IdentifyConfig, {"score_kinds": ()}, "score_kinds: expected at least one value"),
        (EvaluateConfig, {"items_of": {"toy": 3}}, "benchmark_items: expected one of hh-rlhf; got 'toy'"),
        (EvaluateConfig, {"items_of": {"hh-rlhf": -1}}, "items_of.hh-rlhf: expected at least 0"),
        (IdentifyConfig, {"n_view_items": -1}, "n_view_items: expected at least 0"),
        (IdentifyConfig, {"n_generic": -1}, "n_generic: expected at least 0"),
        (IdentifyConfig, {"generic_text": ""}, "generic_text: expected a text that is not empty; got ''"),
        (IdentifyConfig, {"scopes": ("prompt",)}, "scopes.0.: expected one of all, response, last; got 'prompt'"),
        (AblateConfig, {"score_kinds": ("probability",)}, "score_kinds.0.: expected one of .*'probability'"),
        (AblateConfig, {"scope": "first"}, "scope: expected one of all, response, last; got 'first'"),
        (
            AblateConfig,
            {"ablation_kinds": ("noise",)},
            "ablation_kinds.0.: expected one of zero, .*'noise'",
        ),
        (AblateConfig, {"fractions": (0.1, 1.5)}, "fractions.1.: expected at most 1; got 1.5"),
        (AblateConfig, {"fractions": (0.0,)}, "fractions.0.: expected at least 1e-09; got 0.0"),
        (AblateConfig, {"fractions": ()}, "fractions: expected at least one value and none twice"),
        (AblateConfig, {"fractions": (0.1, 0.1)}, "fractions: expected at least one value and none twice"),
        (AblateConfig, {"fraction": 0.0}, "fraction: expected at least 1e-09"),
        (AblateConfig, {"main_kind": "size"}, "main_kind: expected one of"),
        (AblateConfig, {"sources": {"toy": "x"}}, "benchmark_sources: expected one of hh-rlhf; got 'toy'"),
        (AblateConfig, {"n_draws": 0}, "n_draws: expected at least 1"),
        (AblateConfig, {"blocks": ()}, "blocks: expected at least one value"),
        (AblateConfig, {"blocks": "mixed"}, "blocks: expected a list; got 'mixed'"),
        (AblateConfig, {"blocks": ("shared",)}, "blocks.0.: expected one of scored, mixed; got 'shared'"),
        (AblateConfig, {"families": ("equal",)}, "families.0.: expected one of natural, equal-size, equal-activity"),
        (AblateConfig, {"controls": ("none",)}, "controls.0.: expected one of layer, activity; got 'none'"),
        (AblateConfig, {"controls": ("layer", "layer")}, "controls: expected at least one value and none twice"),
        (AblateConfig, {"n_activity_bins": 0}, "n_activity_bins: expected at least 1"),
        (AblateConfig, {"scales": ()}, "scales: expected at least one value and none twice"),
        (AblateConfig, {"scales": (0.0, 1.0)}, "scales: expected no 1, which changes nothing; got .0.0, 1.0."),
        (AblateConfig, {"scales": (-0.5,)}, "scales.0.: expected at least 0; got -0.5"),
        (AblateConfig, {"scales": (float("nan"),)}, "scales.0.: expected a finite number; got nan"),
    ],
)
def test_impossible_values_are_named_with_the_possible_ones(config_class: type, values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_class(**values)


def test_readers_see_plain_types() -> None:
    assert str(inspect.signature(EngineConfig)) == (
        "(n_items: int = 0, tokens_per_batch: int = 4096, "
        "precision: Literal['auto', 'float32', 'bfloat16'] = 'auto') -> None"
    )
    with pytest.raises(ValueError, match="Unexpected positional argument"):
        EngineConfig(0, 1, "auto", 4, 5)


def test_the_order_of_subsets_does_not_matter() -> None:
    helpful, harmless = ("helpful", ["helpful-base"]), ("harmless", ["harmless-base"])
    assert config_hash(DataConfig(subsets=dict([helpful, harmless]))) == config_hash(
        DataConfig(subsets=dict([harmless, helpful]))
    )


def test_unknown_fields_are_named_with_the_known_ones() -> None:
    assert TrainConfig(**check_fields("train_options", {"n_evaluations": 3}, TrainConfig)).n_evaluations == 3
    with pytest.raises(
        ValueError, match=r"train_options: expected fields of TrainConfig \(n_epochs, .*got \['dtype'\]"
    ):
        check_fields("train_options", {"dtype": "float32", "n_epochs": 1.0}, TrainConfig)
