"""Export what finished runs found, item by item and without weights: small enough to commit, and run folders still."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tension_utils.artifacts import (
    DETAIL_KINDS,
    DETAIL_VIEWS,
    MANIFEST,
    OWN_SCORES,
    TABLES,
    VIEWS,
    add_sections,
    atomic_path,
    file_hash,
    is_archived,
    read_manifest,
    require_own,
)
from tension_utils.config import SCOPES, SCORE_KINDS, SHAM_ARMS, SINGLE_OBJECTIVES, Run, SinglePair
from tension_utils.neurons import jaccard, top_neurons
from tension_utils.scores import SIDES, NeuronScores

SCHEMA_VERSION = 1

TOP = 0.1  # share of neurons in the sets that float16 must still tell
TOLD_APART = "top_tenth_jaccard_of_float16"  # name in the manifest of how well it does

# Kinds of scores that are kept of a run's own text, and of its views: one side and one scope of each.
OWN_KINDS = ("signed_mean", "mean_abs", "rms_change", "relative_change", "absolute_contrast", "attribution")
VIEW_KINDS = {
    **{f"text-{objective}": ("rms_change", "attribution") for objective in SINGLE_OBJECTIVES},
    **{f"base-text-{objective}": ("mean_abs",) for objective in SINGLE_OBJECTIVES},
    "base-generic": ("mean_abs",),
}

STAGE_OF = {
    "train": "train_log.parquet",
    "evaluate": "evaluation.parquet",
    "identify": OWN_SCORES,
    "ablate": "ablation.parquet",
    "depth": "depth.parquet",
    "gradients": "gradients.parquet",
    "interpolate": "interpolation.parquet",
    "weight_changes": "weight_changes.parquet",
}


def export_run(run: Run | SinglePair, target: Path, *, is_detailed: bool = True) -> list[str]:
    """Write the artifacts of a run's finished stages to its folder below ``target``; replace what is there.

    What came from an export, without weights, is copied whole. Else tables are copied as they are; of the neuron
    scores those of `OWN_KINDS` and `VIEW_KINDS` are kept, in detail also other sides, token scopes, sites and halves of
    the text, as float16. The manifest is the run's own, with the hash of every exported file and the schema's version.

    Args:
        run: a reward model, or a pair of single-objective ones.
        target: root of the exported runs, such as ``results``.
        is_detailed: see above; what chapters 3 and 5 read.

    Returns:
        The stages that were exported; none if no stage is finished, and nothing is written then.

    Raises:
        FileExistsError: if something else is in that folder.
        ValueError: if an artifact is not what its stage wrote; names the file and how to make it again.
    """
    manifest = read_manifest(run.folder)
    stages = [stage for stage in STAGE_OF if stage in manifest and (run.folder / STAGE_OF[stage]).exists()]
    if not stages:
        return []
    for stage in stages:
        _require_whole(run.folder, stage, manifest[stage])
    folder = _place(run, target)
    require_own(folder, MANIFEST)
    if is_archived(run.folder, MANIFEST) and {STAGE_OF[stage] for stage in stages} <= set(manifest["export"]["files"]):
        with atomic_path(folder) as temporary:
            _copy(run.folder, temporary)
        return stages
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        for name in TABLES:
            if (run.folder / f"{name}.parquet").exists():
                shutil.copyfile(run.folder / f"{name}.parquet", temporary / f"{name}.parquet")
        told_apart = _export_scores(run.folder, temporary, is_detailed) if "identify" in stages else {}
        if told_apart:  # float16 has another hash
            manifest["identify"] |= {"artifact_hash": file_hash(temporary / OWN_SCORES)}
        exported = {
            p.relative_to(temporary).as_posix(): file_hash(p) for p in sorted(temporary.rglob("*")) if p.is_file()
        }
        told_apart |= manifest.get("identify", {}).pop(TOLD_APART, {})  # of scores that came in float16
        about = {"schema_version": SCHEMA_VERSION, "files": exported, TOLD_APART: told_apart}
        told = _of_no_machine({stage: manifest[stage] for stage in stages})
        text = json.dumps(told | {"export": about}, indent=1, sort_keys=True)
        (temporary / "manifest.json").write_text(text + "\n", encoding="utf-8")
    return stages


def export_runs(
    runs: Iterable[tuple[Run | SinglePair, Sequence[str]]], root: Path, target: Path, detailed_seed: int
) -> tuple[int, list[str]]:
    """Export runs and say what is missing.

    Args:
        runs: each with the stages that are expected of it.
        root: of the study; a run whose own root lies below it keeps that place below ``target``.
        target: root of the exported runs.
        detailed_seed: whose runs are exported in detail, except sham models, of which only claims read.

    Returns:
        How many runs were exported, and a line for every run that lacks a stage.
    """
    n_exported, missing = 0, []
    for run, expected in runs:
        is_sham = isinstance(run, Run) and run.objective in SHAM_ARMS
        is_detailed = run.seed == detailed_seed and not is_sham
        stages = export_run(run, target / run.root.relative_to(root), is_detailed=is_detailed)
        n_exported += bool(stages)
        if lacking := [stage for stage in expected if stage not in stages]:
            missing.append(f"{run.folder}: {', '.join(lacking)} not finished")
    return n_exported, missing


def restore_run(run: Run | SinglePair, source: Path) -> bool:
    """Copy the export of a run to its folder, unless the run has one: the stages that were exported count as done.

    Without the weights nothing else can be computed of it; for that, train it anew.

    Args:
        run: a reward model, or a pair of single-objective ones.
        source: root of the exported runs.

    Returns:
        True if it was copied; False if there is no such export, or the run is here.

    Raises:
        FileExistsError: if something else is in the run's folder.
        ValueError: if a file of the export is missing, or not the one that its manifest names.
    """
    exported = _place(run, source)
    if read_manifest(run.folder) or not is_archived(exported, MANIFEST):
        return False
    require_own(run.folder, MANIFEST)
    with atomic_path(run.folder) as temporary:
        _copy(exported, temporary)
    return True


def exported_weights(run: Run, source: Path) -> str | None:
    """Return the hash of the reward model that was exported of a run, without it; None if there is no such export."""
    exported = _place(run, source)
    return read_manifest(exported)["train"]["artifact_hash"] if is_archived(exported, "train_log.parquet") else None


def restore_measured(run: Run, source: Path) -> list[str]:
    """Take over what an export holds of a run that was trained again and ended with the same bits.

    Training does so on the same kind of processor, with the same versions and number of threads; then all that was
    measured on the lost weights holds for the new ones. Stages that the run has already are left alone.

    Args:
        run: its reward model is the one that was exported, see `exported_weights`.
        source: root of the exported runs.

    Returns:
        The stages that were taken over.
    """
    exported = _place(run, source)
    here, there = read_manifest(run.folder), read_manifest(exported)
    about, sections = there["export"], {}
    for stage in (stage for stage in STAGE_OF if stage in there and stage not in here):
        names = [name for name in (there[stage]["artifact"], *there[stage]["beside"]) if name in about["files"]]
        for name in names:
            with atomic_path(run.folder / name) as temporary:
                shutil.copyfile(exported / name, temporary)
        sections[stage] = there[stage] | {"beside": {name: about["files"][name] for name in names[1:]}}
        if stage == "identify":
            sections[stage][TOLD_APART] = about[TOLD_APART]
    if sections:
        add_sections(run.folder, sections)
    return list(sections)


def _place(run: Run | SinglePair, root: Path) -> Path:
    """Return the folder of a run below another root."""
    return root / run.folder.relative_to(run.root)


def _copy(folder: Path, target: Path) -> None:
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(".*"))


def _of_no_machine(value: Any) -> Any:
    """Return a manifest whose absolute paths are the names at their ends: where things lay says nothing elsewhere."""
    if isinstance(value, dict):
        return {_of_no_machine(key): _of_no_machine(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_of_no_machine(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _require_whole(folder: Path, stage: str, section: dict) -> None:
    """Check a stage's artifact against its manifest; weights are too large to be hashed again, and are not exported."""
    if section["artifact"] == STAGE_OF[stage] and file_hash(folder / STAGE_OF[stage]) != section["artifact_hash"]:
        raise ValueError(
            f"{folder / STAGE_OF[stage]}: expected the file that the {stage} stage wrote; its content is another; "
            "remove it and run the stage again"
        )


