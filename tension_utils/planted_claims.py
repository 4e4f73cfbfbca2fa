"""Claim tests on a world whose truth is known: each as published and under control, decided as the ledger decides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tension_utils.ablation import ablated
from tension_utils.conditions import CONTROL, EQUAL_SIZE, NATURAL, ONLY, SHARED, mixed_sets
from tension_utils.config import MIXED, SINGLE_OBJECTIVES
from tension_utils.effects import ablation_effects
from tension_utils.overlap import compare_sets, shared_count_p_value
from tension_utils.planted_finders import FRACTION, PLACE, WORLD_KINDS, PlantedWorld, credits
from tension_utils.planted_worlds import true_neurons
from tension_utils.statements import WAYS, verdict_of
from tension_utils.statistics import analysis_rng, mean_table

HELPFUL, HARMLESS = SINGLE_OBJECTIVES
TEST_KINDS = WORLD_KINDS[:3]  # scores behind the tested sets; the first is the published one
PLANT = "the plant"  # in the place of a score: the true neurons, as a perfect finder would give them
MANY = 1 / 3  # the Jaccard index of two sets of one size that share half of their neurons
P_LEVEL = 0.05
N_RESAMPLES = 500
N_PARTS = 3  # random parts per set of unequal sizes, averaged
RAW, INTERVAL, RANK, BOTH = "raw change", "interval", "interval and rank", "interval, both tests"
HALF, CHANCE, FLOOR, QUIET = "half is shared", "chance", "chance and base floor", "chance, quiet neurons"
READINGS = {
    ("C2", RAW): "accuracy on the own test falls",
    ("C2", INTERVAL): "interval of the effect beyond random sets is below zero",
    ("C2", RANK): "and the change is below that of every random set but one in twenty",
    ("C3", RAW): "accuracy on the opposing test rises",
    ("C3", INTERVAL): "interval of the effect beyond random sets is above zero",
    ("C3", RANK): "and the change is above that of every random set but one in twenty",
    ("C4", HALF): "the Jaccard index is at least 1/3: sets of one size share half of their neurons",
    ("C4", CHANCE): "more shared neurons than random sets of these layer counts have, p <= .05",
    ("C4", FLOOR): "and a larger index than that of the base model on the two texts",
    ("C4", QUIET): "as chance, among neurons that are not in the top sets of the base model",
    ("C5", RAW): "accuracy falls more without all shared neurons than without those of either objective only",
    ("C5", BOTH): "intervals of that difference at equal sizes are below zero for both only sets",
    ("C5", INTERVAL): "interval of that difference at equal sizes, each only set on its own test, is below zero",
}


@dataclass(frozen=True)
class Decision:
    """What one test says in one world.

    Args:
        claim: "C2" to "C5".
        way: of `claims.WAYS`.
        reading: which test, of `READINGS`.
        metric: "accuracy", "margin" or "overlap".
        score_kind: that made the sets, or `PLANT`.
        n_seeds: training runs per objective behind it.
        value: estimate; NaN where a set was empty.
        is_supported: whether the test supports the claim.
    """

    claim: str
    way: str
    reading: str
    metric: str
    score_kind: str
    n_seeds: int
    value: float
    is_supported: bool


def item_rows(world: PlantedWorld, margins: Sequence[np.ndarray], labels: Sequence[dict]) -> pd.DataFrame:
    """Return one row per condition and item: the item's columns, the condition's, margin and credit."""
    n_items = len(world.place)
    rows = pd.concat([world.place] * len(labels), ignore_index=True)
    rows[list(labels[0])] = pd.DataFrame(labels).loc[np.repeat(np.arange(len(labels)), n_items)].to_numpy()
    margin = np.concatenate(margins)
    return rows.infer_objects().assign(base_model="planted", margin=margin, credit=credits(margin))


def ablation_rows(world: PlantedWorld, n_seeds: int, n_draws: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Remove the top sets of the helpful reward models, and random sets that match them layer by layer.

    Returns:
        ablation and evaluation, as `effects.ablation_effects` takes them.
    """
    margins, labels, generator = [], [], world.config.generator("random sets")
    names = [{"objective": HELPFUL, "seed": seed} for seed in range(n_seeds)]
    for name in names:
        model = world.model(**name)
        for kind in TEST_KINDS:
            target = world.top(kind, **name)
            for draw, neurons in enumerate([target, *target.matched_random(generator, n_draws)]):
                with ablated(model, neurons):
                    margins.append(world.margins(model))
                label = {"set": CONTROL if draw else kind, "matched_to": kind, "draw": draw}
                labels.append(name | label | {"fraction": FRACTION, "ablation_kind": "zero"})
    intact = [world.margins(world.model(**name)) for name in names]
    return item_rows(world, margins, labels), item_rows(world, intact, names)


