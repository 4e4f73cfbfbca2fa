"""What each token of a response adds to its reward: integrated gradients over the token embeddings."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tension_utils.architectures import mean_embedding, reward_head
from tension_utils.data import Item, render_prompt, render_response, tokenize_item
from tension_utils.packing import read_position

FIRST_NODES, MAX_NODES = 32, 1024  # points on the path
CHUNK = 16  # points in one forward pass
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

    The integral is a Gauss-Legendre sum. Its points are doubled until the sum over all inputs misses the difference
    of the function by no more than the tolerance, or there are ``max_nodes``.

    Args:
        function: (B, ...) -> (B,), differentiable, rows independent of each other.
        inputs: x, any shape, float.
        baseline: x', the same shape.
        tolerance: of the completeness error, in units of the function.
        max_nodes: points at most.

    Returns:
        c, float64, shape of ``inputs``; its sum minus f(x) + f(x').

    Source: Sundararajan, Taly and Yan (2017), "Axiomatic attribution for deep networks", equation 1. The quadrature
    is ours: the paper sums at equal steps, which needs more points for the same error.
    """
    with torch.no_grad():
        high, low = function(torch.stack([inputs, baseline])).double().tolist()
    n_nodes, way = FIRST_NODES, inputs - baseline
    while True:
        places, weights = np.polynomial.legendre.leggauss(n_nodes)  # on [-1, 1]
        total = torch.zeros(inputs.shape, dtype=torch.float64)
        for start in range(0, n_nodes, CHUNK):
            share = torch.from_numpy((places[start : start + CHUNK] + 1) / 2).to(way)
            weight = torch.from_numpy(weights[start : start + CHUNK] / 2)
            at = (baseline + share.reshape(-1, *[1] * inputs.ndim) * way).requires_grad_(True)  # (B, ...)
            (gradient,) = torch.autograd.grad(function(at).sum(), at)
            total += torch.tensordot(weight, gradient.double().cpu(), 1)
        contributions = total * way.double().cpu()
        error = float(contributions.sum()) - (high - low)
        if abs(error) <= tolerance or 2 * n_nodes > max_nodes:
            return contributions, error
        n_nodes *= 2


def response_pieces(tokenizer: PreTrainedTokenizerFast, item: Item, response: str) -> list[str]:
    """Return a response's text cut at the ends of its tokens, one piece per token before EOS.

    A piece is empty where a token ends inside a character; the character is in the piece of the first such token.
    """
    prompt = render_prompt(item.prompt)
    text = prompt + render_response(response)
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    pieces, at = [], len(prompt)
    for _, end in offsets:
        if end > len(prompt):
            pieces.append(text[at:end])
            at = max(at, end)
    return pieces


def token_contributions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, item: Item, max_length: int
) -> list[TokenContributions]:
    """Return the contributions of every response's tokens, chosen responses first.

    The path starts where every token of the response, EOS aside, is the mean of all token embeddings; prompt, length
    and positions stay. Two baselines of unequal length differ a little: that part of a margin belongs to no token.

    Args:
        model: a reward model.
        tokenizer: its tokenizer.
        item: the item.
        max_length: tokens per sequence.

    Raises:
        ResponseTooLongError: if a response leaves no room for its prompt.
    """
    embed, tokens, found = model.get_input_embeddings(), tokenize_item(tokenizer, item, max_length), []
    blank = mean_embedding(model)
    rows = zip(item.responses, tokens.sequences, tokens.response_starts, strict=True)
    for response, sequence, start in rows:
        read = read_position(sequence, model.config.pad_token_id)

        def reward(embeddings: torch.Tensor, read: int = read) -> torch.Tensor:
            hidden = model.base_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state  # (B, T, H)
            return reward_head(model)(hidden[:, read])[:, 0]

        with torch.no_grad():
            inputs = embed(torch.tensor(sequence, device=model.device))  # (T, H)
            baseline = inputs.clone()
            baseline[start:-1] = blank.to(inputs)
            high, low = reward(torch.stack([inputs, baseline])).double().tolist()
        values, error = integrated_gradients(reward, inputs, baseline)
        by_token = values.sum(1)[start:-1].tolist()
        pieces, merged = [], []
        for piece, value in zip(response_pieces(tokenizer, item, response), by_token, strict=True):
            if piece or not pieces:
                pieces.append(piece)
                merged.append(value)
            else:
                merged[-1] += value
        found.append(TokenContributions(tuple(pieces), tuple(merged), high, low, error))
    return found
