"""Run a study of one base model: every arm and seed through every stage, the most telling parts first.

    python workflow/study.py PROFILE [--base-model NAME] [--sources hh-rlhf=FOLDER ...] [--workers 2] [--until PART]

Every step is a stage of `tension_utils` that finds what is done and goes on where it was stopped. Several workers take
different steps; a step waits for what it reads. The log has a line per step with its seconds and the hours left.
"""

import argparse
import dataclasses
import fcntl
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import yaml

from tension_utils.accelerators import own_accelerator
from tension_utils.config import (
    ARMS,
    LABELS,
    MATCHED_ARM,
    MIXED,
    SINGLE_OBJECTIVES,
    DataConfig,
    EngineConfig,
    EvaluateConfig,
    TrainConfig,
)
from tension_utils.runs import Run

ROOT = Path(__file__).parents[1]
TRAINING_COST = 3.3  # a training pair's cost in scored pairs
MAIN_ARMS = (*SINGLE_OBJECTIVES, MATCHED_ARM, MIXED)


@dataclasses.dataclass(frozen=True)
class Step:
    """One stage of one reward model.

    Args:
        part: of the study; parts are run in order.
        name: unique; names the lock and the log line.
        work: computes unless it is done.
        needs: files that must exist before.
        cost: in tokens of a forward pass, for the estimate of the time left.
    """

    part: str
    name: str
    work: Callable[[], bool]
    needs: tuple[Path, ...] = ()
    cost: float = 0.0


@dataclasses.dataclass(frozen=True)
class Study:
    """A profile's choices with the sources of this machine."""

    values: dict
    base_model: str
    sources: dict[str, str]

    @property
    def root(self) -> Path:
        """Folder of the runs."""
        return Path("runs") / self.values["profile"]

    @property
    def data(self) -> DataConfig:
        """Training pairs."""
        train = self.values["train"]
        return DataConfig(
            source=self.sources.get("hh-rlhf", train["data_source"]),
            subsets=train["subsets"],
            n_train_pairs=train["n_train_pairs"],
            n_validation_pairs=train["n_validation_pairs"],
            max_length=train["max_length"],
            long_pairs=train["unusable_pairs"],
            bad_pairs=train["unusable_pairs"],
        )

    @property
    def training(self) -> TrainConfig:
        """How reward models are trained."""
        train = self.values["train"]
        names = ("n_epochs", "batch_size", "learning_rate")
        return TrainConfig(**{name: train[name] for name in names}, **train["train_options"])

    def evaluation(self, *benchmarks: str) -> EvaluateConfig:
        """Return which items are scored: all of the given benchmarks."""
        section = self.values["evaluate"]
        sources = {name: self.sources[name] for name in benchmarks if name in self.sources and name != "hh-rlhf"}
        return EvaluateConfig(
            benchmarks=benchmarks,
            engine=EngineConfig(precision=section["precision"]),
            sources=sources,
            max_length=section["max_length"],
            items_of={name: n for name, n in section.get("benchmark_items", {}).items() if name in benchmarks},
        )

    def run(self, arm: str, seed: int) -> Run:
        """Return one reward model."""
        return Run(self.root, self.base_model, arm, seed)


def training_steps(study: Study, part: str, arms: list[str], seed: int) -> Iterator[Step]:
    """Yield the training of some arms and their evaluation on the HH-RLHF tests."""
    from tension_utils.stages import evaluate_run
    from tension_utils.training import train_run

    n_pairs, tokens = study.values["train"]["n_train_pairs"], study.values["study"]["tokens_per_pair"]
    for arm in arms:
        run = study.run(arm, seed)
        size = ARMS[arm].helpful + ARMS[arm].harmless
        work = partial(train_run, run, study.data, study.training)
        yield Step(part, f"train {arm} seed {seed}", work, (), TRAINING_COST * size * n_pairs * tokens)
    for arm in arms:
        run = study.run(arm, seed)
        needs = (run.folder / "train_log.parquet",)
        work = partial(evaluate_run, run, study.evaluation("hh-rlhf"))
        yield Step(part, f"evaluate {arm} seed {seed}", work, needs, study.values["study"]["test_pairs"] * tokens)


