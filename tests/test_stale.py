"""What the start of the pipeline sees by content: sources and outputs that changed, came or went."""

import json
import os
from pathlib import Path

import pytest

import stale
from preconditions import check_preconditions
from stale import stale_outputs
from tension_utils.artifacts import MANIFEST, StageRecord, file_hash

PROFILE = {
    "base_models": ["models/base"],
    "objectives": ["helpful"],
    "seeds": [0],
    "train": {"data_source": "data/pairs", "max_length": 64},
    "evaluate": {"benchmarks": ["hh-rlhf", "rm-bench"]},
}
ROOT = Path("runs/p")
FOLDER = ROOT / "base" / "helpful" / "seed0"
FILES = {
    "train": ("reward_model/model.safetensors", ("train_log.parquet",)),
    "evaluate": ("evaluation.parquet", ("template_check.parquet",)),
    "identify": ("neuron_scores.safetensors", ("score_views/gate.safetensors",)),
    "ablate": ("ablation.parquet", ()),
}
SOURCES = {
    "base_model": "models/base",
    "data_source": "data/pairs",
    "benchmark_rm-bench": "data/rm",
    "generic_text": "a.txt",
}
READ = {
    "train": ("base_model", "data_source"),
    "evaluate": ("data_source", "benchmark_rm-bench"),
    "identify": ("base_model", "data_source", "generic_text"),
    "ablate": ("data_source", "benchmark_rm-bench"),
}


