"""Who is at work in a folder: one run at a time, and what a run that was cut off left behind.

Every process of a run carries the run's mark in its environment. Only processes with the mark of a run that was cut off
are ever ended: numbers of processes and groups are given anew, after a restart of the machine from the beginning.
"""

import contextlib
import json
import os
import platform
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from tension_utils.artifacts import atomic_path
from tension_utils.locks import locked

MARK = "TENSION_RUN"  # environment variable
GRACE_SECONDS = 20  # between asking processes to end and ending them
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Owner(NamedTuple):
    """A run that is at work in a folder."""

    process: int
    started: float  # seconds since the epoch
    host: str
    boot: str
    mark: str


def boot_id() -> str:
    """Return what tells this start of the machine from others."""
    return BOOT_ID.read_text().strip() if BOOT_ID.is_file() else str(round(psutil.boot_time()))


def this_process() -> Owner:
    """Return this process as the owner of a run of its own."""
    return Owner(os.getpid(), psutil.Process().create_time(), platform.node(), boot_id(), uuid.uuid4().hex)


def read_owner(path: Path) -> Owner | None:
    """Return whom a file names; None if there is none, or what is there is none."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def sole_owner(path: Path) -> Iterator[tuple[Owner, Owner | None]]:
    """Give this run, and the one that was cut off here before, while no other is at work.

    Args:
        path: stem of two files: ``.lock``, and ``.json`` with the owner.

    Raises:
        RuntimeError: if another run is at work here; says which, and nothing was changed.
    """
    record, lock = path.with_name(f"{path.name}.json"), path.with_name(f"{path.name}.lock")
    with locked(lock, seconds=0) as is_mine:
        before = read_owner(record)
        if not is_mine:
            who = f"process {before.process} on {before.host}" if before else f"it holds {lock}"
            raise RuntimeError(f"another run is at work here ({who}); wait for it or end it with Ctrl-C")
        own = this_process()
        with atomic_path(record) as temporary:
            temporary.write_text(json.dumps(own._asdict()), encoding="utf-8")
        try:
            yield own, before
        finally:
            record.unlink(missing_ok=True)


def processes_of(owner: Owner) -> list[psutil.Process]:
    """Return the living processes of a run, but not those of another machine or of before its restart."""
    if (owner.host, owner.boot) != (platform.node(), boot_id()):
        return []
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            is_late = process.pid != os.getpid() and process.create_time() >= owner.started - 1
            if is_late and process.environ().get(MARK) == owner.mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_processes(owner: Owner, grace: float = GRACE_SECONDS) -> int:
    """End what a run started: ask, wait, then force.

    Returns:
        How many processes there were.
    """
    processes = processes_of(owner)
    for process in processes:
        _signal(process, signal.SIGTERM)
    until = time.monotonic() + grace
    while processes_of(owner) and time.monotonic() < until:
        time.sleep(0.1)
    for process in processes_of(owner):
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(processes, timeout=5)
    return len(processes)


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
