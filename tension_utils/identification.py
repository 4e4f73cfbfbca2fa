"""The identify stage: neuron statistics of one reward model on its own text, and the views to compare them with."""

from tension_utils.activations import neuron_scores, split_half_scores
from tension_utils.artifacts import atomic_path
from tension_utils.config import SINGLE_OBJECTIVES, IdentifyConfig
from tension_utils.data import Item
from tension_utils.models import load_base_model
from tension_utils.pairs import training_pairs
from tension_utils.runs import Run
from tension_utils.scores import ACTIVATION_KINDS, OWN_SCORES, VIEWS, NeuronScores
from tension_utils.stages import Stage
from tension_utils.training import local_inputs, resolve_source

VIEW_KINDS = (*ACTIVATION_KINDS, "rms_change")


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
    published site, "heads" the change of attention heads;
    "text-helpful" and "text-harmless" are this reward model on the training pairs of that objective; a run of a single
    objective adds "base-text-<objective>", the untouched base model on them.

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
    views = {f"half-{number}": half for number, half in enumerate(halves)} | _views(stage, config, texts, options)
    with atomic_path(run.folder / VIEWS) as temporary:
        temporary.mkdir(parents=True)
        for name, view in views.items():
            view.save(temporary / f"{name}.safetensors")
    with atomic_path(run.folder / OWN_SCORES) as temporary:
        scores.save(temporary)
    stage.inputs |= local_inputs(base_model=source)
    n_tokens = scores.n_tokens + sum(view.n_tokens for name, view in views.items() if not name.startswith("half"))
    stage.finish(n_tokens, n_items=len(texts[run.objective]), n_view_items=config.n_view_items)
    return True


def _views(
    stage: Stage, config: IdentifyConfig, texts: dict[str, list[Item]], options: dict
) -> dict[str, NeuronScores]:
    """Return the statistics at other sites, on both texts, and of the base model."""
    objective, base = stage.run.objective, options["base_model"]
    texts = {name: items[: config.n_view_items or None] for name, items in texts.items()}
    asked = {
        "gate": (stage.model, objective, config.score_kinds, "gate", config.scopes),
        "heads": (stage.model, objective, ("rms_change",), "heads", "all"),
        **{f"text-{name}": (stage.model, name, VIEW_KINDS, "down_input", "all") for name in SINGLE_OBJECTIVES},
    }
    if objective in SINGLE_OBJECTIVES:
        asked[f"base-text-{objective}"] = (base, objective, ACTIVATION_KINDS, "down_input", "all")
    return {
        view: neuron_scores(model, stage.tokenizer, texts[text], kinds=kinds, site=site, scope=scope, **options)
        for view, (model, text, kinds, site, scope) in asked.items()
    }
