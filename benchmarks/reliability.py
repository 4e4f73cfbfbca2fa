"""Kill, damage, race, fill the disk, take write rights and load, and count what is lost.

python benchmarks/reliability.py [--kills 50] [--damage 25] [--races 10] [--pairs 100000] [--items 10000] [--seed 0]

A job trains, evaluates, scores the neurons of and ablates one reward model in a small toy world. A trial is survived if
the same job, run once more, ends with the same bits as an undisturbed one, or if it is refused by one sentence. Full
and read-only disks are mounted in a name space of their own, which takes root and Linux.
Exit status: 0 if nothing was lost, else 1.
"""

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "workflow")]
SIZES = {"n_train": 60, "n_test": 24, "n_bench": 10, "n_corpus": 150}
ARTIFACTS = ("reward_model", "train_log.parquet", "evaluation.parquet", "neuron_scores.safetensors", "ablation.parquet")
READ = "from tension_utils.data import read_split; import sys\n"
READ += "[read_split(sys.argv[1], subset, 'train') for subset in ('helpful-base', 'harmless-base')]"
N_STAGES = 4
HOLD = "import sys, time; from pathlib import Path; from owners import sole_owner\n"
HOLD += "with sole_owner(Path(sys.argv[1])): time.sleep(3)"


def job(root: Path, n_stages: int) -> None:
    """Run the first stages of one reward model."""
    from tension_utils.config import AblateConfig, DataConfig, EngineConfig, EvaluateConfig, IdentifyConfig, TrainConfig
    from tension_utils.stages import ablate_run, evaluate_run, identify_run
    from tension_utils.training import train_run

    engine = EngineConfig(n_items=6, precision="float32")
    data = DataConfig(n_train_pairs=40, n_validation_pairs=10, max_length=256)
    stages = (
        lambda run: train_run(run, data, TrainConfig(n_evaluations=1, precision="float32")),
        lambda run: evaluate_run(run, EvaluateConfig(engine=engine)),
        lambda run: identify_run(run, IdentifyConfig(("mean_abs", "rms_change"), ("all",), 4, engine)),
        lambda run: ablate_run(run, AblateConfig(("mean_abs",), n_draws=1, engine=engine)),
    )
    for stage in stages[:n_stages]:
        stage(run_of(root))


def run_of(root: Path) -> object:
    from tension_utils.config import Run

    return Run(root, "toy", "helpful", 0)


def command(root: Path, n_stages: int = N_STAGES) -> list[str]:
    """Return the command line of a job."""
    return [sys.executable, str(Path(__file__).resolve()), "--job", str(root), "--stages", str(n_stages)]


def start(root: Path, n_stages: int = N_STAGES) -> subprocess.Popen:
    """Start a job in a process of its own."""
    return subprocess.Popen(command(root, n_stages), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def bits(root: Path) -> dict[str, str]:
    """Return the hash of every artifact."""
    from tension_utils.artifacts import file_hash

    folder = run_of(root).folder
    return {name: file_hash(folder / name) for name in ARTIFACTS if (folder / name).exists()}


def finish(root: Path, wanted: dict[str, str]) -> bool:
    """Run the job and say whether it ends with the wanted bits."""
    return start(root).wait() == 0 and bits(root) == wanted


def times(root: Path) -> dict[str, int]:
    folder = run_of(root).folder
    sections = json.loads((folder / "manifest.json").read_text()) if (folder / "manifest.json").exists() else {}
    made = {section["artifact"]: folder / section["artifact"] for section in sections.values()}
    return {name: path.stat().st_ino for name, path in made.items() if path.exists()}


def kills(whole: Path, scratch: Path, n: int, rng: random.Random, seconds: float) -> tuple[int, int, str]:
    """Kill jobs at random moments and run them again."""
    survived = orphans = redone = 0
    for number in range(n):
        root = scratch / f"kill{number}"
        shutil.copytree(whole / "toy-world", root / "toy-world")
        process = start(root)
        time.sleep(rng.uniform(0, seconds))
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGKILL)
        process.communicate()
        orphans += sum(child.is_running() for child in children)
        before = times(root)
        survived += finish(root, bits(whole))
        redone += sum(times(root).get(name) != inode for name, inode in before.items())
        shutil.rmtree(root)
    return n, survived, f"orphans {orphans}, finished stages done again {redone}"


