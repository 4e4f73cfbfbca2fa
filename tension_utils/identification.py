"""The identify stage: neuron statistics of one reward model on its own text, and the views to compare them with."""

import dataclasses
from pathlib import Path

from tension_utils.activations import BASED_KINDS, neuron_scores, split_half_scores, text_scores
from tension_utils.artifacts import atomic_path
from tension_utils.config import SINGLE_OBJECTIVES, IdentifyConfig
from tension_utils.data import Item
from tension_utils.generic_text import PYDOC, load_passages
from tension_utils.models import load_base_model
from tension_utils.pairs import training_pairs
from tension_utils.runs import Run
from tension_utils.scores import ACTIVATION_KINDS, BASE_GENERIC, GENERIC, OWN_SCORES, VIEWS, NeuronScores
from tension_utils.stages import Stage
from tension_utils.training import local_inputs, resolve_source

VIEW_KINDS = (*ACTIVATION_KINDS, "rms_change")  # that tables read on both texts, whatever else is asked for
GENERIC_KINDS = (*ACTIVATION_KINDS, "rms")
GENERIC_SEED = 0  # every reward model reads the same passages


def training_texts(stage: Stage, n_items: int) -> dict[str, list[Item]]:
    """Return the first training pairs, of the run's seed, of its own objective and of both single ones.

    Args:
        stage: of the run.
        n_items: pairs per objective; 0 takes all.
    """
    objectives = dict.fromkeys((stage.run.objective, *SINGLE_OBJECTIVES))
    pairs = {objective: training_pairs(stage.data, objective, stage.run.seed).train for objective in objectives}
    return {objective: list(items)[: n_items or None] for objective, items in pairs.items()}


def identify_run(run: Run, config: IdentifyConfig) -> bool:
    """Take neuron statistics and write ``neuron_scores.safetensors`` and the files of ``score_views``.

    Views: "half-0" and "half-1" are the same statistics over every second pair; "gate" has every kind and scope at the
    published site, "heads" the change of attention heads; "text-helpful" and "text-harmless" have every kind, of this
    reward model on the training pairs of that objective, so that attribution tells what a neuron adds to the margin on
    either; a run of a single objective adds "base-text-<objective>", the untouched base model on them. With
    ``config.n_generic``, "generic" and "base-generic" are the two models on plain text without labels: what is loud
    there was loud before training, on any text.

    Returns:
        True if it computed, False if it found the artifact.

    Source: section 1 of METHOD.md, "Neuron scores"; the views are ours (section 2, facts 3 and 7).
    """
    stage = Stage(run, "identify", OWN_SCORES, config)
    if not stage.start():
        return False
    texts = training_texts(stage, config.engine.n_items)
    source = resolve_source(run.base_model, run.root, "base_model")
    options = stage.engine_options() | {"base_model": load_base_model(source, **stage.placement)}
    scores, *halves = split_half_scores(
        stage.model,
        stage.tokenizer,
        texts[run.objective],
        kinds=config.score_kinds,
        scope=config.scopes,
        **options,
    )
    found = {f"half-{number}": half for number, half in enumerate(halves)} | _own_text(stage, config, texts, scores)
    taken = _views(stage, config, texts, options, found) | _generic_views(stage, config, options)
    with atomic_path(run.folder / VIEWS) as temporary:
        temporary.mkdir(parents=True)
        for name, view in (found | taken).items():
            view.save(temporary / f"{name}.safetensors")
    with atomic_path(run.folder / OWN_SCORES) as temporary:
        scores.save(temporary)
    stage.inputs |= local_inputs(base_model=source)
    if config.n_generic and config.generic_text != PYDOC:
        stage.inputs["generic_text"] = Path(config.generic_text).expanduser()
    n_tokens = scores.n_tokens + sum(view.n_tokens for view in taken.values())
    counts = {"n_view_items": config.n_view_items, "n_generic": config.n_generic}
    stage.finish(n_tokens, n_items=len(texts[run.objective]), **counts)
    return True


def _text_kinds(config: IdentifyConfig) -> tuple[str, ...]:
    """Return the score kinds of the views on both texts."""
    return tuple(dict.fromkeys((*config.score_kinds, *VIEW_KINDS)))


def _own_text(
    stage: Stage, config: IdentifyConfig, texts: dict[str, list[Item]], scores: NeuronScores
) -> dict[str, NeuronScores]:
    """Return the view on the own objective's text where the run's own scores are just that; else nothing."""
    objective = stage.run.objective
    is_whole = len(texts[objective][: config.n_view_items or None]) == len(texts[objective])
    has_all = set(_text_kinds(config)) <= set(config.score_kinds) and "all" in config.scopes
    if objective not in SINGLE_OBJECTIVES or not (is_whole and has_all):
        return {}
    tensors = {key: values for key, values in scores.tensors.items() if key[2] == "all"}
    return {f"text-{objective}": dataclasses.replace(scores, tensors=tensors)}


def _generic_views(stage: Stage, config: IdentifyConfig, options: dict) -> dict[str, NeuronScores]:
    """Return the statistics of the reward model and of the base model on generic text, if it is asked for."""
    if not config.n_generic:
        return {}
    texts = load_passages(config.generic_text, config.n_generic, GENERIC_SEED)
    asked = {
        GENERIC: (stage.model, (*GENERIC_KINDS, *BASED_KINDS)),
        BASE_GENERIC: (options["base_model"], GENERIC_KINDS),
    }
    return {
        view: text_scores(model, stage.tokenizer, texts, kinds=kinds, **options)
        for view, (model, kinds) in asked.items()
    }


def _views(
    stage: Stage, config: IdentifyConfig, texts: dict[str, list[Item]], options: dict, found: dict[str, NeuronScores]
) -> dict[str, NeuronScores]:
    """Return the statistics at other sites, on both texts, and of the base model, but for views that were found."""
    objective, base = stage.run.objective, options["base_model"]
    texts = {name: items[: config.n_view_items or None] for name, items in texts.items()}
    asked = {
        "gate": (stage.model, objective, config.score_kinds, "gate", config.scopes),
        "heads": (stage.model, objective, ("rms_change",), "heads", "all"),
        **{f"text-{name}": (stage.model, name, _text_kinds(config), "down_input", "all") for name in SINGLE_OBJECTIVES},
    }
    if objective in SINGLE_OBJECTIVES:
        asked[f"base-text-{objective}"] = (base, objective, ACTIVATION_KINDS, "down_input", "all")
    return {
        view: neuron_scores(model, stage.tokenizer, texts[text], kinds=kinds, site=site, scope=scope, **options)
        for view, (model, text, kinds, site, scope) in asked.items()
        if view not in found
    }
