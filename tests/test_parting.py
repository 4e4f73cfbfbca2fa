"""Depths, cosines and signs by hand, signs also against slow code, and on any sets and attributions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from tension_utils.analysis import parting
from tension_utils.analysis.accuracy import depth_accuracy
from tension_utils.analysis.parting import opposing_share
from tension_utils.artifacts import file_hash
from tension_utils.config import MATCHED_ARM, OBJECTIVES, Run, SinglePair, list_runs
from tension_utils.cosines import GRADIENTS
from tension_utils.depth import DepthConfig, depth_run
from tension_utils.geometry import GradientConfig, WeightChangeConfig, gradient_run, weight_change_run
from tension_utils.neurons import NeuronSet, activity_bins
from tension_utils.scores import NeuronScores
from tension_utils.statistics import Bootstrap, prediction_test

SHAPE, FRACTION, N_DRAWS = (2, 30), 0.2, 5


def write(path: Path, **scores: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {(kind, "both", "all"): values.astype(np.float32) for kind, values in scores.items()}
    NeuronScores(tensors, "down_input", 1, 1).save(path)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Random scores of three objectives and two seeds; a sham model of the first seed; a matched arm without any."""
    runs = list_runs(tmp_path / "runs" / "hand", ["toy"], [*OBJECTIVES, "harmless-coin"], [0, 1])
    rng = np.random.default_rng(0)
    loudness = rng.exponential(size=SHAPE)  # of the base model, so all share some neurons
    for run in runs:
        if run.objective.endswith("coin") and run.seed:
            continue
        activity = loudness + 0.1 * rng.exponential(size=SHAPE)
        change = activity * rng.exponential(size=SHAPE)
        write(run.folder / "neuron_scores.safetensors", rms_change=change, mean_abs=activity)
        for text in OBJECTIVES[:2]:
            write(run.folder / "score_views" / f"text-{text}.safetensors", attribution=rng.normal(size=SHAPE))
    return [run for run in runs if run.objective in OBJECTIVES] + list_runs(
        runs[0].root, ["toy"], [MATCHED_ARM], [0, 1]
    )


@pytest.mark.parametrize("artifact", ["depth", "gradients", "weight_changes"])
def test_what_an_export_keeps_is_read_and_not_made_again(artifact: str, tmp_path: Path) -> None:
    run = Run(tmp_path, "toy", MATCHED_ARM, 0)
    place = SinglePair(tmp_path, "toy", 0) if artifact == "weight_changes" else run
    make = {
        "depth": lambda: depth_run(run, DepthConfig()),
        "gradients": lambda: gradient_run(run, GradientConfig()),
        "weight_changes": lambda: weight_change_run(place, WeightChangeConfig()),
    }[artifact]
    with pytest.raises(FileNotFoundError, match="reward_model is missing.*01_train"):
        make()
    place.folder.mkdir(parents=True)
    file = place.folder / f"{artifact}.parquet"
    file.write_bytes(b"kept")
    section = {"artifact": file.name, "artifact_hash": file_hash(file), "config": {}}
    files = {file.name: file_hash(file)}
    (place.folder / "manifest.json").write_text(json.dumps({artifact: section, "export": {"files": files}}))
    assert make() is False and file.read_bytes() == b"kept"
    file.write_bytes(b"changed")
    with pytest.raises(ValueError, match="its content is not what manifest.json says"):
        make()


def test_a_share_by_hand() -> None:
    helpful, harmless = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -1.0]]), np.array([[-1.0, -2.0, -4.0], [1.0, 1.0, 1.0]])
    every = NeuronSet(np.ones((2, 3), bool))
    assert opposing_share(every, helpful, harmless) == 3 / 5, "opposite: (0, 0), (0, 2), (1, 2); no sign: (1, 0)"
    assert opposing_share(NeuronSet.of((2, 3), [(0, 1), (1, 1)]), helpful, harmless) == 0
    assert np.isnan(opposing_share(NeuronSet.of((2, 3), [(1, 0)]), helpful, harmless))
    assert np.isnan(opposing_share(every - every, helpful, harmless))
    with pytest.raises(ValueError, match=r"shape \(layers, neurons\) = \(2, 3\); got \(3, 2\) and \(2, 3\)"):
        opposing_share(every, helpful.T, harmless)


