"""What a profile, a file in ``config/``, may say; it is checked whole before any job starts.

    python workflow/schema.py > config/README.md

The profile's name is its file's name: results go to ``runs/<name>/``.
"""

import inspect
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NotRequired, get_type_hints

import yaml
from pydantic import Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic reads that of typing from Python 3.12

from tension_utils.config import (
    ABLATION_KINDS,
    ARMS,
    BAD_PAIRS,
    BENCHMARKS,
    LARGEST,
    MASK_MODES,
    MASKED_ARMS,
    MATCHED_ARM,
    MAX_SEED,
    OBJECTIVES,
    PRECISIONS,
    SCOPES,
    SCORE_KINDS,
    SINGLE_OBJECTIVES,
    TOY,
    AblateConfig,
    BaseModelName,
    IdentifyConfig,
    Share,
    Subsets,
    Text,
    TrainConfig,
    check_choice,
    check_name,
    checked,
    faults_of,
    number,
    short_name,
    some,
    whole,
)
from tension_utils.toy.world import ToyConfig

# What the notebooks take where a profile says nothing, as far as others depend on it: which scores later chapters read.
KINDS_READ = {
    ("ablate", "score_kinds"): ("signed_mean", "rms_change"),
    ("ablate", "main_kind"): "rms_change",
    ("masked_training", "score_kind"): "rms_change",
    ("overlap", "score_kinds"): ("signed_mean", "mean_abs", "frequency", "rms_change"),
    ("overlap", "main_kind"): "rms_change",
    ("part", "score_kind"): "rms_change",
}
SCOPES_READ = {("masked_training", "scope"): "all", ("overlap", "scope"): "all"}
KINDS_TAKEN = ("signed_mean", "mean_abs", "rms", "frequency", "rms_change", "contrast", "attribution")
KINDS_NEEDED = ("signed_mean", "mean_abs", "attribution")  # what replaces activations, random sets, chapter 5b
HH = BENCHMARKS[0]
EVALUATED = (HH, TOY)
N_ABLATED = 100
OWN_PAIR = ("prompts", "responses_a", "responses_b")
N_OWN_PAIRS = 2
FURTHER_ARMS = tuple(arm for arm in ARMS if arm not in (*OBJECTIVES, *MASKED_ARMS))
UNSET = "CHANGE_ME"  # stands in the cluster's profile where only its user knows the value


class Train(TypedDict):
    """Chapter 1: how reward models are trained.

    Args:
        data_source: public name, a folder of preference pairs in a known layout, or `toy`.
        subsets: folders of the source per objective.
        n_train_pairs: pairs per single objective; 0 takes all that validation leaves.
        n_validation_pairs: pairs per single objective, carved from the train split.
        max_length: tokens per sequence.
        unusable_pairs: what to do with an empty, identical, malformed or too long pair.
        n_epochs: passes over the pairs.
        batch_size: pairs per optimizer step.
        learning_rate: peak of a linear schedule.
        train_options: further fields of `TrainConfig`.
    """

    data_source: Text
    subsets: NotRequired[Subsets]
    n_train_pairs: whole(0)
    n_validation_pairs: whole(1)
    max_length: whole(8)
    unusable_pairs: NotRequired[Literal[BAD_PAIRS]]
    n_epochs: NotRequired[number(1e-6)]
    batch_size: NotRequired[whole(1)]
    learning_rate: NotRequired[number(0, 1)]
    train_options: NotRequired[TrainConfig]


class Evaluate(TypedDict, total=False):
    """Chapter 2: which benchmarks are scored, and how.

    Args:
        benchmarks: by name.
        benchmark_sources: benchmark: folder or public name; without one its public name.
        n_items: prompts per subset; 0 takes all.
        benchmark_items: benchmark: prompts per subset, where it differs.
        n_template_check: prompts per subset that are scored in the published template, too.
        max_length: tokens per sequence; 0 is that of training.
        unusable_items: what to do with a test item that has an empty response or the same one on both sides.
        tokens_per_batch: tokens in one forward pass.
        precision: of the backbone.
    """

    benchmarks: some(Literal[BENCHMARKS])
    benchmark_sources: dict[str, Text]
    n_items: whole(0)
    benchmark_items: dict[str, whole(0)]
    n_template_check: whole(0)
    max_length: whole(0)
    unusable_items: Literal[BAD_PAIRS]
    tokens_per_batch: whole(1)
    precision: Literal[PRECISIONS]


