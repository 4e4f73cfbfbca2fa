"""Gradients of the helpful and of the harmless loss in one reward model: do the objectives pull it apart, and where."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tension_utils.artifacts import write_table
from tension_utils.config import SINGLE_OBJECTIVES, DataConfig, EngineConfig
from tension_utils.engine import run_batches, token_budget
from tension_utils.geometry import PLACE, dot_table, summed_dots
from tension_utils.observation import margins
from tension_utils.packed_attention import packed_attention
from tension_utils.packing import PreparedItem, pack_items, prepare_items
from tension_utils.pairs import training_pairs
from tension_utils.rewards import batch_rewards
from tension_utils.runs import Run
from tension_utils.stages import Stage
from tension_utils.training import NEVER

HALVES = ("a", "b")
GRADIENTS = tuple(f"{objective}-{half}" for objective in SINGLE_OBJECTIVES for half in HALVES)


@dataclass(frozen=True)
class GradientConfig:
    """From how many pairs the gradients are taken.

    Args:
        engine: how; ``n_items`` counts training pairs per objective, half of them in each gradient; 0 takes all. Where
            ``precision`` resolves to bfloat16, the forward pass is autocast as in training; weights, gradients and
            rewards are float32 always.
    """

    engine: EngineConfig = EngineConfig(n_items=128, tokens_per_batch=2048)

    def __post_init__(self) -> None:
        if self.engine.n_items % 2:
            raise ValueError(f"n_items: expected an even number, for two equal halves; got {self.engine.n_items}")


def mean_loss_gradients(
    model: PreTrainedModel,
    items: Sequence[PreparedItem],
    *,
    tokens_per_batch: int | None = None,
    is_bfloat16: bool = False,
    progress: bool = True,
) -> dict[str, torch.Tensor]:
    r"""Return the gradient of the mean Bradley-Terry loss with respect to every parameter, float32, by name.

    .. math:: \nabla_\theta \frac 1 P \sum_p -\log \sigma(r(x_p, y_p^+) - r(x_p, y_p^-))

    Dropout is off. The packed batches add up to the mean over all P pairs, however many there are.

    Args:
        model: a reward model with float32 weights.
        items: P pairs, at least one.
        tokens_per_batch: tokens of one forward and backward pass; None takes a default for the device.
        is_bfloat16: autocast the backbone's forward pass to bfloat16.
        progress: show a bar with tokens/s.

    Raises:
        ValueError: if there are no items or the model's weights are not float32.
    """
    parameters = dict(model.named_parameters())
    dtypes = {parameter.dtype for parameter in parameters.values()}
    if not items or dtypes != {torch.float32}:
        raise ValueError(
            f"expected at least one pair and float32 weights; got {len(items)} pairs, {sorted(map(str, dtypes))}"
        )
    totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    with torch.enable_grad(), packed_attention(model) as forward:

        def step(group: list[PreparedItem]) -> tuple[torch.Tensor | None, ...]:
            batch = pack_items(group, model.config.pad_token_id)
            with torch.autocast(model.device.type, torch.bfloat16, enabled=is_bfloat16):
                hidden = forward(batch)
            losses = -logsigmoid(margins(batch_rewards(model, hidden, batch), batch))  # (pairs of the batch,)
            return torch.autograd.grad(losses.sum() / len(items), [*parameters.values()], allow_unused=True)

        for *_, gradients in run_batches(
            items,
            list,
            step,
            tokens_per_batch=token_budget(tokens_per_batch, model.device),
            progress=progress,
            description="gradients",
        ):
            for total, gradient in zip(totals.values(), gradients, strict=True):
                if gradient is not None:
                    total += gradient
    return totals


def fitting_pairs(
    tokenizer: PreTrainedTokenizerFast, data: DataConfig, objective: str, seed: int
) -> Iterator[PreparedItem]:
    """Yield the training pairs of an objective as training sees them: without those it drops for their length."""
    limit = NEVER if data.long_pairs == "drop" else data.max_length
    for item in training_pairs(data, objective, seed).train:
        (prepared,) = prepare_items(tokenizer, [item], limit)
        if max(map(len, prepared.tokens.sequences)) <= data.max_length:
            yield prepared


def gradient_run(run: Run, config: GradientConfig) -> bool:
    """Take the gradients of both objectives' losses in one reward model and write ``gradients.parquet``.

    The first training pairs, of the run's seed, of each single objective are dealt to two halves, a and b. Stored are
    the dot products of the four gradients by layer and part; the halves of one objective tell how much of a gradient
    is the noise of its pairs.

    Args:
        run: any reward model; for a mixed one the cosine of the objectives says whether they pull against each other.
        config: how many pairs.

    Returns:
        True if it computed, False if it found the artifact.

    Raises:
        ValueError: if an objective has fewer than two pairs that fit into ``max_length`` tokens.

    Source: ours; conflicting gradients after Yu et al. (2020), "Gradient surgery for multi-task learning".
    """
    stage = Stage(run, "gradients", "gradients.parquet", config, is_autocast=True)
    if not stage.start():
        return False
    engine, pairs, gradients = config.engine, {}, {}
    for objective in SINGLE_OBJECTIVES:
        found = list(islice(fitting_pairs(stage.tokenizer, stage.data, objective, run.seed), engine.n_items or None))
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


def objective_cosines(dots: pd.DataFrame, by: Sequence[str] = PLACE) -> pd.DataFrame:
    r"""Return the cosine of the helpful and the harmless gradient, as it is and without the noise of their pairs.

    With g = (a + b) / 2 the gradient over both halves of an objective,

    .. math:: \cos = \frac{g_1 \cdot g_2}{|g_1| |g_2|}, \quad
        \cos_{corrected} = \frac{g_1 \cdot g_2}{\sqrt{(a_1 \cdot b_1)(a_2 \cdot b_2)}}

    A half's noise is independent of the other half's, so a . b estimates the squared norm of the expected gradient
    without bias, and g_1 . g_2 is without bias as it is.

    Args:
        dots: rows of gradients.parquet.
        by: of "layer" and "part", as for `geometry.cosine_table`.

    Returns:
        What names the model, ``by``, cosine, corrected_cosine (NaN where a . b is not above 0; may leave [-1, 1]),
        helpful_halves_cosine, harmless_halves_cosine, n_parameters.
    """
    rows = summed_dots(dots, by)
    keys = [column for column in rows if column not in ("first", "second", "dot", "n_parameters")]
    dot = rows.assign(_=0).pivot(index=["_", *keys, "n_parameters"], columns=["first", "second"], values="dot")
    one, other = ([f"{objective}-{half}" for half in HALVES] for objective in SINGLE_OBJECTIVES)
    cross = sum(dot[a, b] for a in one for b in other) / 4
    norms = [np.sqrt((dot[a, a] + dot[b, b] + 2 * dot[a, b]) / 4) for a, b in (one, other)]
    signal = [dot[a, b].where(dot[a, b] > 0) for a, b in (one, other)]
    table = pd.DataFrame(
        {
            "cosine": cross / (norms[0] * norms[1]),
            "corrected_cosine": cross / np.sqrt(signal[0] * signal[1]),
            **{
                f"{objective}_halves_cosine": dot[a, b] / np.sqrt(dot[a, a] * dot[b, b])
                for objective, (a, b) in zip(SINGLE_OBJECTIVES, (one, other), strict=True)
            },
        }
    ).reset_index()
    return table[[*keys, *(column for column in table if column not in ("_", *keys, "n_parameters")), "n_parameters"]]
