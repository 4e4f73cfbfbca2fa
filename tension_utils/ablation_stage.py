"""The ablate stage: remove every neuron set of a reward model in turn and score the tests; a list that can grow."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pyarrow import ArrowException
from tqdm import tqdm

from tension_utils.ablation import ablated
from tension_utils.artifacts import TABLES, atomic_path, read_manifest, remove_any, write_table
from tension_utils.conditions import Condition, list_conditions, score_sources, set_generator
from tension_utils.config import AblateConfig, EvaluateConfig
from tension_utils.evaluation import PromptGroup, group_by_prompt, score_groups
from tension_utils.neurons import NeuronSet
from tension_utils.packing import prepare_items
from tension_utils.pairs import training_pairs
from tension_utils.resampling import activation_bank
from tension_utils.runs import Run
from tension_utils.scores import OWN_SCORES, own_scores
from tension_utils.stages import Stage, load_items

ITEM_KEY = ("benchmark", "subset", "item_id")
PARTS = "ablation_parts"  # folder of finished conditions; it stays, so that a longer list goes on from it
PART_COLUMNS = ("benchmark", "subset", "item_id", "cluster", "margin", "credit", "chance", "n_tokens")
SCHEMA = 1  # of the parts: raise it when the same settings give other rows
N_BANK_PAIRS = 64  # training pairs whose tokens are the donors of kind "resample"


@dataclass(frozen=True)
class _Items:
    """Prompts that conditions are scored on, and how many tokens go through the model together."""

    groups: tuple[PromptGroup, ...]
    tokens_per_batch: int

    @cached_property
    def keys(self) -> list[tuple[str, ...]]:
        """`ITEM_KEY` of every item, in the order of the rows."""
        return [key for group in self.groups for key in _keys_of(group)]

    @cached_property
    def digest(self) -> str:
        """Hash of everything about the items that their rows depend on."""
        digest = hashlib.sha256()
        for group in self.groups:
            digest.update(repr((group.responses, group.prepared)).encode())
            for item in group.items:
                names = (*ITEM_KEY, "cluster", "chosen", "rejected", "chance")
                digest.update(repr([getattr(item, name) for name in names]).encode())
        return digest.hexdigest()

    @cached_property
    def key_set(self) -> frozenset[tuple[str, ...]]:
        """The same without order."""
        return frozenset(self.keys)

    def without(self, covered: frozenset[tuple[str, ...]]) -> "_Items":
        """Return the prompts that have an item which is not covered."""
        left = [group for group in self.groups if not covered.issuperset(_keys_of(group))]
        return self if len(left) == len(self.groups) else _Items(tuple(left), self.tokens_per_batch)


def _keys_of(group: PromptGroup) -> list[tuple[str, ...]]:
    """Return `ITEM_KEY` of each item of a prompt."""
    return [tuple(getattr(item, name) for name in ITEM_KEY) for item in group.items]


class _Ablation:
    """Scores of one reward model's items under any condition, and what they cost."""

    def __init__(self, stage: Stage, max_length: int) -> None:
        self.stage, self.run = stage, stage.run
        self.options = {"max_length": max_length, "device": stage.device, "progress": False}
        self.seconds: dict[str, list[float]] = {}  # by digest of the items
        self.n_found = 0

    @cached_property
    def bank_pairs(self) -> list:
        """Tokenized training pairs whose activations are donors."""
        pairs = list(training_pairs(self.stage.data, self.run.objective, self.run.seed).train)[:N_BANK_PAIRS]
        return prepare_items(self.stage.tokenizer, pairs, self.options["max_length"])

    @cached_property
    def bank(self) -> torch.Tensor:
        """Activations of the donors."""
        generator = set_generator(self.run, "bank", "", 0.0, "")
        options = {name: self.options[name] for name in ("max_length", "progress")}
        return activation_bank(self.stage.model, self.stage.tokenizer, self.bank_pairs, generator, **options)

    @cached_property
    def means(self) -> np.ndarray:
        """Mean activations (L, N), for kind "mean"."""
        return own_scores(self.run).get("signed_mean")

    def replacement(self, condition: Condition) -> dict:
        """Return the keyword arguments of `ablated` that a kind needs."""
        if condition.ablation_kind == "mean":
            return {"means": self.means}
        if condition.ablation_kind == "resample":
            draw = f"{condition.control}/{condition.draw}"
            names = (condition.matched_to, condition.family, condition.fraction, draw)
            return {"bank": self.bank, "generator": set_generator(self.run, *names)}
        return {}

    def intact(self, items: _Items) -> float:
        """Score with no neuron removed; return seconds."""
        start = time.perf_counter()
        self._score(items)
        return time.perf_counter() - start

    def _score(self, items: _Items) -> pd.DataFrame:
        options = self.options | {"tokens_per_batch": items.tokens_per_batch}
        return score_groups(self.stage.model, self.stage.tokenizer, items.groups, **options)

    def part_name(self, condition: Condition, items: _Items) -> str:
        """Return the name of the file that keeps a condition's rows: a hash of all that they depend on."""
        facts = [SCHEMA, items.digest, self.options["max_length"], self.stage.placement["dtype"]]
        facts += [condition.ablation_kind, condition.scale, condition.neurons.shape]
        digest = hashlib.sha256(repr(facts).encode() + np.packbits(condition.neurons.mask).tobytes())
        if condition.ablation_kind == "mean":
            digest.update(np.ascontiguousarray(self.means).tobytes())
        if condition.ablation_kind == "resample":  # what is drawn depends on the order in which tokens are computed
            donors = (self.run.label, condition.key, items.tokens_per_batch, self.bank_pairs)
            digest.update(repr(donors).encode())
        return f"{self.prefix}{digest.hexdigest()[:24]}.parquet"

    @property
    def prefix(self) -> str:
        """How the names of this reward model's parts begin."""
        return f"{self.stage.trained['artifact_hash'][:16]}-"

    def rows(self, condition: Condition, items: _Items) -> pd.DataFrame:
        """Return the condition's rows of ablation.parquet, with n_tokens: those on disk, or else computed and kept."""
        path = self.run.folder / PARTS / self.part_name(condition, items)
        table = _read_part(path, items)
        if table is None:
            replacement = self.replacement(condition)
            kind, scale = condition.ablation_kind, condition.scale
            start = time.perf_counter()
            with ablated(self.stage.model, condition.neurons, kind=kind, scale=scale, **replacement):
                table = self._score(items)[list(PART_COLUMNS)]
            self.seconds.setdefault(items.digest, []).append(time.perf_counter() - start)
            with atomic_path(path) as temporary:
                table.to_parquet(temporary, index=False)
            table = pd.read_parquet(path)
        else:
            self.n_found += 1
        return table.assign(**self.run.label, **condition.label)

    def remove_other_parts(self) -> None:
        """Remove the parts of earlier reward models of this folder, and what else looks like a part."""
        for path in (self.run.folder / PARTS).glob("*.parquet"):
            if not path.name.startswith(self.prefix):
                remove_any(path)


