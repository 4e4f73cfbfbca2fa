"""Angles between vectors of all parameters, by layer and part: dot products, stored, and the cosines they give."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedModel

from tension_utils.architectures import architecture_of, reward_head
from tension_utils.artifacts import DOTS
from tension_utils.checks import check_choices

PARTS = ("attention", "mlp_up", "mlp_down", "norm", "embedding", "head")  # mlp_up holds the gate projection too
OUTSIDE = -1  # "layer" of what lies outside the layers: embeddings, final norm, head
PLACE = ("layer", "part")
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


def summed_dots(dots: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return dot products summed over what ``by`` does not name; dot products of parts add up to those of the whole.

    Args:
        dots: rows of gradients.parquet or weight_changes.parquet.
        by: of "layer" and "part"; () is the whole model.
    """
    if by:
        check_choices("by", by, PLACE)
    names = [name for name in ("base_model", "objective", "seed") if name in dots]
    keys = [*names, *by, "first", "second"]
    return dots.groupby(keys, sort=False, as_index=False)[["dot", "n_parameters"]].sum()


def cosine_table(dots: pd.DataFrame, by: Sequence[str] = PLACE) -> pd.DataFrame:
    r"""Return the cosine of every two vectors from their dot products.

    .. math:: \cos(u, v) = u \cdot v / \sqrt{(u \cdot u)(v \cdot v)}

    Args:
        dots: rows of gradients.parquet or weight_changes.parquet.
        by: of "layer" and "part": each layer's parts apart, ("part",), ("layer",), or () for the whole model.

    Returns:
        What names the model, ``by``, first, second (never the same), cosine (NaN where a vector is 0), first_norm,
        second_norm, n_parameters.
    """
    rows = summed_dots(dots, by)
    keys = [column for column in rows if column not in ("first", "second", "dot", "n_parameters")]
    own = rows[rows["first"] == rows["second"]].assign(norm=lambda each: np.sqrt(each["dot"]))
    rows = rows[rows["first"] != rows["second"]]
    for side in ("first", "second"):
        norms = own[[*keys, side, "norm"]].rename(columns={"norm": f"{side}_norm"})
        rows = rows.merge(norms, on=[*keys, side], how="left", validate="many_to_one")
    product = (rows.first_norm * rows.second_norm).replace(0, np.nan)
    order = [*keys, "first", "second", "cosine", "first_norm", "second_norm", "n_parameters"]
    return rows.assign(cosine=rows["dot"] / product)[order]
