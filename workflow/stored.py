"""Which chapters the committed study fills, and with which parameters: the stage notebooks once more, on `results/`."""

from pathlib import Path

import pandas as pd

from schema import read_profile
from tension_utils.artifacts import DETAIL_KINDS, OWN_SCORES, VIEWS, find_runs
from tension_utils.config import (
    CURVE,
    CURVE_ARMS,
    MATCHED_ARM,
    MIXED_ARMS,
    OBJECTIVES,
    SINGLE_OBJECTIVES,
    Run,
    list_pairs,
    short_name,
)

TEXTS = tuple(f"{VIEWS}/text-{objective}.safetensors" for objective in SINGLE_OBJECTIVES)
# Chapter -> section of the profile with its parameters, files it reads of every run, whether it needs the mixed model.
CHAPTERS = {
    "01_train": ("train", ("train_log.parquet",), False),
    "02_evaluate": ("evaluate", ("evaluation.parquet",), False),
    "02b_tension": ("tension", ("evaluation.parquet",), True),
    "03_identify": ("identify", (OWN_SCORES, *TEXTS), True),
    "04_ablate": ("ablate", ("evaluation.parquet", OWN_SCORES, "ablation.parquet"), False),
    "a1_heads": ("identify", (OWN_SCORES, f"{VIEWS}/heads.safetensors"), False),
    "a2_removal_details": ("ablate", ("evaluation.parquet", "ablation.parquet"), False),
    "05_overlap": ("overlap", (OWN_SCORES, *TEXTS), True),
    "05b_part": ("part", ("evaluation.parquet", OWN_SCORES, *TEXTS, "depth.parquet"), True),
    "05c_dial": ("dial", ("evaluation.parquet",), True),
    "08_explorer": ("explorer", ("evaluation.parquet", "ablation.parquet"), False),
    "b1_calibration": ("calibration", ("evaluation.parquet",), True),
    "b2_length_style_template": ("length_style_template", ("evaluation.parquet",), True),
    "b3_transferability": ("transferability", ("evaluation.parquet",), True),
    "d1_more_pairs": ("curve", ("evaluation.parquet",), True),
}
# Appendices take part of a section: those of its parameters that their notebooks have.
APPENDICES = {
    "a1_heads": ("score_kinds", "fraction"),
    "a2_removal_details": ("score_kinds", "fraction", "ablation_kinds"),
}
# Chapters on how removals differ: of these columns, one has several values in some run.
VARIED = {"a2_removal_details": ("ablation.parquet", ("fraction", "ablation_kind"))}
# Chapters on which neurons are found show one base model: layers and sets of another architecture are not averaged in.
ONE_ARCHITECTURE = ("03_identify", "a1_heads", "05_overlap")
ON_FEWER = "d1_more_pairs"  # the chapter on fewer pairs: some mixed model was trained on fewer
# Arms that a chapter shows besides `OBJECTIVES`.
FURTHER_ARMS = dict.fromkeys(
    ("01_train", "02_evaluate", "02b_tension", "05b_part", "05c_dial", "08_explorer"), (MATCHED_ARM,)
)
# Files that a chapter reads besides: of a mixed model, and of the folder of both single-objective ones.
MIXED_FILES = {"05b_part": ("gradients.parquet",)}
PAIR_FILES = {"05b_part": ("weight_changes.parquet",), "05c_dial": ("interpolation.parquet",)}


def own_parameters(chapter: str, values: dict) -> dict:
    """Return the parameters of a profile's section that a chapter's notebook has: all, but for an appendix."""
    return {name: value for name, value in values.items() if name in APPENDICES.get(chapter, values)}


