"""The pipeline's start, stop and recovery, on a workflow of three jobs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import interruptible

import pipeline

WORKFLOW = """
rule all:
    input: "c.txt"
rule a:
    output: "a.txt"
    shell: "echo a >> ran.log; echo a > {output:q}"
rule b:
    input: "a.txt"
    output: "b.txt"
    params: seconds=config["seeds"][0]
    shell: "echo b >> ran.log; echo half > {output:q}; sleep {params.seconds}; echo whole > {output:q}"
rule c:
    input: "b.txt"
    output: "c.txt"
    shell: "echo c >> ran.log; cp {input:q} {output:q}"
"""


PROFILE = {
    "base_models": ["toy"],
    "objectives": ["helpful"],
    "seeds": [0],
    "job": "seed",
    "threads": 1,
    "toy": {},
    "train": {"data_source": "toy", "n_train_pairs": 4, "n_validation_pairs": 2, "max_length": 64},
}


def write_profile(root: Path, name: str, seconds: int) -> None:
    """Write a profile whose seed is the time that the slow job sleeps."""
    (root / "config" / f"{name}.yaml").write_text(yaml.safe_dump(PROFILE | {"seeds": [seconds]}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "with space"
    for name in ("workflow", "config"):
        (folder / name).mkdir(parents=True)
    (folder / "workflow" / "Snakefile").write_text(WORKFLOW)
    for name, seconds in (("tiny", 0), ("slow", 300)):
        write_profile(folder, name, seconds)
    return folder


def start(root: Path, profile: str) -> subprocess.Popen:
    command = [
        sys.executable,
        str(Path(pipeline.__file__)),
        "--profile",
        profile,
        "--cores",
        "1",
        "--root",
        str(root),
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=interruptible
    )


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, f"{path} never held {text!r}"
        time.sleep(0.1)


def sleepers(root: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["name", "cwd", "status"]):
        if process.info["cwd"] == str(root) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def test_runs_to_the_end_and_then_has_nothing_to_do(root: Path) -> None:
    assert pipeline.run(root, "tiny", "1") == 0
    assert pipeline.run(root, "tiny", "1") == 0
    assert (root / "ran.log").read_text().split() == ["a", "b", "c"]
    assert not list((root / pipeline.CACHE).glob("pipeline.json"))


def test_further_arguments_may_name_a_target(root: Path) -> None:
    assert pipeline.main(["--root", str(root), "--cores", "1", "a.txt"]) == 0
    assert (root / "ran.log").read_text().split() == ["a"]


def test_unknown_profile_lists_the_known_ones(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert pipeline.main(["--profile", "tinny", "--root", str(root)]) == 2
    message = "error: profile: expected one of slow, tiny; got 'tinny'; did you mean 'tiny'?\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("with_snakemake", [False, True], ids=["alone", "with its Snakemake, which leaves a lock"])
def test_killed_run_leaves_orphans_and_the_next_run_goes_on(root: Path, with_snakemake: bool) -> None:
    first = start(root, "slow")
    wait_for(root / "b.txt", "half")
    second = start(root, "slow")
    assert "another run is at work here" in second.communicate(timeout=60)[0] and second.returncode == 2
    snakemake = psutil.Process(first.pid).children()
    first.kill()
    first.wait()
    if with_snakemake:
        snakemake[0].kill()
    assert sleepers(root), "expected the killed run's jobs to live on"
    write_profile(root, "slow", 0)
    third = start(root, "slow")
    output = third.communicate(timeout=120)[0]
    assert "an earlier run was cut off" in output
    assert third.returncode == 0, output
    assert (root / "c.txt").read_text() == "whole\n"
    assert (root / "ran.log").read_text().split() == ["a", "b", "b", "c"], "only unfinished work runs again"
    assert not sleepers(root)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_every_job_and_keeps_no_half_file(root: Path, number: int) -> None:
    process = start(root, "slow")
    wait_for(root / "b.txt", "half")
    os.kill(process.pid, number)
    assert "run the same command again" in process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert not sleepers(root)
    write_profile(root, "slow", 0)
    assert pipeline.run(root, "slow", "1") == 0
    assert (root / "c.txt").read_text() == "whole\n"


def test_one_machine_shares_its_gpu_and_a_cluster_does_not() -> None:
    assert pipeline.local_limits(["--dry-run"]) == ["--resources", "gpu=1"]
    assert pipeline.local_limits(["--workflow-profile=workflow/profiles/slurm"]) == []
    assert pipeline.local_limits(["--resources", "gpu=4"]) == []
