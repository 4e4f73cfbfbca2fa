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
    "objectives": ["helpful", "harmless"],
    "arms": ["helpful-harmless-matched"],
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


def test_a_dry_run_says_what_would_run_and_why_and_changes_nothing(root: Path) -> None:
    command = [sys.executable, str(Path(pipeline.__file__)), "--root", str(root), "--cores", "1"]
    first = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    said = first.stdout + first.stderr
    assert all(f"rule {name}:" in said for name in "abc") and "Missing output files: a.txt" in said
    assert not (root / "ran.log").exists()
    assert subprocess.run(command, capture_output=True).returncode == 0
    again = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_what_no_longer_fits_is_forced_beside_what_the_user_forces() -> None:
    assert pipeline.forced(["a.txt", "-R", "b"], ["c"]) == ["a.txt", "--forcerun", "b", "c"]
    assert pipeline.forced(["--dry-run"], []) == ["--dry-run"]
    assert pipeline.forced(["--forcerun=b", "--cores", "2"], ["c"]) == ["--cores", "2", "--forcerun", "b", "c"]


SEVERAL = """
rule all:
    input: expand("{job}.txt", job=range(4))
rule one:
    output: "{job}.txt"
    resources: gpu=1
    shell: "{config[python]} hold.py {output:q}"
"""
HOLD = """
import sys, time
from accelerators import own_accelerator
with own_accelerator() as environment:
    started = time.time()
    time.sleep(4)
    print(environment["CUDA_VISIBLE_DEVICES"], started, time.time(), file=open(sys.argv[1], "w"))
"""


@pytest.mark.parametrize("n_gpus, at_once", [(1, 4), (2, 2)])
def test_jobs_of_one_machine_that_run_at_once_have_devices_of_their_own(
    root: Path, monkeypatch: pytest.MonkeyPatch, n_gpus: int, at_once: int
) -> None:
    several = SEVERAL.replace("{config[python]}", sys.executable).replace("gpu=1", f"gpu={n_gpus}")
    (root / "workflow" / "Snakefile").write_text(several)
    (root / "hold.py").write_text(HOLD)
    driver = root / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text('#!/bin/sh\nfor i in 0 1 2 3; do echo "GPU $i: H"; done\n')
    driver.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{driver.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(root))
    paths = [str(Path(pipeline.__file__).parent), str(Path(pipeline.__file__).parents[1])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    assert pipeline.run(root, "tiny", "4", ["--resources", "gpu=4"]) == 0
    jobs = [(root / f"{job}.txt").read_text().split() for job in range(4)]
    together = [[other for other in jobs if other[1] < job[2] and job[1] < other[2]] for job in jobs]
    assert max(map(len, together)) == at_once
    assert all(len({device for device, *_ in group}) == len(group) for group in together if len(group) == at_once)


def test_a_start_that_slurm_refuses_removes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pipeline.run(root, "tiny", "1") == 0
    write_profile(root, "tiny", 1)  # b and c would run again
    slurm = root / "slurm"
    slurm.mkdir()
    (slurm / "config.yaml").write_text("executor: slurm\ndefault-resources: {slurm_account: a, slurm_partition: p}\n")
    arguments = ["--root", str(root), "--cores", "1", "--workflow-profile", "slurm"]
    monkeypatch.setenv("PATH", str(root / "bin"))
    assert pipeline.main(arguments) == 2
    (root / "bin").mkdir()
    (root / "bin" / "sbatch").write_text("#!/bin/sh\necho 'invalid partition' >&2\nexit 1\n")
    (root / "bin" / "sbatch").chmod(0o755)
    assert pipeline.main(arguments) == 2
    assert all((root / f"{name}.txt").exists() for name in "abc")
