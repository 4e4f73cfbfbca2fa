"""Score one pair of responses with several reward models: rewards, token by token, and without sets of neurons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from tension_utils.ablation import ablated
from tension_utils.artifacts import read_manifest, require
from tension_utils.conditions import mixed_sets
from tension_utils.config import MIXED, SINGLE_OBJECTIVES
from tension_utils.data import Item, Turn
from tension_utils.models import load_reward_model, load_tokenizer
from tension_utils.neurons import NeuronSet, top_neurons
from tension_utils.rewards import score_items
from tension_utils.runs import Run
from tension_utils.scores import OWN_SCORES, own_scores
from tension_utils.token_contributions import TokenContributions, token_contributions

SIDES = ("A", "B")


@dataclass(frozen=True)
class LoadedModel:
    """A trained reward model in memory, in float32.

    Args:
        run: where it came from.
        model: the model.
        tokenizer: its tokenizer.
        max_length: tokens per sequence in training.
    """

    run: Run
    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerFast = field(repr=False)
    max_length: int


@dataclass(frozen=True)
class PairScores:
    """What reward models say of two responses to one prompt.

    Args:
        rewards: objective, reward_A, reward_B, margin = r(A) - r(B), from_tokens and from_length (its two parts, see
            `token_contributions.token_contributions`), prefers ("A", "B" or "neither").
        tokens: (objective, "A" or "B") -> contributions.
        ablation: objective, set, n_neurons, margin, without_set, without_random, random_low, random_high (2.5 % and
            97.5 % of the draws), n_draws; no rows where no neuron scores were found.
    """

    rewards: pd.DataFrame
    tokens: Mapping[tuple[str, str], TokenContributions] = field(repr=False)
    ablation: pd.DataFrame = field(repr=False)

    @property
    def error(self) -> float:
        """Largest completeness error of the contributions, in units of reward."""
        return max(abs(tokens.error) for tokens in self.tokens.values())


def load_models(runs: Sequence[Run], device: str | torch.device = "cpu") -> list[LoadedModel]:
    """Load trained reward models.

    Raises:
        FileNotFoundError: names the missing folder and the chapter to run.
    """
    folders = [require(run.folder / "reward_model", "01_train") for run in runs]
    lengths = [read_manifest(run.folder)["train"]["config"]["data"]["max_length"] for run in runs]
    is_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # in a page each bar would stay as a widget
    try:
        models = [load_reward_model(folder, device=device) for folder in folders]
    finally:
        if is_shown:
            logging.enable_progress_bar()
    tokenizers = map(load_tokenizer, folders)
    return [LoadedModel(*parts) for parts in zip(runs, models, tokenizers, lengths, strict=True)]


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


def score_pair(
    prompt: str,
    response_a: str,
    response_b: str,
    models: Sequence[LoadedModel],
    *,
    score_kind: str = "rms_change",
    fraction: float = 0.1,
    n_draws: int = 20,
) -> PairScores:
    """Score two responses to one prompt with every model, intact and without sets of neurons.

    Args:
        prompt: what the human says; plain text.
        response_a: one answer.
        response_b: the other.
        models: of `load_models`.
        score_kind: of the ablated sets.
        fraction: of all neurons, in (0, 1).
        n_draws: random sets per ablated set.

    Raises:
        ValueError: if a text is empty or too long for the model.
    """
    item, rows, tokens, tables = pair_item(prompt, response_a, response_b), [], {}, []
    for loaded in models:
        name = loaded.run.objective
        own = token_contributions(loaded.model, loaded.tokenizer, item, loaded.max_length)
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
        tables += pair_ablation(loaded, item, margin, score_kind, fraction, n_draws)
    return PairScores(pd.DataFrame(rows), tokens, pd.DataFrame(tables))


def pair_margin(loaded: LoadedModel, item: Item) -> float:
    """Return r(A) - r(B)."""
    options = {"max_length": loaded.max_length, "progress": False}
    return score_items(loaded.model, loaded.tokenizer, [item], **options)[0].margin


def pair_sets(run: Run, score_kind: str, fraction: float) -> dict[str, NeuronSet]:
    """Return a run's top neurons and, for the mixed model, the shared and only sets; none without neuron scores."""

    def top(objective: str) -> NeuronSet:
        scores = own_scores(Run(run.root, run.base_model, objective, run.seed))
        return top_neurons(scores.get(score_kind), fraction)

    if not (run.folder / OWN_SCORES).exists():
        return {}
    found = {f"top {100 * fraction:g} % by {score_kind}": top(run.objective)}
    singles = [Run(run.root, run.base_model, objective, run.seed) for objective in SINGLE_OBJECTIVES]
    if run.objective == MIXED and all((single.folder / OWN_SCORES).exists() for single in singles):
        found |= mixed_sets(*map(top, SINGLE_OBJECTIVES))
    return found


def pair_ablation(
    loaded: LoadedModel, item: Item, margin: float, score_kind: str, fraction: float, n_draws: int
) -> list[dict]:
    """Return a row of `PairScores.ablation` per set: the margin with the set zeroed, and with random sets zeroed."""
    generator, rows = np.random.default_rng([loaded.run.seed, *loaded.run.objective.encode()]), []

    def without(neurons: NeuronSet) -> float:
        with ablated(loaded.model, neurons):
            return pair_margin(loaded, item)

    for name, neurons in pair_sets(loaded.run, score_kind, fraction).items():
        draws = [without(control) for control in neurons.matched_random(generator, n_draws)]
        low, high = np.quantile(draws, [0.025, 0.975])
        rows.append(
            {
                "objective": loaded.run.objective,
                "set": name,
                "n_neurons": len(neurons),
                "margin": margin,
                "without_set": without(neurons),
                "without_random": float(np.mean(draws)),
                "random_low": float(low),
                "random_high": float(high),
                "n_draws": n_draws,
            }
        )
    return rows
