"""Tables over ablations: hand-computed cases, slow independent versions, properties."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tension_utils.analysis import removal as ablation_tables
from tension_utils.analysis.removal import (
    PLACE,
    chance_slopes,
    condition_counts,
    effect_table,
    effects_at,
    exchange_p_value,
    kinds_table,
    per_neuron,
    per_neuron_differences,
    published_scores,
    regression_to_chance,
    total_ablation,
    transferability_after_ablation,
)
from tension_utils.analysis.transfer import transferability_table
from tension_utils.artifacts import TABLES
from tension_utils.conditions import MIXED_SETS
from tension_utils.config import FAMILIES, OBJECTIVES
from tension_utils.statistics import Bootstrap, benjamini_hochberg

HELPFUL, HARMLESS, MIXED = OBJECTIVES
N_ITEMS = {("hh-rlhf", "helpful-base"): 8, ("hh-rlhf", "harmless-base"): 6, ("toy", "best-of-4"): 5}
NAMES = ["set", "matched_to", "fraction", "ablation_kind", "draw", "family", "control", "scale"]


def evaluation_of(seeds: tuple[int, ...] = (0, 1), random_seed: int = 0) -> pd.DataFrame:
    """Random margins of all three objectives on three subsets; the last one's chance is a quarter."""
    rng = np.random.default_rng(random_seed)
    rows = [
        {
            "base_model": "toy",
            "objective": objective,
            "seed": seed,
            "benchmark": benchmark,
            "subset": subset,
            "item_id": f"{subset}/{i}",
            "cluster": f"prompt {i // 2}" if benchmark == "toy" else f"{subset} prompt {i}",
            "group": HARMLESS if "harmless" in subset else HELPFUL,
            "direction": "none",
            "chance": 0.25 if benchmark == "toy" else 0.5,
        }
        for objective in OBJECTIVES
        for seed in seeds
        for (benchmark, subset), n_items in N_ITEMS.items()
        for i in range(n_items)
    ]
    margin = rng.normal(0.4, 1, len(rows)).astype(np.float32)
    return pd.DataFrame(rows).assign(margin=margin, credit=(margin > 0).astype(float))


def ablated(
    evaluation: pd.DataFrame,
    name: str,
    margin: object,
    matched_to: str = "",
    draw: int = 0,
    n_neurons: object = 4,
    fraction: float = 0.1,
    ablation_kind: str = "zero",
    family: str = "",
    control: str = "layer",
    scale: float = 0.0,
) -> pd.DataFrame:
    """Rows of ablation.parquet with these margins (or with what a function makes of the intact rows)."""
    margin = np.asarray(margin(evaluation) if callable(margin) else margin, np.float32)
    rows = evaluation.assign(margin=margin, credit=np.where(margin == 0, evaluation.chance, margin > 0))
    control = control if name == "random" else ""
    values = (name, matched_to or name, fraction, ablation_kind, draw, family, control, scale)
    columns = dict(zip(NAMES, values, strict=True))
    return rows.assign(**columns, n_neurons=n_neurons)[list(TABLES["ablation"])]


