"""Figures of an ablation: the right numbers are drawn, wrong tables are refused."""

import pandas as pd
import pytest

from tension_utils.show.figures_removed import ablation_anatomy, effects_on_more_items, gated_neuron, shared_beside_only

pytestmark = pytest.mark.usefixtures("book_style")


def test_the_targeted_set_is_a_line_and_random_ones_are_dots() -> None:
    changes = pd.DataFrame({"objective": "helpful", "draw": [-1, 0, 1], "change": [-0.5, 0.1, -0.3]})
    ax = ablation_anatomy(changes)
    assert ax.collections[0].get_offsets()[:, 0].tolist() == [0.1, -0.3]
    assert [line.get_xdata()[0] for line in ax.lines] == pytest.approx([-0.1, -0.5, 0])
    assert {"effect -0.40", "mean of 2 random sets"} <= {text.get_text() for text in ax.texts}
    with pytest.raises(ValueError, match="one row per draw"):
        ablation_anatomy(pd.concat([changes, changes.assign(objective="harmless")]))


def test_sets_are_lines_on_the_test_of_their_objective_and_random_sets_are_dots() -> None:
    rows = [
        {"test": test, "set": name, "base_model": "toy", "seed": seed, "draw": draw, "change": height + draw / 10}
        for test in ("helpful", "harmless")
        for name, height in (("shared", -1.0), (f"only-{test}", 1.0))
        for seed in (0, 1)
        for draw in (-1, 0, 1)
    ]
    table = pd.DataFrame(rows)
    panels = shared_beside_only(table)
    assert [ax.get_title() for ax in panels] == ["helpful test", "harmless test"]
    for ax in panels:
        shared_dots, shared_lines, only_dots, only_lines = ax.collections
        assert shared_dots.get_offsets().tolist() == [[-1, 1], [-0.9, 1]] * 2
        assert only_dots.get_offsets().tolist() == [[1, 0], [1.1, 0]] * 2
        assert [segment[0][0] for segment in shared_lines.get_segments()] == pytest.approx([-1.1, -1.1])
        assert [segment[0][0] for segment in only_lines.get_segments()] == pytest.approx([0.9, 0.9])
    with pytest.raises(ValueError, match="one row per test, set, base_model, seed, draw"):
        shared_beside_only(pd.concat([table, table]))


def test_effects_stand_at_their_number_of_items() -> None:
    table = pd.DataFrame({"test": ["own", "own", "opposing"], "n_items": [10, 20, 20], "effect": [-0.2, -0.1, 0.1]})
    own, opposing = effects_on_more_items(table.assign(ci_low=-0.4, ci_high=0.2))
    assert own.lines[1].get_xydata().tolist() == [[10, -0.2], [20, -0.1]]
    assert opposing.get_title() == "opposing test"


def test_a_neuron_names_what_is_read_and_what_is_zeroed() -> None:
    words = " ".join(text.get_text() for text in gated_neuron().texts)
    assert "read by scores here" in words and "removal zeroes this" in words
