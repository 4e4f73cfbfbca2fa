"""Run folders: files that appear whole or not at all, typed tables, manifests, JSON lines."""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import psutil
from safetensors import SafetensorError

from tension_utils.config import ARMS, SINGLE_OBJECTIVES, Run, SinglePair

OWN_SCORES = "neuron_scores.safetensors"  # on the run's own training pairs, at the neuron

VIEWS = "score_views"  # folder of the same statistics taken elsewhere: other site, half of the pairs, other text

# What an export in detail keeps of a run's scores, besides what claims read: kinds with their sides, and views.
DETAIL_KINDS = ("signed_mean", "rms_change")
DETAIL_VIEWS = {
    **{f"text-{objective}": (*DETAIL_KINDS, "frequency", "attribution") for objective in SINGLE_OBJECTIVES},
    **{f"base-text-{objective}": ("signed_mean", "mean_abs") for objective in SINGLE_OBJECTIVES},
    "gate": ("signed_mean", "frequency", "rms_change"),
    "half-0": DETAIL_KINDS,
    "half-1": DETAIL_KINDS,
}

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "pandas", "scipy")

EVALUATION = (
    ("base_model", "objective", "seed", "benchmark", "subset", "item_id", "cluster", "group", "direction", "style")
    + ("margin", "credit", "chance", "n_chosen", "n_rejected", "n_tokens", "is_truncated")
    + ("chosen_reward", "chosen_spread", "chosen_length", "rejected_length")
)

ITEM_RESULT = ("benchmark", "subset", "item_id", "cluster", "margin", "credit", "chance")

DOTS = ("layer", "part", "first", "second", "dot", "n_parameters")  # dot products of two vectors of parameters

# Columns of each table, in order; a missing or additional one is an error.
TABLES = {
    "train_log": ("step", "epoch", "loss", "validation_loss", "validation_accuracy", "n_tokens"),
    "evaluation": EVALUATION,
    "template_check": EVALUATION,  # some prompts again, in the published template
    "ablation": (
        ("base_model", "objective", "seed", "set", "family", "matched_to", "control", "fraction", "ablation_kind")
        + ("scale", "draw", "n_neurons")
        + ITEM_RESULT
    ),
    "interpolation": (*(column for column in EVALUATION if column != "objective"), "harmless_weight"),
    "depth": ("base_model", "objective", "seed", "depth", *ITEM_RESULT),
    "gradients": ("base_model", "objective", "seed", *DOTS),
    "weight_changes": ("base_model", "seed", *DOTS),
}


def fsync_path(path: Path) -> None:
    """Flush a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_any(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left beside ``path``: those of this machine that are gone, or had our number.

    Other machines may be writing to the same disk, so what is theirs stays.
    """
    for leftover in path.parent.glob(glob.escape(f".{path.name}.{platform.node()}.") + "*"):
        process = leftover.stem.rpartition(".")[2]
        if process.isdigit() and (int(process) == os.getpid() or not psutil.pid_exists(int(process))):
            remove_any(leftover)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; move it there when the block ends without error, else remove it.

    The temporary name may become a file or a folder. A folder that stands at ``path`` is replaced, which takes two
    renames: a kill between them leaves nothing at ``path``, but never a part. What a killed process left under its
    temporary name is removed by the next call for the same ``path``.

    Raises:
        OSError: for example on a full disk; nothing is left at the temporary name and ``path`` is as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary, aside = (path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    try:
        yield temporary
        for part in sorted(temporary.rglob("*")) if temporary.is_dir() else []:
            fsync_path(part)
        fsync_path(temporary)
        if temporary.is_dir() and path.exists():
            path.rename(aside)
        temporary.replace(path)
        fsync_path(path.parent)
    except SafetensorError as error:  # its way to say what others say with an OSError
        raise OSError(f"{error} while writing {path}; if the disk is full, free space and run again") from error
    except OSError as error:
        if error.filename is None:
            message = f"{error.strerror or error} while writing {path}; free space and run again"
            raise OSError(error.errno, message) from error
        raise
    finally:
        if aside.exists() and not path.exists():
            aside.rename(path)
        remove_any(temporary)
        remove_any(aside)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table of `TABLES` (named by the file's stem) as parquet, atomically.

    Raises:
        ValueError: if columns are missing or unknown.
    """
    columns = TABLES[path.stem]
    if set(columns) != set(table.columns):
        missing, unknown = sorted(set(columns) - set(table)), sorted(set(table) - set(columns))
        raise ValueError(f"{path.name}: missing columns {missing}, unknown columns {unknown}")
    with atomic_path(path) as temporary:
        table[list(columns)].to_parquet(temporary, index=False, compression="zstd")


def read_table(runs: Sequence[Run | SinglePair], name: str, made_by: str) -> pd.DataFrame:
    """Read one table of every run and stack them.

    Args:
        runs: the runs, or pairs of runs for the tables of those.
        name: a key of `TABLES`.
        made_by: notebook that writes it, named in the error.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.
    """
    return pd.concat(
        [pd.read_parquet(require(run.folder / f"{name}.parquet", made_by)) for run in runs], ignore_index=True
    )


def find_runs(root: Path) -> list[Run]:
    """Return the runs with a folder below ``root``, of every base model, arm and seed; none without any."""
    return [
        Run(root, folder.parts[-3], folder.parts[-2], int(folder.name.removeprefix("seed")))
        for folder in sorted(root.glob("*/*/seed*"))
        if folder.parts[-2] in ARMS and folder.name.removeprefix("seed").isdigit()
    ]


def enter_project() -> Path:
    """Make the project's folder the working directory, wherever below it a notebook was opened, and return it.

    Raises:
        FileNotFoundError: if no folder above holds ``_toc.yml``.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "_toc.yml").is_file():
            os.chdir(folder)
            return folder
    raise FileNotFoundError(
        f"expected to run inside the project; no folder above {here} holds _toc.yml; "
        "unpack the chapter's archive of the page Downloads, and open the notebook there"
    )


def require(path: Path, made_by: str) -> Path:
    """Return ``path`` if it exists.

    Raises:
        FileNotFoundError: names the file and the chapter that makes it.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing; it is written by notebooks/{made_by}.ipynb: run that chapter first"
        )
    return path


def file_hash(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's file names and contents."""
    digest = hashlib.sha256()
    for part in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        digest.update(part.relative_to(path).as_posix().encode())
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def git_commit() -> str:
    """Return the commit of the working directory, with ``+changes`` if files differ; ``unknown`` outside git."""
    try:
        call = {"capture_output": True, "text": True, "check": True}
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **call).stdout.strip()
        changes = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **call).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+changes" if changes else commit


