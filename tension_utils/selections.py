"""Ways to select neurons or heads, and how far they agree: score kinds, sites, sides, token scopes, entropy, depth."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import entr
from transformers import AutoConfig

from tension_utils.activations import UNSIDED_KINDS
from tension_utils.artifacts import require
from tension_utils.neurons import NeuronSet, top_neurons
from tension_utils.overlap import compare_sets, comparison_table
from tension_utils.runs import Run
from tension_utils.scores import head_scores, load_view, own_scores

LAPE_QUANTILE = 0.95  # of all activation probabilities: the bar above which a neuron counts as active on a text
LAPE_FRACTION = 0.01  # share of all neurons that the method's paper selects
SIDES = ("chosen", "rejected")
GATE = " (gate)"  # suffix of a score kind read at the gate
THIRDS = ("first_third", "middle_third", "last_third")
BOUNDS = {"": "mean", "_lowest": "min", "_highest": "max"}  # suffix of a column -> what it holds


def lape_neurons(
    frequencies: Mapping[str, np.ndarray], fraction: float = LAPE_FRACTION, quantile: float = LAPE_QUANTILE
) -> dict[str, NeuronSet]:
    r"""Return the neurons most specific to one of several texts, by language activation probability entropy (LAPE).

    With p_k the share of the tokens of text k at which a neuron is above 0, and q_k = p_k / sum_j p_j, its entropy
    - sum_k q_k log q_k is low where the neuron prefers some of the texts. Neurons with no p_k above the bar, the
    ``quantile`` of the p of all neurons and texts, are left out. Of the others, exactly round(fraction x L x N) with
    the lowest entropy are taken, and each is assigned to every text on which its p_k is above the bar.

    Args:
        frequencies: text, here named by its objective -> (L, N), float in [0, 1], one model on that text.
        fraction: share of all neurons taken, in (0, 1]; ties go to the lower (layer, index).
        quantile: of the bar, in (0, 1).

    Returns:
        One set per text; a neuron may be in several.

    Raises:
        ValueError: with fewer than two texts, unlike shapes, values outside [0, 1], or fewer neurons above the bar
            than asked for.

    Source: Tang et al. 2024, arXiv 2402.16438, with languages as texts; METHOD.md, section 1, "Neuron scores". Ours
        differs because the count is exact: the method's code fills a shortage with neurons below the bar.

    >>> sets = lape_neurons({"a": np.array([[0.9, 0.8, 0.1, 0.2]]), "b": np.array([[0.1, 0.8, 0.2, 0.1]])}, 0.25, 0.5)
    >>> sets["a"].neurons, sets["b"].neurons
    ([(0, 0)], [])
    """
    p = np.stack([np.asarray(values, dtype=float) for values in frequencies.values()])  # (K, L, N)
    if len(p) < 2 or p.ndim != 3 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("frequencies: expected (layers, neurons) in [0, 1] for at least two texts")
    bar = np.quantile(p, quantile, method="inverted_cdf")  # a value that occurs; "above" is strict
    is_active = p > bar
    total = p.sum(axis=0)
    q = np.divide(p, total, out=np.zeros_like(p), where=total > 0)
    entropy = np.where(is_active.any(axis=0), entr(q).sum(axis=0), np.inf)
    chosen = top_neurons(-entropy, fraction)
    if not np.isfinite(entropy[chosen.mask]).all():
        raise ValueError(
            f"fraction: {len(chosen)} neurons asked for, but only {np.isfinite(entropy).sum()} are active on more than "
            f"{bar:.3f} of the tokens of some text; lower the fraction or the quantile"
        )
    return {name: NeuronSet(chosen.mask & active) for name, active in zip(frequencies, is_active, strict=True)}


def lape_sets(
    runs: Sequence[Run], texts: Sequence[str], fraction: float = LAPE_FRACTION
) -> dict[Run, dict[str, NeuronSet]]:
    """Return `lape_neurons` of each reward model on the training pairs of these objectives.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.
    """
    return {
        run: lape_neurons({t: load_view(run, f"text-{t}").get("frequency") for t in texts}, fraction) for run in runs
    }


def head_sets(runs: Sequence[Run], fraction: float, kind: str = "rms_change") -> dict[Run, NeuronSet]:
    """Return each run's top attention heads, round(fraction x L x heads) of them, as a set of shape (L, heads).

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.

    Source: METHOD.md, section 1, "Neuron scores": heads have a change score.
    """
    sets = {}
    for run in runs:
        n_heads = AutoConfig.from_pretrained(require(run.folder / "reward_model", "01_train")).num_attention_heads
        sets[run] = top_neurons(head_scores(load_view(run, "heads").get(kind), n_heads), fraction)
    return sets


def variant_table(
    runs: Sequence[Run], variants: Mapping[str, Callable[[Run], np.ndarray]], fraction: float
) -> pd.DataFrame:
    """Return the overlap, within each run, of the sets that every two ways to score its neurons select.

    Args:
        runs: reward models.
        variants: name -> function that returns a run's scores (L, N).
        fraction: share of neurons per set, in (0, 1].

    Returns:
        base_model, objective, seed, first, second (names), and the columns of `overlap.compare_sets`.
    """
    rows = []
    for run in runs:
        sets = {name: top_neurons(scores(run), fraction) for name, scores in variants.items()}
        for first, second in itertools.combinations(variants, 2):
            rows.append(run.label | {"first": first, "second": second} | compare_sets(sets[first], sets[second]))
    return comparison_table(rows, ["base_model", "objective", "seed", "first", "second"])


def kind_table(
    runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all", gate_kinds: Sequence[str] = ()
) -> pd.DataFrame:
    """Return `variant_table` of score kinds, and of some of them read at the gate, as the published code does.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.

    Source: METHOD.md, section 2, facts 2 and 3.
    """
    own = {run: own_scores(run) for run in runs}
    gates = {run: load_view(run, "gate") for run in runs} if gate_kinds else {}
    variants = {kind: lambda run, kind=kind: own[run].get(kind, "both", scope) for kind in kinds}
    variants |= {kind + GATE: lambda run, kind=kind: gates[run].get(kind, "both", scope) for kind in gate_kinds}
    return variant_table(runs, variants, fraction)


def site_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return `variant_table` of the neuron against the gate, per score kind.

    Returns:
        score_kind and the columns of `variant_table`.

    Source: METHOD.md, section 2, fact 3.
    """
    sites = {"neuron": own_scores, "gate": lambda run: load_view(run, "gate")}
    scores = {name: {run: load(run) for run in runs} for name, load in sites.items()}
    parts = []
    for kind in kinds:
        variants = {
            name: lambda run, kind=kind, of_run=of_run: of_run[run].get(kind, "both", scope)
            for name, of_run in scores.items()
        }
        parts.append(variant_table(runs, variants, fraction).assign(score_kind=kind))
    return pd.concat(parts, ignore_index=True)


