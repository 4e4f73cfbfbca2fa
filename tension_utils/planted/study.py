"""Score finders and claim tests on many planted worlds, where the truth is known."""

import argparse
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from tension_utils.ablation import ablated
from tension_utils.activations import KINDS, neuron_scores, neuron_scores_many
from tension_utils.analysis.claims import COMMAND, WAYS, verdict_of
from tension_utils.analysis.overlap import compare_sets, shared_count_p_value
from tension_utils.artifacts import atomic_path, file_hash, git_commit, package_versions
from tension_utils.conditions import CONTROL, EQUAL_SIZE, NATURAL, ONLY, SHARED, mixed_sets
from tension_utils.config import MIXED, OBJECTIVES, SINGLE_OBJECTIVES, check_range, config_hash
from tension_utils.data import Item, tokenize_item
from tension_utils.neurons import NeuronSet, top_neurons
from tension_utils.planted.model import base_model, reward_model
from tension_utils.planted.world import (
    MAX_LENGTH,
    SCENARIOS,
    WorldConfig,
    draw_world,
    planted_tokenizer,
    preference_items,
    true_neurons,
)
from tension_utils.statistics import Bootstrap, ablation_effects, mean_table, seed_interval, wilson_interval

SITES = ("down_input", "gate")

WORLD_KINDS = ("signed_mean", "mean_abs", "rms_change", "relative_change")  # of which claim tests make sets

FRACTION = 0.1  # of all neurons in a set, as in the study

PLACE = ("benchmark", "subset", "item_id", "cluster", "group")  # columns of an item

OPTIONS = {"max_length": MAX_LENGTH, "progress": False}


class PlantedWorld:
    """A world with its base model, and its reward models, texts and scores once they are asked for.

    Args:
        config: of the world.
        n_items: items per test.
        n_text: training pairs per objective that scores read.
    """

    def __init__(self, config: WorldConfig, n_items: int = 30, n_text: int = 30) -> None:
        check_range("n_text", n_text, 1)
        self.config, self.n_text = config, n_text
        self.tokenizer = planted_tokenizer()
        self.base = base_model(config, self.tokenizer)
        items = [item for each in SINGLE_OBJECTIVES for item in preference_items(config, each, n_items)]
        self.place = pd.DataFrame([[getattr(item, name) for name in PLACE] for item in items], columns=list(PLACE))
        tokens = [tokenize_item(self.tokenizer, item, MAX_LENGTH).sequences for item in items]
        self.tokens = torch.tensor(tokens)  # (items, 2, T): all sequences are of one length
        self.model = cache(lambda objective, seed=0: reward_model(self.base, config, objective, seed))
        self.scores = cache(self._scores)

    def text(self, objective: str, seed: int = 0) -> list[Item]:
        """Return training pairs of an objective; the mixed one has those of both."""
        singles = SINGLE_OBJECTIVES if objective == MIXED else (objective,)
        name = f"train {seed}"
        return [item for each in singles for item in preference_items(self.config, each, self.n_text, name=name)]

    def _scores(self, objective: str, seed: int = 0) -> dict[str, np.ndarray]:
        """Return scores (L, N) of a reward model on its own text; "base" is mean_abs of the base model on it."""
        models, kinds = (self.model(objective, seed), self.base), WORLD_KINDS
        text = self.text(objective, seed)
        own, base = neuron_scores_many(models, self.tokenizer, text, base_model=self.base, kinds=kinds, **OPTIONS)
        return {kind: own.get(kind) for kind in kinds} | {"base": base.get("mean_abs")}

    def top(self, kind: str, objective: str, seed: int = 0) -> NeuronSet:
        """Return the top neurons by one of the scores above."""
        return top_neurons(self.scores(objective, seed)[kind], FRACTION)

    @torch.inference_mode()
    def margins(self, model: PreTrainedModel) -> np.ndarray:
        """Return the margin per test item (items,), float32, in the order of ``place``.

        One plain forward pass: where all sequences are of one length, packing them would only cost time.
        """
        rewards = model(self.tokens.flatten(0, 1), use_cache=False).logits[:, 0].view(-1, 2)
        return (rewards[:, 0] - rewards[:, 1]).numpy()


def credits(margins: np.ndarray) -> np.ndarray:
    """Return 1 for a positive margin, 0 for a negative one, 1/2 for a tie."""
    return (margins > 0) + 0.5 * (margins == 0)


