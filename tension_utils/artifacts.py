"""Run folders: files that appear whole or not at all, typed tables, manifests, JSON lines."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from pyarrow import ArrowException
from safetensors import SafetensorError
from safetensors.numpy import save

from tension_utils.config import ARMS, CURVE, SINGLE_OBJECTIVES, TOY, DataConfig, Run, SinglePair
from tension_utils.locks import locked

MANIFEST = "manifest.json"

OWN_SCORES = "neuron_scores.safetensors"  # on the run's own training pairs, at the neuron

ADOPTED = "adopted"  # part of a configuration: how a model that was trained elsewhere came here, see `adoption`

VIEWS = "score_views"  # folder of the same statistics taken elsewhere: other site, half of the pairs, other text

# What an export in detail keeps of a run's scores, besides what claims read: kinds with their sides, and views.
DETAIL_KINDS = ("signed_mean", "rms_change")
DETAIL_VIEWS = {
    **{f"text-{objective}": (*DETAIL_KINDS, "frequency", "attribution") for objective in SINGLE_OBJECTIVES},
    **{f"base-text-{objective}": ("signed_mean", "mean_abs") for objective in SINGLE_OBJECTIVES},
    "gate": ("signed_mean", "frequency", "rms_change"),
    "heads": ("signed_mean", "rms"),
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


FLAGS = ("is_truncated",)

TEXTS = (
    *("base_model", "objective", "benchmark", "subset", "item_id", "cluster", "group", "direction", "style"),
    *("set", "family", "matched_to", "control", "ablation_kind", "part", "first", "second"),
)


def fsync_path(path: Path) -> None:
    """Flush a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def user_path(source: str | Path) -> Path:
    """Return a path that a user wrote, the home folder in place of ``~``.

    Raises:
        ValueError: if no file can have this name, or nobody may look there.
    """
    try:
        path = Path(source).expanduser()
        path.is_dir()
        if "\0" in str(source):
            raise ValueError("it holds a zero byte")
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"expected the path of a file or folder; got {str(source)[:100]!r}: {reason}") from None
    return path


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


MADE_HERE = re.compile(r'"(config|code)_hash"|^[0-9a-f]{64}$')  # in the marker of a folder; others have manifests, too


