"""Worlds whose truth is known: which neurons carry an objective, which claims hold, and items in their words."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tension_utils.benchmarks.items import make_item
from tension_utils.conditions import ONLY, SHARED
from tension_utils.config import MIXED, OBJECTIVES, SINGLE_OBJECTIVES, check_choice, check_range
from tension_utils.data import BenchmarkItem, Turn
from tension_utils.neurons import NeuronSet

WORDS = MappingProxyType(
    {
        "helpful": (("clear", "useful", "thorough", "complete"), ("vague", "wrong", "lazy", "empty")),
        "harmless": (("safe", "kind", "careful", "gentle"), ("cruel", "toxic", "rude", "reckless")),
    }
)  # objective -> words with its feature, +1 each, and words with the opposite, -1 each

FILLERS = ("river", "stone", "table", "green", "walk", "paper", "seven", "cloud", "music", "garden", "winter", "letter")

FILLERS += (
    "window",
    "silver",
    "number",
    "corner",
    "basket",
    "planet",
    "engine",
    "button",
    "island",
    "candle",
    "forest",
)

WRONG = 0.15  # share of items whose label is wrong, where models are trained on labels

PROMPT_LENGTH, RESPONSE_LENGTH, MAX_LENGTH = 4, 8, 16  # words, words, tokens: every sequence has 15

N_LAYERS, N_NEURONS, N_SLOTS, GROUP_SIZE = 2, 96, 16, 4  # per layer: neurons, and those free for a plant

N_GROUPS = (N_NEURONS - N_SLOTS) // GROUP_SIZE + N_SLOTS  # per layer

SHAPE = (N_LAYERS, N_NEURONS)

PLANTED = (ONLY["helpful"], ONLY["harmless"], SHARED)


@dataclass(frozen=True)
class Scenario:
    """Who carries the objectives, and what is therefore true of the study's claims.

    Args:
        truth: claim -> whether it is built to be true; a claim that makes no sense here is left out. Empty where it is
            only measured, see `study.true_claims`.
        n_only: helpful-only neurons, and as many harmless-only ones.
        n_shared: shared neurons.
        shared_weight: weight of a shared neuron; the others have 1.
        opposition: how much of the other objective a shared neuron counts against its own, in [0, 1]; in the mixed
            model every second one stands on the helpful side, the others on the harmless one.
        joint: strength of the objectives in the mixed model, beside that in the single ones; below 1 joint training
            does harm.
        is_conflicting: whether the rejected response to one objective often has more of the other's feature.
        is_louder_worse: whether removing a neuron of larger activation does more damage.
        n_loud: neurons per layer, in groups, that are several times as loud as others before any training and carry
            nothing.
        is_trained: whether gradient descent on labeled items made the reward models; otherwise they are built by hand.
        is_faint: whether neurons carry so small a part that removing the top ones costs `FAINT_EFFECT`.
    """

    truth: Mapping[str, bool]
    n_only: int = 0
    n_shared: int = 0
    shared_weight: float = 1.0
    opposition: float = 0.0
    joint: float = 1.0
    is_conflicting: bool = True
    is_louder_worse: bool = False
    n_loud: int = 0
    is_trained: bool = False
    is_faint: bool = False

    @property
    def is_planted(self) -> bool:
        """Whether neurons that were chosen beforehand carry the objectives."""
        return self.n_only + self.n_shared > 0

    @property
    def is_carried(self) -> bool:
        """Whether neurons carry the objectives; otherwise attention does."""
        return self.is_planted or self.is_trained


def _truth(text: str) -> Mapping[str, bool]:
    """Return what is true of C1 to C5 from a letter for each: t, f, or - where the claim makes no sense."""
    return {f"C{number}": letter == "t" for number, letter in enumerate(text, start=1) if letter != "-"}


FAINT_EFFECT = -0.16  # SD; at 65 % accuracy about 6 points, where the study prints 7 and 13 for C2

SCENARIOS = MappingProxyType(
    {
        "planted": Scenario(_truth("ttttt"), 8, 8, shared_weight=2.5),
        "heavy": Scenario(_truth("ttttt"), 12, 8, shared_weight=6.0),
        "faint": Scenario(_truth("tt-t-"), 8, 8, shared_weight=2.5, is_faint=True),
        "even": Scenario(_truth("ftftf"), 8, 16, is_conflicting=False),
        "antagonistic": Scenario(
            _truth("ttttt"), 8, 12, shared_weight=8.0, opposition=0.25, joint=0.5, is_conflicting=False
        ),
        "merely-loud": Scenario(_truth("t--ff"), 14, joint=0.3, n_loud=8),
        "direct": Scenario(_truth("fffff"), is_conflicting=False),
        "loud": Scenario(_truth("tffff"), is_louder_worse=True),
        "trained": Scenario({}, is_trained=True),
        "trained-easy": Scenario({}, is_conflicting=False, is_trained=True),
    }
)

PLANTED_SCENARIOS = tuple(name for name, rules in SCENARIOS.items() if rules.is_planted)


@dataclass(frozen=True)
class WorldConfig:
    """Knobs of a world.

    Args:
        seed: of everything random.
        scenario: key of `SCENARIOS`.
        loudness: mean absolute activation of planted neurons, in units of a typical neuron's, > 0.
        drift: relative change of all weights in training that has nothing to do with the objective, in [0, 1].
        conflict: share of items with a conflict, where the scenario has any, in [0, 1].
        damage: how much noise the removal of an unplanted neuron leaves in the reward, >= 0.
        luck: how much training runs differ in the strength of what they learned, the standard deviation of its
            logarithm, >= 0.
        share: how much of the objectives planted neurons carry, in [0, 1]; attention carries the rest.
    """

    seed: int
    scenario: str = "planted"
    loudness: float = 1.0
    drift: float = 0.2
    conflict: float = 0.6
    damage: float = 0.25
    luck: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0)
        check_choice("scenario", self.scenario, SCENARIOS)
        check_range("loudness", self.loudness, 1e-3)
        check_range("drift", self.drift, 0, 1)
        check_range("conflict", self.conflict, 0, 1)
        check_range("damage", self.damage, 0)
        check_range("luck", self.luck, 0)
        check_range("share", self.share, 0, 1)

    @property
    def rules(self) -> Scenario:
        """The scenario itself."""
        return SCENARIOS[self.scenario]

    def generator(self, *parts: object) -> np.random.Generator:
        """Return a generator for one use of its own, the same in every scenario."""
        return np.random.default_rng([self.seed, *" ".join(map(str, parts)).encode()])


def draw_world(seed: int, scenario: str) -> WorldConfig:
    """Return a world with random knobs, so that rates over worlds do not hang on one choice of them."""
    draw = WorldConfig(seed).generator("knobs").uniform
    loudness = float(np.exp(draw(np.log(0.5), np.log(6.0))))
    knobs = {"drift": (0.05, 0.4), "conflict": (0.4, 0.8), "damage": (0.1, 0.4), "luck": (0.0, 0.3)}
    return WorldConfig(seed, scenario, loudness, **{name: float(draw(*ends)) for name, ends in knobs.items()})


def neuron_groups(config: WorldConfig) -> np.ndarray:
    """Return the group (L, N) of every neuron in its layer; the last `N_SLOTS` are single neurons, the slots."""
    generator = config.generator("groups")
    by_place = np.append(np.arange(N_NEURONS - N_SLOTS) // GROUP_SIZE, N_GROUPS - N_SLOTS + np.arange(N_SLOTS))
    return np.stack([generator.permutation(by_place) for _ in range(N_LAYERS)])


def planted_sets(config: WorldConfig) -> dict[str, NeuronSet]:
    """Return the truth: the sets of `PLANTED`, empty where attention carries the objectives."""
    groups = neuron_groups(config)
    places = [  # slot by slot over the layers, so that every set is spread over them
        (layer, int(np.flatnonzero(groups[layer] == group)[0]))
        for group in range(N_GROUPS - N_SLOTS, N_GROUPS)
        for layer in range(N_LAYERS)
    ]
    sizes = (config.rules.n_only, config.rules.n_only, config.rules.n_shared)
    ends = np.cumsum(sizes)
    return {
        name: NeuronSet.of(SHAPE, places[end - size : end])
        for name, size, end in zip(PLANTED, sizes, ends, strict=True)
    }


def true_neurons(config: WorldConfig, objective: str) -> NeuronSet:
    """Return the neurons that carry a reward model's objective: the shared ones and its own.

    Raises:
        ValueError: for an unknown objective.
    """
    check_choice("objective", objective, OBJECTIVES)
    sets = planted_sets(config)
    found = sets[SHARED]
    for single in SINGLE_OBJECTIVES:
        found = found | sets[ONLY[single]] if objective in (single, MIXED) else found
    return found


@cache
def planted_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: one token per word."""
    words = [word for sides in WORDS.values() for side in sides for word in side]
    vocabulary = ["<pad>", "<eos>", "Human:", "Assistant:", *words, *FILLERS]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def preference_items(
    config: WorldConfig, objective: str, n_items: int, name: str = "test", conflict: float | None = None
) -> list[BenchmarkItem]:
    """Write items whose chosen response has more of an objective's feature, by 1 to 3 words.

    In a conflict the rejected response has one word of the other objective's feature. Where gradient descent trains the
    models, the two responses of one item in seven stand the wrong way round.

    Args:
        config: of the world.
        objective: of `SINGLE_OBJECTIVES`.
        n_items: how many.
        name: of the sample: the same name gives the same items.
        conflict: share of items with a conflict; None takes the world's, which is 0 where its scenario has none.

    Raises:
        ValueError: for an unknown objective, fewer than one item, or a share outside [0, 1].
    """
    check_choice("objective", objective, SINGLE_OBJECTIVES)
    check_range("n_items", n_items, 1)
    if conflict is None:
        conflict = config.conflict if config.rules.is_conflicting else 0.0
    check_range("conflict", conflict, 0, 1)
    generator = config.generator("items", objective, name)
    wrong = WRONG if config.rules.is_trained else 0.0
    return [_item(generator, objective, f"{objective}-{name}-{number}", conflict, wrong) for number in range(n_items)]


def _item(generator: np.random.Generator, objective: str, item_id: str, conflict: float, wrong: float) -> BenchmarkItem:
    (other,) = set(SINGLE_OBJECTIVES) - {objective}
    difference = generator.integers(1, 4)  # words
    n_better = generator.integers(0, difference + 1)
    better, worse = (list(generator.choice(side, 4, replace=False)) for side in WORDS[objective])
    chosen, rejected = better[:n_better], worse[: difference - n_better]
    if generator.random() < conflict:
        rejected = [*rejected, generator.choice(WORDS[other][0])]
    prompt = Turn("human", " ".join(generator.choice(FILLERS, PROMPT_LENGTH)))
    responses = [
        " ".join(generator.permutation([*words, *generator.choice(FILLERS, RESPONSE_LENGTH - len(words))]))
        for words in (chosen, rejected)
    ]
    if generator.random() < wrong:
        responses = responses[::-1]
    place = {"benchmark": "hh-rlhf", "subset": objective, "place": (objective, "none")}  # the ledger's tests
    return make_item(item_id, (prompt,), responses[:1], responses[1:], **place)
