"""Kill, damage, race, fill the disk and load, and count what is lost.

python benchmarks/reliability.py [--kills 50] [--damage 25] [--races 10] [--pairs 100000] [--seed 0]

A job trains, evaluates, scores the neurons of and ablates one reward model in a small toy world. A trial is survived if
the same job, run once more, ends with the same bits as an undisturbed one, or if it is refused by one sentence.
Exit status: 0 if nothing was lost, else 1.
"""

import argparse
import json
import random
import resource
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
SPLIT = "from tension_utils.data import read_split; import sys, resource, time; start = time.process_time(); "
SPLIT += "n = len(read_split(sys.argv[1], 'helpful-base', 'train').items); print(n, time.process_time() - start, "
SPLIT += "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
HOLD = "import sys, time; from pathlib import Path; from owners import sole_owner\n"
HOLD += "with sole_owner(Path(sys.argv[1])): time.sleep(3)"


def job(root: Path) -> None:
    """Run every stage of one reward model."""
    from tension_utils.config import AblateConfig, DataConfig, EngineConfig, EvaluateConfig, IdentifyConfig, TrainConfig
    from tension_utils.stages import ablate_run, evaluate_run, identify_run
    from tension_utils.training import train_run

    engine = EngineConfig(n_items=6, precision="float32")
    data = DataConfig(n_train_pairs=40, n_validation_pairs=10, max_length=256)
    train_run(run_of(root), data, TrainConfig(n_evaluations=1, precision="float32"))
    evaluate_run(run_of(root), EvaluateConfig(engine=engine))
    identify_run(run_of(root), IdentifyConfig(("mean_abs", "rms_change"), ("all",), 4, engine))
    ablate_run(run_of(root), AblateConfig(("mean_abs",), n_draws=1, engine=engine))


def run_of(root: Path) -> object:
    from tension_utils.config import Run

    return Run(root, "toy", "helpful", 0)


def start(root: Path, *limits: str) -> subprocess.Popen:
    """Start a job in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--job", str(root), *limits]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


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


def full_disk(whole: Path, scratch: Path) -> tuple[int, int, str]:
    """Let files end at sizes that the stages exceed, then run the job without a limit."""
    survived, sizes = 0, (1000, 20_000, 1_000_000)
    for size in sizes:
        root = scratch / f"full{size}"
        shutil.copytree(whole / "toy-world", root / "toy-world")
        process = start(root, "--file-bytes", str(size))
        process.communicate()
        survived += process.returncode != 0 and finish(root, bits(whole))
        shutil.rmtree(root)
    return len(sizes), survived, "stopped, then ended with the same bits"


def load(scratch: Path, n_pairs: int) -> tuple[int, int, str]:
    """Read a tenth of the pairs, and all: time and memory per pair have to stay."""
    found = []
    for n in (n_pairs // 10, n_pairs):
        file = scratch / f"load{n}" / "helpful-base" / "train.jsonl"
        file.parent.mkdir(parents=True)
        with file.open("w") as lines:
            for number in range(n):
                lines.write(json.dumps({"prompt": f"q{number}", "chosen": f"a{number}", "rejected": "b"}) + "\n")
        done = subprocess.run(
            [sys.executable, "-c", SPLIT, str(file.parents[1])], capture_output=True, text=True, check=True, cwd=ROOT
        )
        found.append([float(value) for value in done.stdout.split()])
    (_, seconds, memory), (_, all_seconds, all_memory) = found
    is_linear = all_seconds < 15 * seconds
    word = f"{n_pairs} pairs to a tenth: time {all_seconds / seconds:.1f}, memory of the process "
    return 1, int(is_linear), word + f"{all_memory / memory:.2f} ({all_memory / 2**20:.2f} GiB)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"kills": 50, "damage": 25, "races": 10, "pairs": 100_000, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--file-bytes", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        if options.file_bytes:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (options.file_bytes, options.file_bytes))
        try:
            job(options.job)
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
        parts = {
            "races": lambda: races(scratch, options.races),
            "load": lambda: load(scratch, options.pairs),
            "disk full": lambda: full_disk(whole, scratch),
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