def require_own(folder: Path, marker: str, parts: Sequence[str] = ()) -> None:
    """Check that a folder may be replaced: nothing is there, an empty folder, or one that was made here.

    Args:
        folder: to be replaced.
        marker: name of a file that those have that were made here, with what only they say in it.
        parts: names of all there is in such a folder, where one that lost its marker is known by having them all.

    Raises:
        FileExistsError: something else is there; nothing was removed.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    is_own = folder.is_dir() and (_is_marked(folder / marker) or names in (set(), set(parts)))
    if os.path.lexists(folder) and (folder.is_symlink() or not is_own):
        raise FileExistsError(
            f"{folder}: expected nothing there, or a folder with {marker} that was made here; what is there would be "
            "lost; name another folder, or move it away"
        )


def _is_marked(marker: Path) -> bool:
    try:
        return bool(MADE_HERE.search(marker.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


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
            is_full = error.errno in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            todo = "free space" if is_full else "expected a folder that can be written to: choose one"
            message = f"{error.strerror or error} while writing {path}; {todo} and run again"
            raise OSError(error.errno, message) from error
        raise
    finally:
        if aside.exists() and not path.exists():
            aside.rename(path)
        remove_any(temporary)
        remove_any(aside)


def save_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file; equal content gives equal bytes, which the library alone promises for one key only.

    Args:
        path: where to.
        tensors: by name.
        metadata: texts by name.
    """
    data = save({name: np.ascontiguousarray(values) for name, values in tensors.items()}, metadata and dict(metadata))
    start = 8 + int.from_bytes(data[:8], "little")  # of the values; the header before them is JSON
    header = json.dumps(json.loads(data[8:start]), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    Path(path).write_bytes(len(header).to_bytes(8, "little") + header + data[start:])


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


def write_part(path: Path, table: pd.DataFrame) -> None:
    """Write rows that a stage keeps while it is under way, with checksums, atomically."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False, write_page_checksum=True)


def read_part(path: Path) -> pd.DataFrame | None:
    """Return what `write_part` wrote; None if there is nothing, or if it is damaged."""
    try:
        return pd.read_parquet(path, page_checksum_verification=True)
    except (OSError, ValueError, KeyError, ArrowException):
        return None


FORMULA = re.compile(r"^[=+\-@\t\r]")  # how a cell begins that a spreadsheet computes


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV with 6 digits; text that a spreadsheet would take for a formula gets an apostrophe first.

    A carriage return becomes a line feed, which alone is put in quotation marks.
    """
    texts = table.select_dtypes(exclude="number").columns

    def safe(cell: object) -> object:
        cell = f"'{cell}" if FORMULA.match(str(cell)) else cell
        return re.sub("\r\n?", "\n", cell) if isinstance(cell, str) else cell

    cells = {name: table[name].map(safe) for name in texts}
    table.assign(**cells).rename(columns=safe).to_csv(path, index=False, float_format="%.6g")


def read_table(runs: Sequence[Run | SinglePair], name: str, made_by: str) -> pd.DataFrame:
    """Read one table of every run and stack them.

    Args:
        runs: the runs, or pairs of runs for the tables of those.
        name: a key of `TABLES`.
        made_by: notebook that writes it, named in the error.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.
    """
    paths = [run.folder / f"{name}.parquet" for run in runs]
    if missing := [run for run, path in zip(runs, paths, strict=True) if not path.exists()]:
        raise missing_files(missing, f"{name}.parquet", made_by)
    tables = [_read_table(require(path, made_by, run), made_by) for run, path in zip(runs, paths, strict=True)]
    return pd.concat(tables, ignore_index=True)


def _read_table(path: Path, made_by: str) -> pd.DataFrame:
    """Read one table of `TABLES`, whose columns hold texts, numbers, or true and false."""
    remedy = f"remove it and run {made_by} again, or copy it again"
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a parquet table; {error}; {remedy}") from error
    if set(table) != set(TABLES[path.stem]):
        missing, unknown = sorted(set(TABLES[path.stem]) - set(table)), sorted(set(table) - set(TABLES[path.stem]))
        raise ValueError(f"{path}: expected columns {missing} too, and none of {unknown}; {remedy}")
    kinds = {name: "text" if name in TEXTS else "bool" if name in FLAGS else "number" for name in table}
    checks = {"text": pd.api.types.is_string_dtype, "bool": pd.api.types.is_bool_dtype}
    wrong = [f"{name}: {kind}" for name, kind in kinds.items() if not checks.get(kind, _is_number)(table[name])]
    if wrong or table.empty:
        raise ValueError(f"{path}: expected {', '.join(wrong) or 'rows'}; got another type or nothing; {remedy}")
    return table


def _is_number(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def find_runs(root: Path) -> list[Run]:
    """Return the runs with a folder below ``root``, of every base model, arm and seed; other folders are no runs."""
    found = []
    for folder in sorted(root.glob("*/*/seed*")):
        base_model, objective, seed = *folder.parts[-3:-1], folder.name.removeprefix("seed")
        if objective in ARMS and re.fullmatch("0|[1-9][0-9]*", seed):
            with contextlib.suppress(ValueError):  # names that no run has
                found.append(Run(root, base_model, objective, int(seed)))
    return found


def present_runs(runs: Sequence[Run], *files: str) -> list[Run]:
    """Return the reward models of a chapter: all of them, or where some came from an export, those with these files.

    A study that was exported before its end has arms that not every seed has, and nothing can be computed there.

    Args:
        runs: the reward models that the chapter's parameters name.
        files: that the chapter reads of each, as paths in its folder.
    """
    if not any("export" in read_manifest(run.folder) for run in runs):
        return list(runs)
    return [run for run in runs if all((run.folder / file).is_file() for file in files)]


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


def missing_files(runs: Sequence[Run | SinglePair], name: str, made_by: str) -> FileNotFoundError:
    """Return the error for a file that runs lack: it names the first one, and the command that makes all of them."""
    values = {"root": str(runs[0].root), "base_models": list(dict.fromkeys(run.base_model for run in runs))}
    if objectives := list(dict.fromkeys(run.objective for run in runs if isinstance(run, Run))):
        values["objectives"] = objectives
    values["seeds"] = sorted({run.seed for run in runs})
    places = f"--output executed/{made_by}.ipynb --work work/{made_by}.ipynb"
    given = shlex.quote(json.dumps(values))
    return FileNotFoundError(
        f"{runs[0].folder / name} is missing{f', as for {len(runs) - 1} more' * (len(runs) > 1)}; it is written by "
        f"notebooks/{made_by}.ipynb: run that chapter first, its other parameters as for the models that are there: "
        f".venv/bin/python workflow/run_notebook.py notebooks/{made_by}.ipynb {places} --parameters {given}"
    )


def require(path: Path, made_by: str, run: Run | SinglePair) -> Path:
    """Return ``path`` if it exists and is what the manifest of its run's folder says, as far as that names it.

    Args:
        path: in the run's folder.
        made_by: notebook that writes it.
        run: whose it is.

    Raises:
        FileNotFoundError: names the file and the command that makes it.
        ValueError: its content is another; names the file and what to do.
    """
    if not path.exists():
        raise missing_files([run], path.relative_to(run.folder).as_posix(), made_by)
    name = path.relative_to(run.folder).as_posix()
    recorded = recorded_hashes(read_manifest(run.folder)).get(name)
    if recorded and _has_weights(path) and recorded != file_hash(path):
        raise damaged(run.folder, name)
    return path


def _has_weights(path: Path) -> bool:
    """Say whether a file, or a folder with its weights, is there: a chapter's download names models without them."""
    return path.is_file() or any(path.glob("model*.safetensors"))


def damaged(folder: Path, name: str) -> ValueError:
    """Return the error for a file of a run's folder that is not what the manifest says."""
    todo = "copy the folder again" if "export" in read_manifest(folder) else "run `make book`, which makes it anew"
    if is_adopted(folder):
        return ValueError(f"{folder / name}: the model that was adopted has changed since; adopt it again")
    what = "its content is not what" if (folder / name).exists() else "it is missing, and"
    return ValueError(f"{folder / name}: {what} {MANIFEST} says; {todo}")


def recorded_hashes(manifest: Mapping[str, dict]) -> dict[str, str]:
    """Return what a manifest says of the contents of its folder: name -> `file_hash`."""
    exported = manifest.get("export", {}).get("files")
    if exported is not None:
        return dict(exported)
    found: dict[str, str] = {}
    for section in manifest.values():
        found |= {section["artifact"]: section["artifact_hash"]} if "artifact" in section else {}
        found |= section.get("beside", {})
    return found


_HASHES: dict[str, str] = {}  # of large files, by their place on disk, size and times

LARGE = 2**20  # bytes; a smaller file is read each time


def files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield every file of a folder and of those below it, also behind links; hidden ones are no data and not read.

    Args:
        folder: where to look.
        above: real places of the folders that this one is in; a link back to one of them ends there.
    """
    place = folder.resolve()
    if place in above:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from files_below(path, (*above, place))
        elif path.is_file():
            yield path


def file_hash(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's file names and contents, also of what links in it lead to.

    A large file is read once, as long as it stays as it is: its inode, its size, and the times of its content and of
    its last change, of which nobody can set the second.
    """
    digest = hashlib.sha256()
    for part in sorted(files_below(path)) if path.is_dir() else [path]:
        digest.update(part.relative_to(path).as_posix().encode())
        digest.update(bytes.fromhex(_content_hash(part)))
    return digest.hexdigest()


def _content_hash(path: Path) -> str:
    at = path.stat()
    key = f"{at.st_dev}-{at.st_ino}-{at.st_size}-{at.st_mtime_ns}-{at.st_ctime_ns}"
    if at.st_size < LARGE or key not in _HASHES:
        with path.open("rb") as file:
            _HASHES[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _HASHES[key]


@contextlib.contextmanager
def remembered_hashes(path: Path) -> Iterator[None]:
    """Let `file_hash` know the large files that an earlier process has read, and keep what this one reads.

    Args:
        path: of a JSON file; a missing or damaged one is no loss.
    """
    with contextlib.suppress(OSError, ValueError):
        _HASHES.update(json.loads(path.read_text(encoding="utf-8")))
    yield
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_HASHES, sort_keys=True), encoding="utf-8")


def parse_json(text: str) -> object:
    """Return the value of a JSON text.

    Raises:
        ValueError: if it is no JSON, holds an infinity or no number, names a key twice, or is nested too deeply.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number of JSON")

    def once(pairs: list[tuple[str, object]]) -> dict:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError(f"a key comes twice in {[key for key, _ in pairs]!r:.200}")
        return found

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_object(path: Path, remedy: str) -> dict:
    """Return the JSON object in a file.

    Raises:
        ValueError: names the file and the remedy if it holds something else.
    """
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"got {json.dumps(found)[:40]}")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a JSON object; {error}; {remedy}") from error
    return found


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
    """Return a run's manifest, stage by stage; empty if there is none.

    Raises:
        ValueError: if it is no JSON object of objects; names the file.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not all(isinstance(section, dict) for section in manifest.values()):
            raise ValueError(f"got {json.dumps(manifest)[:40]}")
        for stage, section in manifest.items():
            _check_section(stage, section)
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a JSON object with a section per stage; {error}; copy the file again, or remove it: "
            "then the stages of this folder are computed anew"
        ) from None
    return manifest