def damage(whole: Path, scratch: Path, n: int, rng: random.Random) -> tuple[int, int, str]:
    """Damage a file of a finished run in one way, and run the job again."""
    ways = {
        "flipped": lambda data: (
            data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1 :]
        ),
        "cut": lambda data: data[: len(data) // 2],
        "emptied": lambda data: b"",
        "replaced": lambda data: rng.randbytes(64),
        "deleted": None,
    }
    folder = run_of(whole).folder
    names = [*ARTIFACTS[1:], "manifest.json", "reward_model/model.safetensors", "reward_model/config.json"]
    names += [path.relative_to(folder).as_posix() for path in sorted(folder.glob("score_views/*"))[:2]]
    kinds, survived, refused = [(name, way) for name in names for way in ways], 0, 0
    for name, way in rng.sample(kinds, min(n, len(kinds))):
        root = scratch / "damage"
        shutil.copytree(whole, root, symlinks=True)
        path = run_of(root).folder / name
        changed = ways[way] and ways[way](path.read_bytes())
        path.unlink() if changed is None else path.write_bytes(changed)
        process = start(root)
        said = process.communicate()[1]
        is_refused = process.returncode == 2
        is_right = is_refused or (process.returncode == 0 and bits(root) == bits(whole))
        survived, refused = survived + is_right, refused + is_refused
        if not is_right:
            print(f"lost: {name} {way}: {said[-300:]}", flush=True)
        shutil.rmtree(root)
    return min(n, len(kinds)), survived, f"refused by a sentence {refused}, made again {survived - refused}"


def races(scratch: Path, n: int) -> tuple[int, int, str]:
    """Start two owners of one folder at once: one has to win, the other to be told so."""
    survived = 0
    for number in range(n):
        command = [sys.executable, "-c", HOLD, str(scratch / f"race{number}")]
        environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'workflow'}"}
        two = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate()[1] for process in two]
        is_told = sum("another run is at work here" in text for text in said)
        survived += sorted(process.returncode for process in two) == [0, 1] and is_told == 1
    return n, survived, "one wins, the other is told who does"


