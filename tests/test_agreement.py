"""Agreement of scores and stability over seeds, on overlaps given by hand."""

import numpy as np
import pandas as pd
import pytest

from tension_utils.analysis.overlap import agreement_table, seed_stability
from tension_utils.statistics import seed_interval

SIZES = {"base_model": "toy", "jaccard_chance": 0.05, "jaccard_chance_by_layer": 0.1, "n_neurons": 9, "p_value": 0.01}


def test_objectives_are_averaged_before_seeds_give_the_interval() -> None:
    values = {(0, "helpful"): 0.2, (0, "harmless"): 0.4, (1, "helpful"): 0.5, (1, "harmless"): 0.7}
    rows = [{"seed": seed, "objective": name, "jaccard": value} | SIZES for (seed, name), value in values.items()]
    low = pd.DataFrame(rows).assign(first="a", second="b")
    high = low.assign(second="c", jaccard=low.jaccard + 0.1)
    best, worst = (row for _, row in agreement_table(pd.concat([low, high])).iterrows())
    assert (best.second, worst.second) == ("c", "b") and worst.jaccard == pytest.approx(0.45)
    bounds = [worst.jaccard_ci_low, worst.jaccard_ci_high]
    assert bounds == pytest.approx(seed_interval(np.array([0.3, 0.6])))
    assert (worst.n_models, worst.n_seeds) == (4, 2)
    best, _ = agreement_table(pd.concat([low, high, high.assign(base_model="other")])).itertuples()
    assert (best.n_models, best.n_seeds) == (8, 4), "every base model's seeds are runs of their own"


def test_stability_is_what_pairs_of_seeds_share_beyond_chance() -> None:
    halves = pd.DataFrame([{"score_kind": "a", "seed": seed, "jaccard": 0.9} | SIZES for seed in range(3)])
    pairs = [(0, 1, 0.4), (0, 2, 0.5), (1, 2, 0.6)]
    seeds = pd.DataFrame([{"score_kind": "a", "seed": a, "other_seed": b, "jaccard": j} | SIZES for a, b, j in pairs])
    (row,) = seed_stability(halves, seeds).to_dict("records")
    assert [row["halves"], row["other_seed"], row["beyond"]] == pytest.approx([0.9, 0.5, 0.4])
    assert [row["beyond_ci_low"], row["beyond_ci_high"]] == pytest.approx([0.4 - 0.4968, 0.4 + 0.4968], abs=1e-4)
    (alone,) = seed_stability(halves[:1], seeds[:0]).to_dict("records")
    assert np.isnan([alone["other_seed"], alone["beyond"], alone["beyond_ci_low"]]).all() and alone["n_seeds"] == 1
