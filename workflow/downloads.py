"""Downloads of the book: each chapter with what it reads, to rerun it in an empty folder, and the whole project.

    python workflow/downloads.py --profile tiny --folder book/generated/downloads executed/*.ipynb --study study/*.ipynb

writes them. The chapters of the stored study read the same files, and come together.
"""

import argparse
import os
import subprocess
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import nbformat

from tension_utils.analysis.accuracy import markdown_table
from tension_utils.artifacts import atomic_path
from tension_utils.config import OBJECTIVES

PACKAGE = (
    *("LICENSE", "pyproject.toml", "requirements.txt", "_toc.yml", "tension_utils/**/*"),
    *(f"workflow/{name}.py" for name in ("run_notebook", "schema", "accelerators", "environment")),
)
# What a chapter reads below runs/<profile>. Weights stay out unless it loads them: they are made, and large.
MODEL_FACTS = (
    "toy-world/manifest.json",
    "toy-world/hh-rlhf/*/*",
    "toy-world/benchmark/*",
    "toy-world/base_model/*",
    "*/*/*/manifest.json",
    "*/*/*/reward_model/*",
)
ROWS = ("*/*/*/evaluation.parquet", "*/*/*/template_check.parquet")
JUDGED = ("*/*/*/evaluation.parquet", "*/*/*/ablation.parquet", "*/*/*/neuron_scores.safetensors")
SCORES = ("*/*/*/neuron_scores.safetensors", "*/*/*/score_views/*")
INPUTS = {
    "01_train": ("toy-world/**/*",),
    "02_evaluate": ROWS,
    "02b_tension": (*ROWS, "*/*/*/train_log.parquet", *JUDGED),
    "03_identify": SCORES,
    "04_ablate": (*ROWS, "*/*/*/ablation.parquet", "*/*/*/neuron_scores.safetensors"),
    "04b_masked_training": (*ROWS, "*/*/*/train_log.parquet", "*/*/*/neuron_scores.safetensors"),
    "05_overlap": (*SCORES, *JUDGED),
    "05b_part": (
        *("*/*/*/evaluation.parquet", "*/*/*/depth.parquet", "*/*/*/gradients.parquet", "*/*/*/weight_changes.parquet"),
        *("*/*/*/neuron_scores.safetensors", "*/*/*/score_views/text-*.safetensors"),
    ),
    "05c_dial": ("*/*/*/evaluation.parquet", "*/*/*/interpolation.parquet", "*/*/*/ablation.parquet"),
    "08_explorer": ("*/*/*/evaluation.parquet", "*/*/*/ablation.parquet"),
    "09_ledger": JUDGED,
    "10_runs": (),
    "a1_heads": ("*/*/*/manifest.json", "*/*/*/score_views/*"),
    "a2_removal_details": ("*/*/*/evaluation.parquet", "*/*/*/ablation.parquet"),
    "b1_calibration": ROWS,
    "b2_length_style_template": ROWS,
    "b3_transferability": ROWS,
    "c1_own_pair": (),
    "d1_more_pairs": (*ROWS, "curve/*/*/*/*/manifest.json", "curve/*/*/*/*/evaluation.parquet"),
}
# What these read besides, below the project's folder.
FURTHER = {
    "02b_tension": ("results/planted/*",),
    "04_ablate": ("results/planted/*",),
    "05_overlap": ("results/planted/*",),
    "08_explorer": ("results/planted/*",),
    "09_ledger": ("results/**/*",),
    "10_runs": ("results/**/manifest.json", "executed/*.ipynb"),
}
WEIGHTS = {
    "04b_masked_training": ("toy-world/base_model/*.safetensors", "*/matched-without-*/*/reward_model/*.safetensors"),
    "c1_own_pair": tuple(f"*/{name}/seed0/reward_model/*.safetensors" for name in OBJECTIVES),
}
RESULTS = ("results/*/*",)
STORED = "results/**/*"
LIMIT = 40_000_000  # bytes of inputs; above it a chapter comes without them
SOURCE_LIMIT = 2_000_000  # bytes; no source file is larger
STAMP = (2026, 1, 1, 0, 0, 0)  # one date in every archive, so that equal content gives equal bytes

