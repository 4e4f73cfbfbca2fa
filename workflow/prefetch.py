"""Fetch what a profile names publicly into the cache of the Hugging Face libraries, for machines without a network.

    python workflow/prefetch.py PROFILE

Run it where there is a network and the same home folder or HF_HOME, such as a cluster's login node. Jobs then find
everything there; HF_HUB_OFFLINE=1 keeps them from asking.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from schema import read_profile
from tension_utils.artifacts import resolve_source
from tension_utils.config import BENCHMARKS, TOY

MODEL_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


def downloads(values: Mapping, root: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what has to be fetched, by name, each with the call that does so; nothing for what lies here.

    Args:
        values: the profile.
        root: folder of its runs.
    """
    from huggingface_hub import snapshot_download

    from tension_utils.benchmarks.load import load_counted
    from tension_utils.data import read_split
    from tension_utils.sources import is_local

    for model in values["base_models"]:
        if model != TOY and not is_local(model):
            yield model, lambda model=model: snapshot_download(model, allow_patterns=MODEL_FILES)
    source = resolve_source(values["train"]["data_source"], root, "hh-rlhf")
    if not is_local(source):
        subsets = values["train"].get("subsets", {"helpful": ["helpful-base"], "harmless": ["harmless-base"]})
        for subset in dict.fromkeys(name for names in subsets.values() for name in names):
            for split in ("train", "test"):
                yield f"{source}, {subset}, {split}", lambda s=subset, part=split: read_split(source, s, part, "drop")
    section = values.get("evaluate", {})
    for name in section.get("benchmarks", BENCHMARKS):
        place = section.get("benchmark_sources", {}).get(name)
        if name not in ("hh-rlhf", TOY) and not (place and is_local(place)):
            yield name, lambda name=name, place=place: load_counted(name, place, unusable_items="drop")


def main() -> int:
    """Fetch from the command line; return 1 if something could not be fetched, 2 for a wrong profile."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile")
    options = parser.parse_args()
    try:
        values = read_profile(Path(), options.profile)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = 0
    for name, fetch in downloads(values, Path("runs", options.profile)):
        try:
            fetch()
        except (OSError, ValueError) as error:
            failed += 1
            print(f"not fetched: {name}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        else:
            print(f"fetched: {name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
