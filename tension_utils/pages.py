"""The book's generated pages: the answer on its first page, and the ledger of claims.

``python -m tension_utils.pages --parameters '{...}' --folder book/generated`` writes both from a profile's artifacts.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from tension_utils.ablation_tables import effect_table
from tension_utils.artifacts import atomic_path
from tension_utils.claims import CLAIMS, ledger_table
from tension_utils.config import SINGLE_OBJECTIVES
from tension_utils.evidence import Evidence
from tension_utils.neuron_claims import PAIR
from tension_utils.overlap import overlap_summary, overlap_table
from tension_utils.runs import named_runs
from tension_utils.statements import WAYS, overall_verdict, sentence
from tension_utils.study_tables import (
    OPPOSING,
    percent,
    points,
    tension_sentence,
    tension_table,
)

REAL_RUN = Path("results", "laptop")  # tables of the committed run on real data
TINY_NOTE = (
    "These numbers come from the embedded synthetic world and a model of about a million parameters. They show the "
    "method at work; they are no evidence about language models."
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
    verdicts = [overall_verdict(list(ledger[(ledger.claim == claim) & (ledger.way == way)].verdict)) for way in WAYS]
    return f"*{CLAIMS[claim].title}* ({claim}): {WAYS[0]} **{verdicts[0]}**, {WAYS[1]} **{verdicts[1]}**."


def ledger_section(ledger: pd.DataFrame, claim: str) -> str:
    """Return one claim's statements, as published beside under control, as Markdown."""
    columns = []
    for way in WAYS:
        rows = ledger[(ledger.claim == claim) & (ledger.way == way)]
        lines = [f"- {sentence(row)}" for _, row in rows.iterrows()]
        verdict = overall_verdict(list(rows.verdict))
        columns.append("\n".join([f":::{{grid-item-card}} {way.capitalize()}: {verdict}", *lines, ":::"]))
    return "\n".join(["::::{grid} 1 1 2 2", ":gutter: 3", "", *columns, "::::"])


def ledger_page(sources: dict[str, pd.DataFrame]) -> str:
    """Return the ledger as a Markdown page.

    Args:
        sources: where statements come from, in words -> their table (`claims.ledger_table`).
    """
    parts = [LEDGER_HEAD]
    for key, claim in CLAIMS.items():
        parts.append(f"## {key}. {claim.title}\n\n{claim.text} {{cite}}`tanwar2026`\n")
        for words, ledger in sources.items():
            rows = ledger[ledger.claim == key]
            if (rows.verdict == "not run").all():
                parts.append(f"**{words}:** not run ({rows.reason.iloc[0]}).\n")
            else:
                parts.append(f"**{words}**\n\n{ledger_section(ledger, key)}\n")
    return "\n".join(parts)


LEDGER_HEAD = """# The Ledger of Claims

*Each claim of the study, as published and under control, with the number that decides it.*

Every sentence with a number on this page was written by the code that computed the number, from one row per item and
reward model. A verdict follows from a rule, not from taste: a difference whose 95 % interval lies on the claimed side
of zero is **supported**, one whose interval lies on the other side **not supported**, and one whose interval holds zero
is **mixed**; several readings that disagree are mixed too. What was not computed says so. Intervals draw items, by
prompt, and seeds anew; with a single seed they speak of that seed alone.
"""


def answer_page(evidence: Evidence, profile: str, ledger: pd.DataFrame) -> str:
    """Return the first page's answer as Markdown, with its source and the verdicts so far."""
    source = TINY_NOTE if profile == "tiny" else f"These numbers come from the profile {profile}."
    size = f"{len(evidence.runs)} reward models"
    header = f"Profile {profile}, {size}, 95 % intervals in brackets, chance 50 %. {source}\n"
    verdicts = "\n".join(f"- {verdict_line(ledger, claim)}" for claim in CLAIMS)
    behind = "The [ledger](generated/claims.md) has every number behind them."
    verdict = f"\n**The verdicts.** Each claim is judged twice.\n\n{verdicts}\n\n{behind}\n"
    real = ""
    if (table := REAL_RUN / "tension.csv").is_file():
        words = tension_sentence(pd.read_csv(table))
        real = f"\n**And on real data?** ([chapter 6](../executed/06_real_run.ipynb), one seed.) {words}\n"
    if (table := REAL_RUN / "claims.csv").is_file():
        found = pd.read_csv(table)
        real += "\n" + "\n".join(f"- {verdict_line(found, claim)}" for claim in CLAIMS) + "\n"
    return "\n".join([header, answer(evidence), verdict, real])


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
        words = f"Profile {profile}" + (", a synthetic world: an illustration" if profile == "tiny" else "")
        sources = {words: ledger}
        if (table := REAL_RUN / "claims.csv").is_file():
            sources["SmolLM2-135M on HH-RLHF, one seed (chapters 6 and 6b)"] = pd.read_csv(table)
        pages = {"answer.md": answer_page(evidence, profile, ledger), "claims.md": ledger_page(sources)}
    except (FileNotFoundError, ValueError, KeyError) as error:
        parser.error(str(error))
    for name, text in pages.items():
        with atomic_path(options.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
