"""From a row of a preference dataset to an item and its tokens; splits, and what every arm is trained on."""

import dataclasses
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import TemplateError
from numpy.typing import ArrayLike
from scipy.special import comb

from tension_utils.config import ARMS, SINGLE_OBJECTIVES, TEMPLATE_NAMES, DataConfig, check_choice
from tension_utils.pair_layouts import ROLE_NAMES, BadPairError, Pair, Turn, read_pair
from tension_utils.sources import load_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


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


def without_system(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    r"""Return the turns with every system turn put before the next human one, with an empty line between.

    >>> without_system([Turn("system", "Be brief."), Turn("human", "Hi")])
    (Turn(role='human', content='Be brief.\n\nHi'),)
    """
    kept, system = [], []
    for turn in turns:
        if turn.role == "system":
            system.append(turn.content)
            continue
        before, system = (system, []) if turn.role == "human" else ([], system)
        kept.append(Turn(turn.role, "\n\n".join([*before, turn.content])))
    return tuple(kept)


def render_prompt(turns: Sequence[Turn], template: str = "hh") -> str:
    r"""Return the text before a response, of a template of `TEMPLATES`; system turns by `without_system`.

    >>> render_prompt([Turn("human", "Hi")])
    '\n\nHuman: Hi\n\nAssistant:'
    >>> render_prompt([Turn("human", "Hi")], "published")
    'Human:Hi\n\nAssistant:'
    >>> render_prompt([Turn("system", "Be brief."), Turn("human", "Hi")])
    '\n\nHuman: Be brief.\n\nHi\n\nAssistant:'
    """
    picked = TEMPLATES[check_choice("template", template, TEMPLATES)]
    said = [f"{ROLE_NAMES[turn.role]}:{picked.gap}{turn.content}" for turn in without_system(turns)]
    return picked.start + "\n\n".join([*said, f"{ROLE_NAMES['assistant']}:"])


def render_response(response: str, template: str = "hh") -> str:
    """Return a response as it follows `render_prompt`: the template's gap, then the text."""
    return f"{TEMPLATES[check_choice('template', template, TEMPLATES)].gap}{response}"


def resolve_template(tokenizer: "PreTrainedTokenizerFast", template: str | None) -> str:
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
            f"template: 'chat': expected a chat template, and the tokenizer of {tokenizer.name_or_path} has none; "
            "choose 'hh', or put the template that the model was trained with into tokenizer_config.json"
        )
    return template