class Tension(TypedDict, total=False):
    """Chapter 2b: how the tension is shown.

    Args:
        reference: benchmark whose margins set each model's unit.
    """

    reference: Literal[BENCHMARKS]


class Identify(TypedDict, total=False):
    """Chapter 3: which neuron scores are taken.

    Args:
        score_kinds: at the true neuron.
        scopes: tokens that count.
        fraction: share of all neurons in a set that the chapter shows.
        n_items: training pairs per model; 0 takes all.
        n_view_items: pairs for each further view; 0 takes as many.
        generic_text: plain prose: `pydoc`, Python's language reference, or the path of a text file.
        n_generic: its passages for the views without labels; 0 takes none.
        tokens_per_batch: tokens in one forward pass.
        precision: of the backbone.
    """

    score_kinds: some(Literal[SCORE_KINDS])
    scopes: some(Literal[SCOPES])
    fraction: Share
    n_items: whole(0)
    n_view_items: whole(0)
    generic_text: Text
    n_generic: whole(0)
    tokens_per_batch: whole(1)
    precision: Literal[PRECISIONS]


class Ablate(TypedDict, total=False):
    """Chapter 4: which neuron sets are removed.

    Args:
        score_kinds: each gives one set per fraction.
        fraction: share of all neurons at which sets and kinds are compared.
        fractions: shares of the curves; 1.0 removes every neuron.
        ablation_kinds: the first everywhere, the others at `fraction`.
        main_kind: score kind of the shared and only sets.
        n_draws: random sets per targeted set.
        benchmarks: where the effect is measured; among those that are evaluated.
        benchmark_sources: as in `evaluate`.
        max_length: tokens per sequence; 0 is that of training.
        n_items: prompts per test subset; 0 takes all.
        precision: of the backbone.
    """

    score_kinds: some(Literal[SCORE_KINDS])
    fraction: Share
    fractions: some(Share)
    ablation_kinds: some(Literal[ABLATION_KINDS])
    main_kind: Literal[SCORE_KINDS]
    n_draws: whole(1)
    benchmarks: some(Literal[BENCHMARKS])
    benchmark_sources: dict[str, Text]
    max_length: whole(0)
    n_items: whole(0)
    precision: Literal[PRECISIONS]


class MaskedTraining(TypedDict, total=False):
    """Chapter 4b: mixed models that are trained without some neurons.

    Args:
        objectives: which arms; without this the shared neurons and one random draw.
        seeds: of the profile's; one pair of trainings each.
        score_kind: ranks the neurons of the single-objective models.
        fraction: share of all neurons in the top of each.
        scope: tokens that the scores count.
        mode: activation held at 0, or weights at 0.
    """

    objectives: some(Literal[MASKED_ARMS])
    seeds: some(whole(0, MAX_SEED))
    score_kind: Literal[SCORE_KINDS]
    fraction: Share
    scope: Literal[SCOPES]
    mode: Literal[MASK_MODES]


class Dial(TypedDict, total=False):
    """Chapter 5c: the frontiers between the single-objective models.

    Args:
        weights: of the harmless model, where the weights of both are interpolated.
        precision: of the backbone.
    """

    weights: some(number(0, 1))
    precision: Literal[PRECISIONS]


class Overlap(TypedDict, total=False):
    """Chapter 5: which sets are compared.

    Args:
        score_kinds: of those that `identify` takes.
        main_kind: one of them, where one table must do.
        scope: tokens that the scores count.
        fraction: share of all neurons in a set.
    """

    score_kinds: some(Literal[SCORE_KINDS])
    main_kind: Literal[SCORE_KINDS]
    scope: Literal[SCOPES]
    fraction: Share


