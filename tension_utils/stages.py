"""What notebooks and clusters call: evaluate, identify and ablate a reward model, train it again without neurons."""

import dataclasses
import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import logsigmoid
from tqdm import tqdm

from tension_utils.ablation import ablated, activation_bank
from tension_utils.activations import BASED_KINDS, neuron_scores, split_half_scores, text_scores
from tension_utils.artifacts import (
    OWN_SCORES,
    PYDOC,
    TABLES,
    VIEWS,
    StageRecord,
    atomic_path,
    base_source,
    file_hash,
    is_archived,
    is_current,
    local_inputs,
    named_sources,
    read_manifest,
    read_part,
    read_section,
    read_table,
    remove_any,
    require,
    resolve_source,
    run_template,
    toy_benchmark,
    training_data,
    user_path,
    write_part,
    write_table,
)
from tension_utils.benchmarks.load import LoadedBenchmarks, first_prompts, is_reachable, load_benchmarks
from tension_utils.conditions import OWNERS, Condition, list_conditions, score_sources, set_generator
from tension_utils.config import (
    BENCHMARKS,
    MASK_MODES,
    MASKED_ARMS,
    MATCHED_ARM,
    SCOPES,
    SCORE_KINDS,
    SHARED_MASK_ARM,
    SINGLE_OBJECTIVES,
    TOY,
    AblateConfig,
    DataConfig,
    EngineConfig,
    EvaluateConfig,
    IdentifyConfig,
    Run,
    Share,
    SinglePair,
    Text,
    TrainConfig,
    check_choice,
    checked,
    config_hash,
    some,
    whole,
)
from tension_utils.data import Item, training_pairs
from tension_utils.engine.lower_layers import LowerLayers
from tension_utils.engine.packing import prepare_items
from tension_utils.evaluation import PromptGroup, group_by_prompt, score_groups
from tension_utils.masking import NEURON_MASK_FILE, NeuronMask
from tension_utils.models import load_base_model, load_reward_model, load_tokenizer
from tension_utils.neurons import NeuronSet, top_neurons
from tension_utils.scores import ACTIVATION_KINDS, BASE_GENERIC, GENERIC, HEAD_KINDS, HEADS, NeuronScores, own_scores
from tension_utils.training import (
    device_name,
    pick_device,
    tokenize_pairs,
    train_run,
    uses_bfloat16,
)


@checked
class ItemsConfig:
    """Which test items go through a model, and how; the fields mean what they mean in `EvaluateConfig`.

    Args:
        benchmarks: keys of `benchmarks.BENCHMARKS`.
        engine: how; ``n_items`` counts prompts per (benchmark, subset).
        sources: benchmark -> public name or folder.
        max_length: tokens per sequence; 0 is that of training.
        items_of: benchmark -> prompts per subset, where it differs from ``engine.n_items``.
    """

    benchmarks: some(Literal[BENCHMARKS]) = ("hh-rlhf",)
    engine: EngineConfig = EngineConfig()
    sources: Mapping[str, Text] = dataclasses.field(default_factory=dict)
    max_length: whole(0) = 0
    items_of: Mapping[str, whole(0)] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in (("benchmark_sources", self.sources), ("items_of", self.items_of)):
            for benchmark in values:
                check_choice(name, benchmark, self.benchmarks)

    @classmethod
    def of(cls, config: EvaluateConfig) -> "ItemsConfig":
        """Return the items of an evaluation."""
        return cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(cls)})


