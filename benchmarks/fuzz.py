"""Hand bad input of every kind to the readers, and count what they make of it.

python benchmarks/fuzz.py [--inputs 10000] [--seed 0] [--kinds "pair files" ...] [--show 3]

An input is right by construction, and has to be accepted and read as what it says; or it has one known fault, and has
to be refused by an error of this project that names the place and says what was expected. Inputs are made from (kind,
number) by `fuzz_inputs`, and read by a worker process, which a watchdog ends after 10 s.

Exit status: 0 within the limits (no crash, hang, wrong acceptance or wrong refusal; at most 0.5 % unclear), 1 beyond.
"""

import argparse
import importlib
import json
import random
import re
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = [ROOT / "tension_utils", ROOT / "workflow"]
ACCEPTED, REFUSED, UNCLEAR = "accepted rightly", "refused clearly", "unclear"
WRONGLY_ACCEPTED, WRONGLY_REFUSED, HANG, CRASH = "wrongly accepted", "wrongly refused", "hang", "crash"
OUTCOMES = (ACCEPTED, REFUSED, UNCLEAR, WRONGLY_ACCEPTED, WRONGLY_REFUSED, HANG, CRASH)
BAD = OUTCOMES[2:]
MOST_UNCLEAR = 0.005
HANG_SECONDS, START_SECONDS = 10, 300
MEMORY = 12 * 2**30  # bytes of address space beyond what a worker has at its start
SAYS_WHAT = re.compile(
    r"expected|unknown|did you mean|is missing|is not what|invalid choice|required|unrecognized|set `"
)


class Case:
    """One input.

    Args:
        fault: what is wrong with it; "" for nothing.
        read: reads it; raises `Misread` where it is right and something else comes out.
        names: texts that a refusal has to hold, such as a file's name and "line 3".
    """

    def __init__(self, fault: str, read: Callable[[], object], names: Iterable[str] = ()) -> None:
        self.fault, self.read, self.names = fault, read, tuple(names)


class Misread(Exception):
    """A right input was read as something else."""


class Told(Exception):
    """What a command said before it ended with exit status 2."""


def why_unclear(error: BaseException, names: Iterable[str]) -> str:
    """Return what a refusal lacks to be an error of the project that names place and expectation; "" if nothing."""
    message = str(error)
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    is_own_type = type(error).__module__.startswith("tension_utils.") or isinstance(error, Told)
    if not is_own_type and not isinstance(error, ValueError | OSError):
        return f"type {type(error).__name__}"
    is_own = bool(frames) and any(Path(frames[-1]).is_relative_to(folder) for folder in PRODUCT)
    if not is_own and not isinstance(error, Told):
        return f"raised by {Path(frames[-1]).name if frames else 'nobody'}"
    if lacking := [name for name in names if name not in message]:
        return f"names no {lacking[0]!r}"
    if not SAYS_WHAT.search(message):
        return "does not say what was expected"
    if not all(line.isprintable() for line in message.splitlines()):
        return "holds control characters"
    return "" if len(message) < 3000 else f"is {len(message)} characters long"


def outcome(case: Case) -> tuple[str, str]:
    """Return what became of an input, of `OUTCOMES`, and a word on it."""
    try:
        case.read()
    except Misread as error:
        return WRONGLY_ACCEPTED, f"misread: {error}"
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {str(error)[:400]!r}"
        if not case.fault:
            return WRONGLY_REFUSED, said
        why = why_unclear(error, case.names)
        return (UNCLEAR, f"{case.fault}: {why}; {said}") if why else (REFUSED, said)
    return (WRONGLY_ACCEPTED, case.fault) if case.fault else (ACCEPTED, "")


def work(seed: int, module: str) -> None:
    """Read "kind number" a line, make and read that input, and answer with its outcome as JSON, until the end."""
    sys.path[:0] = [str(ROOT), str(ROOT / "workflow"), str(Path(__file__).parent)]
    answers = sys.stdout
    sys.stdout = sys.stderr
    kinds = importlib.import_module(module).KINDS
    have = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY, have + MEMORY))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        print(json.dumps(["ready", {kind: share for kind, (_, share) in kinds.items()}]), file=answers, flush=True)
        for line in sys.stdin:
            kind, number = json.loads(line)
            folder = Path(scratch) / f"n{number}"
            folder.mkdir()
            found = outcome(kinds[kind][0](random.Random(f"{seed}/{kind}/{number}"), folder))
            print(json.dumps(found), file=answers, flush=True)
            shutil.rmtree(folder, ignore_errors=True)