class Part(TypedDict, total=False):
    """Chapter 5b: where the objectives part.

    Args:
        n_items: prompts per test subset whose reward is read at every depth; 0 takes all.
        n_pairs: training pairs per objective whose gradients are taken, an even number; 0 takes all.
        score_kind: ranks the neurons of the single-objective models.
        fraction: share of all neurons in the top of each.
        n_draws: random sets beside each set.
        max_length: tokens per sequence of a test; 0 is that of training.
        tokens_per_batch: tokens in one pass.
        precision: of the backbone.
    """

    n_items: whole(0)
    n_pairs: Annotated[whole(0), Field(multiple_of=2)]
    score_kind: Literal[SCORE_KINDS]
    fraction: Share
    n_draws: whole(2)
    max_length: whole(0)
    tokens_per_batch: whole(1)
    precision: Literal[PRECISIONS]


class Curve(TypedDict):
    """Appendix D1: reward models on fewer pairs, and on other mixtures; without this section there are none.

    Args:
        n_pairs: training pairs per objective, fewer than those of the run; half of each needs an even number.
        seeds: of the profile's.
        mixture_pairs: training pairs of the other mixtures, one of `n_pairs`; 0 takes as many as the run.
    """

    n_pairs: some(Annotated[whole(2), Field(multiple_of=2)])
    seeds: some(whole(0, MAX_SEED))
    mixture_pairs: whole(0)


class Explorer(TypedDict, total=False):
    """The explorer: what it shows first.

    Args:
        score_kind: of the set that is shown first.
        fraction: share of all neurons in that set.
    """

    score_kind: Literal[SCORE_KINDS]
    fraction: Share


class OwnPair(TypedDict, total=False):
    """The appendix on single pairs.

    Args:
        prompts: of the pairs on the page.
        responses_a: to each prompt.
        responses_b: to each prompt.
    """

    prompts: list[Text]
    responses_a: list[Text]
    responses_b: list[Text]


@checked
class StudyAblation(AblateConfig):
    """The fields of `AblateConfig`, and ``n_items``: prompts per test subset."""

    n_items: whole(0) = 0


StudyAblations = Annotated[list[StudyAblation], Field(min_length=1)]


class Study(TypedDict):
    """What `workflow/study.py` does beyond the chapters.

    Args:
        coin_seeds: seeds of the sham arms whose labels are a fair coin.
        longer_seeds: seeds of the sham arms whose label is the longer response.
        identify: fields of `IdentifyConfig` that differ from the section `identify`.
        identify_later: those that differ once more for all seeds but the first.
        identify_sham: those that differ once more for sham models.
        candidates: fields of `TrainConfig` that differ; their validation losses are compared.
        ablate_single: of a single-objective model, entry by entry: fields of `AblateConfig` and `n_items`.
        ablate_matched: the same for the mixed model on as many pairs.
        ablate_union: the same for the mixed model on all pairs.
        tokens_per_pair: stream tokens of a pair, for the estimate of the time left.
        test_pairs: pairs of the HH-RLHF tests, likewise.
        benchmark_tokens: tokens of all benchmarks, likewise.
    """

    coin_seeds: list[whole(0, MAX_SEED)]
    longer_seeds: list[whole(0, MAX_SEED)]
    identify: NotRequired[IdentifyConfig]
    identify_later: NotRequired[IdentifyConfig]
    identify_sham: NotRequired[IdentifyConfig]
    candidates: list[TrainConfig]
    ablate_single: StudyAblations
    ablate_matched: StudyAblations
    ablate_union: StudyAblations
    tokens_per_pair: number(1)
    test_pairs: whole(1)
    benchmark_tokens: number(1)


@with_config(extra="forbid")
class Profile(TypedDict):
    """A run: what every chapter shares, and one section per chapter.

    Args:
        base_models: public names, folders, or `toy`; the last part of each names its folder below `runs/<profile>/`.
        objectives: whose reward models go through every stage, both single ones among them.
        arms: further arms that are trained and evaluated beside them, helpful-harmless-matched among them.
        seeds: one reward model per base model, arm and seed.
        job: what one job computes: all objectives of one `seed`, or a single `reward_model`.
        threads: cores of one job.
        gpus: that one job needs to itself.
        toy: the embedded world, where `toy` is the base model or the data.
    """

    base_models: some(BaseModelName)
    objectives: some(Literal[OBJECTIVES])
    arms: NotRequired[some(Literal[FURTHER_ARMS])]
    seeds: some(whole(0, MAX_SEED))
    job: Literal["seed", "reward_model"]
    threads: whole(1)
    gpus: NotRequired[whole(0)]
    toy: NotRequired[ToyConfig]
    train: Train
    evaluate: NotRequired[Evaluate]
    tension: NotRequired[Tension]
    identify: NotRequired[Identify]
    ablate: NotRequired[Ablate]
    masked_training: NotRequired[MaskedTraining]
    overlap: NotRequired[Overlap]
    part: NotRequired[Part]
    dial: NotRequired[Dial]
    curve: NotRequired[Curve]
    explorer: NotRequired[Explorer]
    own_pair: NotRequired[OwnPair]
    study: NotRequired[Study]


