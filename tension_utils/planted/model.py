"""A small reward model whose helpful-only, harmless-only and shared neurons are known, because they were built in.

An attention head averages two word features into the residual stream. Planted neurons read an average and write to the
one dimension that the reward head reads; where neurons carry nothing, attention writes there itself. All other neurons
are noise: some with large activations, all changed by "training", their contributions to the reward canceling in
groups. In other worlds gradient descent trains all neurons of the same model.
"""

import copy
from collections.abc import Sequence
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from tension_utils.ablation import ablated
from tension_utils.architectures import RewardHead
from tension_utils.conditions import ONLY, SHARED
from tension_utils.config import LABELS, MIXED, OBJECTIVES, SINGLE_OBJECTIVES, check_choice, sham_arm
from tension_utils.data import BenchmarkItem, tokenize_item
from tension_utils.evaluation import group_by_prompt, score_groups
from tension_utils.neurons import NeuronSet
from tension_utils.planted.world import (
    GROUP_SIZE,
    MAX_LENGTH,
    N_GROUPS,
    N_LAYERS,
    N_NEURONS,
    PLANTED_SCENARIOS,
    SHAPE,
    WORDS,
    WorldConfig,
    neuron_groups,
    planted_sets,
    planted_tokenizer,
    preference_items,
    true_neurons,
)

WIDTH, N_HEADS, HEAD_WIDTH = 32, 2, 16

CONSTANT, REWARD, TASTE = 0, 1, 2  # dimensions: equal for all words; what the head reads; a word's own reward

FEATURE = MappingProxyType({"helpful": 3, "harmless": 4})  # of a word: +1, -1 or 0

AVERAGE = MappingProxyType({"helpful": 5, "harmless": 6})  # over the words so far

WORD, CONTEXT = slice(8, 16), slice(16, 32)  # random vectors: of a word, of the words so far

LEVEL = 5.0  # of CONSTANT; it dominates the norm, so that RMSNorm changes next to nothing

GAIN = 6.0  # of averaging: one word among 15 moves an average by 0.4

SLOPE = 2.0  # of a planted neuron's gate in the average that it reads

TYPICAL = 1.3  # size at which a planted neuron's mean absolute activation is that of a typical neuron

SIGNAL = 0.8  # summed weight of the neurons of one objective

NOISE = 0.3  # weight of a word's own reward, which makes the task hard

NORM_EPSILON = 1e-6

STEEPNESS = 0.6  # of silu where planted neurons work, on average

SIZE_SPREAD, WEIGHT_SPREAD = 0.6, 0.4  # of the logarithms of a planted neuron's size and, apart from it, weight

LOUDER = 25.0  # how much louder the neurons are that are loud and nothing else

N_TRAINING, N_STEPS, BATCH_SIZE, RATE = 500, 80, 100, 0.05  # of gradient descent: pairs per objective, steps, pairs


