"""From a row of a preference dataset to an item and its tokens; splits, and what every arm is trained on."""

import dataclasses
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from datasets import load_dataset
from datasets.exceptions import DatasetGenerationError
from jinja2 import TemplateError
from numpy.typing import ArrayLike
from scipy.special import comb
from transformers import PreTrainedTokenizerFast

from tension_utils.artifacts import read_jsonl
from tension_utils.config import ARMS, SINGLE_OBJECTIVES, TEMPLATE_NAMES, DataConfig, check_choice

ROLE_NAMES = {"human": "Human", "assistant": "Assistant"}


@dataclass(frozen=True)
class Turn:
    """One turn of a dialogue: ``role`` is a key of `MESSAGE_ROLES`, ``content`` its text without surrounding space."""

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


# "hh" is the text of HH-RLHF, in which reward models are trained here. "published" is how the paper formatted its
# benchmarks: METHOD.md, section 2, fact 16. The third of `config.TEMPLATE_NAMES` is the tokenizer's own.
TEMPLATES = {"hh": Template(start="\n\n", gap=" "), "published": Template(start="", gap="")}

CHAT = "chat"

MESSAGE_ROLES = {"system": "system", "human": "user", "assistant": "assistant"}  # of a turn -> of a chat message


def render_prompt(turns: Sequence[Turn], template: str = "hh") -> str:
    r"""Return the text before a response, of a template of `TEMPLATES`; a system turn opens the next human one.

    >>> render_prompt([Turn("human", "Hi")])
    '\n\nHuman: Hi\n\nAssistant:'
    >>> render_prompt([Turn("human", "Hi")], "published")
    'Human:Hi\n\nAssistant:'
    >>> render_prompt([Turn("system", "Be brief."), Turn("human", "Hi")])
    '\n\nHuman: Be brief.\n\nHi\n\nAssistant:'
    """
    picked = TEMPLATES[check_choice("template", template, TEMPLATES)]
    said, system = [], []
    for turn in turns:
        if turn.role == "system":
            system.append(turn.content)
            continue
        before, system = (system, []) if turn.role == "human" else ([], system)
        said.append(f"{ROLE_NAMES[turn.role]}:{picked.gap}" + "\n\n".join([*before, turn.content]))
    return picked.start + "\n\n".join([*said, f"{ROLE_NAMES['assistant']}:"])


def render_response(response: str, template: str = "hh") -> str:
    """Return a response as it follows `render_prompt`: the template's gap, then the text."""
    return f"{TEMPLATES[check_choice('template', template, TEMPLATES)].gap}{response}"


def resolve_template(tokenizer: PreTrainedTokenizerFast, template: str | None) -> str:
    """Return the template's name; None is "hh", with a warning where the tokenizer has a chat template of its own.

    Raises:
        ValueError: for an unknown name, or for "chat" where the tokenizer has none.
    """
    if template is None:
        if tokenizer.chat_template:
            warnings.warn(
                f"{tokenizer.name_or_path}: its tokenizer has a chat template, and texts are put in that of HH-RLHF; "
                "pass template='chat' to use its own, or template='hh' if that is meant",
                stacklevel=2,
            )
        return "hh"
    check_choice("template", template, TEMPLATE_NAMES)
    if template == CHAT and not tokenizer.chat_template:
        raise ValueError(
            f"template: 'chat' needs a chat template, and the tokenizer of {tokenizer.name_or_path} has none; "
            "choose 'hh', or put the template that the model was trained with into tokenizer_config.json"
        )
    return template


def render_chat(tokenizer: PreTrainedTokenizerFast, item: Item) -> tuple[list[str], int]:
    """Return the whole text of every response in the tokenizer's chat template, and where a response begins in it.

    The template writes all special tokens, so that none are added to these texts.

    Raises:
        ValueError: if there is no template, or it refuses these turns (some take no system turn).
    """
    resolve_template(tokenizer, CHAT)
    prompt = [{"role": MESSAGE_ROLES[turn.role], "content": turn.content} for turn in item.prompt]

    def render(response: str) -> str:
        messages = [*prompt, {"role": "assistant", "content": response}]
        try:
            return tokenizer.apply_chat_template(messages, tokenize=False)
        except TemplateError as error:
            raise ValueError(
                f"item {item.item_id}: the chat template of {tokenizer.name_or_path} refuses the turns "
                f"{', '.join(message['role'] for message in messages)}: {error}; drop the item or choose template 'hh'"
            ) from error

    return [render(response) for response in item.responses], common_prefix_length([render("x"), render("y")])


