"""Run a study of one base model: every arm and seed through every stage, the most telling parts first.

    python workflow/study.py PROFILE [--base-model NAME] [--sources hh-rlhf=FOLDER ...] [--workers 2]
        [--from PART] [--until PART]
    python workflow/study.py PROFILE [--base-model NAME] --export results
    python workflow/study.py PROFILE [--base-model NAME] --resume-from results [--again ARM ...]

Every step is a stage of `tension_utils` that finds what is done and goes on where it was stopped. Several workers take
different steps; a step waits for what it reads, and a worker that waits takes its share of another's ablation. The log
has a line per step with its seconds and the hours left. Where the weights are lost, what was exported counts as done;
what is to grow is trained again, and where that ends with the same bits, what was measured on the lost weights counts
as done too.
"""

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from accelerators import own_accelerator
from owners import sole_owner
from preconditions import check_preconditions
from schema import read_profile
from tension_utils.config import (
    ARMS,
    CURVE_ARMS,
    MATCHED_ARM,
    MIXED,
    MIXED_ARMS,
    RATIO_ARMS,
    SHAM_ARMS,
    SINGLE_OBJECTIVES,
    AblateConfig,
    DataConfig,
    EngineConfig,
    EvaluateConfig,
    IdentifyConfig,
    Run,
    SinglePair,
    TrainConfig,
    on_fewer,
)
from tension_utils.locks import locked

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).parents[1]
TRAINING_COST = 3.3  # a training pair's cost in scored pairs
MAIN_ARMS = (*SINGLE_OBJECTIVES, MATCHED_ARM, MIXED)
GROUPS = {"single": SINGLE_OBJECTIVES, "matched": (MATCHED_ARM,), "union": (MIXED,)}  # in this order, each to its end
CHOICE = "choice.csv"  # candidates of the settings, compared on validation pairs
ABLATIONS = {MATCHED_ARM: "ablate_matched", MIXED: "ablate_union"}  # sections of a profile; others: ablate_single