def stored_chapters(project: Path, folder: str = "results") -> dict[str, tuple[dict, list[str]]]:
    """Return the chapters that stored runs fill, each with its notebook's parameters and the files it reads.

    A chapter shows the training runs whose helpful and harmless models have its files, of every base model, and of the
    other arms of the study those that have them beside some of these. The base model with the most seeds, then with
    the most models, comes first and gives the parameters; chapters of `ONE_ARCHITECTURE` show no other. Runs of a base
    model that no profile with a section "study" names are left out.

    Args:
        project: the project's folder.
        folder: of the stored runs, seen from there.
    """
    profiles = {path.stem: _study(project, path.stem) for path in sorted((project / "config").glob("*.yaml"))}
    names = {name: {name, *map(short_name, values["base_models"])} for name, values in profiles.items() if values}
    runs = find_runs(project / folder)
    by_base = {name: [run for run in runs if run.base_model in bases] for name, bases in names.items()}
    found = {}
    for chapter, (section, files, is_mixed_needed) in CHAPTERS.items():
        shown = {name: _shown(chapter, own) for name, own in by_base.items()}
        most = sorted(shown, key=lambda name: (-len({run.seed for run in shown[name]}), -len(shown[name])))
        every = [run for name in most[: 1 if chapter in ONE_ARCHITECTURE else None] for run in shown[name]]
        if not every or (is_mixed_needed and not any(run.objective in MIXED_ARMS for run in every)):
            continue
        inputs = {path for run in every for path in _read(chapter, run, files)}
        if OWN_SCORES in files:
            inputs |= {path for run in every for path in (run.folder / VIEWS).glob("*.safetensors")}
        parameters = own_parameters(chapter, profiles[most[0]].get(section, {})) | {
            "root": folder,
            "base_models": list(dict.fromkeys(run.base_model for run in every)),
            "objectives": [arm for arm in _arms(chapter) if arm in {run.objective for run in every}],
            "seeds": sorted({run.seed for run in every}),
        }
        kinds = {"score_kinds": list(DETAIL_KINDS)} if section in ("identify", "overlap") else {}
        found[chapter] = (parameters | kinds, sorted(path.relative_to(project).as_posix() for path in inputs))
    return found


def _arms(chapter: str) -> tuple[str, ...]:
    """Return the arms that a chapter shows where they are."""
    return CURVE_ARMS if chapter == ON_FEWER else (*OBJECTIVES, *FURTHER_ARMS.get(chapter, ()))


def _study(project: Path, name: str) -> dict:
    """Return a profile with a section "study"; nothing for another, and for one with faults, which is not run here."""
    try:
        values = read_profile(project, name)
    except ValueError:
        return {}
    return values if "study" in values else {}


def _read(chapter: str, run: Run, files: tuple[str, ...]) -> list[Path]:
    """Return what a chapter reads of a run, and of the pair that it belongs to."""
    own = files + MIXED_FILES.get(chapter, ()) * (run.objective in MIXED_ARMS)
    (pair,) = list_pairs([run])
    read = [*(run.folder / name for name in own), *(pair.folder / name for name in PAIR_FILES.get(chapter, ()))]
    return read + _on_fewer(run, files) * (chapter == ON_FEWER)


def _on_fewer(run: Run, files: tuple[str, ...]) -> list[Path]:
    """Return the files of a run's siblings on fewer pairs, which one seed may have and another not."""
    place = run.folder.relative_to(run.root)
    return sorted(path for file in files for path in run.root.glob(f"{CURVE}/*-pairs/{place}/{file}"))


def _has_its_subject(chapter: str, complete: list[Run], files: tuple[str, ...]) -> bool:
    """Say whether some run has what a chapter is about, besides the files that every run has."""
    if chapter in VARIED:
        return any(_is_varied(run, *VARIED[chapter]) for run in complete)
    if chapter == ON_FEWER:
        return any(_on_fewer(run, files) for run in complete if run.objective == MATCHED_ARM)
    return True


def _is_varied(run: Run, file: str, columns: tuple[str, ...]) -> bool:
    """Say whether one of the columns of a run's table has several values."""
    return bool((pd.read_parquet(run.folder / file, columns=list(columns)).nunique() > 1).any())


def _shown(chapter: str, runs: list[Run]) -> list[Run]:
    """Return those runs of a base model that a chapter shows: of seeds with both single models complete."""
    _, files, _ = CHAPTERS[chapter]
    own = [run for run in runs if all(path.is_file() for path in _read(chapter, run, files))]
    has = {(run.objective, run.seed) for run in own}
    seeds = {run.seed for run in own if all((single, run.seed) in has for single in SINGLE_OBJECTIVES)}
    own = [run for run in own if run.objective in _arms(chapter) and run.seed in seeds]
    return own if _has_its_subject(chapter, own, files) else []
