"""One run at a time in a folder, and none but its own processes are ever ended."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

import owners
from owners import MARK, Owner, end_processes, processes_of, read_owner, sole_owner, this_process
from tension_utils import locks
from tension_utils.locks import locked

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(300)"]
HOLD = """
import sys
from pathlib import Path
from owners import sole_owner
with sole_owner(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def started(mark: str | None) -> subprocess.Popen:
    environment = os.environ | ({MARK: mark} if mark else {})
    process = subprocess.Popen(SLEEP, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "up\n"
    return process


@pytest.fixture
def strangers() -> list[subprocess.Popen]:
    """A process of nobody's run, and one of another run."""
    found = [started(None), started("another-run")]
    yield found
    for process in found:
        process.kill()
        process.communicate()


def test_only_processes_with_the_mark_are_ended(strangers: list[subprocess.Popen]) -> None:
    owner = this_process()
    own = started(owner.mark)
    assert [process.pid for process in processes_of(owner)] == [own.pid]
    assert end_processes(owner, grace=5) == 1
    own.communicate(timeout=10)
    assert all(process.poll() is None for process in strangers)


@pytest.mark.parametrize("change", [{"boot": "before"}, {"host": "elsewhere"}, {"started": time.time() + 1e6}])
def test_nothing_is_ended_after_a_restart_of_the_machine_or_on_another(change: dict) -> None:
    owner = this_process()
    own = started(owner.mark)
    assert end_processes(owner._replace(**change), grace=1) == 0
    assert own.poll() is None
    own.kill()
    own.communicate()


def test_the_second_of_two_starts_is_told_who_the_first_is_and_changes_nothing(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    paths = os.pathsep.join([str(Path(owners.__file__).parent), str(Path(owners.__file__).parents[1])])
    environment = os.environ | {"PYTHONPATH": paths}
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / ".work")], env=environment, **pipes)
    assert first.stdout.readline() == "mine\n"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    message = rf"another run is at work here \(process {first.pid} on "
    with pytest.raises(RuntimeError, match=message), sole_owner(tmp_path / ".work"):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    first.kill()
    first.communicate()
    with sole_owner(tmp_path / ".work") as (own, cut_off):
        assert cut_off.process == first.pid and own.process == os.getpid()
        assert read_owner(tmp_path / ".work.json") == own
    with sole_owner(tmp_path / ".work") as (_, cut_off):
        assert cut_off is None, "the last one came to its end"


@pytest.mark.parametrize("text", ["", "null", "[]", '{"process": 1}'])
def test_a_damaged_record_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert read_owner(tmp_path / "a.json") is None
    assert isinstance(this_process(), Owner)


@pytest.mark.parametrize("number", locks.NO_LOCKS)
def test_a_file_system_without_locks_gets_files_as_locks(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FileLock, *args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.FileLock, "acquire", refuse)
    with locked(tmp_path / "a.lock", seconds=0) as first, locked(tmp_path / "a.lock", seconds=0) as second:
        assert first and not second
    with locked(tmp_path / "a.lock", seconds=0) as third:
        assert third
