"""Small tables of a real run, with their manifest, for committing: what chapter 6 shows.

``python -m tension_utils.results --parameters '{...}' --about 'base model and data in words' --output results/NAME``
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from tension_utils.ablation_tables import cost_table, effect_table, total_ablation
from tension_utils.artifacts import atomic_path, read_manifest, read_table
from tension_utils.benchmark_tables import benchmark_table
from tension_utils.chance_regression import chance_slopes, regression_to_chance
from tension_utils.claims import ledger_table
from tension_utils.evidence import Evidence
from tension_utils.mixed_ablation import per_neuron, per_neuron_differences
from tension_utils.overlap import summarize_overlaps
from tension_utils.overlap_controls import cross_design_table, half_table, reference_table
from tension_utils.runs import Run, named_runs
from tension_utils.study_tables import tension_table

TABLES = (
    *("training", "tension", "benchmarks", "claims", "overlap", "cross", "halves", "cost"),
    *("effects", "total", "moves", "slopes", "per_neuron", "differences"),
)
KEPT = (
    "config",
    "config_hash",
    "artifact_hash",
    "commit",
    "device",
    "dtype",
    "seconds",
    "n_tokens",
    "n_train",
    "n_items",
)


def training_table(runs: list[Run]) -> pd.DataFrame:
    """Return one row per reward model: sizes, kept checkpoint, cost."""
    rows = []
    for run in runs:
        log = read_table([run], "train_log", "01_train")
        kept = log.loc[log.validation_loss.idxmin()]
        facts = read_manifest(run.folder)["train"]
        columns = ("n_train", "n_validation", "n_too_long", "n_tokens", "seconds", "device")
        rows.append(run.label | kept[["step"]].to_dict() | {c: facts[c] for c in columns})
    return pd.DataFrame(rows)


def result_tables(runs: list[Run], kinds: list[str], fraction: float) -> dict[str, pd.DataFrame]:
    """Return the tables named in `TABLES`, every number computed from the runs' artifacts."""
    evidence = Evidence.of(runs)
    ablated = (evidence.ablation, evidence.evaluation)
    related = ["score_kind", "relation"]
    return {
        "training": training_table(runs),
        "tension": tension_table(evidence.evaluation),
        "benchmarks": benchmark_table(evidence.evaluation),
        "claims": ledger_table(evidence),
        "overlap": reference_table(runs, kinds, fraction),
        "cross": summarize_overlaps(cross_design_table(runs, kinds, fraction), related),
        "halves": summarize_overlaps(half_table(runs, kinds, fraction), ["score_kind", "objective"]),
        "cost": cost_table(runs),
        "effects": effect_table(*ablated),
        "total": total_ablation(*ablated),
        "moves": regression_to_chance(*ablated),
        "slopes": chance_slopes(*ablated),
        "per_neuron": per_neuron(*ablated),
        "differences": per_neuron_differences(*ablated),
    }


def export_results(runs: list[Run], folder: Path, about: str, kinds: list[str], fraction: float = 0.1) -> None:
    """Write every table as CSV and ``manifest.json`` to ``folder``, all at once.

    Args:
        runs: reward models whose five stages are complete.
        folder: replaced if it exists.
        about: base model and data in words, shown beside the numbers.
        kinds: score kinds of the overlap table.
        fraction: share of neurons in its sets.
    """
    tables = result_tables(runs, kinds, fraction)
    stages = {
        "/".join(map(str, run.label.values())): {
            stage: {key: section[key] for key in KEPT if key in section}
            for stage, section in read_manifest(run.folder).items()
        }
        for run in runs
    }
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        for name, table in tables.items():
            table.to_csv(temporary / f"{name}.csv", index=False, float_format="%.6g")
        text = json.dumps({"about": about, "runs": stages}, indent=1, sort_keys=True)
        (temporary / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_results(folder: Path) -> tuple[dict[str, pd.DataFrame], dict]:
    """Return the tables and the manifest that `export_results` wrote.

    Raises:
        FileNotFoundError: names the folder and the command that writes it.
    """
    if not (folder / "manifest.json").is_file():
        raise FileNotFoundError(f"no results in {folder}; write them with python -m tension_utils.results --help")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {name: pd.read_csv(folder / f"{name}.csv") for name in TABLES}, manifest


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description="Write the small tables of a finished run.")
    parser.add_argument("--parameters", type=json.loads, required=True, help="profile, base_models, objectives, seeds")
    parser.add_argument("--about", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--score-kinds", nargs="+", default=["signed_mean", "mean_abs", "rms_change"])
    options = parser.parse_args()
    try:
        export_results(named_runs(options.parameters), options.output, options.about, options.score_kinds)
    except (FileNotFoundError, ValueError, KeyError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
