"""Small tables of a real run, with their manifest, for committing: what chapters 6 and 6b show.

``python -m tension_utils.analysis.export --parameters '{...}' --about 'base model and data' --output results/NAME``
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from tension_utils.analysis.accuracy import benchmark_table, tension_table
from tension_utils.analysis.overlap import (
    base_model_table,
    cross_design_table,
    half_table,
    overlap_table,
    reference_table,
    seed_table,
    summarize_overlaps,
)
from tension_utils.analysis.removal import (
    chance_slopes,
    cost_table,
    effect_table,
    effects_by_seed,
    per_neuron,
    per_neuron_differences,
    regression_to_chance,
    total_ablation,
)
from tension_utils.artifacts import MANIFEST, atomic_path, read_manifest, read_table, require_own, write_csv
from tension_utils.conditions import EQUAL_SIZE, FAMILY_WORDS, MIXED_SETS, NATURAL
from tension_utils.config import SINGLE_OBJECTIVES, Run, named_runs
from tension_utils.statistics import accuracy_table

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
    evaluation, ablation = (
        read_table(runs, *made) for made in (("evaluation", "02_evaluate"), ("ablation", "04_ablate"))
    )
    ablated = (ablation, evaluation)
    related = ["score_kind", "relation"]
    return {
        "training": training_table(runs),
        "tension": tension_table(evaluation),
        "benchmarks": benchmark_table(evaluation),
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


def replication_tables(runs: list[Run], kinds: list[str], fraction: float) -> dict[str, pd.DataFrame]:
    """Return what further seeds of the single-objective models tell: is it the same again? See `result_tables`."""
    runs = [run for run in runs if run.objective in SINGLE_OBJECTIVES]
    evaluation, ablation = (
        read_table(runs, *made) for made in (("evaluation", "02_evaluate"), ("ablation", "04_ablate"))
    )
    keys = ["base_model", "seed", "score_kind"]
    bases = base_model_table(runs, kinds, fraction).set_index(keys).jaccard.rename("jaccard_base_model")
    return {
        "training": training_table(runs),
        "accuracy": accuracy_table(evaluation, ["objective", "seed", "benchmark", "subset"]),
        "by_seed": effects_by_seed(ablation, evaluation),
        "overlap": reference_table(runs, kinds, fraction),
        "overlap_by_seed": overlap_table(runs, kinds, fraction).join(bases, on=keys),
        "other_seed": summarize_overlaps(seed_table(runs, kinds, fraction), ["score_kind", "objective"]),
        "cost": cost_table(runs),
    }


TABLES = {"all": result_tables, "replication": replication_tables}  # what may be exported


def export_results(
    runs: list[Run], folder: Path, about: str, kinds: list[str], fraction: float = 0.1, tables: str = "all"
) -> None:
    """Write every table as CSV and ``manifest.json`` to ``folder``, all at once.

    Args:
        runs: reward models whose five stages are complete.
        folder: replaced if it exists.
        about: base model and data in words, shown beside the numbers.
        kinds: score kinds of the overlap table.
        fraction: share of neurons in its sets.
        tables: key of `TABLES`.
    """
    found = TABLES[tables](runs, kinds, fraction)
    stages = {
        "/".join(map(str, run.label.values())): {
            stage: {key: section[key] for key in KEPT if key in section}
            for stage, section in read_manifest(run.folder).items()
        }
        for run in runs
    }
    require_own(folder, MANIFEST)
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        for name, table in found.items():
            write_csv(temporary / f"{name}.csv", table)
        text = json.dumps({"about": about, "runs": stages}, indent=1, sort_keys=True)
        (temporary / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_results(folder: Path) -> tuple[dict[str, pd.DataFrame], dict]:
    """Return the tables and the manifest that `export_results` wrote.

    Raises:
        FileNotFoundError: names the folder and the command that writes it.
    """
    if not (folder / "manifest.json").is_file():
        raise FileNotFoundError(
            f"no results in {folder}; write them with python -m tension_utils.analysis.export --help"
        )
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {path.stem: _with_family(pd.read_csv(path)) for path in sorted(folder.glob("*.csv"))}, manifest


def _with_family(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a family per set, also one that was written when names of sets or a size told it."""
    if "family" in table:
        return table.fillna({"family": ""})  # a CSV file has no empty text
    if "size" in table:
        names = {"natural": NATURAL, "equal": EQUAL_SIZE}
        return table.assign(size=table["size"].map(names)).rename(columns={"size": "family"})
    if "set" not in table or "fraction" not in table:
        return table
    ending, matched = FAMILY_WORDS[EQUAL_SIZE], table.get("matched_to", table["set"])
    family = matched.map(lambda name: EQUAL_SIZE if name.endswith(ending) else NATURAL * (name in MIXED_SETS))
    bare = {name: table[name].str.removesuffix(ending) for name in ("set", "matched_to") if name in table}
    return table.assign(**bare, family=family)


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description="Write the small tables of a finished run.")
    parser.add_argument("--parameters", type=json.loads, required=True, help="profile, base_models, objectives, seeds")
    parser.add_argument("--about", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--score-kinds", nargs="+", default=["signed_mean", "mean_abs", "rms_change"])
    parser.add_argument("--tables", choices=TABLES, default="all", help="replication: of single objectives alone")
    options = parser.parse_args()
    try:
        runs = named_runs(options.parameters)
        export_results(runs, options.output, options.about, options.score_kinds, tables=options.tables)
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