@dataclasses.dataclass
class Stage:
    """What every stage needs of a trained run: its training data, model, tokenizer, and the record of its work.

    Args:
        run: gives data, model and tokenizer.
        name: section of the manifest.
        artifact: file that the stage makes.
        config: a configuration with the field ``engine``.
        place: whose folder and label the artifact gets; None is the run's own.
        is_autocast: keep float32 weights, also where the precision is bfloat16.
        further: configurations whose rows are in the same table.
        beside: further files or folders that the stage makes.
    """

    run: Run
    name: str
    artifact: str
    config: object
    place: Run | SinglePair | None = None
    is_autocast: bool = False
    further: tuple[AblateConfig, ...] = ()
    beside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.place = self.place or self.run
        self.trained = read_section(require(self.run.folder / "reward_model", "01_train", self.run).parent, "train")
        self.data, self.template = training_data(self.run), run_template(self.run)
        self.settings = {self.name: dataclasses.asdict(self.config), **self.place.label}
        if self.template != "hh":
            self.settings["template"] = self.template
        if self.further:
            self.settings["further"] = [dataclasses.asdict(config) for config in self.further]
        self.named = named_sources(self.run.root, [self.settings[self.name], *self.settings.get("further", ())])
        self.sources = local_inputs(data_source=self.data.source, **self.named)
        self.inputs = {"reward_model": self.run.folder / "reward_model", **self.sources}

    def start(self, **upstream: str) -> bool:
        """Return False if the artifact is there and current; else start the clock and return True."""
        self.digest = config_hash(self.settings, reward_model=self.trained["artifact_hash"], **upstream)
        there = {"beside": self.beside, "sources": self.sources}
        if is_current(self.place.folder, self.name, self.digest, self.artifact, **there) and not self._can_go_on():
            return False
        self.record = StageRecord(self.place.folder, self.name, self.settings, self.digest)
        self.device = pick_device()
        self.is_bfloat16 = uses_bfloat16(self.config.engine.precision, self.device)
        dtype = "bfloat16" if self.is_bfloat16 and not self.is_autocast else "float32"
        self.placement = {"dtype": dtype, "device": self.device}
        self.model = load_reward_model(self.run.folder / "reward_model", **self.placement)
        self.tokenizer = load_tokenizer(self.run.folder / "reward_model", pad_with_eos=True)
        return True

    def _can_go_on(self) -> bool:
        """Say whether a benchmark that was out of reach is within reach now, and the reward model to score it."""
        not_run = read_manifest(self.place.folder)[self.name].get("not_run", {})
        has_weights = any((self.run.folder / "reward_model").glob("model*.safetensors"))
        return has_weights and any(is_reachable(name, self.named.get(f"benchmark_{name}")) for name in not_run)

    def engine_options(self) -> dict:
        """Return the keyword arguments of every engine call."""
        engine: EngineConfig = self.config.engine
        return {"max_length": self.data.max_length, "tokens_per_batch": engine.tokens_per_batch, "device": self.device}

    def finish(self, n_tokens: int, **facts: object) -> None:
        """Write the stage's section of the manifest."""
        self.record.finish(
            self.artifact,
            device=device_name(self.device),
            n_tokens=n_tokens,
            inputs=self.inputs,
            beside=self.beside,
            dtype=self.placement["dtype"],
            **facts,
        )


def load_items(
    run: Run, data: DataConfig, config: EvaluateConfig | ItemsConfig | AblateConfig, unusable_items: str = "drop"
) -> LoadedBenchmarks:
    """Load the benchmarks that can be reached and keep the first prompts of every subset, as many as are asked for.

    Args:
        run: gives the place of the toy benchmark.
        data: gives the place of the training data's test split.
        config: which benchmarks.
        unusable_items: see `EvaluateConfig`; an evaluation has stopped at them, or left them out.

    Raises:
        ValueError: for an unknown benchmark; lists the known ones.
    """
    sources = {"hh-rlhf": data.source, TOY: toy_benchmark(run.root)} | dict(config.sources)
    loaded = load_benchmarks(config.benchmarks, sources, subsets=data.subsets, unusable_items=unusable_items)
    kept = []
    for name in config.benchmarks:
        own = [item for item in loaded.items if item.benchmark == name]
        kept += first_prompts(own, config.items_of.get(name, config.engine.n_items))
    return dataclasses.replace(loaded, items=kept)


def evaluate_run(run: Run, config: EvaluateConfig) -> bool:
    """Score every benchmark item with one reward model and write ``evaluation.parquet``.

    With ``config.n_template_check`` the first prompts are scored again in the published template and written to
    ``template_check.parquet``. What could not be scored is in the manifest: benchmarks that are out of reach
    (``not_run``) and items that do not fit (``n_too_long``).

    Returns:
        True if it computed, False if it found the artifact, current or kept without the reward model.
    """
    if is_archived(run.folder, "evaluation.parquet"):
        return False
    beside = ("template_check.parquet",) * bool(config.n_template_check)
    stage = Stage(run, "evaluate", "evaluation.parquet", config, beside=beside)
    if not stage.start():
        return False
    loaded = load_items(run, stage.data, config, config.unusable_items)
    max_length = config.max_length or stage.data.max_length
    options = stage.engine_options() | {"max_length": max_length}
    groups, left_out = group_by_prompt(stage.tokenizer, loaded.items, max_length, stage.template)
    remove_any(run.folder / "template_check.parquet")
    if config.n_template_check:
        few = first_prompts(loaded.items, config.n_template_check)
        few, _ = group_by_prompt(stage.tokenizer, few, max_length, template="published")
        again = score_groups(stage.model, stage.tokenizer, few, **options).assign(**run.label)
        write_table(run.folder / "template_check.parquet", again)
    table = score_groups(stage.model, stage.tokenizer, groups, **options).assign(**run.label)
    write_table(run.folder / "evaluation.parquet", table)
    n_too_long = Counter(f"{item.benchmark}/{item.subset}" for item in left_out["too long"])
    n_dropped = {name: Counter(of) for name, of in loaded.n_dropped.items()}
    for item in left_out["identical tokens"]:
        n_dropped.setdefault(item.benchmark, Counter())["identical tokens"] += 1
    stage.finish(
        int(table.n_tokens.sum()),
        n_items=len(table),
        n_too_long=dict(n_too_long),
        n_dropped=n_dropped,
        not_run=loaded.not_run,
    )
    return True


