"""Every neuron score on a planted world: how many of the planted neurons are among the top ones."""

from functools import cache

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from tension_utils.activations import KINDS, neuron_scores, neuron_scores_many
from tension_utils.checks import check_range
from tension_utils.config import MIXED, OBJECTIVES, SINGLE_OBJECTIVES
from tension_utils.data import Item, tokenize_item
from tension_utils.neurons import NeuronSet, top_neurons
from tension_utils.planted import base_model, reward_model
from tension_utils.planted_worlds import MAX_LENGTH, WorldConfig, planted_tokenizer, preference_items, true_neurons

SITES = ("down_input", "gate")
WORLD_KINDS = ("signed_mean", "mean_abs", "rms_change", "relative_change")  # of which claim tests make sets
FRACTION = 0.1  # of all neurons in a set, as in the study
PLACE = ("benchmark", "subset", "item_id", "cluster", "group")  # columns of an item
OPTIONS = {"max_length": MAX_LENGTH, "progress": False}


class PlantedWorld:
    """A world with its base model, and its reward models, texts and scores once they are asked for.

    Args:
        config: of the world.
        n_items: items per test.
        n_text: training pairs per objective that scores read.
    """

    def __init__(self, config: WorldConfig, n_items: int = 30, n_text: int = 30) -> None:
        check_range("n_text", n_text, 1)
        self.config, self.n_text = config, n_text
        self.tokenizer = planted_tokenizer()
        self.base = base_model(config, self.tokenizer)
        items = [item for each in SINGLE_OBJECTIVES for item in preference_items(config, each, n_items)]
        self.place = pd.DataFrame([[getattr(item, name) for name in PLACE] for item in items], columns=list(PLACE))
        tokens = [tokenize_item(self.tokenizer, item, MAX_LENGTH).sequences for item in items]
        self.tokens = torch.tensor(tokens)  # (items, 2, T): all sequences are of one length
        self.model = cache(lambda objective, seed=0: reward_model(self.base, config, objective, seed))
        self.scores = cache(self._scores)

    def text(self, objective: str, seed: int = 0) -> list[Item]:
        """Return training pairs of an objective; the mixed one has those of both."""
        singles = SINGLE_OBJECTIVES if objective == MIXED else (objective,)
        name = f"train {seed}"
        return [item for each in singles for item in preference_items(self.config, each, self.n_text, name=name)]

    def _scores(self, objective: str, seed: int = 0) -> dict[str, np.ndarray]:
        """Return scores (L, N) of a reward model on its own text; "base" is mean_abs of the base model on it."""
        models, kinds = (self.model(objective, seed), self.base), WORLD_KINDS
        text = self.text(objective, seed)
        own, base = neuron_scores_many(models, self.tokenizer, text, base_model=self.base, kinds=kinds, **OPTIONS)
        return {kind: own.get(kind) for kind in kinds} | {"base": base.get("mean_abs")}

    def top(self, kind: str, objective: str, seed: int = 0) -> NeuronSet:
        """Return the top neurons by one of the scores above."""
        return top_neurons(self.scores(objective, seed)[kind], FRACTION)

    @torch.inference_mode()
    def margins(self, model: PreTrainedModel) -> np.ndarray:
        """Return the margin per test item (items,), float32, in the order of ``place``.

        One plain forward pass: where all sequences are of one length, packing them would only cost time.
        """
        rewards = model(self.tokens.flatten(0, 1), use_cache=False).logits[:, 0].view(-1, 2)
        return (rewards[:, 0] - rewards[:, 1]).numpy()


def credits(margins: np.ndarray) -> np.ndarray:
    """Return 1 for a positive margin, 0 for a negative one, 1/2 for a tie."""
    return (margins > 0) + 0.5 * (margins == 0)


def ranking_quality(scores: np.ndarray, truth: NeuronSet) -> dict[str, float | int]:
    """Return how well a score ranks the true neurons before all others.

    Args:
        scores: (L, N), the higher the likelier.
        truth: n > 0 true neurons.

    Returns:
        precision, of the n top neurons, which is also their recall; recall_twice, of the 2 n top ones;
        average_precision, the mean over true neurons of the precision down to each; chance, the expected precision of
        a random ranking; n_true.

    Raises:
        ValueError: if there is no true neuron.

    >>> quality = ranking_quality(np.array([[4.0, 3.0], [2.0, 1.0]]), NeuronSet.of((2, 2), [(0, 0), (1, 0)]))
    >>> {name: round(value, 3) for name, value in quality.items()}
    {'precision': 0.5, 'recall_twice': 1.0, 'average_precision': 0.833, 'chance': 0.5, 'n_true': 2}
    """
    n_true = len(truth)
    if not n_true:
        raise ValueError("expected at least one true neuron, got none: nothing is planted in this world")
    top, twice = (top_neurons(scores, min(1.0, times * truth.fraction)) for times in (1, 2))
    is_true = truth.mask.ravel()[np.argsort(-np.asarray(scores, np.float64).ravel(), kind="stable")]
    ranks = np.flatnonzero(is_true) + 1
    return {
        "precision": len(top & truth) / n_true,
        "recall_twice": len(twice & truth) / n_true,
        "average_precision": float((np.arange(1, n_true + 1) / ranks).mean()),
        "chance": truth.fraction,
        "n_true": n_true,
    }


def finder_table(world: PlantedWorld) -> pd.DataFrame:
    """Score every kind of `activations.KINDS` on every reward model of a world, on its own training text.

    Returns:
        objective, site, score_kind, and the columns of `ranking_quality`.

    Raises:
        ValueError: if nothing is planted in the world.
    """
    rows = []
    for objective in OBJECTIVES:
        truth = true_neurons(world.config, objective)
        for site in SITES:
            options = OPTIONS | {"site": site}
            text, model = world.text(objective), world.model(objective)
            scores = neuron_scores(model, world.tokenizer, text, base_model=world.base, kinds=KINDS, **options)
            for kind in KINDS:
                name = {"objective": objective, "site": site, "score_kind": kind}
                rows.append(name | ranking_quality(scores.get(kind), truth))
    return pd.DataFrame(rows)
