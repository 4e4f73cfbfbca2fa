"""Where objectives pull apart: dot products of gradients and of weight changes by layer and part."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedModel

from tension_utils.architectures import architecture_of, reward_head
from tension_utils.artifacts import (
    DOTS,
    StageRecord,
    is_adopted,
    is_archived,
    is_current,
    local_inputs,
    read_manifest,
    read_section,
    require,
    resolve_source,
    write_table,
)
from tension_utils.config import (
    ARMS,
    MATCHED_ARM,
    OBJECTIVES,
    SINGLE_OBJECTIVES,
    EngineConfig,
    Run,
    SinglePair,
    checked,
    config_hash,
    some,
)
from tension_utils.cosines import GRADIENTS, HALVES
from tension_utils.data import training_pairs
from tension_utils.engine.packing import PreparedItem
from tension_utils.models import new_reward_model, open_checkpoint
from tension_utils.stages import Stage
from tension_utils.training import PackedPasses, device_name, tokenize_pairs

PARTS = ("attention", "mlp_up", "mlp_down", "norm", "embedding", "head")  # mlp_up holds the gate projection too

OUTSIDE = -1  # "layer" of what lies outside the layers: embeddings, final norm, head

CHUNK = 2**20  # values converted to float64 at once


def parameter_places(model: PreTrainedModel) -> dict[str, tuple[int, str]]:
    """Return the (layer, part) of every parameter of a reward model, by name; layers are 0-based.

    A norm inside the attention is a norm; biases belong to their projection.

    Raises:
        ValueError: if the model has no reward head, or a parameter is none of `PARTS`.
    """
    architecture, head = architecture_of(model), reward_head(model)
    inner_parts = {
        f"{architecture.attention_output.split('.')[0]}.": "attention",
        f"{architecture.up}.": "mlp_up",
        f"{architecture.gate}.": "mlp_up",
        f"{architecture.down}.": "mlp_down",
    }

    def part_of(name: str, module: nn.Module, inner: str) -> str:
        if "Norm" in type(module).__name__:
            return "norm"
        if module is head or isinstance(module, nn.Embedding):
            return "head" if module is head else "embedding"
        found = [part for path, part in inner_parts.items() if f"{inner}.".startswith(path)]
        if not found:
            raise ValueError(
                f"{name}: expected a module of one of the parts {', '.join(PARTS)}; name it in geometry.py"
            )
        return found[0]

    layers, places = f"{model.base_model_prefix}.{architecture.layers}.", {}
    for name, module in model.named_modules():
        layer, _, inner = name.removeprefix(layers).partition(".") if name.startswith(layers) else (OUTSIDE, "", "")
        for parameter, _ in module.named_parameters(recurse=False):
            places[f"{name}.{parameter}"] = (int(layer), part_of(name, module, inner))
    return places


def dot_products(vectors: Sequence[torch.Tensor]) -> np.ndarray:
    """Return the dot product (V, V) of every two of V tensors of one shape, summed in float64.

    >>> dot_products([torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0])]).tolist()
    [[5.0, 6.0], [6.0, 9.0]]
    """
    flat = [vector.detach().flatten() for vector in vectors]
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64, device=flat[0].device)
    for start in range(0, len(flat[0]), CHUNK):
        rows = torch.stack([vector[start : start + CHUNK].double() for vector in flat])  # (V, CHUNK)
        total += rows @ rows.T
    return total.cpu().numpy()


def dot_table(
    model: PreTrainedModel,
    names: Sequence[str],
    vectors_of: Callable[[str, nn.Parameter], Sequence[torch.Tensor]],
) -> pd.DataFrame:
    """Return the dot products of several vectors that have one entry per parameter of a reward model.

    Args:
        model: whose parameters.
        names: of the V vectors.
        vectors_of: called with each parameter and its name, returns the V vectors' entries, each of its shape.

    Returns:
        `artifacts.DOTS`: layer (0-based, -1 outside the layers), part (of `PARTS`), first, second (each unordered
        pair of names once, a name with itself too), dot (float64), n_parameters.
    """
    sums: dict[tuple[int, str], np.ndarray | float] = {}
    sizes = Counter()
    places = parameter_places(model)
    for name, parameter in model.named_parameters():
        sums[places[name]] = sums.get(places[name], 0.0) + dot_products(vectors_of(name, parameter))
        sizes[places[name]] += parameter.numel()
    pairs = list(combinations_with_replacement(range(len(names)), 2))
    order = sorted(sums, key=lambda place: (place[0], PARTS.index(place[1])))
    rows = [(*p, names[i], names[j], sums[p][i, j], sizes[p]) for p in order for i, j in pairs]
    return pd.DataFrame(rows, columns=list(DOTS)).astype({"layer": np.int16, "n_parameters": np.int64})


@checked
class GradientConfig:
    """From how many pairs the gradients are taken.

    Args:
        engine: how; ``n_items`` counts training pairs per objective, half of them in each gradient; 0 takes all. Where
            ``precision`` resolves to bfloat16, the passes run on a bf16 copy, as in training.
    """

    engine: EngineConfig = EngineConfig(n_items=128, tokens_per_batch=2048)

    def __post_init__(self) -> None:
        if self.engine.n_items % 2:
            raise ValueError(f"n_items: expected an even number, for two equal halves; got {self.engine.n_items}")


def mean_loss_gradients(
    model: PreTrainedModel, pairs: Sequence[PreparedItem], *, tokens_per_batch: int = 2048, is_bfloat16: bool = False
) -> dict[str, torch.Tensor]:
    r"""Return the gradient of the mean Bradley-Terry loss with respect to every parameter, float32, by name.

    .. math:: \nabla_\theta \frac 1 P \sum_p -\log \sigma(r(x_p, y_p^+) - r(x_p, y_p^-))

    Dropout is off. The packed streams add up to the mean over all P pairs, however many there are.

    Args:
        model: a reward model with float32 weights.
        pairs: P pairs, at least one.
        tokens_per_batch: tokens of one forward and backward pass.
        is_bfloat16: run the passes on a bf16 copy, as training does.

    Raises:
        ValueError: if there are no pairs or the model's weights are not float32.
    """
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if not pairs or dtypes != {torch.float32}:
        raise ValueError(
            f"expected at least one pair and float32 weights; got {len(pairs)} pairs, {sorted(map(str, dtypes))}"
        )
    model.zero_grad()
    PackedPasses(model, tokens_per_batch, is_bfloat16).add_gradients(pairs)
    parameters = dict(model.named_parameters())
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters.items()}
    model.zero_grad()
    return found


def gradient_run(run: Run, config: GradientConfig) -> bool:
    """Take the gradients of both objectives' losses in one reward model and write ``gradients.parquet``.

    The first training pairs, of the run's seed, of each single objective are dealt to two halves, a and b. Stored are
    the dot products of the four gradients by layer and part; the halves of one objective tell how much of a gradient
    is the noise of its pairs.

    Args:
        run: any reward model; for a mixed one the cosine of the objectives says whether they pull against each other.
        config: how many pairs.

    Returns:
        True if it computed, False if it found the artifact, current or kept without the reward model.

    Raises:
        ValueError: if an objective has fewer than two pairs that fit into ``max_length`` tokens.

    Source: ours; conflicting gradients after Yu et al. (2020), "Gradient surgery for multi-task learning".
    """
    if is_archived(run.folder, "gradients.parquet"):
        return False
    stage = Stage(run, "gradients", "gradients.parquet", config, is_autocast=True)
    if not stage.start():
        return False
    engine, pairs, gradients = config.engine, {}, {}
    for objective in SINGLE_OBJECTIVES:
        items = training_pairs(stage.data, objective, run.seed).train
        found = tokenize_pairs(stage.tokenizer, items, stage.data, stage.template)[0][: engine.n_items or None]
        if len(found) < len(HALVES):
            raise ValueError(f"{objective}: expected at least two training pairs for two halves; got {len(found)}")
        pairs[objective] = found[: len(found) // 2 * 2]
        for start, half in enumerate(HALVES):
            gradients[f"{objective}-{half}"] = mean_loss_gradients(
                stage.model,
                pairs[objective][start::2],
                tokens_per_batch=engine.tokens_per_batch,
                is_bfloat16=stage.is_bfloat16,
            )
    dots = dot_table(stage.model, GRADIENTS, lambda name, _: [gradients[each][name] for each in GRADIENTS])
    write_table(run.folder / "gradients.parquet", dots.assign(**run.label))
    n_tokens = sum(pair.n_forward_tokens for own in pairs.values() for pair in own)
    n_pairs = {f"n_{objective}": len(own) for objective, own in pairs.items()}
    stage.finish(n_tokens, is_bfloat16=stage.is_bfloat16, **n_pairs)
    return True


@checked
class WeightChangeConfig:
    """Whose weight changes are compared.

    Args:
        arms: of `config.ARMS`; those without a reward model are left out.
    """

    arms: some(Literal[tuple(ARMS)]) = (*OBJECTIVES, MATCHED_ARM)


def weight_change_run(pair: SinglePair, config: WeightChangeConfig) -> bool:
    r"""Take the dot products of the arms' weight changes and write ``weight_changes.parquet`` in the pair's folder.

    .. math:: \Delta_{arm} = \theta_{arm} - \theta_0

    with :math:`\theta_0` the weights that training started from: those of the base model, and the reward head that
    the seed draws. Checkpoints are read parameter by parameter. Weights that a pruning mask sets to 0 count as changed.

    Args:
        pair: base model and seed.
        config: arms.

    Returns:
        True if it computed, False if it found the artifact, current or kept without the reward models; one that came
        or changed since makes it compute.

    Raises:
        FileNotFoundError: if no arm has a reward model.
        ValueError: if a checkpoint is not of the base model's shape, or an arm's reward model was adopted.
    """
    if is_archived(pair.folder, "weight_changes.parquet"):
        return False
    folders = {arm: pair.run_of(arm).folder / "reward_model" for arm in config.arms}
    found = {  # trained to the end: weights come before their section
        arm: folder for arm, folder in folders.items() if folder.exists() and "train" in read_manifest(folder.parent)
    }
    if not found:
        require(folders[config.arms[0]], "01_train", pair.run_of(config.arms[0]))
    if adopted := [arm for arm, folder in found.items() if is_adopted(folder.parent)]:
        raise ValueError(
            f"{pair.folder}: expected reward models that were trained here, so that their start is known; "
            f"{adopted} were adopted"
        )
    settings = {"weight_changes": dataclasses.asdict(config), **pair.label}
    hashes = {arm: read_section(folder.parent, "train")["artifact_hash"] for arm, folder in found.items()}
    digest = config_hash(settings, **hashes)
    base = resolve_source(pair.base_model, pair.root, "base_model")
    sources = local_inputs(base_model=base)
    if is_current(pair.folder, "weight_changes", digest, "weight_changes.parquet", sources=sources):
        return False
    record = StageRecord(pair.folder, "weight_changes", settings, digest)
    initial = new_reward_model(base, pair.seed)
    with ExitStack() as stack, torch.no_grad():
        reads = [stack.enter_context(open_checkpoint(folder)) for folder in found.values()]
        dots = dot_table(initial, list(found), lambda name, start: [read(name, start.shape) - start for read in reads])
    write_table(pair.folder / "weight_changes.parquet", dots.assign(**pair.label))
    inputs = {f"reward_model_{arm}": folder for arm, folder in found.items()} | sources
    device = device_name(torch.device("cpu"))
    record.finish("weight_changes.parquet", device=device, n_tokens=0, inputs=inputs, arms=list(found))
    return True
