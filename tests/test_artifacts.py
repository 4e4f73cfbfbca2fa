"""Artifacts appear whole or not at all, whatever happens while they are written; manifests say what made them."""

import contextlib
import errno
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tension_utils import artifacts
from tension_utils.artifacts import (
    TABLES,
    StageRecord,
    atomic_path,
    enter_project,
    file_hash,
    is_archived,
    is_current,
    read_manifest,
    read_part,
    read_table,
    remembered_hashes,
    require,
    require_own,
    save_tensors,
    write_csv,
    write_part,
    write_table,
)
from tension_utils.config import Run, config_hash


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def log_table(n_rows: int = 2) -> pd.DataFrame:
    return pd.DataFrame({column: np.arange(n_rows, dtype=float) for column in TABLES["train_log"]})


def write_folder(folder: Path, text: str) -> None:
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.txt").write_text(text)
    (folder / "b.txt").write_text(text)


def test_file_appears_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"
    assert names(tmp_path / "new") == {"a.txt"}


@pytest.mark.parametrize("is_there", [False, True])
def test_folder_appears_whole_and_replaces_the_old_one(tmp_path: Path, is_there: bool) -> None:
    target = tmp_path / "model"
    if is_there:
        write_folder(target, "old")
        (target / "only-in-old.txt").touch()
    with atomic_path(target) as temporary:
        write_folder(temporary, "new")
    assert {p.relative_to(target).as_posix() for p in target.rglob("*")} == {"inner", "inner/a.txt", "b.txt"}
    assert (target / "inner" / "a.txt").read_text() == "new"
    assert names(tmp_path) == {"model"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, FloatingPointError])
