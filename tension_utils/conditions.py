"""Every ablation of one reward model by name: targeted neuron sets, each with the random sets that match it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isclose

import numpy as np

from tension_utils.artifacts import require
from tension_utils.config import MIXED, SINGLE_OBJECTIVES, AblateConfig
from tension_utils.neurons import NeuronSet, top_neurons
from tension_utils.runs import Run
from tension_utils.scores import OWN_SCORES, own_scores

CONTROL, EVERYTHING = "random", "all"  # names of sets
SHARED = "shared"
ONLY = {objective: f"only-{objective}" for objective in SINGLE_OBJECTIVES}
EQUAL = ", equal size"  # suffix of a set drawn down to the size of the smallest of its family


@dataclass(frozen=True)
class Condition:
    """One neuron set and how it is removed.

    Args:
        set: a score kind, a name of `mixed_sets`, `EVERYTHING`, or `CONTROL`.
        matched_to: the targeted set whose count in every layer a random set has; a targeted set's own name.
        fraction: share of all neurons in the scored set, or in the sets that the shared and only sets came from.
        ablation_kind: of `config.ABLATION_KINDS`.
        draw: number of the random set; 0 for a targeted one.
        neurons: the set.
    """

    set: str
    matched_to: str
    fraction: float
    ablation_kind: str
    draw: int
    neurons: NeuronSet = field(repr=False)

    @property
    def label(self) -> dict[str, str | float | int]:
        """The columns of ablation.parquet that name the condition."""
        names = ("set", "matched_to", "fraction", "ablation_kind", "draw")
        return {name: getattr(self, name) for name in names} | {"n_neurons": len(self.neurons)}


def mixed_sets(helpful: NeuronSet, harmless: NeuronSet, generator: np.random.Generator) -> dict[str, NeuronSet]:
    """Return what two sets share and what only one has, and random parts of these of one size.

    Args:
        helpful: top neurons of the helpful reward model.
        harmless: those of the harmless one.
        generator: draws the parts.

    Returns:
        "shared", "only-helpful", "only-harmless"; the same with ", equal size". Empty sets are left out, and with
        them the equal sizes.

    Source: section 1 of METHOD.md, "Ablation"; equal sizes are ours (section 2, fact 8).
    """
    whole = {
        SHARED: helpful & harmless,
        ONLY[SINGLE_OBJECTIVES[0]]: helpful - harmless,
        ONLY[SINGLE_OBJECTIVES[1]]: harmless - helpful,
    }
    size = min(map(len, whole.values()))
    equal = {name + EQUAL: neurons.sample(size, generator) for name, neurons in whole.items()} if size else {}
    return {name: neurons for name, neurons in whole.items() if len(neurons)} | equal


def list_conditions(run: Run, config: AblateConfig) -> list[Condition]:
    """Return every condition of a run, targeted sets followed by their random draws.

    Scored sets at every fraction with the first ablation kind; at the main fraction the set of the main kind with the
    other ablation kinds, and, for the mixed reward model, the shared and only sets of the single ones of its seed.

    Raises:
        FileNotFoundError: names the missing score file and the chapter to run.
    """
    generator = np.random.default_rng([run.seed, *run.objective.encode()])
    first, *others = config.ablation_kinds
    found: list[Condition] = []

    def add(name: str, neurons: NeuronSet, fraction: float, kind: str) -> None:
        found.append(Condition(name, name, fraction, kind, 0, neurons))
        for draw, control in enumerate(neurons.matched_random(generator, config.n_draws)):
            found.append(Condition(CONTROL, name, fraction, kind, draw, control))

    for name, fraction, neurons in _scored(run, config):
        if fraction < 1:
            add(name, neurons, fraction, first)
        elif name == config.score_kinds[0]:  # every neuron is the same set by any score
            found.append(Condition(EVERYTHING, EVERYTHING, 1.0, first, 0, neurons))
    main = top_neurons(own_scores(run).get(config.main_kind, "both", config.scope), config.fraction)
    for kind in others:
        add(config.main_kind, main, config.fraction, kind)
    if run.objective == MIXED:
        for name, neurons in mixed_sets(*_single_sets(run, config), generator).items():
            add(name, neurons, config.fraction, first)
    return found


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


def score_sources(run: Run) -> list[Run]:
    """Return the runs whose neuron scores name the run's sets.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.
    """
    sources = [run, *(_single_runs(run) if run.objective == MIXED else [])]
    for source in sources:
        require(source.folder / OWN_SCORES, "03_identify")
    return sources
