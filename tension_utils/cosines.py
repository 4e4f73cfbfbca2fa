"""Cosines of gradients and of weight changes, from their stored dot products."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tension_utils.config import SINGLE_OBJECTIVES, check_choices

PLACE = ("layer", "part")

HALVES = ("a", "b")

GRADIENTS = tuple(f"{objective}-{half}" for objective in SINGLE_OBJECTIVES for half in HALVES)


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


def objective_cosines(dots: pd.DataFrame, by: Sequence[str] = PLACE) -> pd.DataFrame:
    r"""Return the cosine of the helpful and the harmless gradient, as it is and without the noise of their pairs.

    With g = (a + b) / 2 the gradient over both halves of an objective,

    .. math:: \cos = \frac{g_1 \cdot g_2}{|g_1| |g_2|}, \quad
        \cos_{corrected} = \frac{g_1 \cdot g_2}{\sqrt{(a_1 \cdot b_1)(a_2 \cdot b_2)}}

    A half's noise is independent of the other half's, so a . b estimates the squared norm of the expected gradient
    without bias, and g_1 . g_2 is without bias as it is.

    Args:
        dots: rows of gradients.parquet.
        by: of "layer" and "part", as for `cosine_table`.

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
