"""Choices of a run, checked when they are made; the arms; a run, which is one reward model, and its folder."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path


def check_choice(name: str, value: str, choices: Collection[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        ValueError: names the parameter, what came and every valid choice.

    >>> check_choice("objective", "helpful", ("helpful", "harmless"))
    'helpful'
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(str, choices))}; got {value!r}")
    return value


def check_choices(name: str, values: Collection[str], choices: Collection[str]) -> None:
    """Check a non-empty collection without repeats, each a valid choice.

    Raises:
        ValueError: names the parameter and what is wrong with it.
    """
    if isinstance(values, str):
        raise ValueError(f"{name}: expected a list of values; got the text {values!r}")
    if not values or len(set(values)) != len(values):
        raise ValueError(f"{name}: expected at least one value and none twice; got {list(values)!r}")
    for value in values:
        check_choice(name, value, choices)


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Check ``low <= value <= high``.

    Raises:
        ValueError: names the parameter, the range and what came.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
        raise ValueError(f"{name}: expected a number from {low} to {high}; got {value!r}")


def check_values(name: str, values: Collection[float], low: float, high: float = float("inf")) -> None:
    """Check a non-empty collection of numbers without repeats, each from ``low`` to ``high``.

    Raises:
        ValueError: names the parameter and what is wrong with it.
    """
    if not values or len(set(values)) != len(values):
        raise ValueError(f"{name}: expected at least one value and none twice; got {list(values)!r}")
    for value in values:
        check_range(name, value, low, high)


def check_fields(name: str, values: Mapping[str, object], config_class: type) -> Mapping[str, object]:
    """Return ``values`` if every key is a field of the dataclass ``config_class``.

    Raises:
        ValueError: names the parameter, the unknown keys and the fields there are.

    >>> from tension_utils.config import EngineConfig
    >>> check_fields("engine", {"n_items": 4}, EngineConfig)
    {'n_items': 4}
    """
    fields = [field.name for field in dataclasses.fields(config_class)]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(f"{name}: expected fields of {config_class.__name__} ({', '.join(fields)}); got {unknown}")
    return values


OBJECTIVES = ("helpful", "harmless", "helpful-harmless")

SINGLE_OBJECTIVES = OBJECTIVES[:2]

MIXED, MATCHED_ARM = OBJECTIVES[2], "helpful-harmless-matched"

SHARED_MASK_ARM = "matched-without-shared"  # trained with the neurons masked that the single-objective models share

RANDOM_MASK_ARMS = tuple("matched-without-random" + number for number in ("", "-2", "-3", "-4"))  # one draw each

MIXED_ARMS = (MIXED, MATCHED_ARM)

MASKED_ARMS = (SHARED_MASK_ARM, *RANDOM_MASK_ARMS)

LABELS = ("given", "coin", "longer")


@dataclass(frozen=True)
class Arm:
    """What a reward model is trained on.

    Args:
        helpful: share of the helpful pairs, the first ones in the seed's order, in [0, 1].
        harmless: share of the harmless pairs.
        labels: of `LABELS`: ``"given"``, those of the data; ``"coin"``, a fair coin says which response is chosen;
            ``"longer"``, the response with more characters is chosen (as given where both have as many).
    """

    helpful: float = 0.0
    harmless: float = 0.0
    labels: str = LABELS[0]


# Sham arms learn labels that carry no objective: what they share with a reward model needs none.
SHAM_ARMS = {
    f"{objective}-{labels}": Arm(**{objective: 1.0, "labels": labels})
    for labels in LABELS[1:]
    for objective in SINGLE_OBJECTIVES
}

RATIO_ARMS = {"helpful-harmless-3-to-1": Arm(0.75, 0.25), "helpful-harmless-1-to-3": Arm(0.25, 0.75)}

ARMS = {
    "helpful": Arm(helpful=1.0),
    "harmless": Arm(harmless=1.0),
    MIXED: Arm(1.0, 1.0),  # as published: all pairs of both
    **dict.fromkeys((MATCHED_ARM, *MASKED_ARMS), Arm(0.5, 0.5)),  # as many pairs and steps as a single objective
    **RATIO_ARMS,
    **SHAM_ARMS,
}

MASK_MODES = ("masked", "pruned")

PRECISIONS = ("auto", "float32", "bfloat16")

LONG_PAIRS = ("error", "drop", "truncate")

BAD_PAIRS = ("error", "drop")

SCORE_KINDS = (
    *("signed_mean", "mean_abs", "rms", "frequency", "rms_change", "relative_change"),
    *("contrast", "absolute_contrast", "attribution"),
)

SCOPES = ("all", "response", "last")

ABLATION_KINDS = ("zero", "mean", "resample")

BLOCKS = ("scored", "mixed")  # of conditions: top sets by score; shared and only sets of the single-objective models

FAMILIES = ("natural", "equal-size", "equal-activity")  # how the shared and only sets are drawn down

CONTROLS = ("layer", "activity")  # what a random set has in common with its target, besides its size

REMOVAL = 0.0  # the scale of a removed set

MOST_SCALE = 10.0

TOY = "toy"


def config_hash(config: object, **upstream: str) -> str:
    """Return 16 hex digits that change with any field of ``config`` or any upstream hash.

    Args:
        config: a dataclass or a JSON-like value.
        upstream: hashes of what this stage reads, by name.
    """
    value = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config
    text = json.dumps({"config": value, "upstream": upstream}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class DataConfig:
    """Where preference pairs come from and how many are used.

    Args:
        source: public dataset name, a local folder of the same layout, or ``"toy"``.
        subsets: the source's folders per single objective; the mixed objective uses all of them.
        n_train_pairs: training pairs per single objective; 0 takes all that validation leaves.
        n_validation_pairs: pairs per single objective, carved from the train split.
        max_length: tokens per sequence, EOS included.
        long_pairs: what to do with a training pair longer than that; ``"truncate"`` cuts its prompt on the left.
        bad_pairs: what to do with a row that is no usable pair (empty, identical, different prompts, missing field).
    """

    source: str = TOY
    subsets: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"helpful": ("helpful-base",), "harmless": ("harmless-base",)}
    )
    n_train_pairs: int = 0
    n_validation_pairs: int = 50
    max_length: int = 1024
    long_pairs: str = "error"
    bad_pairs: str = "error"

    def __post_init__(self) -> None:
        lists = [value for value in self.subsets.values() if isinstance(value, list | tuple) and value]
        if set(self.subsets) != set(SINGLE_OBJECTIVES) or len(lists) < len(SINGLE_OBJECTIVES):
            raise ValueError(f"subsets: expected a list of folders for each of helpful, harmless; got {self.subsets!r}")
        object.__setattr__(self, "subsets", {key: tuple(value) for key, value in sorted(self.subsets.items())})
        check_range("n_train_pairs", self.n_train_pairs, 0)
        check_range("n_validation_pairs", self.n_validation_pairs, 1)
        check_range("max_length", self.max_length, 8)
        check_choice("long_pairs", self.long_pairs, LONG_PAIRS)
        check_choice("bad_pairs", self.bad_pairs, BAD_PAIRS)


@dataclass(frozen=True)
class TrainConfig:
    """How one reward model is trained (Bradley-Terry).

    Args:
        batch_size: pairs per optimizer step.
        tokens_per_batch: stream tokens of one forward and backward pass; the rest of a batch is accumulated.
        learning_rate: peak of the linear schedule.
        n_evaluations: validations during training, the last one at its end; the best checkpoint is kept.
        precision: ``"auto"`` is bf16 autocast over fp32 weights where the hardware multiplies bf16 matrices.
        pad_with_eos: pad with EOS where the tokenizer has no padding token (GPT-2).
    """

    n_epochs: float = 1.0
    batch_size: int = 16
    tokens_per_batch: int = 2048
    learning_rate: float = 1e-4
    warmup_share: float = 0.1
    n_evaluations: int = 4
    precision: str = "auto"
    pad_with_eos: bool = False

    def __post_init__(self) -> None:
        check_range("n_epochs", self.n_epochs, 1e-6)
        check_range("batch_size", self.batch_size, 1)
        check_range("tokens_per_batch", self.tokens_per_batch, 1)
        check_range("learning_rate", self.learning_rate, 0.0, 1.0)
        check_range("warmup_share", self.warmup_share, 0.0, 1.0)
        check_range("n_evaluations", self.n_evaluations, 1)
        check_choice("precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class EngineConfig:
    """How items go through a model without training it.

    Args:
        n_items: items per (benchmark, subset) or training pairs per reward model; 0 takes all.
        tokens_per_batch: budget of one forward pass; more is faster until memory ends.
        precision: of the backbone; ``"auto"`` is bf16 where the hardware multiplies bf16 matrices. Rewards are float32.
    """

    n_items: int = 0
    tokens_per_batch: int = 4096
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_range("n_items", self.n_items, 0)
        check_range("tokens_per_batch", self.tokens_per_batch, 1)
        check_choice("precision", self.precision, PRECISIONS)


def check_sources(sources: Mapping[str, str], benchmarks: tuple[str, ...]) -> None:
    """Check that every source belongs to a benchmark that is used, and is a name."""
    for name, source in sources.items():
        check_choice("benchmark_sources", name, benchmarks)
        if not isinstance(source, str) or not source:
            raise ValueError(f"benchmark_sources: expected a public name or a folder for {name}; got {source!r}")


@dataclass(frozen=True)
class EvaluateConfig:
    """Which benchmarks are evaluated.

    Args:
        benchmarks: keys of `benchmarks.BENCHMARKS`.
        engine: how; ``n_items`` counts prompts per (benchmark, subset).
        sources: benchmark -> public name or folder; one that is absent is loaded by its public name, HH-RLHF from the
            source of the training pairs.
        max_length: tokens per sequence; 0 is that of training.
        n_template_check: prompts per (benchmark, subset) that are scored a second time, in the published template.
        items_of: benchmark -> prompts per subset, where it differs from ``engine.n_items``.
    """

    benchmarks: tuple[str, ...] = ("hh-rlhf",)
    engine: EngineConfig = EngineConfig()
    sources: Mapping[str, str] = field(default_factory=dict)
    max_length: int = 0
    n_template_check: int = 0
    items_of: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range("max_length", self.max_length, 0)
        check_range("n_template_check", self.n_template_check, 0)
        check_sources(self.sources, self.benchmarks)
        for name, n_items in self.items_of.items():
            check_choice("benchmark_items", name, self.benchmarks)
            check_range(f"benchmark_items: {name}", n_items, 0)


@dataclass(frozen=True)
class IdentifyConfig:
    """Which neuron statistics are taken on the reward model's own training pairs, and which views of them.

    Args:
        score_kinds: of `SCORE_KINDS`, at the true neuron.
        scopes: of `SCOPES`: tokens that count.
        n_view_items: pairs for each further view (gate, heads, both texts, base model); 0 takes as many as ``engine``.
        engine: how.
        generic_text: "pydoc" or the path of a text file, see `generic_text.load_passages`.
        n_generic: its passages for the views on generic text; 0 takes no such views.
    """

    score_kinds: tuple[str, ...] = SCORE_KINDS
    scopes: tuple[str, ...] = SCOPES
    n_view_items: int = 0
    engine: EngineConfig = EngineConfig()
    generic_text: str = "pydoc"
    n_generic: int = 0

    def __post_init__(self) -> None:
        check_choices("score_kinds", self.score_kinds, SCORE_KINDS)
        check_choices("scopes", self.scopes, SCOPES)
        check_range("n_view_items", self.n_view_items, 0)
        check_range("n_generic", self.n_generic, 0)
        if not isinstance(self.generic_text, str) or not self.generic_text:
            raise ValueError(f"generic_text: expected 'pydoc' or the path of a text file; got {self.generic_text!r}")


@dataclass(frozen=True)
class AblateConfig:
    """Which neuron sets are removed, and on which items the effect is measured.

    Args:
        score_kinds: each gives one targeted set per fraction, in the block "scored".
        scope: token scope of the scores.
        fraction: share of all neurons at which the shared and only sets and the further kinds are compared.
        fractions: shares of the curves, in (0, 1]; 1 removes every neuron, which has no control.
        ablation_kinds: of `ABLATION_KINDS`; the first is used everywhere, the others for ``main_kind`` at ``fraction``.
        main_kind: score kind of the shared and only sets.
        n_draws: random sets per targeted set and kind of control.
        benchmarks: keys of `benchmarks.BENCHMARKS`.
        engine: how; ``n_items`` counts prompts per (benchmark, subset).
        sources: benchmark -> public name or folder, as in `EvaluateConfig`.
        max_length: tokens per sequence; 0 is that of training.
        blocks: of `BLOCKS`; "mixed" adds something for the arms of `MIXED_ARMS` alone.
        families: of `FAMILIES`, in the block "mixed".
        controls: of `CONTROLS`: random sets with the target's count in every layer, or in every bin of every layer.
        n_activity_bins: bins of equal count per layer, by the mean absolute activation of the reward model itself on
            its own training text.
        scales: what the activations of every targeted set and its random sets are multiplied by; 0 removes them. Sets
            that are scaled by anything else use the kind "zero", which alone scales the activation itself.
    """

    score_kinds: tuple[str, ...] = ("signed_mean", "rms_change")
    scope: str = "all"
    fraction: float = 0.1
    fractions: tuple[float, ...] = (0.1,)
    ablation_kinds: tuple[str, ...] = ("zero",)
    main_kind: str = "rms_change"
    n_draws: int = 8
    benchmarks: tuple[str, ...] = ("hh-rlhf",)
    engine: EngineConfig = EngineConfig()
    sources: Mapping[str, str] = field(default_factory=dict)
    max_length: int = 0
    blocks: tuple[str, ...] = BLOCKS
    families: tuple[str, ...] = FAMILIES[:2]
    controls: tuple[str, ...] = CONTROLS[:1]
    n_activity_bins: int = 20
    scales: tuple[float, ...] = (REMOVAL,)

    def __post_init__(self) -> None:
        check_range("max_length", self.max_length, 0)
        check_choices("blocks", self.blocks, BLOCKS)
        check_choices("families", self.families, FAMILIES)
        check_choices("controls", self.controls, CONTROLS)
        check_range("n_activity_bins", self.n_activity_bins, 1)
        check_values("scales", self.scales, REMOVAL, MOST_SCALE)
        if 1 in self.scales:
            raise ValueError(f"scales: expected no 1, which changes nothing; got {list(self.scales)!r}")
        check_choices("score_kinds", self.score_kinds, SCORE_KINDS)
        check_choice("scope", self.scope, SCOPES)
        check_choices("ablation_kinds", self.ablation_kinds, ABLATION_KINDS)
        check_choice("main_kind", self.main_kind, SCORE_KINDS)
        check_range("n_draws", self.n_draws, 1)
        check_sources(self.sources, self.benchmarks)
        check_values("fractions", self.fractions, 1e-9, 1)
        check_range("fraction", self.fraction, 1e-9, 1)


SINGLE_PAIR = "single-pair"  # folder of what belongs to both single-objective reward models of a seed


@dataclass(frozen=True)
class Run:
    """The unit of work: one reward model, named by base model, objective and seed, and the folder it fills.

    Args:
        root: the profile's folder, ``runs/<profile>``.
        base_model: public name or folder of the base model, or ``"toy"``.
    """

    root: Path
    base_model: str
    objective: str
    seed: int

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, ARMS)
        check_range("seed", self.seed, 0)
        if not isinstance(self.seed, int):
            raise ValueError(f"seed: expected a whole number; got {self.seed!r}")
        if not isinstance(self.base_model, str) or not self.base_model_name:
            raise ValueError(f"base_model: expected a public name, a folder or 'toy'; got {self.base_model!r}")
        object.__setattr__(self, "root", Path(self.root))

    @property
    def base_model_name(self) -> str:
        """Short name of the base model: the last part of its name or path, in lower case."""
        return self.base_model.rstrip("/").split("/")[-1].lower()

    @property
    def folder(self) -> Path:
        """Where this reward model's artifacts lie."""
        return self.root / self.base_model_name / self.objective / f"seed{self.seed}"

    @property
    def label(self) -> dict[str, str | int]:
        """Columns that name this run in a table."""
        return {"base_model": self.base_model_name, "objective": self.objective, "seed": self.seed}


