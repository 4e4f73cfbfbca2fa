"""Every ablation of one reward model by name: targeted neuron sets, each with the random sets that match it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import isclose

import numpy as np

from tension_utils.artifacts import OWN_SCORES, require
from tension_utils.config import FAMILIES, MIXED_ARMS, REMOVAL, SINGLE_OBJECTIVES, AblateConfig, Run, check_choice
from tension_utils.neurons import NeuronSet, activity_bins, equalized, top_neurons
from tension_utils.scores import BASE_GENERIC, load_view, own_scores

CONTROL, EVERYTHING = "random", "all"  # names of sets

SHARED = "shared"

ONLY = {objective: f"only-{objective}" for objective in SINGLE_OBJECTIVES}

OWNERS = {name: objective for objective, name in ONLY.items()}

MIXED_SETS = (SHARED, *ONLY.values())

NATURAL, EQUAL_SIZE, EQUAL_ACTIVITY, WITHOUT_KEYSTONE = FAMILIES

FAMILY_WORDS = {EQUAL_SIZE: ", equal size", EQUAL_ACTIVITY: ", equal size and activity"}
FAMILY_WORDS[WITHOUT_KEYSTONE] = ", equal size, without keystone neurons"


@dataclass(frozen=True)
class Condition:
    """One neuron set and how it is removed or scaled.

    Args:
        set: a score kind, a name of `MIXED_SETS`, `EVERYTHING`, or `CONTROL`.
        family: of `config.FAMILIES` where the set, or the one it matches, is of `MIXED_SETS`; else "".
        matched_to: the targeted set that a random set matches; a targeted set's own name.
        control: of `config.CONTROLS`, how a random set matches; "" for a targeted set.
        fraction: share of all neurons in the scored set, or in the sets that the shared and only sets came from.
        ablation_kind: of `config.ABLATION_KINDS`.
        scale: what is left of the activation; 0 removes it.
        draw: number of the random set; 0 for a targeted one.
        neurons: the set.
    """

    set: str
    family: str
    matched_to: str
    control: str
    fraction: float
    ablation_kind: str
    scale: float
    draw: int
    neurons: NeuronSet = field(repr=False)

    @property
    def key(self) -> dict[str, str | float | int]:
        """The columns of ablation.parquet that tell conditions of one reward model apart."""
        names = ("set", "family", "matched_to", "control", "fraction", "ablation_kind", "scale", "draw")
        return {name: getattr(self, name) for name in names}

    @property
    def label(self) -> dict[str, str | float | int]:
        """The columns of ablation.parquet that name the condition."""
        return self.key | {"n_neurons": len(self.neurons)}


def set_label(name: str, family: str) -> str:
    """Return what figures call a set.

    >>> set_label("shared", "equal-size"), set_label("shared", "natural"), set_label("rms", "")
    ('shared, equal size', 'shared', 'rms')
    """
    return name + FAMILY_WORDS.get(family, "")


def set_generator(run: Run, name: str, family: str, fraction: float, control: str) -> np.random.Generator:
    """Return the source of a set's random draws, the same wherever in a list of conditions they stand."""
    text = "/".join((run.objective, name, family, f"{fraction:.9g}", control))
    return np.random.default_rng([run.seed, *text.encode()])


def mixed_sets(
    helpful: NeuronSet,
    harmless: NeuronSet,
    family: str = NATURAL,
    generator: np.random.Generator | None = None,
    bins: np.ndarray | None = None,
    keystone: NeuronSet | None = None,
) -> dict[str, NeuronSet]:
    """Return what two sets share and what only one has, whole or drawn down to be alike.

    Args:
        helpful: top neurons of the helpful reward model.
        harmless: those of the harmless one.
        family: "natural", the sets themselves; "equal-size", random parts of the size of the smallest;
            "equal-activity", random parts that have the same count in every bin of every layer; or "without-keystone",
            parts of equal size without the keystone neurons.
        generator: draws the parts.
        bins: (L, N), of `neurons.activity_bins`, for "equal-activity".
        keystone: of `keystone_neurons`, for "without-keystone".

    Returns:
        "shared", "only-helpful", "only-harmless". Empty sets are left out; parts of which one would be empty, all.

    Raises:
        ValueError: if the family is unknown, or lacks its generator, bins or keystone neurons.

    Source: section 1 of METHOD.md, "Ablation"; equal sizes and activities are ours (section 2, fact 8).
    """
    whole = dict(zip(MIXED_SETS, (helpful & harmless, helpful - harmless, harmless - helpful), strict=True))
    check_choice("family", family, FAMILIES)
    if family == NATURAL:
        return {name: neurons for name, neurons in whole.items() if len(neurons)}
    needed = {EQUAL_ACTIVITY: bins, WITHOUT_KEYSTONE: keystone}.get(family, generator)
    if generator is None or needed is None:
        raise ValueError(
            f"family {family!r}: expected a generator, bins for {EQUAL_ACTIVITY!r}, keystone neurons for "
            f"{WITHOUT_KEYSTONE!r}; pass them"
        )
    if family == EQUAL_ACTIVITY:
        parts = equalized(list(whole.values()), bins, generator)
    else:
        left = [neurons - keystone if family == WITHOUT_KEYSTONE else neurons for neurons in whole.values()]
        parts = [neurons.sample(min(map(len, left)), generator) for neurons in left]
    return dict(zip(whole, parts, strict=True)) if len(parts[0]) else {}


