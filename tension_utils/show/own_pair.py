"""Score your own pair: rewards, and what each token adds to them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from tension_utils.architectures import mean_embedding, reward_head
from tension_utils.artifacts import require
from tension_utils.config import Run
from tension_utils.data import Item, Turn, texts_of, tokenize_item
from tension_utils.engine.packing import read_position
from tension_utils.evaluation import score_items
from tension_utils.models import load_reward_model, load_tokenizer
from tension_utils.stages import run_template, training_data

NODES = 16  # points on a stretch of the path, which are one forward pass
STRETCHES = 2  # at first
MAX_NODES = 1024  # points on the whole path, after which no stretch is cut again

TOLERANCE = 0.005  # of the sum of contributions, in units of reward


@dataclass(frozen=True)
class TokenContributions:
    """A response's tokens and what they add to its reward.

    Args:
        pieces: the response's text, cut at the ends of its tokens.
        values: contribution of each piece, in units of reward.
        reward: of the response.
        baseline_reward: of the same prompt with an average word in place of every token of the response.
        error: sum of ``values`` minus (``reward`` - ``baseline_reward``); 0 if the integral were exact.
    """

    pieces: tuple[str, ...]
    values: tuple[float, ...]
    reward: float
    baseline_reward: float
    error: float


def integrated_gradients(
    function: Callable[[torch.Tensor], torch.Tensor],
    inputs: torch.Tensor,
    baseline: torch.Tensor,
    *,
    tolerance: float = TOLERANCE,
    max_nodes: int = MAX_NODES,
) -> tuple[torch.Tensor, float]:
    r"""Return what each input adds to a function between a baseline and the inputs, and the completeness error.

    .. math:: c_i = (x_i - x'_i) \int_0^1 \partial_i f(x' + t (x - x')) \, dt, \quad \sum_i c_i = f(x) - f(x')

    The path is cut into stretches, with a Gauss-Legendre sum on each. A stretch is cut in two until its sum over all
    inputs misses the difference of the function between its ends by no more than its share of the tolerance, or the
    points reach ``max_nodes``: points gather where the function bends.

    Args:
        function: (B, ...) -> (B,), differentiable, rows independent of each other.
        inputs: x, any shape, float.
        baseline: x', the same shape.
        tolerance: of the completeness error, in units of the function.
        max_nodes: points after which no stretch is cut; those that are open then are still summed.

    Returns:
        c, float64, shape of ``inputs``; its sum minus f(x) + f(x').

    Source: Sundararajan, Taly and Yan (2017), "Axiomatic attribution for deep networks", equation 1. The quadrature
    is ours: the paper sums at equal steps, which needs more points for the same error.
    """
    places, weights = np.polynomial.legendre.leggauss(NODES)  # on [-1, 1]
    weight, way = torch.from_numpy(weights / 2), inputs - baseline

    def along(shares: np.ndarray) -> torch.Tensor:  # (B,) -> (B, ...)
        return baseline + torch.from_numpy(shares).to(way).reshape(-1, *[1] * way.ndim) * way

    total, n_nodes = torch.zeros(inputs.shape, dtype=torch.float64), 0
    borders = np.linspace(0, 1, STRETCHES + 1)
    open_stretches = list(zip(borders[:-1], borders[1:], strict=True))
    while open_stretches:
        start, stop = open_stretches.pop(0)
        at = along(start + (places + 1) / 2 * (stop - start)).requires_grad_(True)
        (gradient,) = torch.autograd.grad(function(at).sum(), at)
        added = torch.tensordot(weight, gradient.double().cpu(), 1) * way.double().cpu() * (stop - start)
        with torch.no_grad():
            low, high = function(along(np.array([start, stop]))).double().tolist()
        n_nodes += NODES
        if abs(float(added.sum()) - (high - low)) <= tolerance * (stop - start) or n_nodes >= max_nodes:
            total += added
        else:
            middle = (start + stop) / 2
            open_stretches += [(start, middle), (middle, stop)]
    with torch.no_grad():
        low, high = function(torch.stack([baseline, inputs])).double().tolist()
    return total, float(total.sum()) - (high - low)


def response_pieces(tokenizer: PreTrainedTokenizerFast, item: Item, number: int, template: str = "hh") -> list[str]:
    """Return the text of every token that holds a character of a response, EOS and what closes a chat's turn aside.

    A piece is empty where a token ends inside a character; the character is in the piece of the first such token.

    Args:
        tokenizer: of the model.
        item: the item.
        number: which of its responses.
        template: of `config.TEMPLATE_NAMES`.
    """
    found = texts_of(tokenizer, item, template)
    text, border = found.texts[number], found.border
    said = item.responses[number].strip()
    stop = text.index(said, border) + len(said)
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    pieces, at = [], border
    for start, end in offsets:
        if end > border and start < stop:
            pieces.append(text[at:end])
            at = max(at, end)
    return pieces


def token_contributions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, item: Item, max_length: int, template: str = "hh"
) -> list[TokenContributions]:
    """Return the contributions of every response's tokens, chosen responses first.

    The path starts where every token of the response, EOS aside, is the mean of all token embeddings; prompt, length
    and positions stay. Two baselines of unequal length differ a little: that part of a margin belongs to no token.

    Args:
        model: a reward model.
        tokenizer: its tokenizer.
        item: the item.
        max_length: tokens per sequence.
        template: of `config.TEMPLATE_NAMES`.

    Raises:
        ResponseTooLongError: if a response leaves no room for its prompt.
    """
    embed, tokens, found = model.get_input_embeddings(), tokenize_item(tokenizer, item, max_length, template), []
    blank = mean_embedding(model)
    rows = zip(range(len(item.responses)), tokens.sequences, tokens.response_starts, strict=True)
    for number, sequence, start in rows:
        found_pieces = response_pieces(tokenizer, item, number, template)
        stop = start + len(found_pieces)
        read = read_position(sequence, model.config.pad_token_id)

        def reward(embeddings: torch.Tensor, read: int = read) -> torch.Tensor:
            hidden = model.base_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state  # (B, T, H)
            return reward_head(model)(hidden[:, read])[:, 0]

        with torch.no_grad():
            inputs = embed(torch.tensor(sequence, device=model.device))  # (T, H)
            baseline = inputs.clone()
            baseline[start:stop] = blank.to(inputs)
            high, low = reward(torch.stack([inputs, baseline])).double().tolist()
        values, error = integrated_gradients(reward, inputs, baseline)
        by_token = values.sum(1)[start:stop].tolist()
        pieces, merged = [], []
        for piece, value in zip(found_pieces, by_token, strict=True):
            if piece or not pieces:
                pieces.append(piece)
                merged.append(value)
            else:
                merged[-1] += value
        found.append(TokenContributions(tuple(pieces), tuple(merged), high, low, error))
    return found


SIDES = ("A", "B")


@dataclass(frozen=True)
class LoadedModel:
    """A trained reward model in memory, in float32.

    Args:
        run: where it came from.
        model: the model.
        tokenizer: its tokenizer.
        max_length: tokens per sequence in training.
        template: of its texts.
    """

    run: Run
    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerFast = field(repr=False)
    max_length: int
    template: str = "hh"


@dataclass(frozen=True)
class PairScores:
    """What reward models say of two responses to one prompt.

    Args:
        rewards: objective, reward_A, reward_B, margin = r(A) - r(B), from_tokens and from_length (its two parts, see
            `token_contributions.token_contributions`), prefers ("A", "B" or "neither").
        tokens: (objective, "A" or "B") -> contributions.
    """

    rewards: pd.DataFrame
    tokens: Mapping[tuple[str, str], TokenContributions] = field(repr=False)

    @property
    def error(self) -> float:
        """Largest completeness error of the contributions, in units of reward."""
        return max(abs(tokens.error) for tokens in self.tokens.values())


def load_models(runs: Sequence[Run], device: str | torch.device = "cpu") -> list[LoadedModel]:
    """Load trained reward models.

    Raises:
        FileNotFoundError: names the missing folder and the chapter to run.
    """
    folders = [require(run.folder / "reward_model", "01_train", run) for run in runs]
    lengths, templates = [training_data(run).max_length for run in runs], map(run_template, runs)
    is_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # in a page each bar would stay as a widget
    try:
        models = [load_reward_model(folder, device=device) for folder in folders]
    finally:
        if is_shown:
            logging.enable_progress_bar()
    tokenizers = map(load_tokenizer, folders)
    return [LoadedModel(*parts) for parts in zip(runs, models, tokenizers, lengths, templates, strict=True)]


def pair_item(prompt: str, response_a: str, response_b: str) -> Item:
    """Return two responses to one prompt as an item, A in the place of the chosen one.

    Raises:
        ValueError: if a text is empty.
    """
    texts = {"prompt": prompt.strip(), "response A": response_a.strip(), "response B": response_b.strip()}
    empty = [name for name, text in texts.items() if not text]
    if empty:
        raise ValueError(f"expected a prompt and two responses; {' and '.join(empty)} is empty: type a few words")
    prompt, response_a, response_b = texts.values()
    return Item("own pair", (Turn("human", prompt),), (response_a,), (response_b,))


def score_pair(prompt: str, response_a: str, response_b: str, models: Sequence[LoadedModel]) -> PairScores:
    """Score two responses to one prompt with every model.

    Args:
        prompt: what the human says; plain text.
        response_a: one answer.
        response_b: the other.
        models: of `load_models`.

    Raises:
        ValueError: if a text is empty or too long for the model.
    """
    item, rows, tokens = pair_item(prompt, response_a, response_b), [], {}
    for loaded in models:
        name = loaded.run.objective
        own = token_contributions(loaded.model, loaded.tokenizer, item, loaded.max_length, loaded.template)
        tokens |= {(name, side): of_side for side, of_side in zip(SIDES, own, strict=True)}
        margin = pair_margin(loaded, item)
        a, b = own
        rows.append(
            {
                "objective": name,
                "reward_A": a.reward,
                "reward_B": b.reward,
                "margin": margin,
                "from_tokens": sum(a.values) - sum(b.values),
                "from_length": a.baseline_reward - b.baseline_reward,
                "prefers": "A" if margin > 0 else "B" if margin < 0 else "neither",
            }
        )
    return PairScores(pd.DataFrame(rows), tokens)


def pair_margin(loaded: LoadedModel, item: Item) -> float:
    """Return r(A) - r(B)."""
    options = {"max_length": loaded.max_length, "template": loaded.template, "progress": False}
    return score_items(loaded.model, loaded.tokenizer, [item], **options)[0].margin
