"""Locks between processes, also of several machines and on file systems that know no locks."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)  # what file systems without locks say, besides ENOSYS
FOREVER = -1.0


@contextmanager
def locked(path: Path, seconds: float = FOREVER) -> Iterator[bool]:
    """Give True while this process holds the lock of a file; what a killed process held is free.

    Where the file system has no locks, the file's existence is one, with its owner in it.

    Args:
        path: of the lock; made where it is missing.
        seconds: to wait for another holder; False is given after that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = _acquired(path, seconds)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _acquired(path: Path, seconds: float) -> BaseFileLock:
    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in NO_LOCKS:
            raise
        lock = SoftFileLock(path.with_name(f"{path.name}.soft"), timeout=seconds)
        lock.acquire()
    return lock