def ranking_quality(scores: np.ndarray, truth: NeuronSet) -> dict[str, float | int]:
    """Return how well a score ranks the true neurons before all others.

    Args:
        scores: (L, N), the higher the likelier.
        truth: n > 0 true neurons.

    Returns:
        precision, of the n top neurons, which is also their recall; recall_twice, of the 2 n top ones;
        average_precision, the mean over true neurons of the precision down to each; chance, the expected precision of
        a random ranking; n_true.

    Raises:
        ValueError: if there is no true neuron.

    >>> quality = ranking_quality(np.array([[4.0, 3.0], [2.0, 1.0]]), NeuronSet.of((2, 2), [(0, 0), (1, 0)]))
    >>> {name: round(value, 3) for name, value in quality.items()}
    {'precision': 0.5, 'recall_twice': 1.0, 'average_precision': 0.833, 'chance': 0.5, 'n_true': 2}
    """
    n_true = len(truth)
    if not n_true:
        raise ValueError("expected at least one true neuron, got none: nothing is planted in this world")
    top, twice = (top_neurons(scores, min(1.0, times * truth.fraction)) for times in (1, 2))
    is_true = truth.mask.ravel()[np.argsort(-np.asarray(scores, np.float64).ravel(), kind="stable")]
    ranks = np.flatnonzero(is_true) + 1
    return {
        "precision": len(top & truth) / n_true,
        "recall_twice": len(twice & truth) / n_true,
        "average_precision": float((np.arange(1, n_true + 1) / ranks).mean()),
        "chance": truth.fraction,
        "n_true": n_true,
    }


def finder_table(world: PlantedWorld) -> pd.DataFrame:
    """Score every kind of `activations.KINDS` on every reward model of a world, on its own training text.

    Returns:
        objective, site, score_kind, and the columns of `ranking_quality`.

    Raises:
        ValueError: if nothing is planted in the world.
    """
    rows = []
    for objective in OBJECTIVES:
        truth = true_neurons(world.config, objective)
        for site in SITES:
            options = OPTIONS | {"site": site}
            text, model = world.text(objective), world.model(objective)
            scores = neuron_scores(model, world.tokenizer, text, base_model=world.base, kinds=KINDS, **options)
            for kind in KINDS:
                name = {"objective": objective, "site": site, "score_kind": kind}
                rows.append(name | ranking_quality(scores.get(kind), truth))
    return pd.DataFrame(rows)


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
    effects = ablation_effects(ablation, evaluation, by, match=match, bootstrap=Bootstrap(N_RESAMPLES))
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
        table = pd.concat([mean_table(part, metrics, [], Bootstrap(N_RESAMPLES)) for part in parts])
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


FINDER_SCENARIO = "planted"  # where finders are scored

CODE = ("planted/world.py", "planted/model.py", "planted/study.py")  # a change here makes kept worlds stale

KNOBS = ("loudness", "drift", "conflict", "damage")

TEST_COLUMNS = ("claim", "is_true", "scenario", "way", "reading", "metric", "score_kind", "n_seeds")


@dataclass(frozen=True)
class StudyConfig:
    """How much of every world the study sees; about what the book's small profiles see of their models.

    Args:
        n_items: items per test.
        n_text: training pairs per objective that scores read.
        n_seeds: training runs per objective.
        n_draws: random sets per tested set; with fewer than 19 no rank can be significant.
    """

    n_items: int = 30
    n_text: int = 30
    n_seeds: int = 3
    n_draws: int = 19

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            check_range(name, value, 2 if name == "n_items" else 1)

    @property
    def digest(self) -> str:
        """Hash of the sizes and of the code that makes and judges worlds."""
        here = Path(__file__).parents[1]
        return config_hash(asdict(self) | {name: file_hash(here / name) for name in CODE})


def study_world(seed: int, scenario: str, config: StudyConfig) -> dict:
    """Return what all tests say in one world, and where they are scored, the finders' quality; JSON-like."""
    started, knobs = time.perf_counter(), draw_world(seed, scenario)
    world = PlantedWorld(knobs, config.n_items, config.n_text)
    decisions = [asdict(decision) for decision in decide_world(world, config.n_seeds, config.n_draws)]
    finders = finder_table(world).to_dict("records") if scenario == FINDER_SCENARIO else []
    seconds = round(time.perf_counter() - started, 2)
    return {"world": asdict(knobs), "decisions": decisions, "finders": finders, "seconds": seconds}


def run_worlds(n_worlds: int, config: StudyConfig, work: Path, progress: bool = True) -> list[dict]:
    """Return `study_world` of every scenario and seed; worlds that ``work`` holds from the same code are not run again.

    Args:
        n_worlds: seeds per scenario.
        config: sizes.
        work: folder of one file per world, written at once each.
        progress: show a bar.

    Raises:
        ValueError: for fewer than one world.
    """
    check_range("n_worlds", n_worlds, 1)
    places = [(seed, scenario) for seed in range(n_worlds) for scenario in SCENARIOS]
    found = []
    for seed, scenario in tqdm(places, desc="planted worlds", unit="world", disable=not progress):
        path = work / f"{scenario}-{seed}.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if kept.get("digest") != config.digest:
            kept = study_world(seed, scenario, config) | {"digest": config.digest}
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(kept), encoding="utf-8")
        found.append(kept)
    return found