def test_tiny_attributions_keep_their_signs() -> None:
    tiny = np.full((1, 2), 1e-30, dtype=np.float32)
    assert opposing_share(NeuronSet(np.ones((1, 2), bool)), tiny, -tiny) == 1.0, "their product is below float32"


values = hnp.arrays(np.float64, (2, 6), elements=st.sampled_from([-2.0, -1.0, 0.0, 1.0, 3.0]))
masks = hnp.arrays(np.bool_, (2, 6))


def same(a: float, b: float) -> bool:
    return a == pytest.approx(b, nan_ok=True)


@settings(max_examples=60)
@given(masks, values, values)
def test_a_share_of_any_set(mask: np.ndarray, helpful: np.ndarray, harmless: np.ndarray) -> None:
    neurons, share = NeuronSet(mask), opposing_share(NeuronSet(mask), helpful, harmless)
    assert np.isnan(share) or 0 <= share <= 1
    assert same(opposing_share(neurons, harmless, helpful), share), "the texts may change places"
    assert same(opposing_share(neurons, 5 * helpful, 0.1 * harmless), share), "scales do not matter"
    assert same(opposing_share(neurons, -helpful, harmless), 1 - share), "one text turned around"
    assert not opposing_share(neurons, helpful, helpful) > 0, "no neuron opposes itself"


def slow_rows(run: Run, neurons: set[tuple[int, int]]) -> float:
    """The share, neuron by neuron from the files."""
    first, second = (
        NeuronScores.load(run.folder / "score_views" / f"text-{text}.safetensors").tensors["attribution", "both", "all"]
        for text in ("helpful", "harmless")
    )
    opposite = [float(first[at]) > 0 > float(second[at]) or float(first[at]) < 0 < float(second[at]) for at in neurons]
    return sum(opposite) / len(opposite)


def slow_top(run: Run) -> set[tuple[int, int]]:
    scores = NeuronScores.load(run.folder / "neuron_scores.safetensors").tensors["rms_change", "both", "all"]
    places = sorted(np.ndindex(*SHAPE), key=lambda at: -scores[at])
    return set(places[: round(FRACTION * scores.size)])


def test_rows_equal_slow_code(runs: list[Run]) -> None:
    rows = parting.sign_rows(runs, "rms_change", FRACTION, N_DRAWS)
    assert set(rows.objective) == set(OBJECTIVES), "the matched arm has no scores"
    found = rows[rows.draw == parting.TARGETED].set_index(["objective", "seed", "set"]).sort_index()
    of = {(run.objective, run.seed): run for run in runs}
    for seed in (0, 1):
        helpful, harmless = (slow_top(of[name, seed]) for name in OBJECTIVES[:2])
        sets = {"shared": helpful & harmless, "helpful only": helpful - harmless, "harmless only": harmless - helpful}
        if seed == 0:
            sets["helpful and harmless-coin"] = helpful & slow_top(Run(runs[0].root, "toy", "harmless-coin", 0))
        assert set(found.xs(("helpful", seed)).index) == set(sets)
        for objective in OBJECTIVES:
            for name, neurons in sets.items():
                row = found.loc[(objective, seed, name)]
                assert row.n_neurons == len(neurons) > 0
                assert row.share == pytest.approx(slow_rows(of[objective, seed], neurons))
    assert (rows.groupby(["objective", "seed", "set"]).draw.apply(list).map(len) == 1 + N_DRAWS).all()