class Worker:
    """A process that reads inputs, one at a time."""

    def __init__(self, seed: int, module: str) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--work", module, "--seed", str(seed)]
        self.said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.said}
        self.process = subprocess.Popen(command, text=True, **pipes)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        state, self.shares = self.answer(START_SECONDS)
        if state != "ready":
            raise RuntimeError(f"the worker did not start; try it: {' '.join(command)}")

    def answer(self, seconds: float) -> tuple[str, str]:
        """Return the worker's next answer; that of one which says nothing or died is `HANG` or `CRASH`."""
        if not self.selector.select(seconds):
            return HANG, f"no answer within {seconds} s"
        if line := self.process.stdout.readline():
            return tuple(json.loads(line))
        status = self.process.wait()
        self.said.seek(0)
        return CRASH, f"exit status {status}: {self.said.read()[-300:]}"

    def ask(self, kind: str, number: int) -> tuple[str, str]:
        """Return the outcome of an input."""
        self.process.stdin.write(json.dumps([kind, number]) + "\n")
        self.process.stdin.flush()
        return self.answer(HANG_SECONDS)

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.selector.close()
        self.said.close()


def spread(n_inputs: int, shares: dict[str, int]) -> list[tuple[str, int]]:
    """Return (kind, number) of as many inputs, every kind by its share."""
    total = sum(shares.values())
    counts = {kind: max(1, round(n_inputs * share / total)) for kind, share in shares.items()}
    return [(kind, number) for kind, count in counts.items() for number in range(count)]


def campaign(
    n_inputs: int, seed: int, module: str = "fuzz_inputs", only: Sequence[str] = ()
) -> Iterator[tuple[str, int, str, str]]:
    """Yield kind, number, outcome and a word on it for every input; a worker that hung or died is replaced."""
    worker = Worker(seed, module)
    try:
        shares = {kind: share for kind, share in worker.shares.items() if not only or kind in only}
        for kind, number in spread(n_inputs, shares):
            found, word = worker.ask(kind, number)
            yield kind, number, found, word
            if found in (HANG, CRASH):
                worker.end()
                worker = Worker(seed, module)
    finally:
        worker.end()


def report(counts: dict[str, Counter]) -> str:
    """Return the table of counts per kind and in all."""
    rows = [*counts.items(), ("all", sum(counts.values(), Counter()))]
    width = max(len(kind) for kind, _ in rows)
    lines = [" " * width + "   inputs" + "".join(f"{name:>19}" for name in OUTCOMES)]
    for kind, found in rows:
        lines.append(f"{kind:<{width}}{found.total():>9}" + "".join(f"{found[name]:>19}" for name in OUTCOMES))
    return "\n".join(lines)


def is_within_limits(counts: dict[str, Counter]) -> bool:
    """Say whether nothing crashed, hung, or was accepted or refused wrongly, and few refusals were unclear."""
    found = sum(counts.values(), Counter())
    is_right = not any(found[name] for name in BAD if name != UNCLEAR)
    return is_right and found[UNCLEAR] <= MOST_UNCLEAR * found.total()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", help="of the table's first column; all without it")
    parser.add_argument("--show", type=int, default=3, help="faults of each kind and outcome to print (3)")
    parser.add_argument("--work", metavar="MODULE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        importlib.import_module("fuzz").work(options.seed, options.work)  # whose classes the inputs know
        return 0
    counts = defaultdict(Counter)
    for kind, number, found, word in campaign(options.inputs, options.seed, only=options.kinds or ()):
        counts[kind][found] += 1
        if found in BAD and counts[kind][found] <= options.show:
            print(f"{found}: {kind}, number {number}: {word}", flush=True)
    print(report(counts))
    return 0 if is_within_limits(counts) else 1


if __name__ == "__main__":
    sys.exit(main())
