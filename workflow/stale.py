"""Which finished stages no longer fit: what they read changed, or what they wrote did.

Snakemake compares times, parameters and the files of its rules. Models and data that lie elsewhere, a copy under an old
time stamp, a benchmark that can be reached by now, and a damaged file are seen here, by content.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tension_utils.artifacts import (
    OWN_SCORES,
    changed_files,
    changed_sources,
    find_runs,
    local_inputs,
    named_sources,
    read_manifest,
    resolve_source,
)
from tension_utils.config import TOY, Run, short_name
from tension_utils.toy.world import is_whole

# Stage -> the file by which Snakemake knows its job.
OUTPUTS = {
    "train": "reward_model/model.safetensors",
    "evaluate": "evaluation.parquet",
    "identify": OWN_SCORES,
    "ablate": "ablation.parquet",
}


def stale_outputs(root: Path, values: Mapping) -> dict[Path, str]:
    """Return what has to be made anew, each with the reason.

    Args:
        root: folder of the profile's runs.
        values: the profile.

    Raises:
        ValueError: if a manifest, or a benchmark that was out of reach and is here now, cannot be read; names the file.
    """
    found = {}
    bases = {short_name(model): model for model in values["base_models"]}
    world = root / "toy-world"
    if TOY in (*values["base_models"], values["train"]["data_source"]) and world.exists() and not is_whole(world):
        found[world / "manifest.json"] = "its content is another"
    for run in find_runs(root):
        if run.base_model not in bases:
            continue
        manifest = read_manifest(run.folder)
        for stage, output in OUTPUTS.items():
            if stage in manifest and (reasons := list(_reasons(run, stage, manifest, bases[run.base_model]))):
                found[run.folder / output] = "; ".join(reasons)
    return found


def _reasons(run: Run, stage: str, manifest: Mapping[str, dict], base_model: str) -> Iterator[str]:
    """Yield why one stage of a run has to run again."""
    section = manifest[stage]
    if changed := changed_files(run.folder, section):
        yield f"{', '.join(changed)}: missing, or its content is another"
    configs = [section["config"].get(stage, {}), *section["config"].get("further", ())]
    named = {} if stage == "train" else named_sources(run.root, configs)
    if "train" in manifest:
        named["data_source"] = resolve_source(manifest["train"]["config"]["data"]["source"], run.root, "hh-rlhf")
    if stage in ("train", "identify"):
        named["base_model"] = resolve_source(base_model, run.root, "base_model")
    if changed := changed_sources(section, local_inputs(**named)):
        yield f"what it reads changed: {', '.join(changed)}"
    for name in section.get("not_run", ()):
        if _is_reachable(name, named.get(f"benchmark_{name}")):
            yield f"{name} could not be reached, and now it can"


def _is_reachable(name: str, source: str | None) -> bool:
    from tension_utils.benchmarks.load import is_reachable  # takes seconds, which few runs need

    return is_reachable(name, source)
