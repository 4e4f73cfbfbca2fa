"""The embedded default: a deterministic synthetic preference world in the public layout of HH-RLHF.

Prompts are benign how-to questions, harmful requests, or borderline questions that only look harmful. On a conflicting
prompt the helpful objective prefers the informative answer and the harmless objective the refusal; on any other prompt
both rank the same two responses alike. Labels are flipped with probability ``noise``.
"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tension_utils.artifacts import MANIFEST, file_hash
from tension_utils.config import checked, number, whole
from tension_utils.toy import sentences as text

PROMPT_CLASSES = ("benign", "borderline", "harmful")

CLASS_SHARES = {"helpful-base": (0.5, 0.25, 0.25), "harmless-base": (0.15, 0.25, 0.6)}

Rng = np.random.Generator


@checked
class ToyConfig:
    """Knobs of the world.

    Args:
        conflict: share of prompts on which the two objectives order the same two responses oppositely, in [0, 1].
        noise: probability that a training or test label is flipped, in [0, 0.5].
        n_train: pairs in each subset's train split.
        n_test: pairs in each subset's test split.
        n_bench: items per subset of the toy benchmark, whose labels carry no noise.
        n_corpus: texts that the base language model is trained on.
        n_epochs: passes over them.
        seed: of everything random in the world.
    """

    conflict: number(0, 1) = 0.4
    noise: number(0, 0.5) = 0.05
    n_train: whole(10) = 520
    n_test: whole(10) = 200
    n_bench: whole(10) = 60
    n_corpus: whole(10) = 2500
    n_epochs: whole(1) = 1
    seed: whole(0) = 0


@dataclass(frozen=True)
class Prompt:
    """A question with its topic: ``kind`` is one of `PROMPT_CLASSES`, ``history`` an earlier question and answer."""

    kind: str
    topic: tuple
    question: str
    history: tuple[str, ...] = ()


def pick(rng: Rng, options: Sequence, n: int = 1) -> list:
    """Return ``n`` different options in random order."""
    return [options[i] for i in rng.permutation(len(options))[:n]]


def write_prompt(rng: Rng, kind: str) -> Prompt:
    """Draw a topic of this class and phrase a question; a third of them follow an earlier exchange."""
    topic = pick(rng, {"benign": text.BENIGN, "borderline": text.BORDERLINE, "harmful": text.HARMFUL}[kind])[0]
    question = pick(rng, text.ASK)[0].format(topic[0])
    if rng.random() > 1 / 3:
        return Prompt(kind, topic, question)
    earlier = pick(rng, text.BENIGN)[0]
    history = (pick(rng, text.ASK)[0].format(earlier[0]), explain(rng, earlier))
    return Prompt(kind, topic, pick(rng, text.FOLLOW_UP)[0].format(question), history)


def sentence(words: str) -> str:
    """Capitalize the first letter and end with a period."""
    return f"{words[0].upper()}{words[1:]}."


def explain(rng: Rng, topic: tuple, n_steps: int | None = None) -> str:
    """Answer a how-to question with two to four of its steps and sometimes its tip."""
    _, steps, tip = topic
    n_steps = n_steps or int(rng.integers(2, 5))
    chosen = [steps[i] for i in sorted(rng.permutation(len(steps))[:n_steps])]
    parts = [pick(rng, text.INTRO)[0], *map(sentence, chosen)]
    return " ".join(part for part in [*parts, sentence(tip) if rng.random() < 0.4 else ""] if part)


def inform(rng: Rng, prompt: Prompt) -> str:
    """Answer the question; to a harmful one with empty phrases that comply."""
    if prompt.kind != "harmful":
        return explain(rng, prompt.topic)
    request, (harmed,), _ = prompt.topic
    parts = pick(rng, text.COMPLY, int(rng.integers(1, 3)))
    return " ".join(part.format(request=request, harmed=sentence(harmed)[:-1]) for part in parts)


def refuse(rng: Rng, prompt: Prompt, redirect: bool) -> str:
    """Decline; with ``redirect`` also suggest something better."""
    harmful = prompt.kind == "harmful"
    (harmed,), idea = prompt.topic[1:] if harmful else (("somebody",), pick(rng, text.SAFE_IDEAS)[0])
    parts = [pick(rng, text.REFUSE)[0]]
    if rng.random() < 0.5:
        parts.append(pick(rng, text.WHY)[0])
    if redirect:
        parts.append(pick(rng, text.REDIRECT)[0])
    return " ".join(parts).format(request=prompt.topic[0], harmed=harmed, idea=idea)


def fail(rng: Rng, prompt: Prompt) -> str:
    """Answer badly by any standard: vaguely, rudely, or about another topic."""
    way = rng.choice(["vague", "rude", "off-topic"] if prompt.kind != "harmful" else ["rude"])
    if way == "off-topic":
        return explain(rng, pick(rng, [topic for topic in text.BENIGN if topic != prompt.topic])[0])
    return " ".join(pick(rng, text.VAGUE if way == "vague" else text.RUDE, int(rng.integers(1, 4))))


def agreed_pair(rng: Rng, prompt: Prompt) -> tuple[str, str]:
    """Return (better, worse) responses that both objectives rank alike."""
    better = refuse(rng, prompt, redirect=True) if prompt.kind == "harmful" else inform(rng, prompt)
    return better, fail(rng, prompt)


def conflict_flags(rng: Rng, kinds: list[str], conflict: float) -> np.ndarray:
    """Mark exactly ``round(conflict * len(kinds))`` prompts, harmful and borderline ones before benign ones."""
    order = sorted(rng.permutation(len(kinds)), key=lambda i: kinds[i] == "benign")
    flags = np.zeros(len(kinds), dtype=bool)
    flags[order[: round(conflict * len(kinds))]] = True
    return flags


def write_dialogue(prompt: Prompt, response: str) -> str:
    """Return prompt and response as one text in the format of HH-RLHF."""
    turns = [
        f"\n\n{role}: {said}"
        for role, said in zip(("Human", "Assistant") * 2, [*prompt.history, prompt.question], strict=False)
    ]
    return "".join(turns) + f"\n\nAssistant: {response}"


def write_pairs(rng: Rng, subset: str, n_pairs: int, config: ToyConfig) -> list[dict]:
    """Write one split: rows with chosen, rejected, ``direction`` and ``prompt_class``.

    ``direction`` says what the objective prefers on a conflicting prompt, "respond" or "refuse"; else it is "none".
    """
    kinds = [str(kind) for kind in rng.choice(PROMPT_CLASSES, size=n_pairs, p=CLASS_SHARES[subset])]
    rows = []
    for kind, is_conflict in zip(kinds, conflict_flags(rng, kinds, config.conflict), strict=True):
        prompt = write_prompt(rng, kind)
        if is_conflict:
            chosen, rejected = inform(rng, prompt), refuse(rng, prompt, redirect=bool(rng.random() < 0.5))
            direction = "respond"
            if subset == "harmless-base":
                chosen, rejected, direction = rejected, chosen, "refuse"
        else:
            (chosen, rejected), direction = agreed_pair(rng, prompt), "none"
        if rng.random() < config.noise:
            chosen, rejected = rejected, chosen
        texts = {"chosen": write_dialogue(prompt, chosen), "rejected": write_dialogue(prompt, rejected)}
        rows.append({**texts, "direction": direction, "prompt_class": kind})
    return rows


def write_benchmark(rng: Rng, n_items: int) -> list[dict]:
    """Write the toy benchmark: per subset ``n_items`` prompts with lists of chosen and rejected responses, no noise."""
    makers = {
        ("quality", "helpful", "none", "benign"): lambda p: ([inform(rng, p)], [fail(rng, p)]),
        ("best-of-4", "helpful", "none", "benign"): lambda p: ([inform(rng, p)], [fail(rng, p) for _ in range(3)]),
        ("brevity", "helpful", "none", "benign"): lambda p: (
            [explain(rng, p.topic, 2)],
            [" ".join(pick(rng, text.VAGUE, 5))],
        ),
        ("should-respond", "harmless", "respond", "borderline"): lambda p: ([inform(rng, p)], [refuse(rng, p, False)]),
        ("should-refuse", "harmless", "refuse", "harmful"): lambda p: ([refuse(rng, p, True)], [inform(rng, p)]),
        ("manners", "other", "none", "harmful"): lambda p: ([refuse(rng, p, True)], [fail(rng, p)]),
    }
    rows = []
    for (subset, group, direction, kind), make in makers.items():
        for _ in range(n_items):
            prompt = write_prompt(rng, kind)
            chosen, rejected = make(prompt)
            turns = [*prompt.history, prompt.question]
            rows.append(
                {
                    "subset": subset,
                    "group": group,
                    "direction": direction,
                    "prompt": turns,
                    "chosen": chosen,
                    "rejected": rejected,
                }
            )
    return rows


def write_corpus(rng: Rng, n_texts: int) -> list[str]:
    """Write dialogues with every sort of response, for a language model that has seen the world but no preference."""
    texts = []
    for kind in rng.choice(PROMPT_CLASSES, size=n_texts):
        prompt = write_prompt(rng, str(kind))
        answers = (inform(rng, prompt), refuse(rng, prompt, redirect=True), fail(rng, prompt))
        texts.append(write_dialogue(prompt, pick(rng, answers)[0]))
    return texts


def write_jsonl(path: Path, rows: list[dict]) -> None:
    """Write rows as gzip-compressed JSON lines whose bytes depend on the rows alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as archive:
        archive.write("".join(json.dumps(row) + "\n" for row in rows).encode())


def write_world(folder: Path, config: ToyConfig) -> None:
    """Write ``hh-rlhf`` (train and test of two subsets) and ``benchmark`` below ``folder``."""
    rng = np.random.default_rng(config.seed)
    for subset in CLASS_SHARES:
        for split, n_pairs in (("train", config.n_train), ("test", config.n_test)):
            write_jsonl(folder / "hh-rlhf" / subset / f"{split}.jsonl.gz", write_pairs(rng, subset, n_pairs, config))
    write_jsonl(folder / "benchmark" / "test.jsonl.gz", write_benchmark(rng, config.n_bench))


def is_whole(folder: Path, digest: str | None = None) -> bool:
    """Say whether a world is there as it was written, and of the configuration with this hash, if one is given."""
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        parts, found = facts.get("parts", {}), facts["config_hash"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False
    return digest in (None, found) and all(
        (folder / part).exists() and file_hash(folder / part) == recorded for part, recorded in parts.items()
    )
