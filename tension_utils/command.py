"""The command `tension`: from a reward model and preference pairs to a table, one line each."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tension_utils.config import BAD_PAIRS, BENCHMARKS, SCORE_KINDS, SINGLE_OBJECTIVES, TEMPLATE_NAMES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

N_ROWS = 20  # of a table on the screen

MAX_LENGTH = 1024  # tokens per text, where none is asked for

SHOWN = ("subset", "item_id", "margin", "credit", "chance", "chosen_reward", "n_tokens", "is_truncated")  # of rewards

EXAMPLES = """examples:
  tension evaluate Ray2333/gpt2-large-helpful-reward_model Anthropic/hh-rlhf
  tension score my-model my-pairs --template chat --output rewards.parquet
  tension neurons my-model reward-bench --kind attribution --fraction 0.01
  tension ablate my-model data/rm-bench --layout rm-bench --fraction 0.1 --n-draws 20
  tension overlap helpful-model harmless-model my-pairs --fraction 0.1

MODEL is a folder or public name of a one-label sequence classifier; DATA a folder or public dataset name in the layout
of HH-RLHF, or the name of a benchmark. Exit code: 0 done, 1 stopped or failed, 2 bad input.
"""


class _Parser(argparse.ArgumentParser):
    """A parser that tells what is wrong in one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _whole(text: str) -> int:
    """Return the whole number of an argument."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number; got {text!r}") from None


def _place(text: str) -> str:
    """Return the name of a folder or of something public, which no empty text is."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a folder or a public name; got {text!r}")
    return text


