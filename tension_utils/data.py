"""From a row of a preference dataset to an item and its tokens; splits, and what every arm is trained on."""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from datasets import load_dataset
from datasets.exceptions import DatasetGenerationError
from numpy.typing import ArrayLike
from scipy.special import comb
from transformers import PreTrainedTokenizerFast

from tension_utils.artifacts import read_jsonl
from tension_utils.config import ARMS, SINGLE_OBJECTIVES, DataConfig, check_choice

ROLE_NAMES = {"human": "Human", "assistant": "Assistant"}


@dataclass(frozen=True)
class Turn:
    """One turn of a dialogue: ``role`` is a key of `ROLE_NAMES`, ``content`` its text without surrounding space."""

    role: str
    content: str


@dataclass(frozen=True)
class Item:
    """One prompt with m >= 1 chosen and k >= 1 rejected responses.

    Args:
        item_id: unique within its source.
        prompt: the turns before the response; the last one is human.
        chosen: m responses that the label prefers to every rejected one.
        rejected: k responses.
    """

    item_id: str
    prompt: tuple[Turn, ...]
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]

    @property
    def responses(self) -> tuple[str, ...]:
        """Chosen responses, then rejected ones."""
        return self.chosen + self.rejected


def pair(prompt: str, chosen: str, rejected: str, item_id: str = "pair") -> Item:
    """Return an item of one question and two answers.

    >>> pair("Hi", chosen="Hello", rejected="No").responses
    ('Hello', 'No')
    """
    return Item(item_id, (Turn("human", prompt.strip()),), (chosen.strip(),), (rejected.strip(),))


def chance_credit(n_chosen: ArrayLike, n_rejected: ArrayLike) -> np.ndarray:
    """Return the expected credit of random rewards, 1 / C(c + j, c).

    Args:
        n_chosen (...,): c >= 1, responses that must all rank above the rejected ones.
        n_rejected (...,): j >= 1.

    Raises:
        ValueError: a count is below 1.

    Source: ours; the study leaves chance out, and it differs between tasks (METHOD section 2, fact 11).

    >>> chance_credit([1, 1, 2], [1, 3, 2]).round(3).tolist()
    [0.5, 0.25, 0.167]
    """
    n_chosen, n_rejected = np.asarray(n_chosen), np.asarray(n_rejected)
    if (n_chosen < 1).any() or (n_rejected < 1).any():
        raise ValueError("expected at least one chosen and one rejected response per item")
    return 1.0 / comb(n_chosen + n_rejected, n_chosen)


@dataclass(frozen=True)
class BenchmarkItem(Item):
    """An item with its place in a benchmark.

    Args:
        benchmark: key of `benchmarks.BENCHMARKS`.
        subset: part of the benchmark; accuracies are reported per (benchmark, subset).
        group: which side of the study it belongs to, one of `GROUPS`.
        direction: "refuse" if the chosen response declines and the rejected one answers, "respond" if the other way
            round, "none" if the item does not set the two against each other or it is not known.
        cluster: items with the same prompt share it; intervals resample clusters.
        style: in RM-Bench, "hard" if the rejected response is of richer style than the chosen one, "normal" if they
            match, "easy" if it is plainer; elsewhere "".
    """

    benchmark: str
    subset: str
    group: str
    direction: str
    cluster: str
    style: str = ""

    @property
    def chance(self) -> float:
        """Probability that random rewards rank every chosen response above every rejected one: 1 / C(m + k, m)."""
        return float(chance_credit(len(self.chosen), len(self.rejected)))


@dataclass(frozen=True)
class Template:
    """How turns become text.

    Args:
        start: text before the first turn.
        gap: text between a role's colon and what it says.
    """

    start: str
    gap: str


# "training" is the text of HH-RLHF, used wherever nothing else is said. "published" is how the paper formatted its
# benchmarks: METHOD.md, section 2, fact 16; only the check of template sensitivity uses it.
TEMPLATES = {"training": Template(start="\n\n", gap=" "), "published": Template(start="", gap="")}


def pick_template(name: str) -> Template:
    """Return a template by name.

    Raises:
        ValueError: for an unknown name; lists the known ones.
    """
    return TEMPLATES[check_choice("template", name, TEMPLATES)]


def render_prompt(turns: Sequence[Turn], template: str = "training") -> str:
    r"""Return the text before a response.

    >>> render_prompt([Turn("human", "Hi")])
    '\n\nHuman: Hi\n\nAssistant:'
    >>> render_prompt([Turn("human", "Hi")], "published")
    'Human:Hi\n\nAssistant:'
    """
    picked = pick_template(template)
    said = [f"{ROLE_NAMES[turn.role]}:{picked.gap}{turn.content}" for turn in turns]
    return picked.start + "\n\n".join([*said, f"{ROLE_NAMES['assistant']}:"])


