"""Judge the claims by the ledger's own functions, and score finders, on many worlds where the truth is known."""

import argparse
import copy
import json
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from scipy import stats
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from tension_utils.activations import KINDS, neuron_scores, text_scores
from tension_utils.analysis.claims import MAIN_FRACTION, MAIN_KIND, PUBLISHED_KIND, Evidence, ledger
from tension_utils.artifacts import (
    MANIFEST,
    OWN_SCORES,
    TABLES,
    VIEWS,
    atomic_path,
    file_hash,
    git_commit,
    package_versions,
    require_own,
    write_csv,
)
from tension_utils.conditions import EQUAL_ACTIVITY, NATURAL, WITHOUT_KEYSTONE, Condition, list_conditions
from tension_utils.config import (
    CONTROLS,
    FAMILIES,
    MATCHED_ARM,
    MIXED,
    OBJECTIVES,
    SINGLE_OBJECTIVES,
    AblateConfig,
    Run,
    check_range,
    config_hash,
)
from tension_utils.data import BenchmarkItem
from tension_utils.interpolation import InterpolateConfig
from tension_utils.neurons import NeuronSet, activity_bins, top_neurons
from tension_utils.planted.model import COINS, PlainRewards, base_model, item_tokens, reward_model, training_items
from tension_utils.planted.rates import COMMAND, DESIGN, ENDPOINT, claim_rates
from tension_utils.planted.truth import OWN, WorldTruth, frontier_truth, measured_truth
from tension_utils.planted.world import (
    FAINT_EFFECT,
    MAX_LENGTH,
    SCENARIOS,
    Scenario,
    WorldConfig,
    draw_world,
    planted_tokenizer,
    preference_items,
    true_neurons,
)
from tension_utils.scores import BASE_GENERIC, NeuronScores
from tension_utils.statistics import seed_interval

SITES = ("down_input", "gate")

LEDGER_KINDS = (PUBLISHED_KIND, "mean_abs", MAIN_KIND)  # of the sets, and of the activity that random ones match

OPTIONS = {"max_length": MAX_LENGTH, "progress": False}

N_ACTIVITY_BINS = 8  # per layer, as many neurons in each; a layer is small


def test_items(config: WorldConfig, n_items: int, sample: str = "test") -> list[BenchmarkItem]:
    """Return the items of both tests, one after the other."""
    return [item for each in SINGLE_OBJECTIVES for item in preference_items(config, each, n_items, name=sample)]


class PlantedWorld:
    """A world with its base model, and its reward models, texts and scores once they are asked for.

    Args:
        config: of the world.
        n_items: items per test.
        n_text: training pairs per objective that scores read.
        n_ablated: items per test without neuron sets; None takes all.
    """

    def __init__(self, config: WorldConfig, n_items: int = 30, n_text: int = 30, n_ablated: int | None = None) -> None:
        check_range("n_text", n_text, 1)
        self.config, self.n_text = config, n_text
        self.tokenizer = planted_tokenizer()
        self.base = base_model(config, self.tokenizer)
        self.items = test_items(config, n_items)
        self.tokens = item_tokens(self.items)  # (items, 2, T)
        self.is_ablated = np.tile(np.arange(n_items) < (n_ablated or n_items), len(SINGLE_OBJECTIVES))
        self.model = cache(lambda objective, seed=0: reward_model(self.base, config, objective, seed))
        self.plain = cache(lambda objective, seed=0: PlainRewards(self.model(objective, seed), self.tokens))
        self.scores = cache(self._scores)

    def interpolated(self, seed: int, weight: float) -> PreTrainedModel:
        """Return the model between the helpful and the harmless one, with this weight of the latter."""
        between = copy.deepcopy(self.base)
        helpful, harmless = (self.model(single, seed).state_dict() for single in SINGLE_OBJECTIVES)
        between.load_state_dict({name: torch.lerp(helpful[name], harmless[name], weight) for name in helpful})
        return between

    def text(self, objective: str, seed: int = 0) -> list[BenchmarkItem]:
        """Return the training pairs that scores read."""
        return training_items(self.config, objective, seed, self.n_text)

    def _scores(self, objective: str, seed: int = 0) -> NeuronScores:
        """Return the scores of `LEDGER_KINDS` of a reward model on its own text."""
        options = OPTIONS | {"base_model": self.base, "kinds": LEDGER_KINDS}
        return neuron_scores(self.model(objective, seed), self.tokenizer, self.text(objective, seed), **options)

    def generic_scores(self) -> NeuronScores:
        """Return the mean absolute activations of the base model on text without preferences."""
        texts = [item.prompt[0].content for item in self.text(MIXED)]
        return text_scores(self.base, self.tokenizer, texts, kinds="mean_abs", **OPTIONS)

    def rows(self, labels: Sequence[dict], rewards: Sequence[np.ndarray]) -> pd.DataFrame:
        """Return one row per condition and item: the item's place, its rewards, and the condition's label.

        Args:
            labels: columns of each condition.
            rewards: (items, 2) of each; of all items, or of those that are ablated.
        """
        items = self.items
        if len(rewards[0]) < len(items):
            items = [item for item, is_it in zip(items, self.is_ablated, strict=True) if is_it]
        n_items, rewards = len(items), np.concatenate(rewards)
        margin = rewards[:, 0] - rewards[:, 1]
        place = pd.DataFrame({name: [getattr(item, name) for item in items] for name in PLACE}, dtype="category")
        table = place.take(np.tile(np.arange(n_items), len(labels))).reset_index(drop=True)
        condition = (
            _categorical(pd.DataFrame(labels)).take(np.repeat(np.arange(len(labels)), n_items)).reset_index(drop=True)
        )
        columns = {"chosen_reward": rewards[:, 0], "margin": margin, "credit": (margin > 0) + 0.5 * (margin == 0)}
        table = pd.concat([table, condition], axis=1).assign(base_model="planted", chance=0.5, **columns)
        return table.astype({"base_model": "category"})