@dataclass(frozen=True)
class SinglePair:
    """The helpful and the harmless reward model of one base model and seed, and the folder of what belongs to both.

    Args:
        root: the profile's folder, ``runs/<profile>``.
        base_model: public name or folder of the base model, or ``"toy"``.
    """

    root: Path
    base_model: str
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.helpful.root)  # a run checks all three values

    @property
    def helpful(self) -> Run:
        """The helpful reward model."""
        return self.run_of(SINGLE_OBJECTIVES[0])

    @property
    def harmless(self) -> Run:
        """The harmless reward model."""
        return self.run_of(SINGLE_OBJECTIVES[1])

    def run_of(self, objective: str) -> Run:
        """Return the run of any of `config.ARMS` with this base model and seed."""
        return Run(self.root, self.base_model, objective, self.seed)

    @property
    def folder(self) -> Path:
        """Where the pair's artifacts lie."""
        return self.root / self.helpful.base_model_name / SINGLE_PAIR / f"seed{self.seed}"

    @property
    def label(self) -> dict[str, str | int]:
        """Columns that name this pair in a table."""
        return {"base_model": self.helpful.base_model_name, "seed": self.seed}


def list_runs(root: Path, base_models: list[str], objectives: list[str], seeds: list[int]) -> list[Run]:
    """Return every combination as a `Run`, base models first.

    Raises:
        ValueError: if a list is empty, repeats a value, or names an unknown objective.
    """
    check_choices("objectives", objectives, ARMS)
    for name, values in (("base_models", base_models), ("seeds", seeds)):
        if not values or len(set(values)) != len(values):
            raise ValueError(f"{name}: expected at least one value and none twice; got {values!r}")
    runs = [Run(root, model, objective, seed) for model in base_models for objective in objectives for seed in seeds]
    if len({run.folder for run in runs}) != len(runs):
        raise ValueError(f"base_models: two of {base_models!r} have the same short name; rename one folder")
    return runs


def list_pairs(runs: list[Run]) -> list[SinglePair]:
    """Return the pairs of single-objective reward models that runs belong to, each once, in the runs' order."""
    return list(dict.fromkeys(SinglePair(run.root, run.base_model, run.seed) for run in runs))


def named_runs(values: dict) -> list[Run]:
    """Return the runs that the values of a profile name: profile, base_models, objectives, seeds; others are ignored.

    Raises:
        ValueError: if one of them is missing or `list_runs` refuses them.
    """
    names = ("profile", "base_models", "objectives", "seeds")
    if not isinstance(values, dict) or not set(names) <= set(values):
        raise ValueError(f"--parameters: expected an object with {', '.join(names)}; got {values!r}")
    profile, *lists = (values[name] for name in names)
    return list_runs(Path("runs") / profile, *lists)