LONGEST, SHORTEST = 500, 120  # characters of a passage

MARKUP = re.compile(r"[*\"`]|\\(?=\W)")

CODE = re.compile(r"::=|>>>|\.\.\. |^\s*[+|]|[*=~^-]{4}|[{}=<>]\s*\w*\(", re.MULTILINE)

SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[A-Z])")


def load_passages(source: str, n_passages: int, seed: int = 0) -> list[str]:
    """Return random passages of plain text, each a few sentences of one paragraph; more start with the same ones.

    Args:
        source: "pydoc", the Python language reference of the running Python; or the path of a UTF-8 text file with
            blank lines between paragraphs.
        n_passages: how many.
        seed: of the draw.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no UTF-8 text, or there are too few passages.
    """
    passages = list(dict.fromkeys(passage for text in _texts(source) for passage in cut_passages(text)))
    if len(passages) < n_passages:
        raise ValueError(
            f"n_generic: expected at most {len(passages)}, the passages of {SHORTEST} to {LONGEST} characters in "
            f"generic_text={source!r}; got {n_passages}"
        )
    order = np.random.default_rng(seed).permutation(len(passages))
    return [passages[i] for i in order[:n_passages]]


def _texts(source: str) -> list[str]:
    """Return the texts of a source, in a fixed order."""
    if source == PYDOC:
        from pydoc_data.topics import topics  # half a megabyte that few need

        return [topics[name] for name in sorted(topics)]
    path = user_path(source)
    if not path.is_file():
        raise FileNotFoundError(f"generic_text: expected {PYDOC!r} or a text file; there is no file {path}")
    try:
        return [path.read_text(encoding="utf-8")]
    except UnicodeDecodeError as error:
        raise ValueError(f"generic_text: expected UTF-8 text in {path}; got {error}; save it as UTF-8") from error


def cut_passages(text: str) -> Iterator[str]:
    r"""Yield the passages of a text: whole sentences of one paragraph of prose, without markup and line breaks.

    Headings, code, grammar and tables are left out, and so are sentences longer and passages shorter than a passage
    may be.

    >>> prose = "*Names* refer to objects, and names are introduced by\n   name binding operations. " * 2
    >>> list(cut_passages("Naming\n******\n\n" + prose + "\n\n   x ::= 1"))[0][:60]
    'Names refer to objects, and names are introduced by name bin'
    """
    for paragraph in re.split(r"\n\s*\n", text):
        if CODE.search(paragraph):
            continue
        prose = " ".join(re.sub(r"-\n\s*", "-", MARKUP.sub("", paragraph)).split())
        if not (prose[:1].isupper() and prose.endswith((".", "!", "?"))):
            continue
        passage = ""
        for sentence in (*SENTENCE_END.split(prose), ""):
            longer = f"{passage} {sentence}".strip()
            if sentence and len(longer) <= LONGEST:
                passage = longer
                continue
            if SHORTEST <= len(passage) <= LONGEST:
                yield passage
            passage = sentence


VIEW_KINDS = (*ACTIVATION_KINDS, "rms_change")  # that tables read on both texts, whatever else is asked for

GENERIC_KINDS = (*ACTIVATION_KINDS, "rms")

BASED_VIEWS = ("heads", "base-text", "base-generic")  # those that need the base model

GENERIC_SEED = 0  # every reward model reads the same passages


def training_texts(stage: Stage, n_items: int) -> dict[str, list[Item]]:
    """Return the first training pairs, of the run's seed, of its own objective and of both single ones.

    Args:
        stage: of the run.
        n_items: pairs per objective; 0 takes all.
    """
    objectives = dict.fromkeys((stage.run.objective, *SINGLE_OBJECTIVES))
    pairs = {objective: training_pairs(stage.data, objective, stage.run.seed).train for objective in objectives}
    return {objective: list(islice(told_apart(stage, of), n_items or None)) for objective, of in pairs.items()}


