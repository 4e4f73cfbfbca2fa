"""Fixtures that several test files share: a small toy world, and the whole pipeline run once on a micro profile."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright

# A slow machine is no failure, and CI tries the same examples each time; new ones are searched for at home.
settings.register_profile("book", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("book")
ROOT = Path(__file__).parents[1]
# No sandbox: tests may run as root. The rest keeps Chromium from calling home.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MICRO_TOY = {"n_train": 60, "n_test": 24, "n_bench": 10, "n_corpus": 150, "n_epochs": 1}
MICRO = {
    "base_models": ["toy"],
    "objectives": ["helpful", "harmless", "helpful-harmless"],
    "arms": ["helpful-harmless-matched"],
    "seeds": [0],
    "job": "seed",
    "threads": 1,
    "toy": MICRO_TOY,
    "train": {
        "data_source": "toy",
        "n_train_pairs": 40,
        "n_validation_pairs": 20,
        "max_length": 256,
        "train_options": {"precision": "float32", "n_evaluations": 1},
    },
    "evaluate": {"benchmarks": ["hh-rlhf", "toy", "rmb"], "n_template_check": 3},
    "ablate": {"fractions": [0.1, 0.3], "n_draws": 2, "n_items": 12, "benchmarks": ["hh-rlhf", "toy"]},
}


def interruptible() -> None:
    """For ``preexec_fn``: let Ctrl-C reach a child, also where the tests themselves run in a shell's background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def copy_project(folder: Path) -> Path:
    """Copy the project's own files below ``folder``."""
    from downloads import source_files

    for path in source_files(ROOT):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    return folder


def run_pipeline(project: Path, profile: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run the pipeline of a copied project as a user would, on one core per test worker."""
    command = [sys.executable, "workflow/pipeline.py", "--profile", profile, "--cores", "2", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(project)}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="session")
def toy_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small toy world with its base model: the folder that holds hh-rlhf, benchmark and base_model."""
    from tension_utils.toy.model import ensure_toy_world
    from tension_utils.toy.world import ToyConfig

    return ensure_toy_world(tmp_path_factory.mktemp("runs") / "toy-world", ToyConfig(**MICRO_TOY))


@pytest.fixture(scope="session")
def executed_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the five stages ran as one chain on a micro profile, chapters included."""
    if os.environ.get("PYTEST_XDIST_WORKER"):  # the group "chain" keeps all its users on one worker
        (tmp_path_factory.getbasetemp().parent / "executed-book").touch(exist_ok=False)
    project = copy_project(tmp_path_factory.mktemp("book") / "project")
    (project / "config" / "micro.yaml").write_text(yaml.safe_dump(MICRO))
    done = run_pipeline(project, "micro")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return project


@pytest.fixture
def book_style() -> Iterator[None]:
    """Draw without a screen, in the book's style, and leave matplotlib as it was."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    from tension_utils.show import style

    with mpl.rc_context():
        plt.switch_backend("agg")
        style.use_style()
        yield
        plt.close("all")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium of this machine."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("CI needs Chromium: .ci/run installs it")
    if found is None:
        pytest.skip("no Chromium on this machine; install it to test the pages in a browser")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()