@dataclasses.dataclass(frozen=True)
class Step:
    """One stage of one reward model.

    Args:
        part: of the study; parts are run in order.
        name: unique; names the lock and the log line.
        work: computes unless it is done.
        needs: stages that must be finished before, each with the folder of its run.
        cost: in tokens of a forward pass, for the estimate of the time left.
        help: does a share of another worker's step, and says whether there was any left.
    """

    part: str
    name: str
    work: Callable[[], bool]
    needs: tuple[tuple[Path, str], ...] = ()
    cost: float = 0.0
    help: Callable[[], bool] | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """A profile's choices with the sources of this machine."""

    profile: str
    values: dict
    base_model: str
    sources: dict[str, str]
    exported: Path | None = None  # root of the exported runs that the study goes on from

    @property
    def root(self) -> Path:
        """Folder of the runs."""
        return Path("runs") / self.profile

    @property
    def data(self) -> DataConfig:
        """Training pairs."""
        train = self.values["train"]
        names = ("subsets", "n_train_pairs", "n_validation_pairs", "max_length")
        unusable = train.get("unusable_pairs", "error")
        return DataConfig(
            source=self.sources.get("hh-rlhf", train["data_source"]),
            **{name: train[name] for name in names if name in train},
            long_pairs=unusable,
            bad_pairs=unusable,
        )

    @property
    def training(self) -> TrainConfig:
        """How reward models are trained."""
        train = self.values["train"]
        names = ("n_epochs", "batch_size", "learning_rate")
        return TrainConfig(**{name: train[name] for name in names if name in train} | train.get("train_options", {}))

    def evaluation(self, *benchmarks: str) -> EvaluateConfig:
        """Return which items are scored: all of the given benchmarks."""
        section = self.values["evaluate"]
        sources = {name: self.sources[name] for name in benchmarks if name in self.sources and name != "hh-rlhf"}
        return EvaluateConfig(
            benchmarks=benchmarks,
            engine=EngineConfig(precision=section.get("precision", "auto")),
            sources=sources,
            max_length=section.get("max_length", 0),
            unusable_items=section.get("unusable_items", "drop"),
            items_of={name: n for name, n in section.get("benchmark_items", {}).items() if name in benchmarks},
        )

    def identification(self, arm: str, seed: int) -> IdentifyConfig:
        """Return which neuron statistics are taken of a model; later seeds and sham models may do with fewer."""
        own = self.values["study"]
        section = self.values["identify"] | own.get("identify", {})
        section |= own.get("identify_later", {}) if seed != self.values["seeds"][0] else {}
        section |= own.get("identify_sham", {}) if arm in SHAM_ARMS else {}
        engine = EngineConfig(n_items=section.pop("n_items", 0), precision=section.pop("precision", "auto"))
        return IdentifyConfig(engine=engine, **section)

    def ablations(self, arm: str) -> list[AblateConfig]:
        """Return what is ablated in an arm, the most telling first."""
        section = self.values["study"][ABLATIONS.get(arm, "ablate_single")]
        block = "mixed" if arm in MIXED_ARMS else "scored"
        common = {"blocks": (block,), "max_length": self.values["evaluate"].get("max_length", 0)}
        precision, configs = self.values["evaluate"].get("precision", "auto"), []
        for entry in section:
            entry = dict(entry)
            common["engine"] = EngineConfig(n_items=entry.pop("n_items", 0), precision=precision)
            names = entry.get("benchmarks", ())
            sources = {name: self.sources[name] for name in names if name in self.sources and name != "hh-rlhf"}
            configs.append(AblateConfig(**common | {"sources": sources} | entry))
        return configs

    @property
    def tokens(self) -> float:
        """Stream tokens of a pair, for estimates."""
        return self.values["study"]["tokens_per_pair"]

    @property
    def test_cost(self) -> float:
        """Stream tokens of the HH-RLHF tests."""
        return self.values["study"]["test_pairs"] * self.tokens

    def run(self, arm: str, seed: int) -> Run:
        """Return one reward model."""
        return Run(self.root, self.base_model, arm, seed)

    def exported_root(self, run: Run | SinglePair) -> Path:
        """Return the root of a run's export."""
        return self.exported / run.root.relative_to(self.root)

    @property
    def kept_choice(self) -> Path:
        """The comparison of candidates, where it was taken over from an export."""
        return self.root / self.run(MIXED, 0).base_model_name / CHOICE

    @property
    def curve(self) -> list[tuple[int, Run]]:
        """Runs on fewer training pairs, each with their number."""
        section = self.values.get("curve", {"n_pairs": (), "seeds": (), "mixture_pairs": 0})
        sizes = [(n_pairs, CURVE_ARMS) for n_pairs in section["n_pairs"]]
        sizes.append((section["mixture_pairs"], RATIO_ARMS))
        runs = [(n, self.run(arm, seed)) for seed in section["seeds"] for n, arms in sizes for arm in arms]
        return [(n, on_fewer(run, n)) for n, run in runs]

    def trained(self, *arms: str, seed: int) -> tuple[tuple[Path, str], ...]:
        """Return what a step needs that reads these reward models."""
        return tuple((self.run(arm, seed).folder, "train") for arm in arms)


def train(study: Study, run: Run, data: DataConfig) -> bool:
    """Train a reward model, then take over what was measured on the exported one, if this one has the same bits."""
    from tension_utils.artifacts import read_section
    from tension_utils.export import exported_weights, restore_measured
    from tension_utils.training import train_run

    is_new = train_run(run, data, study.training)
    if study.exported is None:
        return is_new
    source = study.exported_root(run)
    stored = exported_weights(run, source)
    if stored == read_section(run.folder, "train")["artifact_hash"]:
        if taken := restore_measured(run, source):
            print(f"{run.folder}: the same weights as those of {source}; taken over: {', '.join(taken)}", flush=True)
    elif stored and is_new:
        print(f"{run.folder}: other weights than those of {source}; measured anew", flush=True)
    return is_new


def curve_steps(study: Study) -> Iterator[Step]:
    """Yield models that are trained on fewer pairs or on another mixture, and their evaluation."""
    names = {run: f"{run.objective} seed {run.seed} on {n or 'all'}" for n, run in study.curve}
    for n, run in study.curve:
        data = dataclasses.replace(study.data, n_train_pairs=n or study.data.n_train_pairs)
        cost = TRAINING_COST * data.n_train_pairs * study.tokens
        yield Step("curve", f"train {names[run]}", partial(train, study, run, data), (), cost)
    for _, run in study.curve:
        work = partial(evaluate_first, run, study.evaluation("hh-rlhf"))
        yield Step("curve", f"evaluate {names[run]}", work, ((run.folder, "train"),), study.test_cost)