def told_apart(stage: Stage, items: Sequence[Item]) -> Iterator[Item]:
    """Yield the pairs whose responses differ in tokens, as training uses them."""
    for item in items:
        (prepared,) = prepare_items(stage.tokenizer, [item], None)
        if len(set(prepared.tokens.sequences)) > 1:
            yield item


def identify_run(run: Run, config: IdentifyConfig) -> bool:
    """Take neuron statistics and write ``neuron_scores.safetensors`` and the files of ``score_views``.

    Views: "half-0" and "half-1" are the same statistics over every second pair; "gate" has every kind and scope at the
    published site, "heads" the change of attention heads; "text-helpful" and "text-harmless" have every kind, of this
    reward model on the training pairs of that objective, so that attribution tells what a neuron adds to the margin on
    either; a run of a single objective adds "base-text-<objective>", the untouched base model on them. With
    ``config.n_generic``, "generic" and "base-generic" are the two models on plain text without labels: what is loud
    there was loud before training, on any text.

    Every finished pass is kept in ``score_parts`` until the last one is, so that a stopped stage goes on with the next.

    Returns:
        True if it computed, False if it found the artifact, current or kept without the reward model.

    Source: section 1 of METHOD.md, "Neuron scores"; the views are ours (section 2, facts 3 and 7).
    """
    if is_archived(run.folder, OWN_SCORES):
        return False
    stage = Stage(run, "identify", OWN_SCORES, config, beside=(VIEWS,))
    if not stage.start():
        return False
    texts, source = training_texts(stage, config.engine.n_items), base_source(run)
    config, left_out = _without_base(config) if source is None else (config, [])
    base = load_base_model(source, **stage.placement) if source else None
    options = stage.engine_options() | {"base_model": base, "template": stage.template}
    own = partial(split_half_scores, stage.model, stage.tokenizer, texts[run.objective], **options)
    base_files = local_inputs(base_model=source) if source else {}
    generic = local_inputs(generic_text=config.generic_text) if config.n_generic else {}
    kept = _Kept(stage, texts, base_files | generic)
    scores, *halves = kept(OWN_PARTS, partial(own, kinds=config.score_kinds, scope=config.scopes))
    found = {f"half-{number}": half for number, half in enumerate(halves)}
    found |= _own_text(stage, config, texts, scores, base is not None)
    taken = _views(stage, config, texts, options, found, kept) | _generic_views(stage, config, options, kept)
    with atomic_path(run.folder / VIEWS) as temporary:
        temporary.mkdir(parents=True)
        for name, view in (found | taken).items():
            view.save(temporary / f"{name}.safetensors")
    with atomic_path(run.folder / OWN_SCORES) as temporary:
        scores.save(temporary)
    remove_any(run.folder / SCORE_PARTS)
    stage.inputs |= base_files
    stage.beside = tuple(f"{VIEWS}/{name}.safetensors" for name in sorted(found | taken))
    n_tokens = scores.n_tokens + sum(view.n_tokens for view in taken.values())
    counts = {"n_view_items": config.n_view_items, "n_generic": config.n_generic}
    stage.finish(n_tokens, n_items=len(texts[run.objective]), left_out=left_out, **counts)
    return True


SCORE_PARTS = "score_parts"  # folder of finished passes while the stage is under way

OWN_PARTS = ("own", "half-0", "half-1")


class _Kept:
    """Finished passes of a stage under way: those that a stopped one left for the same settings, models and texts."""

    def __init__(self, stage: Stage, texts: Mapping[str, Sequence[Item]], sources: Mapping[str, Path]) -> None:
        """Name the passes after all they depend on; ``sources`` are files and folders besides the reward model."""
        facts = (stage.digest, {name: file_hash(path) for name, path in sources.items()}, texts)
        self.mark = hashlib.sha256(repr(facts).encode()).hexdigest()[:24]
        self.folder = stage.run.folder / SCORE_PARTS

    def __call__(self, names: Sequence[str], compute: Callable[[], Sequence[NeuronScores]]) -> list[NeuronScores]:
        """Return what a pass gives, one of each name: found undamaged, or computed and kept."""
        files = [self._find(name) for name in names]
        if None in files:
            files = [self._keep(name, scores) for name, scores in zip(names, compute(), strict=True)]
        return [NeuronScores.load(file) for file in files]

    def _find(self, name: str) -> Path | None:
        """Return the file whose content has the hash in its name."""
        there = sorted(self.folder.glob(f"{name}-{self.mark}-*.safetensors"))
        return next((path for path in there if path.stem.endswith(f"-{file_hash(path)[:24]}")), None)

    def _keep(self, name: str, scores: NeuronScores) -> Path:
        file = self.folder / f"{name}-{self.mark}.safetensors"
        with atomic_path(file) as temporary:
            scores.save(temporary)
        return file.replace(file.with_stem(f"{file.stem}-{file_hash(file)[:24]}"))

    def one(self, name: str, compute: Callable[[], NeuronScores]) -> NeuronScores:
        """Return what a pass for a single name gives."""
        return self((name,), lambda: [compute()])[0]