def _read_part(path: Path, items: _Items) -> pd.DataFrame | None:
    """Return the rows of a part; None if there is none, or if it is damaged."""
    try:
        table = pd.read_parquet(path)
        keys = list(table[list(ITEM_KEY)].itertuples(index=False, name=None))
    except (OSError, ValueError, KeyError, ArrowException):
        return None
    return table if tuple(table.columns) == PART_COLUMNS and keys == items.keys else None


def _require_same_settings(configs: Sequence[AblateConfig]) -> None:
    """Check that configurations of one table agree where its rows could not be told apart."""
    if not configs:
        raise ValueError("configs: expected at least one AblateConfig, got none")
    values = {"max_length": {c.max_length for c in configs}, "precision": {c.engine.precision for c in configs}}
    for config in configs:
        for name in config.benchmarks:
            values.setdefault(f"source of {name}", set()).add(config.sources.get(name, ""))
    for name, found in values.items():
        if len(found) > 1:
            raise ValueError(f"{name}: expected one value for all configurations of a table, got {sorted(found)}")


def list_work(
    run: Run, configs: Sequence[AblateConfig], items_of: Sequence[_Items]
) -> Iterator[tuple[Condition, _Items]]:
    """Yield every condition of several configurations with the items on which no earlier one has it.

    Raises:
        ValueError: if two configurations mean different neurons by the same name.
    """
    covered: dict[tuple, frozenset] = {}
    neurons_of: dict[tuple, NeuronSet] = {}
    for config, items in zip(configs, items_of, strict=True):
        pieces: dict[frozenset, _Items] = {frozenset(): items}  # of these items, by what earlier ones have of them
        for condition in list_conditions(run, config):
            key = tuple(condition.key.values())
            if neurons_of.setdefault(key, condition.neurons) != condition.neurons:
                raise ValueError(
                    f"two configurations give different neurons to {condition.key}: main_kind, scope or "
                    "n_activity_bins differ; give them the same, or other fractions"
                )
            before = covered.get(key, frozenset())
            if before not in pieces:
                pieces[before] = items.without(before)
            left = pieces[before]
            covered[key] = before | left.key_set if before else left.key_set
            if left.groups:
                yield condition, left