def keystone_neurons(run: Run, fraction: float) -> NeuronSet:
    """Return the neurons that are loudest on generic text before training, on which no reward model depends.

    Args:
        run: a single-objective reward model, whose views name its base model's activations.
        fraction: of all neurons.

    Raises:
        FileNotFoundError: names the missing view and the chapter to run.

    Source: the neurons that "Keystone neurons" (arXiv 2605.24846) finds active on any text; the share is ours.
    """
    return top_neurons(load_view(run, BASE_GENERIC).get("mean_abs"), fraction)


def list_conditions(run: Run, config: AblateConfig) -> list[Condition]:
    """Return every condition of a run, targeted sets followed by their random draws.

    In the block "scored": sets at every fraction with the first ablation kind, and at the main fraction the set of the
    main kind with the other ablation kinds. In the block "mixed", for a mixed reward model: the shared and only sets of
    the single ones of its base model and seed. All at every scale.

    Raises:
        FileNotFoundError: names the missing score file and the chapter to run.
        KeyError: if a score kind was not computed.
    """
    needs_bins = "activity" in config.controls or (_is_mixed(run, config) and EQUAL_ACTIVITY in config.families)
    bins = activity_bins(own_scores(run).get("mean_abs"), config.n_activity_bins) if needs_bins else None
    found: list[Condition] = []
    for target in _targets(run, config, bins):
        found.append(target)
        for control in config.controls if target.set != EVERYTHING else ():
            generator = set_generator(run, target.set, target.family, target.fraction, control)
            draws = target.neurons.matched_random(generator, config.n_draws, bins if control == "activity" else None)
            found += [
                replace(target, set=CONTROL, control=control, draw=draw, neurons=neurons)
                for draw, neurons in enumerate(draws)
            ]
    return found


def _is_mixed(run: Run, config: AblateConfig) -> bool:
    """Say whether shared and only sets are wanted of this run."""
    return run.objective in MIXED_ARMS and "mixed" in config.blocks


def _targets(run: Run, config: AblateConfig, bins: np.ndarray | None) -> Iterator[Condition]:
    """Yield the targeted conditions in order."""
    first, *others = config.ablation_kinds

    def of(name: str, family: str, fraction: float, neurons: NeuronSet) -> Iterator[Condition]:
        for scale in config.scales:
            kind = first if scale == REMOVAL else "zero"
            yield Condition(name, family, name, "", fraction, kind, scale, 0, neurons)

    if "scored" in config.blocks:
        for name, fraction, neurons in _scored(run, config):
            if fraction < 1:
                yield from of(name, "", fraction, neurons)
            elif name == config.score_kinds[0] and REMOVAL in config.scales:  # by any score it is the same set
                yield Condition(EVERYTHING, "", EVERYTHING, "", 1.0, first, REMOVAL, 0, neurons)
        if others and REMOVAL in config.scales:
            name, fraction = config.main_kind, config.fraction
            main = top_neurons(own_scores(run).get(name, "both", config.scope), fraction)
            yield from (Condition(name, "", name, "", fraction, kind, REMOVAL, 0, main) for kind in others)
    if _is_mixed(run, config):
        singles = _single_sets(run, config)
        for family in config.families:
            generator = set_generator(run, "", family, config.fraction, "")
            keystone = keystone_neurons(_single_runs(run)[0], config.fraction) if family == WITHOUT_KEYSTONE else None
            for name, neurons in mixed_sets(*singles, family, generator, bins, keystone).items():
                yield from of(name, family, config.fraction, neurons)


def _scored(run: Run, config: AblateConfig) -> Iterator[tuple[str, float, NeuronSet]]:
    """Yield (score kind, fraction, set); the main kind at the main fraction is always among them."""
    scores = own_scores(run)
    for kind in config.score_kinds:
        values = scores.get(kind, "both", config.scope)
        yield from ((kind, fraction, top_neurons(values, fraction)) for fraction in config.fractions)
    is_there = config.main_kind in config.score_kinds and any(isclose(config.fraction, f) for f in config.fractions)
    if not is_there:
        values = scores.get(config.main_kind, "both", config.scope)
        yield config.main_kind, config.fraction, top_neurons(values, config.fraction)


def _single_runs(run: Run) -> list[Run]:
    """Return the single-objective runs with the run's base model and seed."""
    return [Run(run.root, run.base_model, objective, run.seed) for objective in SINGLE_OBJECTIVES]


def _single_sets(run: Run, config: AblateConfig) -> list[NeuronSet]:
    """Return the top neurons of the single-objective reward models."""
    scores = (own_scores(single).get(config.main_kind, "both", config.scope) for single in _single_runs(run))
    return [top_neurons(values, config.fraction) for values in scores]


def score_sources(run: Run, *configs: AblateConfig) -> list[Run]:
    """Return the runs whose neuron scores name the run's sets or say what replaces their activations.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.
    """
    mixed = [config for config in configs if _is_mixed(run, config)]
    needs_own = any(
        "scored" in config.blocks or "activity" in config.controls or "mean" in config.ablation_kinds
        for config in configs
    ) or any(EQUAL_ACTIVITY in config.families for config in mixed)
    sources = [run] * needs_own + (_single_runs(run) if mixed else [])
    for source in sources:
        require(source.folder / OWN_SCORES, "03_identify", source)
    return sources