def _without_base(config: IdentifyConfig) -> tuple[IdentifyConfig, list[str]]:
    """Return what can be asked where the base model is not known, and the kinds and views that are left out.

    Raises:
        ValueError: if nothing is left.
    """
    kinds = tuple(kind for kind in config.score_kinds if kind not in BASED_KINDS)
    if not kinds:
        raise ValueError(
            f"score_kinds: {list(config.score_kinds)} compare with the base model, which is not known of this run; "
            "ask for others, or adopt it with its base_model"
        )
    left_out = [*(kind for kind in config.score_kinds if kind in BASED_KINDS), *BASED_VIEWS]
    print(f"left out, because the base model is not known: {', '.join(left_out)}", flush=True)
    return dataclasses.replace(config, score_kinds=kinds), left_out


def _text_kinds(config: IdentifyConfig, has_base: bool) -> tuple[str, ...]:
    """Return the score kinds of the views on both texts."""
    kinds = dict.fromkeys((*config.score_kinds, *VIEW_KINDS))
    return tuple(kind for kind in kinds if has_base or kind not in BASED_KINDS)


def _own_text(
    stage: Stage, config: IdentifyConfig, texts: dict[str, list[Item]], scores: NeuronScores, has_base: bool
) -> dict[str, NeuronScores]:
    """Return the view on the own objective's text where the run's own scores are just that; else nothing."""
    objective = stage.run.objective
    is_whole = len(texts[objective][: config.n_view_items or None]) == len(texts[objective])
    has_all = set(_text_kinds(config, has_base)) <= set(config.score_kinds) and "all" in config.scopes
    if objective not in SINGLE_OBJECTIVES or not (is_whole and has_all):
        return {}
    tensors = {key: values for key, values in scores.tensors.items() if key[2] == "all"}
    return {f"text-{objective}": dataclasses.replace(scores, tensors=tensors)}


def _generic_views(stage: Stage, config: IdentifyConfig, options: dict, kept: _Kept) -> dict[str, NeuronScores]:
    """Return the statistics of the reward model and of the base model on generic text, if it is asked for."""
    if not config.n_generic:
        return {}
    texts = load_passages(config.generic_text, config.n_generic, GENERIC_SEED)
    asked = {
        GENERIC: (stage.model, (*GENERIC_KINDS, *BASED_KINDS)),
        BASE_GENERIC: (options["base_model"], GENERIC_KINDS),
    }
    if options["base_model"] is None:
        asked = {GENERIC: (stage.model, GENERIC_KINDS)}
    return {
        view: kept.one(view, partial(text_scores, model, stage.tokenizer, texts, kinds=kinds, **options))
        for view, (model, kinds) in asked.items()
    }


def _views(
    stage: Stage,
    config: IdentifyConfig,
    texts: dict[str, list[Item]],
    options: dict,
    found: dict[str, NeuronScores],
    kept: _Kept,
) -> dict[str, NeuronScores]:
    """Return the statistics at other sites, on both texts, and of the base model, but for views that were found."""
    objective, base = stage.run.objective, options["base_model"]
    texts = {name: items[: config.n_view_items or None] for name, items in texts.items()}
    kinds = _text_kinds(config, base is not None)
    asked = {
        "gate": (stage.model, objective, config.score_kinds, "gate", config.scopes),
        **{f"text-{name}": (stage.model, name, kinds, "down_input", "all") for name in SINGLE_OBJECTIVES},
    }
    if base is not None:
        asked[HEADS] = (stage.model, objective, HEAD_KINDS, HEADS, "all")
    if base is not None and objective in SINGLE_OBJECTIVES:
        asked[f"base-text-{objective}"] = (base, objective, ACTIVATION_KINDS, "down_input", "all")
    passes = {
        view: partial(
            neuron_scores, model, stage.tokenizer, texts[text], kinds=kinds, site=site, scope=scope, **options
        )
        for view, (model, text, kinds, site, scope) in asked.items()
        if view not in found
    }
    return {view: kept.one(view, compute) for view, compute in passes.items()}


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
        return self._those(lambda group: not covered.issuperset(_keys_of(group)))

    def of_objective(self, objective: str) -> "_Items":
        """Return the prompts whose items test an objective."""
        return self._those(lambda group: group.items[0].group == objective)

    def _those(self, is_kept: Callable[[PromptGroup], bool]) -> "_Items":
        left = [group for group in self.groups if is_kept(group)]
        return self if len(left) == len(self.groups) else _Items(tuple(left), self.tokens_per_batch)