def write(path: Path, text: str = "content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one reward model through all stages, whose sources lie in folders."""
    monkeypatch.chdir(tmp_path)
    for name, source in SOURCES.items():
        write(Path(source) if name == "generic_text" else Path(source) / "file")
    benchmarks = {"benchmarks": ["hh-rlhf", "rm-bench"], "sources": {"rm-bench": "data/rm"}}
    configs = {
        "train": {"data": {"source": "data/pairs"}},
        "evaluate": {"evaluate": benchmarks},
        "identify": {"identify": {"n_generic": 2, "generic_text": "a.txt"}},
        "ablate": {"ablate": {"benchmarks": ["hh-rlhf"], "sources": {}}, "further": [benchmarks]},
    }
    for stage, (artifact, beside) in FILES.items():
        for name in (artifact, *beside):
            write(FOLDER / name, f"{stage} {name}")
        inputs = {name: Path(SOURCES[name]) for name in READ[stage]}
        record = StageRecord(FOLDER, stage, configs[stage], "digest")
        record.finish(artifact.split("/")[0], device="cpu", n_tokens=0, inputs=inputs, beside=beside)
    assert stale_outputs(ROOT, PROFILE) == {}
    return tmp_path


def stages(found: dict[Path, str]) -> set[str]:
    return {stage for stage, (output, _) in FILES.items() if FOLDER / output in found}


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_was_replaced_under_an_old_time_stamp_runs_what_reads_it(project: Path, source: str) -> None:
    path = Path(SOURCES[source]) if source == "generic_text" else Path(SOURCES[source]) / "file"
    at = path.stat()
    path.write_text("replaced")
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    found = stale_outputs(ROOT, PROFILE)
    assert stages(found) == {stage for stage, read in READ.items() if source in read} and len(found) == len(
        stages(found)
    )
    assert all(reason == f"what it reads changed: {source}" for reason in found.values())


@pytest.mark.parametrize("way", ["other", "missing"])
@pytest.mark.parametrize(
    "stage, name", [(s, n) for s, (artifact, beside) in FILES.items() for n in (artifact, *beside)]
)
def test_a_file_that_is_not_what_a_stage_wrote_is_made_again(project: Path, stage: str, name: str, way: str) -> None:
    write(FOLDER / name, "other") if way == "other" else (FOLDER / name).unlink()
    assert stages(stale_outputs(ROOT, PROFILE)) == {stage}


def test_a_benchmark_that_comes_within_reach_is_scored(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = json.loads((FOLDER / MANIFEST).read_text())
    manifest["evaluate"]["not_run"] = {"rmb": "out of reach"}
    (FOLDER / MANIFEST).write_text(json.dumps(manifest))
    assert stages(stale_outputs(ROOT, PROFILE)) == set()
    monkeypatch.setattr(stale, "_is_reachable", lambda name, source: name == "rmb")
    assert stages(stale_outputs(ROOT, PROFILE)) == {"evaluate"}


def test_other_base_models_and_what_is_no_run_are_left_alone(project: Path) -> None:
    (FOLDER / "ablation.parquet").unlink()
    assert stale_outputs(ROOT, PROFILE | {"base_models": ["models/other"]}) == {}
    (FOLDER / MANIFEST).write_text("null")
    with pytest.raises(ValueError, match="manifest.json: expected a JSON object"):
        stale_outputs(ROOT, PROFILE)


def record(folder: Path, stage: str, artifact: str) -> Path:
    """Write an artifact and its section of the manifest; return its path."""
    write(folder / artifact, stage)
    inputs = {name: Path(SOURCES[name]) for name in ("base_model", "data_source")}
    config = {stage: {}, "data": {"source": "data/pairs"}}
    StageRecord(folder, stage, config, "digest").finish(artifact, device="cpu", n_tokens=0, inputs=inputs)
    return folder / artifact


@pytest.mark.parametrize(
    "place, stage, artifact, output",
    [
        ("base/helpful", "depth", "depth.parquet", "depth.parquet"),
        ("base/helpful", "gradients", "gradients.parquet", "depth.parquet"),
        ("base/single-pair", "interpolate", "interpolation.parquet", "interpolation.parquet"),
        ("base/single-pair", "weight_changes", "weight_changes.parquet", "weight_changes.parquet"),
        ("base/matched-without-shared", "train", "reward_model", "reward_model/model.safetensors"),
        ("curve/8-pairs/base/harmless", "train", "reward_model", "evaluation.parquet"),
        ("curve/8-pairs/base/helpful-harmless-3-to-1", "evaluate", "evaluation.parquet", "evaluation.parquet"),
    ],
)
def test_what_the_later_stages_wrote_is_made_again(
    project: Path, place: str, stage: str, artifact: str, output: str
) -> None:
    profile = PROFILE | {"curve": {"n_pairs": [4, 8], "seeds": [0], "mixture_pairs": 8}}
    folder = ROOT / place / "seed0"
    if stage == "evaluate":
        record(folder, "train", "reward_model")
    path = record(folder, stage, artifact)
    assert stale_outputs(ROOT, profile) == {}
    path.write_text("damaged")
    assert list(stale_outputs(ROOT, profile)) == [folder / output]


def test_what_an_earlier_profile_left_is_no_job_of_this_one(project: Path) -> None:
    (FOLDER / "evaluation.parquet").unlink()
    assert FOLDER / "evaluation.parquet" in stale_outputs(ROOT, PROFILE)
    assert stale_outputs(ROOT, PROFILE | {"objectives": ["harmless"]}) == {}
    assert stale_outputs(ROOT, PROFILE | {"seeds": [1]}) == {}
    record(ROOT / "base" / "helpful-harmless-matched" / "seed0", "identify", "neuron_scores.safetensors").unlink()
    arms = {"objectives": ["harmless"], "arms": ["helpful-harmless-matched"]}
    assert stale_outputs(ROOT, PROFILE | arms) == {}  # arms are trained and evaluated, not looked into


def test_files_whose_manifest_is_lost_are_made_again(project: Path) -> None:
    (FOLDER / MANIFEST).unlink()
    found = stale_outputs(ROOT, PROFILE)
    assert stages(found) == set(FILES) and all("manifest.json has no section" in reason for reason in found.values())


def test_a_toy_world_that_was_damaged_is_made_again(tmp_path: Path) -> None:
    profile = PROFILE | {"base_models": ["toy"]}
    world = tmp_path / "toy-world"
    assert stale_outputs(tmp_path, profile) == {}
    write(world / "hh-rlhf" / "rows")
    (world / MANIFEST).write_text(json.dumps({"config_hash": "a", "parts": {"hh-rlhf": file_hash(world / "hh-rlhf")}}))
    assert stale_outputs(tmp_path, profile) == {}
    write(world / "hh-rlhf" / "rows", "others")
    assert list(stale_outputs(tmp_path, profile)) == [world / MANIFEST]


def local_profile(folder: Path, **changes: object) -> dict:
    """A profile of a local model and local pairs, with its files: a Llama of 128 positions."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE({"a": 0, "<eos>": 1, "<pad>": 2}, [])),
        eos_token="<eos>",
        pad_token="<pad>",
    )
    tokenizer.save_pretrained(folder / "model")
    LlamaConfig(max_position_embeddings=128, **changes).save_pretrained(folder / "model")
    for subset in ("helpful-base", "harmless-base"):
        for split in ("train", "test"):
            rows = [{"prompt": f"{subset} {n}", "chosen": "yes", "rejected": "no"} for n in range(5)]
            write(folder / "pairs" / subset / f"{split}.jsonl", "\n".join(map(json.dumps, rows)))
    train = {"data_source": str(folder / "pairs"), "max_length": 128, "n_train_pairs": 3, "n_validation_pairs": 2}
    evaluate = {"max_length": 128, "benchmarks": ["hh-rlhf"]}
    return {"base_models": [str(folder / "model")], "seeds": [0], "train": train, "evaluate": evaluate}


def test_a_profile_that_fits_passes(tmp_path: Path) -> None:
    check_preconditions(local_profile(tmp_path))
    toy = {"base_models": ["toy"], "train": {"data_source": "toy", "max_length": 256}}
    check_preconditions(toy)
    with pytest.raises(ValueError, match=r"train.max_length: expected at most 256, the context of toy; got 257"):
        check_preconditions(toy | {"train": toy["train"] | {"max_length": 257}})


def test_every_fault_of_models_and_data_is_told_before_anything_starts(tmp_path: Path) -> None:
    profile = local_profile(tmp_path)
    profile |= {"ablate": {"max_length": 200}, "identify": {"n_generic": 3, "generic_text": str(tmp_path / "no.txt")}}
    (tmp_path / "pairs" / "harmless-base" / "test.jsonl").unlink()
    gone = profile | {"train": profile["train"] | {"data_source": str(tmp_path / "gone")}}
    with pytest.raises(ValueError) as caught:
        check_preconditions(gone)
    told = [line for line in str(caught.value).splitlines() if str(tmp_path / "gone") in line]
    assert len(told) == 2 and all(line.startswith("data_source: ") for line in told), "the benchmark has no source"
    profile["base_models"].append(str(tmp_path / "nowhere" / "model"))
    with pytest.raises(ValueError) as caught:
        check_preconditions(profile)
    lines = str(caught.value).splitlines()
    wanted = ("ablate.max_length: expected at most 128", "nowhere", "harmless-base", "generic_text: expected 'pydoc'")
    assert len(lines) == 4 and all(any(text in line for line in lines) for text in wanted), lines


@pytest.mark.parametrize(
    "section, values, message",
    [
        ("train", {"n_train_pairs": 4}, "train.n_train_pairs: expected at most 3 for helpful "),
        ("curve", {"n_pairs": [2, 4]}, "curve.n_pairs: expected at most 3 for helpful "),
        ("identify", {"n_generic": 10**6}, "identify.n_generic: expected at most "),
        ("evaluate", {"benchmarks": ["hh-rlhf", "toy"]}, "evaluate.benchmarks: expected none of the embedded world"),
    ],
)
def test_what_data_cannot_give_is_told(tmp_path: Path, section: str, values: dict, message: str) -> None:
    profile = local_profile(tmp_path)
    profile[section] = profile.get(section, {}) | values
    with pytest.raises(ValueError, match=message):
        check_preconditions(profile)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_row_that_cannot_be_read_is_told(tmp_path: Path, split: str) -> None:
    profile = local_profile(tmp_path)
    path = tmp_path / "pairs" / "harmless-base" / f"{split}.jsonl"
    path.write_text(path.read_text() + "\n{")
    with pytest.raises(ValueError, match=f"harmless-base/{split}.jsonl, line 6: expected one JSON object a line"):
        check_preconditions(profile)


def test_unusable_test_items_are_told_where_the_user_wants_an_error(tmp_path: Path) -> None:
    profile = local_profile(tmp_path)
    path = tmp_path / "pairs" / "harmless-base" / "test.jsonl"
    path.write_text(path.read_text() + '\n{"prompt": "q", "chosen": "a", "rejected": "a"}')
    check_preconditions(profile)
    profile["evaluate"]["unusable_items"] = "error"
    with pytest.raises(ValueError, match="test.jsonl, line 6: expected chosen and rejected to differ.*unusable_items"):
        check_preconditions(profile)


def test_tests_may_come_from_elsewhere_than_training_pairs(tmp_path: Path) -> None:
    profile = local_profile(tmp_path)
    for subset in ("helpful-base", "harmless-base"):
        path = tmp_path / "pairs" / subset / "test.jsonl"
        write(tmp_path / "tests" / subset / "test.jsonl", path.read_text())
        path.unlink()
    profile["evaluate"]["benchmark_sources"] = {"hh-rlhf": str(tmp_path / "tests")}
    check_preconditions(profile)
    profile["evaluate"]["benchmark_sources"]["rm-bench"] = str(tmp_path / "gone")
    with pytest.raises(ValueError, match="benchmark_sources.rm-bench: expected a folder or a public name; got .*gone'"):
        check_preconditions(profile)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}, "rope type 'dynamic'"),
        ({"model_type": "bert"}, "model type 'bert' is not supported"),
    ],
)
def test_a_model_that_no_stage_can_use_is_told(tmp_path: Path, config: dict, message: str) -> None:
    profile = local_profile(tmp_path)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(ValueError, match=message):
        check_preconditions(profile)