def mounted(script: str) -> subprocess.CompletedProcess:
    """Run a shell script in a name space in which it may mount."""
    full = ["unshare", "--mount", "sh", "-ec", script]
    return subprocess.run(full, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def mount_trials(whole: Path, scratch: Path, name: str, script: str, n: int, ends: set[int]) -> tuple[int, int, str]:
    """Start jobs of which the first stages are done on a disk that takes no more; then let them end on one that does.

    Args:
        script: shell text with {root}, {kept} and {job}; its exit status is that of the job on the bad disk.
        ends: numbers of finished stages with which the job has nothing to write, and is to succeed.
    """
    if os.geteuid() or mounted("mount -t tmpfs none /mnt").returncode:
        return 0, 0, "not run: needs root and Linux"
    survived = 0
    for done in range(n):
        root, kept = scratch / name, scratch / f"{name}-kept"
        shutil.copytree(whole / "toy-world", root / "toy-world")
        if done and start(root, done).wait():
            raise RuntimeError(f"the undisturbed job of {done} stages failed")
        names = {"root": root, "kept": kept, "job": shlex.join(command(root))}
        found = mounted(script.format(**names))
        is_right = found.returncode == (0 if done in ends else 2) and found.stderr.count("error: ") == (
            done not in ends
        )
        if kept.exists():
            shutil.rmtree(root)
            kept.rename(root)
        is_right = is_right and finish(root, bits(whole))
        if not is_right:
            print(f"lost: {name} after {done} stages: exit {found.returncode} {found.stderr[-300:]}", flush=True)
        survived += is_right
        shutil.rmtree(root)
    return n, survived, "refused by a sentence, then ended with the same bits"


# A disk of the size of what is there, full but for the last page; what the job leaves there is kept.
FULL = """
size=$(du -s --block-size=1 {root} | cut -f1)
mkdir {kept}
mount -t tmpfs -o size=4G none {kept}
cp -a {root}/. {kept}
mount --move {kept} {root}
mount -o remount,size=$((size + 8192)) {root}
dd if=/dev/zero of={root}/filler bs=4096 2>/dev/null || true
status=0; {job} || status=$?
rm {root}/filler
cp -a {root}/. {kept}
exit $status
"""
READ_ONLY = """
mount --bind {root} {root}
mount -o remount,ro,bind {root}
status=0; {job} || status=$?
exit $status
"""


def used(arguments: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds of CPU and its largest memory in GiB."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{arguments}: exit status {status}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def load(scratch: Path, name: str, n: int, split: str, arguments: list[str]) -> tuple[int, int, str]:
    """Give a command a hundredth and a tenth of some pairs, and all: time has to be linear, memory flat.

    Seconds beyond those of a hundredth grow elevenfold, (1 - 1/100) / (1/10 - 1/100), if time is linear. Those of a
    tenth are few, and half of them is starting: the smaller sizes are tried three times, and the fastest one counts.
    """
    found = []
    for size in (n // 100, n // 10, n):
        folder = scratch / f"{name}{size}"
        for subset in ("helpful-base", "harmless-base"):
            (folder / subset).mkdir(parents=True)
            with (folder / subset / f"{split}.jsonl").open("w") as lines:
                for number in range(size // 2):
                    row = {"prompt": f"q{number} {subset}", "chosen": f"a{number}", "rejected": "b"}
                    lines.write(json.dumps(row) + "\n")
        found.append(min(used([*arguments, str(folder)]) for _ in range(3 if size < n else 1)))
    (base, _), (seconds, memory), (all_seconds, all_memory) = found
    growth, swell = (all_seconds - base) / (seconds - base), all_memory / memory
    word = f"{n} beside a tenth: time x{growth:.1f} (linear: x11.0), memory x{swell:.2f} ({all_memory:.2f} GiB)"
    return 1, int(growth < 15 and swell < 1.5), word


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"kills": 50, "damage": 25, "races": 10, "pairs": 100_000, "items": 10_000, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stages", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        try:
            job(options.job, options.stages)
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0
    from tension_utils.toy.model import ensure_toy_world
    from tension_utils.toy.world import ToyConfig

    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        scratch, whole = Path(folder), Path(folder) / "whole"
        ensure_toy_world(whole / "toy-world", ToyConfig(**SIZES))
        began = time.monotonic()
        if start(whole).wait():
            raise RuntimeError("the undisturbed job failed")
        seconds = time.monotonic() - began
        model = run_of(whole).folder / "reward_model"
        evaluate = [sys.executable, "-m", "tension_utils", "evaluate", str(model), "--n-items", "0"]
        parts = {
            "races": lambda: races(scratch, options.races),
            "pairs": lambda: load(scratch, "pairs", options.pairs, "train", [sys.executable, "-c", READ]),
            "items": lambda: load(scratch, "items", options.items, "test", evaluate),
            "disk full": lambda: mount_trials(whole, scratch, "full", FULL, N_STAGES, set()),
            "read-only": lambda: mount_trials(whole, scratch, "read-only", READ_ONLY, N_STAGES + 1, {N_STAGES}),
            "damage": lambda: damage(whole, scratch, options.damage, rng),
            "kills": lambda: kills(whole, scratch, options.kills, rng, seconds),
        }
        n_lost = 0
        print(f"{'':<12}{'tried':>7}{'survived':>10}{'lost':>6}")
        for name, part in parts.items():
            tried, survived, word = part()
            n_lost += tried - survived
            print(f"{name:<12}{tried:>7}{survived:>10}{tried - survived:>6}   {word}", flush=True)
    return 1 if n_lost else 0


if __name__ == "__main__":
    sys.exit(main())