PROFILE = TypeAdapter(Profile)


def check_profile(values: object) -> dict:
    """Return the values of a profile if they are of a `Profile` and fit together.

    Raises:
        ValueError: one line per fault: the key, what was expected, what came and the nearest valid name.
    """
    if isinstance(values, dict) and "profile" in values:
        raise ValueError(f"profile: expected no such key, the file's name says it; got {values['profile']!r}")
    try:
        PROFILE.validate_python(values)
    except ValidationError as error:
        raise ValueError("\n".join(faults_of(error, Profile))) from None
    if faults := list(_contradictions(values)):
        raise ValueError("\n".join(faults))
    return values


def _contradictions(values: dict) -> Iterator[str]:
    """Yield one line per value that does not fit the others."""
    names = [short_name(model) for model in values["base_models"]]
    if len(set(names)) < len(names):
        yield f"base_models: expected different short names; two of {values['base_models']!r} are alike; rename one"
    if TOY in (*values["base_models"], values["train"]["data_source"]) and "toy" not in values:
        yield "toy: expected a section for the base model or data 'toy', as in config/tiny.yaml; got nothing"
    if not set(SINGLE_OBJECTIVES) <= set(values["objectives"]):
        both = " and ".join(SINGLE_OBJECTIVES)
        yield f"objectives: expected {both} among them, which the chapters compare; got {list(values['objectives'])}"
    if MATCHED_ARM not in (arms := list(values.get("arms", ()))):
        yield f"arms: expected {MATCHED_ARM} among them, which chapter 4b trains again; got {arms}; add it"
    yield from _evaluation_contradictions(values)
    yield from _score_contradictions(values)
    yield from _curve_contradictions(values, values.get("curve", {"n_pairs": ()}))
    n_texts = {
        key: len(texts)
        for key, texts in (dict.fromkeys(OWN_PAIR, range(N_OWN_PAIRS)) | values.get("own_pair", {})).items()
    }
    if len(set(n_texts.values())) > 1:
        yield f"own_pair: expected as many responses of either kind as prompts; got {n_texts}"


def _evaluation_contradictions(values: dict) -> Iterator[str]:
    """Yield one line per benchmark that is read or asked for and not evaluated, and per seed that is not trained."""
    evaluated = values.get("evaluate", {}).get("benchmarks", EVALUATED)
    if HH not in evaluated:
        yield f"evaluate.benchmarks: expected {HH} among them, on which chapters compare; got {list(evaluated)}"
    parts = [
        ("evaluate", "benchmark_sources", evaluated),
        ("evaluate", "benchmark_items", evaluated),
        ("ablate", "benchmarks", evaluated),
        ("ablate", "benchmark_sources", evaluated),
        ("tension", "reference", evaluated),
        ("masked_training", "seeds", values["seeds"]),
        ("curve", "seeds", values["seeds"]),
    ]
    yield from _unknown(values, parts, {})
    yield from _item_contradictions(values.get("evaluate", {}), values.get("ablate", {}))


def _item_contradictions(evaluate: dict, ablate: dict) -> Iterator[str]:
    """Yield one line per benchmark of which more items are ablated than evaluated; 0 is all of them."""
    removed = ablate.get("n_items", N_ABLATED)
    for name in ablate.get("benchmarks", (HH,)):
        intact = evaluate.get("benchmark_items", {}).get(name, evaluate.get("n_items", 0))
        if intact and not 0 < removed <= intact:
            yield f"ablate.n_items: expected 1 to {intact}, the items of {name} that are evaluated; got {removed}"