def _keys_of(group: PromptGroup) -> list[tuple[str, ...]]:
    """Return `ITEM_KEY` of each item of a prompt."""
    return [tuple(getattr(item, name) for name in ITEM_KEY) for item in group.items]


class _Ablation:
    """Scores of one reward model's items under any condition, and what they cost."""

    def __init__(self, run: Run, configs: Sequence[AblateConfig]) -> None:
        """Name what is read, and check that it is there."""
        _require_same_settings(configs)
        self.run, self.configs = run, configs
        self.stage = Stage(run, "ablate", "ablation.parquet", configs[0], further=tuple(configs[1:]))
        self.sources = score_sources(run, *configs)
        self.seconds: dict[str, list[float]] = {}  # by digest of the items
        self.n_found = 0

    def start(self) -> bool:
        """Load the model and list all conditions with their items; return False if the artifact is there and current.

        Raises:
            ValueError: if configurations contradict each other, or ask for nothing of this reward model.
        """
        hashes = {each.objective: read_section(each.folder, "identify")["artifact_hash"] for each in self.sources}
        if not self.stage.start(schema=str(SCHEMA), **hashes):
            return False
        max_length = self.configs[0].max_length or self.stage.data.max_length
        self.options = {"max_length": max_length, "device": self.stage.device, "progress": False}
        self.lower = LowerLayers(self.stage.model)
        self.items_of, self.not_run = _items_of(self.stage, self.configs, max_length)
        self.todo = list(list_work(self.run, self.configs, self.items_of))
        if not self.todo:
            raise ValueError(f"blocks: no condition is left for the {self.run.objective} model; see config.BLOCKS")
        return True

    def part(self, condition: Condition, items: _Items) -> Path:
        """Return the file that keeps a condition's rows once they are computed."""
        return self.run.folder / PARTS / self.part_name(condition, items)

    @cached_property
    def bank_pairs(self) -> list:
        """Tokenized training pairs whose activations are donors."""
        pairs = list(training_pairs(self.stage.data, self.run.objective, self.run.seed).train)[:N_BANK_PAIRS]
        return prepare_items(self.stage.tokenizer, pairs, self.options["max_length"], self.stage.template)

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
        path = self.part(condition, items)
        table = _read_part(path, items)
        if table is None:
            replacement = self.replacement(condition)
            kind, scale = condition.ablation_kind, condition.scale
            n_intact = int(np.argmax(condition.neurons.counts_by_layer() > 0))  # layers below the set
            start = time.perf_counter()
            with (
                ablated(self.stage.model, condition.neurons, kind=kind, scale=scale, **replacement),
                self.lower.skipped(n_intact),
            ):
                table = self._score(items)[list(PART_COLUMNS)]
            self.seconds.setdefault(items.digest, []).append(time.perf_counter() - start)
            write_part(path, table)
            table = read_part(path)
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
    table = read_part(path)
    if table is None or tuple(table.columns) != PART_COLUMNS:
        return None
    return table if list(table[list(ITEM_KEY)].itertuples(index=False, name=None)) == items.keys else None


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
        pieces: dict[tuple[str, frozenset], _Items] = {}  # of these items, by objective and what earlier ones have
        for condition in list_conditions(run, config):
            tested = OWNERS.get(condition.matched_to, "") if config.own_test else ""
            key = tuple(condition.key.values())
            if neurons_of.setdefault(key, condition.neurons) != condition.neurons:
                raise ValueError(
                    f"two configurations give different neurons to {condition.key}: main_kind, scope or "
                    "n_activity_bins differ; give them the same, or other fractions"
                )
            before = covered.get(key, frozenset())
            if (tested, before) not in pieces:
                pieces[tested, before] = (items.of_objective(tested) if tested else items).without(before)
            left = pieces[tested, before]
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
        True if it computed, False if it found the artifact, current or kept without the reward model.

    Raises:
        ValueError: if configurations contradict each other, or ask for nothing of this reward model.
        FileNotFoundError: names the missing file and the chapter to run.
    """
    if (work := _begun(run, configs)) is None:
        return False
    work.remove_other_parts()
    tables, intact = [], []
    for condition, items in tqdm(work.todo, desc=f"ablate {run.objective}, seed {run.seed}", unit="set"):
        if not intact and not work.part(condition, items).is_file():
            intact.append(work.intact(work.items_of[0]))
        tables.append(work.rows(condition, items))
    if intact:
        intact.append(work.intact(work.items_of[0]))
    rows = pd.concat(tables, ignore_index=True)
    n_tokens = int(rows.n_tokens.sum())
    names = [name for name in TABLES["ablation"] if name not in ("cluster", "margin", "credit", "chance", "n_neurons")]
    write_table(run.folder / "ablation.parquet", rows.drop_duplicates(names)[list(TABLES["ablation"])])
    work.stage.inputs |= {f"neuron_scores_{each.objective}": each.folder / OWN_SCORES for each in work.sources}
    seconds = work.seconds.get(work.items_of[0].digest, [])
    facts = {"seconds_per_set": seconds, "seconds_intact": intact}
    facts = {name: float(np.median(values)) if values else None for name, values in facts.items()}
    n_items = len(rows.drop_duplicates(list(ITEM_KEY)))
    facts |= {"n_sets": len(work.todo), "n_found": work.n_found, "n_items": n_items, "not_run": work.not_run}
    work.stage.finish(n_tokens, **facts)
    return True


def help_ablate(run: Run, *configs: AblateConfig) -> bool:
    """Compute conditions for another process that is at work on `ablate_run` with the same configurations.

    It takes the last one first, so that the two meet; what it computes is found there.

    Returns:
        True if it computed any.
    """
    if (work := _begun(run, configs)) is None:
        return False
    n_computed = 0
    for condition, items in reversed(work.todo):
        if not work.part(condition, items).is_file():
            work.rows(condition, items)
            n_computed += 1
    return n_computed > 0


def _begun(run: Run, configs: Sequence[AblateConfig]) -> _Ablation | None:
    """Return the work of an ablation with its model at hand; None where the artifact is current or kept without it."""
    if is_archived(run.folder, "ablation.parquet"):
        return None
    work = _Ablation(run, configs)
    return work if work.start() else None


def _items_of(stage: Stage, configs: Sequence[AblateConfig], max_length: int) -> tuple[list[_Items], dict[str, str]]:
    """Load and tokenize the items of each configuration, those that several share once; say what was out of reach."""
    found: dict[tuple, tuple[PromptGroup, ...]] = {}
    not_run: dict[str, str] = {}
    keys = [(c.benchmarks, c.engine.n_items, tuple(sorted(c.sources.items()))) for c in configs]
    for key, config in zip(keys, configs, strict=True):
        if key not in found:
            wanted = EvaluateConfig(config.benchmarks, config.engine, config.sources)
            loaded = load_items(stage.run, stage.data, wanted)
            not_run |= loaded.not_run
            groups, _ = group_by_prompt(stage.tokenizer, loaded.items, max_length, stage.template)
            found[key] = tuple(groups)
    return [_Items(found[key], c.engine.tokens_per_batch) for key, c in zip(keys, configs, strict=True)], not_run


@checked
class MaskConfig:
    """Which neurons the mixed reward model is trained without.

    Args:
        score_kind: of `SCORE_KINDS`; ranks the neurons of the single-objective reward models.
        fraction: share of all neurons in the top of each; shared are those in both tops.
        scope: token scope of the scores.
        mode: of `MASK_MODES`.
    """

    score_kind: Literal[SCORE_KINDS] = "rms_change"
    fraction: Share = 0.1
    scope: Literal[SCOPES] = "all"
    mode: Literal[MASK_MODES] = MASK_MODES[0]


def sibling(run: Run, objective: str) -> Run:
    """Return the run of another objective with the same base model and seed."""
    return dataclasses.replace(run, objective=objective)


def shared_neurons(run: Run, config: MaskConfig) -> NeuronSet:
    """Return the neurons in the top of both single-objective reward models of the run's base model and seed.

    Raises:
        FileNotFoundError: names the missing score file and the chapter to run.
        ValueError: if the tops share no neuron.
    """
    scores = [own_scores(sibling(run, o)).get(config.score_kind, "both", config.scope) for o in SINGLE_OBJECTIVES]
    helpful, harmless = (top_neurons(values, config.fraction) for values in scores)
    if not len(helpful & harmless):
        raise ValueError(
            f"fraction: expected tops that share a neuron; the top {config.fraction:g} by {config.score_kind} of "
            f"{run.base_model_name}, seed {run.seed}, share none; raise it"
        )
    return helpful & harmless


def variant_mask(run: Run, config: MaskConfig) -> NeuronMask:
    """Return the mask of one of `MASKED_ARMS`: the shared neurons, or a random set with their count in every layer.

    Random sets are drawn anew for every arm and seed, uniform within a layer; they may hold shared neurons.

    Raises:
        ValueError: if the run's objective is not such an arm, or no neuron is shared.
    """
    check_choice("objective", run.objective, MASKED_ARMS)
    neurons = shared_neurons(run, config)
    if run.objective != SHARED_MASK_ARM:
        (neurons,) = neurons.matched_random(np.random.default_rng([run.seed, *run.objective.encode()]), 1)
    return NeuronMask(neurons, config.mode)


def train_variant(run: Run, config: MaskConfig) -> bool:
    """Train the size-matched mixed reward model again with a mask: same pairs, steps, seed and settings.

    Returns:
        True if it trained, False if it found the artifacts.

    Raises:
        FileNotFoundError: if the matched arm or the scores of a single-objective reward model are missing.
        ValueError: as `variant_mask`.
    """
    return train_like(run, sibling(run, MATCHED_ARM), mask=variant_mask(run, config))


def train_like(run: Run, like: Run, n_pairs: int = 0, mask: NeuronMask | None = None) -> bool:
    """Train a reward model with the settings of another one, which has to be trained.

    Args:
        run: to train.
        like: whose settings it takes.
        n_pairs: training pairs per single objective instead of those of ``like``; 0 takes as many.
        mask: neurons to train without.

    Returns:
        True if it trained, False if it found the artifacts.

    Raises:
        FileNotFoundError: if ``like`` was not trained.
        ValueError: see `train_run`.
    """
    if is_archived(run.folder, "train_log.parquet"):
        return False
    settings = _settings(like, "train", "reward_model", "01_train")
    data = DataConfig(**settings["data"] | ({"n_train_pairs": n_pairs} if n_pairs else {}))
    return train_run(run, data, TrainConfig(**settings["train"]), mask)


def evaluate_like(run: Run, like: Run) -> bool:
    """Score the HH-RLHF tests with a reward model, with the settings of another one's evaluation.

    Returns:
        True if it computed, False if it found the artifact, current or kept without the reward model.

    Raises:
        FileNotFoundError: if ``like`` was not evaluated.
    """
    settings = _settings(like, "evaluate", "evaluation.parquet", "02_evaluate")["evaluate"]
    config = EvaluateConfig(engine=EngineConfig(**settings["engine"]), max_length=settings["max_length"])
    return evaluate_run(run, config)


def _settings(run: Run, stage: str, artifact: str, made_by: str) -> dict:
    """Return the configuration that one stage of a run was made with."""
    return read_section(require(run.folder / artifact, made_by, run).parent, stage)["config"]


def mask_table(runs: list[Run]) -> pd.DataFrame:
    """Return what the checkpoints of variants hold at zero.

    Returns:
        base_model, arm, seed, mode, n_neurons, share (of all neurons), n_layers (that lose one), n_shared (neurons
        that the shared mask of the seed holds too).
    """
    masks = {run: NeuronMask.load(run.folder / "reward_model" / NEURON_MASK_FILE) for run in runs}
    rows = []
    for run, mask in masks.items():
        shared = masks[sibling(run, SHARED_MASK_ARM)].neurons
        row = {"base_model": run.base_model_name, "arm": run.objective, "seed": run.seed, "mode": mask.mode}
        row |= {"n_neurons": len(mask.neurons), "share": mask.neurons.fraction}
        row |= {"n_layers": int((mask.neurons.counts_by_layer() > 0).sum()), "n_shared": len(mask.neurons & shared)}
        rows.append(row)
    return pd.DataFrame(rows)


@torch.no_grad()
def reloaded_loss(run: Run) -> tuple[float, float]:
    """Return the validation loss of the checkpoint on disk, and the one its training ended with.

    They agree only if the checkpoint comes back as the model that was trained, its mask included. Every sequence goes
    through the model alone.

    Raises:
        FileNotFoundError: if the run was not trained.
    """
    folder = require(run.folder / "reward_model", "01_train", run)
    data = DataConfig(**_settings(run, "train", "reward_model", "01_train")["data"])
    local = dataclasses.replace(data, source=resolve_source(data.source, run.root, "hh-rlhf"))
    model, tokenizer = load_reward_model(folder, device=pick_device()), load_tokenizer(folder)
    pairs, _ = tokenize_pairs(tokenizer, training_pairs(local, run.objective, run.seed).validation, data)
    rewards = [
        [model(torch.tensor([ids], device=model.device)).logits[0, 0].item() for ids in side]
        for side in zip(*(pair.tokens.sequences for pair in pairs), strict=True)
    ]
    chosen, rejected = torch.tensor(rewards)  # (2, P)
    log = read_table([run], "train_log", "01_train")
    return -logsigmoid(chosen - rejected).mean().item(), float(log.validation_loss.min())