@torch.no_grad()
def base_model(config: WorldConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Build the model before training: it averages words, but no feature reaches the reward.

    Neurons without a slot come in groups of four that share an activation up to its size, the neuron's loudness. Their
    contributions to the reward cancel within the group, so that removing one of them adds noise: this is what damage
    is here. Neurons in slots contribute nothing.
    """
    model = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=N_NEURONS,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=N_HEADS,
            max_position_embeddings=MAX_LENGTH,
            num_labels=1,
            rms_norm_eps=NORM_EPSILON,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            attn_implementation="sdpa",
        )
    )
    model.score = RewardHead(WIDTH, 1, bias=False)
    for parameter in model.parameters():
        parameter.fill_(float(parameter.ndim == 1))  # norms are ones, the rest is zero until filled
    model.score.weight[0, REWARD] = 1.0
    _fill_words(model, tokenizer, config.generator("words"))
    _fill_attention(model, config.generator("attention"))
    generator = config.generator("neurons")
    for mlp, groups in zip(_mlps(model), neuron_groups(config), strict=True):
        _fill_neurons(mlp, groups, config, generator)
    return model.eval()


def _mlps(model: PreTrainedModel) -> list[nn.Module]:
    return [layer.mlp for layer in model.model.layers]


def _fill(projection: nn.Module, values: np.ndarray) -> None:
    projection.weight.copy_(torch.from_numpy(values))


def _fill_words(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, generator: np.random.Generator) -> None:
    table = np.zeros((len(tokenizer), WIDTH))
    table[:, CONSTANT] = LEVEL
    table[:, TASTE] = generator.normal(size=len(tokenizer))
    table[:, WORD] = generator.normal(size=(len(tokenizer), 8)) * 0.7
    for objective, sides in WORDS.items():
        for sign, words in zip((1, -1), sides, strict=True):
            table[tokenizer.convert_tokens_to_ids(list(words)), FEATURE[objective]] = sign
    _fill(model.model.embed_tokens, table)


def _fill_attention(model: PreTrainedModel, generator: np.random.Generator) -> None:
    """Queries and keys are zero: head 0 of layer 0 averages features and taste, head 1 noise; no other layer attends.

    So the reward of a sequence depends on its last token's residual stream alone once layer 0 has attended.
    """
    layer, value, output = model.model.layers[0], *np.zeros((2, WIDTH, WIDTH))
    value[HEAD_WIDTH:, WORD] = generator.normal(size=(WIDTH - HEAD_WIDTH, 8)) / 8**0.5
    output[CONTEXT, HEAD_WIDTH:] = generator.normal(size=(16, WIDTH - HEAD_WIDTH)) * 0.6
    for channel, objective in enumerate(SINGLE_OBJECTIVES):
        value[channel, FEATURE[objective]] = 1
        output[AVERAGE[objective], channel] = GAIN
    value[2, TASTE], output[REWARD, 2] = 1, GAIN * NOISE
    _fill(layer.self_attn.v_proj, value)
    _fill(layer.self_attn.o_proj, output)


def _fill_neurons(mlp: nn.Module, groups: np.ndarray, config: WorldConfig, generator: np.random.Generator) -> None:
    loudness = np.exp(0.7 * generator.normal(size=N_NEURONS))
    louder = np.where(groups < config.rules.n_loud // GROUP_SIZE, LOUDER, 1.0)
    loudness *= louder
    gate, up = np.zeros((2, N_GROUPS, WIDTH))
    for part in (gate, up):
        part[:, CONSTANT] = generator.normal(size=N_GROUPS) / LEVEL
        part[:, WORD.start : CONTEXT.stop] = generator.normal(size=(N_GROUPS, 24)) / 24**0.5
    shares = loudness.copy() if config.rules.is_louder_worse else generator.normal(size=N_NEURONS)
    for group in range(N_GROUPS):
        shares[groups == group] -= shares[groups == group].mean()
    output = np.zeros((WIDTH, N_NEURONS))
    output[CONTEXT] = generator.normal(size=(16, N_NEURONS)) * 0.02 / louder
    output[REWARD] = config.damage * shares / shares.std() / loudness
    _fill(mlp.gate_proj, gate[groups])
    _fill(mlp.up_proj, up[groups] * loudness[:, None])
    _fill(mlp.down_proj, output)


COINS = {sham_arm(objective, LABELS[1]): objective for objective in SINGLE_OBJECTIVES}  # sham arm -> whose pairs


@torch.no_grad()
def reward_model(base: PreTrainedModel, config: WorldConfig, objective: str, seed: int = 0) -> PreTrainedModel:
    """Return the base model trained for an objective, by hand or by gradient descent.

    By hand, every neuron drifts, and the objective is planted.

    With f the average of a feature, a planted neuron of sign s, weight w and size m has the activation
    ``m silu(2 s f + b)`` and adds ``s w silu(2 s f + b)`` to the reward. In the mixed model a shared neuron reads the
    sum of both averages; in a single one it reads that objective's; with opposition it counts the other average
    against its own. The drift changes activations, not the reward: groups turn together, and a neuron that gets louder
    writes less. A sham model, trained on coin-flip labels, drifts and learns nothing.

    Args:
        base: of `base_model`, with the same configuration.
        config: of the world.
        objective: of `OBJECTIVES` or `COINS`.
        seed: of the training run: runs of one world have one plant, of different sizes, and different drift.

    Raises:
        ValueError: for an unknown objective.
    """
    check_choice("objective", objective, (*OBJECTIVES, *COINS))
    model, generator, rules = copy.deepcopy(base), config.generator("train", objective, seed), config.rules
    strength = SIGNAL * np.exp(config.luck * config.generator("luck", objective, seed).normal())
    strength *= rules.joint if objective == MIXED else 1
    if rules.is_trained:
        _train(model, config, objective, seed)
    else:
        for mlp, groups in zip(_mlps(model), neuron_groups(config), strict=True):
            _drift(mlp, groups, config.drift, generator)
    if objective in COINS:
        return model
    singles = SINGLE_OBJECTIVES if objective == MIXED else (objective,)
    channels = [SINGLE_OBJECTIVES.index(single) for single in singles]
    direct = strength * (1 - config.share if rules.is_carried else 1)
    model.model.layers[0].self_attn.o_proj.weight[REWARD, channels] += GAIN * SLOPE * STEEPNESS * direct
    if not rules.is_planted:
        return model
    unit = strength * config.share / (rules.n_only + rules.n_shared * rules.shared_weight)
    for name, neurons in planted_sets(config).items():
        weights = unit * (rules.shared_weight if name == SHARED else 1) * _spread(config, name, len(neurons))
        for number, (place, weight) in enumerate(zip(neurons.neurons, weights, strict=True)):
            reads = _reads(name, number, objective, rules.opposition)
            if reads:
                _plant(model, place, reads, (-1) ** number * weight, config.loudness, generator)
    return model


def training_items(config: WorldConfig, objective: str, seed: int, n_items: int) -> list[BenchmarkItem]:
    """Return the first training pairs of a reward model, ``n_items`` of each objective that its arm knows.

    A sham model reads the same pairs as the model of its objective.
    """
    singles = SINGLE_OBJECTIVES if objective == MIXED else (COINS.get(objective, objective),)
    return [item for each in singles for item in preference_items(config, each, n_items, name=f"train {seed}")]


def item_tokens(items: Sequence[BenchmarkItem]) -> torch.Tensor:
    """Return the ids of chosen and rejected sequences (B, 2, T); all are of one length."""
    tokenizer = planted_tokenizer()
    return torch.tensor([tokenize_item(tokenizer, item, MAX_LENGTH).sequences for item in items])


@lru_cache(maxsize=64)
def _training_tokens(config: WorldConfig, objective: str, seed: int) -> torch.Tensor:
    """Return the tokens of all training pairs of a single objective; several models read the same."""
    return item_tokens(training_items(config, objective, seed, N_TRAINING))


def _train(model: PreTrainedModel, config: WorldConfig, objective: str, seed: int) -> None:
    """Train all neurons by gradient descent on the Bradley-Terry loss; attention and words stay as they are."""
    singles = SINGLE_OBJECTIVES if objective == MIXED else (COINS.get(objective, objective),)
    tokens = torch.cat([_training_tokens(config, single, seed) for single in singles])
    generator = config.generator("order", objective, seed)
    if objective in COINS:
        is_swapped = torch.from_numpy(generator.random(len(tokens)) < 0.5)
        tokens = torch.where(is_swapped[:, None, None], tokens.flip(1), tokens)
    start = attended(model, tokens)  # (P, 2, H)
    parameters = [parameter.requires_grad_() for mlp in _mlps(model) for parameter in mlp.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=0.9)
    with torch.enable_grad():
        for _ in range(N_STEPS):
            batch = torch.from_numpy(generator.choice(len(tokens), BATCH_SIZE, replace=False))
            hidden = start[batch]
            for mlp in _mlps(model):
                hidden = hidden + mlp(normed(hidden))
            rewards = normed(hidden)[..., REWARD]  # (B, 2)
            optimizer.zero_grad()
            (-nn.functional.logsigmoid(rewards[:, 0] - rewards[:, 1])).mean().backward()
            optimizer.step()
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None


def _spread(config: WorldConfig, name: str, size: int) -> np.ndarray:
    """Return how much planted neurons of a set weigh beside one another (size,), mean 1, whatever their loudness."""
    spread = np.exp(WEIGHT_SPREAD * config.generator("weights", name).normal(size=size))
    return spread / spread.mean() if size else spread


def _reads(name: str, number: int, objective: str, opposition: float) -> dict[int, float]:
    """Return which averages a planted neuron of a set reads, each with its factor; none where it learns nothing."""
    if name != SHARED:
        return {
            AVERAGE[single]: 1.0
            for single in SINGLE_OBJECTIVES
            if name == ONLY[single] and objective in (single, MIXED)
        }
    if not opposition:
        return {AVERAGE[single]: 1.0 for single in SINGLE_OBJECTIVES if objective in (single, MIXED)}
    own = SINGLE_OBJECTIVES[number // 2 % 2] if objective == MIXED else objective  # signs of weights alternate as well
    return {AVERAGE[single]: 1.0 if single == own else -opposition for single in SINGLE_OBJECTIVES}


def _drift(mlp: nn.Module, groups: np.ndarray, drift: float, generator: np.random.Generator) -> None:
    for projection in (mlp.gate_proj, mlp.up_proj):
        projection.weight *= torch.from_numpy(1 + drift * generator.normal(size=(N_GROUPS, WIDTH)))[groups]
    louder = torch.from_numpy(np.exp(drift * generator.normal(size=N_NEURONS)))
    mlp.up_proj.weight *= louder[:, None]
    mlp.down_proj.weight /= louder


def _plant(
    model: PreTrainedModel,
    place: tuple[int, int],
    reads: dict[int, float],
    weight: float,
    loudness: float,
    generator: np.random.Generator,
) -> None:
    """Turn a neuron into one that reads averages with the sign of its weight and writes to the reward alone."""
    mlp, index = _mlps(model)[place[0]], place[1]
    size = loudness * TYPICAL * np.exp(SIZE_SPREAD * generator.normal()) * generator.choice([-1, 1])
    for vector in (mlp.gate_proj.weight[index], mlp.up_proj.weight[index], mlp.down_proj.weight[:, index]):
        vector.zero_()
    for average, factor in reads.items():
        mlp.gate_proj.weight[index, average] = SLOPE * np.sign(weight) * factor
    mlp.gate_proj.weight[index, CONSTANT] = generator.uniform(0, 1) / LEVEL
    mlp.up_proj.weight[index, CONSTANT] = size / LEVEL
    mlp.down_proj.weight[REWARD, index] = weight / size


def normed(hidden: torch.Tensor) -> torch.Tensor:
    """Return the residual stream as every layer and the reward head read it."""
    return hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + NORM_EPSILON)


@torch.no_grad()
def attended(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Return the residual stream (..., H) of the last of tokens (..., T) after the attention of the first layer."""
    attention = model.model.layers[0].self_attn
    turn = attention.o_proj.weight @ attention.v_proj.weight
    words = model.model.embed_tokens.weight
    return words[tokens[..., -1]] + normed(words)[tokens].mean(-2) @ turn.T


class PlainRewards:
    """Rewards of one model without any set of its neurons: as the model's own forward pass, many times faster.

    Only the first layer attends, so what follows is computed at the last token alone, and the activations of the first
    layer once.

    Args:
        model: of `reward_model`.
        tokens (B, 2, T): ids of chosen and rejected sequences.
    """

    @torch.no_grad()
    def __init__(self, model: PreTrainedModel, tokens: torch.Tensor) -> None:
        self.weights = [(mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight) for mlp in _mlps(model)]
        self.start = attended(model, tokens.flatten(0, 1))  # (2 B, H)
        self.active = self._activate(self.start, 0)  # (2 B, N)

    def _activate(self, hidden: torch.Tensor, layer: int) -> torch.Tensor:
        gate, up, _ = self.weights[layer]
        inputs = normed(hidden)
        return nn.functional.silu(inputs @ gate.T) * (inputs @ up.T)

    @torch.no_grad()
    def rewards(self, removed: NeuronSet | None = None) -> np.ndarray:
        """Return the rewards of both responses (B, 2), float32."""
        hidden = self.start
        kept = np.ones(SHAPE) if removed is None else ~removed.mask
        for layer, (_, _, down) in enumerate(self.weights):
            active = self._activate(hidden, layer) if layer else self.active
            hidden = hidden + active @ (down * torch.from_numpy(kept[layer]).float()).T
        return normed(hidden)[:, REWARD].view(-1, 2).numpy()

    def margins(self, removed: NeuronSet | None = None) -> np.ndarray:
        """Return the margins (B,), float32."""
        chosen, rejected = self.rewards(removed).T
        return chosen - rejected


def verify_plant(config: WorldConfig, objective: str = MIXED, n_items: int = 100) -> pd.DataFrame:
    """Remove each planted set, and everything else, and see what changes on items that differ in one feature alone.

    Returns:
        set (of `PLANTED`, "planted", "everything else"), test, accuracy, accuracy_change, margin_change (mean, in
        intact standard deviations), largest_change (of any item, likewise), rank_correlation (Spearman's, of margins
        with the intact ones), n_neurons, n_items.

    Raises:
        ValueError: if nothing is planted in the world.
    """
    if not config.rules.is_planted:
        raise ValueError(
            f"scenario {config.scenario!r} has no planted neurons; take one of {', '.join(PLANTED_SCENARIOS)}"
        )
    tokenizer = planted_tokenizer()
    model = reward_model(base_model(config, tokenizer), config, objective)
    carriers = true_neurons(config, objective)
    sets = {name: neurons & carriers for name, neurons in planted_sets(config).items()}
    sets |= {"planted": carriers, "everything else": NeuronSet(~carriers.mask)}
    rows = []
    for test in SINGLE_OBJECTIVES:
        items = preference_items(config, test, n_items, name="probe", conflict=0)
        groups, _ = group_by_prompt(tokenizer, items, MAX_LENGTH)
        intact = score_groups(model, tokenizer, groups, max_length=MAX_LENGTH, progress=False)
        for name, neurons in sets.items():
            with ablated(model, neurons):
                rest = score_groups(model, tokenizer, groups, max_length=MAX_LENGTH, progress=False)
            change = (rest.margin - intact.margin) / intact.margin.std()
            row = {"set": name, "test": test, "accuracy": rest.credit.mean()}
            row |= {"accuracy_change": rest.credit.mean() - intact.credit.mean(), "margin_change": change.mean()}
            row |= {"rank_correlation": rest.margin.corr(intact.margin, method="spearman")}
            rows.append(row | {"largest_change": change.abs().max(), "n_neurons": len(neurons), "n_items": len(items)})
    return pd.DataFrame(rows)
