"""Parallel jobs take different accelerators, wait where all are held, and free them when they are killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from accelerators import own_accelerator, visible_accelerators
from run_notebook import own_kernel

WORKFLOW = Path(__file__).parents[1] / "workflow"
HOLD = """
import sys
from accelerators import own_accelerator
with own_accelerator() as environment:
    print(environment, flush=True)
    sys.stdin.read()
"""


def hold(folder: Path, names: str) -> subprocess.Popen:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": names, "TMPDIR": str(folder), "PYTHONPATH": str(WORKFLOW)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", HOLD], env=environment, **pipes)


def test_jobs_hold_different_accelerators_and_the_fifth_waits(tmp_path: Path) -> None:
    jobs = [hold(tmp_path, "0,1,GPU-a,MIG-b/1") for _ in range(4)]
    held = [job.stdout.readline().strip() for job in jobs]
    assert sorted(held) == sorted(f"{{'CUDA_VISIBLE_DEVICES': '{name}'}}" for name in ("0", "1", "GPU-a", "MIG-b/1"))
    fifth = hold(tmp_path, "0,1,GPU-a,MIG-b/1")
    with pytest.raises(subprocess.TimeoutExpired):
        fifth.wait(timeout=2)
    jobs[2].kill()
    assert fifth.stdout.readline().strip() == held[2], "what a killed job held is free"
    for job in (*jobs, fifth):
        job.kill()
        job.wait()
        job.stdin.close()
        job.stdout.close()


@pytest.mark.parametrize("names, expected", [("", []), ("3", ["3"]), (" 1, 2 ", ["1", "2"])])
def test_visible_accelerators_are_those_of_the_environment(
    names: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    assert visible_accelerators() == expected
    if len(expected) < 2:
        with own_accelerator() as environment:
            assert environment == {}


def test_accelerators_are_listed_by_the_driver_where_the_environment_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_accelerators() == []
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'GPU 0: H'\necho 'GPU 1: H'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    assert visible_accelerators() == ["0", "1"]


def test_a_kernel_sees_the_accelerator_that_its_job_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with own_kernel():
        spec = next(Path(os.environ["JUPYTER_PATH"].split(os.pathsep)[0]).glob("kernels/*/kernel.json"))
        assert '"CUDA_VISIBLE_DEVICES": "5"' in spec.read_text()
