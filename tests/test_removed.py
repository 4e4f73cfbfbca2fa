"""Effects of removed sets for a page: the ledger's own numbers, draw by draw, and with fewer items."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_claims import N, R, T, ablated_world, weight_world

from tension_utils.analysis.claims import Evidence, ledger
from tension_utils.analysis.findings import primary_of
from tension_utils.analysis.removed import (
    changes_by_draw,
    effects_by_items,
    held_shares,
    removal_effects,
    shared_changes,
)
from tension_utils.config import CONTROLS, MATCHED_ARM, MIXED, Run
from tension_utils.neurons import NeuronSet, activity_bins
from tension_utils.scores import NeuronScores


def test_effects_are_the_ledgers_pooled_and_by_objective() -> None:
    evidence = Evidence(*ablated_world())
    table, verdicts = removal_effects(evidence), ledger(evidence)
    for test, claim in (("own", "C2"), ("opposing", "C3")):
        row = primary_of(verdicts, claim)
        pooled, *parts = (own for _, own in table[table.test == test].iterrows())
        assert pooled.model == "both" and pooled.n_items == 2 * N
        found = pooled[["margin_effect", "margin_effect_ci_low", "margin_effect_ci_high"]]
        assert found.tolist() == [row.value, row.ci_low, row.ci_high]
        assert [(p.model, p.margin_effect, p.n_items) for p in parts] == [(p.name, p.value, N) for p in row.parts[::-1]]
    assert removal_effects(Evidence()).empty


def test_changes_by_draw_by_hand() -> None:
    changes = changes_by_draw(Evidence(*ablated_world()))
    own = changes[changes.test == "own"].set_index(["objective", "draw"]).change
    for objective, target, draws in zip(("helpful", "harmless"), T, R, strict=True):
        assert own[objective].tolist() == pytest.approx([target, *draws])
    effects = {objective: own[objective][-1] - own[objective].drop(-1).mean() for objective in ("helpful", "harmless")}
    assert effects == pytest.approx({"helpful": -4, "harmless": -6})
    assert changes_by_draw(Evidence()).empty


def test_shared_and_only_sets_by_hand_each_on_its_own_test() -> None:
    changes = shared_changes(Evidence(*weight_world(MATCHED_ARM)))
    table = changes.set_index(["test", "set", "draw"]).change.sort_index()
    assert table["helpful", "shared"].tolist() == pytest.approx([-3, 1, 2, 3])
    assert table["helpful", "only-helpful"].tolist() == pytest.approx([-1, 0, 0, 0])
    assert table["harmless", "shared"].tolist() == pytest.approx([3, 7, 9, 11])
    assert table["harmless", "only-harmless"].tolist() == pytest.approx([-1, -1, -1, -1])
    assert len(table) == 16 and set(changes.n_items) == {N} and set(changes.family) == {"equal-size"}
    both = [weight_world(arm) for arm in (MIXED, MATCHED_ARM)]
    both = Evidence(*(pd.concat(tables, ignore_index=True) for tables in zip(*both, strict=True)))
    assert set(shared_changes(both).objective) == {MATCHED_ARM}, "the arm that decides the claim"
    assert set(shared_changes(Evidence(*weight_world(MIXED))).objective) == {MIXED}
    assert shared_changes(Evidence()).empty


def test_more_items_end_at_the_ledgers_interval() -> None:
    evaluation, ablation = ablated_world()
    noise = pd.Series(np.random.default_rng(0).normal(0, 1, len(ablation)))
    evidence = Evidence(evaluation, ablation.assign(margin=ablation.margin + noise))
    table, row = effects_by_items(evidence), primary_of(ledger(evidence), "C2")
    own = table[table.test == "own"]
    assert own.n_items.is_monotonic_increasing and own.n_items.min() == 8
    last = own.iloc[-1]
    assert [last.effect, last.ci_low, last.ci_high, last.n_items] == [row.value, row.ci_low, row.ci_high, 2 * N]
    widths = own.ci_high - own.ci_low
    assert widths.iloc[0] > widths.iloc[-1] > 0
    assert effects_by_items(Evidence()).empty


def test_how_much_of_a_set_the_random_sets_hold(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    scores = {}
    for objective in ("helpful", "harmless", "helpful-harmless"):
        moved = rng.random((2, 40)).astype(np.float32)
        tensors = {("rms_change", "both", "all"): moved, ("mean_abs", "both", "all"): moved**2}  # the same neurons
        scores[Run(tmp_path, "toy", objective, 0)] = NeuronScores(tensors, "down_input", 1, 1)
    for control in CONTROLS:
        table = held_shares(Evidence(*ablated_world(control=control), scores))
        assert set(table.objective) == {"helpful", "harmless"} and set(table.control) == {control}
        assert table.n_models.tolist() == [1, 1]
        for row in table.itertuples():
            own = scores[Run(tmp_path, "toy", row.objective, 0)].tensors["rms_change", "both", "all"]
            kept = np.zeros(80, dtype=bool)
            kept[np.argsort(own.ravel())[-8:]] = True
            kept = kept.reshape(2, 40)
            bins = activity_bins(own**2) if control == "activity" else np.zeros((2, 40), dtype=int)
            draws = NeuronSet(kept).matched_random(np.random.default_rng(0), 2000, bins)
            assert row.held == pytest.approx(np.mean([(draw.mask & kept).sum() / 8 for draw in draws]), abs=0.02)
    assert held_shares(Evidence()).empty
