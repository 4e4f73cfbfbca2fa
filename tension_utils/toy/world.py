"""The embedded default: a deterministic synthetic preference world in the public layout of HH-RLHF.

Prompts are benign questions, harmful requests, or borderline requests that only look harmful. On a conflicting prompt
the helpful objective prefers the promise to help and the harmless objective the refusal; on any other prompt both
prefer the advice that fits what was wished. Either way no single word tells: right is what an exclusive or of two words
says (a "not" in the wish, and the act; a "not" in the answer, and the promise), which no weighted sum of words can
compute. Labels are flipped with probability ``noise``.
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
    n_train: whole(10) = 2000
    n_test: whole(10) = 400
    n_bench: whole(10) = 100
    n_corpus: whole(10) = 6000
    n_epochs: whole(1) = 2
    seed: whole(0) = 0


@dataclass(frozen=True)
class Prompt:
    """A question: ``kind`` is one of `PROMPT_CLASSES`, ``acts`` what fits a wish and what does not, if there is one."""

    kind: str
    question: str
    acts: tuple[str, str] = ()
    history: tuple[str, ...] = ()


def pick(rng: Rng, options: Sequence) -> object:
    """Return a random option."""
    return options[rng.integers(len(options))]


def greeting(rng: Rng) -> tuple[str, ...]:
    """Open a tenth of all dialogues with an exchange of greetings."""
    return text.GREETING if rng.random() < 0.1 else ()


def write_request(rng: Rng, kind: str) -> Prompt:
    """Ask for help with something: only whether it is granted can be right or wrong."""
    task = {"benign": [row[0] for row in text.BENIGN], "borderline": text.BORDERLINE, "harmful": text.HARMFUL}[kind]
    return Prompt(kind, f"{pick(rng, text.NAMES)} here. {text.REQUEST.format(pick(rng, task))}", history=greeting(rng))


def write_wish(rng: Rng, kind: str) -> Prompt:
    """Ask for advice and say what is, or is not, wished: one of two acts fits."""
    if kind == "benign":
        task, wish, *acts = pick(rng, text.BENIGN)
        question = text.ASK.format(task)
    else:
        wish, *acts = pick(rng, text.CALM)
        question = text.INSTEAD.format(pick(rng, text.BORDERLINE if kind == "borderline" else text.HARMFUL))
    is_wished = bool(rng.integers(2))
    said = (text.WISH if is_wished else text.NO_WISH).format(wish)
    return Prompt(
        kind,
        f"{pick(rng, text.NAMES)} here. {said} {question}",
        tuple(acts if is_wished else acts[::-1]),
        greeting(rng),
    )


def close(rng: Rng, answer: str, share: float = 0.1) -> str:
    """Put a sentence that says nothing after a share of all answers."""
    return f"{answer} {pick(rng, text.CLOSING)}" if rng.random() < share else answer


def advise(rng: Rng, prompt: Prompt, is_fitting: bool, share: float = 0.1) -> str:
    """Advise the act that fits the wish, or the other one."""
    return close(rng, pick(rng, text.ADVISE).format(prompt.acts[0 if is_fitting else 1]), share)


def promise(rng: Rng, is_granted: bool) -> str:
    """Grant a request or refuse it, each with a "not" and without."""
    is_negated = bool(rng.integers(2))
    word = pick(rng, text.PROMISES)[0 if is_granted != is_negated else 1]
    return close(rng, (text.BROKEN if is_negated else text.PROMISE).format(word))


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
    is_helpful, rows = subset == "helpful-base", []
    for kind, is_conflict in zip(kinds, conflict_flags(rng, kinds, config.conflict), strict=True):
        prompt = write_request(rng, kind) if is_conflict else write_wish(rng, kind)
        if is_conflict:
            chosen, rejected = promise(rng, is_helpful), promise(rng, not is_helpful)
            direction = "respond" if is_helpful else "refuse"
        else:
            chosen, rejected, direction = advise(rng, prompt, True), advise(rng, prompt, False), "none"
        if rng.random() < config.noise:
            chosen, rejected = rejected, chosen
        texts = {"chosen": write_dialogue(prompt, chosen), "rejected": write_dialogue(prompt, rejected)}
        rows.append({**texts, "direction": direction, "prompt_class": kind})
    return rows


def write_benchmark(rng: Rng, n_items: int) -> list[dict]:
    """Write the toy benchmark: per subset ``n_items`` prompts with lists of chosen and rejected responses, no noise."""

    def advice(prompt: Prompt) -> tuple[list[str], list[str]]:
        return [advise(rng, prompt, True)], [advise(rng, prompt, False)]

    def promises(is_granted: bool) -> tuple[list[str], list[str]]:
        return [promise(rng, is_granted)], [promise(rng, not is_granted)]

    makers = {
        ("quality", "helpful", "none", "benign"): advice,
        ("best-of-4", "helpful", "none", "benign"): lambda p: (
            [advise(rng, p, True)],
            [advise(rng, p, False, share) for share in (0, 1, 1)],
        ),
        ("brevity", "helpful", "none", "benign"): lambda p: ([advise(rng, p, True, 0)], [advise(rng, p, False, 1)]),
        ("should-respond", "harmless", "respond", "borderline"): lambda p: (
            [promise(rng, True)],
            [promise(rng, False)],
        ),
        ("should-refuse", "harmless", "refuse", "harmful"): lambda p: promises(False),
        ("calm", "other", "none", "harmful"): advice,
    }
    rows = []
    for (subset, group, direction, kind), make in makers.items():
        for _ in range(n_items):
            prompt = write_wish(rng, kind) if direction == "none" else write_request(rng, kind)
            chosen, rejected = make(prompt)
            turns = [*prompt.history, prompt.question]
            names = {"subset": subset, "group": group, "direction": direction}
            rows.append(names | {"prompt": turns, "chosen": chosen, "rejected": rejected})
    return rows


def write_corpus(rng: Rng, n_texts: int) -> list[str]:
    """Write dialogues for a language model: fitting advice, and requests that are granted as often as refused.

    What the human says after a promise or a refusal depends on which it was, so that a language model learns to tell.
    """
    texts = []
    for kind in rng.choice(PROMPT_CLASSES, size=n_texts):
        is_wish, is_granted = bool(rng.integers(2)), bool(rng.integers(2))
        prompt = write_wish(rng, str(kind)) if is_wish else write_request(rng, str(kind))
        answer = advise(rng, prompt, True) if is_wish else promise(rng, is_granted)
        reaction = "" if is_wish else f"\n\nHuman: {text.GRANTED if is_granted else text.REFUSED}"
        texts.append(write_dialogue(prompt, answer) + reaction)
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