class ResponseTooLongError(ValueError):
    """A response that leaves no room for its prompt within the sequence length."""


@dataclass(frozen=True)
class TokenizedItem:
    """Token ids of an item's responses, each with its prompt and special tokens.

    Args:
        sequences: m + k sequences of token ids, chosen first; prompt + response + EOS after truncation, or what a chat
            template puts there.
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


def common_prefix_length(sequences: Sequence[Sequence]) -> int:
    """Return how many leading tokens, or characters, all sequences share.

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

    Raises:
        ValueError: if the tokenizer has no EOS token.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"{tokenizer.name_or_path}: the tokenizer has no EOS token, which texts of this template end with; set "
            "`eos_token` in tokenizer_config.json, or choose template 'chat'"
        )
    inner, whole = (tokenizer("x", add_special_tokens=has)["input_ids"] for has in (False, True))
    start = next((i for i in range(len(whole)) if whole[i : i + len(inner)] == inner), 0)
    after = whole[start + len(inner) :]
    return tuple(whole[:start]), (*after, *([tokenizer.eos_token_id] if after[-1:] != [tokenizer.eos_token_id] else []))


@dataclass(frozen=True)
class _Texts:
    """The text of every response with its prompt, where the response begins in it, and tokens to put around it."""

    texts: list[str]
    border: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


def _texts_of(tokenizer: PreTrainedTokenizerFast, item: Item, template: str) -> _Texts:
    """Put an item's turns and responses into a template."""
    if check_choice("template", template, TEMPLATE_NAMES) == CHAT:
        return _Texts(*render_chat(tokenizer, item))
    prompt = render_prompt(item.prompt, template)
    texts = [prompt + render_response(response, template) for response in item.responses]
    return _Texts(texts, len(prompt), *special_tokens(tokenizer))


def tokenize_item(
    tokenizer: PreTrainedTokenizerFast, item: Item, max_length: int, template: str = "hh"
) -> TokenizedItem:
    """Tokenize prompt and response as one text, as training does, and find what the responses share.

    A merge may cross the border between prompt and response, so the text is tokenized jointly and the shared part is
    the longest common prefix of tokens. If the longest sequence exceeds ``max_length``, the same number of tokens is
    dropped from the left of every text, so that all responses of an item see the same prompt. The special tokens that
    the tokenizer puts around a text, or the BOS that a chat template begins with, stay.

    Args:
        tokenizer: a fast tokenizer, with an EOS token unless the template is "chat".
        item: the item.
        max_length: tokens per sequence, EOS included.
        template: of `config.TEMPLATE_NAMES`.

    Returns:
        The token ids and their borders.

    Raises:
        ResponseTooLongError: if a response leaves no room for a single prompt token.
        ValueError: for an unknown template, or one that does not fit the tokenizer or the item.
    """
    found = _texts_of(tokenizer, item, template)
    sequences, response_starts = [], []
    for text in found.texts:
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in encoding["offset_mapping"]]
        start = next((i for i, end in enumerate(ends) if end > found.border), len(ends))
        response_starts.append(len(found.before) + start)
        sequences.append((*found.before, *encoding["input_ids"], *found.after))
    is_started = template == CHAT and {ids[0] for ids in sequences} == {tokenizer.bos_token_id}
    n_kept = len(found.before) + is_started
    n_truncated = max(0, max(map(len, sequences)) - max_length)
    if n_kept + n_truncated >= min(response_starts):
        longest = max(len(ids) - start for ids, start in zip(sequences, response_starts, strict=True))
        raise ResponseTooLongError(
            f"item {item.item_id}: a response of {longest} tokens leaves no room for its prompt within "
            f"max_length={max_length}; raise max_length or drop the item"
        )
    sequences = [ids[:n_kept] + ids[n_kept + n_truncated :] for ids in sequences]
    n_shared = min(common_prefix_length(sequences), min(map(len, sequences)) - 1)
    return TokenizedItem(
        sequences=tuple(sequences),
        n_chosen=len(item.chosen),
        n_shared=n_shared,
        response_starts=tuple(start - n_truncated for start in response_starts),
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
