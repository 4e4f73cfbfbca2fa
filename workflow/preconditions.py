"""What every stage needs of models and data, looked at before the first one starts: a late fault would cost hours."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tension_utils.artifacts import PYDOC, resolve_source, user_path
from tension_utils.config import TOY

LENGTHS = ("train", "evaluate", "ablate")  # sections with a max_length
REACH_SECONDS = 10  # for the hub to answer
TOY_CONTEXT = 256  # tokens; as `toy.model.CONTEXT_LENGTH`, which takes seconds to import


def check_preconditions(values: Mapping, root: Path, sources: Mapping[str, str] | None = None) -> None:
    """Check that the models and the data of a profile can go through all of its stages.

    What is only known by a public name is checked as far as it can be reached from here.

    Args:
        values: the profile.
        root: folder of its runs.
        sources: benchmark -> folder that is read instead of what the profile names.

    Raises:
        ValueError: one line per fault: what does not fit, what was expected, what came.
    """
    places = _places(values, root, sources or {})
    faults = [fault for model in values["base_models"] for fault in _model_faults(model, values)]
    faults += [*_data_faults(values, places.pop("hh-rlhf")), *_benchmark_faults(places), *_text_faults(values)]
    if faults:
        raise ValueError("\n".join(dict.fromkeys(faults)))


def _places(values: Mapping, root: Path, sources: Mapping[str, str]) -> dict[str, str]:
    """Return where each benchmark with a source comes from; HH-RLHF is where the training pairs are."""
    found = {"hh-rlhf": resolve_source(values["train"]["data_source"], root, "hh-rlhf")}
    for section in ("evaluate", "ablate"):
        found |= values.get(section, {}).get("benchmark_sources", {})
    return found | dict(sources)


def _lengths(values: Mapping) -> dict[str, int]:
    """Return the keys that say how many tokens a sequence may have, with their values."""
    found = {f"{section}.max_length": values.get(section, {}).get("max_length", 0) for section in LENGTHS}
    return {key: length for key, length in found.items() if length}


def _model_faults(model: str, values: Mapping) -> Iterator[str]:
    """Yield what keeps a base model from going through the stages: its kind, its positions, its context, its tokens."""
    if model == TOY:
        yield from _context_faults(model, TOY_CONTEXT, values)
        return
    from tension_utils.engine.attention import require_static_positions
    from tension_utils.models import load_config, load_tokenizer
    from tension_utils.sources import is_local  # these take seconds, which the embedded world does not need

    folder = model if is_local(model) else _public_folder(model)
    if folder is None:
        print(f"base_models: {model} cannot be reached from here, so it was not looked at", flush=True)
        return
    has_eos = values["train"].get("train_options", {}).get("pad_with_eos", False)
    try:
        config = load_config(folder)
        require_static_positions(config)
        load_tokenizer(folder, pad_with_eos=has_eos)
    except (FileNotFoundError, ValueError) as error:
        yield f"base_models: {model}: {error}"
    else:
        yield from _context_faults(model, config.max_position_embeddings, values)


def _public_folder(model: str) -> str | None:
    """Return a folder with the configuration and the tokenizer of a public model; None where it cannot be reached."""
    from huggingface_hub import HfApi, constants, snapshot_download

    if not constants.HF_HUB_OFFLINE:
        try:
            HfApi().model_info(model, timeout=REACH_SECONDS)
        except Exception:  # of whichever library talks HTTP
            return None
    try:
        return snapshot_download(model, allow_patterns=["*.json", "*.txt", "*.model"])
    except (OSError, ValueError):
        return None


def _context_faults(model: str, context: int, values: Mapping) -> Iterator[str]:
    for key, length in _lengths(values).items():
        if length > context:
            yield f"{key}: expected at most {context}, the context of {model}; got {length}"


def _data_faults(values: Mapping, source: str) -> Iterator[str]:
    """Yield what local training data lack: a folder of a subset, or one of its splits."""
    if values["train"]["data_source"] == TOY:  # made by the pipeline
        return
    from tension_utils.sources import is_local, local_files

    if not is_local(source):
        return
    subsets = values["train"].get("subsets", {"helpful": ["helpful-base"], "harmless": ["harmless-base"]})
    for subset in [name for names in subsets.values() for name in names]:
        for split in ("train", "test"):
            yield from _told(lambda subset=subset, split=split: local_files(source, subset, split))


def _benchmark_faults(places: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with benchmarks that are read from folders."""
    for name, source in places.items():
        if user_path(source).is_dir():
            from tension_utils.benchmarks.load import is_reachable

            yield from _told(lambda name=name, source=source: is_reachable(name, source))


def _text_faults(values: Mapping) -> Iterator[str]:
    """Yield a file of plain text that is not there."""
    section = values.get("identify", {})
    source = section.get("generic_text", PYDOC)
    if section.get("n_generic") and source != PYDOC and not user_path(source).is_file():
        yield f"identify.generic_text: expected {PYDOC!r} or a text file; there is no file {source}"


def _told(check: Callable[[], object]) -> Iterator[str]:
    """Yield the message of a fault that a check finds."""
    try:
        check()
    except (OSError, ValueError) as error:
        yield str(error)
