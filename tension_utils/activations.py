"""Score every neuron of a reward model: statistics of its activation, and its attribution of the margin."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tension_utils.architectures import reward_head
from tension_utils.data import Item
from tension_utils.engine import run_batches, token_budget
from tension_utils.moments import BASE_MOMENT, CHANGE_MOMENT, site_shape
from tension_utils.observation import Observation, PassSums
from tension_utils.packing import SCOPES, SIDES, PreparedItem, prepare_items, prepare_texts
from tension_utils.scores import NeuronScores

MOMENTS_OF = {
    "signed_mean": ("sum",),
    "mean_abs": ("absolute",),
    "rms": ("square",),
    "frequency": ("positive",),
    "rms_change": (CHANGE_MOMENT,),
    "relative_change": (CHANGE_MOMENT, BASE_MOMENT),
    "contrast": ("sum",),
    "absolute_contrast": ("sum",),
}
KINDS = (*MOMENTS_OF, "attribution")
DEFAULT_KINDS = ("signed_mean", "mean_abs", "rms", "frequency", "contrast")
UNSIDED_KINDS = ("contrast", "absolute_contrast", "attribution")  # differences of the sides, stored as side "both"
TEXT_KINDS = tuple(kind for kind in KINDS if kind not in UNSIDED_KINDS)  # those that a text without labels has
ROOT_KINDS = ("rms", "rms_change", "relative_change")
BASED_KINDS = ("rms_change", "relative_change")  # they compare with the model before training


def neuron_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item | PreparedItem],
    **options: object,
) -> NeuronScores:
    """Return the scores of one model; options as of `neuron_scores_many`."""
    return neuron_scores_many([model], tokenizer, items, **options)[0]


def text_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    kinds: str | Sequence[str],
    max_length: int,
    **options: object,
) -> NeuronScores:
    """Return the scores of a model on plain texts, over all their tokens, EOS included; their only side is "both".

    Args:
        model: a reward model, or a base model without head.
        tokenizer: its tokenizer.
        texts: without prompt or label.
        kinds: one or several of `TEXT_KINDS`.
        max_length: tokens per text; longer ones lose their end.
        options: further ones of `neuron_scores_many`, but for the scope.

    Raises:
        ValueError: as `neuron_scores_many` does, or if a kind compares chosen with rejected responses.
    """
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    _require_choices("kinds of plain text", kinds, TEXT_KINDS)
    prepared = prepare_texts(tokenizer, texts, max_length)
    return neuron_scores(model, tokenizer, prepared, kinds=kinds, max_length=max_length, **options)


def split_half_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item | PreparedItem],
    **options: object,
) -> tuple[NeuronScores, NeuronScores, NeuronScores]:
    """Return the scores over all items, over every second one from the first, and over the others, in one pass.

    Args:
        model: as for `neuron_scores_many`.
        tokenizer: its tokenizer.
        items: at least two.
        options: as of `neuron_scores_many`.

    Raises:
        ValueError: as `neuron_scores_many` does, or with fewer than two items.
    """
    if len(items) < 2:
        raise ValueError(f"items: expected at least two to split in halves, got {len(items)}")
    first, second = (_tallies([model], tokenizer, items[start::2], **options)[0] for start in (0, 1))
    halves = first.scores(), second.scores()
    first.add(second)
    return first.scores(), *halves


def neuron_scores_many(
    models: Sequence[PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item | PreparedItem],
    *,
    base_model: PreTrainedModel | None = None,
    kinds: str | Sequence[str] = DEFAULT_KINDS,
    site: str = "down_input",
    scope: str | Sequence[str] = "all",
    max_length: int,
    tokens_per_batch: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> list[NeuronScores]:
    r"""Return the scores of several models on the same items, one pass per model and one for the base they share.

    With a_t the activation at token t and w_t how many sequences of a side hold it in the scope:

    * ``signed_mean``: sum w a / sum w; ``mean_abs``: of abs(a); ``rms``: root of the mean of a^2
    * ``frequency``: share of tokens with a > 0
    * ``rms_change``: root of the mean of (a - a_base)^2
    * ``relative_change``: rms_change / mean_abs of the base model at the same tokens, for every side and for both
      together; 0 where the base model's activation is 0 at all of them, because such a neuron has no size to compare
      with
    * ``contrast``: signed_mean of the chosen side minus that of the rejected one; ``absolute_contrast``: abs(contrast),
      because a neuron may also support a response by being less active
    * ``attribution``: mean over items of the sum over tokens of a * d margin / d a, with the margin
      min r(chosen) - max r(rejected); to first order what the neuron adds to the margin. A shared token is in scope
      where it is in the scope of any response

    Args:
        models: reward models of one shape; a base model without head works for all kinds but attribution.
        tokenizer: theirs.
        items: items, or what `prepare_items` made of them.
        base_model: for ``rms_change`` and ``relative_change``: the model before training.
        kinds: one or several of `KINDS`.
        site: "down_input" (the neuron), "gate" (the output of the activation function) or "heads" (the channels of
            the attention heads; `head_scores` puts them together).
        scope: one or several of "all" (every token), "response" (from the first token of the response), "last" (the
            token at which the reward is read).
        max_length: tokens per sequence; longer prompts lose their left part.
        tokens_per_batch: tokens computed together; None takes a default for the device.
        device: where to run; None leaves the models where they are.
        progress: show a bar with tokens/s.

    Raises:
        ValueError: if a choice is unknown, there are no items, a change lacks its base model, or the models do not
            fit together.

    Source: section 1 of METHOD.md, "Neuron scores"; section 2, facts 2, 3 and 18; attribution is ours.
    """
    tallies = _tallies(
        models,
        tokenizer,
        items,
        base_model=base_model,
        kinds=kinds,
        site=site,
        scope=scope,
        max_length=max_length,
        tokens_per_batch=tokens_per_batch,
        device=device,
        progress=progress,
    )
    return [tally.scores() for tally in tallies]


@dataclass
class _Tally:
    """Sums over items of one model, and what to make of them."""

    observation: Observation
    kinds: tuple[str, ...]
    sums: PassSums
    n_items: int
    n_tokens: int = 0

    def add(self, other: "_Tally") -> None:
        """Add the sums over other items."""
        self.sums.add(other.sums)
        self.n_items += other.n_items
        self.n_tokens += other.n_tokens

    def scores(self) -> NeuronScores:
        """Return the scores by (kind, side, scope)."""
        scores = {}
        for number, scope in enumerate(self.observation.scopes):
            for kind in self.kinds:
                sides = self._sides(kind, number)
                scores |= {(kind, side, scope): value.float().numpy() for side, value in sides.items()}
        return NeuronScores(scores, self.observation.site, self.n_items, self.n_tokens)

    def _sides(self, kind: str, scope: int) -> dict[str, torch.Tensor]:
        if kind == "attribution":
            return {"both": self.sums.attribution[scope] / self.n_items}
        mean, *size = (self._mean(moment, scope) for moment in MOMENTS_OF[kind])  # (2, L, N) each
        if kind in UNSIDED_KINDS:
            contrast = mean[0] - mean[1]
            return {"both": contrast.abs() if kind == "absolute_contrast" else contrast}
        mean = mean.sqrt() if kind in ROOT_KINDS else mean
        sides = self._with_both(mean, scope)
        for base in size:
            base = self._with_both(base, scope)
            sides = torch.where(base > 0, sides / base, 0.0)
        return dict(zip((*SIDES, "both")[-len(sides) :], sides, strict=True))

    def _with_both(self, sides: torch.Tensor, scope: int) -> torch.Tensor:
        """Return sides (2, L, N) and their mean (3, L, N); of plain texts, which have one side, that (1, L, N)."""
        if not self.sums.weights[scope, 1]:
            return sides[:1]
        return torch.cat([sides, sides.mean(dim=0, keepdim=True)])

    def _mean(self, moment: str, scope: int) -> torch.Tensor:
        """Return a moment per counted token (2, L, N)."""
        weight = self.sums.weights[scope][:, None, None]  # (2, 1, 1)
        return self.sums.moments[self.observation.moments.index(moment), scope] / weight


def _tallies(
    models: Sequence[PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item | PreparedItem],
    *,
    base_model: PreTrainedModel | None = None,
    kinds: str | Sequence[str] = DEFAULT_KINDS,
    site: str = "down_input",
    scope: str | Sequence[str] = "all",
    max_length: int,
    tokens_per_batch: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> list[_Tally]:
    """Take the sums behind the scores of several models; arguments and errors as of `neuron_scores_many`."""
    kinds, scopes = ((choice,) if isinstance(choice, str) else tuple(choice) for choice in (kinds, scope))
    _require_choices("kinds", kinds, KINDS)
    _require_choices("scope", scopes, SCOPES)
    if not items:
        raise ValueError("items: expected at least one, got none")
    _require_models(models, base_model, kinds, site)
    for each in (*models, *([base_model] if base_model is not None else [])):
        each.to(device or each.device)
    moments = tuple(dict.fromkeys(moment for kind in kinds for moment in MOMENTS_OF.get(kind, ())))
    observation = Observation(tuple(models), base_model, site, scopes, moments, "attribution" in kinds, tokenizer)
    shape = site_shape(models[0], site)
    tallies = [_Tally(observation, kinds, PassSums.zeros(observation, shape), len(items)) for _ in models]
    with observation.running() as step:
        for _, group, sums in run_batches(
            items,
            lambda window: prepare_items(tokenizer, window, max_length),
            step,
            tokens_per_batch=token_budget(tokens_per_batch, models[0].device),
            progress=progress,
            description="neuron scores",
        ):
            for tally, batch_sums in zip(tallies, sums, strict=True):
                tally.sums.add(batch_sums)
                tally.n_tokens += sum(item.n_tokens for item in group)
    return tallies


def _require_choices(name: str, chosen: Sequence[str], valid: Sequence[str]) -> None:
    unknown = [choice for choice in chosen if choice not in valid]
    if unknown or not chosen:
        raise ValueError(f"{name}: expected at least one of {tuple(valid)}, got {unknown or chosen}")


def _require_models(
    models: Sequence[PreTrainedModel], base: PreTrainedModel | None, kinds: Sequence[str], site: str
) -> None:
    based = [kind for kind in kinds if kind in BASED_KINDS]
    if based and base is None:
        raise ValueError(f"kinds: {based} compare with the model before training; pass it as base_model")
    if "attribution" in kinds:
        for model in models:
            reward_head(model)
    shapes = {site_shape(model, site) for model in (*models, *([base] if base is not None else []))}
    if len(shapes) != 1 or len({model.config.pad_token_id for model in models}) != 1:
        raise ValueError(
            f"expected models of one shape and padding token, got shapes (layers, neurons) {sorted(shapes)} and "
            f"padding tokens {[model.config.pad_token_id for model in models]}; score them apart"
        )
