"""Exported runs: the same tables, scores that still tell the top neurons, no weights and no text of the data."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_measurement_stages import DEPTH, INTERPOLATE, runs  # noqa: F401

from tension_utils.artifacts import (
    DETAIL_KINDS,
    OWN_SCORES,
    VIEWS,
    file_hash,
    is_archived,
    present_runs,
    read_manifest,
    read_table,
)
from tension_utils.config import EngineConfig, IdentifyConfig, Run, list_pairs
from tension_utils.depth import depth_run
from tension_utils.export import OWN_KINDS, _of_no_machine, export_run, export_runs
from tension_utils.interpolation import interpolate_run
from tension_utils.scores import SIDES, NeuronScores, load_view, own_scores
from tension_utils.stages import identify_run

pytestmark = pytest.mark.xdist_group("measurement-stages")
IDENTIFY = IdentifyConfig(engine=EngineConfig(n_items=6, tokens_per_batch=512, precision="float32"))


@pytest.fixture(scope="module")
def finished(runs: list[Run]) -> list:  # noqa: F811
    """Three evaluated reward models, the helpful one with scores and depth, and their pair."""
    assert identify_run(runs[0], IDENTIFY) and depth_run(runs[0], DEPTH)
    (pair,) = list_pairs(runs)
    interpolate_run(pair, INTERPOLATE)
    return [*runs, pair]


def test_an_export_is_a_run_folder_with_the_same_tables(finished: list, tmp_path: Path) -> None:
    target = tmp_path / "results"
    n_exported, missing = export_runs(
        [(run, ("train", "evaluate")) for run in finished[:3]], finished[0].root, target, 0
    )
    assert (n_exported, missing) == (3, [])
    exported = [Run(target, run.base_model, run.objective, run.seed) for run in finished[:3]]
    for name, chapter in (("evaluation", "02_evaluate"), ("train_log", "01_train")):
        pd.testing.assert_frame_equal(read_table(exported, name, chapter), read_table(finished[:3], name, chapter))
    for path in target.rglob("*.parquet"):
        for column in pd.read_parquet(path).select_dtypes(exclude="number"):
            values = pd.read_parquet(path)[column].astype(str)
            assert not values.str.contains("Human|Assistant| ").any(), f"{path}: {column} holds text of the data"
    assert not [*target.rglob("model.safetensors"), *target.rglob("tokenizer*")]


def test_exported_scores_tell_the_same_top_neurons(finished: list, tmp_path: Path) -> None:
    run = finished[0]
    assert export_run(run, tmp_path) == ["train", "evaluate", "identify", "depth"]
    exported = Run(tmp_path, run.base_model, run.objective, run.seed)
    whole, half = own_scores(run), own_scores(exported)
    for (kind, side, scope), values in half.tensors.items():
        expected = whole.get(kind, side, scope)
        assert values.dtype == np.float32
        assert np.abs(values - expected).max() <= 2**-11 * np.abs(expected).max()
    assert {kind for kind, _, _ in half.tensors} == {kind for kind, _, _ in whole.tensors}
    rest = {key for key in half.tensors if key[1:] != ("both", "all")}
    assert {kind for kind, _, _ in rest} == set(DETAIL_KINDS) and {side for _, side, _ in rest} == {*SIDES, "both"}
    assert load_view(exported, "base-text-helpful").n_items == 6 and load_view(exported, "half-1").n_items == 3
    assert is_archived(exported.folder, OWN_SCORES), "the manifest has the hash of what was written"
    about = read_manifest(exported.folder)["export"]
    assert about["schema_version"] == 1 and min(about["top_tenth_jaccard_of_float16"].values()) > 0.9
    for name, digest in about["files"].items():
        assert file_hash(exported.folder / name) == digest


def test_a_run_that_is_not_detailed_keeps_what_claims_read(finished: list, tmp_path: Path) -> None:
    run = finished[0]
    export_run(run, tmp_path, is_detailed=False)
    exported = Run(tmp_path, run.base_model, run.objective, run.seed)
    kept = own_scores(exported).tensors
    assert {kind for kind, _, _ in kept} == set(OWN_KINDS) & {kind for kind, _, _ in own_scores(run).tensors}
    assert {key[1:] for key in kept} == {("both", "all")}
    assert not (exported.folder / VIEWS / "gate.safetensors").exists()


def test_sham_models_are_not_exported_in_detail(finished: list, tmp_path: Path) -> None:
    (run, *_), root = finished, tmp_path / "runs"
    sham = Run(root, run.base_model, "helpful-coin", run.seed)
    shutil.copytree(run.folder, sham.folder)
    export_runs([(run, ())], run.root, tmp_path / "results", run.seed)
    export_runs([(sham, ())], root, tmp_path / "results", run.seed)
    whole, small = (Run(tmp_path / "results", run.base_model, arm, run.seed) for arm in (run.objective, sham.objective))
    assert (whole.folder / VIEWS / "gate.safetensors").exists() and own_scores(small).tensors
    assert not (small.folder / VIEWS / "gate.safetensors").exists()


def test_an_unfinished_run_says_what_is_missing(finished: list, tmp_path: Path) -> None:
    other = Run(finished[0].root, finished[0].base_model, "helpful-coin", 1)
    expected = [(finished[1], ("train", "evaluate", "ablate")), (other, ("train",)), (finished[3], ("interpolate",))]
    n_exported, missing = export_runs(expected, finished[0].root, tmp_path, 0)
    assert n_exported == 2
    assert missing == [f"{finished[1].folder}: ablate not finished", f"{other.folder}: train not finished"]


def test_a_damaged_table_is_not_exported(finished: list, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(finished[1].root / finished[1].base_model_name, root / finished[1].base_model_name)
    run = Run(root, finished[1].base_model, finished[1].objective, 1)
    path = run.folder / "evaluation.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="evaluation.parquet: expected the file that the evaluate stage wrote"):
        export_run(run, tmp_path / "results")
    assert not (tmp_path / "results").exists() or not [*(tmp_path / "results").rglob("*.parquet")]


def test_half_precision_keeps_small_and_large_scores(tmp_path: Path) -> None:
    values = {("attribution", "both", "all"): np.array([[1e-9, -3e-9, 0.0]], np.float32)}
    scores = NeuronScores(
        values | {("rms", "both", "all"): np.array([[7e5, 2.0, 0.0]], np.float32)}, "down_input", 1, 2
    )
    scores.save(tmp_path / "half.safetensors", is_half=True)
    again = NeuronScores.load(tmp_path / "half.safetensors")
    assert again.get("attribution") == pytest.approx(scores.get("attribution"), rel=1e-3)
    assert again.get("rms") == pytest.approx(scores.get("rms"), rel=1e-3, abs=1)


def test_a_folder_of_others_is_not_replaced(finished: list, tmp_path: Path) -> None:
    theirs = tmp_path / finished[1].folder.relative_to(finished[1].root) / "thesis.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(FileExistsError, match="expected nothing there, or a folder with manifest.json"):
        export_run(finished[1], tmp_path)
    assert theirs.read_text() == "mine" and len(list(theirs.parent.iterdir())) == 1


def test_no_path_of_a_machine_is_exported() -> None:
    found = {"inputs": {"/data/hh-rlhf/a.jsonl": "x"}, "config": {"from": ["/data/hh-rlhf", "a/b", 1]}}
    assert _of_no_machine(found) == {"inputs": {"a.jsonl": "x"}, "config": {"from": ["hh-rlhf", "a/b", 1]}}


def test_of_exported_runs_a_chapter_shows_those_that_are_there(finished: list, tmp_path: Path) -> None:
    mixed, single = finished[2], finished[0]
    assert present_runs([single, Run(single.root, single.base_model, single.objective, 99)], "x")[1].seed == 99
    for run in (mixed, single):
        export_run(run, tmp_path)
    exported = [
        Run(tmp_path, run.base_model, run.objective, seed) for run in (mixed, single) for seed in (run.seed, 99)
    ]
    assert present_runs(exported, "evaluation.parquet") == [exported[0], exported[2]]
    (exported[0].folder / "evaluation.parquet").unlink()
    assert present_runs(exported, "manifest.json", "evaluation.parquet") == [exported[2]]