def _score_contradictions(values: dict) -> Iterator[str]:
    """Yield one line per neuron score that is read and not taken."""
    section = values.get("identify", {})
    kinds, scopes = section.get("score_kinds", KINDS_TAKEN), section.get("scopes", SCOPES)
    faults = [
        f"identify.{key}: expected {', '.join(missing)} too, which chapters read; got {list(taken)}"
        for key, needed, taken in (("score_kinds", KINDS_NEEDED, kinds), ("scopes", SCOPES[:1], scopes))
        if (missing := [name for name in needed if name not in taken])
    ]
    if faults:
        yield from faults
        return
    parts = [(*place, kinds) for place in KINDS_READ] + [(*place, scopes) for place in SCOPES_READ]
    overlap = values.get("overlap", {})
    parts.append(("overlap", "main_kind", overlap.get("score_kinds", KINDS_READ["overlap", "score_kinds"])))
    yield from dict.fromkeys(_unknown(values, parts, KINDS_READ | SCOPES_READ))


def _unknown(values: dict, parts: Sequence[tuple[str, str, Collection]], defaults: Mapping) -> Iterator[str]:
    """Yield one line per value, or value of a list, of a section and key that is not one of its choices."""
    for section, key, choices in parts:
        found = values.get(section, {}).get(key, defaults.get((section, key), ()))
        for part in [found] if isinstance(found, str) else found:
            try:
                check_choice(f"{section}.{key}", part, choices)
            except ValueError as fault:
                yield str(fault)


def _curve_contradictions(values: dict, curve: dict) -> Iterator[str]:
    """Yield one line per value of the section curve that does not fit the others."""
    sizes, most = curve["n_pairs"], values["train"]["n_train_pairs"]
    if sizes and 0 < most <= max(sizes):
        yield f"curve.n_pairs: expected fewer than train.n_train_pairs, {most}; got {max(sizes)}"
    if curve.get("mixture_pairs", 0) not in (0, *sizes):
        yield f"curve.mixture_pairs: expected 0 or one of curve.n_pairs, {list(sizes)}; got {curve['mixture_pairs']}"


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which a few lines can multiply to any size, and without a key that comes twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node:
        """Refuse an alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "write the value again, not *alias", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Refuse a key that comes twice."""
        keys = [key.value for key, _ in node.value]
        for place, (key, _) in enumerate(node.value):
            if key.value in keys[:place]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} comes twice", key.start_mark
                )
        return super().construct_mapping(node, deep=deep)


