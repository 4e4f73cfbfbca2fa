"""Measure what the stages add to the engine, as ratios of parts timed in one run.

python benchmarks/stages.py --reward-model FOLDER --rm-bench FILE [--prompts 570] [--clock cpu]

* evaluate: loading, tokenizing, scoring and tabling RM-Bench (six responses a prompt, nine pairs) / scoring alone
* ablate: one condition of the ablate stage / one pass through the intact model, alternately; the same for a set from
  layer ``--first-layer`` on, below which the layers are computed once
"""

import argparse
import itertools
import statistics
import time
from contextlib import ExitStack

import numpy as np
import torch

from tension_utils.ablation import ablated
from tension_utils.architectures import neuron_shape
from tension_utils.benchmarks.load import first_prompts, load_benchmark
from tension_utils.engine.lower_layers import LowerLayers
from tension_utils.evaluation import group_by_prompt, reward_rows, score_groups, score_items, split_rewards
from tension_utils.models import load_reward_model, load_tokenizer
from tension_utils.neurons import NeuronSet, random_neurons
from tension_utils.statistics import Bootstrap, accuracy_table

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def report(name: str, value: float, target: str = "") -> None:
    """Print one line of the table."""
    print(f"{name:<70} {value:>8.3f}   {target}", flush=True)


def evaluate(options: argparse.Namespace, model: torch.nn.Module, tokenizer: object) -> list:
    """Report the whole of evaluating RM-Bench as a ratio to scoring its prompts; return the prompt groups."""
    clock, marks = CLOCKS[options.clock], []
    marks.append(clock())
    items = first_prompts(load_benchmark("rm-bench", options.rm_bench), options.prompts // 3)
    marks.append(clock())
    groups, _ = group_by_prompt(tokenizer, items, options.max_length)
    marks.append(clock())
    rewards = score_items(
        model, tokenizer, [group.prepared for group in groups], max_length=options.max_length, progress=False
    )
    marks.append(clock())
    values = [each for group, found in zip(groups, rewards, strict=True) for each in split_rewards(group, found)]
    rows = reward_rows([item for group in groups for item in group.items], values)
    marks.append(clock())
    label = {"base_model": "benchmark", "objective": "helpful", "seed": 0}
    accuracy_table(rows.assign(**label), ["objective", "benchmark", "subset", "style"], Bootstrap())
    marks.append(clock())
    load, tokenize, score, table, summary = np.diff(marks)
    n_responses = sum(len(group.responses) for group in groups)
    print(
        f"{len(groups)} prompts, {n_responses} responses, {len(items)} pairs, scoring {score:.1f} s ({options.clock})"
    )
    report("evaluate: everything / scoring", sum((load, tokenize, score, table, summary)) / score, "<= 1.3")
    report("evaluate: loading / scoring", load / score)
    report("evaluate: tokenizing / scoring", tokenize / score)
    report("evaluate: tables, with bootstrap intervals / scoring", (table + summary) / score, "<= 0.05")
    return groups


def ablate(options: argparse.Namespace, model: torch.nn.Module, tokenizer: object, groups: list) -> None:
    """Report the time of one ablated condition as a ratio to the intact model's."""
    clock, rng = CLOCKS[options.clock], np.random.default_rng(0)
    few, taken = groups[: options.ablated_prompts], {"intact": [], "ablated": [], "upper": []}
    lower, shape, first = LowerLayers(model), neuron_shape(model), options.first_layer
    upper = NeuronSet(np.broadcast_to(np.arange(shape[0])[:, None] >= first, shape))
    for _, name in itertools.product(range(options.repeats + 1), taken):
        start = clock()
        with ExitStack() as stack:
            if name != "intact":
                neurons = random_neurons(shape, 0.1, rng)
                stack.enter_context(ablated(model, neurons & upper if name == "upper" else neurons))
            if name == "upper":
                stack.enter_context(lower.skipped(first))
            score_groups(model, tokenizer, few, max_length=options.max_length, progress=False)
        taken[name].append(clock() - start)
    intact, condition, part = (statistics.median(values[1:]) for values in taken.values())  # the first is a warm-up
    report(
        f"ablate: one condition / intact pass ({len(few)} prompts, {condition:.1f} s)", condition / intact, "<= 1.05"
    )
    report(f"ablate: one condition from layer {first} of {shape[0]} on / intact pass", part / intact)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reward-model", required=True)
    parser.add_argument("--rm-bench", required=True, help="folder or public name")
    parser.add_argument("--prompts", type=int, default=570)
    parser.add_argument("--ablated-prompts", type=int, default=12)
    parser.add_argument("--first-layer", type=int, default=8, help="of the second kind of set; equal activity has 8")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_reward_model(options.reward_model, dtype=options.dtype, device="cpu")
    tokenizer = load_tokenizer(options.reward_model)
    ablate(options, model, tokenizer, evaluate(options, model, tokenizer))


if __name__ == "__main__":
    main()