def _check_section(stage: str, section: Mapping) -> None:
    """Raise ValueError if a section is of another form than `StageRecord` writes, or names files elsewhere."""
    kinds = {"config": dict, "artifact": str, "artifact_hash": str, "beside": dict, "inputs": dict, "files": dict}
    for name, kind in kinds.items():
        if not isinstance(section.get(name, kind()), kind):
            raise ValueError(f"{stage}.{name} is {section[name]!r:.40}")
    if "artifact" in section and not {"artifact_hash", "config"} <= set(section):
        raise ValueError(f"{stage} has no artifact_hash or no config")
    maps = [section.get(name, {}) for name in ("beside", "inputs", "files")]
    if not all(isinstance(value, str) for part in maps for value in part.values()):
        raise ValueError(f"{stage} has hashes that are no texts")
    for name in [*section.get("beside", ()), *section.get("files", ()), section.get("artifact", "x")]:
        if not name or "\0" in name or name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{stage} names the file {name!r}, which is not in this folder")


def read_section(folder: Path, stage: str) -> dict:
    """Return what the manifest of a run's folder says of a stage.

    Raises:
        FileNotFoundError: if it says nothing, as after a kill between an artifact and the manifest.
    """
    section = read_manifest(folder).get(stage, {})
    if "config" not in section or (stage == "train" and not isinstance(section["config"].get("data"), dict)):
        raise FileNotFoundError(
            f"{folder / MANIFEST}: expected a section {stage!r}, without which it is not known how the files of this "
            "stage were made; run the stage again, or adopt the model again"
        )
    return section


