"""Measure the engine as ratios of two things timed alternately in one run.

python benchmarks/engine.py --base-model FOLDER --data-source FOLDER [--rm-bench FILE] [--pairs 128] [--threads 2]

Without a base model a random one of SmolLM2-135M's size is used, without data random text. ``--clock cpu`` counts
processor time, for a machine that other people use too.
"""

import argparse
import gc
import json
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from tension_utils.ablation import ablated
from tension_utils.activations import DEFAULT_KINDS, neuron_scores
from tension_utils.architectures import architecture_of, neuron_shape
from tension_utils.data import Item, Turn
from tension_utils.engine.batches import CPU_TOKENS
from tension_utils.engine.packing import PreparedItem, prepare_items, read_position
from tension_utils.evaluation import score_items
from tension_utils.models import load_tokenizer, new_reward_model
from tension_utils.neurons import random_neurons

MAX_LENGTH = 1024
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class RandomTokenizer:
    """Stands in where no tokenizer is given: words are random ids."""

    eos_token_id = pad_token_id = 0

    def __call__(self, text: str, **_: object) -> dict:
        words = text.split(" ")
        ends = np.cumsum([len(word) + 1 for word in words]) - 1
        ids = [1 + hash(word) % 49_000 for word in words]
        return {"input_ids": ids, "offset_mapping": [(0, int(end)) for end in ends]}


def load_model(folder: str | None, dtype: torch.dtype, n_layers: int | None):
    if folder:
        model, tokenizer = new_reward_model(folder, 0), load_tokenizer(folder, pad_with_eos=True)
    else:
        config = LlamaConfig(
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            vocab_size=49_152,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            num_labels=1,
            pad_token_id=0,
        )
        model, tokenizer = LlamaForSequenceClassification(config), RandomTokenizer()
    if n_layers:
        model.model.layers = model.model.layers[:n_layers]
        model.config.num_hidden_layers = model.model.config.num_hidden_layers = n_layers
    model.config.pad_token_id = tokenizer.pad_token_id
    model.model.to(dtype)
    return model.requires_grad_(False).eval(), tokenizer


def load_pairs(source: str | None, n_pairs: int) -> list[Item]:
    """HH-RLHF test pairs in a fixed random order, or random text of the same lengths."""
    rng = np.random.default_rng(0)
    if source is None:
        words = np.array([f"w{i}" for i in range(5000)])
        draw = lambda mean: " ".join(rng.choice(words, 1 + int(rng.gamma(2.0, mean / 2))))  # noqa: E731
        return [Item(str(i), (Turn("human", draw(150)),), (draw(50),), (draw(50),)) for i in range(n_pairs)]
    from datasets import load_dataset

    rows = [row for part in ("helpful-base", "harmless-base") for row in load_dataset(source, data_dir=part)["test"]]
    items = []
    for number in rng.permutation(len(rows)):
        texts = [rows[number][side].rsplit("\n\nAssistant:", 1) for side in ("chosen", "rejected")]
        prompts, responses = zip(*texts, strict=True)
        if prompts[0] == prompts[1]:
            prompt = (Turn("human", prompts[0].removeprefix("\n\nHuman:").strip()),)
            items.append(Item(str(number), prompt, (responses[0].strip(),), (responses[1].strip(),)))
    return items[:n_pairs]


def six_responses(pairs: list[Item]) -> list[Item]:
    """Give each prompt the responses of its own and of two other pairs."""
    own = [(p.chosen[0], p.rejected[0]) for p in pairs]
    trios = [(own[i], own[i - 1], own[i - 2]) for i in range(len(pairs))]
    return [
        Item(p.item_id, p.prompt, tuple(c for c, _ in trio), tuple(r for _, r in trio))
        for p, trio in zip(pairs, trios, strict=True)
    ]