def training_steps(study: Study, part: str, arms: Sequence[str], seed: int) -> Iterator[Step]:
    """Yield the training of some arms, then their evaluation on the HH-RLHF tests."""
    for arm in arms:
        size = (ARMS[arm].helpful + ARMS[arm].harmless) * study.values["train"]["n_train_pairs"]
        work = partial(train, study, study.run(arm, seed), study.data)
        yield Step(part, f"train {arm} seed {seed}", work, (), TRAINING_COST * size * study.tokens)
    for arm in arms:
        work = partial(evaluate_first, study.run(arm, seed), study.evaluation("hh-rlhf"))
        yield Step(part, f"evaluate {arm} seed {seed}", work, study.trained(arm, seed=seed), study.test_cost)


def evaluate_first(run: Run, config: EvaluateConfig) -> bool:
    """Evaluate on the first benchmarks, unless a later part has evaluated on more."""
    from tension_utils.artifacts import read_manifest
    from tension_utils.stages import evaluate_run

    found = read_manifest(run.folder).get("evaluate", {}).get("config", {}).get("evaluate", {}).get("benchmarks", ())
    return False if set(found) > set(config.benchmarks) else evaluate_run(run, config)


def choice_steps(study: Study) -> Iterator[Step]:
    """Yield the single-objective models of the first seed in other settings, whose validation losses are compared."""
    from tension_utils.training import train_run

    seed = study.values["seeds"][0]
    for number, candidate in enumerate(study.values["study"]["candidates"]):
        config = dataclasses.replace(study.training, **candidate)
        for objective in SINGLE_OBJECTIVES:
            run = Run(study.root / "choice" / f"candidate-{number}", study.base_model, objective, seed)
            cost = TRAINING_COST * study.values["train"]["n_train_pairs"] * study.tokens * config.n_epochs
            yield Step("choice", f"choice {number} {objective}", partial(train_run, run, study.data, config), (), cost)


def choice_table(study: Study) -> "pd.DataFrame":
    """Return the lowest validation loss of every finished candidate beside that of the settings of the study.

    A table that was taken over from an export is returned as it is.

    Returns:
        learning_rate, n_epochs, is_chosen, objective, n_validation, validation_loss, validation_accuracy (of the same
        checkpoint).
    """
    import pandas as pd

    from tension_utils.artifacts import read_manifest

    if study.kept_choice.exists():
        return pd.read_csv(study.kept_choice)
    roots = sorted((study.root / "choice").glob("candidate-*"))
    rows = []
    for root in (study.root, *roots):
        for objective in SINGLE_OBJECTIVES:
            run = Run(root, study.base_model, objective, study.values["seeds"][0])
            trained = read_manifest(run.folder).get("train")
            if trained is None:
                continue
            log = pd.read_parquet(run.folder / "train_log.parquet")
            kept = log.loc[log.validation_loss.idxmin()]
            row = {name: trained["config"]["train"][name] for name in ("learning_rate", "n_epochs")}
            row |= {"is_chosen": root == study.root, "objective": objective, "n_validation": trained["n_validation"]}
            rows.append(row | kept[["validation_loss", "validation_accuracy"]].to_dict())
    return pd.DataFrame(rows)


def weight_steps(study: Study, seed: int) -> Iterator[Step]:
    """Yield what is measured between and inside the models while their weights exist."""
    from tension_utils.depth import DepthConfig, depth_run
    from tension_utils.geometry import GradientConfig, gradient_run
    from tension_utils.interpolation import InterpolateConfig, interpolate_run
    from tension_utils.stages import ItemsConfig

    part, pair = f"seed {seed}: weights", SinglePair(study.root, study.base_model, seed)
    items = ItemsConfig.of(study.evaluation("hh-rlhf"))
    needs = study.trained(*SINGLE_OBJECTIVES, seed=seed)
    config = InterpolateConfig(items=items)
    work = partial(interpolate_run, pair, config)
    yield Step(part, f"interpolate seed {seed}", work, needs, len(config.weights) * study.test_cost)
    for arm in MIXED_ARMS:
        work = partial(gradient_run, study.run(arm, seed), GradientConfig())
        yield Step(part, f"gradients {arm} seed {seed}", work, study.trained(arm, seed=seed), 8e5)
    for arm in MAIN_ARMS:
        work = partial(depth_run, study.run(arm, seed), DepthConfig(items))
        yield Step(part, f"depth {arm} seed {seed}", work, study.trained(arm, seed=seed), 1.5 * study.test_cost)


