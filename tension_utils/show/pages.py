"""Pages that are made from results: the claims, and the answer that the first page shows."""

import argparse
import json
from dataclasses import dataclass
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd

from tension_utils.analysis.accuracy import (
    OPPOSING,
    markdown_table,
    percent,
    points,
    tension_sentence,
    tension_table,
)
from tension_utils.analysis.claims import (
    CLAIMS,
    PAIR,
    WAYS,
    Evidence,
    ledger_table,
    overall_verdict,
    rates_markdown,
    read_study,
    seeds_text,
    statement_table,
)
from tension_utils.analysis.overlap import overlap_summary, overlap_table
from tension_utils.analysis.removal import effect_table
from tension_utils.artifacts import atomic_path
from tension_utils.config import SINGLE_OBJECTIVES, named_runs


@dataclass(frozen=True)
class Question:
    """One question of the first page, and which statements of the ledger answer it.

    Args:
        text: the question.
        measure: what the number is, in words.
        pattern: regular expression on `Statement.statistic`, among those under control; what it finds is of different
            items and averaged.
        unit: appended to the number; empty for an index.
        note: a sentence that stands for the interval where there is none.
    """

    text: str
    measure: str
    pattern: str
    unit: str = " points"
    note: str = ""


QUESTIONS = {
    "C1": Question(
        "What does mixing cost?",
        "accuracy of the mixed model minus that of a single-objective one, on the latter's own tests; mean of both",
        r"paired accuracy, mixed minus \w+ model",
    ),
    "C2": Question(
        "Do the neurons that training changed most carry their objective?",
        "change in accuracy on the own test without them, beyond random neurons; mean of both objectives",
        r"by rms_change, own test: .*accuracy \(points\)",
    ),
    "C3": Question(
        "Do they hold the other objective back?",
        "the same on the opposing test; above zero they did",
        r"by rms_change, opposing test: .*accuracy \(points\)",
    ),
    "C4": Question(
        "Does training make the objectives share neurons?",
        "Jaccard index of both models' top tenths minus that of the untrained base model; n counts neurons in a set",
        r"Jaccard index beyond that of the untrained base model",
        unit="",
        note="no interval from a single seed",
    ),
    "C5": Question(
        "Do shared neurons weigh more than separate ones?",
        "change in the mixed model's accuracy without the shared minus without as many separate neurons, on the "
        "separate ones' own test; mean of both",
        r"shared - only-\w+, accuracy \(points\)",
    ),
}


@dataclass(frozen=True)
class Number:
    """One of the five: NaN where it was not run, and then `reason` says why.

    Args:
        value: in the unit of its `Question`.
        ci_low: lower end of the 95 % interval; NaN if there is none.
        ci_high: upper end.
        n_items: items, or neurons in a set, behind it.
        n_seeds: training runs per objective.
        reason: why it was not run; else empty.
    """

    value: float
    ci_low: float = nan
    ci_high: float = nan
    n_items: int = 0
    n_seeds: int = 0
    reason: str = ""