def decide_effects(ablation: pd.DataFrame, evaluation: pd.DataFrame) -> Iterator[Decision]:
    """Yield C2 (the own test gets worse) and C3 (the opposing test gets better) for the helpful reward models."""
    n_seeds = evaluation.seed.nunique()
    match = ("matched_to", "fraction", "ablation_kind")
    by = ["group", "set", *match]
    effects = ablation_effects(ablation, evaluation, by, analysis_rng(), match=match, n_resamples=N_RESAMPLES)
    for row in effects.itertuples():
        claim, is_negative = ("C2", True) if row.group == HELPFUL else ("C3", False)
        here = {"claim": claim, "metric": row.metric, "score_kind": row.set, "n_seeds": n_seeds}
        if row.metric == "accuracy":
            verdict = verdict_of(row.change, row.change, is_negative)
            yield Decision(way=WAYS[0], reading=RAW, value=row.change, is_supported=verdict == "supported", **here)
        is_clear = verdict_of(row.ci_low, row.ci_high, is_negative) == "supported"
        is_extreme = row.p_value / 2 <= P_LEVEL + 1e-9  # the table's rank is two-sided, the claim is not
        for reading, holds in ((INTERVAL, is_clear), (RANK, is_clear and is_extreme)):
            yield Decision(way=WAYS[1], reading=reading, value=row.effect, is_supported=bool(holds), **here)


def decide_overlap(world: PlantedWorld, n_seeds: int) -> Iterator[Decision]:
    """Yield C4: the helpful and the harmless reward model share many neurons; with several seeds, in every one."""
    sets = {
        kind: [[world.top(kind, objective, seed) for objective in SINGLE_OBJECTIVES] for seed in range(n_seeds)]
        for kind in (*WORLD_KINDS, "base")
    }
    floor = np.array([compare_sets(*pair)["jaccard"] for pair in sets["base"]])
    for kind in WORLD_KINDS:
        overlap = pd.DataFrame([compare_sets(*pair) for pair in sets[kind]])
        quiet = [
            shared_count_p_value(*pair, loud[0] | loud[1]) for pair, loud in zip(sets[kind], sets["base"], strict=True)
        ]
        is_above_chance = (overlap.p_value <= P_LEVEL).all()
        held = {
            (WAYS[0], HALF): overlap.jaccard.mean() >= MANY,
            (WAYS[1], CHANCE): is_above_chance,
            (WAYS[1], QUIET): max(quiet) <= P_LEVEL,
        }
        if kind == "mean_abs":  # a score of change has no floor
            held[WAYS[1], FLOOR] = is_above_chance and (overlap.jaccard > floor).all()
        for (way, reading), holds in held.items():
            yield Decision("C4", way, reading, "overlap", kind, n_seeds, overlap.jaccard.mean(), bool(holds))


