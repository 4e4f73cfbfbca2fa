"""Frontiers between two models and the gap to them: by hand, against a slow version, and in simulated studies."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tension_utils.analysis import frontier
from tension_utils.config import MATCHED_ARM, MIXED, SINGLE_OBJECTIVES
from tension_utils.statistics import Bootstrap


def rows_of(margins, objective: str, first: int = 0, **facts) -> pd.DataFrame:
    """Build evaluation rows from margins (seeds, helpful and harmless items, half each)."""
    margins = np.asarray(margins, float)
    n_seeds, n_items = margins.shape
    groups = np.repeat(SINGLE_OBJECTIVES, n_items // 2)
    names = [f"{item + first}" for item in range(n_items)]
    rows = pd.DataFrame(
        {
            "base_model": "a",
            "objective": objective,
            "seed": np.repeat(np.arange(n_seeds), n_items),
            "benchmark": "hh-rlhf",
            "subset": np.tile(groups, n_seeds),
            "item_id": names * n_seeds,
            "cluster": names * n_seeds,
            "group": np.tile(groups, n_seeds),
            "margin": margins.ravel(),
            "credit": (margins.ravel() > 0) + 0.5 * (margins.ravel() == 0),
            "chance": 0.5,
            "is_truncated": False,
        }
    )
    return rows.assign(**facts)


HELPFUL = [[3.0, -1.0, -2.0, -1.0]]  # helpful items: right, wrong; harmless ones: wrong, wrong
HARMLESS = [[-1.0, 2.0, 4.0, -2.0]]


def singles() -> pd.DataFrame:
    return pd.concat([rows_of(HELPFUL, "helpful"), rows_of(HARMLESS, "harmless")], ignore_index=True)


def test_an_ensemble_by_hand():
    """Both models' margins over their spread (ddof 1) are added: at a half 3/s - 1/t and so on."""
    s, t = np.std(HELPFUL, ddof=1), np.std(HARMLESS, ddof=1)
    rows = frontier.ensemble_rows(singles(), (0.0, 0.5, 1.0)).set_index(["harmless_weight", "item_id"])
    expected = (np.array(HELPFUL[0]) / s + np.array(HARMLESS[0]) / t) / 2
    items = [str(item) for item in range(4)]
    assert rows.margin[0.5][items].to_numpy() == pytest.approx(expected)
    assert rows.credit[0.0][items].tolist() == [1, 0, 0, 0] and rows.credit[1.0][items].tolist() == [0, 1, 1, 0]
    assert rows.credit[0.5][items].tolist() == (expected > 0).astype(float).tolist()
    assert "objective" not in rows


def test_an_ensemble_needs_both_models_on_all_items():
    with pytest.raises(ValueError, match="on the same items; 1 are missing"):
        frontier.ensemble_rows(singles().iloc[:-1])


def test_the_place_in_the_plane_by_hand():
    table = frontier.plane_table(singles(), ["objective"], Bootstrap(50)).set_index("objective")
    assert table.loc["helpful", ["helpful", "harmless"]].tolist() == [0.5, 0.0]
    assert table.loc["harmless", ["helpful", "harmless"]].tolist() == [0.5, 0.5]
    assert table.n_items.tolist() == [4, 4] and table.n_seeds.tolist() == [1, 1]
    assert (table.helpful_ci_low <= table.helpful).all() and (table.harmless <= table.harmless_ci_high).all()


def slow_gap(arm, line) -> float:
    """Walk along the frontier in small steps to where it favors the objectives as the arm does."""
    best, best_distance = None, np.inf
    for (x0, y0), (x1, y1) in zip(line, line[1:], strict=False):
        for share in np.linspace(0, 1, 2001):
            x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
            distance = abs((x - y) - (arm[0] - arm[1]))
            if distance < best_distance - 1e-12:
                best, best_distance = (x, y), distance
    return (arm[0] + arm[1] - best[0] - best[1]) / 2


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(0.01, 0.3), min_size=2, max_size=5),
    st.lists(st.floats(0.01, 0.3), min_size=5, max_size=5),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_the_gap_equals_a_slow_walk(falls, rises, x, y):
    xs = 0.9 - np.cumsum([0, *falls]) / 2
    ys = 0.1 + np.cumsum([0, *rises[: len(falls)]]) / 2
    line = np.stack([xs, ys], axis=1)
    (value,), (place,) = frontier.gap(np.array([[x, y]]), line[None])
    assert value == pytest.approx(slow_gap((x, y), line), abs=2e-3)
    assert 0 <= place <= len(falls)
    on_it = line[1]
    assert frontier.gap(on_it[None], line[None])[0] == pytest.approx([0.0])
    assert frontier.gap(on_it[None] + 0.1, line[None])[0] == pytest.approx([0.1])