def weight_change_steps(
    study: Study, part: str, shams: Sequence[str], seed: int, needed: Sequence[str]
) -> Iterator[Step]:
    """Yield the comparison of what training changed in the main arms, and in those sham arms that are trained by then.

    It is a minute's work, and done again once the sham arms are there.
    """
    from tension_utils.geometry import WeightChangeConfig, weight_change_run

    config = WeightChangeConfig(arms=(*MAIN_ARMS, *shams))
    work = partial(weight_change_run, SinglePair(study.root, study.base_model, seed), config)
    name = f"weight-changes of {len(needed)} arms seed {seed}"
    yield Step(part, name, work, study.trained(*needed, seed=seed), 1e4)


def identify_steps(study: Study, part: str, arms: Sequence[str], seed: int) -> Iterator[Step]:
    """Yield the neuron statistics of some arms: four passes over the own pairs, ten over those of the views."""
    from tension_utils.stages import identify_run

    for arm in arms:
        config = study.identification(arm, seed)
        cost = (4 * config.engine.n_items + 10 * (config.n_view_items or config.engine.n_items)) * study.tokens
        yield Step(
            part,
            f"identify {arm} seed {seed}",
            partial(identify_run, study.run(arm, seed), config),
            study.trained(arm, seed=seed),
            cost,
        )


def ablate_steps(study: Study, part: str, arms: Sequence[str], seed: int, n_configs: int) -> Iterator[Step]:
    """Yield the ablation of some arms by the first configurations of the profile; conditions that are done are kept."""
    from tension_utils.stages import help_ablate

    for arm in arms:
        configs = study.ablations(arm)[:n_configs]
        sources = {arm, *(SINGLE_OBJECTIVES if arm in MIXED_ARMS else ())}
        needs = tuple((study.run(source, seed).folder, "identify") for source in sorted(sources))
        cost = n_conditions(configs[-1]) * 2 * configs[-1].engine.n_items * study.tokens
        yield Step(
            part,
            f"ablate {arm} seed {seed} ({len(configs)})",
            partial(ablate_first, study.run(arm, seed), configs),
            needs,
            cost,
            partial(help_ablate, study.run(arm, seed), *configs),
        )


def ablate_first(run: Run, configs: list[AblateConfig]) -> bool:
    """Ablate by the first configurations, unless a later part has done so by more."""
    from tension_utils.artifacts import read_manifest
    from tension_utils.stages import ablate_run

    found = read_manifest(run.folder).get("ablate", {}).get("config", {})
    return False if len(found.get("further", ())) >= len(configs) else ablate_run(run, *configs)


def n_conditions(config: AblateConfig) -> int:
    """Return about how many conditions a configuration has, for the estimate of the time left."""
    n_sets = len(config.score_kinds) * len(config.fractions) if "scored" in config.blocks else 0
    n_mixed = 2 if config.own_test else 3  # the only sets on half of the items
    n_sets += n_mixed * len(config.families) if "mixed" in config.blocks else 0
    return n_sets * len(config.ablation_kinds) * len(config.scales) * (1 + len(config.controls) * config.n_draws)


def benchmark_steps(study: Study, seed: int) -> Iterator[Step]:
    """Yield the evaluation on all benchmarks, which replaces that on HH-RLHF alone."""
    from tension_utils.stages import evaluate_run

    config, cost = study.evaluation(*study.values["evaluate"]["benchmarks"]), study.values["study"]["benchmark_tokens"]
    for arm in MAIN_ARMS:
        work, needs = partial(evaluate_run, study.run(arm, seed), config), study.trained(arm, seed=seed)
        yield Step(f"seed {seed}: benchmarks", f"benchmarks {arm} seed {seed}", work, needs, cost)


def plan(study: Study) -> list[Step]:
    """Return all steps, the most telling first: seed by seed what decides the claims, then what stands beside it."""
    section, first, steps = study.values["study"], study.values["seeds"][0], []
    for seed in study.values["seeds"]:
        shams = [arm for arm in SHAM_ARMS if seed in section[f"{ARMS[arm].labels}_seeds"]]
        for group, arms in GROUPS.items():
            steps += training_steps(study, f"seed {seed}: train {group}", arms, seed)
            is_open = group == "single" and seed == first and not study.kept_choice.exists()
            steps += choice_steps(study) if is_open else []
            steps += identify_steps(study, f"seed {seed}: measure {group}", arms, seed)
            steps += ablate_steps(study, f"seed {seed}: measure {group}", arms, seed, 1)
        steps += weight_steps(study, seed)
        steps += weight_change_steps(study, f"seed {seed}: weights", shams, seed, MAIN_ARMS)
        steps += training_steps(study, f"seed {seed}: sham", shams, seed)
        if shams:
            steps += weight_change_steps(study, f"seed {seed}: sham", shams, seed, (*MAIN_ARMS, *shams))
        steps += identify_steps(study, f"seed {seed}: sham", shams, seed)
        steps += benchmark_steps(study, first) if seed == first else []
    for seed in study.values["seeds"][1:]:
        steps += benchmark_steps(study, seed)
    for number in range(2, max(len(study.ablations(arm)) for arm in MAIN_ARMS) + 1):
        arms = [arm for arm in MAIN_ARMS if number <= len(study.ablations(arm))]
        for seed in study.values["seeds"]:
            steps += ablate_steps(study, f"seed {seed}: ablate further {number}", arms, seed, number)
    return steps + list(curve_steps(study))


