"""Score every neuron: statistics of its activation, taken in one packed pass, and its attribution of the margin."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tension_utils.architectures import architecture_of, head_shape, neuron_shape, reward_head
from tension_utils.config import SCOPES
from tension_utils.data import Item
from tension_utils.engine.attention import packed_attention
from tension_utils.engine.batches import run_batches, token_budget
from tension_utils.engine.packing import PackedBatch, PreparedItem, pack_items, prepare_items, prepare_texts
from tension_utils.evaluation import batch_rewards, margins
from tension_utils.scores import HEAD_KINDS, HEADS, SIDES, UNSIDED_KINDS, NeuronScores

SITES = {"down_input": "down", "gate": "activation", HEADS: "attention_output"}  # site -> part of an Architecture

CHUNK = 256  # tokens converted to float32 at once, so that a chunk stays in a CPU's cache

MOMENTS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "sum": lambda x, out: x,
    "absolute": lambda x, out: torch.abs(x, out=out),
    "square": lambda x, out: torch.square(x, out=out),
    "positive": lambda x, out: torch.gt(x, 0, out=out),
}

CHANGE_MOMENT = "square_change"  # of the difference from the base model

BASE_MOMENT = "base_absolute"  # of the base model's own activation

BASED_MOMENTS = (CHANGE_MOMENT, BASE_MOMENT)  # those that need the base model


@contextmanager
def observed(
    model: PreTrainedModel, site: str, observe: Callable[[int, torch.Tensor], None]
) -> Iterator[list[nn.Module]]:
    """Call ``observe(layer, activations (1, T, N))`` whenever the model computes a layer's neurons.

    Args:
        model: a model of `ARCHITECTURES`.
        site: ``"down_input"`` is what the down projection reads, the neuron itself; ``"gate"`` is the output of the
            activation function, which is not yet multiplied by the up projection in a gated MLP; ``"heads"`` is
            what the attention's output projection reads, N of it head h in channels h x width to (h + 1) x width.
        observe: must not change the activations.

    Raises:
        ValueError: if the site is unknown.
    """
    modules = architecture_of(model).parts_of(model, _part(site))
    handles = []
    for layer, module in enumerate(modules):
        if site != "gate":
            handles.append(module.register_forward_pre_hook(lambda _, args, layer=layer: observe(layer, args[0])))
        else:
            handles.append(module.register_forward_hook(lambda _, args, output, layer=layer: observe(layer, output)))
    try:
        yield modules
    finally:
        for handle in handles:
            handle.remove()


def site_shape(model: PreTrainedModel, site: str) -> tuple[int, int]:
    """Return (L, N) of a site: layers, and neurons or attention heads per layer."""
    return head_shape(model)[:2] if _part(site) == "attention_output" else neuron_shape(model)


def head_changes(activations: torch.Tensor, base: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Return how far training moved what every head gives to the output projection: L2 norms (T, heads), float32.

    Args:
        activations: (T, heads x width).
        base: (T, heads x width), the base model's at the same tokens.
        n_heads: attention heads.

    >>> head_changes(torch.tensor([[3.0, 4.0, 1.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0, 1.0]]), 2).tolist()
    [[5.0, 0.0]]
    """
    return (activations.float() - base.float()).unflatten(-1, (n_heads, -1)).norm(dim=-1)


def _part(site: str) -> str:
    if site not in SITES:
        raise ValueError(f"site: expected one of {tuple(SITES)}, got {site!r}")
    return SITES[site]