def removal_changes(world: PlantedWorld, kind: str, n_seeds: int) -> pd.DataFrame:
    """Return what removing shared and only sets changes in the mixed models, per seed and item.

    Args:
        world: the world.
        kind: of `TEST_KINDS`: what the single models' top sets share and do not; or `PLANT`: the true sets.
        n_seeds: training runs.

    Returns:
        Item columns, base_model, seed, set, family, accuracy, margin: changes, margins in intact standard deviations of
        that test, the parts of equal size averaged.
    """
    found, generator = [], world.config.generator("parts", kind)
    for seed in range(n_seeds):
        tops = [true_neurons(world.config, each) if kind == PLANT else world.top(kind, each, seed)
                for each in SINGLE_OBJECTIVES]  # fmt: skip
        families = [NATURAL, *[EQUAL_SIZE] * N_PARTS]
        chosen = [(name, family, neurons) for family in families
                  for name, neurons in mixed_sets(*tops, family, generator).items()]  # fmt: skip
        model, margins = world.model(MIXED, seed), []
        intact = world.margins(model)
        for *_, neurons in chosen:
            with ablated(model, neurons):
                margins.append(world.margins(model))
        labels = [{"seed": seed, "set": name, "family": family} for name, family, _ in chosen]
        rows = item_rows(world, margins, labels)
        rows["accuracy"] = rows.credit - np.tile(credits(intact), len(chosen))
        scale = world.place.assign(margin=intact).groupby("group").margin.std()
        rows["margin"] = (rows.margin - np.tile(intact, len(chosen))) / rows.group.map(scale)
        found.append(rows)
    columns = ["base_model", "seed", "set", "family", *PLACE]
    return pd.concat(found).groupby(columns)[["accuracy", "margin"]].mean().reset_index()


def decide_weight(changes: pd.DataFrame, kind: str) -> Iterator[Decision]:
    """Yield C5: removing shared neurons of the mixed model does more than removing those of one objective only.

    Where a set is empty there is nothing to compare, and the claim is not supported.
    """
    n_seeds, metrics = changes.seed.nunique(), ["accuracy", "margin"]
    sets, onlys = {SHARED, *ONLY.values()}, list(ONLY.values())
    of = {family: changes[changes.family == family].set_index("set") for family in (NATURAL, EQUAL_SIZE)}
    if not all(sets <= set(rows.index) for rows in of.values()):
        readings = [(WAYS[0], RAW, "accuracy"), *((WAYS[1], way, each) for way in (INTERVAL, BOTH) for each in metrics)]
        for way, reading, metric in readings:
            yield Decision("C5", way, reading, metric, kind, n_seeds, np.nan, False)
        return
    whole = of[NATURAL].groupby("set").accuracy.mean()
    gap = whole[SHARED] - whole[onlys].min()
    yield Decision("C5", WAYS[0], RAW, "accuracy", kind, n_seeds, gap, bool(gap < 0))
    keys = ["base_model", "seed", *PLACE]
    shared, *rests = (of[EQUAL_SIZE].loc[name].set_index(keys)[metrics] for name in (SHARED, *onlys))
    rests = {only: shared - rest for only, rest in zip(onlys, rests, strict=True)}
    rests = pd.concat(rests, names=["only"]).reset_index()
    own = rests[rests.only == rests.group.map(ONLY)]
    for reading, parts in ((INTERVAL, [own]), (BOTH, [rests[rests.only == only] for only in onlys])):
        table = pd.concat([mean_table(part, metrics, [], analysis_rng(), N_RESAMPLES) for part in parts])
        for metric in metrics:
            low, high = table[f"{metric}_ci_low"], table[f"{metric}_ci_high"]
            verdict = verdict_of(low.max(), high.max())
            yield Decision("C5", WAYS[1], reading, metric, kind, n_seeds, table[metric].mean(), verdict == "supported")


def decide_world(world: PlantedWorld, n_seeds: int = 3, n_draws: int = 19) -> list[Decision]:
    """Return every test of every claim that is true or false in the world, with one seed and with all.

    Args:
        world: the world.
        n_seeds: training runs per objective.
        n_draws: random sets per tested set; with fewer than 19 no rank can be significant.
    """
    truth, found = world.config.rules.truth, []
    ablation, evaluation = ablation_rows(world, n_seeds, n_draws)
    weights = {kind: removal_changes(world, kind, n_seeds) for kind in (*TEST_KINDS, PLANT) if "C5" in truth}
    for used in sorted({1, n_seeds}):
        found += decide_effects(ablation[ablation.seed < used], evaluation[evaluation.seed < used])
        found += decide_overlap(world, used) if "C4" in truth else []
        for kind, changes in weights.items():
            found += decide_weight(changes[changes.seed < used], kind)
    return [decision for decision in found if decision.claim in truth]
