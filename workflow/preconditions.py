"""What every stage needs of models and data, looked at before the first one starts: a late fault would cost hours."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from schema import EVALUATED
from tension_utils.artifacts import PYDOC, user_path
from tension_utils.config import SINGLE_OBJECTIVES, TOY, DataConfig

LENGTHS = ("train", "evaluate", "ablate")  # sections with a max_length
REACH_SECONDS = 10  # for the hub to answer
TOY_CONTEXT = 256  # tokens; as `toy.model.CONTEXT_LENGTH`, which takes seconds to import


def check_preconditions(values: Mapping, sources: Mapping[str, str] | None = None) -> None:
    """Check that the models and the data of a profile can go through all of its stages.

    What is only known by a public name is checked as far as it can be reached from here.

    Args:
        values: the profile.
        sources: benchmark -> folder that is read instead of what the profile names; that of HH-RLHF for training, too.

    Raises:
        ValueError: one line per fault: what does not fit, what was expected, what came.
    """
    sources = sources or {}
    places, pairs = _places(values, sources), sources.get("hh-rlhf", values["train"]["data_source"])
    faults = [fault for model in values["base_models"] for fault in _model_faults(model, values)]
    faults += [*_data_faults(values, pairs), *_benchmark_faults(values, places), *_text_faults(values)]
    if faults:
        raise ValueError("\n".join(dict.fromkeys(faults)))


def _places(values: Mapping, sources: Mapping[str, str]) -> dict[str, str]:
    """Return where each benchmark with a source of its own comes from."""
    found = {}
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
    """Yield what keeps local training data from being used: a folder, a split, a row, or too few pairs."""
    if source == TOY:  # made by the pipeline
        return
    from tension_utils.data import read_split, training_pairs
    from tension_utils.sources import is_local

    if not is_local(source):
        return
    section = values["train"]
    options = {key: section[key] for key in ("subsets", "n_train_pairs", "n_validation_pairs") if key in section}
    data = DataConfig(source, **options, bad_pairs=section.get("unusable_pairs", "error"))
    faults = []
    for objective, names in data.subsets.items():
        for subset in names:
            faults += _told(lambda s=subset, o=objective: read_split(source, s, "train", data.bad_pairs, o))
    yield from faults
    sizes = {"train.n_train_pairs": data.n_train_pairs}
    sizes |= {"curve.n_pairs": max(values["curve"]["n_pairs"])} if "curve" in values else {}
    for objective in () if faults else SINGLE_OBJECTIVES:
        for key, n_pairs in sizes.items():
            config = dataclasses.replace(data, n_train_pairs=n_pairs)
            found = _told(lambda c=config, o=objective: training_pairs(c, o, values["seeds"][0]))
            yield from (f"{key}: {fault.removeprefix('n_train_pairs: ')}" for fault in found)


def _benchmark_faults(values: Mapping, places: Mapping[str, str]) -> Iterator[str]:
    """Yield what keeps benchmarks in folders, the tests of the training data among them, from being scored."""
    section, source = values.get("evaluate", {}), values["train"]["data_source"]
    is_toy = TOY in (*values["base_models"], source)
    if TOY in section.get("benchmarks", EVALUATED) and not (is_toy or TOY in places):
        yield "evaluate.benchmarks: expected none of the embedded world, which this profile does not use; got 'toy'"
    places = places if source == TOY else {"hh-rlhf": source} | places
    subsets = values["train"].get("subsets", {"helpful": ["helpful-base"], "harmless": ["harmless-base"]})
    policy = section.get("unusable_items", "drop")
    for name, place in places.items():
        from tension_utils.sources import is_local

        if is_local(place) and not user_path(place).is_dir() and place != source:  # of that, `_data_faults` tells
            yield (
                f"evaluate.benchmark_sources.{name}: expected a folder or a public name; got {place!r}, where "
                f"there is none; mend it, or leave {name} out of evaluate.benchmarks"
            )
        elif user_path(place).is_dir():
            from tension_utils.benchmarks.load import load_counted

            yield from _told(lambda name=name, place=place: load_counted(name, place, subsets, policy))


def _text_faults(values: Mapping) -> Iterator[str]:
    """Yield a file of plain text that is not there, or holds too few passages."""
    section = values.get("identify", {})
    n_passages, source = section.get("n_generic", 0), section.get("generic_text", PYDOC)
    if n_passages:
        from tension_utils.stages import load_passages

        yield from (f"identify.{fault}" for fault in _told(lambda: load_passages(source, n_passages)))


def _told(check: Callable[[], object]) -> Iterator[str]:
    """Yield the message of a fault that a check finds."""
    try:
        check()
    except (OSError, ValueError) as error:
        yield str(error)
