"""Choices of a run, checked when they are made; the arms; a run, which is one reward model, and its folder."""

import dataclasses
import difflib
import functools
import hashlib
import inspect
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import field
from itertools import combinations
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, dataclass_transform, get_args, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, Strict, ValidationError, WrapValidator
from pydantic.dataclasses import dataclass as validated_dataclass


def nearest(name: object, names: Collection[str]) -> str:
    """Return ``; did you mean 'x'?`` for a name that is close to one of ``names``, else nothing.

    >>> nearest("objectivs", ("objectives", "seeds"))
    "; did you mean 'objectives'?"
    """
    close = difflib.get_close_matches(str(name), [str(other) for other in names], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_choice(name: str, value: str, choices: Collection[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        ValueError: names the parameter, what came and every valid choice.

    >>> check_choice("objective", "helpful", ("helpful", "harmless"))
    'helpful'
    """
    if value not in list(choices):  # a list asks no value for its hash
        known = ", ".join(map(str, choices))
        near = nearest(value, choices) if isinstance(value, str) else ""
        raise ValueError(f"{name}: expected one of {known}; got {value!r}{near}")
    return value


def has_twins(values: Collection[Any]) -> bool:
    """Say whether a value comes twice; also of values without a hash, such as lists."""
    return any(a == b for a, b in combinations(values, 2))


def check_choices(name: str, values: Collection[str], choices: Collection[str]) -> None:
    """Check a non-empty collection without repeats, each a valid choice.

    Raises:
        ValueError: names the parameter and what is wrong with it.
    """
    if isinstance(values, str):
        raise ValueError(f"{name}: expected a list; got {values!r}")
    if not values or has_twins(values):
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


EXPECTED = {  # pydantic's name of a fault -> what was expected; others are told in pydantic's words
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "dataclass_type": "a mapping",
    "greater_than_equal": "at least {ge:.10g}",
    "less_than_equal": "at most {le:.10g}",
    "finite_number": "a finite number",
    "missing": "a value",
    "invalid_key": "a text as the name",
    "too_short": "at least {min_length}",
}


UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # pydantic's names of the fault of a name that is unknown


def faults_of(error: ValidationError, kind: type) -> Iterator[str]:
    """Yield one line per fault that pydantic found: where, what was expected, what came and the nearest valid name.

    Unknown names come first: a misspelt one is the reason why another is missing.

    Args:
        error: of a value that was to become a ``kind``.
        kind: a dataclass or a typed dictionary.
    """
    for fault in sorted(error.errors(), key=lambda fault: fault["type"] not in UNKNOWN):
        path, came = list(fault["loc"]), fault["input"]
        if path and isinstance(path[0], int) and dataclasses.is_dataclass(kind):  # the place of an argument
            path[0] = dict(enumerate(get_type_hints(kind))).get(path[0], path[0])
        places = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
        where = "".join(places).lstrip(".").encode("unicode_escape").decode()  # a fault is one line, whatever its key
        if fault["type"] in UNKNOWN:
            known = fields_at(kind, path[:-1])
            yield f"{where}: unknown name{nearest(path[-1], known) or '.'} Known: {', '.join(known)}"
            continue
        if fault["type"] == "literal_error":
            known = re.findall(r"'([^']*)'", fault["ctx"]["expected"])
            text = f"expected one of {', '.join(known)}; got {came!r}{nearest(came, known)}"
        elif fault["type"] == "value_error":
            text = str(fault["ctx"]["error"])
        else:
            wanted = EXPECTED.get(fault["type"], "").format(**fault.get("ctx", {}))
            text = f"expected {wanted}" if wanted else fault["msg"].replace("Input should be", "expected")
        came = "" if "; got " in text else "; got nothing" if fault["type"] == "missing" else f"; got {came!r}"
        yield f"{where}: {text}{came}{exponent_hint(fault['input'])}".removeprefix(": ")


def exponent_hint(value: object) -> str:
    """Explain the one trap of YAML 1.1 that people meet: 1e-4 is text there."""
    is_exponent = isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, flags=re.IGNORECASE)
    return "; in YAML write 1.0e-4, not 1e-4" if is_exponent else ""


def fields_at(kind: type, path: list[str | int]) -> list[str]:
    """Return the names that a dataclass or typed dictionary has at a place inside it."""
    for part in path:
        kind = get_args(kind)[0] if isinstance(part, int) else get_type_hints(kind)[part]
    return list(get_type_hints(kind))


@dataclass_transform(frozen_default=True)
def checked(cls: type) -> type:
    """Make a frozen dataclass whose values are checked when it is made: faults are a ValueError of one line each."""
    cls = validated_dataclass(frozen=True, config=ConfigDict(extra="forbid"))(cls)
    make = cls.__init__

    @functools.wraps(make)
    def __init__(self: object, *values: object, **named: object) -> None:
        try:
            make(self, *values, **named)
        except ValidationError as error:
            raise ValueError("\n".join(faults_of(error, cls))) from None

    cls.__init__ = __init__
    signature, hints = inspect.signature(cls), get_type_hints(cls)  # without the marks of pydantic, for readers
    parameters = [part.replace(annotation=hints[name]) for name, part in signature.parameters.items()]
    cls.__signature__ = signature.replace(parameters=parameters)
    return cls


LARGEST = 2**31 - 1  # of counts without another limit


def whole(low: int, high: int = LARGEST) -> Any:
    """Return the type of whole numbers from ``low`` to ``high``; neither true nor 1.0 nor "1" is one."""
    return Annotated[int, Strict(), Field(ge=low, le=high)]


def number(low: float, high: float | None = None) -> Any:
    """Return the type of numbers from ``low`` to ``high``, kept as given: 1 and 1.0 have different hashes."""
    return Annotated[
        float,
        Strict(),
        Field(ge=low, le=high, allow_inf_nan=False),
        WrapValidator(lambda value, check: (check(value), value)[1]),
    ]


def _some(values: tuple) -> tuple:
    if not values or len(set(values)) != len(values):
        raise ValueError("expected at least one value and none twice")
    return values


def some(kind: Any) -> Any:
    """Return the type of lists that hold at least one of a kind, and none twice."""
    return Annotated[tuple[kind, ...], AfterValidator(_some)]


Text = Annotated[str, Strict(), Field(min_length=1)]
Flag = Annotated[bool, Strict()]

Share = number(1e-9, 1)  # of all neurons; no share is no set

OBJECTIVES = ("helpful", "harmless", "helpful-harmless")

SINGLE_OBJECTIVES = OBJECTIVES[:2]

MIXED, MATCHED_ARM = OBJECTIVES[2], "helpful-harmless-matched"

SHARED_MASK_ARM = "matched-without-shared"  # trained with the neurons masked that the single-objective models share

RANDOM_MASK_ARMS = tuple("matched-without-random" + number for number in ("", "-2", "-3", "-4"))  # one draw each

MIXED_ARMS = (MIXED, MATCHED_ARM)

MASKED_ARMS = (SHARED_MASK_ARM, *RANDOM_MASK_ARMS)

LABELS = ("given", "coin", "longer")


@checked
class Arm:
    """What a reward model is trained on.

    Args:
        helpful: share of the helpful pairs, the first ones in the seed's order, in [0, 1].
        harmless: share of the harmless pairs.
        labels: of `LABELS`: ``"given"``, those of the data; ``"coin"``, a fair coin says which response is chosen;
            ``"longer"``, the response with more characters is chosen (as given where both have as many).
    """

    helpful: number(0, 1) = 0.0
    harmless: number(0, 1) = 0.0
    labels: Literal[LABELS] = LABELS[0]


def sham_arm(objective: str, labels: str) -> str:
    """Return the name of the arm that learns labels of its own, of `LABELS`, on the pairs of an objective."""
    return f"{objective}-{labels}"


# Sham arms learn labels that carry no objective: what they share with a reward model needs none.
SHAM_ARMS = {
    sham_arm(objective, labels): Arm(**{objective: 1.0, "labels": labels})
    for labels in LABELS[1:]
    for objective in SINGLE_OBJECTIVES
}

RATIO_ARMS = {"helpful-harmless-3-to-1": Arm(0.75, 0.25), "helpful-harmless-1-to-3": Arm(0.25, 0.75)}

CURVE_ARMS = (*SINGLE_OBJECTIVES, MATCHED_ARM)  # trained on fewer pairs, too; all on as many

MIXTURES = (*CURVE_ARMS, *RATIO_ARMS)  # arms on as many pairs, with another share of helpful ones

CURVE = "curve"  # folder below a profile's of the runs on fewer pairs

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

TEMPLATE_NAMES = ("hh", "chat", "published")  # how turns become text, see `data.tokenize_item`

SCOPES = ("all", "response", "last")

ABLATION_KINDS = ("zero", "mean", "resample")

BLOCKS = ("scored", "mixed")  # of conditions: top sets by score; shared and only sets of the single-objective models

FAMILIES = ("natural", "equal-size", "equal-activity", "without-keystone")  # how shared and only sets are drawn down

CONTROLS = ("layer", "activity")  # what a random set has in common with its target, besides its size

REMOVAL = 0.0  # the scale of a removed set

MOST_SCALE = 10.0

TOY = "toy"

BENCHMARKS = ("hh-rlhf", "reward-bench", "reward-bench-2", "rm-bench", "rmb", TOY)  # see `benchmarks.load`

MAX_SEED = 2**32 - 1  # the largest that NumPy's global generator takes


def config_hash(config: object, **upstream: str) -> str:
    """Return 16 hex digits that change with any field of ``config`` or any upstream hash.

    Args:
        config: a dataclass or a JSON-like value.
        upstream: hashes of what this stage reads, by name.
    """
    value = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config
    text = json.dumps({"config": value, "upstream": upstream}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _for_both(subsets: Mapping) -> dict:
    if set(subsets) != set(SINGLE_OBJECTIVES) or not all(subsets.values()):
        raise ValueError("expected a list of folders for each of helpful, harmless")
    return dict(sorted(subsets.items()))


Subsets = Annotated[Mapping[str, tuple[Text, ...]], AfterValidator(_for_both)]


@checked
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

    source: Text = TOY
    subsets: Subsets = field(default_factory=lambda: {"helpful": ("helpful-base",), "harmless": ("harmless-base",)})
    n_train_pairs: whole(0) = 0
    n_validation_pairs: whole(1) = 50
    max_length: whole(8) = 1024
    long_pairs: Literal[LONG_PAIRS] = "error"
    bad_pairs: Literal[BAD_PAIRS] = "error"


@checked
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

    n_epochs: number(1e-6) = 1.0
    batch_size: whole(1) = 16
    tokens_per_batch: whole(1) = 2048
    learning_rate: number(0, 1) = 1e-4
    warmup_share: number(0, 1) = 0.1
    n_evaluations: whole(1) = 4
    precision: Literal[PRECISIONS] = "auto"
    pad_with_eos: Flag = False


@checked
class EngineConfig:
    """How items go through a model without training it.

    Args:
        n_items: items per (benchmark, subset) or training pairs per reward model; 0 takes all.
        tokens_per_batch: budget of one forward pass; more is faster until memory ends.
        precision: of the backbone; ``"auto"`` is bf16 where the hardware multiplies bf16 matrices. Rewards are float32.
    """

    n_items: whole(0) = 0
    tokens_per_batch: whole(1) = 4096
    precision: Literal[PRECISIONS] = "auto"


@checked
class EvaluateConfig:
    """Which benchmarks are evaluated.

    Args:
        benchmarks: of `BENCHMARKS`.
        engine: how; ``n_items`` counts prompts per (benchmark, subset).
        sources: benchmark -> public name or folder; one that is absent is loaded by its public name, HH-RLHF from the
            source of the training pairs.
        max_length: tokens per sequence; 0 is that of training.
        n_template_check: prompts per (benchmark, subset) that are scored a second time, in the published template.
        items_of: benchmark -> prompts per subset, where it differs from ``engine.n_items``.
        unusable_items: what to do with a test item that has an empty response or one that is both chosen and rejected.
    """

    benchmarks: some(Literal[BENCHMARKS]) = ("hh-rlhf",)
    engine: EngineConfig = EngineConfig()
    sources: Mapping[str, Text] = field(default_factory=dict)
    max_length: whole(0) = 0
    n_template_check: whole(0) = 0
    items_of: Mapping[str, whole(0)] = field(default_factory=dict)
    unusable_items: Literal[BAD_PAIRS] = "drop"

    def __post_init__(self) -> None:
        for name, values in (("benchmark_sources", self.sources), ("benchmark_items", self.items_of)):
            for benchmark in values:
                check_choice(name, benchmark, self.benchmarks)


@checked
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

    score_kinds: some(Literal[SCORE_KINDS]) = SCORE_KINDS
    scopes: some(Literal[SCOPES]) = SCOPES
    n_view_items: whole(0) = 0
    engine: EngineConfig = EngineConfig()
    generic_text: Text = "pydoc"
    n_generic: whole(0) = 0


@checked
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
        benchmarks: of `BENCHMARKS`.
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
        own_test: remove the set that only one objective has, and its random sets, on that objective's items alone. It
            is all that claim C5 reads of them, in two thirds of the time.
    """

    score_kinds: some(Literal[SCORE_KINDS]) = ("signed_mean", "rms_change")
    scope: Literal[SCOPES] = "all"
    fraction: Share = 0.1
    fractions: some(Share) = (0.1,)
    ablation_kinds: some(Literal[ABLATION_KINDS]) = ("zero",)
    main_kind: Literal[SCORE_KINDS] = "rms_change"
    n_draws: whole(1) = 8
    benchmarks: some(Literal[BENCHMARKS]) = ("hh-rlhf",)
    engine: EngineConfig = EngineConfig()
    sources: Mapping[str, Text] = field(default_factory=dict)
    max_length: whole(0) = 0
    blocks: some(Literal[BLOCKS]) = BLOCKS
    families: some(Literal[FAMILIES]) = FAMILIES[:2]
    controls: some(Literal[CONTROLS]) = CONTROLS[:1]
    n_activity_bins: whole(1) = 20
    scales: some(number(REMOVAL, MOST_SCALE)) = (REMOVAL,)
    own_test: bool = False

    def __post_init__(self) -> None:
        for benchmark in self.sources:
            check_choice("benchmark_sources", benchmark, self.benchmarks)
        if 1 in self.scales:
            raise ValueError(f"scales: expected no 1, which changes nothing; got {list(self.scales)!r}")


SINGLE_PAIR = "single-pair"  # folder of what belongs to both single-objective reward models of a seed


def check_name(name: str) -> str:
    """Return a name that becomes a folder and part of a command: of a profile, or a base model's short name.

    Raises:
        ValueError: for anything but letters, digits, ``.``, ``_`` and ``-``, the first a letter or digit.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"expected letters, digits, '.', '_' or '-', the first a letter or digit; got {name!r}")
    return name


def short_name(base_model: str) -> str:
    """Return the last part of a base model's name or path, in lower case.

    >>> short_name("HuggingFaceTB/SmolLM2-135M")
    'smollm2-135m'
    """
    return base_model.rstrip("/").split("/")[-1].lower()


def _with_short_name(base_model: str) -> str:
    if not short_name(base_model):
        raise ValueError("expected a public name, a folder or 'toy'")
    check_name(short_name(base_model))
    return base_model


BaseModelName = Annotated[Text, AfterValidator(_with_short_name)]


@checked
class Run:
    """The unit of work: one reward model, named by base model, objective and seed, and the folder it fills.

    Args:
        root: the profile's folder, ``runs/<profile>``.
        base_model: public name or folder of the base model, or ``"toy"``.
    """

    root: Path
    base_model: BaseModelName
    objective: Literal[tuple(ARMS)]
    seed: whole(0, MAX_SEED)

    @property
    def base_model_name(self) -> str:
        """Short name of the base model."""
        return short_name(self.base_model)

    @property
    def folder(self) -> Path:
        """Where this reward model's artifacts lie."""
        return self.root / self.base_model_name / self.objective / f"seed{self.seed}"

    @property
    def label(self) -> dict[str, str | int]:
        """Columns that name this run in a table."""
        return {"base_model": self.base_model_name, "objective": self.objective, "seed": self.seed}


def on_fewer(run: Run, n_pairs: int) -> Run:
    """Return the run of the same arm and seed on another number of training pairs; 0 is the run itself."""
    return dataclasses.replace(run, root=run.root / CURVE / f"{n_pairs}-pairs") if n_pairs else run


@checked
class SinglePair:
    """The helpful and the harmless reward model of one base model and seed, and the folder of what belongs to both.

    Args:
        root: the profile's folder, ``runs/<profile>``.
        base_model: public name or folder of the base model, or ``"toy"``.
    """

    root: Path
    base_model: BaseModelName
    seed: whole(0, MAX_SEED)

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
    for name, values in (("base_models", base_models), ("objectives", objectives), ("seeds", seeds)):
        if not isinstance(values, list | tuple) or not values or has_twins(values):
            raise ValueError(f"{name}: expected a list of at least one value and none twice; got {values!r}")
    check_choices("objectives", objectives, ARMS)
    runs = [Run(root, model, objective, seed) for model in base_models for objective in objectives for seed in seeds]
    if len({run.folder for run in runs}) != len(runs):
        raise ValueError(
            f"base_models: expected different short names; two of {base_models!r} are alike; rename one folder"
        )
    return runs


def list_pairs(runs: list[Run]) -> list[SinglePair]:
    """Return the pairs of single-objective reward models that runs belong to, each once, in the runs' order."""
    return list(dict.fromkeys(SinglePair(run.root, run.base_model, run.seed) for run in runs))
