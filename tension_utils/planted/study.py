"""Judge the claims by the ledger's own functions, and score finders, on many worlds where the truth is known."""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from tension_utils.activations import KINDS, OWN_SCORES, NeuronScores, neuron_scores
from tension_utils.analysis.claims import MAIN_KIND, PUBLISHED_KIND, Evidence, ledger
from tension_utils.artifacts import (
    MANIFEST,
    TABLES,
    atomic_path,
    file_hash,
    git_commit,
    package_versions,
    require_own,
    write_csv,
)
from tension_utils.conditions import EQUAL_ACTIVITY, NATURAL, Condition, list_conditions
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
from tension_utils.data import BenchmarkItem, tokenize_item
from tension_utils.neurons import NeuronSet, top_neurons
from tension_utils.planted.model import COINS, PlainRewards, base_model, reward_model
from tension_utils.planted.rates import COMMAND, DESIGN, ENDPOINT, claim_rates
from tension_utils.planted.world import (
    MAX_LENGTH,
    SCENARIOS,
    WorldConfig,
    draw_world,
    planted_tokenizer,
    preference_items,
    true_neurons,
)
from tension_utils.statistics import seed_interval

SITES = ("down_input", "gate")

LEDGER_KINDS = (PUBLISHED_KIND, "mean_abs", MAIN_KIND)  # of the sets, and of the activity that random ones match

OPTIONS = {"max_length": MAX_LENGTH, "progress": False}

N_ACTIVITY_BINS = 8  # per layer, as many neurons in each; a layer is small


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
        self.items = [item for each in SINGLE_OBJECTIVES for item in preference_items(config, each, n_items)]
        tokens = [tokenize_item(self.tokenizer, item, MAX_LENGTH).sequences for item in self.items]
        self.tokens = torch.tensor(tokens)  # (items, 2, T): all sequences are of one length
        self.model = cache(lambda objective, seed=0: reward_model(self.base, config, objective, seed))
        self.plain = cache(lambda objective, seed=0: PlainRewards(self.model(objective, seed), self.tokens))
        self.scores = cache(self._scores)

    def text(self, objective: str, seed: int = 0) -> list[BenchmarkItem]:
        """Return the training pairs of an objective, a sham's like those of its objective; the mixed one has both."""
        singles = SINGLE_OBJECTIVES if objective == MIXED else (objective.removesuffix("-coin"),)
        name = f"train {seed}"
        return [item for each in singles for item in preference_items(self.config, each, self.n_text, name=name)]

    def _scores(self, objective: str, seed: int = 0) -> NeuronScores:
        """Return the scores of `LEDGER_KINDS` of a reward model on its own text."""
        options = OPTIONS | {"base_model": self.base, "kinds": LEDGER_KINDS}
        return neuron_scores(self.model(objective, seed), self.tokenizer, self.text(objective, seed), **options)

    def rows(self, labels: Sequence[dict], rewards: Sequence[np.ndarray]) -> pd.DataFrame:
        """Return one row per condition and item: the item's place, its rewards, and the condition's label.

        Args:
            labels: columns of each condition.
            rewards: (items, 2) of each.
        """
        n_items, rewards = len(self.items), np.concatenate(rewards)
        margin = rewards[:, 0] - rewards[:, 1]
        columns = {name: [getattr(item, name) for item in self.items] * len(labels) for name in PLACE}
        columns |= {name: np.repeat([label[name] for label in labels], n_items) for name in labels[0]}
        columns |= {"chosen_reward": rewards[:, 0], "margin": margin, "credit": (margin > 0) + 0.5 * (margin == 0)}
        return pd.DataFrame(columns).assign(base_model="planted", chance=0.5)


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
            options = OPTIONS | {"site": site, "base_model": world.base, "kinds": KINDS}
            scores = neuron_scores(world.model(objective), world.tokenizer, world.text(objective), **options)
            for kind in KINDS:
                name = {"objective": objective, "site": site, "score_kind": kind}
                rows.append(name | ranking_quality(scores.get(kind), truth))
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Design:
    """How much of a world a ledger sees.

    Args:
        n_items: items per test.
        n_draws: random sets per removed set.
        is_full: as the study's plan: sham models, random sets that match activity, and sets removed from the matched
            mixed model. Otherwise as in the small profiles: sets of the same layers, removed from the union's model.
    """

    n_items: int
    n_draws: int
    is_full: bool