def ablate_run(run: Run, *configs: AblateConfig) -> bool:
    """Remove every neuron set of `list_conditions` in turn, score the tests, and write ``ablation.parquet``.

    Several configurations give the union of their conditions, each on its own items; a condition that several ask for
    is computed once per item. They had best agree on the items of one benchmark, because a random set that was measured
    on few of a target's items says little about it. Every finished condition is kept in ``ablation_parts``, and found
    again when a stopped run goes on, or when the list or the number of draws grows. The manifest tells the median
    seconds of a condition and of a pass through the intact model, on the items of the first configuration.

    Args:
        run: the reward model.
        configs: at least one; max_length, precision and the sources of a benchmark are the same in all.

    Returns:
        True if it computed, False if it found the artifact.

    Raises:
        ValueError: if configurations contradict each other, or ask for nothing of this reward model.
        FileNotFoundError: names the missing file and the chapter to run.
    """
    _require_same_settings(configs)
    stage = Stage(run, "ablate", "ablation.parquet", configs[0], further=configs[1:])
    sources = score_sources(run, *configs)
    hashes = {each.objective: read_manifest(each.folder)["identify"]["artifact_hash"] for each in sources}
    if not stage.start(schema=str(SCHEMA), **hashes):
        return False
    max_length = configs[0].max_length or stage.data.max_length
    items_of = _items_of(stage, configs, max_length)
    todo, work = list(list_work(run, configs, items_of)), _Ablation(stage, max_length)
    if not todo:
        raise ValueError(f"blocks: no condition is left for the {run.objective} model; see config.BLOCKS")
    work.remove_other_parts()
    tables, intact = [], []
    for condition, items in tqdm(todo, desc=f"ablate {run.objective}, seed {run.seed}", unit="set"):
        if not intact and not (run.folder / PARTS / work.part_name(condition, items)).is_file():
            intact.append(work.intact(items_of[0]))
        tables.append(work.rows(condition, items))
    if intact:
        intact.append(work.intact(items_of[0]))
    rows = pd.concat(tables, ignore_index=True)
    n_tokens = int(rows.n_tokens.sum())
    names = [name for name in TABLES["ablation"] if name not in ("cluster", "margin", "credit", "chance", "n_neurons")]
    write_table(run.folder / "ablation.parquet", rows.drop_duplicates(names)[list(TABLES["ablation"])])
    stage.inputs |= {f"neuron_scores_{each.objective}": each.folder / OWN_SCORES for each in sources}
    seconds = work.seconds.get(items_of[0].digest, [])
    facts = {"seconds_per_set": seconds, "seconds_intact": intact}
    facts = {name: float(np.median(values)) if values else None for name, values in facts.items()}
    n_items = len(rows.drop_duplicates(list(ITEM_KEY)))
    stage.finish(n_tokens, n_sets=len(todo), n_found=work.n_found, n_items=n_items, **facts)
    return True


def _items_of(stage: Stage, configs: Sequence[AblateConfig], max_length: int) -> list[_Items]:
    """Load and tokenize the items of each configuration, those that several share once."""
    found: dict[tuple, tuple[PromptGroup, ...]] = {}
    keys = [(c.benchmarks, c.engine.n_items, tuple(sorted(c.sources.items()))) for c in configs]
    for key, config in zip(keys, configs, strict=True):
        if key not in found:
            wanted = EvaluateConfig(config.benchmarks, config.engine, config.sources)
            groups, _ = group_by_prompt(stage.tokenizer, load_items(stage.run, stage.data, wanted).items, max_length)
            found[key] = tuple(groups)
    return [_Items(found[key], c.engine.tokens_per_batch) for key, c in zip(keys, configs, strict=True)]
