"""What every stage after training shares, and the first of them: evaluate one reward model."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tension_utils.artifacts import StageRecord, is_current, read_manifest, require, write_table
from tension_utils.benchmarks import LoadedBenchmarks, first_prompts, load_benchmarks
from tension_utils.checks import check_choice, check_range
from tension_utils.config import AblateConfig, DataConfig, EngineConfig, EvaluateConfig, check_sources, config_hash
from tension_utils.evaluation import group_by_prompt, score_groups
from tension_utils.models import load_reward_model, load_tokenizer
from tension_utils.runs import Run, SinglePair
from tension_utils.training import device_name, local_inputs, pick_device, resolve_source, uses_bfloat16


@dataclasses.dataclass(frozen=True)
class ItemsConfig:
    """Which test items go through a model, and how; the fields mean what they mean in `EvaluateConfig`.

    Args:
        benchmarks: keys of `benchmarks.BENCHMARKS`.
        engine: how; ``n_items`` counts prompts per (benchmark, subset).
        sources: benchmark -> public name or folder.
        max_length: tokens per sequence; 0 is that of training.
        items_of: benchmark -> prompts per subset, where it differs from ``engine.n_items``.
    """

    benchmarks: tuple[str, ...] = ("hh-rlhf",)
    engine: EngineConfig = EngineConfig()
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_length: int = 0
    items_of: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range("max_length", self.max_length, 0)
        check_sources(self.sources, self.benchmarks)
        for name, n_items in self.items_of.items():
            check_choice("items_of", name, self.benchmarks)
            check_range(f"items_of: {name}", n_items, 0)

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
    """

    run: Run
    name: str
    artifact: str
    config: object
    place: Run | SinglePair | None = None
    is_autocast: bool = False
    further: tuple[AblateConfig, ...] = ()

    def __post_init__(self) -> None:
        self.place = self.place or self.run
        self.trained = read_manifest(require(self.run.folder / "reward_model", "01_train").parent)["train"]
        data = DataConfig(**self.trained["config"]["data"])
        self.data = dataclasses.replace(data, source=resolve_source(data.source, self.run.root, "hh-rlhf"))
        self.settings = {self.name: dataclasses.asdict(self.config), **self.place.label}
        if self.further:
            self.settings["further"] = [dataclasses.asdict(config) for config in self.further]
        self.inputs = {"reward_model": self.run.folder / "reward_model", **local_inputs(data_source=self.data.source)}

    def start(self, **upstream: str) -> bool:
        """Return False if the artifact is there and current; else start the clock and return True."""
        self.digest = config_hash(self.settings, reward_model=self.trained["artifact_hash"], **upstream)
        if is_current(self.place.folder, self.name, self.digest, self.artifact):
            return False
        self.record = StageRecord(self.place.folder, self.name, self.settings, self.digest)
        self.device = pick_device()
        self.is_bfloat16 = uses_bfloat16(self.config.engine.precision, self.device)
        dtype = "bfloat16" if self.is_bfloat16 and not self.is_autocast else "float32"
        self.placement = {"dtype": dtype, "device": self.device}
        self.model = load_reward_model(self.run.folder / "reward_model", **self.placement)
        self.tokenizer = load_tokenizer(self.run.folder / "reward_model")
        return True

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
            dtype=self.placement["dtype"],
            **facts,
        )


def load_items(run: Run, data: DataConfig, config: EvaluateConfig | ItemsConfig) -> LoadedBenchmarks:
    """Load the benchmarks that can be reached and keep the first prompts of every subset, as many as are asked for.

    Raises:
        ValueError: for an unknown benchmark; lists the known ones.
    """
    sources = {"hh-rlhf": data.source, "toy": Path(run.root) / "toy-world" / "benchmark"} | dict(config.sources)
    loaded = load_benchmarks(config.benchmarks, sources, subsets=data.subsets, bad_pairs=data.bad_pairs)
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
        True if it computed, False if it found the artifact.
    """
    stage = Stage(run, "evaluate", "evaluation.parquet", config)
    if not stage.start():
        return False
    loaded = load_items(run, stage.data, config)
    max_length = config.max_length or stage.data.max_length
    options = stage.engine_options() | {"max_length": max_length}
    groups, left_out = group_by_prompt(stage.tokenizer, loaded.items, max_length)
    if config.n_template_check:
        few = first_prompts(loaded.items, config.n_template_check)
        few, _ = group_by_prompt(stage.tokenizer, few, max_length, template="published")
        again = score_groups(stage.model, stage.tokenizer, few, **options).assign(**run.label)
        write_table(run.folder / "template_check.parquet", again)
    table = score_groups(stage.model, stage.tokenizer, groups, **options).assign(**run.label)
    write_table(run.folder / "evaluation.parquet", table)
    n_too_long = Counter(f"{item.benchmark}/{item.subset}" for item in left_out)
    stage.finish(
        int(table.n_tokens.sum()),
        n_items=len(table),
        n_too_long=dict(n_too_long),
        n_dropped=loaded.n_dropped,
        not_run=loaded.not_run,
    )
    return True