def _categorical(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts are categories: of a million rows, comparing texts would take most of the time."""
    texts = table.select_dtypes(exclude="number").columns.drop("objective", errors="ignore")  # which is still renamed
    return table.astype(dict.fromkeys(texts, "category"))


PLACE = ("benchmark", "subset", "item_id", "cluster", "group")  # columns of an item


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


def finder_table(world: PlantedWorld, truth: WorldTruth) -> pd.DataFrame:
    """Score every kind of `activations.KINDS` on every reward model of a world, on its own training text.

    The true neurons are the planted ones; where gradient descent trained the models, the tenth that supports most.

    Args:
        world: where neurons carry the objectives.
        truth: of `world_truth`.

    Returns:
        objective, site, score_kind, the columns of `ranking_quality`, and rank_correlation (Spearman's, with the
        support of single neurons, see `truth.WorldTruth.support`).

    Raises:
        ValueError: if neurons carry nothing in the world.
    """
    rows = []
    for objective in OBJECTIVES:
        support = truth.support(objective, 0)
        is_measured = world.config.rules.is_trained
        is_true = top_neurons(support, MAIN_FRACTION) if is_measured else true_neurons(world.config, objective)
        for site in SITES:
            options = OPTIONS | {"site": site, "base_model": world.base, "kinds": KINDS}
            scores = neuron_scores(world.model(objective), world.tokenizer, world.text(objective), **options)
            for kind in KINDS:
                name = {"objective": objective, "site": site, "score_kind": kind}
                agreement = stats.spearmanr(scores.get(kind).ravel(), support.ravel()).statistic
                rows.append(name | ranking_quality(scores.get(kind), is_true) | {"rank_correlation": agreement})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Design:
    """How much of a world a ledger sees.

    Args:
        seeds: numbers of training runs per objective, one ledger each; the first ones of the same runs.
        n_items: items per test that models are evaluated on.
        n_ablated: items per test, the first ones, without neuron sets.
        n_draws: random sets per removed set.
        is_full: as the study's plan: sham models, random sets that match activity, interpolated weights, and sets
            removed from the matched mixed model. Otherwise as in the small profiles: sets of the same layers, removed
            from the union's model.
    """

    seeds: tuple[int, ...]
    n_items: int
    n_ablated: int
    n_draws: int
    is_full: bool


DESIGNS = (
    Design((3,), 40, 12, 8, False),
    Design((3,), 250, 125, 12, True),
    Design((1, 2, 3, 5), 500, 250, 12, True),
)


@dataclass(frozen=True)
class StudyConfig:
    """What every world is tried with.

    Args:
        designs: of the ledgers; smaller ones see less of the same items, random sets and runs.
        n_text: training pairs per objective that scores read.
        n_truth: items per test on which truth is measured.
        truth_seeds: training runs on which it is measured.
        n_resamples: bootstrap draws behind an interval.
    """

    designs: tuple[Design, ...] = DESIGNS
    n_text: int = 30
    n_truth: int = 300
    truth_seeds: int = 2
    n_resamples: int = 250

    def __post_init__(self) -> None:
        for design in self.designs:
            check_range("n_items", design.n_items, 2)
            check_range("n_ablated", design.n_ablated, 2, design.n_items)
            check_range("n_draws", design.n_draws, 2)
            check_range("seeds", min(design.seeds), 1)
        for name in ("n_text", "n_truth", "truth_seeds", "n_resamples"):
            check_range(name, getattr(self, name), 1)

    @property
    def n_seeds(self) -> int:
        """Training runs per objective of the largest design."""
        return max(max(design.seeds) for design in self.designs)

    @property
    def digest(self) -> str:
        """Hash of the sizes and of the code that makes and judges worlds."""
        here = Path(__file__).parents[1]
        return config_hash(asdict(self) | {name: file_hash(here / name) for name in CODE})

    def world(self, knobs: WorldConfig) -> PlantedWorld:
        """Return a world that is large enough for every design."""
        n_ablated = max(design.n_ablated for design in self.designs)
        return PlantedWorld(knobs, max(design.n_items for design in self.designs), self.n_text, n_ablated)


def _evaluated(world: PlantedWorld, labels: Sequence[dict], rewards: Sequence[np.ndarray]) -> pd.DataFrame:
    """Return rows with the columns that evaluation.parquet and interpolation.parquet have of an item."""
    rows = world.rows(labels, rewards)
    facts = {"direction": "none", "style": "", "n_chosen": 1, "n_rejected": 1, "is_truncated": False}
    facts |= {"n_tokens": 2 * world.tokens.shape[-1], "chosen_spread": 0.0}
    lengths = np.array([[len(text) for text in item.responses] for item in world.items], float)  # (items, 2)
    for place, side in enumerate(("chosen", "rejected")):
        facts[f"{side}_length"] = np.tile(lengths[:, place], len(labels))
    return rows.assign(**facts)


def evaluation_rows(world: PlantedWorld, n_seeds: int) -> pd.DataFrame:
    """Return rows with the columns of evaluation.parquet, of the single-objective models and of both mixed arms.

    A world has no pairs to match, so the matched arm is the mixed one under another name.
    """
    labels = [{"objective": objective, "seed": seed} for objective in OBJECTIVES for seed in range(n_seeds)]
    rows = _evaluated(world, labels, [world.plain(**label).rewards() for label in labels])
    rows = pd.concat([rows, rows[rows.objective == MIXED].assign(objective=MATCHED_ARM)], ignore_index=True)
    return rows[list(TABLES["evaluation"])]


def interpolation_rows(world: PlantedWorld, n_seeds: int) -> pd.DataFrame:
    """Return rows with the columns of interpolation.parquet: weights between the two single-objective models."""
    places = [(seed, weight) for seed in range(n_seeds) for weight in InterpolateConfig().weights]
    labels = [{"seed": seed, "harmless_weight": weight} for seed, weight in places]
    rewards = [PlainRewards(world.interpolated(*place), world.tokens).rewards() for place in places]
    return _evaluated(world, labels, rewards)[list(TABLES["interpolation"])]


def ablation_rows(world: PlantedWorld, config: StudyConfig) -> pd.DataFrame:
    """Return rows with the columns of ablation.parquet, of the sets that `list_conditions` would have a run remove."""
    labels, rewards, generic = [], [], world.generic_scores()
    tokens = world.tokens[torch.from_numpy(world.is_ablated)]
    with tempfile.TemporaryDirectory() as folder:
        runs = [Run(Path(folder), "planted", name, seed) for name in OBJECTIVES for seed in range(config.n_seeds)]
        for run in runs:
            (run.folder / VIEWS).mkdir(parents=True)
            generic.save(run.folder / VIEWS / f"{BASE_GENERIC}.safetensors")
            world.scores(run.objective, run.seed).save(run.folder / OWN_SCORES)
        for run in runs:
            plain = PlainRewards(world.model(run.objective, run.seed), tokens)
            for condition in _conditions(run, max(design.n_draws for design in config.designs)):
                labels.append({"objective": run.objective, "seed": run.seed} | condition.label)
                rewards.append(plain.rewards(condition.neurons))
    rows = world.rows(labels, rewards)
    return rows.assign(objective=rows.objective.replace(MIXED, MATCHED_ARM))[list(TABLES["ablation"])]


def _conditions(run: Run, n_draws: int) -> Iterator[Condition]:
    """Yield what is removed from a run's model, without the random sets that no reading of the ledger takes."""
    options = {"score_kinds": (PUBLISHED_KIND, MAIN_KIND), "n_draws": n_draws, "controls": CONTROLS}
    options |= {"blocks": ("mixed" if run.objective == MIXED else "scored",), "families": FAMILIES}
    for condition in list_conditions(run, AblateConfig(**options, n_activity_bins=N_ACTIVITY_BINS)):
        by_layer = condition.control == CONTROLS[0] and condition.family in (EQUAL_ACTIVITY, WITHOUT_KEYSTONE)
        if not condition.control or not (by_layer or condition.family == NATURAL):
            yield condition


def evidence_of(world: PlantedWorld, config: StudyConfig) -> Evidence:
    """Return everything that a world's largest design knows, in the layout of artifacts."""
    scores = {
        Run(Path(), "planted", objective, seed): world.scores(objective, seed)
        for objective in (*SINGLE_OBJECTIVES, *COINS)
        for seed in range(config.n_seeds)
    }
    evaluation, interpolation = (make(world, config.n_seeds) for make in (evaluation_rows, interpolation_rows))
    return Evidence(evaluation, ablation_rows(world, config), scores, config.n_resamples, interpolation)


def reduced(evidence: Evidence, design: Design, n_seeds: int) -> Evidence:
    """Return what a smaller design knows of the same world."""

    def of(rows: pd.DataFrame, n_items: int) -> pd.DataFrame:
        number = {name: int(name.rpartition("-")[2]) for name in rows.item_id.unique()}
        kept = [name for name, place in number.items() if place < n_items]
        return rows[(rows.seed < n_seeds) & rows.item_id.isin(kept)]

    evaluation, interpolation = (of(rows, design.n_items) for rows in (evidence.evaluation, evidence.interpolation))
    ablation = of(evidence.ablation, design.n_ablated)
    ablation = ablation[ablation.draw < design.n_draws]
    scores = {run: own for run, own in evidence.scores.items() if run.seed < n_seeds}
    if design.is_full:
        natural = ablation[ablation.family == NATURAL]
        ablation = pd.concat([ablation, natural.assign(objective=MIXED)], ignore_index=True)
    else:
        is_kept = (ablation.control != CONTROLS[1]) & ~ablation.family.isin([EQUAL_ACTIVITY, WITHOUT_KEYSTONE])
        ablation = ablation[is_kept].assign(objective=ablation.objective.replace(MATCHED_ARM, MIXED))
        scores = {run: own for run, own in scores.items() if run.objective not in COINS}
        interpolation = None
    return Evidence(evaluation, ablation, scores, evidence.n_resamples, interpolation)


def judged(world: PlantedWorld, config: StudyConfig) -> pd.DataFrame:
    """Return what the ledger says in a world, for every design and number of training runs.

    Returns:
        `ENDPOINT`, `DESIGN`, value and verdict of findings that were run.
    """
    evidence = evidence_of(world, config)
    tables = [ledger(reduced(evidence, design, n)) for design in config.designs for n in design.seeds]
    table = pd.concat(tables, ignore_index=True)
    table = table[table.verdict != "not run"]
    return table[[*ENDPOINT, *DESIGN, "value", "verdict"]].drop_duplicates([*ENDPOINT, *DESIGN])


def world_truth(world: PlantedWorld, n_items: int, n_seeds: int) -> WorldTruth:
    """Return what measures the truth of a world, on items that no ledger sees.

    Args:
        world: with its reward models.
        n_items: items per test.
        n_seeds: training runs.
    """
    items = test_items(world.config, n_items, "truth")
    tokens = item_tokens(items)
    return WorldTruth(
        lambda *run: PlainRewards(world.model(*run), tokens),
        lambda *run: top_neurons(world.scores(*run).get(MAIN_KIND), MAIN_FRACTION),
        lambda *run: activity_bins(world.scores(*run).get("mean_abs"), N_ACTIVITY_BINS),
        lambda *place: PlainRewards(world.interpolated(*place), tokens),
        np.array([item.group for item in items]),
        range(n_seeds),
    )


def true_claims(rules: Scenario, truth: WorldTruth) -> dict[str, bool | None]:
    """Return what is true of a world; None where that is open.

    What was built in counts where the effect that decides the claim is as large, or as negligible, as it says: a shared
    neuron may weigh more than others, and yet the parts of equal activity that are removed differ too little to matter.
    """
    measured = measured_truth(truth)
    built = {claim: is_true if measured[claim] == is_true else None for claim, is_true in rules.truth.items()}
    return (built or measured) | frontier_truth(truth)


def calibrated(knobs: WorldConfig, config: StudyConfig) -> WorldConfig:
    """Return a faint world with the share of its neurons at which removing the top ones costs `FAINT_EFFECT`.

    Other worlds stay as they are.
    """
    if not knobs.rules.is_faint:
        return knobs
    knobs = replace(knobs, share=FIRST_SHARE)
    effect = world_truth(PlantedWorld(knobs, 1, config.n_text), config.n_truth, config.truth_seeds).removal(OWN)
    return replace(knobs, share=float(np.clip(FIRST_SHARE * FAINT_EFFECT / min(effect, -1e-3), 0.0, 1.0)))


FIRST_SHARE = 0.35  # an effect is close to proportional to the share, so one measurement near the goal is enough

FINDER_SCENARIOS = ("planted", "trained")  # where finders are scored

CODE = (  # a change here makes kept worlds stale
    *("planted/world.py", "planted/model.py", "planted/study.py", "planted/truth.py", "analysis/frontier.py"),
    *("analysis/claims.py", "analysis/findings.py", "statistics.py", "conditions.py", "neurons.py"),
)


def study_world(seed: int, scenario: str, config: StudyConfig) -> dict:
    """Return what is true in one world, what the ledger says, and how good finders are where they are tried."""
    started, knobs = time.process_time(), calibrated(draw_world(seed, scenario), config)
    world = config.world(knobs)
    truth = world_truth(world, config.n_truth, config.truth_seeds)
    found = {"world": asdict(knobs), "truth": true_claims(knobs.rules, truth)}
    found["findings"] = judged(world, config).to_dict("records")
    found["finders"] = finder_table(world, truth).to_dict("records") if scenario in FINDER_SCENARIOS else []
    return found | {"seconds": round(time.process_time() - started, 2)}


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


PLANTS = MappingProxyType(
    {
        "all": lambda rows: rows.scenario == "planted",
        "quiet": lambda rows: (rows.scenario == "planted") & (rows.loudness < 1),
        "loud": lambda rows: (rows.scenario == "planted") & (rows.loudness >= 1),
        "trained": lambda rows: rows.scenario == "trained",
    }
)  # which worlds finders are scored on


def finder_rates(worlds: Sequence[Mapping]) -> pd.DataFrame:
    """Return how well each score finds the true neurons, over worlds, their three reward models averaged.

    Args:
        worlds: of `run_worlds`.

    Returns:
        site, score_kind, plant ("all" planted worlds; "quiet" ones, where planted neurons are less active than typical
        ones; "loud"; "trained", worlds that gradient descent made), n_worlds, precision (as many neurons as are true;
        also the recall) and rank_correlation (with the support of single neurons), each with Student's 95 % interval
        over worlds (precision_ci_low and so on), recall_twice, average_precision, chance.
    """
    rows = [row | each["world"] for each in worlds for row in each["finders"]]
    keys, tested = ["site", "score_kind"], ["precision", "rank_correlation"]
    metrics = [*tested, "recall_twice", "average_precision", "chance"]
    table = pd.DataFrame(rows).groupby([*keys, "scenario", "seed", "loudness"])[metrics].mean().reset_index()
    found = []
    for plant, of_plant in PLANTS.items():
        for key, group in table[of_plant(table)].groupby(keys):
            row = dict(zip(keys, key, strict=True)) | {"plant": plant, "n_worlds": len(group)}
            for metric in tested:
                low, high = np.clip(seed_interval(group[metric].to_numpy()), -1, 1)
                row |= {metric: group[metric].mean(), f"{metric}_ci_low": low, f"{metric}_ci_high": high}
            found.append(row | group[metrics[2:]].mean().to_dict())
    return pd.DataFrame(found)


def export_study(worlds: Sequence[Mapping], config: StudyConfig, folder: Path) -> None:
    """Write the tables of rates and ``manifest.json`` to ``folder``, all at once.

    Args:
        worlds: of `run_worlds`.
        config: sizes they were run with.
        folder: replaced if it exists.
    """
    facts = pd.DataFrame([each["world"] | each["truth"] for each in worlds]).convert_dtypes()
    tables = {"finders": finder_rates(worlds), "claims": claim_rates(worlds), "worlds": facts}
    manifest = {
        "about": "Small reward models with a known truth, built or trained; no language model, no data of the study.",
        "command": COMMAND,
        "config": asdict(config),
        "code_hash": config.digest,
        "n_worlds": facts.seed.nunique(),
        "scenarios": list(SCENARIOS),
        "seconds": round(sum(each["seconds"] for each in worlds), 1),
        "device": f"cpu ({torch.get_num_threads()} threads)",
        "commit": git_commit(),
        "python": platform.python_version(),
        "packages": package_versions(),
    }
    require_own(folder, MANIFEST)
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        for name, table in tables.items():
            write_csv(temporary / f"{name}.csv", table)
        text = json.dumps(manifest, indent=1, sort_keys=True)
        (temporary / "manifest.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description="Score finders and the ledger on worlds with a planted truth.")
    parser.add_argument("--worlds", type=int, default=30, help="seeds per scenario")
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