DESIGNS = (Design(12, 8, False), Design(40, 12, False), Design(80, 12, True))


@dataclass(frozen=True)
class StudyConfig:
    """What every world is tried with.

    Args:
        designs: each with 1 to `n_seeds` training runs; the first ones of the same items, random sets and runs.
        n_text: training pairs per objective that scores read.
        n_seeds: training runs per objective.
        n_resamples: bootstrap draws behind an interval.
    """

    designs: tuple[Design, ...] = DESIGNS
    n_text: int = 30
    n_seeds: int = 3
    n_resamples: int = 500

    def __post_init__(self) -> None:
        for design in self.designs:
            check_range("n_items", design.n_items, 2)
            check_range("n_draws", design.n_draws, 2)
        for name in ("n_text", "n_seeds", "n_resamples"):
            check_range(name, getattr(self, name), 1)

    @property
    def digest(self) -> str:
        """Hash of the sizes and of the code that makes and judges worlds."""
        here = Path(__file__).parents[1]
        return config_hash(asdict(self) | {name: file_hash(here / name) for name in CODE})


def evaluation_rows(world: PlantedWorld, n_seeds: int) -> pd.DataFrame:
    """Return rows with the columns of evaluation.parquet, of the single-objective models and of both mixed arms.

    A world has no pairs to match, so the matched arm is the mixed one under another name.
    """
    labels = [{"objective": objective, "seed": seed} for objective in OBJECTIVES for seed in range(n_seeds)]
    rows = world.rows(labels, [world.plain(**label).rewards() for label in labels])
    rows = pd.concat([rows, rows[rows.objective == MIXED].assign(objective=MATCHED_ARM)], ignore_index=True)
    facts = {"direction": "none", "style": "", "n_chosen": 1, "n_rejected": 1, "is_truncated": False}
    facts |= {"n_tokens": 2 * world.tokens.shape[-1], "chosen_spread": 0.0}
    length = {item.item_id: [len(text) for text in item.responses] for item in world.items}
    for place, side in enumerate(("chosen", "rejected")):
        facts[f"{side}_length"] = [float(length[item_id][place]) for item_id in rows.item_id]
    return rows.assign(**facts)[list(TABLES["evaluation"])]


def ablation_rows(world: PlantedWorld, config: StudyConfig) -> pd.DataFrame:
    """Return rows with the columns of ablation.parquet, of the sets that `list_conditions` would have a run remove."""
    labels, rewards = [], []
    with tempfile.TemporaryDirectory() as folder:
        runs = [Run(Path(folder), "planted", name, seed) for name in OBJECTIVES for seed in range(config.n_seeds)]
        for run in runs:
            run.folder.mkdir(parents=True)
            world.scores(run.objective, run.seed).save(run.folder / OWN_SCORES)
        for run in runs:
            for condition in _conditions(run, max(design.n_draws for design in config.designs)):
                labels.append({"objective": run.objective, "seed": run.seed} | condition.label)
                rewards.append(world.plain(run.objective, run.seed).rewards(condition.neurons))
    rows = world.rows(labels, rewards)
    return rows.assign(objective=rows.objective.replace(MIXED, MATCHED_ARM))[list(TABLES["ablation"])]