def test_a_model_that_is_the_ensemble_has_no_gap():
    generator = np.random.default_rng(0)
    helpful, harmless = (generator.normal(0.3, 1, size=(3, 80)) for _ in range(2))
    data = pd.concat([rows_of(helpful, "helpful"), rows_of(harmless, "harmless")], ignore_index=True)
    frontiers = frontier.frontier_rows(data)
    half = frontiers[frontiers.harmless_weight == 0.5].drop(columns=["frontier", "harmless_weight"])
    data = pd.concat([data, half.assign(objective=MIXED)], ignore_index=True)
    row = frontier.frontier_gaps(data, frontiers, bootstrap=Bootstrap(300)).iloc[0]
    assert (row.frontier, row.objective, row.n_items, row.n_seeds) == ("ensemble", MIXED, 80, 3)
    assert row.gap == pytest.approx(0) and row.harmless_weight == pytest.approx(0.5)
    assert row.ci_low <= 0 <= row.ci_high and row.p_value == 1


@pytest.mark.parametrize("loss", [0.0, 0.5])
def test_the_interval_of_a_gap_covers_it(loss):
    """Studies of two objectives with a common part; the joint model has the middle's margins with a loss."""
    generator, n_items, is_in, gaps = np.random.default_rng(5), 120, [], []
    sign = np.repeat([1.0, -1.0], n_items // 2)
    for _ in range(150):
        common, apart = generator.normal(0.6, 1, size=(2, 1, n_items))
        first, second = (
            common + s * sign * (0.5 + 0.3 * apart) + generator.normal(0, 0.7, size=(3, n_items)) for s in (1, -1)
        )
        middle = common - loss + generator.normal(0, 0.5, size=(3, n_items))
        data = pd.concat([rows_of(first, "helpful"), rows_of(second, "harmless"), rows_of(middle, MATCHED_ARM)])
        frontiers = frontier.frontier_rows(data)
        row = frontier.frontier_gaps(data, frontiers, (MATCHED_ARM,), bootstrap=Bootstrap(200)).iloc[0]
        gaps.append(row.gap)
        is_in.append((row.ci_low, row.ci_high))
    low, high = np.array(is_in).T
    truth = np.mean(gaps)  # over studies; its own error is a twelfth of an interval's
    assert 0.9 <= ((low <= truth) & (truth <= high)).mean() <= 1
    assert (truth < -0.03) == (loss > 0)


def test_options_are_compared_on_the_items_they_have():
    generator = np.random.default_rng(1)
    names = ("helpful", "harmless", MATCHED_ARM, MIXED)
    margins = {name: generator.normal(size=(3, 80)) for name in names}
    margins[MIXED] = np.abs(margins[MIXED])  # right everywhere
    data = pd.concat([rows_of(margins[name], name) for name in names], ignore_index=True)
    kept = np.r_[0:10, 40:50]
    ablation = rows_of(np.abs(margins[MATCHED_ARM]), MATCHED_ARM).assign(set="shared", scale=0.5)
    ablation = ablation[ablation.item_id.isin([str(i) for i in kept])].drop(columns=["cluster", "group", "chance"])
    random = ablation.assign(set="random")
    data = pd.concat([data, rows_of(margins["helpful"], "helpful-coin")], ignore_index=True)  # no option for anybody
    options = frontier.option_rows(data, ablation=pd.concat([ablation, random, ablation.assign(scale=0.0)]))
    assert set(options.option) == {*names, "shared × 0.5", "ensemble 0.25", "ensemble 0.5", "ensemble 0.75"}
    table = frontier.option_table(options, bootstrap=Bootstrap(400)).set_index("option")
    assert table.better_on[MIXED] == "both" and table.harmless[MIXED] == 1.0
    assert table.loc["shared × 0.5", ["n_items", "n_trainings", "n_passes"]].tolist() == [20, 3, 1]
    assert table.loc["ensemble 0.5", ["n_trainings", "n_passes"]].tolist() == [2, 2]
    right = margins[MATCHED_ARM] > 0
    assert table.helpful["shared × 0.5"] == pytest.approx(right[:, :40].mean() + 1 - right[:, kept[:10]].mean())
    with pytest.raises(ValueError, match="reference: expected an option with rows, got 'nothing'"):
        frontier.option_table(options, "nothing")


@pytest.mark.parametrize(
    ("changes", "p_values", "expected"),
    [
        ((0.1, 0.1), (0.01, 0.02), "both"),
        ((0.1, -0.1), (0.01, 0.5), "helpful"),
        ((-0.1, 0.1), (0.2, 0.01), "harmless"),
        ((0.1, -0.1), (0.01, 0.01), ""),
        ((0.1, 0.1), (0.06, 0.3), ""),
    ],
)
def test_better_on_by_hand(changes, p_values, expected):
    row = {}
    for test, change, p in zip(SINGLE_OBJECTIVES, changes, p_values, strict=True):
        row |= {f"{test}_change": change, f"{test}_p": p}
    assert frontier._better_on(row) == expected
