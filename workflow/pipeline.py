"""Run the Snakemake workflow of one profile, so that it can be stopped, killed and run again.

    python workflow/pipeline.py --profile tiny --cores 2 [arguments for snakemake]

Ctrl-C ends every process of the run. If this process itself is killed, the next call ends what it left running,
releases Snakemake's lock, and lets only unfinished work run again. Before anything starts, the profile is checked
against models and data, and finished stages against what they read and wrote; what no longer fits runs again.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from environment import usable_environment
from owners import MARK, Owner, end_processes, sole_owner
from preconditions import check_preconditions
from schema import check_cluster, read_profile
from stale import stale_outputs
from tension_utils.artifacts import remembered_hashes

CACHE = Path(".cache")


def recover(root: Path, config: Path, before: Owner | None) -> None:
    """Clean up after a run that was killed: end its processes and release Snakemake's lock.

    Args:
        root: the project's folder, in which no other run is at work.
        config: the profile's file; Snakemake reads the workflow with it before it unlocks.
        before: the run that was cut off.

    Raises:
        RuntimeError: if the lock stays.
    """
    if before:
        ended = end_processes(before, grace=5)
        print(f"an earlier run was cut off; ended {ended} of its processes and go on where it stopped", flush=True)
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


def forced(extra: Sequence[str], outputs: Sequence[str]) -> list[str]:
    """Return the arguments for Snakemake with further outputs that are made anew, beside those that are named there."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--forcerun", "-R", nargs="*", default=[])
    named, rest = parser.parse_known_args(list(extra))
    together = [*named.forcerun, *outputs]
    return [*rest, *(["--forcerun", *together] if together else [])]


def find_stale(root: Path, profile: str, values: dict) -> list[str]:
    """Return finished outputs that no longer fit what they were made of, and say why."""
    with chdir(root), remembered_hashes(CACHE / "hashes.json"):
        found = stale_outputs(Path("runs", profile), values)
    for path, reason in found.items():
        print(f"again: {path}: {reason}", flush=True)
    return [str(path) for path in found]


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
        ValueError: for an unknown profile, for one with a fault or that its models or data do not fit, and for a
            cluster that takes no jobs.
        RuntimeError: if another run is at work in this folder.
    """
    values = read_profile(root, profile)
    is_dry = bool({"-n", "--dry-run", "--dryrun"} & set(extra))
    if cluster := cluster_profile(extra):
        check_cluster(root, cluster, is_submitted=not is_dry)
    config = Path("config", f"{profile}.yaml")
    with sole_owner(root / CACHE / "pipeline") as (own, before), sole_owner(root / "runs" / profile / ".work"):
        recover(root, config, before)
        with chdir(root):
            check_preconditions(values)
        # Options that take several values come last, so that they do not swallow a target among the further arguments.
        arguments = [*forced(extra, find_stale(root, profile, values)), "--cores", cores, "--rerun-incomplete"]
        arguments += ["--keep-going", "--configfile", str(config)]
        arguments += ["--quiet", "host", *(() if is_dry else ("reason", "rules")), *local_limits(extra)]
        environment = usable_environment(root) | {MARK: own.mark}
        process = subprocess.Popen([*_snakemake(), *arguments], cwd=root, start_new_session=True, env=environment)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return process.wait()
        except KeyboardInterrupt:
            print("stopping; run the same command again to go on", file=sys.stderr, flush=True)
            end_processes(own)
            process.wait()
            return 130


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
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
