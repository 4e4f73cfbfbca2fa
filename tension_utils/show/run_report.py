"""The page of run times: what each chapter took, on which device, from which commit, with which versions.

``python -m tension_utils.show.run_report --output book/generated/runs.md executed/*.ipynb`` writes it.
"""

import argparse
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from tension_utils.analysis.accuracy import markdown_table
from tension_utils.artifacts import atomic_path
from tension_utils.config import Run, named_runs

HEAD = """# How These Pages Were Made

*Run time, device, commit and versions of every chapter in this copy of the book, from what the runner recorded in the
executed notebooks. Before this page: the chapters themselves.*
"""

CHAPTERS = """## Chapters

A chapter finds what its workers computed, makes the tables and figures, and runs its checks. Times are those of the
whole notebook, kernel start included.
"""

STAGES = """## Stages

Before its chapter, a stage computes each reward model's share once, in a worker. Seconds are summed over the reward
models; several run at the same time where there are several cores.
"""

REAL_RUN = """## The real runs

What chapters [6](../../executed/06_real_run.ipynb) and [6b](../../executed/06b_real_neurons.ipynb) show was computed
once and committed as tables. This is what it cost, and how fast it went: the numbers to start from when you plan a run
of your own.
"""

NEXT = "Next: [the package, module by module](../api.md).\n"


def read_provenance(paths: list[Path]) -> dict[str, dict[str, Any]]:
    """Return what the runner recorded in executed notebooks, by the notebook's name, in the order given.

    Raises:
        ValueError: a notebook carries no record, so it was not made by the runner.
    """
    records = {}
    for path in paths:
        record = nbformat.read(path, as_version=4).metadata.get("provenance")
        if record is None:
            raise ValueError(f"{path} has no record of its run; make it with workflow/run_notebook.py")
        records[path.stem] = record
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


def code(value: object) -> str:
    """Return a value as inline code in one cell of a table, whatever it holds.

    >>> code("a`b|c")
    "`a'b/c`"
    """
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "/")
    return f"`{text}`" if text else ""


def chapter_section(records: dict[str, dict[str, Any]]) -> str:
    """Return times, devices and commits of the chapters, then their parameters, folded."""
    rows = [
        [
            f"[{name}](../../executed/{name}.ipynb)",
            duration(record["seconds"]),
            record["started"][:16].replace("T", " "),
        ]
        + [code(record["device"]), code(record["commit"])]
        for name, record in records.items()
    ]
    total = f"All {len(records)} together: {duration(sum(record['seconds'] for record in records.values()))}.\n"
    parts = [CHAPTERS, markdown_table(["chapter", "run time", "started (UTC)", "device", "commit"], rows), total]
    for name, record in records.items():
        values = [[code(key), code(json.dumps(value))] for key, value in record["parameters"].items()]
        digest = f"Source sha256 {code(record['notebook_sha256'])}.\n"
        folded = "\n".join([digest, markdown_table(["parameter", "value"], values)])
        parts.append(f":::{{dropdown}} Parameters of {name}\n{folded}:::\n")
    return "\n".join(parts)


def stage_section(runs: list[Run], root: Path = Path()) -> str:
    """Return what each stage took, summed over reward models, from their manifests.

    Args:
        runs: the profile's reward models.
        root: the project's folder.
    """
    stages: dict[str, list[dict]] = {}
    for run in runs:
        path = root / run.folder / "manifest.json"
        for stage, section in json.loads(path.read_text(encoding="utf-8")).items() if path.is_file() else ():
            stages.setdefault(stage, []).append(section)
    if not stages:
        return ""
    rows = [
        [stage, str(len(found)), duration(sum(s["seconds"] for s in found)), duration(max(s["seconds"] for s in found))]
        + [f"{sum(s['n_tokens'] for s in found):,}", ", ".join(code(d) for d in sorted({s["device"] for s in found}))]
        for stage, found in stages.items()
    ]
    columns = ["stage", "reward models", "all", "longest", "tokens", "device"]
    return "\n".join([STAGES, markdown_table(columns, rows)])


def speed_section(manifest: dict[str, Any]) -> str:
    """Return cost and speed of each stage of a committed run, and what they say about another size.

    Args:
        manifest: of `results.export_results`: ``about``, and ``runs`` with their stages.
    """
    stages: dict[str, list[dict]] = {}
    for found in manifest["runs"].values():
        for stage, section in found.items():
            stages.setdefault(stage, []).append(section)
    rows, speed, pair = [], {}, 0.0
    for stage, found in stages.items():
        seconds, tokens = (sum(section[key] for section in found) for key in ("seconds", "n_tokens"))
        speed[stage] = tokens / seconds
        devices = ", ".join(code(d) for d in sorted({section["device"] for section in found}))
        rows.append([stage, str(len(found)), duration(seconds), f"{tokens:,}", f"{speed[stage]:,.0f}", devices])
    if "train" in stages:
        pair = sum(s["n_tokens"] for s in stages["train"]) / sum(s["n_train"] for s in stages["train"])
    example = ""
    if pair:
        time = duration(10_000 * pair / speed["train"])
        example = (
            f"A training pair had {pair:,.0f} tokens here, both responses and all passes together. At this speed "
            f"10,000 such pairs would take {time} per reward model on the same device.\n"
        )
    columns = ["stage", "reward models", "time", "tokens", "tokens per second", "device"]
    return "\n".join([html.escape(manifest["about"]) + "\n", markdown_table(columns, rows), example])


def version_section(records: dict[str, dict[str, Any]]) -> str:
    """Return package versions; where chapters differ, each version names its chapters."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, record in records.items():
        for package, version in {"python": record["python"], **record["packages"]}.items():
            found.setdefault(package, {}).setdefault(version, []).append(name)
    rows = []
    for package, versions in found.items():
        few = len(versions) == 1
        rows.append([package, "; ".join(v if few else f"{v} ({', '.join(names)})" for v, names in versions.items())])
    platforms = ", ".join(sorted({record["platform"] for record in records.values()}))
    return "\n".join(["## Versions\n", f"Platform: {platforms}.\n", markdown_table(["package", "version"], rows)])


def run_page(records: dict[str, dict], runs: list[Run], manifests: Sequence[dict] = (), root: Path = Path()) -> str:
    """Return the whole page as Markdown.

    Args:
        records: of `read_provenance`.
        runs: reward models whose manifests are summed; none leaves the section out.
        manifests: of committed runs; none leaves their section out.
        root: the project's folder.
    """
    real = [REAL_RUN, *map(speed_section, manifests)] if manifests else []
    parts = [HEAD, chapter_section(records), stage_section(runs, root), *real, version_section(records), NEXT]
    return "\n".join(part for part in parts if part)


def main() -> None:
    """Write the page from the command line."""
    parser = argparse.ArgumentParser(description="Write the page of run times from executed notebooks.")
    parser.add_argument("notebooks", nargs="+", type=Path, help="executed notebooks, in the order of the book")
    parser.add_argument("--output", type=Path, required=True, help="the Markdown page")
    parser.add_argument(
        "--parameters", type=json.loads, help="profile, base_models, objectives, seeds: adds the stages"
    )
    parser.add_argument(
        "--results", type=Path, nargs="*", default=[], help="manifest.json of committed runs: adds cost and speed"
    )
    options = parser.parse_args()
    try:
        manifests = [json.loads(path.read_text(encoding="utf-8")) for path in options.results]
        runs = named_runs(options.parameters) if options.parameters is not None else []
        page = run_page(read_provenance(options.notebooks), runs, manifests)
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error))
    with atomic_path(options.output) as temporary:
        temporary.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