def _number(text: str) -> float:
    """Return the number of an argument."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number; got {text!r}") from None


class _Subject(NamedTuple):
    """A loaded reward model, how texts are put for it, and how many tokens of one it reads."""

    model: Any
    tokenizer: Any
    template: str
    max_length: int


def _load(options: argparse.Namespace, name: str) -> _Subject:
    from tension_utils.data import resolve_template
    from tension_utils.models import load_reward_model, load_tokenizer
    from tension_utils.training import pick_device

    device = pick_device()
    if options.device == "cuda" and device.type != "cuda":
        raise ValueError("--device cuda: expected a GPU that PyTorch can use; there is none; choose cpu")
    options.device = options.device if options.device != "auto" else device.type
    tokenizer = load_tokenizer(name, pad_with_eos=True)
    template = resolve_template(tokenizer, options.template)
    model = load_reward_model(name, dtype=options.precision, device=options.device)
    context, asked = getattr(model.config, "max_position_embeddings", None), options.max_length
    if asked and context and asked > context:
        raise ValueError(f"--max-length: expected at most {context}, the context of {name}; got {asked}")
    return _Subject(model, tokenizer, template, asked or min(MAX_LENGTH, context or MAX_LENGTH))


def _items(options: argparse.Namespace) -> list:
    """Return the first prompts of every subset; of a folder in the layout of HH-RLHF, of the subsets that it has."""
    from tension_utils.artifacts import user_path
    from tension_utils.benchmarks.items import BenchmarkUnavailable
    from tension_utils.benchmarks.load import HH_SUBSETS, first_prompts, load_benchmark

    name, source = (options.data, None) if options.data in BENCHMARKS else (options.layout, options.data)
    folder, subsets = user_path(options.data), {o: getattr(options, o) for o in SINGLE_OBJECTIVES}
    if not any(subsets.values()):
        there = {o: [subset for subset in names if (folder / subset).is_dir()] for o, names in HH_SUBSETS.items()}
        subsets = there if any(there.values()) else HH_SUBSETS
    subsets = {objective: names or () for objective, names in subsets.items()}
    try:
        items = load_benchmark(name, source, subsets=subsets, unusable_items=options.unusable_items)
    except BenchmarkUnavailable as error:
        raise FileNotFoundError(str(error)) from error
    return first_prompts(items, options.n_items)


def _groups(subject: _Subject, items: list) -> list:
    """Return prompts as tokens, and say how many items are too long."""
    from tension_utils.evaluation import group_by_prompt

    groups, left_out = group_by_prompt(subject.tokenizer, items, subject.max_length, subject.template)
    for reason, lost in left_out.items():
        if lost:
            print(f"tension: left out {len(lost)} of {len(items)} items: {reason}", file=sys.stderr)
    return groups


def score(options: argparse.Namespace) -> "pd.DataFrame":
    """Return one row per item: its rewards, margin and credit."""
    from tension_utils.evaluation import score_groups

    subject = _load(options, options.model)
    groups = _groups(subject, _items(options))
    table = score_groups(*subject[:2], groups, tokens_per_batch=options.tokens_per_batch)
    return table.assign(template=subject.template)


def evaluate(options: argparse.Namespace) -> "pd.DataFrame":
    """Return the accuracy on every subset, with its interval over prompts and chance."""
    from tension_utils.statistics import accuracy_table

    table = accuracy_table(score(options).assign(seed=0), ["template", "benchmark", "subset"])
    return table.drop(columns=["seed_std", "n_seeds"])


def _scores(options: argparse.Namespace, subject: _Subject, items: list) -> "np.ndarray":
    """Return the neuron scores (L, N) of one kind on items."""
    from tension_utils.activations import BASED_KINDS, neuron_scores
    from tension_utils.models import load_base_model

    kept, base = [item for group in _groups(subject, items) for item in group.items], None
    if options.kind in BASED_KINDS:
        if not options.base_model:
            raise ValueError(
                f"--kind {options.kind} compares with the model before training: expected its name or folder as "
                "--base-model"
            )
        base = load_base_model(options.base_model, dtype=options.precision, device=options.device)
    settings = {"max_length": subject.max_length, "tokens_per_batch": options.tokens_per_batch}
    settings |= {"kinds": options.kind, "base_model": base, "template": subject.template}
    return neuron_scores(*subject[:2], kept, **settings).get(options.kind)


def neurons(options: argparse.Namespace) -> "pd.DataFrame":
    """Return the top neurons, highest score first."""
    import pandas as pd

    from tension_utils.neurons import top_neurons

    values = _scores(options, _load(options, options.model), _items(options))
    top = top_neurons(values, options.fraction).neurons
    table = pd.DataFrame(top, columns=["layer", "index"])
    table[options.kind] = [values[neuron] for neuron in top]
    return table.sort_values(options.kind, ascending=False, kind="stable", ignore_index=True)


def ablate(options: argparse.Namespace) -> "pd.DataFrame":
    """Return what removing the top neurons does, against random sets with the same count in every layer.

    Every second prompt selects the neurons, the others measure what their removal does.
    """
    import numpy as np
    import pandas as pd
    from tqdm import tqdm

    from tension_utils.ablation import ablated
    from tension_utils.evaluation import score_groups
    from tension_utils.neurons import top_neurons
    from tension_utils.statistics import ablation_effects

    items, subject = _items(options), _load(options, options.model)
    selecting = set(list(dict.fromkeys(item.cluster for item in items))[::2])
    values = _scores(options, subject, [item for item in items if item.cluster in selecting])
    groups = _groups(subject, [item for item in items if item.cluster not in selecting])
    label = {"base_model": options.model, "objective": "", "seed": 0}

    def rows() -> "pd.DataFrame":
        table = score_groups(*subject[:2], groups, tokens_per_batch=options.tokens_per_batch, progress=False)
        return table.assign(**label)

    intact, top, tables = rows(), top_neurons(values, options.fraction), []
    draws = top.matched_random(np.random.default_rng(options.seed), options.n_draws)
    sets = [(options.kind, 0, top), *(("random", draw, drawn) for draw, drawn in enumerate(draws))]
    for name, draw, removed in tqdm(sets, desc="ablate", unit="set"):
        with ablated(subject.model, removed):
            condition = {"set": name, "draw": draw, "fraction": options.fraction, "ablation_kind": "zero"}
            tables.append(rows().assign(**condition))
    effects = ablation_effects(pd.concat(tables, ignore_index=True), intact, ["set", "fraction", "ablation_kind"])
    return effects.drop(columns="n_seeds").assign(n_neurons=len(top), template=subject.template)


def overlap(options: argparse.Namespace) -> "pd.DataFrame":
    """Return the overlap of the top neurons of two models on the same items, with its chance."""
    import pandas as pd

    from tension_utils.analysis.overlap import compare_sets
    from tension_utils.neurons import top_neurons

    items, sets, kinds = _items(options), [], []
    for name in (options.model, options.other):
        subject = _load(options, name)
        values = _scores(options, subject, items)
        sets.append(top_neurons(values, options.fraction))
        kinds.append((subject.model.config.model_type, *values.shape))
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"{options.other}: expected the architecture, layers and neurons of {options.model}, {kinds[0]}; got "
            f"{kinds[1]}; neurons of different networks cannot be compared"
        )
    label = {"first": options.model, "second": options.other, "score_kind": options.kind, "template": subject.template}
    return pd.DataFrame([label | compare_sets(*sets)])


COMMANDS: dict[str, Callable[[argparse.Namespace], "pd.DataFrame"]] = {
    "score": score,
    "evaluate": evaluate,
    "neurons": neurons,
    "ablate": ablate,
    "overlap": overlap,
}


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser("tension", description=__doc__.splitlines()[0], epilog=EXAMPLES, formatter_class=raw)
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for name, function in COMMANDS.items():
        text = function.__doc__.strip()
        one = commands.add_parser(
            name, help=text.splitlines()[0], description=text, epilog=EXAMPLES, formatter_class=raw
        )
        one.add_argument("model", type=_place, metavar="MODEL", help="folder or public name of a reward model")
        if name == "overlap":
            one.add_argument("other", type=_place, metavar="MODEL2", help="another one of the same architecture")
        data = f"folder or public name, or one of {', '.join(BENCHMARKS)}"
        one.add_argument("data", type=_place, metavar="DATA", help=data)
        _add_options(one)
        if name not in ("score", "evaluate"):
            _add_neuron_options(one)
        if name == "ablate":
            one.add_argument("--n-draws", type=_whole, default=8, help="random sets (8)")
            one.add_argument("--seed", type=_whole, default=0, help="of the random sets (0)")
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--template", choices=TEMPLATE_NAMES, help="of the texts: hh (HH-RLHF), chat (the tokenizer's own), published")
    add("--layout", choices=BENCHMARKS, default="hh-rlhf", help="what a folder or public name holds (hh-rlhf)")
    for objective in SINGLE_OBJECTIVES:
        add(f"--{objective}", nargs="+", metavar="SUBSET", help=f"folders of a data set whose pairs are {objective}")
    add("--n-items", type=_whole, default=100, help="prompts per subset; 0 takes all (100)")
    add("--unusable-items", choices=BAD_PAIRS, default="drop", help="what to do with an unusable row (drop)")
    about = f"tokens per text; longer prompts lose their left part ({MAX_LENGTH}, or the model's context)"
    add("--max-length", type=_whole, help=about)
    add("--tokens-per-batch", type=_whole, help="tokens computed together")
    add("--precision", choices=("float32", "bfloat16"), default="float32", help="of the backbone (float32)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one (auto)")
    add("--output", type=Path, metavar="FILE.parquet", help="write the whole table")
    add("--force", action="store_true", help="replace FILE.parquet")


def _add_neuron_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", choices=SCORE_KINDS, default="attribution", help="neuron score (attribution)")
    parser.add_argument("--fraction", type=_number, default=0.01, help="share of all neurons in a set (0.01)")
    parser.add_argument("--base-model", help="model before training, for rms_change and relative_change")


def _check(options: argparse.Namespace) -> None:
    """Check what no function below checks, before anything is loaded."""
    lowest = {"n_items": 0, "max_length": 8, "tokens_per_batch": 1, "n_draws": 1, "seed": 0}
    for name, low in lowest.items():
        value = getattr(options, name, None)
        if value is not None and value < low:
            raise ValueError(f"--{name.replace('_', '-')}: expected at least {low}; got {value}")
    if not 0 < getattr(options, "fraction", 0.5) < 1:
        raise ValueError(f"--fraction: expected more than 0 and less than 1; got {options.fraction}")
    if options.output and options.output.suffix != ".parquet":
        raise ValueError(f"--output: expected a file name that ends with .parquet; got {options.output}")
    if options.output and not next(parent for parent in options.output.parents if parent.exists()).is_dir():
        raise ValueError(f"--output: expected a file in a folder; got {options.output}, whose folder is a file")
    if options.output and options.output.exists() and not options.force:
        raise ValueError(f"--output: {options.output} is there; name another file, or replace it with --force")


def _tell(
    message: object, category: type, filename: str, lineno: int, file: object = None, line: object = None
) -> None:
    print(f"tension: {message}", file=sys.stderr)


def _run(options: argparse.Namespace) -> None:
    _check(options)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    table = COMMANDS[options.command](options)
    if options.output:
        from tension_utils.artifacts import atomic_path

        with atomic_path(options.output) as temporary:
            table.to_parquet(temporary, index=False)
    shown = table[list(SHOWN)] if options.command == "score" else table
    print(shown.head(N_ROWS).to_string(index=False, float_format="{:.4g}".format))
    if len(table) > N_ROWS:
        print(f"... and {len(table) - N_ROWS} more rows; --output FILE.parquet writes all")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 stopped, 2 bad input, told in one line.

    Args:
        arguments: of the command; None takes those of the process.
    """
    try:
        options = _parser().parse_args(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _tell
            _run(options)
    except SystemExit as end:  # after --help, or a command line that argparse refuses
        return end.code
    except KeyboardInterrupt:
        print("tension: stopped", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        said = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in " ".join(str(error).split()))
        print(f"tension {options.command}: {said}", file=sys.stderr)
        return 2
    return 0
