"""How often the finders and the claim tests are right: many planted worlds, and small tables of rates to commit.

``python -m tension_utils.planted_study --worlds 100 --output results/planted`` runs them. A run that was stopped goes
on where it was.
"""

import argparse
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from tqdm.auto import tqdm

from tension_utils.artifacts import atomic_path, file_hash, git_commit, package_versions
from tension_utils.checks import check_range
from tension_utils.config import config_hash
from tension_utils.planted_claims import decide_world
from tension_utils.planted_finders import PlantedWorld, finder_table
from tension_utils.planted_tables import COMMAND
from tension_utils.planted_worlds import SCENARIOS, draw_world
from tension_utils.statistics import wilson_interval

FINDER_SCENARIO = "planted"  # where finders are scored
CODE = ("planted_worlds", "planted", "planted_finders", "planted_claims")  # a change here makes kept worlds stale
KNOBS = ("loudness", "drift", "conflict", "damage")
TEST_COLUMNS = ("claim", "is_true", "scenario", "way", "reading", "metric", "score_kind", "n_seeds")


@dataclass(frozen=True)
class StudyConfig:
    """How much of every world the study sees; about what the book's small profiles see of their models.

    Args:
        n_items: items per test.
        n_text: training pairs per objective that scores read.
        n_seeds: training runs per objective.
        n_draws: random sets per tested set; with fewer than 19 no rank can be significant.
    """

    n_items: int = 30
    n_text: int = 30
    n_seeds: int = 3
    n_draws: int = 19

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            check_range(name, value, 2 if name == "n_items" else 1)

    @property
    def digest(self) -> str:
        """Hash of the sizes and of the code that makes and judges worlds."""
        here = Path(__file__).parent
        return config_hash(asdict(self) | {name: file_hash(here / f"{name}.py") for name in CODE})


def study_world(seed: int, scenario: str, config: StudyConfig) -> dict:
    """Return what all tests say in one world, and where they are scored, the finders' quality; JSON-like."""
    started, knobs = time.perf_counter(), draw_world(seed, scenario)
    world = PlantedWorld(knobs, config.n_items, config.n_text)
    decisions = [asdict(decision) for decision in decide_world(world, config.n_seeds, config.n_draws)]
    finders = finder_table(world).to_dict("records") if scenario == FINDER_SCENARIO else []
    seconds = round(time.perf_counter() - started, 2)
    return {"world": asdict(knobs), "decisions": decisions, "finders": finders, "seconds": seconds}


def run_worlds(n_worlds: int, config: StudyConfig, work: Path, progress: bool = True) -> list[dict]:
    """Return `study_world` of every scenario and seed; worlds that ``work`` holds from the same code are not run again.

    Args:
        n_worlds: seeds per scenario.
        config: sizes.
        work: folder of one file per world, written at once each.
        progress: show a bar.

    Raises:
        ValueError: for fewer than one world.
    """
    check_range("n_worlds", n_worlds, 1)
    places = [(seed, scenario) for seed in range(n_worlds) for scenario in SCENARIOS]
    found = []
    for seed, scenario in tqdm(places, desc="planted worlds", unit="world", disable=not progress):
        path = work / f"{scenario}-{seed}.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if kept.get("digest") != config.digest:
            kept = study_world(seed, scenario, config) | {"digest": config.digest}
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(kept), encoding="utf-8")
        found.append(kept)
    return found


def claim_rates(worlds: Sequence[Mapping]) -> pd.DataFrame:
    """Return how often each test supports its claim, where it is true (power) and where it is false (false positives).

    Args:
        worlds: of `run_worlds`.

    Returns:
        `TEST_COLUMNS`, n_worlds, n_supported, rate with Wilson's 95 % interval (ci_low, ci_high), value (mean).
    """
    rows = [decision | {"scenario": each["world"]["scenario"]} for each in worlds for decision in each["decisions"]]
    table = pd.DataFrame(rows)
    table["is_true"] = [SCENARIOS[row.scenario].truth[row.claim] for row in table.itertuples()]
    groups = table.groupby(list(TEST_COLUMNS), sort=True)
    rates = groups.agg(n_worlds=("value", "size"), n_supported=("is_supported", "sum"), value=("value", "mean"))
    rates = rates.reset_index()
    rates["rate"] = rates.n_supported / rates.n_worlds
    bounds = [wilson_interval(row.n_supported, row.n_worlds) for row in rates.itertuples()]
    rates[["ci_low", "ci_high"]] = bounds
    return rates[[*TEST_COLUMNS, "n_worlds", "n_supported", "rate", "ci_low", "ci_high", "value"]]


