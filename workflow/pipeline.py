"""Run the Snakemake workflow of one profile, so that it can be stopped, killed and run again.

    python workflow/pipeline.py --profile tiny --cores 2 [arguments for snakemake]

The workflow runs in a process group of its own. Ctrl-C ends the whole group. If this process itself is killed, the next
call ends what it left running, releases Snakemake's lock, and lets only unfinished work run again.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from schema import check_cluster, read_profile

RECORD = Path(".cache", "pipeline.json")
GRACE_SECONDS = 20  # between asking processes to end and ending them


def processes_of(group: int, since: float) -> list[psutil.Process]:
    """Return the living processes of a process group, and their descendants, that started at ``since`` or later.

    Args:
        group: process group id.
        since: seconds since the epoch; protects against an id that was given to something else meanwhile.
    """
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.create_time() >= since - 1:
                found |= {process.pid: process} | {child.pid: child for child in process.children(recursive=True)}
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue
    return [p for p in found.values() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def end_group(group: int, since: float, grace: float = GRACE_SECONDS) -> int:
    """End a process group with its descendants: ask, wait, then force.

    Returns:
        How many processes there were.
    """
    processes = processes_of(group, since)
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=grace)
    for process in {*alive, *processes_of(group, since)}:
        _signal(process, signal.SIGKILL)
    return len(processes)


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def recover(root: Path, config: Path) -> None:
    """Clean up after a run that was killed: end its processes and release Snakemake's lock.

    Args:
        root: the project's folder.
        config: the profile's file; Snakemake reads the workflow with it before it unlocks.

    Raises:
        RuntimeError: if the other run is alive, or the lock stays.
    """
    try:
        record = json.loads((root / RECORD).read_text())
    except (OSError, ValueError):
        record = None
    if record:
        try:
            owner = psutil.Process(record["owner"])
            if owner.pid != os.getpid() and abs(owner.create_time() - record["owner_started"]) < 1:
                raise RuntimeError(
                    f"another run is at work here (process {owner.pid}); wait for it or end it with Ctrl-C"
                )
        except psutil.NoSuchProcess:
            pass
        ended = end_group(record["group"], record["group_started"], grace=5)
        print(f"an earlier run was cut off; ended {ended} of its processes and go on where it stopped", flush=True)
        (root / RECORD).unlink(missing_ok=True)
    locks = root / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        command = [*_snakemake(), "--unlock", "--configfile", str(config)]
        unlocked = subprocess.run(command, cwd=root, capture_output=True, text=True)
        if unlocked.returncode:
            raise RuntimeError(f"the lock of an earlier run in {locks} stays: {unlocked.stderr.strip()}")


def _snakemake() -> list[str]:
    return [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile"]


def local_limits(extra: Sequence[str]) -> list[str]:
    """Return the limits of one machine, jobs that need the GPU wait for each other; a cluster has its own."""
    own = ("--executor", "--workflow-profile", "--profile", "--resources")
    return [] if any(argument.split("=")[0] in own for argument in extra) else ["--resources", "gpu=1"]


def cluster_profile(extra: Sequence[str]) -> str | None:
    """Return the folder that ``--workflow-profile`` names among the arguments for Snakemake."""
    name = "--workflow-profile"
    after = [value for option, value in zip(extra, extra[1:], strict=False) if option == name]
    return next(iter([*after, *(option.split("=", 1)[1] for option in extra if option.startswith(f"{name}="))]), None)


def run(root: Path, profile: str, cores: str, extra: Sequence[str] = ()) -> int:
    """Run the workflow of one profile to its end.

    Args:
        root: the project's folder.
        profile: name of a file in ``config/``.
        cores: a number, or ``"all"``.
        extra: further arguments for Snakemake.

    Returns:
        Snakemake's exit status; 130 after Ctrl-C.

    Raises:
        ValueError: for an unknown profile, and for one with a fault.
        RuntimeError: if another run is at work in this folder.
    """
    read_profile(root, profile)
    if cluster := cluster_profile(extra):
        check_cluster(root, cluster)
    config = Path("config", f"{profile}.yaml")
    recover(root, config)
    # Options that take several values come last, so that they do not swallow a target among the further arguments.
    arguments = [*extra, "--cores", cores, "--rerun-incomplete", "--keep-going", "--configfile", str(config)]
    arguments += ["--quiet", "host", "reason", "rules", *local_limits(extra)]
    (root / RECORD).parent.mkdir(exist_ok=True)
    process = subprocess.Popen([*_snakemake(), *arguments], cwd=root, start_new_session=True)
    started = time.time()
    own = {"owner": os.getpid(), "owner_started": psutil.Process().create_time()}
    (root / RECORD).write_text(json.dumps(own | {"group": process.pid, "group_started": started}))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return process.wait()
    except KeyboardInterrupt:
        print("stopping; run the same command again to go on", file=sys.stderr, flush=True)
        end_group(process.pid, started)
        process.wait()
        return 130
    finally:
        (root / RECORD).unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; input errors are one message and exit status 2."""
    parser = argparse.ArgumentParser(
        description="Run a profile's workflow; unknown arguments go to snakemake.",
        allow_abbrev=False,
    )
    parser.add_argument("--profile", default="tiny", help="a file in config/ (default: tiny)")
    parser.add_argument("--cores", default="all", help="how many cores to use (default: all)")
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder (default: here)")
    options, extra = parser.parse_known_args(arguments)
    try:
        return run(options.root.resolve(), options.profile, options.cores, extra)
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
