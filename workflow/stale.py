"""Which finished stages no longer fit: what they read changed, or what they wrote did.

Snakemake compares times, parameters and the files of its rules. Models and data that lie elsewhere, a copy under an old
time stamp, a benchmark that can be reached by now, and a damaged file are seen here, by content.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

from tension_utils.artifacts import (
    MANIFEST,
    OWN_SCORES,
    changed_files,
    changed_sources,
    local_inputs,
    named_sources,
    read_manifest,
    resolve_source,
)
from tension_utils.config import (
    CURVE_ARMS,
    MASKED_ARMS,
    RATIO_ARMS,
    TOY,
    Run,
    SinglePair,
    on_fewer,
)
from tension_utils.toy.world import is_whole

# Section of a manifest -> the file by which Snakemake knows the job that wrote it.
OUTPUTS = {
    "train": "reward_model/model.safetensors",
    "evaluate": "evaluation.parquet",
    "identify": OWN_SCORES,
    "ablate": "ablation.parquet",
    "depth": "depth.parquet",
    "gradients": "depth.parquet",
}
LOOKED_INTO = ("identify", "ablate")  # of the objectives alone
PAIR_OUTPUTS = {"interpolate": "interpolation.parquet", "weight_changes": "weight_changes.parquet"}
MASKED_OUTPUTS = {stage: OUTPUTS[stage] for stage in ("train", "evaluate")}
CURVE_OUTPUTS = dict.fromkeys(("train", "evaluate"), "evaluation.parquet")


def stale_outputs(root: Path, values: Mapping) -> dict[Path, str]:
    """Return what has to be made anew, each with the reason.

    Args:
        root: folder of the profile's runs.
        values: the profile.

    Raises:
        ValueError: if a manifest, or a benchmark that was out of reach and is here now, cannot be read; names the file.
    """
    found = {}
    world = root / "toy-world"
    if TOY in (*values["base_models"], values["train"]["data_source"]) and world.exists() and not is_whole(world):
        found[world / "manifest.json"] = "its content is another"
    for run, outputs in _jobs(root, values):
        manifest = read_manifest(run.folder)
        for stage, output in outputs.items():
            if stage in manifest and (reasons := list(_reasons(run, stage, manifest))):
                found[run.folder / output] = "; ".join(reasons)
            elif stage not in manifest and stage != "gradients" and (run.folder / output).exists():
                found[run.folder / output] = f"{MANIFEST} has no section {stage!r} that says how it was made"
    return found


def _jobs(root: Path, values: Mapping) -> Iterator[tuple[Run | SinglePair, dict[str, str]]]:
    """Yield what the profile asks for, with its outputs: Snakemake has no rule for what an earlier profile left."""
    masked = {"objectives": MASKED_ARMS[:2], "seeds": values["seeds"]} | values.get("masked_training", {})
    curve = {"n_pairs": (), "mixture_pairs": 0, "seeds": ()} | values.get("curve", {})
    trained = dict.fromkeys(values["objectives"], OUTPUTS)
    trained |= {arm: {s: f for s, f in OUTPUTS.items() if s not in LOOKED_INTO} for arm in values.get("arms", ())}
    sized = [(arm, n) for n in curve["n_pairs"] for arm in CURVE_ARMS]
    sized += [(arm, curve["mixture_pairs"]) for arm in RATIO_ARMS if sized]
    for model in values["base_models"]:
        for seed in values["seeds"]:
            yield from ((Run(root, model, arm, seed), outputs) for arm, outputs in trained.items())
            yield SinglePair(root, model, seed), PAIR_OUTPUTS
        for arm, seed in product(masked["objectives"], masked["seeds"]):
            yield Run(root, model, arm, seed), MASKED_OUTPUTS
        for (arm, n), seed in product(sized, curve["seeds"]):
            yield on_fewer(Run(root, model, arm, seed), n), CURVE_OUTPUTS


def _reasons(run: Run | SinglePair, stage: str, manifest: Mapping[str, dict]) -> Iterator[str]:
    """Yield why one stage of a run, or of a pair of them, has to run again."""
    section = manifest[stage]
    if changed := changed_files(run.folder, section):
        yield f"{', '.join(changed)}: missing, or its content is another"
    configs = [section["config"].get(stage, {}), *section["config"].get("further", ())]
    named = {} if stage == "train" else named_sources(run.root, configs)
    if "train" in manifest:
        named["data_source"] = resolve_source(manifest["train"]["config"]["data"]["source"], run.root, "hh-rlhf")
    if stage in ("train", "identify", "weight_changes"):
        named["base_model"] = resolve_source(run.base_model, run.root, "base_model")
    if changed := changed_sources(section, local_inputs(**named)):
        yield f"what it reads changed: {', '.join(changed)}"
    for name in section.get("not_run", ()):
        if _is_reachable(name, named.get(f"benchmark_{name}")):
            yield f"{name} could not be reached, and now it can"


def _is_reachable(name: str, source: str | None) -> bool:
    from tension_utils.benchmarks.load import is_reachable  # takes seconds, which few runs need

    return is_reachable(name, source)