@torch.no_grad()
def weighted_moments(
    activations: torch.Tensor, weights: torch.Tensor, moments: Sequence[str], base: torch.Tensor | None = None
) -> torch.Tensor:
    """Return sum_t weights[w, t] f(activations[t, n]) for every moment f.

    Args:
        activations: (T, N), of any float dtype.
        weights: (W, T), float32.
        moments: keys of `MOMENTS`, or of `BASED_MOMENTS`.
        base: (T, N), the base model's activations at the same tokens; for `BASED_MOMENTS`.

    Returns:
        (moments, W, N), float32.
    """
    n_tokens, n_neurons = activations.shape
    sums = torch.zeros(len(moments), len(weights), n_neurons, device=activations.device)
    chunk = CHUNK if activations.device.type == "cpu" else n_tokens
    values, scratch = torch.empty(2, min(chunk, n_tokens), n_neurons, device=activations.device).unbind()
    for first in range(0, n_tokens, chunk):
        rows = slice(first, min(first + chunk, n_tokens))
        x, out = values[: rows.stop - first], scratch[: rows.stop - first]
        x.copy_(activations[rows])
        for number, moment in enumerate(moments):
            if moment == CHANGE_MOMENT:
                change = torch.sub(x, base[rows], out=out).square_()
                sums[number].addmm_(weights[:, rows], change)
            elif moment == BASE_MOMENT:
                sums[number].addmm_(weights[:, rows], out.copy_(base[rows]).abs_())
            else:
                sums[number].addmm_(weights[:, rows], MOMENTS[moment](x, out))
    return sums


MOST = 0.9  # where more of the tokens count, taking all with some weights zero is faster than picking rows


@dataclass
class PassSums:
    """Sums over tokens for one model, float64 in the totals.

    Args:
        moments: (moments, scopes, 2, L, N), sides chosen and rejected.
        weights: (scopes, 2), summed token weights.
        attribution: (scopes, L, N), sum over items.
    """

    moments: torch.Tensor
    weights: torch.Tensor
    attribution: torch.Tensor

    @classmethod
    def zeros(cls, observation: "Observation", shape: tuple[int, int]) -> "PassSums":
        """Return empty totals."""
        n_scopes = len(observation.scopes)
        return cls(
            moments=torch.zeros(len(observation.moments), n_scopes, 2, *shape, dtype=torch.float64),
            weights=torch.zeros(n_scopes, 2, dtype=torch.float64),
            attribution=torch.zeros(n_scopes, *shape, dtype=torch.float64),
        )

    def add(self, other: "PassSums") -> None:
        """Add the sums of a batch."""
        self.moments += other.moments
        self.weights += other.weights
        self.attribution += other.attribution


