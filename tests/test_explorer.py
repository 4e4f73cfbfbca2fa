"""The explorer's frames: the numbers of the tables, in pictures of one size and in words."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from test_ablation_tables import ablated, evaluation_of, with_draws

from tension_utils.analysis.removal import effect_table
from tension_utils.config import OBJECTIVES
from tension_utils.show import explorer as explorer_pictures
from tension_utils.show.explorer import (
    NOT_MEASURED,
    ONLY_MIXED,
    OWN,
    Explorer,
    explorer_effects,
    few,
    in_words,
    percent,
)
from tension_utils.statistics import Bootstrap

HELPFUL, HARMLESS, MIXED = OBJECTIVES
SVG = "{http://www.w3.org/2000/svg}"


def run_of(n_seeds: int = 2) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two scores at two fractions for every model, all neurons, the mixed model's family, and another ablation kind."""
    evaluation = evaluation_of(tuple(range(n_seeds)))
    mixed = evaluation[evaluation.objective == MIXED]
    parts = [
        with_draws(evaluation, name, 10 * i + j, fraction=fraction)
        for i, name in enumerate(("signed_mean", "rms_change"))
        for j, fraction in enumerate((0.1, 0.3))
    ]
    parts += [ablated(evaluation, "all", lambda rows: -rows.margin, fraction=1.0, n_neurons=40)]
    parts += [with_draws(evaluation, "rms_change", 50, ablation_kind="mean")]
    for i, name in enumerate(("shared", "only-helpful", "only-harmless")):
        parts += [with_draws(mixed, name, 60 + i, family="natural")]
        parts += [with_draws(mixed, name, 70 + i, n_neurons=2, family="equal-size")]
    return pd.concat(parts, ignore_index=True), evaluation


@pytest.fixture(scope="module")
def run() -> tuple[pd.DataFrame, pd.DataFrame]:
    return run_of()


@pytest.fixture(scope="module")
def effects(run) -> pd.DataFrame:
    return explorer_effects(*run, bootstrap=Bootstrap(200))


@pytest.fixture(scope="module")
def explorer(effects) -> Explorer:
    return Explorer(effects, OBJECTIVES, "top 10 % by rms_change")


@pytest.fixture(scope="module")
def frames(explorer) -> dict:
    with plt.style.context("default"):
        plt.switch_backend("agg")
        return explorer.frames()


def test_effects_are_those_of_chapter_four(run, effects):
    ablation, evaluation = run
    table = effect_table(ablation[ablation.ablation_kind == "zero"], evaluation, bootstrap=Bootstrap(200))
    table = table[(table.metric == "accuracy") & table.test.isin([HELPFUL, HARMLESS])]
    own = effects[effects.set != "all"]
    keys, values = (
        ["objective", "test", "set", "family", "fraction"],
        ["change", "control", "effect", "ci_low", "ci_high"],
    )
    both = own.merge(table, on=keys, suffixes=("", "_table"), validate="one_to_one")
    assert len(both) == len(own) == len(table) == 3 * 2 * 4 + 2 * 6
    for value in values:
        assert both[value].to_numpy() == pytest.approx(both[f"{value}_table"].to_numpy())


def test_all_neurons_have_a_change_and_no_control(run, effects):
    _, evaluation = run
    rows = effects[effects.set == "all"]
    assert len(rows) == 6 and rows[["control", "effect"]].isna().all(axis=None) and (rows.n_neurons == 40).all()
    for row in rows.itertuples():  # the sign of every margin was turned: right becomes wrong
        subset = evaluation[(evaluation.objective == row.objective) & (evaluation.subset == f"{row.test}-base")]
        assert row.change == pytest.approx((1 - 2 * subset.credit).mean())
        assert row.change_ci_low <= row.change <= row.change_ci_high


def test_other_kinds_are_chosen_and_unknown_ones_refused(run):
    assert set(explorer_effects(*run, "mean", Bootstrap(50)).set) == {"rms_change"}
    with pytest.raises(ValueError, match="'scale'; the kinds there are: mean, zero"):
        explorer_effects(*run, "scale")


def row_of(**values) -> pd.Series:
    standard = {"test": "helpful", "change": -0.2, "change_ci_low": -0.3, "change_ci_high": -0.1, "control": -0.05}
    return pd.Series(standard | {"effect": -0.15, "ci_low": -0.25, "ci_high": -0.05} | values)


def test_words_by_hand():
    assert in_words(row_of()) == (
        "Helpful test: -20.0 points [-30.0, -10.0]; random sets -5.0. "
        "Beyond random -15.0 points [-25.0, -5.0]: more is lost than with random sets."
    )
    assert in_words(row_of(ci_high=0.0)).endswith(": not told apart from random sets.")
    assert in_words(row_of(ci_low=0.01, ci_high=0.2)).endswith("less is lost, or more gained, than with random sets.")
    assert in_words(row_of(effect=np.nan)) == (
        "Helpful test: -20.0 points [-30.0, -10.0]. No random set can match the set of all neurons."
    )


