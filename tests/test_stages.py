"""The stages after training on a small toy world: rows, values against plain transformers, resume, errors."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tension_utils import stages as ablation_stage
from tension_utils import stages as identification
from tension_utils.activations import neuron_scores, text_scores
from tension_utils.analysis.claims import Evidence, ledger
from tension_utils.analysis.findings import CLAIMS, WAYS, primary_of
from tension_utils.analysis.overlap import overlap_table
from tension_utils.analysis.removal import per_neuron, per_neuron_differences
from tension_utils.artifacts import OWN_SCORES, file_hash, read_manifest
from tension_utils.conditions import MIXED_SETS, ONLY, SHARED, Condition, list_conditions
from tension_utils.config import (
    CONTROLS,
    FAMILIES,
    AblateConfig,
    DataConfig,
    EngineConfig,
    EvaluateConfig,
    IdentifyConfig,
    Run,
    TrainConfig,
    list_runs,
)
from tension_utils.data import render_prompt, render_response, training_pairs
from tension_utils.models import load_base_model, load_reward_model, load_tokenizer
from tension_utils.neurons import NeuronSet
from tension_utils.scores import NeuronScores, load_view, own_scores
from tension_utils.stages import (
    GENERIC_KINDS,
    _Ablation,
    _items_of,
    ablate_run,
    evaluate_run,
    help_ablate,
    identify_run,
    load_items,
    load_passages,
)
from tension_utils.statistics import Bootstrap
from tension_utils.training import train_run

pytestmark = pytest.mark.xdist_group("stages")
ENGINE = EngineConfig(n_items=6, tokens_per_batch=512, precision="float32")
EVALUATE = EvaluateConfig(("hh-rlhf", "toy"), ENGINE)
KINDS = ("signed_mean", "mean_abs", "rms_change", "attribution")
IDENTIFY = IdentifyConfig(KINDS, ("all", "last"), 4, ENGINE, n_generic=5)
ABLATE = AblateConfig(
    ("mean_abs", "rms_change"),
    "all",
    0.1,
    (0.1, 0.3, 1.0),
    ("zero", "mean", "resample"),
    "rms_change",
    2,
    engine=ENGINE,
)


@pytest.fixture(scope="module")
def runs(toy_world: Path) -> list[Run]:
    """Three reward models, trained for one step or two, with every stage done."""
    runs = list_runs(toy_world.parent, ["toy"], ["helpful", "harmless", "helpful-harmless"], [0])
    data = DataConfig(n_train_pairs=12, n_validation_pairs=4, max_length=256)
    for run in runs:
        assert train_run(run, data, TrainConfig(batch_size=12, n_evaluations=1, precision="float32"))
        assert evaluate_run(run, EVALUATE) and identify_run(run, IDENTIFY)
    assert [ablate_run(run, ABLATE) for run in runs] == [True] * 3
    return runs


def plain_reward(model: torch.nn.Module, tokenizer: object, text: str) -> float:
    ids = torch.tensor([[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]])
    with torch.inference_mode():
        return model(ids).logits.item()


def test_margins_are_those_of_one_plain_forward_pass_each(runs: list[Run]) -> None:
    run = runs[0]
    table = pd.read_parquet(run.folder / "evaluation.parquet").set_index("item_id")
    model = load_reward_model(run.folder / "reward_model")
    tokenizer = load_tokenizer(run.folder / "reward_model")
    data = DataConfig(source=str(run.root / "toy-world" / "hh-rlhf"), max_length=256)
    for item in load_items(run, data, EvaluateConfig(("hh-rlhf", "toy"), EngineConfig(n_items=2))).items:
        prompt = render_prompt(item.prompt)
        chosen, rejected = (
            [plain_reward(model, tokenizer, prompt + render_response(r)) for r in side]
            for side in (item.chosen, item.rejected)
        )
        row = table.loc[item.item_id]
        assert row.margin == pytest.approx(min(chosen) - max(rejected), rel=1e-4, abs=1e-5)
        assert row.credit == (row.margin > 0)
        assert row.chance == pytest.approx(1 / (len(chosen) + len(rejected)))


def test_a_stage_finds_its_artifact_and_recomputes_when_its_settings_change(runs: list[Run]) -> None:
    run = runs[1]
    assert not evaluate_run(run, EVALUATE) and not identify_run(run, IDENTIFY) and not ablate_run(run, ABLATE)
    before = (run.folder / "evaluation.parquet").read_bytes()
    fewer = EvaluateConfig(("hh-rlhf", "toy"), dataclasses.replace(ENGINE, n_items=3))
    assert evaluate_run(run, fewer)
    assert len(pd.read_parquet(run.folder / "evaluation.parquet")) == 3 * 8
    assert evaluate_run(run, EVALUATE)
    assert (run.folder / "evaluation.parquet").read_bytes() == before  # the same settings give the same bytes


def test_manifest_tells_settings_inputs_and_hardware(runs: list[Run]) -> None:
    manifest = read_manifest(runs[0].folder)
    assert set(manifest) == {"train", "evaluate", "identify", "ablate"}
    for section in manifest.values():
        assert section["config_hash"] and section["artifact_hash"] and section["seconds"] >= 0
        assert section["device"].startswith("cpu") and section["packages"]["torch"] == torch.__version__
    assert set(manifest["ablate"]["inputs"]) == {"reward_model", "data_source", "neuron_scores_helpful"}


def test_random_sets_match_the_scored_set_in_every_layer(runs: list[Run]) -> None:
    for run in runs:
        targeted = None
        for condition in list_conditions(run, ABLATE):
            if condition.set != "random":
                targeted = condition
                continue
            assert condition.matched_to == targeted.set and condition.neurons != targeted.neurons
            assert condition.neurons.counts_by_layer().tolist() == targeted.neurons.counts_by_layer().tolist()
            assert (condition.fraction, condition.ablation_kind) == (targeted.fraction, targeted.ablation_kind)


def test_every_condition_is_listed_once(runs: list[Run]) -> None:
    labels = [{**c.label, "n_neurons": 0} for c in list_conditions(runs[0], ABLATE) if c.set != "random"]
    found = [(label["set"], label["fraction"], label["ablation_kind"]) for label in labels]
    expected = [(kind, fraction, "zero") for kind in ABLATE.score_kinds for fraction in (0.1, 0.3)]
    expected += [("all", 1.0, "zero"), ("rms_change", 0.1, "mean"), ("rms_change", 0.1, "resample")]
    assert sorted(found) == sorted(expected)
    counted = pd.read_parquet(runs[2].folder / "ablation.parquet").groupby(["set", "matched_to", "fraction"]).draw
    assert (counted.nunique().loc["random"] == 2).all()


def test_views_equal_scores_taken_directly(runs: list[Run]) -> None:
    helpful, harmless = runs[:2]
    data = DataConfig(source=str(helpful.root / "toy-world" / "hh-rlhf"), n_train_pairs=12, n_validation_pairs=4)
    pairs = {run.objective: list(training_pairs(data, run.objective, 0).train)[:6] for run in runs[:2]}
    base, tokenizer = (
        load_base_model(helpful.root / "toy-world" / "base_model"),
        load_tokenizer(helpful.folder / "reward_model"),
    )
    model = load_reward_model(helpful.folder / "reward_model")
    options = {"base_model": base, "max_length": 256, "progress": False}
    expected = {
        "half-1": neuron_scores(model, tokenizer, pairs["helpful"][1::2], kinds="mean_abs", **options),
        "gate": neuron_scores(model, tokenizer, pairs["helpful"][:4], kinds="mean_abs", site="gate", **options),
        "text-harmless": neuron_scores(model, tokenizer, pairs["harmless"][:4], kinds="mean_abs", **options),
        "generic": text_scores(model, tokenizer, load_passages("pydoc", 5), kinds="mean_abs", **options),
        "base-generic": text_scores(base, tokenizer, load_passages("pydoc", 5), kinds="mean_abs", **options),
        "base-text-helpful": neuron_scores(base, tokenizer, pairs["helpful"][:4], kinds="mean_abs", **options),
    }
    for view, scores in expected.items():
        np.testing.assert_allclose(load_view(helpful, view).get("mean_abs"), scores.get("mean_abs"), rtol=1e-4)
    gate, own = load_view(helpful, "gate"), own_scores(helpful)
    assert load_view(helpful, "heads").site == "heads" and gate.site == "gate"
    assert set(gate.tensors) == set(own.tensors), "every score kind, side and scope is taken at both sites"
    for text in ("helpful", "harmless"):
        view = load_view(helpful, f"text-{text}")
        assert {kind for kind, _, _ in view.tensors} == {*KINDS, "frequency"} and view.n_items == 4
        direct = neuron_scores(model, tokenizer, pairs[text][:4], kinds="attribution", **options)
        np.testing.assert_allclose(view.get("attribution"), direct.get("attribution"), rtol=1e-3, atol=1e-6)
    assert set(load_view(helpful, "base-generic").tensors) == {(k, "both", "all") for k in GENERIC_KINDS}
    assert {k for k, _, _ in load_view(harmless, "generic").tensors} == {
        *GENERIC_KINDS,
        "rms_change",
        "relative_change",
    }
    direct = neuron_scores(model, tokenizer, pairs["helpful"][:4], kinds="attribution", site="gate", **options)
    np.testing.assert_allclose(gate.get("attribution"), direct.get("attribution"), rtol=1e-3, atol=1e-6)
    with pytest.raises(FileNotFoundError, match=r"base-text-helpful.*03_identify"):
        load_view(harmless, "base-text-helpful")


def test_the_view_on_the_own_text_is_not_taken_twice(copied: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    original, texts = identification.neuron_scores, []

    def scored(model: object, tokenizer: object, items: list, **options: object) -> NeuronScores:
        texts.append(items[0].item_id.split("/")[0])
        return original(model, tokenizer, items, **options)

    monkeypatch.setattr(identification, "neuron_scores", scored)
    whole = dataclasses.replace(IDENTIFY, score_kinds=(*KINDS, "frequency"), n_view_items=0, n_generic=0)
    apart = dataclasses.replace(whole, n_view_items=5)
    for config, n_passes in (
        (whole, 4),
        (apart, 5),
    ):  # gate, heads, other text, base, and the own text where it differs
        texts.clear()
        assert identify_run(copied, config)
        assert len(texts) == n_passes and texts.count("harmless-base") == 1
    assert identify_run(copied, whole)
    own, view = own_scores(copied), load_view(copied, "text-helpful")
    assert set(view.tensors) == {key for key in own.tensors if key[2] == "all"} and view.n_items == own.n_items == 6
    assert all(np.array_equal(values, own.tensors[key]) for key, values in view.tensors.items())
    with pytest.raises(FileNotFoundError, match=r"generic.*03_identify"):
        load_view(copied, "generic")
    few = dataclasses.replace(whole, scopes=("last",))
    assert identify_run(copied, few) and load_view(copied, "text-helpful").get("mean_abs").any()


@pytest.mark.parametrize(("n_done", "is_damaged"), [(1, False), (3, False), (1, True), (3, True)])
def test_a_stopped_identification_goes_on_with_the_next_pass(
    copied: Run, n_done: int, is_damaged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [copied.folder / OWN_SCORES, *sorted((copied.folder / "score_views").iterdir())]
    before = {path: path.read_bytes() for path in places}
    places[0].unlink()
    calls = []

    def stopping(name: str) -> object:
        original = getattr(identification, name)

        def run(*args: object, **options: object) -> object:
            calls.append(name)
            if len(calls) == n_done + 1:
                raise KeyboardInterrupt
            return original(*args, **options)

        return run

    for name in ("split_half_scores", "neuron_scores", "text_scores"):
        monkeypatch.setattr(identification, name, stopping(name))
    with pytest.raises(KeyboardInterrupt):
        identify_run(copied, IDENTIFY)
    n_files = len(list((copied.folder / "score_parts").iterdir()))
    assert n_files == 3 + n_done - 1, "the first pass gives three, each other one gives one"
    if is_damaged:  # one bit of one pass
        part = max((copied.folder / "score_parts").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        content = bytearray(part.read_bytes())
        content[-9] ^= 16
        part.write_bytes(content)
        n_files -= 1
    done = list(calls[:n_done])
    calls[:] = ["stopped"] * 100  # none is stopped any more
    assert identify_run(copied, IDENTIFY)
    again = calls[100:]
    assert len(again) == len(before) - n_files
    assert (done[0] in again) == (is_damaged and n_done == 1)
    assert {path: path.read_bytes() for path in places} == before
    assert not (copied.folder / "score_parts").exists()


def test_passes_of_another_base_model_are_not_used(copied: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (copied.folder / OWN_SCORES).unlink()
    marks = []
    original = identification.file_hash
    for mark in ("one", "other"):
        monkeypatch.setattr(identification, "file_hash", lambda path, mark=mark: mark)
        monkeypatch.setattr(identification, "neuron_scores", lambda *args, **options: (_ for _ in ()).throw(OSError))
        with pytest.raises(OSError):
            identify_run(copied, IDENTIFY)
        marks.append({path.name for path in (copied.folder / "score_parts").iterdir()})
    monkeypatch.setattr(identification, "file_hash", original)
    assert len(marks[0]) == 3 and len(marks[1]) == 6, "the passes of the first base model stay aside"


def ablated_rewards(run: Run, condition: Condition, value: float, scale: float = 0.0) -> list[tuple[str, float]]:
    """Margins of the first two items of each HH-RLHF test, hooks having moved activations to a value or toward it."""
    model, tokenizer = (load(run.folder / "reward_model") for load in (load_reward_model, load_tokenizer))

    def hold(layer: int) -> object:
        columns = torch.from_numpy(np.flatnonzero(condition.neurons.mask[layer]))

        def hook(module: torch.nn.Module, inputs: tuple) -> tuple:
            hidden = inputs[0].clone()
            held = torch.as_tensor(value if np.isscalar(value) else value[layer][columns.numpy()])
            hidden[..., columns] = held + scale * (hidden[..., columns] - held)
            return (hidden,)

        return hook

    for layer, block in enumerate(model.model.layers):
        block.mlp.down_proj.register_forward_pre_hook(hold(layer))
    data = DataConfig(source=str(run.root / "toy-world" / "hh-rlhf"), max_length=256)
    found = []
    for item in load_items(run, data, EvaluateConfig(("hh-rlhf",), EngineConfig(n_items=2))).items:
        texts = [render_prompt(item.prompt) + render_response(r) for r in item.responses]
        chosen, rejected = (plain_reward(model, tokenizer, text) for text in texts)
        found.append((item.item_id, chosen - rejected))
    return found


@pytest.mark.parametrize("name, kind", [("mean_abs", "zero"), ("rms_change", "mean"), ("all", "zero")])
def test_ablation_rows_equal_a_model_with_hooks(runs: list[Run], name: str, kind: str) -> None:
    run = runs[0]
    condition = next(c for c in list_conditions(run, ABLATE) if (c.set, c.ablation_kind) == (name, kind))
    table = pd.read_parquet(run.folder / "ablation.parquet")
    is_it = (table.set == name) & (table.ablation_kind == kind) & (table.fraction == condition.fraction)
    rows = table[is_it].set_index("item_id")
    value = own_scores(run).get("signed_mean") if kind == "mean" else 0.0
    for item_id, margin in ablated_rewards(run, condition, value):
        assert rows.loc[item_id].margin == pytest.approx(margin, rel=1e-3, abs=1e-5)


def counted(monkeypatch: pytest.MonkeyPatch, limit: int = 10**6) -> list[int]:
    """Count the passes over all items from now on, and stop after some."""
    original, calls = ablation_stage.score_groups, []

    def scored(*args: object, **kwargs: object) -> pd.DataFrame:
        calls.append(1)
        if len(calls) > limit:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(ablation_stage, "score_groups", scored)
    return calls


def parts_of(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run.folder / "ablation_parts").iterdir())}


@pytest.fixture
def copied(runs: list[Run], tmp_path: Path) -> Run:
    """The helpful run in a folder of its own, ablated."""
    shutil.copytree(runs[0].root / "toy-world", tmp_path / "toy-world")
    run = dataclasses.replace(runs[0], root=tmp_path)
    shutil.copytree(runs[0].folder, run.folder)
    return run


def test_a_stopped_ablation_goes_on_where_it_was(copied: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before, parts = (copied.folder / "ablation.parquet").read_bytes(), parts_of(copied)
    (copied.folder / "ablation.parquet").unlink()
    shutil.rmtree(copied.folder / "ablation_parts")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counted(patch, 1 + 5)
        ablate_run(copied, ABLATE)
    assert len(parts_of(copied)) == 5 and parts_of(copied).items() <= parts.items()
    assert not (copied.folder / "ablation.parquet").exists()
    calls = counted(monkeypatch)
    assert ablate_run(copied, ABLATE)
    assert len(calls) == len(list_conditions(copied, ABLATE)) - 5 + 2  # an intact pass before and one after
    assert (copied.folder / "ablation.parquet").read_bytes() == before and parts_of(copied) == parts


def test_a_longer_list_computes_what_is_new(copied: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before, parts = pd.read_parquet(copied.folder / "ablation.parquet"), parts_of(copied)
    calls = counted(monkeypatch)
    more = dataclasses.replace(ABLATE, n_draws=3, controls=("layer", "activity"), n_activity_bins=4)
    assert ablate_run(copied, more)
    n_targets = 2 * 2 + 2  # scores by fractions, and other kinds; all neurons have no draws
    assert len(calls) == n_targets * (1 + 3) + 2
    grown = pd.read_parquet(copied.folder / "ablation.parquet")
    first = grown[grown.control.isin(["", "layer"]) & (grown.draw < 2)].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, before)
    assert parts.items() <= parts_of(copied).items()
    assert read_manifest(copied.folder)["ablate"]["n_found"] == len(list_conditions(copied, ABLATE))
    calls.clear()
    assert ablate_run(copied, ABLATE) and not calls, "the shorter list is found whole"
    pd.testing.assert_frame_equal(pd.read_parquet(copied.folder / "ablation.parquet"), before)
    assert read_manifest(copied.folder)["ablate"]["seconds_intact"] is None, "no pass was needed"


def test_several_configurations_make_one_table_each_on_its_own_items(
    copied: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = dataclasses.replace(ENGINE, n_items=2)
    scaled = AblateConfig(("rms_change",), scales=(0.5,), n_draws=1, benchmarks=("toy",), engine=fewer)
    wider = dataclasses.replace(scaled, scales=(0.0,), benchmarks=("hh-rlhf", "toy"), engine=ENGINE)
    calls = counted(monkeypatch)
    assert ablate_run(copied, ABLATE, scaled, wider, scaled)
    assert len(calls) == 2 + 2 + 2, (
        "a scaled set and its draw, and the removed ones on new items, and two intact passes"
    )
    table = pd.read_parquet(copied.folder / "ablation.parquet")
    keys = [*list_conditions(copied, ABLATE)[0].key, "benchmark", "subset", "item_id"]
    assert not table.duplicated(keys).any()
    half = table[table.scale == 0.5]
    assert set(half.benchmark) == {"toy"} and half.groupby(["subset", "set"]).item_id.nunique().max() <= 2 * 9
    removed = table[(table.set == "rms_change") & (table.scale == 0) & (table.fraction == 0.1)]
    assert set(removed[removed.ablation_kind == "zero"].benchmark) == {"hh-rlhf", "toy"}
    assert set(removed[removed.ablation_kind == "mean"].benchmark) == {"hh-rlhf"}
    assert len(read_manifest(copied.folder)["ablate"]["config"]["further"]) == 3
    assert not ablate_run(copied, ABLATE, scaled, wider, scaled)


def test_a_mixed_model_can_have_its_shared_and_only_sets_alone(runs: list[Run], tmp_path: Path) -> None:
    shutil.copytree(runs[0].root, tmp_path / "all")
    mixed = dataclasses.replace(runs[2], root=tmp_path / "all")
    config = AblateConfig(
        ablation_kinds=("resample",),
        main_kind="attribution",
        fraction=0.3,
        n_draws=2,
        engine=ENGINE,
        blocks=("mixed",),
        families=FAMILIES[:3],
        controls=CONTROLS,
        n_activity_bins=4,
        scales=(0.0, 2.0),
    )
    assert ablate_run(mixed, config)
    rows = pd.read_parquet(mixed.folder / "ablation.parquet")
    evaluation = pd.read_parquet(mixed.folder / "evaluation.parquet")
    assert set(rows.matched_to) == set(MIXED_SETS) and set(rows.family) == set(FAMILIES[:3])
    assert len(rows) == 3 * 3 * (1 + 2 * 2) * 2 * (evaluation.benchmark == "hh-rlhf").sum()
    assert set(zip(rows.ablation_kind, rows["scale"], strict=True)) == {("resample", 0.0), ("zero", 2.0)}
    for control in CONTROLS:
        table = per_neuron(rows, evaluation, bootstrap=Bootstrap(20), control=control)
        assert set(table.family) == set(FAMILIES[:3]) and set(table.n_draws) == {2}
        differences = per_neuron_differences(
            rows, evaluation, bootstrap=Bootstrap(20), control=control, family=FAMILIES[2]
        )
        assert len(differences) == 2 * 3 * 2 and (differences.n_neurons == differences.n_neurons[0]).all()


def test_only_sets_can_be_removed_on_their_own_test_alone_and_on_the_other_later(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(runs[0].root, tmp_path / "all")
    mixed = dataclasses.replace(runs[2], root=tmp_path / "all")
    names = {"main_kind": "attribution", "blocks": ("mixed",), "families": ("natural",), "engine": ENGINE}
    own = AblateConfig(fraction=0.3, n_draws=2, own_test=True, **names)
    group_of = pd.read_parquet(mixed.folder / "evaluation.parquet").set_index("item_id").group
    n_sets = len(list_conditions(mixed, own))
    assert ablate_run(mixed, own)
    table = pd.read_parquet(mixed.folder / "ablation.parquet")
    tested = {name: set(group_of[rows.item_id]) for name, rows in table.groupby("matched_to")}
    own_tests = {name: {objective} for objective, name in ONLY.items()}
    assert tested == {SHARED: set(ONLY)} | own_tests
    calls = counted(monkeypatch)
    assert ablate_run(mixed, own, dataclasses.replace(own, own_test=False))
    n_only = n_sets * 2 // 3
    assert len(calls) == n_only + 2, "the other test of the only sets, and two intact passes"
    grown = pd.read_parquet(mixed.folder / "ablation.parquet")
    assert set(group_of[grown.item_id]) == set(ONLY) and len(grown) == n_sets * grown.item_id.nunique()
    names = [*list_conditions(mixed, own)[0].key, "benchmark", "subset", "item_id"]
    both = table.merge(grown, on=names, suffixes=("", "_grown"))
    assert len(both) == len(table) and (both.margin == both.margin_grown).all()


def test_scaled_rows_equal_a_model_with_hooks(copied: Run) -> None:
    config = AblateConfig(("rms_change",), scales=(0.5, 2.0), n_draws=1, engine=ENGINE)
    assert ablate_run(copied, config)
    table = pd.read_parquet(copied.folder / "ablation.parquet")
    for condition in list_conditions(copied, config):
        is_it = (table.set == condition.set) & (table["scale"] == condition.scale)
        for item_id, margin in ablated_rewards(copied, condition, 0.0, condition.scale):
            assert table[is_it].set_index("item_id").margin[item_id] == pytest.approx(margin, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("damage", ["cut", "other rows", "other columns", "nothing"])
def test_a_damaged_part_is_computed_again(copied: Run, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    before, parts = (copied.folder / "ablation.parquet").read_bytes(), parts_of(copied)
    (copied.folder / "ablation.parquet").unlink()
    part = sorted((copied.folder / "ablation_parts").iterdir())[3]
    table = pd.read_parquet(part)
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-30])
    elif damage == "nothing":
        part.write_bytes(b"")
    else:
        (table[1:] if damage == "other rows" else table.rename(columns={"margin": "m"})).to_parquet(part, index=False)
    calls = counted(monkeypatch)
    assert ablate_run(copied, ABLATE) and len(calls) == 1
    assert (copied.folder / "ablation.parquet").read_bytes() == before and parts_of(copied) == parts


def test_a_second_process_takes_the_last_condition_first_and_the_first_finds_it(
    copied: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, parts = (copied.folder / "ablation.parquet").read_bytes(), parts_of(copied)
    assert not help_ablate(copied, ABLATE), "all is done"
    (copied.folder / "ablation.parquet").unlink()
    assert not help_ablate(copied, ABLATE), "every condition is there"
    work = _Ablation(copied, [ABLATE])
    assert work.start()
    order = list(dict.fromkeys(work.part_name(*each) for each in work.todo))
    assert set(order) == set(parts) and len(order) > 6
    for name in order[2:]:  # the first process has computed two
        (copied.folder / "ablation_parts" / name).unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counted(patch, limit=3)
        help_ablate(copied, ABLATE)
    assert set(parts_of(copied)) == {*order[:2], *order[-3:]}
    assert help_ablate(copied, ABLATE) and parts_of(copied) == parts
    calls = counted(monkeypatch)
    assert ablate_run(copied, ABLATE) and not calls
    assert (copied.folder / "ablation.parquet").read_bytes() == before


def test_parts_of_other_models_go_and_those_of_this_one_stay(copied: Run) -> None:
    parts = parts_of(copied)
    (copied.folder / "ablation.parquet").unlink()
    for name in ("0001-0123456789abcdef.parquet", "f" * 16 + "-" + "0" * 24 + ".parquet"):
        (copied.folder / "ablation_parts" / name).write_bytes(b"x")
    (copied.folder / "ablation_parts" / "notes.txt").write_text("kept")
    assert ablate_run(copied, ABLATE)
    assert parts_of(copied) == parts | {"notes.txt": b"kept"}


def test_a_part_is_named_by_all_that_its_rows_depend_on(copied: Run) -> None:
    """Every change of what rows depend on gives another name, and a new place in the list does not."""
    (copied.folder / "ablation.parquet").unlink()
    work, shorter = (_Ablation(copied, [dataclasses.replace(ABLATE, max_length=length)]) for length in (256, 255))
    assert work.start() and shorter.start()
    stage, (items,) = work.stage, work.items_of
    smaller = dataclasses.replace(ABLATE, engine=dataclasses.replace(ENGINE, n_items=2))
    (few,), _ = _items_of(stage, [smaller], 256)
    zero, *_, mean, resample = (
        next(c for c in list_conditions(copied, ABLATE) if (c.ablation_kind, c.fraction, c.set) == (kind, 0.1, name))
        for kind, name in (("zero", "rms_change"), ("mean", "rms_change"), ("resample", "rms_change"))
    )
    other = NeuronSet(~zero.neurons.mask)
    changed = [dataclasses.replace(zero, scale=0.5), dataclasses.replace(zero, neurons=other), mean, resample]
    names = [work.part_name(each, items) for each in (zero, *changed)] + [work.part_name(zero, few)]
    names.append(work.part_name(dataclasses.replace(resample, draw=1), items))
    names.append(shorter.part_name(zero, items))
    work.means = work.means + 1
    names.append(work.part_name(mean, items))
    stage.placement["dtype"] = "bfloat16"
    names.append(work.part_name(zero, items))
    stage.trained["artifact_hash"] = "0" * 64
    names.append(work.part_name(zero, items))
    assert len(set(names)) == len(names) == 11
    renamed = dataclasses.replace(zero, set="random", control="layer", draw=3, fraction=0.2)
    assert work.part_name(renamed, items) == names[-1], "the same neurons under another name have the same rows"


def test_configurations_that_contradict_each_other_are_refused(copied: Run) -> None:
    kinds = {"score_kinds": ("mean_abs",), "main_kind": "mean_abs"}
    short = AblateConfig(**kinds, n_draws=1, engine=ENGINE, controls=("activity",), n_activity_bins=4)
    for others, message in (
        ((), "expected at least one AblateConfig"),
        ((short, dataclasses.replace(short, max_length=64)), "max_length: expected one value for all"),
        ((short, dataclasses.replace(short, engine=EngineConfig(2, precision="bfloat16"))), "precision: expected one"),
        ((short, dataclasses.replace(short, sources={"hh-rlhf": "elsewhere"})), "source of hh-rlhf: expected one"),
        (
            (short, dataclasses.replace(short, n_activity_bins=2)),
            "two configurations give different neurons to .*'mean_abs",
        ),
        ((short, dataclasses.replace(short, scope="last")), "two configurations give different neurons to .*'mean_abs"),
        ((dataclasses.replace(short, blocks=("mixed",)),), "no condition is left for the helpful model"),
    ):
        with pytest.raises(ValueError, match=message):
            ablate_run(copied, *others)


def test_the_cost_of_a_condition_is_told(runs: list[Run]) -> None:
    for run in runs:
        facts = read_manifest(run.folder)["ablate"]
        assert facts["n_sets"] == len(list_conditions(run, ABLATE))
        assert min(facts["seconds_per_set"], facts["seconds_intact"]) > 0


def test_tables_and_the_answer_come_from_the_artifacts(runs: list[Run]) -> None:
    overlaps = overlap_table(runs, ["mean_abs"], 0.1)
    assert list(overlaps.pair) == ["helpful / harmless", "helpful / helpful-harmless", "harmless / helpful-harmless"]
    found = ledger(Evidence.of(runs))
    assert set(found.claim) == set(CLAIMS)
    published = found[(found.claim == "C4") & (found.score_kind == "rms_change") & (found.way == WAYS[0])]
    assert published.value.tolist() == pytest.approx([overlap_table(runs, ["rms_change"], 0.1).jaccard[0]])
    assert primary_of(found, "C2").n_draws == ABLATE.n_draws and "coin" in primary_of(found, "C4").reason


def test_results_without_weights_are_taken_as_they_are(copied: Run) -> None:
    shutil.rmtree(copied.folder / "reward_model")
    with pytest.raises(FileNotFoundError, match="01_train"):  # removed, not exported
        evaluate_run(copied, EVALUATE)
    names = ("evaluation.parquet", "ablation.parquet", "neuron_scores.safetensors", "train_log.parquet")
    files = {name: file_hash(copied.folder / name) for name in names}
    manifest = read_manifest(copied.folder) | {"export": {"schema_version": 1, "files": files}}
    (copied.folder / "manifest.json").write_text(json.dumps(manifest))
    other = EngineConfig(n_items=2)
    assert not train_run(copied, DataConfig(source="nowhere"), TrainConfig())
    assert not evaluate_run(copied, EvaluateConfig(engine=other))
    assert not identify_run(copied, IdentifyConfig(engine=other)) and not ablate_run(copied, AblateConfig(engine=other))
    (copied.folder / "training_state").mkdir()  # a training is under way: its weights will come
    with pytest.raises(FileNotFoundError, match="01_train"):
        evaluate_run(copied, EVALUATE)
    (copied.folder / "training_state").rmdir()
    with (copied.folder / "evaluation.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="evaluation.parquet: its content is not what manifest.json says"):
        evaluate_run(copied, EVALUATE)


def test_a_missing_model_names_the_chapter_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="01_train"):
        evaluate_run(Run(tmp_path, "toy", "helpful", 0), EVALUATE)


def test_an_unknown_benchmark_lists_the_known_ones(runs: list[Run]) -> None:
    with pytest.raises(ValueError, match="benchmarks.0.: expected one of hh-rlhf, .*toy; got 'mmlu'"):
        evaluate_run(runs[0], EvaluateConfig(("mmlu",), ENGINE))