def claim_rates(worlds: Sequence[Mapping]) -> pd.DataFrame:
    """Return how often each test supports its claim, where it is true (power) and where it is false (false positives).

    Args:
        worlds: of `run_worlds`.

    Returns:
        `TEST_COLUMNS`, n_worlds, n_supported, rate with Wilson's 95 % interval (ci_low, ci_high), value (mean).
    """
    rows = [decision | {"scenario": each["world"]["scenario"]} for each in worlds for decision in each["decisions"]]
    table = pd.DataFrame(rows)
    table["is_true"] = [SCENARIOS[row.scenario].truth[row.claim] for row in table.itertuples()]
    groups = table.groupby(list(TEST_COLUMNS), sort=True)
    rates = groups.agg(n_worlds=("value", "size"), n_supported=("is_supported", "sum"), value=("value", "mean"))
    rates = rates.reset_index()
    rates["rate"] = rates.n_supported / rates.n_worlds
    bounds = [wilson_interval(row.n_supported, row.n_worlds) for row in rates.itertuples()]
    rates[["ci_low", "ci_high"]] = bounds
    return rates[[*TEST_COLUMNS, "n_worlds", "n_supported", "rate", "ci_low", "ci_high", "value"]]


def finder_rates(worlds: Sequence[Mapping]) -> pd.DataFrame:
    """Return how well each score finds the planted neurons, over worlds, their three reward models averaged.

    Args:
        worlds: of `run_worlds`.

    Returns:
        site, score_kind, plant ("all"; "quiet" where planted neurons are less active than typical ones; "loud"),
        n_worlds, precision (as many neurons as are planted; also the recall) with Student's 95 % interval over worlds
        (ci_low, ci_high), recall_twice, average_precision, chance.
    """
    rows = [row | each["world"] for each in worlds for row in each["finders"]]
    keys, metrics = ["site", "score_kind"], ["precision", "recall_twice", "average_precision", "chance"]
    table = pd.DataFrame(rows).groupby([*keys, "seed", "loudness"])[metrics].mean().reset_index()
    is_loud = table.loudness >= 1
    found = []
    for plant, part in (("all", table), ("quiet", table[~is_loud]), ("loud", table[is_loud])):
        for key, group in part.groupby(keys):
            low, high = np.clip(seed_interval(group.precision.to_numpy()), 0, 1)
            row = dict(zip(keys, key, strict=True)) | {"plant": plant, "n_worlds": len(group)}
            found.append(row | group[metrics].mean().to_dict() | {"ci_low": low, "ci_high": high})
    columns = [*keys, "plant", "n_worlds", "precision", "ci_low", "ci_high", *metrics[1:]]
    return pd.DataFrame(found)[columns]


def export_study(worlds: Sequence[Mapping], config: StudyConfig, folder: Path) -> None:
    """Write the tables of rates and ``manifest.json`` to ``folder``, all at once.

    Args:
        worlds: of `run_worlds`.
        config: sizes they were run with.
        folder: replaced if it exists.
    """
    knobs = pd.DataFrame([each["world"] for each in worlds])[["seed", *KNOBS]].drop_duplicates()
    tables = {"finders": finder_rates(worlds), "claims": claim_rates(worlds), "worlds": knobs}
    manifest = {
        "about": "Reward models whose neurons are known, built by hand; no language model and no data of the study.",
        "command": COMMAND,
        "config": asdict(config),
        "code_hash": config.digest,
        "n_worlds": len(knobs),
        "scenarios": list(SCENARIOS),
        "seconds": round(sum(each["seconds"] for each in worlds), 1),
        "device": f"cpu ({torch.get_num_threads()} threads)",
        "commit": git_commit(),
        "python": platform.python_version(),
        "packages": package_versions(),
    }
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        for name, table in tables.items():
            table.to_csv(temporary / f"{name}.csv", index=False, float_format="%.6g")
        text = json.dumps(manifest, indent=1, sort_keys=True)
        (temporary / "manifest.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description="Score finders and claim tests on worlds with a planted truth.")
    parser.add_argument("--worlds", type=int, default=100, help="seeds per scenario")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--work", type=Path, default=Path("runs/planted"), help="folder that keeps finished worlds")
    options = parser.parse_args()
    config = StudyConfig()
    torch.set_num_threads(1)  # the models are too small for more to help
    try:
        worlds = run_worlds(options.worlds, config, options.work)
    except ValueError as error:
        parser.error(str(error))
    export_study(worlds, config, options.output)


if __name__ == "__main__":
    main()