def code_hash() -> str:
    """Return the sha256 of the package's modules."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.relative_to(Path(__file__).parent).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the numbers."""
    return {name: version(name) for name in PACKAGES}


def read_manifest(folder: Path) -> dict:
    """Return a run's manifest, stage by stage; empty if there is none."""
    path = folder / "manifest.json"
    return json.loads(path.read_text()) if path.exists() else {}


def is_current(folder: Path, stage: str, digest: str, artifact: str) -> bool:
    """Say whether ``artifact`` is what ``stage`` made from the configuration with this hash.

    Its content is compared too: after a kill between an artifact and its manifest, the section is of an earlier one.
    """
    section = read_manifest(folder).get(stage, {})
    if section.get("config_hash") != digest or not (folder / artifact).exists():
        return False
    return section["artifact_hash"] == file_hash(folder / artifact)


def is_archived(folder: Path, artifact: str) -> bool:
    """Say whether ``artifact`` is there as an export, without the reward model it came from.

    Nothing can be computed anew there, so what is there is taken as it is.

    Raises:
        ValueError: the artifact is not the one that the manifest names.
    """
    if not (folder / artifact).exists() or (folder / "reward_model").exists() or (folder / "training_state").exists():
        return False
    manifest = read_manifest(folder)
    if "export" not in manifest:  # weights that were removed are made again
        return False
    sections = [part for part in manifest.values() if part.get("artifact") == artifact]
    if any(part["artifact_hash"] != file_hash(folder / artifact) for part in sections):
        raise ValueError(f"{folder / artifact}: its content is not what manifest.json says; copy the folder again")
    return True


class StageRecord:
    """Times one stage of one run and writes its section of ``manifest.json`` when told it is done."""

    def __init__(self, folder: Path, stage: str, config: dict, digest: str) -> None:
        self.folder, self.stage, self.config, self.digest = folder, stage, config, digest
        self.started = time.perf_counter()

    def finish(self, artifact: str, *, device: str, n_tokens: int, inputs: dict[str, Path], **facts: object) -> None:
        """Write the section; stages of the same run may do so at the same time.

        Args:
            artifact: file or folder that the stage made, relative to the run's folder; its hash is recorded.
            device: what computed it.
            n_tokens: tokens that went through the model.
            inputs: what it read, by name; hashes are recorded.
            facts: anything else worth keeping, JSON-like.
        """
        section = {
            "config": self.config,
            "config_hash": self.digest,
            "artifact": artifact,
            "artifact_hash": file_hash(self.folder / artifact),
            "inputs": {name: file_hash(path) for name, path in inputs.items()},
            "seconds": round(time.perf_counter() - self.started, 2),
            "n_tokens": n_tokens,
            "device": device,
            "commit": git_commit(),
            "python": platform.python_version(),
            "packages": package_versions(),
            **facts,
        }
        with (self.folder / ".manifest.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            manifest = read_manifest(self.folder) | {self.stage: section}
            with atomic_path(self.folder / "manifest.json") as temporary:
                temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