def mean_of_independent(values: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of independent estimates with its interval.

    Each bound lies as far from the mean as the root of the summed squares of the estimates' own distances says, which
    keeps lopsided intervals lopsided.

    Args:
        values (K,): the estimates.
        lows (K,): lower ends of their intervals, all of one level.
        highs (K,): upper ends.

    Source: ours; the method of variance estimates recovery of Zou and Donner (2008).

    >>> [round(x, 2) for x in mean_of_independent(np.array([0.0, 4.0]), np.array([-3.0, 0.0]), np.array([3.0, 8.0]))]
    [2.0, -0.5, 4.5]
    """
    mean, count = values.mean(), len(values)
    below, above = (np.sqrt(np.sum((values - ends) ** 2)) / count for ends in (lows, highs))
    return float(mean), float(mean - below), float(mean + above)


def _summarized(rows: pd.DataFrame, question: Question) -> Number:
    n_seeds = int(rows.n_seeds.min())
    columns = [rows[name].to_numpy(float) for name in ("value", "ci_low", "ci_high")]
    n_items = rows.n_items.sum() if question.unit else rows.n_items.iloc[0]
    return Number(*mean_of_independent(*columns), int(n_items), n_seeds)


def five_numbers(ledger: pd.DataFrame, overlap: pd.DataFrame | None = None) -> dict[str, Number]:
    """Return one number per claim.

    Args:
        ledger: of `claims.ledger_table`.
        overlap: of `overlap_controls.reference_table`; gives C4 its number where a single seed has no interval.

    Raises:
        ValueError: a question finds no statement in the ledger.
    """
    numbers = {}
    for claim, question in QUESTIONS.items():
        controlled = ledger[(ledger.claim == claim) & (ledger.way == WAYS[1])]
        rows = controlled[controlled.statistic.str.contains(question.pattern)]
        rows = controlled if rows.empty and (controlled.verdict == "not run").all() else rows
        if rows.empty:
            raise ValueError(f"{claim}: expected a statement like {question.pattern!r} in the ledger, found none")
        run = rows[rows.verdict != "not run"]
        if not run.empty:
            numbers[claim] = _summarized(run.iloc[: len(run) if question.unit else 1], question)
        elif claim == "C4" and overlap is not None and overlap.floor.notna().any():
            row = overlap[overlap.floor.notna()].iloc[0]
            beyond = float(row.jaccard - row.floor)
            numbers[claim] = Number(beyond, n_items=int(row.n_neurons), n_seeds=int(row.n_seeds))
        else:
            numbers[claim] = Number(nan, reason=rows.reason.iloc[0])
    return numbers


def number_text(number: Number, question: Question) -> str:
    """Return a number with its interval, n and seeds as Markdown.

    >>> number_text(Number(-3.24, -6.2, -0.3, 2008, 1), QUESTIONS["C1"])
    '**-3.2 points** [-6.2, -0.3], n = 2,008, 1 seed'
    """
    if np.isnan(number.value):
        return f"not run ({number.reason})"
    digits = 1 if question.unit else 3
    bounds = f" [{number.ci_low:+.{digits}f}, {number.ci_high:+.{digits}f}]"
    bounds = f" ({question.note})" if np.isnan(number.ci_low) else bounds
    value = f"**{number.value:+.{digits}f}{question.unit}**{bounds}"
    return f"{value}, n = {number.n_items:,}, {seeds_text(number.n_seeds)}"


def number_cards(sources: dict[str, dict[str, Number]], chapters: dict[str, dict[str, str]]) -> str:
    """Return the five numbers as a grid of cards in MyST Markdown, the first source in front.

    Args:
        sources: where numbers come from, in words -> `five_numbers`.
        chapters: the same words -> claim -> link to the chapter that shows the number.
    """
    cards = []
    for place, (claim, question) in enumerate(QUESTIONS.items(), start=1):
        width = [":columns: 12"] if place == len(QUESTIONS) and place % 2 else []  # no empty half beside the last one
        measure = question.measure[0].upper() + question.measure[1:]
        lines = [f":::{{grid-item-card}} {place}. {question.text}", *width, "", f"*{measure}.*"]
        for words, numbers in sources.items():
            lines += ["", f"{words}: {number_text(numbers[claim], question)} ({chapters[words][claim]})"]
        cards.append("\n".join([*lines, ":::"]))
    return "\n".join(["::::{grid} 1 1 2 2", ":gutter: 3", "", *cards, "::::", ""])


REAL_RUN = Path("results", "laptop")  # tables of the committed run on real data

TINY_NOTE = (
    "A synthetic world and a model of about a million parameters: its numbers show the method at work; they are no "
    "evidence about language models."
)

PLANTED = Path("results", "planted")

SCORE_KINDS = ("signed_mean", "rms_change")  # of the ledger's statements

REAL = "Real run"

REAL_NOTE = (
    "SmolLM2-135M-Instruct trained on a few hundred human preferences per objective; one seed, so the intervals speak "
    "of items and not of training luck. Whether two more training runs say the same is in "
    "[chapter 6b](../executed/06b_real_neurons.ipynb)."
)

BEHIND = (
    "A mean of two objectives combines their intervals as independent {cite}`zou2008`: they come from different "
    "prompts. A mean can be clear where neither half is; the verdicts judge each half. Every number behind these "
    "five, as published and under control, is in the [ledger](generated/claims.md)."
)


def answer(evidence: Evidence, kind: str = "rms_change") -> str:
    """Return the first page's answer as Markdown: three numbered sentences, every number computed from artifacts."""
    share = evidence.fraction
    overlap = overlap_summary(overlap_table(evidence.runs, [kind], share)).set_index("pair").loc[PAIR]
    effects = effect_table(evidence.removed([kind], from_mixed=False), evidence.evaluation)
    on = effects[effects.metric == "accuracy"].set_index(["objective", "test"])
    own_effects, other_effects = (
        " and ".join(f"{points(on.loc[(o, test[o])])} ({o} model)" for o in SINGLE_OBJECTIVES)
        for test in (dict(zip(SINGLE_OBJECTIVES, SINGLE_OBJECTIVES, strict=True)), OPPOSING)
    )
    return f"""1. **Do the objectives pull apart?** {tension_sentence(tension_table(evidence.evaluation))}
2. **Do they use the same neurons?** The {percent(share)} of neurons that training changed most overlap with a
   Jaccard index of {overlap.jaccard:.3f} between the helpful and the harmless model; two random sets of that size
   overlap by {overlap.jaccard_chance:.3f}.
3. **Do those neurons carry the objective?** Removing them changes accuracy on the own test by {own_effects}, and on the
   opposing test by {other_effects}, beyond what as many random neurons of the same layers do.
"""


def verdict_line(ledger: pd.DataFrame, claim: str) -> str:
    """Return both verdicts on a claim in one sentence."""
    verdicts = verdict_pair(ledger, claim)
    return f"*{CLAIMS[claim].title}* ({claim}): {WAYS[0]} **{verdicts[0]}**, {WAYS[1]} **{verdicts[1]}**."


def verdict_pair(ledger: pd.DataFrame, claim: str) -> list[str]:
    """Return the verdict on a claim of each of `WAYS`."""
    rows = ledger[ledger.claim == claim]
    return [overall_verdict(list(rows[rows.way == way].verdict)) for way in WAYS]


def overview(sources: dict[str, pd.DataFrame]) -> str:
    """Return every verdict at a glance as a Markdown table, a row per claim."""
    head = ["claim", *(f"{words.lower()}, {way}" for words in sources for way in WAYS)]
    rows = [
        [f"{{ref}}`{key}. {claim.title} <claim-{key.lower()}>`"]
        + [verdict for ledger in sources.values() for verdict in verdict_pair(ledger, key)]
        for key, claim in CLAIMS.items()
    ]
    return markdown_table(head, rows)


def ledger_section(ledger: pd.DataFrame, claim: str) -> str:
    """Return one claim's statements as a Markdown table, as published above under control, with both verdicts."""
    statements = statement_table(ledger[ledger.claim == claim])
    rows = []
    for way, verdict in zip(WAYS, verdict_pair(ledger, claim), strict=True):
        rows.append([f"**{way.capitalize()}**", "", f"**{verdict}**"])
        rows += statements.loc[statements.way == way, ["statement", "result", "verdict"]].to_numpy().tolist()
    table = markdown_table(["what was computed", "result, 95 % interval", "verdict"], rows)
    return table.replace("n = ", "n\u00a0=\u00a0")  # no line ends between them


def ledger_page(sources: dict[str, pd.DataFrame]) -> str:
    """Return the ledger as a Markdown page: all verdicts, then the statements behind each, the first source unfolded.

    Args:
        sources: where statements come from, in words -> their table (`claims.ledger_table`), the weightiest first.
    """
    parts = [LEDGER_HEAD, overview(sources), LEDGER_RULES, *[LEDGER_REAL] * (REAL in sources)]
    tried = read_study(PLANTED)[0]["claims"] if PLANTED.is_dir() else None
    for key, claim in CLAIMS.items():
        parts.append(f"(claim-{key.lower()})=\n## {key}. {claim.title}\n\n{claim.text} {{cite}}`tanwar2026`\n")
        for place, (words, ledger) in enumerate(sources.items()):
            rows = ledger[ledger.claim == key]
            if (rows.verdict == "not run").all():
                parts.append(f"**{words}:** not run ({rows.reason.iloc[0]}).\n")
            elif place == 0:
                parts.append(f"**{words}**\n\n{ledger_section(ledger, key)}\n")
            else:
                parts.append(f":::{{dropdown}} {words}\n{ledger_section(ledger, key)}\n:::\n")
        if tried is not None and (rates := rates_markdown(tried, key, SCORE_KINDS)):
            parts.append(f"{RATES}\n{rates}\n:::\n")
    return "\n".join([*parts, NEXT])


LEDGER_HEAD = """# The Ledger of Claims

*Each claim of the study, as published and under control, with the number that decides it. Before this page: the
chapters that compute the numbers. After it: the [details of the release](../../executed/07_errata.ipynb).*

## At a glance

"""

LEDGER_RULES = """
A verdict follows from a rule, not from taste: a difference whose 95 % interval lies on the claimed side of zero is
**supported**, one whose interval lies on the other side **not supported**, and one whose interval holds zero is
**mixed**; several readings that disagree are mixed too. What was not computed says so. *As published* there is no
interval, and the sign alone decides.

Every number below was written by the code that computed it, from one row per item and reward model. Intervals draw
items, by prompt, and seeds anew; with a single seed they speak of that seed alone. Where neurons are counted instead of
items, *n* is the size of a set.
"""

LEDGER_REAL = """
The real run is SmolLM2-135M-Instruct on HH-RLHF, of chapters [6](../../executed/06_real_run.ipynb) and
[6b](../../executed/06b_real_neurons.ipynb), with one seed. Two more seeds of the single objectives stand beside it at
the end of chapter 6b: read them before you trust a verdict on one.
"""

NEXT = "Next: [what the study's release does, detail by detail](../../executed/07_errata.ipynb)."

RATES = """:::{admonition} How far to trust these verdicts
:class: tip
Tests like these, tried in [worlds whose truth is known](../../executed/02c_planted.ipynb) with three training runs and
thirty items per test: how often they said *supported*. A good test does so often in the first column and in at most 5 %
of the worlds in the second.
"""


def source_name(profile: str) -> str:
    """Return how the pages call a profile's results."""
    return "The embedded world" if profile == "tiny" else f"Profile {profile}"


def claim_links(chapters: str) -> dict[str, str]:
    """Return a link for each claim from chapter names, one per claim in order, separated by spaces."""
    files = dict(zip(CLAIMS, chapters.split(), strict=True))
    numbers = {claim: file.split("_")[0].lstrip("0") for claim, file in files.items()}
    return {claim: f"[chapter {numbers[claim]}](../executed/{file}.ipynb)" for claim, file in files.items()}


def answer_page(evidence: Evidence, profile: str, ledger: pd.DataFrame) -> str:
    """Return the first page's answer as Markdown: five numbers, then the verdicts, and where both come from."""
    is_toy = profile == "tiny"
    here = source_name(profile)
    sources = {here: five_numbers(ledger)}
    chapters = {here: claim_links("02b_tension 04_ablate 04_ablate 05_overlap 04_ablate")}
    verdicts = {here: ledger}
    about = f"*{here}:* {len(evidence.runs)} reward models. " + (TINY_NOTE if is_toy else "")
    tension = f"In {here[0].lower()}{here[1:]}: {tension_sentence(tension_table(evidence.evaluation))}"
    if (REAL_RUN / "claims.csv").is_file():
        found, overlap, cells = (pd.read_csv(REAL_RUN / f"{name}.csv") for name in ("claims", "overlap", "tension"))
        sources = {REAL: five_numbers(found, overlap)} | sources
        chapters |= {REAL: claim_links(" ".join(["06_real_run", *["06b_real_neurons"] * 4]))}
        verdicts = {REAL: found} | verdicts
        about = f"*{REAL}:* {REAL_NOTE} {about}"
        tension = f"{REAL}: {tension_sentence(cells)}\n\n{tension}"
    judged = "\n\n".join(
        "\n".join([f"{words}:", "", *(f"- {verdict_line(table, claim)}" for claim in CLAIMS)])
        for words, table in verdicts.items()
    )
    parts = [about, "95 % intervals in brackets; chance is 50 %.", number_cards(sources, chapters), BEHIND]
    more = f"Profile {profile}, {len(evidence.runs)} reward models.\n\n{answer(evidence)}"
    folded = {
        "The verdicts, claim by claim": judged,
        "The tension itself": tension,
        f"More numbers: {here[0].lower()}{here[1:]}": more,
    }
    parts += [f"::::{{dropdown}} {title}\n{text}\n::::\n" for title, text in folded.items()]
    return "\n\n".join(parts)


def main() -> None:
    """Write the pages from the command line."""
    parser = argparse.ArgumentParser(description="Write the book's generated pages from a profile's artifacts.")
    parser.add_argument("--parameters", type=json.loads, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    try:
        runs, profile = named_runs(options.parameters), options.parameters["profile"]
        evidence = Evidence.of(runs)
        ledger = ledger_table(evidence)
        sources = {source_name(profile): ledger}
        if (table := REAL_RUN / "claims.csv").is_file():
            sources = {REAL: pd.read_csv(table)} | sources
        pages = {"answer.md": answer_page(evidence, profile, ledger), "claims.md": ledger_page(sources)}
    except (FileNotFoundError, ValueError, KeyError) as error:
        parser.error(str(error))
    for name, text in pages.items():
        with atomic_path(options.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
