"""What the pages and the runs behind them took: tables from the runner's records and the runs' manifests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from tension_utils.artifacts import read_manifest
from tension_utils.config import Run


def read_provenance(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return what the runner recorded in executed notebooks, by the notebook's name, in the order given.

    Raises:
        ValueError: a notebook carries no record, so it was not made by the runner.
    """
    records = {path.stem: nbformat.read(path, as_version=4).metadata.get("provenance") for path in paths}
    for name, record in records.items():
        if record is None:
            raise ValueError(f"{name}.ipynb has no record of its run; make it with workflow/run_notebook.py")
    return records


def duration(seconds: float) -> str:
    """Return a time in the unit that reads best.

    >>> duration(8.14), duration(95), duration(2 * 3600 + 180)
    ('8.1 s', '1 min 35 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def chapter_table(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return run time, start, device and commit of each chapter; the last row is the sum.

    Args:
        records: of `read_provenance`.
    """
    rows = [
        {"chapter": name, "run time": duration(record["seconds"]), "started (UTC)": record["started"][:16]}
        | {key: record[key] for key in ("device", "commit")}
        for name, record in records.items()
    ]
    total = sum(record["seconds"] for record in records.values())
    return pd.DataFrame([*rows, {"chapter": "all", "run time": duration(total)}])


def version_table(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return package versions; where chapters differ, each version names its chapters."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, record in records.items():
        for package, version in {"python": record["python"], **record["packages"]}.items():
            found.setdefault(package, {}).setdefault(version, []).append(name)
    rows = [
        (package, "; ".join(v if len(versions) == 1 else f"{v} ({', '.join(names)})" for v, names in versions.items()))
        for package, versions in found.items()
    ]
    return pd.DataFrame(rows, columns=["package", "version"])


def stage_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what each stage took, over the reward models that went through it.

    Returns:
        stage, n_models, seconds (all together), longest (seconds of one model), n_tokens, tokens_per_second, device;
        no rows where nothing was run.
    """
    stages: dict[str, list[dict]] = {}
    for run in runs:
        for stage, section in read_manifest(run.folder).items():
            if "seconds" in section:
                stages.setdefault(stage, []).append(section)
    rows = []
    for stage, found in stages.items():
        seconds, n_tokens = (sum(section[key] for section in found) for key in ("seconds", "n_tokens"))
        row = {"stage": stage, "n_models": len(found), "seconds": seconds}
        row |= {"longest": max(section["seconds"] for section in found), "n_tokens": n_tokens}
        row |= {"tokens_per_second": n_tokens / seconds if seconds else float("nan")}
        rows.append(row | {"device": ", ".join(sorted({section["device"] for section in found}))})
    columns = ["stage", "n_models", "seconds", "longest", "n_tokens", "tokens_per_second", "device"]
    return pd.DataFrame(rows, columns=columns)


def seconds_per_pair(runs: Sequence[Run]) -> float:
    """Return what a training pair cost, all passes together; NaN where nothing was trained."""
    sections = [manifest["train"] for run in runs if "train" in (manifest := read_manifest(run.folder))]
    n_pairs = sum(section["n_train"] for section in sections)
    return sum(section["seconds"] for section in sections) / n_pairs if n_pairs else float("nan")