@dataclass(frozen=True)
class Observation:
    """What to gather: ``moments`` of the models' activations at a site, over the tokens of several scopes."""

    models: tuple[PreTrainedModel, ...]
    base: PreTrainedModel | None
    site: str
    scopes: tuple[str, ...]
    moments: tuple[str, ...]
    is_attributed: bool
    tokenizer: PreTrainedTokenizerFast

    @contextmanager
    def running(self) -> Iterator[Callable[[list[PreparedItem]], list[PassSums]]]:
        """Give a function from the items of a batch to one `PassSums` per model."""
        head_pad = self.models[0].config.pad_token_id
        pad_token_id = self.tokenizer.pad_token_id if head_pad is None else head_pad
        with ExitStack() as stack:
            forwards = [stack.enter_context(packed_attention(model)) for model in self.models]
            needs_base = self.site == HEADS or not set(BASED_MOMENTS).isdisjoint(self.moments)
            base_forward = stack.enter_context(packed_attention(self.base)) if needs_base else None

            def step(group: list[PreparedItem]) -> list[PassSums]:
                batch = pack_items(group, pad_token_id)
                weights = torch.stack([batch.weights(scope) for scope in self.scopes])  # (scopes, 2, T)
                rows = weights.sum(dim=(0, 1)).nonzero()[:, 0]
                rows = None if len(rows) > MOST * weights.shape[-1] else rows
                base = self._base_activations(base_forward, batch, rows) if needs_base else None
                passes = (_Pass(self, model, weights, rows, base) for model in self.models)
                return [each.run(forward, batch) for each, forward in zip(passes, forwards, strict=True)]

            yield step

    def _base_activations(
        self, forward: Callable[[PackedBatch], torch.Tensor], batch: PackedBatch, rows: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Return the base model's activations (rows, N) of every layer."""
        layers: dict[int, torch.Tensor] = {}

        def keep(layer: int, activations: torch.Tensor) -> None:
            layers[layer] = select_rows(activations[0], rows)

        with torch.inference_mode(), observed(self.base, self.site, keep):
            forward(batch)
        return [layers[layer] for layer in sorted(layers)]


def select_rows(activations: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    """Return the activations (rows, N) of some tokens; None stands for all."""
    return activations if rows is None else activations[rows.to(activations.device)]


class _Pass:
    """One forward, and with attribution one backward, of one model over one batch."""

    def __init__(
        self,
        observation: Observation,
        model: PreTrainedModel,
        weights: torch.Tensor,
        rows: torch.Tensor | None,
        base: list[torch.Tensor] | None,
    ) -> None:
        self.observation, self.model, self.rows, self.base = observation, model, rows, base
        self.total_weights = weights.sum(dim=-1)
        self.weights = (weights if rows is None else weights[..., rows]).to(model.device)  # (scopes, 2, rows)
        self.moments: dict[int, torch.Tensor] = {}
        self.attribution: dict[int, torch.Tensor] = {}

    def run(self, forward: Callable[[PackedBatch], torch.Tensor], batch: PackedBatch) -> PassSums:
        with observed(self.model, self.observation.site, self._observe):
            if self.observation.is_attributed:
                with _frozen_parameters(self.model), torch.inference_mode(False), torch.enable_grad():
                    margins(batch_rewards(self.model, forward(batch), batch), batch).sum().backward()
            else:
                with torch.inference_mode():
                    forward(batch)
        moments = torch.stack([self.moments[layer] for layer in sorted(self.moments)], dim=2)
        moments = moments.unflatten(1, (len(self.observation.scopes), 2))  # (moments, scopes, 2, L, N)
        attribution = torch.zeros(len(self.observation.scopes), *moments.shape[-2:])
        if self.attribution:
            attribution = torch.stack([self.attribution[layer] for layer in sorted(self.attribution)], dim=1)
        return PassSums(moments.cpu(), self.total_weights, attribution.cpu())

    def _observe(self, layer: int, activations: torch.Tensor) -> None:
        """Add up a layer's moments, and have its gradient added up when the backward pass reaches it."""
        values = select_rows(activations.detach()[0], self.rows)
        base = self.base[layer] if self.base is not None else None
        if self.observation.site == HEADS:
            values, base = head_changes(values, base, site_shape(self.model, HEADS)[1]), None
        self.moments[layer] = weighted_moments(values, self.weights.flatten(0, 1), self.observation.moments, base)
        if not self.observation.is_attributed:
            return
        if not activations.requires_grad:
            activations.requires_grad_()  # the first layer: no parameter below it asks for a gradient

        def attribute(gradient: torch.Tensor) -> None:
            product = values.float() * select_rows(gradient[0], self.rows).float()  # (rows, N)
            in_scope = (self.weights.sum(dim=1) > 0).float()  # (scopes, rows)
            self.attribution[layer] = in_scope @ product

        activations.register_hook(attribute)


@contextmanager
def _frozen_parameters(model: PreTrainedModel) -> Iterator[None]:
    """Ask for no parameter's gradient, so that the backward pass computes those of activations alone."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)


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
    template: str | None = None,
    max_length: int | None = None,
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
        site: "down_input" (the neuron), "gate" (the output of the activation function) or "heads" (the change of each
            attention head, see `head_changes`; with `HEAD_KINDS`).
        scope: one or several of "all" (every token), "response" (from the first token of the response), "last" (the
            token at which the reward is read).
        template: as for `evaluation.score_items`.
        max_length: tokens per sequence; longer prompts lose their left part; None takes whole texts.
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
        template=template,
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
    template: str | None = None,
    max_length: int | None = None,
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
            lambda window: prepare_items(tokenizer, window, max_length, template),
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
    unfit = set(kinds) - set(HEAD_KINDS)
    if site == HEADS and unfit:
        raise ValueError(f"kinds: expected at heads one of {', '.join(HEAD_KINDS)}; got {', '.join(sorted(unfit))}")
    based = [kind for kind in kinds if kind in BASED_KINDS or site == HEADS]
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