def is_adopted(folder: Path) -> bool:
    """Say whether a run's reward model was trained elsewhere."""
    return ADOPTED in read_manifest(folder).get("train", {}).get("config", {})


def is_current(
    folder: Path,
    stage: str,
    digest: str,
    artifact: str,
    *,
    beside: Sequence[str] = (),
    sources: Mapping[str, Path] | None = None,
) -> bool:
    """Say whether what is there is what ``stage`` made from this configuration and from what lies there to be read.

    Contents are compared too: after a kill between an artifact and its manifest, the section is of an earlier one.

    Args:
        folder: of the run.
        stage: section of the manifest.
        digest: hash of the configuration.
        artifact: file or folder that the stage makes.
        beside: further ones.
        sources: local files and folders that the stage reads, by name; their hashes are compared with those that were
            recorded.
    """
    section = read_manifest(folder).get(stage, {})
    if section.get("config_hash") != digest or not all((folder / name).exists() for name in (artifact, *beside)):
        return False
    return not changed_files(folder, section) and not changed_sources(section, sources or {})


def changed_files(folder: Path, section: Mapping) -> list[str]:
    """Return the files that a stage wrote and that are missing or other ones now."""
    recorded = {section["artifact"]: section["artifact_hash"], **section.get("beside", {})}
    return [name for name, kept in recorded.items() if not (folder / name).exists() or file_hash(folder / name) != kept]


def changed_sources(section: Mapping, sources: Mapping[str, Path]) -> list[str]:
    """Return the names of the local files and folders whose content is not what a stage read, or that came since.

    A section of before stages wrote down all they read, without "beside", tells nothing of what came since.
    """
    recorded, found = section.get("inputs", {}), []
    for name, path in sources.items():
        if name in recorded or "beside" in section:
            found += [name] * (recorded.get(name) != (file_hash(path) if path.exists() else None))
    return found


def resolve_source(source: str, root: Path, part: str) -> str:
    """Return a source as it is, or the toy world's folder for ``"toy"``; ``part`` is "hh-rlhf" or "base_model"."""
    return str(toy_world(root) / part) if source == TOY else source


