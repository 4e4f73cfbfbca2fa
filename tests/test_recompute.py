"""Stages look at every file they read or wrote, and errors name the commands that make what is missing."""

import gzip
import json
import shlex
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest

from run_notebook import check_parameters, declared_parameters
from tension_utils import stages
from tension_utils.artifacts import read_manifest, read_table
from tension_utils.config import DataConfig, EngineConfig, EvaluateConfig, IdentifyConfig, Run, TrainConfig, list_runs
from tension_utils.scores import load_view
from tension_utils.stages import evaluate_run, identify_run
from tension_utils.training import train_run

ROOT = Path(__file__).parents[1]
ENGINE = EngineConfig(n_items=2, tokens_per_batch=512, precision="float32")
DATA = DataConfig(n_train_pairs=6, n_validation_pairs=2, max_length=256)
TRAIN = TrainConfig(batch_size=6, n_evaluations=1, precision="float32")
IDENTIFY = IdentifyConfig(("rms_change",), ("all",), 2, ENGINE)


def evaluation(root: Path, *further: str) -> EvaluateConfig:
    sources = {"toy": str(root / "own-benchmark")}
    return EvaluateConfig(("hh-rlhf", "toy", *further), ENGINE, sources, n_template_check=1)


@pytest.fixture(scope="module")
def run(toy_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A reward model with its world, its own copy of the benchmark, and two stages done."""
    root = tmp_path_factory.mktemp("recompute")
    shutil.copytree(toy_world, root / "toy-world")
    shutil.copytree(toy_world / "benchmark", root / "own-benchmark")
    run = Run(root, "toy", "helpful", 0)
    assert train_run(run, DATA, TRAIN) and evaluate_run(run, evaluation(root)) and identify_run(run, IDENTIFY)
    return run


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_damaged_and_missing_files_are_computed_anew_and_bit_by_bit_the_same(run: Run) -> None:
    work = {
        "template_check.parquet": lambda: evaluate_run(run, evaluation(run.root)),
        "score_views/gate.safetensors": lambda: identify_run(run, IDENTIFY),
    }
    for name, stage in work.items():
        path = run.folder / name
        before = path.read_bytes()
        assert not stage()
        for damage in (flip, Path.unlink):
            damage(path)
            assert stage() and path.read_bytes() == before
    flip(run.folder / "score_views" / "gate.safetensors")
    with pytest.raises(ValueError, match="score_views/gate.safetensors: its content is not what manifest.json says"):
        load_view(run, "gate")
    assert identify_run(run, IDENTIFY)


def test_a_benchmark_in_a_folder_is_scored_again_when_its_rows_change(run: Run) -> None:
    config = evaluation(run.root)
    assert not evaluate_run(run, config)
    path = run.root / "own-benchmark" / "test.jsonl.gz"
    before = path.read_bytes()
    rows = gzip.decompress(before).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(rows[:-1])))
    assert {"benchmark_toy", "data_source", "reward_model"} <= set(read_manifest(run.folder)["evaluate"]["inputs"])
    assert evaluate_run(run, config) and not evaluate_run(run, config)
    path.write_bytes(before)
    assert evaluate_run(run, config)


def test_a_benchmark_that_could_not_be_reached_is_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    config = evaluation(run.root, "rmb")
    assert evaluate_run(run, config) and not evaluate_run(run, config)
    assert set(read_manifest(run.folder)["evaluate"]["not_run"]) == {"rmb"}
    monkeypatch.setattr(stages, "is_reachable", lambda name, source: name == "rmb")
    assert evaluate_run(run, config)


def test_following_the_messages_makes_what_was_missing(run: Run) -> None:
    chapters = {
        "01_train": lambda made: train_run(made, DATA, TRAIN),
        "02_evaluate": lambda made: evaluate_run(made, evaluation(run.root)),
    }
    wanted = [run, Run(run.root, "toy", "helpful-harmless-matched", 0), Run(run.root, "toy", "helpful", 1)]
    asked, todo = [], [lambda: read_table(wanted, "evaluation", "02_evaluate")]
    while todo:
        try:
            todo[-1]()
            todo.pop()
        except FileNotFoundError as error:
            words = shlex.split(str(error).partition("that are there: ")[2])
            chapter, values = Path(words[2]).stem, json.loads(words[-1])
            check_parameters(declared_parameters(nbformat.read(ROOT / words[2], as_version=4)), values)
            runs = list_runs(Path(values["root"]), values["base_models"], values["objectives"], values["seeds"])
            todo.append(lambda chapter=chapter, runs=runs: [chapters[chapter](made) for made in runs])
            asked.append(chapter)
            assert len(asked) < 10, "the messages send in circles"
    assert asked[0] == "02_evaluate" and "01_train" in asked
    assert np.isin([each.objective for each in wanted], read_table(wanted, "evaluation", "02_evaluate").objective).all()