def read_yaml(root: Path, name: str) -> object:
    """Read a YAML file of the project.

    Raises:
        ValueError: in one line, where it cannot be read.
    """
    try:
        text = (root / name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: expected a YAML file; {str(error).splitlines()[0]}") from None
    return parse_yaml(text, name)


def parse_yaml(text: str, name: str) -> object:
    """Return the value of a YAML text; ``name`` is where it comes from.

    Raises:
        ValueError: in one line, if it is no YAML, has aliases or a key twice, or is nested too deeply.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{name}: line {error.problem_mark.line + 1}: expected YAML; {error.problem}") from None
    except RecursionError:
        raise ValueError(f"{name}: expected sections of keys; got lists or mappings too deep in each other") from None
    except (AttributeError, KeyError, ValueError, yaml.YAMLError) as error:  # the first two of a value of a wrong tag
        raise ValueError(f"{name}: expected YAML; {str(error).splitlines()[0]}") from None


def read_profile(root: Path, name: str) -> dict:
    """Return what a profile says.

    Args:
        root: the project's folder.
        name: of a file in ``config/``, without its ending.

    Raises:
        ValueError: for an unknown profile, and with one line per fault of its file.
    """
    check_choice("profile", name, sorted(path.stem for path in (root / "config").glob("*.yaml")))
    file = f"config/{name}.yaml"
    values = read_yaml(root, file)
    try:
        check_name(name)
        return check_profile(values)
    except ValueError as error:
        raise ValueError("\n".join(f"{file}: {line}" for line in str(error).splitlines())) from None


def check_cluster(root: Path, folder: str, *, is_submitted: bool = True) -> None:
    """Check that a cluster's profile, which is a folder, holds no placeholder, and that the cluster takes its jobs.

    Args:
        root: the project's folder.
        folder: of the cluster's profile.
        is_submitted: whether jobs are submitted; a dry run needs no cluster.

    Raises:
        ValueError: names the file and the keys, or says what the cluster answers.
    """

    def unset(values: object, where: str = "") -> list[str]:
        if isinstance(values, dict):
            return [key for name, value in values.items() for key in unset(value, f"{where}.{name}".lstrip("."))]
        return [where] * (UNSET in str(values))

    file = f"{folder.rstrip('/')}/config.yaml"
    values = read_yaml(root, file)
    if keys := unset(values):
        raise ValueError(f"{file}: {', '.join(keys)}: expected the values of your cluster; got {UNSET}")
    if is_submitted and isinstance(values, dict) and values.get("executor") == "slurm":
        _ask_slurm(file, values.get("default-resources", {}))


def _ask_slurm(file: str, resources: dict) -> None:
    """Ask Slurm whether it would take a job, before Snakemake removes the outputs of those it submits."""
    options = {"slurm_account": "--account", "slurm_partition": "--partition", "runtime": "--time", "mem_mb": "--mem"}
    asked = [f"{option}={resources[key]}" for key, option in options.items() if key in resources]
    try:
        done = subprocess.run(["sbatch", "--test-only", *asked, "--wrap=true"], capture_output=True, text=True)
    except OSError:
        raise ValueError(f"{file}: executor slurm: expected the command sbatch here; start on a login node") from None
    if done.returncode:
        raise ValueError(f"{file}: Slurm takes no such job: {done.stderr.strip()}; mend default-resources")


def documented(kind: type) -> dict[str, str]:
    """Return what the docstring of a typed dictionary or dataclass says of each key."""
    text = inspect.getdoc(kind).partition("Args:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, flags=re.MULTILINE)
    return {name: " ".join(about.split()) for name, about in found}


def values_of(schema: dict) -> str:
    """Say in words which values a JSON schema allows."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return "mapping"
    if schema["type"] == "array":
        return f"list of: {values_of(schema['items'])}"
    name = {"integer": "whole number", "string": "text", "boolean": "true or false", "object": "mapping"}
    ends = [(word, schema.get(key)) for word, key in (("from", "minimum"), ("to", "maximum"))]
    bounds = [f"{word} {end}" for word, end in ends if end not in (None, LARGEST)]
    return " ".join([name.get(schema["type"], schema["type"]), *bounds])


def table_of(kind: type, schema: dict) -> list[str]:
    """Return the lines of a Markdown table of the keys of a typed dictionary or dataclass."""
    about = documented(kind)
    lines = ["| key | values | meaning |", "|---|---|---|"]
    for name, values in schema["properties"].items():
        needed = " (needed)" * (name in schema.get("required", ()))
        lines.append(f"| `{name}`{needed} | {values_of(values)} | {about.get(name, '').replace('``', '`')} |")
    return lines


README = """# Profiles

A profile is one file here. `make book PROFILE=<name>` runs it; its name is that of the file, and results go to
`runs/<name>/`. It is checked whole before any job starts: a fault ends the command with exit status 2 and a line that
names the file, the key, what was expected, what came, and the nearest valid name.

To make your own, copy one: `cp config/laptop.yaml config/mine.yaml`. Files whose names start with `mine` are not
committed. YAML 1.1 takes `1e-4` for a text: write `1.0e-4`. Anchors and aliases are refused.

`workflow/schema.py` holds what is checked, and writes this page: `python workflow/schema.py > config/README.md`.

## What every chapter shares
"""


def readme() -> str:
    """Return the page that describes every key."""
    schema, kinds = PROFILE.json_schema(), get_type_hints(Profile)
    inside, lines = schema["$defs"], [README]
    sections = {name: value["$ref"].split("/")[-1] for name, value in schema["properties"].items() if "$ref" in value}
    shared = {name: value for name, value in schema["properties"].items() if name not in sections}
    lines += table_of(Profile, schema | {"properties": shared})
    for name, place in sections.items():
        about = inspect.getdoc(kinds[name]).splitlines()[0]
        needed = " (needed)" * (name in schema["required"])
        lines += ["", f"## Section `{name}`{needed}", "", about, "", *table_of(kinds[name], inside[place])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(readme())