def render_response(response: str, template: str = "training") -> str:
    """Return a response as it follows `render_prompt`: the template's gap, then the text."""
    return f"{pick_template(template).gap}{response}"


class ResponseTooLongError(ValueError):
    """A response that leaves no room for its prompt within the sequence length."""


@dataclass(frozen=True)
class TokenizedItem:
    """Token ids of an item's responses, each with its prompt and EOS.

    Args:
        sequences: m + k sequences of token ids, chosen first; prompt + response + EOS after truncation.
        n_chosen: m.
        n_shared: length of the longest common token prefix of all sequences, at most the shortest length - 1.
        response_starts: per sequence, index of the first token that holds a character of the response.
        n_truncated: tokens dropped from the left of the prompt, the same number for every sequence.
    """

    sequences: tuple[tuple[int, ...], ...]
    n_chosen: int
    n_shared: int
    response_starts: tuple[int, ...]
    n_truncated: int


def common_prefix_length(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens all sequences share.

    >>> common_prefix_length([[1, 2, 3], [1, 2, 4, 5]])
    2
    """
    first, last = min(sequences), max(sequences)
    length = min(len(first), len(last))
    return next((i for i in range(length) if first[i] != last[i]), length)


@lru_cache(maxsize=8)
def special_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the token ids that a tokenizer puts before and after any text, and EOS, which training asks for.

    Most put nothing before it, Gemma and Llama 3 a start token. EOS is at the end once, whether or not the tokenizer
    puts it there. Source: TRL's RewardTrainer, which calls the tokenizer as it is and adds EOS where it is missing.
    """
    inner, whole = (tokenizer("x", add_special_tokens=has)["input_ids"] for has in (False, True))
    start = next((i for i in range(len(whole)) if whole[i : i + len(inner)] == inner), 0)
    after = whole[start + len(inner) :]
    return tuple(whole[:start]), (*after, *([tokenizer.eos_token_id] if after[-1:] != [tokenizer.eos_token_id] else []))


def tokenize_item(
    tokenizer: PreTrainedTokenizerFast, item: Item, max_length: int, template: str = "training"
) -> TokenizedItem:
    """Tokenize prompt and response as one text, as training does, and find what the responses share.

    A merge may cross the border between prompt and response, so the text is tokenized jointly and the shared part is
    the longest common prefix of tokens. If the longest sequence exceeds ``max_length``, the same number of tokens is
    dropped from the left of every text, so that all responses of an item see the same prompt. The tokenizer's special
    tokens are put around every text and stay.

    Args:
        tokenizer: a fast tokenizer with an EOS token.
        item: the item.
        max_length: tokens per sequence, EOS included.
        template: key of `TEMPLATES`.

    Returns:
        The token ids and their borders.

    Raises:
        ResponseTooLongError: if a response leaves no room for a single prompt token.
        ValueError: for an unknown template.
    """
    prompt_text, (before, after) = render_prompt(item.prompt, template), special_tokens(tokenizer)
    sequences, response_starts = [], []
    for response in item.responses:
        text = prompt_text + render_response(response, template)
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in encoding["offset_mapping"]]
        response_starts.append(next((i for i, end in enumerate(ends) if end > len(prompt_text)), len(ends)))
        sequences.append((*encoding["input_ids"], *after))
    n_truncated = max(0, len(before) + max(map(len, sequences)) - max_length)
    if n_truncated >= min(response_starts):
        longest = max(len(ids) - start for ids, start in zip(sequences, response_starts, strict=True))
        raise ResponseTooLongError(
            f"item {item.item_id}: a response of {longest} tokens leaves no room for its prompt within "
            f"max_length={max_length}; raise max_length or drop the item"
        )
    sequences = [(*before, *ids[n_truncated:]) for ids in sequences]
    n_shared = min(common_prefix_length(sequences), min(map(len, sequences)) - 1)
    return TokenizedItem(
        sequences=tuple(sequences),
        n_chosen=len(item.chosen),
        n_shared=n_shared,
        response_starts=tuple(len(before) + start - n_truncated for start in response_starts),
        n_truncated=n_truncated,
    )


ANSWER_MARK = "\n\nAssistant:"

TURN_PATTERN = re.compile(r"\n\n(Human|Assistant):")

ROLES = {name: role for role, name in ROLE_NAMES.items()}