def expected_stages(study: Study) -> list[tuple[Run | SinglePair, tuple[str, ...]]]:
    """Return every run of the study with the stages that are to be exported."""
    expected, section = [], study.values["study"]
    for seed in study.values["seeds"]:
        pair = SinglePair(study.root, study.base_model, seed)
        expected.append((pair, ("interpolate", "weight_changes")))
        for arm in MAIN_ARMS:
            further = ("gradients",) if arm in MIXED_ARMS else ()
            expected.append((study.run(arm, seed), ("train", "evaluate", "identify", "ablate", "depth", *further)))
        for arm in SHAM_ARMS:
            if seed in section[f"{ARMS[arm].labels}_seeds"]:
                expected.append((study.run(arm, seed), ("train", "evaluate", "identify")))
    expected += [(run, ("train", "evaluate")) for _, run in study.curve]
    return expected


def attempt(study: Study, step: Step, log: Callable[[str], None]) -> str:
    """Run a step unless another worker does; return "done", "busy", "waiting" or "failed"."""
    from tension_utils.artifacts import read_manifest

    if not all(stage in read_manifest(folder) for folder, stage in step.needs):
        return "waiting"
    with locked(study.root / "study" / f"{step.name.replace(' ', '-')}.lock", seconds=0) as is_mine:
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


def help_with(study: Study, step: Step, log: Callable[[str], None]) -> None:
    """Do a share of a step that another worker is at, unless somebody does already."""
    with locked(study.root / "study" / f"help-{step.name.replace(' ', '-')}.lock", seconds=0) as is_mine:
        start = time.monotonic()
        try:
            has_helped = is_mine and step.help()
        except Exception:
            log(f"could not help with {step.name}\n{traceback.format_exc()}")
            return
        if has_helped:
            log(f"{step.part} | {step.name}: helped | {time.monotonic() - start:.0f} s")


def run_steps(study: Study, steps: list[Step], log: Callable[[str], None]) -> int:
    """Run all steps in order, past those that others run or that wait; return how many failed.

    Where none is left to begin, help the other workers.
    """
    left, n_failed, helped = list(steps), 0, set()
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
            busy = [step for step in left if states[step.name] == "busy"]
            if not busy:
                log(f"stopped: {len(left)} steps lack what they read, the first is {left[0].name!r}: {left[0].needs}")
                return n_failed + len(left)
            if alone := [step for step in busy if step.help and step.name not in helped]:
                helped.add(alone[0].name)
                help_with(study, alone[0], log)
            else:
                time.sleep(5)
    return n_failed


def fail(message: str) -> NoReturn:
    """Print an error and exit with 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def read_study(options: argparse.Namespace) -> Study:
    """Return the profile's study; exit with 2 where an option is wrong."""
    try:
        values = read_profile(ROOT, options.profile)
    except ValueError as error:
        fail(str(error))
    if lacking := {"evaluate", "identify", "study"} - set(values):
        there = "as in config/smollm2-135m.yaml"
        fail(f"config/{options.profile}.yaml: expected the sections {', '.join(sorted(lacking))}, {there}; got nothing")
    if bad := [pair for pair in options.sources if "=" not in pair]:
        fail(f"--sources: expected BENCHMARK=SOURCE; got {bad}")
    sources = dict(pair.split("=", 1) for pair in options.sources)
    base_model = options.base_model or values["base_models"][0]
    return Study(options.profile, values, base_model, sources, options.resume_from)