def test_random_sets_are_matched_in_layer_and_activity(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    seen, original = [], NeuronSet.matched_random

    def spy(self: NeuronSet, generator: np.random.Generator, draws: int, bins: np.ndarray | None = None) -> list:
        seen.append((self, bins, original(self, generator, draws, bins)))
        return seen[-1][2]

    monkeypatch.setattr(NeuronSet, "matched_random", spy)
    rows = parting.sign_rows(runs[:4], "rms_change", FRACTION, N_DRAWS)
    activity = NeuronScores.load(runs[0].folder / "neuron_scores.safetensors").get("mean_abs")
    neurons, bins, draws = seen[0]
    assert np.array_equal(bins, activity_bins(activity))
    for draw in draws:
        for layer in range(SHAPE[0]):
            counts = [np.bincount(bins[layer, each.mask[layer]], minlength=20).tolist() for each in (neurons, draw)]
            assert counts[0] == counts[1]
    own = rows[(rows.objective == "helpful") & (rows.seed == 0) & (rows.set == "shared")]
    texts = parting.attributions(runs[0]).values()
    assert own.share.tolist() == [opposing_share(each, *texts) for each in (neurons, *draws)]
    assert own.held.iloc[0] == pytest.approx(neurons.expected_overlap(bins))
    again = parting.sign_rows(runs[:4], "rms_change", FRACTION, N_DRAWS)
    pd.testing.assert_frame_equal(rows, again)


def test_signs_need_both_single_models_and_their_views(runs: list[Run]) -> None:
    with pytest.raises(ValueError, match="objectives: expected both helpful and harmless"):
        parting.sign_rows(runs[:2], "rms_change", FRACTION, N_DRAWS)
    (runs[0].folder / "score_views" / "text-harmless.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="text-harmless.safetensors is missing.*03_identify"):
        parting.sign_rows(runs, "rms_change", FRACTION, N_DRAWS)


def hand_rows(shares: dict[tuple[str, int], list[float]]) -> pd.DataFrame:
    """Rows of one model: (set, seed) -> the share of the set, then those of its random sets."""
    rows = [
        {"set": name, "seed": seed, "draw": draw, "share": share, "n_neurons": 10 + seed, "held": 0.1}
        for (name, seed), values in shares.items()
        for draw, share in enumerate(values, start=parting.TARGETED)
    ]
    return pd.DataFrame(rows).assign(base_model="toy", objective=MATCHED_ARM)


def test_signs_over_seeds_by_hand() -> None:
    rows = hand_rows({("shared", 0): [0.7, 0.5, 0.4, 0.6], ("shared", 1): [0.6, 0.4, 0.6, 0.8]})
    (row,) = parting.sign_table(rows).itertuples()
    assert row.share == pytest.approx(0.65) and row.random_share == pytest.approx(0.55)
    assert row.effect == pytest.approx(0.1) and row.n_same == 1, "+.2 and 0"
    assert row.share_ci_low == pytest.approx(0.65 - 0.05 * stats.t.ppf(0.975, 1)) and row.share_ci_high == 1
    means = [0.45, 0.5, 0.7]  # of each random set over both seeds
    assert (row.random_share_low, row.random_share_high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    error = np.sqrt((0.01 + 0.04) / 2 * (1 + 1 / 3) / 2)
    assert row.ci_high - row.ci_low == pytest.approx(2 * stats.t.ppf(0.975, 4) * error)
    assert row.p_value == pytest.approx(2 * stats.t.sf(0.1 / error, 4))
    assert (row.n_seeds, row.n_draws, row.n_neurons, row.held) == (2, 3, 10.5, 0.1)


def test_one_seed_has_no_interval_over_seeds_and_empty_sets_no_row() -> None:
    nan = float("nan")
    shares = {("shared", 0): [0.7, 0.5, 0.4, 0.6], ("helpful only", 0): [nan] * 4, ("helpful only", 1): [nan] * 4}
    shares |= {("shared", 1): [nan, nan, nan, nan]}
    (row,) = parting.sign_table(hand_rows(shares)).itertuples()
    assert row.set == "shared" and row.n_seeds == 1 and np.isnan(row.share_ci_low) and row.n_neurons == 10
    assert row.ci_low < row.effect < row.ci_high


def test_the_interval_of_a_prediction_leaves_out_0_where_p_is_small() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        found = prediction_test(rng.normal(1, 1, 2), rng.normal(size=(2, 6)))
        assert (found.bounds[0] > 0 or found.bounds[1] < 0) == (found.p_value < 0.05)
        assert sum(found.bounds) / 2 == pytest.approx(found.effect)


@pytest.mark.parametrize(
    ("low", "high", "index"),
    [
        ([-1, 1, 1], [1, 2, 2], 1),
        ([1, 1, 1], [2, 2, 2], 0),
        ([1, -2, 1], [2, -1, 2], 2),
        ([1, 1, -1], [2, 2, 1], None),
        ([-1, -3, -2], [0, -1, -1], 1),
        ([-1, 1, -2], [1, 2, -1], 2),
    ],
)
def test_what_lasts(low: list, high: list, index: int | None) -> None:
    assert parting.lasting_from(np.array(low), np.array(high)) == index


def depth_rows(credits: dict[str, list[list[float]]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Depth table and evaluation: test -> credits by depth."""
    rows = [
        {"depth": depth, "subset": f"{test}-x", "item_id": f"{test}{item}", "credit": credit}
        for test, by_depth in credits.items()
        for depth, values in enumerate(by_depth)
        for item, credit in enumerate(values)
    ]
    label = {"base_model": "toy", "objective": "helpful", "seed": 0, "benchmark": "hh-rlhf", "chance": 0.5}
    table = pd.DataFrame(rows).assign(**label).assign(cluster=lambda each: each.item_id, margin=0.0)
    evaluation = table[table.depth == 0].assign(group=lambda each: each.subset.str.removesuffix("-x"))
    return table, evaluation


def test_depths_by_hand() -> None:
    half, up, down = [0.0, 1.0] * 20, [1.0] * 38 + [0.0] * 2, [0.0] * 38 + [1.0] * 2
    table, evaluation = depth_rows({"helpful": [half, up, half, up], "harmless": [half, half, half, down]})
    rows = parting.hh_depths(table, evaluation)
    assert set(rows.subset) == {"helpful", "harmless"} and len(rows) == len(table)
    gaps = parting.depth_gaps(rows, Bootstrap(200))
    assert gaps.difference.tolist() == pytest.approx([0, 0.45, 0, 0.9]) and (gaps.n_items == 80).all()
    (row,) = parting.depth_table(depth_accuracy(rows, Bootstrap(200)), gaps).itertuples()
    assert (row.helpful_depth, row.harmless_depth, row.parting_depth, row.last_depth) == (3, 3, 3, 3)
    assert row.difference == pytest.approx(0.9) and row.ci_low < 0.9 < row.ci_high and row.n_seeds == 1


def test_the_interval_of_a_gap_is_that_of_two_independent_tests() -> None:
    rng = np.random.default_rng(0)
    credits = {test: [rng.integers(0, 2, n).astype(float).tolist()] for test, n in (("helpful", 90), ("harmless", 60))}
    (gap,) = parting.depth_gaps(parting.hh_depths(*depth_rows(credits)), Bootstrap(4000)).itertuples()
    first, second = (np.array(values[0]) for values in credits.values())
    error = np.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))
    assert gap.difference == pytest.approx(first.mean() - second.mean())
    assert gap.ci_high - gap.ci_low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_curves_that_stay_at_chance_part_nowhere() -> None:
    half = [0.0, 1.0] * 10
    rows = parting.hh_depths(*depth_rows({"helpful": [half, half], "harmless": [half, half]}))
    accuracies = depth_accuracy(rows, Bootstrap(100))
    (row,) = parting.depth_table(accuracies, parting.depth_gaps(rows, Bootstrap(100))).itertuples()
    assert np.isnan([row.helpful_depth, row.harmless_depth, row.parting_depth]).all()


def test_a_subset_without_evaluation_is_named() -> None:
    table, evaluation = depth_rows({"helpful": [[1.0]], "harmless": [[1.0]]})
    with pytest.raises(ValueError, match=r"expected subsets of evaluation.parquet, helpful-x; got \['harmless-x'\]"):
        parting.hh_depths(table, evaluation[evaluation.group == "helpful"])


def test_means_over_seeds_by_hand() -> None:
    table = pd.DataFrame({"seed": [0, 1, 2], "part": "head", "cosine": [0.8, 0.9, 1.0], "corrected_cosine": [1, 2, 3]})
    table = pd.concat([table, table.assign(part="norm", corrected_cosine=[1, np.nan, 2])])
    row, lacking = parting.seed_means(table, ["cosine", "corrected_cosine"], ["part"]).itertuples()
    reach = stats.t.ppf(0.975, 2) / np.sqrt(3)
    assert row.cosine == pytest.approx(0.9) and row.cosine_ci_low == pytest.approx(0.9 - 0.1 * reach)
    assert row.cosine_ci_high == 1 and row.corrected_cosine_ci_high == pytest.approx(2 + reach) and row.n_seeds == 3
    assert lacking.cosine == pytest.approx(0.9)
    assert np.isnan([lacking.corrected_cosine, lacking.corrected_cosine_ci_low]).all(), "seeds with one are chosen"


def dots(vectors: dict[str, list[float]], **label: object) -> pd.DataFrame:
    """Dot products of vectors with an entry in the attention of layer 0 and one in its norm."""
    names = list(vectors)
    rows = [
        {"layer": 0, "part": part, "first": a, "second": b, "dot": vectors[a][i] * vectors[b][i], "n_parameters": 50}
        for i, part in enumerate(("attention", "norm"))
        for number, a in enumerate(names)
        for b in names[number:]
    ]
    return pd.DataFrame(rows).assign(**label)


def test_gradients_by_hand() -> None:
    label = {"base_model": "toy", "objective": MATCHED_ARM}
    halves = [(3.0, 4.0), (3.0, 4.0), (4.0, 3.0), (4.0, 3.0)]
    tables = [dots(dict(zip(GRADIENTS, halves, strict=True)), seed=seed, **label) for seed in (0, 1)]
    found = parting.gradient_table(pd.concat(tables)).set_index("part")
    assert found.index.tolist() == [parting.WHOLE, "attention", "norm"] and (found.n_seeds == 2).all()
    assert found.cosine[parting.WHOLE] == found.corrected_cosine[parting.WHOLE] == pytest.approx(24 / 25)
    assert found.helpful_halves_cosine.tolist() == pytest.approx([1, 1, 1])
    assert found.n_parameters.tolist() == [100, 50, 50]


def test_weight_changes_by_hand() -> None:
    changes = {"helpful": [3.0, 4.0], "harmless": [4.0, 3.0], "helpful-coin": [4.0, -3.0], MATCHED_ARM: [3.0, 0.0]}
    found = parting.weight_table(dots(changes, base_model="toy", seed=0)).set_index("pair")
    pairs = [f"{one} / {other}" for other in (MATCHED_ARM, "helpful-coin") for one in ("helpful", "harmless")]
    assert found.index.tolist() == ["helpful / harmless", *pairs]
    assert found.cosine.tolist() == pytest.approx([24 / 25, 3 / 5, 4 / 5, 0, 7 / 25])
    assert found["norm"].iloc[0] == 1 and found["norm"].iloc[3] == -1 and found.cosine_ci_low.isna().all()
    assert found.random_cosine.tolist() == pytest.approx([0.196] * 5)


def test_points_are_standardized_and_marked(runs: list[Run]) -> None:
    neurons = NeuronSet.of(SHAPE, [(0, 2), (1, 29)])
    points = parting.attribution_points(runs[0], neurons)
    assert len(points) == 60 and points[["helpful", "harmless"]].std(ddof=0).tolist() == pytest.approx([1, 1])
    assert list(points[points.is_marked][["layer", "index"]].itertuples(index=False, name=None)) == [(0, 2), (1, 29)]
    raw = parting.attributions(runs[0])["harmless"]
    assert points.harmless.iloc[32] == pytest.approx(raw[1, 2] / raw.std())


def test_the_mixed_model_on_as_many_pairs_decides() -> None:
    assert parting.mixed_arm([*OBJECTIVES, MATCHED_ARM]) == MATCHED_ARM
    assert parting.mixed_arm(OBJECTIVES[:2]) is None