def _conditions(run: Run, n_draws: int) -> Iterator[Condition]:
    """Yield what is removed from a run's model, without the random sets that no reading of the ledger takes."""
    options = {"score_kinds": (PUBLISHED_KIND, MAIN_KIND), "n_draws": n_draws, "controls": CONTROLS}
    options |= {"blocks": ("mixed" if run.objective == MIXED else "scored",), "families": FAMILIES[:3]}
    for condition in list_conditions(run, AblateConfig(**options, n_activity_bins=N_ACTIVITY_BINS)):
        is_unused = condition.family == NATURAL or (condition.family, condition.control) == (EQUAL_ACTIVITY, "layer")
        if not condition.control or not is_unused:
            yield condition


def evidence_of(world: PlantedWorld, config: StudyConfig) -> Evidence:
    """Return everything that a world's largest design knows, in the layout of artifacts."""
    scores = {
        Run(Path(), "planted", objective, seed): world.scores(objective, seed)
        for objective in (*SINGLE_OBJECTIVES, *COINS)
        for seed in range(config.n_seeds)
    }
    return Evidence(evaluation_rows(world, config.n_seeds), ablation_rows(world, config), scores, config.n_resamples)


def reduced(evidence: Evidence, design: Design, n_seeds: int) -> Evidence:
    """Return what a smaller design knows of the same world."""
    number = {name: int(name.rpartition("-")[2]) for name in evidence.evaluation.item_id.unique()}
    kept = [name for name, place in number.items() if place < design.n_items]
    evaluation, ablation = (
        rows[(rows.seed < n_seeds) & rows.item_id.isin(kept)] for rows in (evidence.evaluation, evidence.ablation)
    )
    ablation = ablation[ablation.draw < design.n_draws]
    scores = {run: own for run, own in evidence.scores.items() if run.seed < n_seeds}
    if design.is_full:
        natural = ablation[ablation.family == NATURAL]
        ablation = pd.concat([ablation, natural.assign(objective=MIXED)], ignore_index=True)
    else:
        ablation = ablation[(ablation.control != CONTROLS[1]) & (ablation.family != EQUAL_ACTIVITY)]
        ablation = ablation.assign(objective=ablation.objective.replace(MATCHED_ARM, MIXED))
        scores = {run: own for run, own in scores.items() if run.objective not in COINS}
    return Evidence(evaluation, ablation, scores, evidence.n_resamples)


def judged(world: PlantedWorld, config: StudyConfig) -> pd.DataFrame:
    """Return what the ledger says in a world, for every design and number of training runs.

    Returns:
        `ENDPOINT`, `DESIGN`, value and verdict of findings that were run, on the claims that are true or false here.
    """
    evidence, tables = evidence_of(world, config), []
    for design in config.designs:
        for n_seeds in range(1, config.n_seeds + 1):
            tables.append(ledger(reduced(evidence, design, n_seeds)))
    table = pd.concat(tables, ignore_index=True)
    table = table[table.claim.isin(world.config.rules.truth) & (table.verdict != "not run")]
    return table[[*ENDPOINT, *DESIGN, "value", "verdict"]].drop_duplicates([*ENDPOINT, *DESIGN])


FINDER_SCENARIO = "planted"  # where finders are scored

CODE = (  # a change here makes kept worlds stale
    *("planted/world.py", "planted/model.py", "planted/study.py"),
    *("analysis/claims.py", "analysis/findings.py", "statistics.py", "conditions.py", "neurons.py"),
)

KNOBS = ("loudness", "drift", "conflict", "damage", "luck")


def study_world(seed: int, scenario: str, config: StudyConfig) -> dict:
    """Return what the ledger says in one world, and where they are scored, the finders' quality; JSON-like."""
    started, knobs = time.perf_counter(), draw_world(seed, scenario)
    world = PlantedWorld(knobs, max(design.n_items for design in config.designs), config.n_text)
    findings = judged(world, config).to_dict("records")
    finders = finder_table(world).to_dict("records") if scenario == FINDER_SCENARIO else []
    seconds = round(time.perf_counter() - started, 2)
    return {"world": asdict(knobs), "findings": findings, "finders": finders, "seconds": seconds}


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
