"""A whole study of micro models: every part by two workers, again without work, exported, and every bad option."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from one_kernel import execute_chapters

from stored import CHAPTERS, FURTHER_ARMS, ON_FEWER, TEXTS, stored_chapters
from study import Step, run_steps
from study import Study as StudyPlan
from tension_utils.artifacts import OWN_SCORES, read_manifest, read_table
from tension_utils.config import CURVE_ARMS, OBJECTIVES, SINGLE_OBJECTIVES, Run
from tension_utils.locks import locked

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("study")
ARMS = ("helpful", "harmless", "helpful-harmless-matched", "helpful-harmless")
MICRO = {
    "base_models": ["owner/unreachable"],
    "objectives": ["helpful", "harmless", "helpful-harmless"],
    "arms": ["helpful-harmless-matched"],
    "seeds": [0],
    "job": "reward_model",
    "threads": 1,
    "train": {
        "data_source": "owner/unreachable",
        "subsets": {"helpful": ["helpful-base"], "harmless": ["harmless-base"]},
        "n_train_pairs": 16,
        "n_validation_pairs": 4,
        "max_length": 256,
        "n_epochs": 1,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "unusable_pairs": "error",
        "train_options": {"n_evaluations": 1, "precision": "float32"},
    },
    "evaluate": {"benchmarks": ["hh-rlhf", "toy"], "max_length": 256, "precision": "float32"},
    "identify": {"n_items": 8, "n_view_items": 4, "precision": "float32"},
    "ablate": {"score_kinds": ["signed_mean", "rms_change"], "fractions": [0.1], "n_draws": 2, "n_items": 4},
    "curve": {"n_pairs": [8], "seeds": [0], "mixture_pairs": 0},
    "study": {
        "coin_seeds": [0],
        "longer_seeds": [],
        "candidates": [{"learning_rate": 5e-4}],
        "identify": {"n_generic": 3},
        "identify_later": {"n_view_items": 3},
        "identify_sham": {"n_view_items": 2, "n_generic": 0},
        "ablate_single": [
            {
                "score_kinds": ["rms_change", "signed_mean"],
                "fractions": [0.1],
                "controls": ["activity"],
                "n_draws": 2,
                "n_items": 4,
            },
            {"score_kinds": ["rms_change"], "fractions": [0.2], "controls": ["activity"], "n_draws": 1, "n_items": 4},
        ],
        "ablate_matched": [{"families": ["equal-activity"], "controls": ["activity"], "n_draws": 2, "n_items": 4}],
        "ablate_union": [{"families": ["natural"], "n_draws": 2, "n_items": 4}],
        "tokens_per_pair": 60,
        "test_pairs": 48,
        "benchmark_tokens": 5000,
    },
}


LOCAL = ("--base-model", "models/toy", "--sources", "hh-rlhf=data/hh-rlhf", "toy=data/benchmark")


def study(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(project / "workflow" / "study.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def project(toy_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a study") / "project"
    (folder / "config").mkdir(parents=True)
    for name in ("workflow", "notebooks"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "_toc.yml", folder)
    for name in ("paper", "planted"):  # what chapters read besides runs
        shutil.copytree(ROOT / "results" / name, folder / "results" / name)
    (folder / "config" / "micro.yaml").write_text(yaml.safe_dump(MICRO))
    shutil.copytree(toy_world / "base_model", folder / "models" / "toy")
    for name in ("hh-rlhf", "benchmark"):
        shutil.copytree(toy_world / name, folder / "data" / name)
    return folder


@pytest.fixture(scope="module")
def finished(project: Path) -> Path:
    done = study(project, "micro", *LOCAL, "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def test_every_step_is_done_once_and_then_none(finished: Path) -> None:
    again = study(finished, "micro", *LOCAL)
    assert again.returncode == 0, again.stdout + again.stderr
    lines = [line for line in again.stdout.splitlines() if " | " in line]
    assert not lines, lines


def test_the_export_holds_all_stages_of_all_runs(finished: Path) -> None:
    done = study(finished, "micro", *LOCAL, "--export", "results")
    assert (
        done.returncode == 0
        and "12 runs exported to results" in done.stdout
        and "0 runs are not finished" in done.stdout
    )
    runs = [Run(finished / "results", "toy", arm, 0) for arm in ARMS]
    rows = read_table(runs, "ablation", "04_ablate")
    assert set(rows[rows.objective == "helpful"].fraction) == {0.1, 0.2}
    assert set(rows.control) == {"", "layer", "activity"} and {"equal-activity"} <= set(rows.family)
    assert set(read_table(runs, "evaluation", "02_evaluate").benchmark) == {"hh-rlhf", "toy"}
    assert read_manifest(Run(finished / "results", "toy", "helpful-coin", 0).folder)["export"]["schema_version"] == 1
    small = Run(finished / "results" / "curve" / "8-pairs", "toy", "helpful-harmless-matched", 0)
    assert read_manifest(small.folder)["train"]["n_train"] == 8 and (small.folder / "evaluation.parquet").is_file()
    choice = pd.read_csv(finished / "results" / "toy" / "choice.csv")
    assert (
        choice.objective.tolist() == [*SINGLE_OBJECTIVES] * 2 and choice.is_chosen.tolist() == [True] * 2 + [False] * 2
    )
    assert (finished / "results" / "toy" / "single-pair" / "seed0" / "interpolation.parquet").is_file()


def test_a_study_goes_on_from_its_export_and_trains_again_what_is_to_grow(finished: Path, tmp_path: Path) -> None:
    study(finished, "micro", *LOCAL, "--export", "results")
    copy = tmp_path / "project"
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("runs"))
    done = study(copy, "micro", *LOCAL, "--resume-from", "results", "--again", "helpful-coin")
    assert done.returncode == 0, done.stdout + done.stderr
    computed = [line.split(" | ")[1] for line in done.stdout.splitlines() if " | " in line]
    assert computed == ["train helpful-coin seed 0"], "its weights are the stored ones, and so is what is known of them"
    assert "helpful-coin/seed0: the same weights as those of results; taken over: evaluate, identify" in done.stdout
    runs = copy / "runs" / "micro" / "toy"
    assert not (runs / "helpful" / "seed0" / "reward_model").exists()
    assert (runs / "helpful-coin" / "seed0" / "reward_model").is_dir()
    done = study(copy, "micro", *LOCAL, "--export", "again")
    assert "0 runs are not finished" in done.stdout
    kept, again = (
        {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        for root in (finished / "results" / "toy", copy / "again" / "toy")
    )
    assert kept.keys() == again.keys()
    assert {path for path in kept if kept[path] != again[path]} == {Path("helpful-coin/seed0/manifest.json")}, "seconds"
    nothing = study(copy, "micro", *LOCAL, "--resume-from", "results")
    assert nothing.returncode == 0 and "taken over" not in nothing.stdout, "all is at hand"
    settings = MICRO | {"train": MICRO["train"] | {"learning_rate": 2e-3}}
    (copy / "config" / "micro.yaml").write_text(yaml.safe_dump(settings))
    shutil.rmtree(runs / "helpful-coin")
    other = study(copy, "micro", *LOCAL, "--resume-from", "results", "--again", "helpful-coin")
    computed = [line.split(" | ")[1] for line in other.stdout.splitlines() if " | " in line]
    assert "helpful-coin/seed0: other weights than those of results; measured anew" in other.stdout
    assert computed == [f"{stage} helpful-coin seed 0" for stage in ("train", "evaluate", "identify")]


def test_what_cannot_be_taken_over_is_named(finished: Path, tmp_path: Path) -> None:
    study(finished, "micro", *LOCAL, "--export", "results")
    copy = tmp_path / "project"
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("runs"))
    done = study(copy, "micro", *LOCAL, "--resume-from", "notebooks")
    assert done.returncode == 2 and "notebooks: expected exported runs of toy; found none" in done.stderr
    table = copy / "results" / "toy" / "harmless" / "seed0" / "evaluation.parquet"
    table.write_bytes(table.read_bytes()[:-1])
    done = study(copy, "micro", *LOCAL, "--resume-from", "results")
    assert (
        done.returncode == 2 and str(table.relative_to(copy)) in done.stderr and "copy the folder again" in done.stderr
    )
    assert not (copy / "runs" / "micro" / "toy" / "harmless").exists()


def test_chapters_run_on_what_was_exported(finished: Path) -> None:
    study(finished, "micro", *LOCAL, "--export", "results")
    assert not stored_chapters(finished), "the base model's name belongs to no profile"
    shutil.copy(finished / "config" / "micro.yaml", finished / "config" / "toy.yaml")
    chapters = stored_chapters(finished)
    assert list(chapters) == list(CHAPTERS)
    for parameters, inputs in chapters.values():
        assert parameters["base_models"] == ["toy"] and parameters["seeds"] == [0] and inputs
    ledger = {"09_ledger": ({"root": "results", "base_models": ["toy"], "seeds": [0]}, [])}
    for chapter, (parameters, _) in chapters.items():
        arms = [*CURVE_ARMS] if chapter == ON_FEWER else [*OBJECTIVES, *FURTHER_ARMS.get(chapter, ())]
        assert parameters["objectives"] == arms
    elsewhere = set(stored_chapters(ROOT)) - {"04_ablate"}  # the book executes these on the committed study
    shown = {name: values for name, (values, _) in (chapters | ledger).items() if name not in elsewhere}
    pages = execute_chapters(finished, shown)
    assert not any(path.is_dir() for path in (finished / "results").rglob("reward_model"))
    page = nbformat.writes(pages["04_ablate"])
    said = "random sets that match in layers (helpful-harmless) or in layers and activity (helpful, harmless)"
    assert f"{said}. They hold" in page and "beyond 2 random sets of the same layers and activity" in page


def test_chapters_wait_for_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "micro.yaml").write_text(yaml.safe_dump(MICRO))
    assert stored_chapters(tmp_path) == {}
    for arm, seeds in {"helpful": (0, 1), "harmless": (0, 1), "helpful-harmless": (0,)}.items():
        for seed in seeds:
            folder = Run(tmp_path / "results", "unreachable", arm, seed).folder
            folder.mkdir(parents=True)
            (folder / "evaluation.parquet").touch()
    chapters = stored_chapters(tmp_path)
    assert list(chapters) == ["02_evaluate", "02b_tension", *(name for name in CHAPTERS if name.startswith("b"))]
    for parameters, inputs in chapters.values():
        assert parameters["objectives"] == ["helpful", "harmless", "helpful-harmless"] and len(inputs) == 5
        assert parameters["seeds"] == [0, 1], "the union is shown with the seed that it has"
    place = tmp_path / "results" / "unreachable"
    (place / "helpful-harmless" / "seed0" / "evaluation.parquet").unlink()
    chapters = stored_chapters(tmp_path)
    assert list(chapters) == ["02_evaluate"], "the others need a mixed model"
    (place / "harmless" / "seed0" / "evaluation.parquet").unlink()
    parameters, inputs = stored_chapters(tmp_path)["02_evaluate"]
    assert parameters["objectives"] == ["helpful", "harmless"] and parameters["seeds"] == [1], "both single models"
    assert inputs[0] == "results/unreachable/harmless/seed1/evaluation.parquet" and len(inputs) == 2
    (place / "helpful" / "seed1" / "evaluation.parquet").unlink()
    assert stored_chapters(tmp_path) == {}


def test_a_chapter_shows_every_base_model_the_one_with_most_seeds_first(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    for name, base, length in (("a", "fewer", 128), ("b", "more", 256)):
        profile = MICRO | {"base_models": [base], "evaluate": MICRO["evaluate"] | {"max_length": length}}
        (tmp_path / "config" / f"{name}.yaml").write_text(yaml.safe_dump(profile))
    every = {("fewer", 3): SINGLE_OBJECTIVES, ("more", 0): OBJECTIVES, ("more", 1): SINGLE_OBJECTIVES}
    for (base, seed), arms in every.items():
        for arm in arms:
            folder = Run(tmp_path / "results", base, arm, seed).folder
            folder.mkdir(parents=True)
            for file in ("evaluation.parquet", OWN_SCORES, *TEXTS):
                (folder / file).parent.mkdir(exist_ok=True)
                (folder / file).touch()
    chapters, of_neurons = stored_chapters(tmp_path), {"03_identify", "05_overlap"}
    assert chapters["02_evaluate"][0]["max_length"] == 256, "those of the first"
    assert set(chapters) > {"02b_tension", "b1_calibration", *of_neurons}
    for chapter in set(chapters) - of_neurons:
        parameters, inputs = chapters[chapter]
        assert parameters["base_models"] == ["more", "fewer"] and parameters["seeds"] == [0, 1, 3]
        assert parameters["objectives"] == list(OBJECTIVES) and len(inputs) == 7
    for chapter in of_neurons:
        assert chapters[chapter][0]["base_models"] == ["more"], "neurons of one architecture"
    for arm in SINGLE_OBJECTIVES:
        shutil.rmtree(Run(tmp_path / "results", "more", arm, 1).folder)
    first = stored_chapters(tmp_path)["02_evaluate"][0]["base_models"]
    assert first == ["more", "fewer"], "of one seed each, it has more models"
    shutil.rmtree(tmp_path / "results" / "more")
    chapters = stored_chapters(tmp_path)
    assert list(chapters) == ["02_evaluate"], "the others need a mixed model, of one base model at least"
    assert chapters["02_evaluate"][0]["base_models"] == ["fewer"]


def test_the_details_of_removals_wait_for_a_second_way_to_remove(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "micro.yaml").write_text(yaml.safe_dump(MICRO))
    once = pd.DataFrame({"fraction": [0.1, 0.1], "ablation_kind": "zero"})
    for rows, is_told in (
        (once, False),
        (once.assign(fraction=[0.1, 0.2]), True),
        (once.assign(ablation_kind=["zero", "mean"]), True),
    ):
        for arm in SINGLE_OBJECTIVES:
            folder = Run(tmp_path / "results", "unreachable", arm, 0).folder
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "evaluation.parquet").touch()
            rows.to_parquet(folder / "ablation.parquet")
        chapters = stored_chapters(tmp_path)
        assert "08_explorer" in chapters and ("a2_removal_details" in chapters) == is_told


def test_fewer_pairs_are_shown_beside_every_seed_on_all(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "micro.yaml").write_text(yaml.safe_dump(MICRO))
    whole = [f"unreachable/{arm}/seed{seed}/evaluation.parquet" for arm in CURVE_ARMS for seed in (0, 1)]
    fewer = [f"curve/8-pairs/unreachable/{arm}/seed0/evaluation.parquet" for arm in CURVE_ARMS]
    for file in [*whole, *fewer[:2]]:
        path = tmp_path / "results" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert ON_FEWER not in stored_chapters(tmp_path), "no mixed model on fewer pairs"
    path = tmp_path / "results" / fewer[2]
    path.parent.mkdir(parents=True)
    path.touch()
    parameters, inputs = stored_chapters(tmp_path)[ON_FEWER]
    assert parameters["seeds"] == [0, 1] and parameters["n_pairs"] == [8], "not the seeds that the profile trains"
    assert inputs == sorted(f"results/{file}" for file in [*whole, *fewer])


def test_a_chapter_waits_for_what_belongs_to_a_mixed_model_and_to_a_pair(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "micro.yaml").write_text(yaml.safe_dump(MICRO))
    files = ["evaluation.parquet", "neuron_scores.safetensors", "depth.parquet"]
    files += [f"score_views/text-{objective}.safetensors" for objective in SINGLE_OBJECTIVES]
    own = [f"unreachable/{arm}/seed0/{file}" for arm in ARMS[:3] for file in files]
    own += ["unreachable/helpful-harmless-matched/seed0/gradients.parquet"]
    pair = "unreachable/single-pair/seed0/weight_changes.parquet"
    for file in [*own[:-1], pair]:
        path = tmp_path / "results" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert "05b_part" not in stored_chapters(tmp_path), "the mixed model lacks its gradients"
    (tmp_path / "results" / own[-1]).touch()
    parameters, inputs = stored_chapters(tmp_path)["05b_part"]
    assert parameters["objectives"] == ["helpful", "harmless", "helpful-harmless-matched"]
    assert inputs == sorted(f"results/{file}" for file in [*own, pair])
    (tmp_path / "results" / pair).unlink()
    assert "05b_part" not in stored_chapters(tmp_path)


def test_the_list_names_the_parts_in_order(project: Path) -> None:
    done = study(project, "micro", *LOCAL, "--list", "--until", "choice")
    names = [line.split(" | ")[1] for line in done.stdout.splitlines()]
    assert names[:2] == ["train helpful seed 0", "train harmless seed 0"] and names[-1] == "choice 0 harmless"
    done = study(
        project, "micro", *LOCAL, "--list", "--from", "seed 0: measure single", "--until", "seed 0: train matched"
    )
    names = [line.split(" | ")[1].split(" seed")[0] for line in done.stdout.splitlines()]
    singles = [f"{stage} {arm}" for stage in ("identify", "ablate") for arm in SINGLE_OBJECTIVES]
    assert names == [*singles, "train helpful-harmless-matched", "evaluate helpful-harmless-matched"]


def test_later_seeds_and_sham_models_are_read_in_fewer_views() -> None:
    values = MICRO | {"seeds": [0, 7]}
    plan = StudyPlan("micro", values, "toy", {})
    for arm, seed, n_views in (("helpful", 0, 4), ("helpful", 7, 3), ("helpful-coin", 0, 2), ("helpful-coin", 7, 2)):
        assert plan.identification(arm, seed).n_view_items == n_views
    assert plan.identification("helpful", 7).n_generic == 3 and values["identify"]["n_view_items"] == 4


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("nothing",), "profile: expected one of micro, "),
        (("typo",), "config/typo.yaml: study.candidates[0].learning_rat: unknown name; did you mean 'learning_rate'?"),
        (("micro", "--until", "seed 9: train"), "--until: expected one of"),
        (("micro", "--from", "seed 9: train"), "--from: expected one of"),
        (("micro", "--from", "choice", "--until", "seed 0: train single"), "expected a part from 'choice' on; got"),
        (("micro", "--sources", "hh-rlhf"), "--sources: expected BENCHMARK=SOURCE"),
        (("plain",), "config/plain.yaml: expected the sections study, as in config/smollm2-135m.yaml; got nothing"),
    ],
)
def test_bad_options_stop_with_two(project: Path, arguments: tuple[str, ...], message: str) -> None:
    plain = {name: section for name, section in MICRO.items() if name != "study"}
    typo = MICRO | {"study": MICRO["study"] | {"candidates": [{"learning_rat": 1e-4}]}}
    for name, values in (("plain", plain), ("typo", typo)):
        (project / "config" / f"{name}.yaml").write_text(yaml.safe_dump(values))
    done = study(project, *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_a_step_that_fails_is_told_and_the_others_go_on(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "project"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("runs", "results"))
    folder = copy / "runs" / "micro" / "toy"
    folder.mkdir(parents=True)
    (folder / "harmless").write_text("in the way of a folder")
    done = study(copy, "micro", *LOCAL, "--until", "seed 0: train single")
    assert done.returncode == 1 and "FAILED train harmless seed 0" in done.stdout
    assert (folder / "helpful" / "seed0" / "evaluation.parquet").is_file()
    assert (folder / "harmless").read_text() == "in the way of a folder"
    assert "steps lack what they read" in done.stdout


@pytest.mark.parametrize("outcome", [True, False, OSError("disk")], ids=str)
def test_a_worker_with_nothing_to_begin_helps_another_once(
    outcome: bool | OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan, lines, done, other = StudyPlan("micro", MICRO, "toy", {}), [], [], contextlib.ExitStack()
    other.enter_context(locked(plan.root / "study" / "long-one.lock"))

    def help_it() -> bool:
        assert done == ["short one"], "first what is free"
        done.append("helped")
        other.close()  # the other worker is through
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def finish(name: str) -> bool:
        done.append(name)
        return True

    steps = [Step("part", "long one", lambda: finish("long one"), help=help_it)]
    steps.append(Step("part", "short one", lambda: finish("short one")))
    assert run_steps(plan, steps, lines.append) == 0
    assert done == ["short one", "helped", "long one"]
    told = {True: "part | long one: helped | 0 s", False: "part | long one | 0 s"}
    assert any(line.startswith(told.get(outcome, "could not help with long one")) for line in lines), lines
