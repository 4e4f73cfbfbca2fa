"""Give every job of a machine an accelerator of its own."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tension_utils.locks import locked

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_SECONDS = 1.0


def visible_accelerators() -> list[str]:
    """Return the accelerators that this process may use, as `VISIBLE` names them; without asking any library."""
    if VISIBLE in os.environ:
        return [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.strip()]


@contextmanager
def own_accelerator() -> Iterator[dict[str, str]]:
    """Hold one of several visible accelerators, and give the environment in which a job sees it alone.

    Jobs of one machine hold different ones, whoever started them; a job waits while all are held. What a killed job
    held is free at once. Where at most one is visible there is nothing to choose, and the environment is empty.
    """
    names = visible_accelerators()
    if len(names) < 2:
        yield {}
        return
    folder = Path(tempfile.gettempdir()) / f"tension-accelerators-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        for name in names:
            with locked(folder / f"{name.replace('/', '-')}.lock", seconds=0) as is_mine:
                if is_mine:
                    yield {VISIBLE: name}
                    return
        time.sleep(POLL_SECONDS)