class BadPairError(ValueError):
    """A row that is no usable preference pair; ``reason`` is a short key for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Split:
    """Items of one split with their original rows, and how many rows were left out for which reason."""

    items: tuple[Item, ...]
    rows: tuple[dict, ...]
    n_dropped: dict[str, int]


@dataclass(frozen=True)
class TrainingPairs:
    """Disjoint training and validation items of one objective, and how many rows were left out for which reason."""

    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    n_dropped: dict[str, int]


def is_local(source: str) -> bool:
    """Say whether ``source`` means a folder; a public name has the form ``owner/name``."""
    return Path(source).is_dir() or source.startswith((".", "/", "~")) or source.count("/") > 1


def local_files(source: str, subset: str, split: str) -> list[Path]:
    """Return the JSONL files of one split in a local folder.

    Raises:
        FileNotFoundError: if the folder, its subset or the split is missing; says what is there.
    """
    folder = Path(source).expanduser() / subset
    if not folder.is_dir():
        parent = folder.parent
        there = f"{parent} has {sorted(p.name for p in parent.glob('*/'))}" if parent.is_dir() else f"no {parent} here"
        raise FileNotFoundError(f"data_source: expected the folder {folder}; {there}; mend data_source or subsets")
    present = sorted(folder.iterdir())
    files = [p for p in present if re.fullmatch(rf"{split}([-._ 0-9].*)?\.jsonl(\.gz)?", p.name)]
    if not files:
        raise FileNotFoundError(
            f"data_source: expected a file {split}.jsonl or {split}.jsonl.gz in {folder}; it has "
            f"{[p.name for p in present]}"
        )
    return files


def load_rows(source: str, subset: str, split: str) -> tuple[list[dict], list[str]]:
    """Load one split with ``datasets.load_dataset(source, data_dir=subset)``.

    Returns:
        The rows, and where each comes from: file and line of a local folder, number of a public dataset's row.

    Raises:
        FileNotFoundError: if the folder, its subset or the split is missing, or the public name cannot be reached.
        ValueError: if a line is not JSON (names file and line), or there is no row.
    """
    places = []
    if is_local(source):
        files = local_files(source, subset, split)
        places = [f"{file}, line {number}" for file in files for number, _ in read_jsonl(file)]
        if not places:
            raise ValueError(f"{files[0]}: expected at least one pair; the file is empty, make or copy it again")
        source = str(Path(source).expanduser())
    try:
        rows = load_dataset(source, data_dir=subset, split=split).to_list()
    except DatasetGenerationError as error:
        raise ValueError(f"data_source: {source}/{subset}, split {split}, could not be read: {error}") from error
    except (ConnectionError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"data_source: {source!r} is neither a folder here nor a public dataset that can be reached: {error}"
        ) from error
    if places and len(rows) != len(places):
        raise ValueError(
            f"data_source: expected {len(places)} rows, the lines of {[str(file) for file in files]}; datasets read "
            f"{len(rows)}; keep no other files of this split in the folder"
        )
    return rows, places or [f"{source}/{subset}/{split}, row {number}" for number in range(1, len(rows) + 1)]


def parse_dialogue(text: str) -> tuple[tuple[Turn, ...], str]:
    r"""Split a dialogue into the turns before the last answer, and that answer.

    >>> parse_dialogue("\n\nHuman: Hi\n\nAssistant: Hello")
    ((Turn(role='human', content='Hi'),), 'Hello')
    """
    before, mark, response = text.rpartition(ANSWER_MARK)
    start, *parts = TURN_PATTERN.split(before)
    turns = tuple(Turn(ROLES[role], said.strip()) for role, said in zip(parts[::2], parts[1::2], strict=True))
    is_answer = mark and not TURN_PATTERN.search(response)
    if not is_answer or start.strip() or not turns or turns[-1].role != "human":
        raise BadPairError(
            "no dialogue", "expected turns '\\n\\nHuman: ...\\n\\nAssistant: ...' that end with an answer"
        )
    return turns, response.strip()


def parse_pair(row: dict, place: str) -> Item:
    """Turn a row of the HH-RLHF layout into an item.

    Raises:
        BadPairError: if a field is missing, a response is empty, both are the same, or the prompts differ.
    """
    try:
        for field in ("chosen", "rejected"):
            if not isinstance(row.get(field), str):
                got = {name: type(value).__name__ for name, value in row.items() if value is not None}
                raise BadPairError("missing field", f"expected a text field {field!r}; got {got}")
        (prompt, chosen), (other_prompt, rejected) = parse_dialogue(row["chosen"]), parse_dialogue(row["rejected"])
        if prompt != other_prompt:
            raise BadPairError("different prompts", "expected chosen and rejected to answer the same prompt")
        if not chosen or not rejected:
            raise BadPairError("empty response", "expected two non-empty responses")
        if chosen == rejected:
            raise BadPairError("identical responses", "expected chosen and rejected to differ")
    except BadPairError as error:
        raise BadPairError(error.reason, f"{place}: {error}; mend or remove the row, or set bad_pairs='drop'") from None
    return Item(place, prompt, (chosen,), (rejected,))


def read_split(source: str, subset: str, split: str, bad_pairs: str = "error") -> Split:
    """Read and check one split of one subset.

    Args:
        source: public dataset name or local folder of the layout of Anthropic/hh-rlhf.
        subset: its folder, such as "helpful-base".
        split: "train" or "test".
        bad_pairs: "error" stops at the first unusable row, "drop" leaves it out and counts it.

    Raises:
        FileNotFoundError, ValueError: see `load_rows` and `parse_pair`.
    """
    rows, places = load_rows(source, subset, split)
    items, kept, n_dropped = [], [], Counter()
    for number, (row, place) in enumerate(zip(rows, places, strict=True), start=1):
        try:
            item = parse_pair(row, place)
        except BadPairError as error:
            if bad_pairs == "error":
                raise
            n_dropped[error.reason] += 1
            continue
        items.append(Item(f"{subset}/{split}/{number}", item.prompt, item.chosen, item.rejected))
        kept.append(row)
    if not items:
        raise ValueError(
            f"{source}/{subset}, split {split}: expected at least one usable pair; got {len(rows)} rows, left out "
            f"{dict(n_dropped)}"
        )
    return Split(tuple(items), tuple(kept), dict(n_dropped))


def split_single(config: DataConfig, objective: str, seed: int) -> TrainingPairs:
    """Shuffle the pairs of a single objective by ``seed`` and cut validation, then training pairs.

    Raises:
        ValueError: if there are fewer pairs than asked for.
    """
    splits = [read_split(config.source, subset, "train", config.bad_pairs) for subset in config.subsets[objective]]
    items = [item for split in splits for item in split.items]
    n_validation, n_train = config.n_validation_pairs, config.n_train_pairs or len(items) - config.n_validation_pairs
    if n_train < 1 or len(items) < n_validation + n_train:
        raise ValueError(
            f"n_train_pairs: expected at most {len(items) - n_validation} for {objective} "
            f"({len(items)} pairs, {n_validation} of them for validation); got {config.n_train_pairs}"
        )
    rng = np.random.default_rng([seed, SINGLE_OBJECTIVES.index(objective)])
    order = [items[i] for i in rng.permutation(len(items))]
    n_dropped = sum((Counter(split.n_dropped) for split in splits), Counter())
    return TrainingPairs(
        tuple(order[n_validation : n_validation + n_train]), tuple(order[:n_validation]), dict(n_dropped)
    )


def training_pairs(config: DataConfig, arm: str, seed: int) -> TrainingPairs:
    """Return the training and validation pairs of any of `config.ARMS`.

    A mixed arm uses the first of the very pairs that the single objectives use with this seed, as many of each as its
    shares say (a share of a pair counts down). Labels other than the given ones are made here, for validation pairs
    too.

    Raises:
        ValueError: if there are fewer pairs than asked for, or a share leaves none.
    """
    shares = {objective: getattr(ARMS[arm], objective) for objective in SINGLE_OBJECTIVES}
    parts = {objective: split_single(config, objective, seed) for objective, share in shares.items() if share}
    rng = np.random.default_rng([seed, len(SINGLE_OBJECTIVES)])

    def mix(split: str) -> tuple[Item, ...]:
        kept = []
        for objective, part in parts.items():
            items = getattr(part, split)
            n_kept = int(shares[objective] * len(items))
            if not n_kept:
                raise ValueError(
                    f"n_{split}_pairs: expected enough pairs for {arm}, which takes {shares[objective]:g} of the "
                    f"{objective} ones; got {len(items)}"
                )
            kept += items[:n_kept]
        return tuple(kept[i] for i in rng.permutation(len(kept))) if len(parts) > 1 else tuple(kept)

    train, validation = mix("train"), mix("validation")
    n_dropped = sum((Counter(part.n_dropped) for part in parts.values()), Counter())
    coin = np.random.default_rng([seed, *arm.encode()])
    return TrainingPairs(*(relabel(items, ARMS[arm].labels, coin) for items in (train, validation)), dict(n_dropped))


def relabel(items: tuple[Item, ...], labels: str, coin: np.random.Generator) -> tuple[Item, ...]:
    """Return the pairs with the labels of an arm: see `config.Arm`."""
    if labels == "given":
        return items
    if labels == "coin":
        is_swapped = coin.integers(2, size=len(items)).astype(bool)
    else:
        is_swapped = [len(item.rejected[0]) > len(item.chosen[0]) for item in items]
    return tuple(
        dataclasses.replace(item, chosen=item.rejected, rejected=item.chosen) if swap else item
        for item, swap in zip(items, is_swapped, strict=True)
    )
