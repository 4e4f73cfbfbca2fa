"""The Makefile: what it removes, what it keeps, and what it says when it cannot start."""

import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
MADE = ("_build/html", "executed", "work/tiny", "logs", "vendor_site/vendor", "book/generated")
KEPT = ("runs/tiny/toy", "results", ".cache", ".snakemake", "notebooks", "config")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "with space"
    for name in (*MADE, *KEPT):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text("x")
    (folder / "config" / "tiny.yaml").write_text("")
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def make(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=root, capture_output=True, text=True)


def test_clean_removes_what_was_made_and_keeps_results(root: Path) -> None:
    assert make(root, "clean").returncode == 0
    assert not any((root / name).exists() for name in MADE)
    assert all((root / name / "file").exists() for name in KEPT)


def test_clean_runs_removes_one_profile_and_refuses_an_unknown_one(root: Path) -> None:
    for name in ("tinny", "tiny paper", "%", "../runs", "tiny;false", '$(shell touch "made")'):
        refused = make(root, "clean-runs", f"PROFILE={name}")
        assert refused.returncode == 2 and ": expected one of tiny" in refused.stderr
    assert (root / "runs" / "tiny").exists() and not (root / "made").exists()
    assert make(root, "clean-runs", "PROFILE=tiny").returncode == 0
    assert not (root / "runs" / "tiny").exists() and (root / "results" / "file").exists()


def test_clean_runs_leaves_a_run_that_is_at_work(root: Path) -> None:
    with FileLock(root / "runs" / "tiny" / ".work.lock"):
        refused = make(root, "clean-runs", "PROFILE=tiny")
        assert refused.returncode == 2 and "a run is at work in runs/tiny" in refused.stderr
        assert (root / "runs" / "tiny" / "toy" / "file").exists()
    assert make(root, "clean-runs", "PROFILE=tiny").returncode == 0 and not (root / "runs" / "tiny").exists()


def test_old_python_is_named_before_anything_is_made(root: Path) -> None:
    python = root / "old-python"
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2"\nexit 1\n')
    python.chmod(0o755)
    stopped = make(root, "book", "PYTHON=./old-python")
    assert stopped.returncode != 0
    assert "needs Python 3.11 or newer, found Python 3.9.2" in stopped.stderr
    assert not (root / ".venv").exists()


def test_set_up_depends_on_the_content_of_the_pins(root: Path) -> None:
    def stamp() -> str:
        return next(line for line in make(root, "-n", "serve").stdout.splitlines() if "touch" in line).split("touch ")[
            1
        ]

    before = stamp()
    (root / "requirements.txt").touch()
    assert stamp() == before
    (root / "requirements.txt").write_text("numpy==2.4.6  # arrays\n")
    assert stamp() != before