def toy_world(root: Path) -> Path:
    """Return where a profile's toy world is, which its runs on fewer pairs share."""
    root = Path(root)
    return (root.parents[1] if root.parent.name == CURVE else root) / "toy-world"


def training_data(run: Run) -> DataConfig:
    """Return what a run was trained on, and in which folder it lies here."""
    data = DataConfig(**read_section(run.folder, "train")["config"]["data"])
    return replace(data, source=resolve_source(data.source, run.root, "hh-rlhf"))


def run_template(run: Run) -> str:
    """Return the template of a run's texts: "hh" for what was trained here, or the one it was adopted with."""
    return read_section(run.folder, "train")["config"].get(ADOPTED, {}).get("template", "hh")


def base_source(run: Run) -> str | None:
    """Return where the model is that a run was trained from; None for an adopted run whose base model is not known."""
    adopted = read_section(run.folder, "train")["config"].get(ADOPTED)
    name = run.base_model if adopted is None else adopted["base_model"]
    return resolve_source(name, run.root, "base_model") if name else None


def local_inputs(**sources: str) -> dict[str, Path]:
    """Return those sources that lie here, whose hashes can be recorded; public names pass by name only."""
    places = {name: user_path(source) for name, source in sources.items()}
    return {name: path for name, path in places.items() if path.exists()}


PYDOC = "pydoc"  # the Python language reference, which ships with the standard library


def named_sources(root: Path, configs: Iterable[Mapping]) -> dict[str, str]:
    """Return what stages read besides training pairs and models: folders and files, or public names.

    Args:
        root: of the run.
        configs: recorded configurations of one stage.
    """
    found = {}
    for config in configs:
        items = config.get("items", config)
        places = {TOY: str(toy_benchmark(root))} | dict(items.get("sources", {}))
        found |= {f"benchmark_{name}": places[name] for name in items.get("benchmarks", ()) if name in places}
        if config.get("n_generic") and config["generic_text"] != PYDOC:
            found["generic_text"] = config["generic_text"]
    return found


def toy_benchmark(root: Path) -> Path:
    """Return the folder of the toy world's benchmark."""
    return toy_world(root) / "benchmark"


def is_archived(folder: Path, artifact: str) -> bool:
    """Say whether ``artifact`` is there as an export, without the reward model it came from.

    Nothing can be computed anew there, so what is there is taken as it is.

    Raises:
        ValueError: a file of the export is missing, or not the one that the manifest names.
    """
    if (folder / "reward_model").exists() or (folder / "training_state").exists():
        return False
    exported = read_manifest(folder).get("export")
    if exported is None:  # weights that were removed are made again
        return False
    files = exported.get("files", {})
    for name, recorded in files.items():
        if not (folder / name).exists() or file_hash(folder / name) != recorded:
            raise damaged(folder, name)
    return artifact in files or (folder / artifact).exists()


class StageRecord:
    """Times one stage of one run and writes its section of ``manifest.json`` when told it is done."""

    def __init__(self, folder: Path, stage: str, config: dict, digest: str) -> None:
        self.folder, self.stage, self.config, self.digest = folder, stage, config, digest
        self.started = time.perf_counter()

    def finish(
        self,
        artifact: str,
        *,
        device: str,
        n_tokens: int,
        inputs: dict[str, Path],
        beside: Sequence[str] = (),
        **facts: object,
    ) -> None:
        """Write the stage's section of the manifest.

        Args:
            artifact: file or folder that the stage made, relative to the run's folder; its hash is recorded.
            beside: further files that it made, likewise.
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
            "beside": {name: file_hash(self.folder / name) for name in beside},
            "inputs": {name: file_hash(path) for name, path in inputs.items()},
            "seconds": round(time.perf_counter() - self.started, 2),
            "n_tokens": n_tokens,
            "device": device,
            "commit": git_commit(),
            "python": platform.python_version(),
            "packages": package_versions(),
            **facts,
        }
        add_sections(self.folder, {self.stage: section})


def add_sections(folder: Path, sections: Mapping[str, dict]) -> None:
    """Write sections of a run's manifest; stages of the same run may do so at the same time."""
    with locked(folder / ".manifest.lock"):
        manifest = read_manifest(folder) | sections
        with atomic_path(folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