def side_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return `variant_table` of the chosen against the rejected side, per score kind that has sides.

    Returns:
        score_kind and the columns of `variant_table`.

    Source: METHOD.md, section 2, fact 18.
    """
    own = {run: own_scores(run) for run in runs}
    parts = [comparison_table([], ["score_kind", "base_model", "objective", "seed", "first", "second"])]
    for kind in (kind for kind in kinds if kind not in UNSIDED_KINDS):
        variants = {side: lambda run, kind=kind, side=side: own[run].get(kind, side, scope) for side in SIDES}
        parts.append(variant_table(runs, variants, fraction).assign(score_kind=kind))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def scope_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scopes: Sequence[str]) -> pd.DataFrame:
    """Return `variant_table` of token scopes, per score kind; no rows for one scope.

    Returns:
        score_kind and the columns of `variant_table`.

    Source: METHOD.md, section 2, fact 18.
    """
    own = {run: own_scores(run) for run in runs}
    parts = []
    for kind in kinds:
        variants = {scope: lambda run, kind=kind, scope=scope: own[run].get(kind, "both", scope) for scope in scopes}
        parts.append(variant_table(runs, variants, fraction).assign(score_kind=kind))
    return pd.concat(parts, ignore_index=True)


def depth_table(sets: Mapping[str, Mapping[Run, NeuronSet]]) -> pd.DataFrame:
    """Return where selected neurons lie: the share in each third of the layers, as mean over seeds with its range.

    Args:
        sets: score kind -> run -> its set.

    Returns:
        score_kind, objective; per third its share, ``_lowest`` and ``_highest`` (NaN for a single model); n_models;
        then a last row of a uniform set (score_kind "every neuron"), which is not 1/3 where the number of layers is no
        multiple of three.

    Source: METHOD.md, section 1, "Neuron scores"; thirds of the model's own number of layers.
    """
    rows = [
        {"score_kind": kind, "objective": run.objective} | dict(zip(THIRDS, neurons.depth_profile(), strict=True))
        for kind, of_runs in sets.items()
        for run, neurons in of_runs.items()
    ]
    groups = pd.DataFrame(rows).groupby(["score_kind", "objective"], sort=False)
    spread = {third + end: (third, how) for third in THIRDS for end, how in BOUNDS.items()}
    table = groups.agg(**spread, n_models=(THIRDS[0], "size")).reset_index()
    table.loc[table.n_models == 1, [column for column in spread if column not in THIRDS]] = np.nan
    shapes = {neurons.shape for of_runs in sets.values() for neurons in of_runs.values()}
    uniform = [dict(zip(THIRDS, NeuronSet(np.ones(s, bool)).depth_profile(), strict=True)) for s in sorted(shapes)]
    table = pd.concat([table, pd.DataFrame(uniform).assign(score_kind="every neuron", objective="")], ignore_index=True)
    return table.astype({"n_models": "Int64"})