def test_any_error_leaves_file_and_folder_as_they_were(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a.txt").write_text("old")
    write_folder(tmp_path / "model", "old")
    before = file_hash(tmp_path)
    with pytest.raises(error), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise error
    with pytest.raises(error), atomic_path(tmp_path / "model") as temporary:
        write_folder(temporary, "half")
        raise error
    assert file_hash(tmp_path) == before


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass
    assert not names(tmp_path)


@contextlib.contextmanager
def small_disk(n_bytes: int) -> Iterator[None]:
    """Make the kernel refuse files larger than this, in the middle of a write as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


BIG = np.random.default_rng(0).random(100_000)
WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("a" * 800_000),
    "parquet": lambda path: pd.DataFrame({"a": BIG}).to_parquet(path),
    "safetensors": lambda path: save_file({"a": BIG}, path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_full_disk_in_the_middle_of_a_file_leaves_the_old_one(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "artifact"
    target.write_text("old")
    message = f"while writing {target}; .*free space and run again"
    with small_disk(100_000), pytest.raises(OSError, match=message), atomic_path(target) as temporary:
        WRITERS[kind](temporary)
    assert target.read_text() == "old" and names(tmp_path) == {"artifact"}
    with atomic_path(target) as temporary:
        WRITERS[kind](temporary)
    assert target.stat().st_size > 100_000


def test_full_disk_in_the_middle_of_a_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write_folder(target, "old")
    before = file_hash(tmp_path)
    with (
        small_disk(100_000),
        pytest.raises(OSError, match="free space and run again"),
        atomic_path(target) as temporary,
    ):
        write_folder(temporary, "new")
        WRITERS["safetensors"](temporary / "model.safetensors")
    assert file_hash(tmp_path) == before


@pytest.mark.parametrize("step", ["fsync_path", "replace"])
def test_full_disk_at_the_last_moment_leaves_the_old_folder(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    write_folder(target, "old")
    before = file_hash(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((artifacts, step) if step == "fsync_path" else (Path, step)), full)
    message = f"No space left on device while writing {target}; free space"
    with pytest.raises(OSError, match=message) as caught, atomic_path(target) as temporary:
        write_folder(temporary, "new")
    assert caught.value.errno == errno.ENOSPC
    assert file_hash(tmp_path) == before


def test_table_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "train_log.parquet"
    write_table(path, log_table())
    with small_disk(2000), pytest.raises(OSError, match="free space and run again"):
        write_table(path, log_table(10_000).sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(pd.read_parquet(path), log_table())
    assert names(tmp_path) == {"train_log.parquet"}


def test_a_part_with_one_flipped_bit_is_no_part(tmp_path: Path) -> None:
    path, generator = tmp_path / "part.parquet", np.random.default_rng(0)
    table = pd.DataFrame({"item_id": [f"item {n}" for n in range(200)], "margin": generator.normal(size=200)})
    assert read_part(path) is None
    write_part(path, table)
    content, found = path.read_bytes(), []
    for place in generator.integers(4, len(content) * 2 // 3, 60):  # where the values are
        flipped = bytearray(content)
        flipped[place] ^= 1 << generator.integers(8)
        path.write_bytes(bytes(flipped))
        found.append(read_part(path))
    path.write_bytes(content)
    assert read_part(path).equals(table)
    assert all(part is None or part.equals(table) for part in found) and sum(part is None for part in found) > 50


def test_the_hash_of_a_folder_is_of_what_is_read_also_behind_links(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    write_folder(folder, "old"), write_folder(elsewhere / "below", "old")
    (folder / "link").symlink_to(elsewhere)
    (elsewhere / "below" / "back").symlink_to(folder)
    before = file_hash(folder)
    write_folder(folder / ".git", "no data")
    assert file_hash(folder) == before
    (elsewhere / "below" / "more.txt").write_text("new")
    assert file_hash(folder) != before


KILLED = """
import os, signal, sys
from pathlib import Path
from tension_utils.artifacts import atomic_path
target, way = Path(sys.argv[1]), sys.argv[2]
with atomic_path(target) as temporary:
    if target.is_dir():
        temporary.mkdir()
        (temporary / "half.txt").write_text("half")
    else:
        temporary.write_text("half")
    os._exit(9) if way == "exit" else os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_kill_in_the_middle_leaves_the_target_and_the_next_run_cleans_up(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "artifact"
    write_folder(target, "old") if kind == "folder" else target.write_text("old")
    before = file_hash(target)
    command = [sys.executable, "-c", KILLED, str(target), "exit" if kind == "file" else "kill"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == (9 if kind == "file" else -signal.SIGKILL), done.stderr
    assert file_hash(target) == before
    assert len(names(tmp_path)) == 2, "expected the killed process's half at its temporary name"
    with atomic_path(target) as temporary:
        write_folder(temporary, "new") if kind == "folder" else temporary.write_text("new")
    assert names(tmp_path) == {"artifact"}
    assert file_hash(target) != before


def test_an_earlier_process_with_our_number_leaves_nothing_in_our_folder(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "model") as temporary:
        write_folder(temporary, "a")
    temporary.mkdir()
    (temporary / "stale.txt").touch()
    with atomic_path(tmp_path / "model") as temporary:
        write_folder(temporary, "b")
    assert names(tmp_path / "model") == {"inner", "b.txt"}


def test_what_living_processes_and_other_machines_write_stays(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("a")
    own, parent = str(os.getpid()), str(os.getppid())
    dead = str(max(psutil.pids()) + 100_000)
    machine = temporary.name.removeprefix(".a.txt.").removesuffix(f".{own}.tmp")
    living = tmp_path / f".a.txt.{machine}.{parent}.tmp"
    elsewhere = tmp_path / f".a.txt.another-{machine}.{dead}.tmp"
    other_file = tmp_path / f".b.txt.{machine}.{dead}.tmp"
    gone = tmp_path / f".a.txt.{machine}.{dead}.tmp"
    for path in (living, elsewhere, other_file, gone):
        path.touch()
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("b")
    assert names(tmp_path) == {"a.txt", living.name, elsewhere.name, other_file.name}


def test_table_has_its_columns_in_order(tmp_path: Path) -> None:
    shuffled = log_table()[list(reversed(TABLES["train_log"]))]
    write_table(tmp_path / "train_log.parquet", shuffled)
    assert tuple(pd.read_parquet(tmp_path / "train_log.parquet").columns) == TABLES["train_log"]


@pytest.mark.parametrize("name", TABLES)
def test_missing_and_unknown_columns_are_named_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    first, *others = TABLES[name]
    table = pd.DataFrame({column: [0] for column in [*others, "additional"]})
    with pytest.raises(ValueError, match=rf"{name}.parquet: missing columns \['{first}'\], unknown .*'additional'"):
        write_table(tmp_path / f"{name}.parquet", table)
    assert not names(tmp_path)


def test_tables_of_several_runs_are_stacked_and_a_missing_one_names_its_chapter(tmp_path: Path) -> None:
    runs = [Run(tmp_path, "toy", "helpful", seed) for seed in (0, 1)]
    write_table(runs[0].folder / "train_log.parquet", log_table(2))
    with pytest.raises(FileNotFoundError, match="seed1/train_log.parquet is missing; .* notebooks/01_train.ipynb: run"):
        read_table(runs, "train_log", "01_train")
    write_table(runs[1].folder / "train_log.parquet", log_table(3))
    assert read_table(runs, "train_log", "01_train").step.tolist() == [0, 1, 0, 1, 2]


def test_require_returns_what_is_there_and_names_the_chapter_otherwise(tmp_path: Path) -> None:
    run = Run(tmp_path / "it's", "owner/Base", "helpful-harmless-matched", 3)
    run.folder.mkdir(parents=True)
    assert require(run.folder, "01_train", run) == run.folder
    with pytest.raises(
        FileNotFoundError, match="neuron_scores.safetensors is missing.*03_identify.ipynb: run"
    ) as error:
        require(run.folder / "neuron_scores.safetensors", "03_identify", run)
    words = shlex.split(str(error.value).partition("that are there: ")[2])
    assert words[:3] == [".venv/bin/python", "workflow/run_notebook.py", "notebooks/03_identify.ipynb"]
    values = {"root": str(run.root), "base_models": ["owner/Base"], "objectives": [run.objective], "seeds": [3]}
    assert json.loads(words[-1]) == values


def test_file_hash_sees_names_contents_and_nothing_else(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_folder(tmp_path / folder, "same")
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b")
    (tmp_path / "b" / "b.txt").rename(tmp_path / "b" / "c.txt")
    assert file_hash(tmp_path / "a") != file_hash(tmp_path / "b")
    before = file_hash(tmp_path / "a")
    (tmp_path / "a" / "b.txt").write_text("other")
    assert file_hash(tmp_path / "a") != before


def finish(folder: Path, stage: str, digest: str, text: str) -> None:
    record = StageRecord(folder, stage, {"seed": 0}, digest)
    with atomic_path(folder / f"{stage}.txt") as temporary:
        temporary.write_text(text)
    record.finish(f"{stage}.txt", device="cpu", n_tokens=3, inputs={"self": folder / f"{stage}.txt"}, n_items=5)


def test_manifest_says_what_made_the_artifact(tmp_path: Path) -> None:
    finish(tmp_path, "train", "abc", "x")
    section = read_manifest(tmp_path)["train"]
    assert section["config"] == {"seed": 0} and section["config_hash"] == "abc"
    assert section["artifact"] == "train.txt" and section["artifact_hash"] == file_hash(tmp_path / "train.txt")
    assert section["inputs"] == {"self": section["artifact_hash"]}
    assert section["n_tokens"] == 3 and section["n_items"] == 5 and section["device"] == "cpu"
    assert section["seconds"] >= 0 and section["packages"]["torch"] and section["commit"] and section["python"]


def test_artifact_is_current_only_with_its_file_stage_configuration_and_content(tmp_path: Path) -> None:
    assert not is_current(tmp_path, "train", "abc", "train.txt")
    (tmp_path / "train.txt").write_text("x")
    assert not is_current(tmp_path, "train", "abc", "train.txt"), "a file without a manifest proves nothing"
    finish(tmp_path, "train", "abc", "x")
    assert is_current(tmp_path, "train", "abc", "train.txt")
    assert not is_current(tmp_path, "train", "xyz", "train.txt")
    assert not is_current(tmp_path, "evaluate", "abc", "train.txt")
    (tmp_path / "train.txt").write_text("made by another configuration, then killed before its manifest")
    assert not is_current(tmp_path, "train", "abc", "train.txt")
    (tmp_path / "train.txt").unlink()
    assert not is_current(tmp_path, "train", "abc", "train.txt")


WRITER = """
import sys
from pathlib import Path
from tension_utils.artifacts import StageRecord
folder, stage = Path(sys.argv[1]), sys.argv[2]
(folder / stage).write_text(stage)
print("ready", flush=True)
sys.stdin.readline()
for i in range(20):
    StageRecord(folder, f"{stage}{i}", {}, stage).finish(stage, device="cpu", n_tokens=0, inputs={})
"""


def test_two_processes_write_one_manifest_and_both_sections_stay(tmp_path: Path) -> None:
    pipe, root = subprocess.PIPE, Path(__file__).parents[1]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), stage], cwd=root, stdin=pipe, stdout=pipe, text=True
        )
        for stage in ("evaluate", "identify")
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    assert set(read_manifest(tmp_path)) == {f"{stage}{i}" for stage in ("evaluate", "identify") for i in range(20)}


def test_manifest_that_cannot_be_written_keeps_the_other_sections(tmp_path: Path) -> None:
    finish(tmp_path, "train", "abc", "x")
    before = (tmp_path / "manifest.json").read_text()
    with small_disk(len(before)), pytest.raises(OSError, match="free space and run again"):
        finish(tmp_path, "evaluate", "abc", "y")
    assert (tmp_path / "manifest.json").read_text() == before
    finish(tmp_path, "evaluate", "abc", "y")
    assert set(json.loads((tmp_path / "manifest.json").read_text())) == {"train", "evaluate"}


def test_project_is_found_from_below_and_only_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected to run inside the project; no folder above .*_toc.yml"):
        enter_project()
    (tmp_path / "project" / "_toc.yml").touch()
    monkeypatch.chdir(tmp_path / "project" / "notebooks")
    assert enter_project() == tmp_path / "project" == Path.cwd()


def test_hash_of_a_configuration_with_upstream_is_what_a_stage_compares(tmp_path: Path) -> None:
    digest = config_hash({"seed": 0}, data="1")
    finish(tmp_path, "train", digest, "x")
    assert is_current(tmp_path, "train", config_hash({"seed": 0}, data="1"), "train.txt")
    assert not is_current(tmp_path, "train", config_hash({"seed": 0}, data="2"), "train.txt")


def flip(path: Path) -> None:
    """Change one bit in the middle of a file and keep its time stamps."""
    at, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))