README = """# {chapter}

One chapter of *Helpful, Harmless, or Both?* with the package and what the chapter reads. Python 3.11 or newer.

    python -m venv .venv
    .venv/bin/pip install -r requirements.txt .
    .venv/bin/jupyter lab notebooks/{chapter}.ipynb

Or without a browser:

    .venv/bin/python workflow/run_notebook.py notebooks/{chapter}.ipynb \\
        --output executed/{chapter}.ipynb --work work/{chapter}.ipynb

{inputs}
"""
WITH_INPUTS = """The cell tagged `injected-parameters` holds the values that this chapter was run with (profile
{profile}). Change the analysis as you like. What other values would have to compute anew needs the trained models, and
those are not in here: download the project instead and run `make book`."""
STUDY = """# The study's chapters

The chapters of *Helpful, Harmless, or Both?* that show the stored study, with the package and every stored result: one
row per test item and reward model, scores of neurons, and manifests. Python 3.11 or newer.

    python -m venv .venv
    .venv/bin/pip install -r requirements.txt .
    .venv/bin/jupyter lab notebooks/{first}.ipynb

The cell tagged `injected-parameters` names what is shown. The weights of the models are not in here, so the cells that
run one say so.
"""
WITHOUT_INPUTS = """The tables of profile {profile} are too large to come along. Put the project's `runs/` folder beside
`notebooks/`, or download the project and run `make book PROFILE={profile}`."""


def matching(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Return the files below ``root`` that match any pattern, sorted, without caches and locks."""
    found = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    return sorted(p for p in found if "__pycache__" not in p.parts and ".lock" not in p.name)


def project_files(root: Path) -> list[Path]:
    """Return the project's own files: those that git tracks, as they are now.

    Not `git archive`: the book is made from the files as they are, not as they were committed. Where the project is no
    git checkout of its own, they are its `source_files` without large ones.
    """
    command = ["git", "-C", str(root), "ls-files", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        listed = ""
    tracked = [root / name for name in listed.split("\0") if name]
    files = tracked or [path for path in source_files(root) if path.stat().st_size < SOURCE_LIMIT]
    return sorted(path for path in files if path.is_file())


def source_files(root: Path) -> list[Path]:
    """Return every file below ``root`` that ``.gitignore`` does not name, without asking git."""
    lines = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    patterns = [".git", *(line.rstrip("/") for line in lines if line and not line.startswith("#"))]

    def is_source(path: Path) -> bool:
        whole = path.relative_to(root).as_posix()
        return not any(fnmatch(whole if "/" in p else path.name, p.lstrip("/")) for p in patterns)

    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if is_source(Path(folder, name))]
        found += [path for name in names if is_source(path := Path(folder, name))]
    return sorted(found)


def input_files(root: Path, chapter: str, profile: str) -> list[Path]:
    """Return what a chapter reads, without the weights of models that it does not load.

    Args:
        root: the project's folder.
        chapter: stem of the notebook's name.
        profile: folder below ``runs``.
    """
    if chapter not in INPUTS:
        return matching(root, RESULTS)
    runs = root / "runs" / profile
    is_trained_here = chapter == "01_train"
    facts = matching(runs, () if is_trained_here else MODEL_FACTS)
    light = [path for path in facts if path.suffix != ".safetensors" or path.name == "neuron_mask.safetensors"]
    loaded = matching(runs, WEIGHTS.get(chapter, ()))
    return sorted({*light, *loaded, *matching(runs, INPUTS[chapter]), *matching(root, FURTHER.get(chapter, ()))})


def clean_notebook(path: Path) -> str:
    """Return an executed notebook's text without outputs: the source, and the cell of parameters it was run with."""
    notebook = nbformat.read(path, as_version=4)
    kept = {name: notebook.metadata[name] for name in ("kernelspec", "language_info") if name in notebook.metadata}
    notebook.metadata = nbformat.from_dict(kept)
    for cell in notebook.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nbformat.writes(notebook) + "\n"


def write_archive(path: Path, top: str, files: dict[str, Path | str]) -> None:
    """Write a zip archive; equal content gives equal bytes.

    Args:
        path: where it appears, whole or not at all.
        top: folder that everything is unpacked into.
        files: name below ``top`` -> file, or its text.
    """
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for name in sorted(files):
            source = files[name]
            entry = zipfile.ZipInfo(f"{top}/{name}", STAMP)
            is_program = isinstance(source, Path) and source.stat().st_mode & 0o100
            entry.external_attr = (0o755 if is_program else 0o644) << 16
            content = source.read_bytes() if isinstance(source, Path) else source.encode()
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)


