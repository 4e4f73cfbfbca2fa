"""Measure the tension between helpfulness and harmlessness in reward models.

Score a pair with a reward model, remove the neurons that its margin owes most to, and see the margin move:

.. code-block:: python

    import tension_utils as tu

    name = "Ray2333/gpt2-large-helpful-reward_model"  # a public name or a folder
    model, tokenizer = tu.load_reward_model(name), tu.load_tokenizer(name, pad_with_eos=True)
    pairs = [tu.pair("How do I bake bread?", chosen="Mix flour and water.", rejected="I cannot help with that.")]
    scores = tu.neuron_scores(model, tokenizer, pairs, kinds="attribution")
    top = tu.top_neurons(scores.get("attribution"), fraction=0.01)
    with tu.ablated(model, top):
        without = tu.score(model, tokenizer, pairs)[0].margin
    print(f"margin {tu.score(model, tokenizer, pairs)[0].margin:+.3f}, without {len(top)} neurons {without:+.3f}")

These names are loaded when they are used, so that importing the package costs nothing:

* `load_reward_model`, `load_tokenizer`: a folder or public name of a one-label sequence classifier
* `pair`, `load_benchmark`: items to score, your own or those of a benchmark
* `score`: the rewards of every response, the margin and the credit of every item
* `neuron_scores`, `top_neurons`, `NeuronSet`, `jaccard`: score neurons, take the top ones, compare sets
* `ablated`: remove or scale neurons while a context is open
* `adopt_run`: give a reward model that was trained elsewhere a run's folder, on which the stages work
* `Run`: one reward model of a study and the folder of its artifacts
"""

from importlib import import_module

__version__ = "0.2.0"
_HOMES = {
    "load_reward_model": "models",
    "load_tokenizer": "models",
    "pair": "data",
    "load_benchmark": "benchmarks.load",
    "score": "evaluation",
    "neuron_scores": "activations",
    "top_neurons": "neurons",
    "NeuronSet": "neurons",
    "jaccard": "neurons",
    "ablated": "ablation",
    "adopt_run": "adoption",
    "Run": "config",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    """Import a public name from its home when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(_HOMES)}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), {"score": "score_items"}.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
