"""Keystone neurons, loud on any text before training: how much of every top set they are."""

from collections.abc import Sequence

import pandas as pd

from tension_utils.analysis.overlap import run_sets
from tension_utils.artifacts import VIEWS
from tension_utils.conditions import keystone_neurons, mixed_sets
from tension_utils.config import SINGLE_OBJECTIVES, Run
from tension_utils.scores import BASE_GENERIC
from tension_utils.statistics import seed_interval

HELPFUL, HARMLESS = SINGLE_OBJECTIVES


def keystone_table(runs: Sequence[Run], kinds: Sequence[str], fraction: float, scope: str = "all") -> pd.DataFrame:
    """Return which share of top sets are keystone neurons; by chance it is ``fraction``.

    Args:
        runs: reward models; those without a helpful model of their base model and seed that has read generic text are
            left out.
        kinds: score kinds that rank the neurons.
        fraction: of all neurons, in the top sets and among the keystone neurons.
        scope: token scope of the scores.

    Returns:
        score_kind, set (an objective, "shared", "only-helpful" or "only-harmless"), share, ci_low, ci_high (Student's t
        over seeds; NaN for one), chance, n_neurons (mean size of the set), n_seeds; no rows where no model has read
        generic text.

    Source: ours; see `conditions.keystone_neurons`.
    """
    helpful = {(run.base_model, run.seed): run for run in runs if run.objective == HELPFUL}
    known = [run for run in helpful.values() if (run.folder / VIEWS / f"{BASE_GENERIC}.safetensors").exists()]
    keystone = {(run.base_model, run.seed): keystone_neurons(run, fraction) for run in known}
    rows = []
    for kind in kinds:
        sets = run_sets([run for run in runs if (run.base_model, run.seed) in keystone], kind, fraction, scope)
        named = [(run.base_model, run.seed, run.objective, neurons) for run, neurons in sets.items()]
        by_place = {(base, seed, name): neurons for base, seed, name, neurons in named}
        for base, seed in keystone:
            both = [by_place.get((base, seed, objective)) for objective in SINGLE_OBJECTIVES]
            if None not in both:
                named += [(base, seed, name, neurons) for name, neurons in mixed_sets(*both).items()]
        for base, seed, name, neurons in named:
            share = len(neurons & keystone[base, seed]) / len(neurons)
            rows.append({"score_kind": kind, "set": name, "share": share, "n_neurons": len(neurons)})
    table = pd.DataFrame(rows, columns=["score_kind", "set", "share", "n_neurons"])
    found = []
    for (kind, name), part in table.groupby(["score_kind", "set"], sort=False):
        low, high = seed_interval(part.share)
        row = {"score_kind": kind, "set": name, "share": part.share.mean(), "ci_low": low, "ci_high": high}
        found.append(row | {"chance": fraction, "n_neurons": part.n_neurons.mean(), "n_seeds": len(part)})
    return pd.DataFrame(found)