def with_draws(evaluation: pd.DataFrame, name: str, random_seed: int, n_draws: int = 3, **columns) -> pd.DataFrame:
    """A set whose removal gives random margins, and its random draws."""
    rng = np.random.default_rng(random_seed)
    parts = [ablated(evaluation, name, rng.normal(0, 1, len(evaluation)), **columns)]
    parts += [
        ablated(evaluation, "random", rng.normal(0.3, 1, len(evaluation)), name, draw, **columns)
        for draw in range(n_draws)
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def evaluation() -> pd.DataFrame:
    return evaluation_of()


# p-values ------------------------------------------------------------------------------------------------------------

values_of_models = st.lists(
    st.lists(st.floats(-5, 5).map(lambda x: round(x, 2)), min_size=2, max_size=5), min_size=1, max_size=3
)


@given(values_of_models)
def test_exchange_p_value_counts_every_exchange(values: list[list[float]]) -> None:
    observed = round(sum(value[0] for value in values), 6)
    sums = [round(sum(choice), 6) for choice in itertools.product(*values)]
    expected = 2 * min(np.mean([s <= observed for s in sums]), np.mean([s >= observed for s in sums]))
    found = exchange_p_value([np.array(value) for value in values], np.random.default_rng(0))
    assert found == pytest.approx(min(1, expected)) and 0 < found <= 1


def test_many_exchanges_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    values = [np.append(1.2, rng.normal(size=9)) for _ in range(4)]
    exact = exchange_p_value(values, rng)
    monkeypatch.setattr(ablation_tables, "MAX_ENUMERATED", 9_000)
    drawn = np.mean([exchange_p_value(values, rng) for _ in range(30)])
    assert drawn == pytest.approx(exact, rel=0.15) and exact < 0.2


# effects -------------------------------------------------------------------------------------------------------------


def test_effect_is_the_change_minus_that_of_random_sets_by_hand(evaluation: pd.DataFrame) -> None:
    """The set makes every helpful item wrong and every other right; draw 1 makes all wrong, draw 0 leaves all."""
    ablation = pd.concat(
        [
            ablated(evaluation, "rms", lambda e: np.where(e.group == HELPFUL, -1, 1), n_neurons=7),
            ablated(evaluation, "random", evaluation.margin, "rms", 0),
            ablated(evaluation, "random", -np.ones(len(evaluation)), "rms", 1),
            ablated(evaluation, "all", -np.ones(len(evaluation)), fraction=1.0),
        ]
    )
    table = effect_table(ablation, evaluation, bootstrap=Bootstrap(200))
    assert set(table.set) == {"rms"} and len(table) == 3 * 3 * 2 and "matched_to" not in table
    assert set(table.n_neurons) == {7} and set(table.n_draws) == {2}
    row = table[(table.metric == "accuracy") & (table.objective == HELPFUL) & (table.test == HELPFUL)].iloc[0]
    intact = evaluation[(evaluation.objective == HELPFUL) & (evaluation.subset == "helpful-base")].credit.mean()
    assert [row.change, row.control, row.effect] == pytest.approx([-intact, -intact / 2, -intact / 2])
    assert (row.n_items, row.n_seeds) == (8, 2)
    both = table[(table.metric == "accuracy") & (table.objective == HELPFUL) & (table.test == MIXED)].iloc[0]
    rows = evaluation[(evaluation.objective == HELPFUL) & (evaluation.benchmark == "hh-rlhf")]
    assert both.change == pytest.approx(6 / 14 - rows.credit.mean()) and both.n_items == 14
    # Two models, each with the set and two draws: the set and draw 1 share the lowest value, 4 of 9 exchanges tie it.
    assert row.p_value == pytest.approx(8 / 9)
    np.testing.assert_allclose(table.q_value, benjamini_hochberg(table.p_value))


def test_effects_on_every_benchmark_and_of_every_kind_stand_apart(evaluation: pd.DataFrame) -> None:
    ablation = pd.concat(
        [
            with_draws(evaluation, "rms", 1),
            with_draws(evaluation, "mean_abs", 2),
            with_draws(evaluation, "rms", 3, ablation_kind="mean"),
        ]
    )
    table = effect_table(ablation, evaluation, PLACE, bootstrap=Bootstrap(100))
    assert set(zip(table.benchmark, table.subset, strict=True)) == set(N_ITEMS)
    assert len(table) == 3 * 3 * 3 * 2
    compared = kinds_table(table)
    assert set(compared.set) == {"rms"} and set(compared.ablation_kind) == {"zero", "mean"}
    assert len(compared) == 3 * 3 * 2 * 2
    assert kinds_table(
        effect_table(ablation[ablation.ablation_kind == "zero"], evaluation, bootstrap=Bootstrap(50))
    ).empty


def test_strong_sets_get_small_p_values(evaluation: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    parts = [ablated(evaluation, "rms", evaluation.margin - 9)]
    parts += [
        ablated(evaluation, "random", evaluation.margin - rng.random(len(evaluation)), "rms", draw) for draw in range(7)
    ]
    table = effect_table(pd.concat(parts), evaluation, bootstrap=Bootstrap(50))
    margins = table[table.metric == "margin"]
    assert margins.p_value.tolist() == pytest.approx([2 / 64] * len(margins))  # two models, eight sets each


# published scores ----------------------------------------------------------------------------------------------------


def credits(evaluation: pd.DataFrame, right: dict[str, int]) -> pd.DataFrame:
    """The helpful test of the helpful model, the first items of each seed right."""
    rows = evaluation[(evaluation.objective == HELPFUL) & (evaluation.subset == "helpful-base")]
    index = rows.item_id.str.split("/").str[-1].astype(int)
    margin = np.where(index < rows.seed.map(right), 1, -1).astype(np.float32)
    return rows.assign(margin=margin, credit=(margin > 0).astype(float))


def test_published_scores_by_hand(evaluation: pd.DataFrame) -> None:
    intact = credits(evaluation, {0: 6, 1: 8})  # 87.5 %
    ablation = pd.concat(
        [
            ablated(intact, "rms", -np.ones(len(intact))),
            ablated(intact, "random", np.ones(len(intact)), "rms", 0),
            ablated(intact, "random", -np.ones(len(intact)), "rms", 1),
            ablated(intact, "mean_abs", intact.margin),
        ]
    )
    table = published_scores(ablation, intact, bootstrap=Bootstrap(200))
    assert len(table) == 2 * 3, "the helpful test and both together"
    found = table[table.test == HELPFUL].set_index("set")
    assert found.intact_accuracy.tolist() == [0.875] * 3
    assert found.accuracy.to_dict() == {"mean_abs": 0.875, "random": 0.5, "rms": 0.0}
    assert found["drop"].to_dict() == pytest.approx({"mean_abs": 0, "random": 1 - 0.5 / 0.875, "rms": 1})
    assert found.normalized.to_dict() == pytest.approx({"mean_abs": 1, "random": 0, "rms": -0.5 / 0.375})
    assert found.matched_to.to_dict() == {"mean_abs": "mean_abs", "random": "rms", "rms": "rms"}
    assert found.n_draws.to_dict() == {"mean_abs": 1, "random": 2, "rms": 1}
    assert found.loc["mean_abs", ["drop_ci_low", "drop_ci_high"]].tolist() == pytest.approx([0, 0])
    assert not table.is_undefined.any()
    assert table[["accuracy_ci_low", "accuracy_ci_high"]].stack().between(0, 1).all()


def test_normalized_is_undefined_at_chance_and_without_interval_near_it(evaluation: pd.DataFrame) -> None:
    at, near, far = (credits(evaluation, right) for right in ({0: 4, 1: 4}, {0: 5, 1: 4}, {0: 8, 1: 8}))
    rows = {
        name: published_scores(ablated(own, "rms", -np.ones(len(own))), own, bootstrap=Bootstrap(300)).iloc[0]
        for name, own in (("at", at), ("near", near), ("far", far))
    }
    assert [bool(row.is_undefined) for row in rows.values()] == [True, False, False]
    assert [bool(row.is_near_chance) for row in rows.values()] == [True, True, False]
    assert np.isnan(rows["at"].normalized) and np.isnan(rows["near"].normalized_ci_low)
    assert rows["near"].normalized == pytest.approx(-0.5 / (9 / 16 - 0.5))
    assert rows["far"].normalized_ci_high == pytest.approx(-1)
    assert rows["at"]["drop"] == 1
    none_right = credits(evaluation, {0: 0, 1: 0})
    row = published_scores(ablated(none_right, "rms", np.ones(16)), none_right, bootstrap=Bootstrap(50)).iloc[0]
    assert np.isnan(row["drop"]) and row.normalized == pytest.approx(-1)


# every neuron removed ------------------------------------------------------------------------------------------------


def test_total_ablation_stands_beside_chance(evaluation: pd.DataFrame) -> None:
    ablation = pd.concat(
        [ablated(evaluation, "all", np.zeros(len(evaluation)), fraction=1.0, n_neurons=40)]
        + [with_draws(evaluation, "rms", 0)]
    )
    table = total_ablation(ablation, evaluation, PLACE).set_index(["objective", "subset"])
    assert table.accuracy.tolist() == table.chance_accuracy.tolist() and set(table.chance_accuracy) == {0.25, 0.5}
    assert (table.above_chance == 0).all() and (table.above_chance_ci_high == 0).all()
    assert set(table.n_neurons) == {40} and set(table.n_draws) == {1}
    intact = evaluation.groupby(["objective", "subset"]).credit.mean()
    pd.testing.assert_series_equal(table.intact_accuracy.sort_index(), intact, check_names=False)
    with pytest.raises(ValueError, match="add 1.0 to the ablated fractions"):
        total_ablation(ablation[ablation.set != "all"], evaluation)


# shared and only sets ------------------------------------------------------------------------------------------------


def mixed_ablation(evaluation: pd.DataFrame) -> pd.DataFrame:
    mixed = evaluation[evaluation.objective == MIXED]
    sizes = {"shared": (10, 30), "only-helpful": (20, 8), "only-harmless": (4, 6)}  # of seeds 0 and 1
    parts = []
    for number, (name, size) in enumerate(sizes.items()):
        natural = {"n_neurons": mixed.seed.map(dict(enumerate(size))), "family": "natural"}
        parts.append(with_draws(mixed, name, number, **natural))
        for place, family in enumerate(("equal-size", "equal-activity")):
            equal = {"n_neurons": mixed.seed.map({0: 4 - place, 1: 6 - place}), "family": family}
            parts.append(with_draws(mixed, name, 10 * (1 + place) + number, **equal))
    return pd.concat([*parts, ablated(mixed, "all", -mixed.margin, fraction=1.0)], ignore_index=True)


def slow_effect(ablation: pd.DataFrame, name: str, subset: str, seed: int, family: str = "natural") -> float:
    """The effect on accuracy of one model, from sums over plain loops."""
    ablation = ablation[ablation.family == family]
    rows = ablation[(ablation.matched_to == name) & (ablation.subset == subset) & (ablation.seed == seed)]
    targeted, draws = rows[rows.set == name], rows[rows.set == "random"]
    total = 0.0
    for item in targeted.itertuples():
        total += item.credit - np.mean([d.credit for d in draws.itertuples() if d.item_id == item.item_id])
    return total / len(targeted)


def test_effects_are_divided_by_each_models_own_size(evaluation: pd.DataFrame) -> None:
    ablation = mixed_ablation(evaluation)
    table = per_neuron(ablation, evaluation, bootstrap=Bootstrap(100))
    assert len(table) == 3 * 3 * 3 * 2 and set(table.objective) == {MIXED} and set(table.n_draws) == {3}
    rows = table[(table.test == HELPFUL) & (table.metric == "accuracy")].set_index(["set", "family"])
    effects = [slow_effect(ablation, "shared", "helpful-base", seed) for seed in (0, 1)]
    row = rows.loc["shared", "natural"]
    assert row.effect == pytest.approx(np.mean(effects)) and row.n_neurons == 20
    assert row.per_neurons == pytest.approx(100 * np.mean([effects[0] / 10, effects[1] / 30]))
    assert row.per_neurons_ci_low <= row.per_neurons <= row.per_neurons_ci_high
    assert set(rows.xs("equal-size", level="family").n_neurons) == {5}
    assert set(rows.xs("equal-activity", level="family").n_neurons) == {4}
    assert list(dict.fromkeys(table.set)) == ["shared", "only-helpful", "only-harmless"]


@pytest.mark.parametrize("family, sizes", [("equal-size", [4, 6]), ("equal-activity", [3, 5])])
def test_differences_are_between_sets_of_one_size(evaluation: pd.DataFrame, family: str, sizes: list[int]) -> None:
    ablation = mixed_ablation(evaluation)
    table = per_neuron_differences(ablation, evaluation, bootstrap=Bootstrap(100), family=family)
    assert set(table.set) == {"shared - only-helpful", "shared - only-harmless"} and len(table) == 2 * 3 * 2
    row = table[(table.set == "shared - only-harmless") & (table.test == HARMLESS) & (table.metric == "accuracy")]
    first, second = (
        [slow_effect(ablation, name, "harmless-base", seed, family) for seed in (0, 1)]
        for name in ("shared", "only-harmless")
    )
    assert row.effect.item() == pytest.approx(np.mean(np.subtract(first, second)))
    expected = 100 * np.mean(np.subtract(first, second) / np.array(sizes))
    assert row.per_neurons.item() == pytest.approx(expected)


def test_equal_effects_differ_by_nothing(evaluation: pd.DataFrame) -> None:
    """The same margins under all three sets and their draws: the paired difference has no spread at all."""
    mixed = evaluation[evaluation.objective == MIXED]
    parts = [
        with_draws(mixed, name, 7, n_draws=2, family="equal-size")
        for name in ("shared", "only-helpful", "only-harmless")
    ]
    table = per_neuron_differences(pd.concat(parts), evaluation, bootstrap=Bootstrap(50))
    for column in ("effect", "ci_low", "ci_high", "per_neurons_ci_low", "per_neurons_ci_high"):
        assert table[column].tolist() == pytest.approx([0] * len(table))


def test_without_equal_sizes_there_are_no_differences(evaluation: pd.DataFrame) -> None:
    mixed = evaluation[evaluation.objective == MIXED]
    ablation = with_draws(mixed, "shared", 1, family="natural")
    assert per_neuron_differences(ablation, evaluation).empty
    with pytest.raises(ValueError, match="family: expected one of equal-size, .*; got 'natural'"):
        per_neuron_differences(ablation, evaluation, family="natural")
    with pytest.raises(ValueError, match="at least one row"):
        per_neuron(with_draws(mixed, "rms", 1), evaluation)


def test_effects_of_one_condition_and_what_was_ablated(evaluation: pd.DataFrame) -> None:
    ablation = pd.concat([with_draws(evaluation, "rms", 1), with_draws(evaluation, "rms", 2, fraction=0.3)])
    effects = effect_table(ablation, evaluation, bootstrap=Bootstrap(20))
    own = effects_at(effects, 0.1, "zero")
    assert set(own.fraction) == {0.1} and set(own.test) == {"helpful", "harmless"} and 0 < len(own) < len(effects)
    assert effects_at(effects, 0.1, "mean").empty
    counts = condition_counts(ablation)
    row = {"matched_to": "rms", "family": "", "ablation_kind": "zero", "n_fractions": 2, "n_draws": 3}
    assert counts.to_dict("records") == [row | {"n_rows": len(ablation)}]


# transferability -----------------------------------------------------------------------------------------------------


def replaced(evaluation: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The evaluation with the mixed model's margins taken from one ablated condition."""
    keys = ["objective", "seed", "subset", "item_id"]
    joined = evaluation.drop(columns="margin").merge(rows[[*keys, "margin"]], on=keys, how="left")
    return joined.assign(margin=joined.margin.fillna(evaluation.margin))


def test_transferability_equals_that_of_an_evaluation_with_ablated_rewards(evaluation: pd.DataFrame) -> None:
    ablation = mixed_ablation(evaluation)
    table = transferability_after_ablation(ablation, evaluation, bootstrap=Bootstrap(100))
    assert len(table) == 2 * 10 and "matched_to" not in table

    def slow(rows: pd.DataFrame, group: str) -> float:
        whole = transferability_table(rows, bootstrap=Bootstrap(2))
        return whole[(whole.group == group) & (whole.pairings == "same seed")].transferability.item()

    for row in table[table.set.isin(["shared", "only-harmless"])].itertuples():
        own = ablation[(ablation.matched_to == row.set) & (ablation.family == row.family)]
        expected = slow(replaced(evaluation, own[own.set == row.set]), row.group)
        draws = [slow(replaced(evaluation, part), row.group) for _, part in own[own.set == "random"].groupby("draw")]
        intact = slow(evaluation, row.group)
        found = [row.intact_transferability, row.transferability, row.control_transferability, row.change, row.effect]
        assert found == pytest.approx([intact, expected, np.mean(draws), expected - intact, expected - np.mean(draws)])
        assert row.control_transferability_low == pytest.approx(np.quantile(draws, 0.025)) and row.n_draws == 3
        assert row.change_ci_low <= row.change <= row.change_ci_high and row.ci_low <= row.effect <= row.ci_high
    assert table.n_neurons[(table.set == "shared") & (table.family == "natural")].tolist() == [20, 20]
    everything = table[table.set == "all"]
    assert everything[["control_transferability", "effect"]].isna().all(axis=None) and everything.change.notna().all()


def test_transferability_of_a_condition_is_that_on_its_own_items(evaluation: pd.DataFrame) -> None:
    """A set that was removed for half of the items has no say on the others, and none on other sets' items."""
    mixed = evaluation[evaluation.objective == MIXED]
    few = mixed[mixed.item_id.str.split("/").str[-1].astype(int) % 2 == 0]
    parts = [with_draws(mixed, "rms", 1), with_draws(few, "mean_abs", 2)]
    table = transferability_after_ablation(pd.concat(parts), evaluation, bootstrap=Bootstrap(50))
    alone = transferability_after_ablation(parts[1], evaluation, bootstrap=Bootstrap(50))
    columns = ["intact_transferability", "transferability", "control_transferability", "n_items"]
    found = table.loc[table.set == "mean_abs", columns].to_numpy()
    np.testing.assert_allclose(found, alone[columns].to_numpy())
    assert (table.n_items[table.set == "rms"].to_numpy() > alone.n_items.to_numpy()).all()


# which rows are compared ---------------------------------------------------------------------------------------------


def test_analyses_compare_removed_sets_with_layer_matched_draws_unless_told_otherwise(evaluation: pd.DataFrame) -> None:
    """Scaled sets and draws that match otherwise are in the table, and change no result."""
    plain = pd.concat([with_draws(evaluation, "rms", 1), mixed_ablation(evaluation)], ignore_index=True)
    rng = np.random.default_rng(9)
    extra = [with_draws(evaluation, "rms", 5, scale=0.5)]
    for name, family in (("rms", ""), *((s, f) for s in MIXED_SETS for f in FAMILIES)):
        rows = evaluation if name == "rms" else evaluation[evaluation.objective == MIXED]
        for draw in range(4):
            margin = rng.normal(0, 1, len(rows))
            extra.append(ablated(rows, "random", margin, name, draw, family=family, control="activity"))
    everything = pd.concat([plain, *extra], ignore_index=True)
    analyses = (
        lambda rows: effect_table(rows, evaluation, bootstrap=Bootstrap(20)),
        lambda rows: published_scores(rows, evaluation, bootstrap=Bootstrap(20)),
        lambda rows: total_ablation(rows, evaluation),
        lambda rows: per_neuron(rows, evaluation, bootstrap=Bootstrap(20)),
        lambda rows: per_neuron_differences(rows, evaluation, bootstrap=Bootstrap(20)),
        lambda rows: transferability_after_ablation(rows, evaluation, bootstrap=Bootstrap(20)),
        lambda rows: regression_to_chance(rows, evaluation),
        lambda rows: chance_slopes(rows, evaluation, bootstrap=Bootstrap(20)),
    )
    for analysis in analyses:
        pd.testing.assert_frame_equal(analysis(everything), analysis(plain))
    for table in (
        effect_table(everything, evaluation, bootstrap=Bootstrap(20), control="activity"),
        per_neuron(everything, evaluation, bootstrap=Bootstrap(20), control="activity"),
    ):
        assert set(table.n_draws) == {4}
    half = effect_table(everything, evaluation, bootstrap=Bootstrap(20), scale=0.5)
    assert set(half.set) == {"rms"} and set(half.n_draws) == {3}
    with pytest.raises(ValueError, match="control: expected one of layer, activity; got 'size'"):
        effect_table(everything, evaluation, control="size")
    with pytest.raises(ValueError, match="family"):
        effect_table(plain.drop(columns="family"), evaluation)


def test_each_condition_is_set_beside_random_sets_that_all_its_models_have(evaluation: pd.DataFrame) -> None:
    """The single models' sets have draws that match activity, the mixed one's those of the same layers."""
    single, mixed = evaluation[evaluation.objective != MIXED], evaluation[evaluation.objective == MIXED]
    own = with_draws(single, "rms", 1, control="activity")
    one_model = with_draws(single[(single.objective == HELPFUL) & (single.seed == 0)], "rms", 2)
    union = with_draws(mixed, "shared", 3, n_draws=2, family="natural")
    ablation = pd.concat([own, one_model[one_model.set == "random"], union], ignore_index=True)
    table = effect_table(ablation, evaluation, bootstrap=Bootstrap(20))
    found = table.groupby("objective")[["random_sets", "n_draws"]].first()
    assert found.to_dict("index") == {
        HELPFUL: {"random_sets": "activity", "n_draws": 3},
        HARMLESS: {"random_sets": "activity", "n_draws": 3},
        MIXED: {"random_sets": "layer", "n_draws": 2},
    }
    alone = effect_table(own, evaluation, bootstrap=Bootstrap(20), control="activity")
    both = table[table.objective != MIXED].reset_index(drop=True)
    np.testing.assert_allclose(both.effect, alone.effect)
    with pytest.raises(ValueError, match="expected random draws for every set"):
        effect_table(ablation, evaluation, control="layer")
    for analysis in (published_scores, chance_slopes, transferability_after_ablation):
        assert len(analysis(ablation, evaluation, bootstrap=Bootstrap(20)))


def test_transferability_of_an_idle_set_does_not_change(evaluation: pd.DataFrame) -> None:
    mixed = evaluation[evaluation.objective == MIXED]
    idle = pd.concat([ablated(mixed, "rms", mixed.margin), ablated(mixed, "random", mixed.margin, "rms", 0)])
    table = transferability_after_ablation(idle, evaluation, bootstrap=Bootstrap(50))
    for column in ("change", "change_ci_low", "change_ci_high", "effect", "ci_low", "ci_high"):
        assert table[column].tolist() == pytest.approx([0, 0])


# regression to chance ------------------------------------------------------------------------------------------------


def test_regression_points_by_hand(evaluation: pd.DataFrame) -> None:
    ablation = pd.concat(
        [
            ablated(evaluation, "rms", np.ones(len(evaluation))),
            ablated(evaluation, "random", evaluation.margin, "rms", 0),
            ablated(evaluation, "all", -np.ones(len(evaluation)), fraction=1.0),
        ]
    )
    table = regression_to_chance(ablation, evaluation)
    assert len(table) == 3 * 3 * 2 and table.is_targeted.sum() == 9
    row = table[(table.objective == MIXED) & (table.subset == "best-of-4") & table.is_targeted].iloc[0]
    intact = evaluation[(evaluation.objective == MIXED) & (evaluation.subset == "best-of-4")].credit.mean()
    assert (row.distance, row.change) == pytest.approx((intact - 0.25, 1 - intact))
    assert bool(row.is_toward_chance) == (intact < 0.25) and (row.n_items, row.n_seeds) == (5, 2)
    assert not table[~table.is_targeted].is_toward_chance.any()


def test_full_regression_has_slope_minus_one_and_none_has_zero(evaluation: pd.DataFrame) -> None:
    ablation = pd.concat(
        [
            ablated(evaluation, "rms", np.zeros(len(evaluation))),  # ties: credit is chance
            ablated(evaluation, "random", evaluation.margin, "rms", 0),
        ]
    )
    table = chance_slopes(ablation, evaluation, bootstrap=Bootstrap(100)).set_index("sets")
    expected = {"targeted": -1, "random": 0, "targeted - random": -1}
    for column in ("slope", "ci_low", "ci_high"):
        assert table[column].to_dict() == pytest.approx(expected)
    assert table.toward_chance.to_dict() == pytest.approx({"targeted": 1, "random": 0, "targeted - random": 1})
    assert table.n_conditions.tolist() == [9, 9, 18] and table.n_items.tolist() == [19] * 3


def test_at_chance_there_is_no_slope(evaluation: pd.DataFrame) -> None:
    tied = evaluation.assign(margin=np.float32(0), credit=evaluation.chance)
    table = chance_slopes(with_draws(tied, "rms", 1), tied, bootstrap=Bootstrap(20))
    assert table[["slope", "ci_low", "ci_high"]].isna().all(axis=None) and (table.toward_chance == 0).all()


def test_a_fit_without_one_of_both_kinds_of_sets_is_left_out(evaluation: pd.DataFrame) -> None:
    whole = with_draws(evaluation, "rms", 1)
    bare = ablated(evaluation, "rms", evaluation.margin, fraction=0.3)
    table = chance_slopes(pd.concat([whole, bare]), evaluation, bootstrap=Bootstrap(20))
    pd.testing.assert_frame_equal(table, chance_slopes(whole, evaluation, bootstrap=Bootstrap(20)))
    with pytest.raises(ValueError, match="expected targeted sets and random draws of one fraction, ablation_kind"):
        chance_slopes(bare, evaluation, bootstrap=Bootstrap(20))


@settings(max_examples=12)
@given(st.integers(0, 10**6))
def test_slopes_are_least_squares_through_the_origin(random_seed: int) -> None:
    evaluation = evaluation_of(random_seed=random_seed)
    ablation = pd.concat([with_draws(evaluation, "rms", random_seed), with_draws(evaluation, "mean_abs", 1)])
    points = regression_to_chance(ablation, evaluation)
    table = chance_slopes(ablation, evaluation, bootstrap=Bootstrap(20)).set_index("sets")
    for name, part in (("targeted", points[points.is_targeted]), ("random", points[~points.is_targeted])):
        slope = np.linalg.lstsq(part[["distance"]].to_numpy(), part.change.to_numpy(), rcond=None)[0][0]
        assert table.slope[name] == pytest.approx(slope)
        assert table.toward_chance[name] == pytest.approx(
            part.is_toward_chance.sum() / (np.abs(part.distance) > 1e-12).sum()
        )
    assert table.slope["targeted - random"] == pytest.approx(table.slope["targeted"] - table.slope["random"])


def test_slope_intervals_agree_with_refitting_on_resampled_items() -> None:
    """One seed, items drawn anew within their subset: what the linear part of the slope stands for."""
    rng = np.random.default_rng(3)
    parts = [evaluation_of((0,), random_seed) for random_seed in range(12)]
    evaluation = pd.concat(
        [p.assign(item_id=p.item_id + f"/{k}", cluster=p.item_id + f"/{k}") for k, p in enumerate(parts)],
        ignore_index=True,
    )
    evaluation["margin"] += np.where(evaluation.group == HELPFUL, 1, -2).astype(np.float32)
    evaluation["credit"] = (evaluation.margin > 0).astype(float)
    ablation = with_draws(evaluation, "rms", 5)
    found = chance_slopes(ablation, evaluation).set_index("sets")
    slopes = []
    for _ in range(100):
        items = evaluation.drop_duplicates(["subset", "item_id"]).groupby("subset")
        drawn = items.sample(frac=1, replace=True, random_state=rng)
        names = drawn[["subset", "item_id"]].assign(copy=np.arange(len(drawn)).astype(str))
        tables = [t.merge(names, on=["subset", "item_id"]) for t in (ablation, evaluation)]
        tables = [t.assign(item_id=t.item_id + "#" + t["copy"]) for t in tables]
        points = regression_to_chance(*tables)
        both = (points[points.is_targeted], points[~points.is_targeted])
        slopes.append([(p.distance * p.change).sum() / (p.distance**2).sum() for p in both])
    slopes = np.array(slopes)
    spreads = [slopes[:, 0].std(), slopes[:, 1].std(), (slopes[:, 0] - slopes[:, 1]).std()]
    widths = ((found.ci_high - found.ci_low) / 3.92).tolist()
    assert widths == pytest.approx(spreads, rel=0.3)