def _export_scores(source: Path, target: Path, is_detailed: bool) -> dict[str, float]:
    """Write the kept scores as float16; return how well they tell the top neurons: Jaccard with those of float32."""
    told_apart = {}
    views = VIEW_KINDS | (DETAIL_VIEWS if is_detailed else {})
    wanted = {f"{VIEWS}/{view}.safetensors": kinds for view, kinds in views.items()}
    wanted[OWN_SCORES] = SCORE_KINDS if is_detailed else OWN_KINDS
    for name, kinds in wanted.items():
        if not (source / name).exists():
            continue
        whole = NeuronScores.load(source / name)
        kept = whole.only(kinds, ("both",), ("all",))
        if is_detailed and name == OWN_SCORES:
            for sides, scopes in ((("both",), SCOPES), ((*SIDES, "both"), ("all",))):
                kept.tensors.update(whole.only(DETAIL_KINDS, sides, scopes).tensors)
        (target / name).parent.mkdir(exist_ok=True)
        kept.save(target / name, is_half=True)
        halves = NeuronScores.load(target / name)
        for key, values in kept.tensors.items():
            sets = (top_neurons(each, TOP) for each in (values, halves.tensors[key]))
            told_apart[f"{name}/{'/'.join(key)}"] = round(jaccard(*sets), 5)
    return told_apart