def render_chat(tokenizer: "PreTrainedTokenizerFast", item: Item) -> tuple[list[str], int]:
    """Return the whole text of every response in the tokenizer's chat template, and where a response begins in it.

    The template writes all special tokens, so that none are added to these texts. Some templates take no system turn:
    its text is put before the next human turn then.

    Raises:
        ValueError: if there is no template, or it refuses these turns.
    """
    resolve_template(tokenizer, CHAT)

    def written(turns: Sequence[Turn], response: str) -> str:
        messages = [{"role": MESSAGE_ROLES[turn.role], "content": turn.content} for turn in turns]
        return tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": response}], tokenize=False)

    try:
        written(prompt := item.prompt, "")
    except TemplateError:
        prompt = without_system(item.prompt)

    def render(response: str) -> str:
        try:
            return written(prompt, response)
        except TemplateError as error:
            raise ValueError(
                f"item {item.item_id}: the chat template of {tokenizer.name_or_path} refuses the turns "
                f"{', '.join(MESSAGE_ROLES[turn.role] for turn in prompt)}, assistant: {error}; drop the item or "
                "choose template 'hh'"
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
def special_tokens(tokenizer: "PreTrainedTokenizerFast") -> tuple[tuple[int, ...], tuple[int, ...]]:
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


def texts_of(tokenizer: "PreTrainedTokenizerFast", item: Item, template: str) -> _Texts:
    """Put an item's turns and responses into a template."""
    if check_choice("template", template, TEMPLATE_NAMES) == CHAT:
        return _Texts(*render_chat(tokenizer, item))
    prompt = render_prompt(item.prompt, template)
    texts = [prompt + render_response(response, template) for response in item.responses]
    return _Texts(texts, len(prompt), *special_tokens(tokenizer))


def tokenize_item(
    tokenizer: "PreTrainedTokenizerFast", item: Item, max_length: int, template: str = "hh"
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
    found = texts_of(tokenizer, item, template)
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


@dataclass(frozen=True)
class Split:
    """Items of one split with their original rows, how many rows were left out for which reason, and their layout."""

    items: tuple[Item, ...]
    rows: tuple[dict, ...]
    n_dropped: dict[str, int]
    layout: str


@dataclass(frozen=True)
class TrainingPairs:
    """Training and validation items of one objective, disjoint by content.

    Args:
        train: items.
        validation: items.
        n_dropped: rows left out, by reason; those that are in validation too are "also in validation".
        layouts: subset -> layout that its rows were read as.
    """

    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    n_dropped: dict[str, int]
    layouts: dict[str, str] = dataclasses.field(default_factory=dict)


def _as_item(found: Pair, item_id: str) -> Item:
    return Item(item_id, found.prompt, (found.chosen,), (found.rejected,))


UNUSABLE = {"train": "unusable_pairs", "test": "unusable_items"}  # split -> how a profile names what to do


def _read_placed(row: dict, place: str, split: str, objective: str) -> Pair:
    """Do what `pair_layouts.read_pair` does; errors name the place and the remedy."""
    try:
        return read_pair(row, objective)
    except BadPairError as error:
        remedy = f"mend or remove the row, or set {UNUSABLE.get(split, 'bad_pairs')} to 'drop'"
        raise BadPairError(error.reason, f"{place}: {error}; {remedy}") from None
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def read_split(source: str, subset: str, split: str, bad_pairs: str = "error", objective: str = "") -> Split:
    """Read and check one split of one subset.

    Args:
        source: public dataset name or local folder, in any layout of `pair_layouts`.
        subset: its folder, such as "helpful-base".
        split: "train" or "test".
        bad_pairs: "error" stops at the first unusable row, "drop" leaves it out and counts it.
        objective: whose label is taken where rows have several; "" is the one that the subset's name begins with.

    Raises:
        FileNotFoundError, ValueError: see `sources.load_rows` and `pair_layouts.read_pair`.
    """
    objective = objective or next((name for name in SINGLE_OBJECTIVES if subset.startswith(name)), "")
    rows = load_rows(source, subset, split)
    items, kept, n_dropped, layouts = [], [], Counter(), {}
    for number, (place, row) in enumerate(rows, start=1):
        try:
            found = _read_placed(row, place, split, objective)
        except BadPairError as error:
            if bad_pairs == "error":
                raise
            n_dropped[error.reason] += 1
            continue
        layouts.setdefault(found.layout, place)
        items.append(_as_item(found, f"{subset}/{split}/{number}"))
        kept.append(row)
    if not items:
        raise ValueError(
            f"{source}/{subset}, split {split}: expected at least one usable pair; got {len(rows)} rows, left out "
            f"{dict(n_dropped)}"
        )
    if len(layouts) > 1:
        raise ValueError(f"{source}/{subset}, split {split}: expected one layout; got {layouts}; separate the rows")
    return Split(tuple(items), tuple(kept), dict(n_dropped), *layouts)


def plain(text: str) -> str:
    """Return a text in a form that is the same for all spellings of it: NFKC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def content_key(item: Item) -> tuple[tuple[tuple[str, str], ...], frozenset[str]]:
    """Return what makes two items the same whatever their ids and labels are: prompt and responses, by `plain`."""
    prompt = tuple((turn.role, plain(turn.content)) for turn in item.prompt)
    return prompt, frozenset(map(plain, item.responses))


def without(items: Sequence[Item], others: Sequence[Item]) -> list[Item]:
    """Return the items whose content is in none of the others."""
    known = {content_key(item) for item in others}
    return [item for item in items if content_key(item) not in known]


def read_objective(config: DataConfig, objective: str) -> dict[str, Split]:
    """Return the training split of every subset of a single objective; ids tell objectives with one subset apart."""
    shared = shared_subsets(config)
    splits = {}
    for subset in config.subsets[objective]:
        split = read_split(config.source, subset, "train", config.bad_pairs, objective)
        if subset in shared:
            items = [dataclasses.replace(item, item_id=f"{item.item_id}/{objective}") for item in split.items]
            split = dataclasses.replace(split, items=tuple(items))
        splits[subset] = split
    return splits


def shared_subsets(config: DataConfig) -> list[str]:
    """Return the subsets that belong to both objectives: their rows have a label for each."""
    first, second = (config.subsets[objective] for objective in SINGLE_OBJECTIVES)
    return [subset for subset in first if subset in second]


def split_single(config: DataConfig, objective: str, seed: int) -> TrainingPairs:
    """Shuffle the pairs of a single objective by ``seed`` and cut validation, then training pairs.

    A pair whose content is also in validation is no training pair.

    Raises:
        ValueError: if there are fewer pairs than asked for.
    """
    splits = read_objective(config, objective)
    items = [item for split in splits.values() for item in split.items]
    rng = np.random.default_rng([seed, SINGLE_OBJECTIVES.index(objective)])
    order = [items[i] for i in rng.permutation(len(items))]
    validation = order[: config.n_validation_pairs]
    rest = without(order[config.n_validation_pairs :], validation)
    n_repeated = max(0, len(items) - len(validation) - len(rest))
    n_train = config.n_train_pairs or len(rest)
    if n_train < 1 or len(rest) < n_train:
        repeated = f" and {n_repeated} more with the same content" if n_repeated else ""
        raise ValueError(
            f"n_train_pairs: expected at most {len(items) - config.n_validation_pairs - n_repeated} for {objective} "
            f"({len(items)} pairs, {config.n_validation_pairs} of them for validation{repeated}); got "
            f"{config.n_train_pairs}"
        )
    n_dropped = sum((Counter(split.n_dropped) for split in splits.values()), Counter())
    n_dropped += Counter({REPEATED: n_repeated})
    layouts = {subset: split.layout for subset, split in splits.items()}
    return TrainingPairs(tuple(rest[:n_train]), tuple(validation), dict(n_dropped), layouts)


REPEATED = "also in validation"


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

    mixed, validation = mix("train"), mix("validation")
    train = tuple(without(mixed, validation))
    n_dropped = sum((Counter(part.n_dropped) for part in parts.values()), Counter())
    n_dropped += Counter({REPEATED: len(mixed) - len(train)})
    coin = np.random.default_rng([seed, *arm.encode()])
    given = (relabel(items, ARMS[arm].labels, coin) for items in (train, validation))
    layouts = {f"{objective}: {subset}": name for objective, of in parts.items() for subset, name in of.layouts.items()}
    return TrainingPairs(*given, dict(n_dropped), layouts)


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