def export(study: Study, target: Path) -> int:
    """Export what is finished and say what is missing."""
    from tension_utils.artifacts import write_csv
    from tension_utils.export import export_runs

    n_exported, missing = export_runs(expected_stages(study), study.root, target, study.values["seeds"][0])
    table = choice_table(study)
    if len(table):
        write_csv(target / study.run(MIXED, 0).base_model_name / CHOICE, table)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 2**20
    print("\n".join(missing))
    print(f"{n_exported} runs exported to {target} ({size:.1f} MiB there); {len(missing)} runs are not finished")
    return 0


def between(steps: list[Step], first: str | None, last: str | None) -> list[Step]:
    """Return the steps of all parts from one to another; None is the first or the last.

    Raises:
        ValueError: if there is no such part, or the last comes before the first.
    """
    parts = list(dict.fromkeys(step.part for step in steps))
    for name, part in (("--from", first), ("--until", last)):
        if part is not None and part not in parts:
            raise ValueError(f"{name}: expected one of {parts}; got {part!r}")
    start, end = parts.index(first or parts[0]), parts.index(last or parts[-1])
    if end < start:
        raise ValueError(f"--until: expected a part from {first!r} on; got {last!r}, which comes before it")
    return [step for step in steps if start <= parts.index(step.part) <= end]


def resume(study: Study, again: Sequence[str]) -> None:
    """Take over the exported runs that are not here, but none of the arms that are trained again, see `train`.

    Raises:
        ValueError: if a file of the export is damaged, or nothing of this base model was exported.
    """
    from tension_utils.export import restore_run

    taken = [
        run.folder
        for run, _ in expected_stages(study)
        if not (isinstance(run, Run) and run.objective in again) and restore_run(run, study.exported_root(run))
    ]
    choice = study.exported / study.kept_choice.relative_to(study.root)
    if not taken and not choice.parent.exists():
        raise ValueError(f"{study.exported}: expected exported runs of {choice.parent.name}; found none")
    if choice.exists() and not (study.root / "choice").exists():
        study.kept_choice.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(choice, study.kept_choice)
    print("\n".join(f"taken over: {folder}" for folder in taken), flush=True)


def read_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile")
    parser.add_argument("--base-model", help="public name or folder; default: that of the profile")
    parser.add_argument("--sources", nargs="*", default=[], metavar="BENCHMARK=SOURCE", help="folders to read instead")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the steps")
    parser.add_argument(
        "--from", dest="first", metavar="PART", help="first part to run, such as 'seed 247: train single'"
    )
    parser.add_argument("--until", dest="last", metavar="PART", help="last part to run")
    parser.add_argument("--export", type=Path, help="write what is finished below this folder, and run nothing")
    parser.add_argument("--resume-from", type=Path, help="take over what was exported here, where it is not at hand")
    parser.add_argument(
        "--again",
        nargs="*",
        default=[],
        metavar="ARM",
        choices=list(ARMS),
        help="but train these again; what was measured on the same bits stays",
    )
    parser.add_argument("--list", action="store_true", help="print the steps and run nothing")
    parser.add_argument("--is-worker", action="store_true", help=argparse.SUPPRESS)  # of a study that holds the lock
    return parser.parse_args()


def main() -> int:
    """Run a study from the command line."""
    options = read_options()
    study = read_study(options)
    if options.export:
        try:
            return export(study, options.export)
        except (OSError, ValueError) as error:
            fail(f"--export: {error}")
    try:
        steps = between(plan(study), options.first, options.last)
    except ValueError as error:
        fail(str(error))
    if options.list:
        print("\n".join(f"{step.part} | {step.name} | {step.cost / 1e6:.2f} M tokens" for step in steps))
        return 0
    if options.is_worker:
        return work(study, steps)
    try:
        values = study.values | {"base_models": [study.base_model]}
        check_preconditions(values, study.sources)
        with sole_owner(study.root / ".work"):
            if options.resume_from:
                resume(study, options.again)
                steps = between(plan(study), options.first, options.last)
            if options.workers == 1:
                return work(study, steps)
            command = [sys.executable, __file__, *sys.argv[1:], "--is-worker"]
            workers = [subprocess.Popen(command) for _ in range(options.workers)]
            return max(worker.wait() for worker in workers)
    except (OSError, ValueError, RuntimeError) as error:
        fail(str(error))


def work(study: Study, steps: list[Step]) -> int:
    """Run steps in this process, on an accelerator of its own; return the exit status."""

    def log(text: str) -> None:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] {text}", flush=True)

    with own_accelerator() as accelerator:  # before any library looks for one
        os.environ.update(accelerator)
        return min(1, run_steps(study, steps, log))


if __name__ == "__main__":
    raise SystemExit(main())