@pytest.mark.parametrize("n_bytes", [10, 3 * artifacts.LARGE], ids=["small", "large"])
def test_a_flipped_bit_under_an_old_time_stamp_is_seen(tmp_path: Path, n_bytes: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(n_bytes))
    before = file_hash(path)
    flip(path)
    assert file_hash(path) != before
    flip(path)
    assert file_hash(path) == before


def test_large_files_are_read_once_also_by_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, kept = tmp_path / "a.bin", tmp_path / "hashes.json"
    path.write_bytes(bytes(2 * artifacts.LARGE))
    read = []
    digest = artifacts.hashlib.file_digest
    monkeypatch.setattr(
        artifacts.hashlib, "file_digest", lambda file, kind: (read.append(file.name), digest(file, kind))[1]
    )
    with remembered_hashes(kept):
        first = file_hash(path)
    monkeypatch.setattr(artifacts, "_HASHES", {})
    with remembered_hashes(kept):
        assert file_hash(path) == first and len(read) == 1
    kept.write_text("half a fi")
    monkeypatch.setattr(artifacts, "_HASHES", {})
    with remembered_hashes(kept):
        assert file_hash(path) == first and len(read) == 2


def test_equal_tensors_give_equal_bytes_whatever_the_order_of_their_metadata(tmp_path: Path) -> None:
    tensors = {"b": np.arange(6.0).reshape(2, 3).T, "a": np.ones(3, np.float16)}
    about = {f"key{number}": f"value \u00e9 {number}" for number in range(30)}
    save_tensors(tmp_path / "one", tensors, about)
    save_tensors(tmp_path / "two", dict(reversed(tensors.items())), dict(reversed(about.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    loaded = load_file(tmp_path / "one")
    assert all(np.array_equal(loaded[name], tensors[name]) for name in tensors)
    with safe_open(tmp_path / "one", framework="np") as file:
        assert file.metadata() == about


@pytest.mark.parametrize("text", ["", '{"train": {"artif', "null", "[1]", '{"train": 3}', "\udcff\udcfe"])
def test_a_manifest_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        ValueError, match=r"manifest.json: expected a JSON object with a section per stage; .*remove it"
    ):
        read_manifest(tmp_path)


def finish_with_views(folder: Path) -> None:
    """A stage that writes a file, a file beside it and one in a folder, from a source that lies elsewhere."""
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "rows.txt").write_text("rows")
    record = StageRecord(folder, "identify", {}, "abc")
    (folder / "score_views").mkdir()
    for name in ("scores.txt", "beside.txt", "score_views/gate.txt"):
        (folder / name).write_text(name)
    beside = ("beside.txt", "score_views/gate.txt")
    record.finish("scores.txt", device="cpu", n_tokens=0, inputs={"data_source": folder / "source"}, beside=beside)


def found(folder: Path, **sources: Path) -> bool:
    return is_current(folder, "identify", "abc", "scores.txt", sources=sources or {"data_source": folder / "source"})


@pytest.mark.parametrize("name", ["scores.txt", "beside.txt", "score_views/gate.txt"])
def test_every_file_of_a_stage_is_looked_at(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path, "toy", "helpful", 0)
    finish_with_views(run.folder)
    assert found(run.folder)
    for file in ("scores.txt", "beside.txt", "score_views/gate.txt"):
        assert require(run.folder / file, "03_identify", run).is_file()
    flip(run.folder / name)
    assert not found(run.folder)
    with pytest.raises(ValueError, match=rf"{name}: its content is not what manifest.json says; run `make book`"):
        require(run.folder / name, "03_identify", run)
    (run.folder / name).unlink()
    assert not found(run.folder)


def test_a_source_that_changed_or_came_since_is_seen(tmp_path: Path) -> None:
    finish_with_views(tmp_path)
    source = {"data_source": tmp_path / "source"}
    assert found(tmp_path, **source)
    assert not found(tmp_path, **source, benchmark=tmp_path / "scores.txt"), "it came since"
    flip(tmp_path / "source" / "rows.txt")
    assert not found(tmp_path, **source)


def test_a_section_from_before_files_beside_were_recorded_is_taken_as_it_is(tmp_path: Path) -> None:
    finish_with_views(tmp_path)
    manifest = read_manifest(tmp_path)
    del manifest["identify"]["beside"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert found(tmp_path, data_source=tmp_path / "source", benchmark=tmp_path / "scores.txt")
    flip(tmp_path / "source" / "rows.txt")
    assert not found(tmp_path)


@pytest.mark.parametrize("way", ["flip", "remove"])
def test_a_damaged_archive_names_its_file(tmp_path: Path, way: str) -> None:
    finish_with_views(tmp_path)
    files = {name: file_hash(tmp_path / name) for name in ("scores.txt", "beside.txt", "score_views/gate.txt")}
    (tmp_path / "manifest.json").write_text(json.dumps(read_manifest(tmp_path) | {"export": {"files": files}}))
    assert is_archived(tmp_path, "scores.txt") and not is_archived(tmp_path, "other.txt")
    for name in files:
        kept = (tmp_path / name).read_bytes()
        flip(tmp_path / name) if way == "flip" else (tmp_path / name).unlink()
        with pytest.raises(ValueError, match=rf"{name}: it.* manifest.json says; copy the folder again"):
            is_archived(tmp_path, "scores.txt")
        (tmp_path / name).write_bytes(kept)


def test_only_a_folder_that_was_made_here_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    require_own(tmp_path / "theirs", "manifest.json")
    require_own(tmp_path / "nothing", "manifest.json")
    (tmp_path / "theirs" / "thesis.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "file").touch()
    for name in ("theirs", "link", "file"):
        with pytest.raises(FileExistsError, match=rf"{name}: expected nothing there, or a folder with manifest.json"):
            require_own(tmp_path / name, "manifest.json")
    for other in ("", '{"name": "a web page"}', "\udcff"):
        (tmp_path / "theirs" / "manifest.json").write_text(other, errors="surrogateescape")
        with pytest.raises(FileExistsError):
            require_own(tmp_path / "theirs", "manifest.json")
    for own in ('{"config_hash": "a"}', '{"train": {"config_hash": "a"}}', '{"code_hash": "a"}', "0" * 64):
        (tmp_path / "theirs" / "manifest.json").write_text(own)
        require_own(tmp_path / "theirs", "manifest.json")


def test_a_folder_with_some_of_the_parts_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "hh-rlhf").mkdir()
    with pytest.raises(FileExistsError):
        require_own(tmp_path, "manifest.json", ("benchmark", "hh-rlhf"))
    (tmp_path / "benchmark").mkdir()
    require_own(tmp_path, "manifest.json", ("benchmark", "hh-rlhf"))


def test_text_that_a_spreadsheet_would_compute_gets_an_apostrophe(tmp_path: Path) -> None:
    cells = ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "plain", ""]
    write_csv(tmp_path / "a.csv", pd.DataFrame({"text": cells, "number": [-1.5, 2, -3, 4, 5, 6, 7]}))
    found = pd.read_csv(tmp_path / "a.csv", keep_default_na=False)
    assert found.text.tolist() == [*(f"'{cell}" for cell in cells[:5]), "plain", ""]
    assert found.number.tolist() == [-1.5, 2, -3, 4, 5, 6, 7]