def plan(study: Study) -> list[Step]:
    """Return all steps, the most telling first."""
    section, steps = study.values["study"], []
    for seed in study.values["seeds"]:
        steps += training_steps(study, f"seed {seed}: train", list(MAIN_ARMS), seed)
        shams = [f"{objective}-{labels}" for labels in LABELS[1:] for objective in SINGLE_OBJECTIVES]
        wanted = [arm for arm in shams if seed in section[f"{ARMS[arm].labels}_seeds"]]
        steps += training_steps(study, f"seed {seed}: sham", wanted, seed)
    return steps


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Give True if no other worker holds the lock of this path, and hold it while the context is open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def attempt(study: Study, step: Step, log: Callable[[str], None]) -> str:
    """Run a step unless another worker does; return "done", "busy", "waiting" or "failed"."""
    if not all(path.exists() for path in step.needs):
        return "waiting"
    with locked(study.root / "study" / f"{step.name.replace(' ', '-')}.lock") as is_mine:
        if not is_mine:
            return "busy"
        start = time.monotonic()
        try:
            is_new = step.work()
        except Exception:
            log(f"FAILED {step.name}\n{traceback.format_exc()}")
            return "failed"
        if is_new:
            log(f"{step.part} | {step.name} | {time.monotonic() - start:.0f} s")
        return "done"


def run_steps(study: Study, steps: list[Step], log: Callable[[str], None]) -> int:
    """Run all steps in order, past those that others run or that wait; return how many failed."""
    left, n_failed = list(steps), 0
    total, computed, started = sum(step.cost for step in steps), 0.0, time.monotonic()
    while left:
        states = {}
        for step in left:
            before = time.monotonic()
            states[step.name] = attempt(study, step, log)
            if states[step.name] == "done" and time.monotonic() - before > 5:
                computed += step.cost
                rate = computed / (time.monotonic() - started)
                rest = sum(other.cost for other in left) - step.cost
                log(f"about {rest / rate / 3600:.1f} hours left of {total / rate / 3600:.1f} at this worker's rate")
            if states[step.name] in ("done", "failed"):
                break
        n_failed += "failed" in states.values()
        finished = {name for name, state in states.items() if state in ("done", "failed")}
        left = [step for step in left if step.name not in finished]
        if not finished:
            if "busy" not in states.values():
                log(f"stopped: {len(left)} steps lack what they read, the first is {left[0].name!r}: {left[0].needs}")
                return n_failed + len(left)
            time.sleep(5)
    return n_failed


def read_study(options: argparse.Namespace) -> Study:
    """Return the profile's study; exit with 2 where an option is wrong."""
    path = ROOT / "config" / f"{options.profile}.yaml"
    if not path.is_file():
        raise SystemExit(f"error: PROFILE: expected one of {sorted(p.stem for p in path.parent.glob('*.yaml'))}")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "study" not in values:
        raise SystemExit(f"error: {path}: expected a section 'study'; copy that of config/smollm2-135m.yaml")
    sources = dict(pair.split("=", 1) for pair in options.sources)
    return Study(values, options.base_model or values["base_models"][0], sources)


def main() -> int:
    """Run a study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile")
    parser.add_argument("--base-model", help="public name or folder; default: that of the profile")
    parser.add_argument("--sources", nargs="*", default=[], metavar="BENCHMARK=SOURCE", help="folders to read instead")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the steps")
    parser.add_argument("--until", help="last part to run, such as 'seed 0: train'")
    parser.add_argument("--list", action="store_true", help="print the steps and run nothing")
    options = parser.parse_args()
    study = read_study(options)
    steps = plan(study)
    if options.until:
        parts = list(dict.fromkeys(step.part for step in steps))
        if options.until not in parts:
            parser.error(f"--until: expected one of {parts}; got {options.until!r}")
        steps = [step for step in steps if parts.index(step.part) <= parts.index(options.until)]
    if options.list:
        print("\n".join(f"{step.part} | {step.name} | {step.cost / 1e6:.2f} M tokens" for step in steps))
        return 0
    if options.workers > 1:
        arguments = [*sys.argv[1:], "--workers", "1"]
        workers = [subprocess.Popen([sys.executable, __file__, *arguments]) for _ in range(options.workers)]
        return max(worker.wait() for worker in workers)

    def log(text: str) -> None:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] {text}", flush=True)

    with own_accelerator() as accelerator:  # before any library looks for one
        os.environ.update(accelerator)
        return min(1, run_steps(study, steps, log))


if __name__ == "__main__":
    raise SystemExit(main())