def chapter_archive(root: Path, executed: Path, profile: str, folder: Path) -> Path:
    """Write one chapter with the package and its inputs, and return the archive.

    Args:
        root: the project's folder.
        executed: the executed notebook.
        profile: folder below ``runs``.
        folder: where archives go.
    """
    chapter = executed.stem
    inputs = input_files(root, chapter, profile)
    is_small = sum(path.stat().st_size for path in inputs) <= LIMIT
    about = (WITH_INPUTS if is_small else WITHOUT_INPUTS).format(profile=profile)
    files: dict[str, Path | str] = {p.relative_to(root).as_posix(): p for p in matching(root, PACKAGE)}
    files |= {p.relative_to(root).as_posix(): p for p in inputs if is_small}
    files["README.md"] = README.format(chapter=chapter, inputs=about)
    files[f"notebooks/{chapter}.ipynb"] = clean_notebook(executed)
    archive = folder / f"{chapter}.zip"
    write_archive(archive, chapter, files)
    return archive


def study_archive(root: Path, executed: list[Path], folder: Path) -> Path:
    """Write the chapters of the stored study with the package and every stored result, and return the archive.

    Args:
        root: the project's folder.
        executed: the executed notebooks.
        folder: where archives go.
    """
    files: dict[str, Path | str] = {p.relative_to(root).as_posix(): p for p in matching(root, (*PACKAGE, STORED))}
    files |= {f"notebooks/{path.name}": clean_notebook(path) for path in executed}
    files["README.md"] = STUDY.format(first=executed[0].stem)
    write_archive(folder / "study.zip", "study", files)
    return folder / "study.zip"


def project_archive(root: Path, folder: Path) -> Path:
    """Write the project's own files, from which ``make book`` makes everything, and return the archive."""
    files = {p.relative_to(root).as_posix(): p for p in project_files(root)}
    archive = folder / "project.zip"
    write_archive(archive, "helpful-harmless", files)
    return archive


def download_table(archives: list[Path]) -> str:
    """Return a Markdown table of chapters: the notebook alone, and with its inputs."""
    rows = []
    for path in archives:
        name, size = path.stem, path.stat().st_size / 1e6
        source = f"{{download}}`notebook <../notebooks/{name}.ipynb>`"
        link = f"[{name}.zip, {size:.1f} MB](generated/downloads/{path.name})"
        rows.append([f"[{name}](../executed/{name}.ipynb)", source, link])
    return markdown_table(["chapter", "its source", "with what it reads"], rows)


def main() -> None:
    """Write all archives and the table of them from the command line."""
    parser = argparse.ArgumentParser(description="Write the book's downloads.")
    parser.add_argument("notebooks", nargs="+", type=Path, help="executed notebooks, in the order of the book")
    parser.add_argument("--study", nargs="*", type=Path, default=[], help="executed notebooks of the stored study")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    archives = [chapter_archive(Path(), path, options.profile, options.folder) for path in options.notebooks]
    project_archive(Path(), options.folder)
    if options.study:
        study_archive(Path(), options.study, options.folder)
    with atomic_path(options.folder / "table.md") as temporary:
        temporary.write_text(download_table(archives), encoding="utf-8")


if __name__ == "__main__":
    main()