@torch.inference_mode()
def score_apart(model, items: list[PreparedItem], budget: int) -> list[float]:
    """Score every response by itself: sorted by length, dynamic padding to the batch, the same token budget."""
    sequences = [sequence for item in items for sequence in item.tokens.sequences]
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    rewards, first, pad = [0.0] * len(sequences), 0, model.config.pad_token_id
    while first < len(order):
        batch = order[first : first + max(1, budget // len(sequences[order[first]]))]
        first += len(batch)
        ids, mask = padded([sequences[i] for i in batch], pad, len(sequences[batch[0]]), model.device)
        hidden = model.model(ids, attention_mask=mask, use_cache=False).last_hidden_state
        reads = torch.tensor([read_position(sequences[i], pad) for i in batch])
        values = hidden[torch.arange(len(batch)), reads].float() @ model.score.weight.float().T
        for i, value in zip(batch, values[:, 0].tolist(), strict=True):
            rewards[i] = value
    return rewards


def padded(sequences, pad: int, length: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = torch.full((len(sequences), length), pad), torch.zeros(len(sequences), length, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)], mask[row, : len(sequence)] = torch.tensor(sequence), 1
    return ids.to(device), mask.to(device)


@torch.inference_mode()
def published_statistics(model, items: list[PreparedItem]) -> None:
    """Neuron statistics the published way: each side padded to the maximum, batch 8, a hook on every layer."""
    state = {}
    n_layers, n_neurons = neuron_shape(model)
    sums = {kind: torch.zeros(2, n_layers, n_neurons) for kind in ("sum", "positive")}

    def hook(layer: int) -> Callable:
        def observe(_, __, output) -> None:
            real = output[state["mask"].bool()].float()
            sums["sum"][state["side"], layer] += real.sum(0)
            sums["positive"][state["side"], layer] += (real > 0).sum(0)

        return observe

    modules = architecture_of(model).parts_of(model, "activation")
    handles = [module.register_forward_hook(hook(layer)) for layer, module in enumerate(modules)]
    for side in (0, 1):
        for first in range(0, len(items), 8):
            batch = [item.tokens.sequences[side] for item in items[first : first + 8]]
            ids, mask = padded(batch, model.config.pad_token_id, MAX_LENGTH, model.device)
            state.update(mask=mask, side=side)
            model(ids, attention_mask=mask, use_cache=False)
    for handle in handles:
        handle.remove()


def zeroed_by_hooks(model, neurons, run: Callable) -> None:
    """Zero-ablate with a hook on every layer, as most code does."""
    handles = []
    for layer, module in enumerate(architecture_of(model).parts_of(model, "down")):
        keep = torch.from_numpy(~neurons.mask[layer]).to(model.device, model.dtype)
        handles.append(module.register_forward_pre_hook(lambda _, args, keep=keep: (args[0] * keep,)))
    run()
    for handle in handles:
        handle.remove()


def alternately(first: Callable, second: Callable, clock: Callable, repeats: int) -> tuple[float, float]:
    """Return the median seconds of both, timed in turns after one warm-up each."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for run, taken in zip((first, second), times, strict=True):
            gc.collect()
            start = clock()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                taken.append(clock() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def matmul_rate(dtype: torch.dtype, device: torch.device, clock: Callable) -> float:
    """Return the floating-point operations per second of the MLP's own matrix product."""
    x, w = (torch.randn(*shape, device=device).to(dtype) for shape in ((CPU_TOKENS, 576), (1536, 576)))
    seconds, _ = alternately(lambda: [x @ w.T for _ in range(20)], lambda: None, clock, 5)
    return 20 * 2 * CPU_TOKENS * 576 * 1536 / seconds


class PeakMemory:
    """The most memory resident since the start, sampled; the kernel's own record would be that of loading the model."""

    def __init__(self) -> None:
        self.peak, self.is_done, self.process = 0, threading.Event(), psutil.Process()
        self.thread = threading.Thread(target=self.sample, daemon=True)
        self.thread.start()

    def sample(self) -> None:
        while not self.is_done.wait(0.02):
            self.peak = max(self.peak, self.process.memory_info().rss)

    def stop(self) -> int:
        self.is_done.set()
        self.thread.join()
        return self.peak


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.clock, self.repeats = CLOCKS[options.clock], options.repeats
        self.options, self.dtype = options, getattr(torch, options.dtype)
        self.model, self.tokenizer = load_model(options.base_model, self.dtype, options.layers)
        self.model.to(options.device)
        self.pairs = self.prepare(load_pairs(options.data_source, options.pairs))
        self.budget = options.tokens_per_batch
        self.results: list[tuple[str, float, str]] = []

    def prepare(self, items: list[Item]) -> list[PreparedItem]:
        return prepare_items(self.tokenizer, items, MAX_LENGTH)

    def score(self, items: list[PreparedItem], model=None) -> None:
        score_items(
            model or self.model, self.tokenizer, items,
            max_length=MAX_LENGTH, tokens_per_batch=self.budget, progress=False,
        )  # fmt: skip

    def observe(self, items: list[PreparedItem], kinds=DEFAULT_KINDS) -> None:
        neuron_scores(
            self.model, self.tokenizer, items,
            kinds=kinds, max_length=MAX_LENGTH, tokens_per_batch=self.budget, progress=False,
        )  # fmt: skip

    def report(self, name: str, ratio: float, target: str) -> None:
        self.results.append((name, ratio, target))
        print(f"{name:<78} {ratio:6.2f}   {target}", flush=True)

    def versus(self, name: str, target: str, slow: Callable, fast: Callable, scale: float = 1.0) -> float:
        first, second = alternately(slow, fast, self.clock, self.repeats)
        self.report(name, first * scale / second, target)
        return second

    def published(self) -> None:
        few = self.pairs[:8]  # a padded batch costs the same whatever is in it
        self.versus(
            "published way (padded to 1024, batch 8, hooks) / engine, neuron statistics", ">= 8",
            lambda: published_statistics(self.model, few), lambda: self.observe(self.pairs), len(self.pairs) / 8,
        )  # fmt: skip

    def sharing(self) -> None:
        seconds = self.versus(
            "length-bucketed dynamic padding / engine, rewards", ">= 1.5",
            lambda: score_apart(self.model, self.pairs, self.budget), lambda: self.score(self.pairs),
        )  # fmt: skip
        n_tokens = sum(item.n_forward_tokens for item in self.pairs)
        layers = self.model.model.layers.parameters()
        rate = 2 * sum(p.numel() for p in layers if p.ndim == 2) * n_tokens / seconds
        peak = matmul_rate(self.dtype, self.model.device, self.clock)
        all_tokens = sum(item.n_tokens for item in self.pairs)
        print(f"    tokens {all_tokens:,}, computed {n_tokens:,}; their ratio {all_tokens / n_tokens:.2f}")
        print(f"    {n_tokens / seconds:,.0f} computed tokens/s, {all_tokens / seconds:,.0f} tokens/s as scored apart")
        self.report(f"share of the measured matmul rate ({peak / 1e9:,.0f} GFLOP/s)", rate / peak, "printed")

    def six(self) -> None:
        groups = {
            "six responses to an HH-RLHF prompt": six_responses(
                load_pairs(self.options.data_source, len(self.pairs) // 4)
            )
        }
        if self.options.rm_bench:
            rows = json.loads(Path(self.options.rm_bench).read_text())
            rows = rows[:: len(rows) // max(2, len(self.pairs) // 16)]
            groups["RM-Bench's own items"] = [
                Item(str(i), (Turn("human", r["prompt"]),), tuple(r["chosen"]), tuple(r["rejected"]))
                for i, r in enumerate(rows)
            ]
        for name, items in groups.items():
            six = self.prepare(items)
            self.versus(
                f"{name}: responses apart / engine", ">= 2",
                lambda six=six: score_apart(self.model, six, self.budget), lambda six=six: self.score(six),
            )  # fmt: skip
            n_tokens, n_computed = (sum(getattr(i, name) for i in six) for name in ("n_tokens", "n_forward_tokens"))
            print(f"    tokens {n_tokens:,}, computed {n_computed:,}; their ratio {n_tokens / n_computed:.2f}")
            nine = self.prepare(
                [Item(i.item_id, i.prompt, (c,), (r,)) for i in items for c in i.chosen for r in i.rejected]
            )
            self.versus(
                f"{name}: its nine pairs apart / engine", "",
                lambda nine=nine: score_apart(self.model, nine, self.budget), lambda six=six: self.score(six),
            )  # fmt: skip

    def kinds(self) -> None:
        first, second = alternately(
            lambda: self.observe(self.pairs), lambda: self.score(self.pairs), self.clock, self.repeats
        )
        self.report("engine with all activation kinds / bare scoring", first / second, "<= 1.25")
        few = self.pairs[: len(self.pairs) // 4]
        first, second = alternately(
            lambda: self.observe(few, ["attribution"]), lambda: self.score(few), self.clock, self.repeats
        )
        self.report("engine with attribution (one backward pass) / bare scoring", first / second, "printed")

    def ablation(self) -> None:
        neurons = random_neurons(neuron_shape(self.model), 0.3, np.random.default_rng(0))

        def surgery() -> None:
            with ablated(self.model, neurons):
                self.score(self.pairs)

        hooks = lambda: zeroed_by_hooks(self.model, neurons, lambda: self.score(self.pairs))  # noqa: E731
        self.versus("zero-ablation with hooks / ablated", ">= 1.0", hooks, surgery)

    def scaling(self) -> None:
        sizes = sorted(self.options.scaling)
        first = load_pairs(self.options.data_source, sizes[0])  # repeated, so that only their number differs
        items = [first[i % len(first)] for i in range(sizes[-1])]
        self.score(self.prepare(first))
        taken: dict[int, list[float]] = {size: [] for size in sizes}
        memory = {}
        for size in (*sizes, *sizes[-2::-1]):  # up and down, so that a drift of the machine's speed cancels
            peak = PeakMemory()
            start = self.clock()
            score_items(
                self.model, self.tokenizer, items[:size],
                max_length=MAX_LENGTH, tokens_per_batch=self.budget, progress=False,
            )  # fmt: skip
            taken[size].append(self.clock() - start)
            memory[size] = max(memory.get(size, 0), peak.stop() / 2**30)
        seconds, memory = [statistics.mean(taken[size]) for size in sizes], [memory[size] for size in sizes]
        exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
        print(f"    items {sizes}, seconds {np.round(seconds, 1)}, peak GiB {np.round(memory, 2)}")
        self.report(f"exponent of time against items, {sizes[0]} to {sizes[-1]}", exponent, "<= 1.05")
        self.report("peak memory, most items / fewest", memory[-1] / memory[0], "<= 1.10")


PARTS = ("scaling", "sharing", "published", "six", "kinds", "ablation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model")
    parser.add_argument("--data-source")
    parser.add_argument("--rm-bench", help="total_dataset.json of RM-Bench")
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--layers", type=int, help="keep only the first layers, for a quick look")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens-per-batch", type=int, default=CPU_TOKENS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scaling", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench = Bench(options)
    print(f"{'ratio':<78} {'value':>6}   target")
    for part in options.parts:
        getattr(bench, part)()


if __name__ == "__main__":
    main()
