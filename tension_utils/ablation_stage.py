"""The ablate stage: remove every neuron set of a reward model in turn and score the tests, resumable per condition."""

import time

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from tension_utils.ablation import ablated
from tension_utils.artifacts import TABLES, atomic_path, read_manifest, remove_any, write_table
from tension_utils.conditions import Condition, list_conditions, score_sources
from tension_utils.config import AblateConfig, EvaluateConfig
from tension_utils.evaluation import PromptGroup, group_by_prompt, score_groups
from tension_utils.pairs import training_pairs
from tension_utils.resampling import activation_bank
from tension_utils.runs import Run
from tension_utils.scores import OWN_SCORES, own_scores
from tension_utils.stages import Stage, load_items

PARTS = "ablation_parts"  # folder of finished conditions while the stage is under way
N_BANK_PAIRS = 64  # training pairs whose tokens are the donors of kind "resample"


class _Ablation:
    """Scores of one reward model's items under any condition, and what they cost."""

    def __init__(self, stage: Stage, groups: list[PromptGroup], options: dict) -> None:
        self.stage, self.groups, self.options = stage, groups, options
        self.bank: torch.Tensor | None = None
        self.seconds: list[float] = []

    def replacement(self, kind: str, number: int) -> dict:
        """Return the keyword arguments of `ablated` that a kind needs."""
        stage = self.stage
        if kind == "mean":
            return {"means": own_scores(stage.run).get("signed_mean")}
        if kind == "resample":
            generator = np.random.default_rng([stage.run.seed, number])
            if self.bank is None:
                pairs = list(training_pairs(stage.data, stage.run.objective, stage.run.seed).train)[:N_BANK_PAIRS]
                options = {name: self.options[name] for name in ("max_length", "tokens_per_batch", "progress")}
                self.bank = activation_bank(stage.model, stage.tokenizer, pairs, generator, **options)
            return {"bank": self.bank, "generator": generator}
        return {}

    def intact(self) -> float:
        """Score with no neuron removed; return seconds."""
        start = time.perf_counter()
        score_groups(self.stage.model, self.stage.tokenizer, self.groups, **self.options)
        return time.perf_counter() - start

    def rows(self, condition: Condition, number: int) -> pd.DataFrame:
        """Return the condition's rows of ablation.parquet, with n_tokens."""
        stage, kind = self.stage, condition.ablation_kind
        options = self.replacement(kind, number)
        start = time.perf_counter()
        with ablated(stage.model, condition.neurons, kind=kind, scale=condition.scale, **options):
            table = score_groups(stage.model, stage.tokenizer, self.groups, **self.options)
        self.seconds.append(time.perf_counter() - start)
        return table.assign(**stage.run.label, **condition.label)


def ablate_run(run: Run, config: AblateConfig) -> bool:
    """Remove every neuron set of `list_conditions` in turn, score the tests, and write ``ablation.parquet``.

    Every finished condition is kept in ``ablation_parts`` until all are done: a stopped run goes on where it was. The
    manifest tells the median seconds of a condition and of a pass through the intact model.

    Returns:
        True if it computed, False if it found the artifact.
    """
    stage = Stage(run, "ablate", "ablation.parquet", config)
    sources = score_sources(run, config)
    hashes = {each.objective: read_manifest(each.folder)["identify"]["artifact_hash"] for each in sources}
    if not stage.start(**hashes):
        return False
    conditions = list_conditions(run, config)
    wanted = EvaluateConfig(config.benchmarks, config.engine, config.sources)
    items, max_length = load_items(run, stage.data, wanted).items, config.max_length or stage.data.max_length
    groups, _ = group_by_prompt(stage.tokenizer, items, max_length)  # tokenized once for all sets
    work = _Ablation(stage, groups, stage.engine_options() | {"max_length": max_length, "progress": False})
    intact = [work.intact()]
    tables = []
    for number, condition in enumerate(tqdm(conditions, desc=f"ablate {run.objective}, seed {run.seed}", unit="set")):
        part = run.folder / PARTS / f"{number:04d}-{stage.digest}.parquet"
        if not part.is_file():
            with atomic_path(part) as temporary:
                work.rows(condition, number).to_parquet(temporary, index=False)
        tables.append(pd.read_parquet(part))
    intact.append(work.intact())
    rows = pd.concat(tables, ignore_index=True)
    write_table(run.folder / "ablation.parquet", rows[list(TABLES["ablation"])])
    remove_any(run.folder / PARTS)
    stage.inputs |= {f"neuron_scores_{each.objective}": each.folder / OWN_SCORES for each in sources}
    seconds = {
        "seconds_per_set": float(np.median(work.seconds)) if work.seconds else None,
        "seconds_intact": float(np.median(intact)),
    }
    stage.finish(int(rows.n_tokens.sum()), n_sets=len(tables), n_items=len(tables[0]), **seconds)
    return True