def test_every_choice_has_a_frame_with_a_picture_or_a_reason(explorer, frames):
    controls = explorer.controls
    assert list(controls["Share removed"]) == ["10\xa0%", "30\xa0%", "all"]
    assert controls["Neurons"] == [OWN, "shared", "only-helpful", "only-harmless"]
    assert set(frames) == set(np.ndindex(*map(len, controls.values())))
    for (objective, neurons, _, share), frame in frames.items():
        is_single_family = OBJECTIVES[objective] != MIXED and neurons > 0
        assert (frame.lines == (ONLY_MIXED,)) == is_single_family
        assert bool(frame.svg) == bool(frame.alt) == (not is_single_family)
        if neurons == 0 and controls["Share removed"][share] != "all":
            assert f"top {controls['Share removed'][share]}" in frame.title
    assert len({id(frame) for key, frame in frames.items() if key[:2] == (2, 1)}) == 1, "score and share change nothing"
    assert "No random set" in frames[0, 0, 0, 2].lines[0]
    assert "Cut to equal size (2 neurons)" in frames[2, 1, 0, 0].lines[2]


def test_words_hold_the_numbers_of_their_row(effects, explorer, frames):
    row = effects[(effects.objective == HARMLESS) & (effects.set == "rms_change") & (effects.fraction == 0.3)]
    row = row[row.test == HELPFUL].iloc[0]
    key = (1, 0, explorer.score_kinds.index("rms_change"), 1)
    line = frames[key].lines[0]
    assert f"{100 * row.effect:+.1f} points [{100 * row.ci_low:+.1f}, {100 * row.ci_high:+.1f}]" in line
    assert frames[key].lines[-1] == (
        "4 neurons, 8 helpful and 6 harmless items, 2 seeds, 3 random sets; 95\xa0% intervals."
    )


def test_pictures_are_small_equal_sized_svg_with_their_letters(frames):
    pictures = {frame.svg for frame in frames.values() if frame.svg}
    assert len(pictures) == 3 * 2 * 3 + 3
    boxes = set()
    for svg in pictures:
        root = ElementTree.fromstring(svg)
        boxes.add(root.get("viewBox"))
        texts = {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}
        assert {"helpful test", "harmless test", "random sets"} <= texts
        assert len(svg) < 10_000 and '"' not in svg and "\n" not in svg
    (box,) = boxes
    frame = frames[0, 0, 0, 0]
    assert [float(x) for x in box.split()[2:]] == pytest.approx([frame.width, frame.height], abs=1)


def test_the_chosen_fraction_is_ringed(monkeypatch, effects, explorer):
    drawn = []
    monkeypatch.setattr(explorer_pictures, "svg_text", lambda figure: drawn.append(figure) or "<svg/>")
    explorer.own_frame(HELPFUL, "rms_change", 0.3)
    explorer.family_frame(MIXED, "only-helpful")
    for figure, objective, name, x in ((drawn[0], HELPFUL, "rms_change", 30), (drawn[1], MIXED, "only-helpful", 0.88)):
        for ax, test in zip(figure.axes, (HELPFUL, HARMLESS), strict=True):
            rows = effects[(effects.objective == objective) & (effects.test == test) & (effects.set == name)]
            rows = rows[rows.family != "equal-size"]
            row = rows[rows.fraction == (0.3 if name == "rms_change" else 0.1)].iloc[0]
            (ring,) = [line for line in ax.lines if line.get_markersize() == 11]
            assert ring.get_xdata() == pytest.approx([x]) and ring.get_ydata() == pytest.approx([100 * row.change])
            low, high = ax.get_ylim()
            assert low < 100 * row.change_ci_low and high > 100 * row.change_ci_high
    plt.close("all")


def test_same_table_same_bytes(effects, explorer, frames):
    again = Explorer(effects.copy(), OBJECTIVES, "top 10 % by rms_change").frames()
    assert {key: frame.svg for key, frame in again.items()} == {key: frame.svg for key, frame in frames.items()}


def test_what_was_not_run_is_said(run):
    ablation, evaluation = run
    part = ablation[(ablation.objective == HELPFUL) & (ablation.set != "all")]
    explorer = Explorer(explorer_effects(part, evaluation, bootstrap=Bootstrap(50)), OBJECTIVES)
    assert explorer.sets == [OWN] and explorer.fractions == [0.1, 0.3]
    assert explorer.own_frame(HARMLESS, "rms_change", 0.1).lines == (NOT_MEASURED,)
    only_all = ablation[ablation.set == "all"]
    explorer = Explorer(explorer_effects(only_all, evaluation, bootstrap=Bootstrap(50)), OBJECTIVES)
    assert set(explorer.frames()) == {(i, 0, 0, 0) for i in range(3)} and explorer.own_frame(HELPFUL, "any", 1.0).svg


def test_many_fractions_become_few(effects):
    curve = effects[effects.set == "rms_change"]
    many = pd.concat([curve.assign(fraction=fraction) for fraction in np.arange(1, 31) / 100], ignore_index=True)
    explorer = Explorer(many, OBJECTIVES, max_pictures=15)
    assert len(explorer.fractions) == 5 and (explorer.fractions[0], explorer.fractions[-1]) == (0.01, 0.3)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=40), st.integers(2, 12))
def test_few_keeps_both_ends(values, limit):
    kept = few(values, limit)
    assert kept == sorted(set(kept)) and set(kept) <= set(values) and len(kept) <= max(2, limit)
    assert (kept[0], kept[-1]) == (min(values), max(values))


@given(st.integers(1, 1000))
def test_percent_is_read_back(thousandths):
    assert float(percent(thousandths / 1000).removesuffix("\xa0%")) == pytest.approx(thousandths / 10)