def finder_rates(worlds: Sequence[Mapping]) -> pd.DataFrame:
    """Return how well each score finds the planted neurons, over worlds, their three reward models averaged.

    Args:
        worlds: of `run_worlds`.

    Returns:
        site, score_kind, plant ("all"; "quiet" where planted neurons are less active than typical ones; "loud"),
        n_worlds, precision (as many neurons as are planted; also the recall) with Student's 95 % interval over worlds
        (ci_low, ci_high), recall_twice, average_precision, chance.
    """
    rows = [row | each["world"] for each in worlds for row in each["finders"]]
    keys, metrics = ["site", "score_kind"], ["precision", "recall_twice", "average_precision", "chance"]
    table = pd.DataFrame(rows).groupby([*keys, "seed", "loudness"])[metrics].mean().reset_index()
    is_loud = table.loudness >= 1
    found = []
    for plant, part in (("all", table), ("quiet", table[~is_loud]), ("loud", table[is_loud])):
        for key, group in part.groupby(keys):
            low, high = np.clip(mean_interval(group.precision.to_numpy()), 0, 1)
            row = dict(zip(keys, key, strict=True)) | {"plant": plant, "n_worlds": len(group)}
            found.append(row | group[metrics].mean().to_dict() | {"ci_low": low, "ci_high": high})
    columns = [*keys, "plant", "n_worlds", "precision", "ci_low", "ci_high", *metrics[1:]]
    return pd.DataFrame(found)[columns]


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's interval of a mean; NaN for one value.

    >>> [round(bound, 2) for bound in mean_interval(np.array([1.0, 2.0, 3.0]))]
    [-0.48, 4.48]
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    reach = stats.sem(values) * stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    return float(values.mean() - reach), float(values.mean() + reach)


def export_study(worlds: Sequence[Mapping], config: StudyConfig, folder: Path) -> None:
    """Write the tables of rates and ``manifest.json`` to ``folder``, all at once.

    Args:
        worlds: of `run_worlds`.
        config: sizes they were run with.
        folder: replaced if it exists.
    """
    knobs = pd.DataFrame([each["world"] for each in worlds])[["seed", *KNOBS]].drop_duplicates()
    tables = {"finders": finder_rates(worlds), "claims": claim_rates(worlds), "worlds": knobs}
    manifest = {
        "about": "Reward models whose neurons are known, built by hand; no language model and no data of the study.",
        "command": COMMAND,
        "config": asdict(config),
        "code_hash": config.digest,
        "n_worlds": len(knobs),
        "scenarios": list(SCENARIOS),
        "seconds": round(sum(each["seconds"] for each in worlds), 1),
        "device": f"cpu ({torch.get_num_threads()} threads)",
        "commit": git_commit(),
        "python": platform.python_version(),
        "packages": package_versions(),
    }
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        for name, table in tables.items():
            table.to_csv(temporary / f"{name}.csv", index=False, float_format="%.6g")
        text = json.dumps(manifest, indent=1, sort_keys=True)
        (temporary / "manifest.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description="Score finders and claim tests on worlds with a planted truth.")
    parser.add_argument("--worlds", type=int, default=100, help="seeds per scenario")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--work", type=Path, default=Path("runs/planted"), help="folder that keeps finished worlds")
    options = parser.parse_args()
    config = StudyConfig()
    torch.set_num_threads(1)  # the models are too small for more to help
    try:
        worlds = run_worlds(options.worlds, config, options.work)
    except ValueError as error:
        parser.error(str(error))
    export_study(worlds, config, options.output)


if __name__ == "__main__":
    main()
