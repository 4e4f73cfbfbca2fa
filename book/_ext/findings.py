"""What the study found, written by hand: numbers come from the stored results, and no sentence outlives them.

    python book/_ext/findings.py

writes a text for every chapter that the stored results fill; the build puts it below that chapter's question. Where the
results do not bear out a sentence, say because they are somebody else's, the page gets none, and a test of the project
fails and names it: read the tables, and write it anew.
"""

import argparse
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import pandas as pd

from tension_utils.analysis.accuracy import percent, seeds_text, tension_table
from tension_utils.analysis.claims import Evidence, ledger
from tension_utils.analysis.findings import SMALLEST
from tension_utils.analysis.training import kept_checkpoints
from tension_utils.artifacts import atomic_path, find_runs
from tension_utils.config import MATCHED_ARM, MIXED, MIXED_ARMS, SINGLE_OBJECTIVES, Run
from tension_utils.show.ledger import extent_words, number_words, value_words

HELPFUL, HARMLESS = SINGLE_OBJECTIVES
GENERATED = Path("book", "generated", "findings")


class Unfounded(ValueError):
    """A sentence about the study that its stored results do not bear out."""


def require(holds: bool, sentence: str) -> None:
    """Refuse a sentence that does not follow from the results.

    Raises:
        Unfounded: with the sentence.
    """
    if not holds:
        raise Unfounded(f"the stored results no longer say that {sentence}; look at the tables and write it anew")


class Study:
    """The stored results that sentences are checked against.

    Args:
        folder: of the stored runs.
    """

    def __init__(self, folder: Path) -> None:
        """Read nothing yet."""
        self.runs: list[Run] = find_runs(folder)

    @cached_property
    def evidence(self) -> Evidence:
        """All artifacts that the ledger reads."""
        return Evidence.of(self.runs)

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """Every reading of every claim."""
        return ledger(self.evidence)

    @cached_property
    def matrix(self) -> pd.DataFrame:
        """Accuracy by training objective and test: a row each, by both as index."""
        return tension_table(self.evidence.evaluation).set_index(["objective", "test"])

    @cached_property
    def kept(self) -> pd.DataFrame:
        """The checkpoint that every model of the four main arms kept."""
        main = {*SINGLE_OBJECTIVES, *MIXED_ARMS}
        runs = [run for run in self.runs if run.objective in main and (run.folder / "train_log.parquet").exists()]
        return kept_checkpoints(runs)

    def reading(self, **fields: object) -> pd.Series:
        """Return the one reading under control with these fields."""
        rows = self.ledger[self.ledger.way == "under control"]
        for name, value in fields.items():
            rows = rows[rows[name] == value]
        if len(rows) != 1:
            raise Unfounded(f"expected one reading with {fields}, found {len(rows)}")
        return rows.iloc[0]


FINDINGS: dict[str, Callable[[Study], str]] = {}


def finding(chapter: str) -> Callable:
    """Register the function that tells what a chapter of the study found."""

    def register(tell: Callable[[Study], str]) -> Callable[[Study], str]:
        FINDINGS[chapter] = tell
        return tell

    return register


def flat(text: str) -> str:
    """Return a text on one line."""
    return " ".join(text.split())


def part_of(row: pd.Series, name: str) -> str:
    """Return the number of one objective in a pooled reading."""
    part = next(part for part in row.parts if part.name == name)
    return number_words(*part[1:], row.unit)


@finding("01_train")
def train(study: Study) -> str:
    """Every model learned what it was taught."""
    kept = study.kept
    single = kept[kept.objective.isin(SINGLE_OBJECTIVES)]
    mixed = kept[~kept.objective.isin(SINGLE_OBJECTIVES)]
    require((single.ci_low > 0.5).all(), "every single-objective model ranks its own validation pairs above chance")
    require(
        mixed.validation_accuracy.max() < single.validation_accuracy.min(),
        "every mixed model ranks fewer of its validation pairs right than every single-objective one",
    )
    return flat(
        f"""
        **Yes, either objective can be learned, and a mixture of both hardly.** On their own validation pairs the
        models of one objective agree with people in {_range(single)}, those of both in {_range(mixed)}; a coin gets
        50 %. It is a small language model, and people often disagree on such labels: what follows is about weak
        preferences.
        """
    )


def _range(kept: pd.DataFrame) -> str:
    """Return the lowest and the highest validation accuracy of checkpoints."""
    return f"{percent(kept.validation_accuracy.min())} to {percent(kept.validation_accuracy.max())}"


@finding("02_evaluate")
def evaluate(study: Study) -> str:
    """A model of one objective is worse than a coin on the other."""
    cell, opposite = study.matrix, dict(zip(SINGLE_OBJECTIVES, SINGLE_OBJECTIVES[::-1], strict=True))
    for objective, other in opposite.items():
        require(cell.ci_low[objective, objective] > 0.5, f"the {objective} model is above chance on its own test")
        require(cell.ci_high[objective, other] < 0.5, f"the {objective} model is below chance on the {other} test")
    own, across = (
        [percent(cell.accuracy[o, test]) for o, test in pairs]
        for pairs in (zip(opposite, opposite, strict=True), opposite.items())
    )
    row = cell.loc[HELPFUL, HARMLESS]
    return flat(
        f"""
        **The two objectives are not merely different: on this data they point in opposite directions.** The helpful
        model ranks {own[0]} of helpful pairs right and only {across[0]} of harmless ones; the harmless model
        {own[1]} and {across[1]}. Both are *reliably below* a coin on the other objective's test: the response that
        people called harmless is, as a rule, the one that a model of helpfulness likes less. A model of both has to
        tell the two kinds of prompts apart, or give something up (n = {row.n_items:.0f} and
        {cell.n_items[HARMLESS, HELPFUL]:.0f}, {seeds_text(row.n_seeds)}).
        """
    )


@finding("02b_tension")
def mixing(study: Study) -> str:
    """Mixing costs accuracy on both tests, pair for pair."""
    matched = study.reading(claim="C1", quantity="mixing", arm=MATCHED_ARM, test="own")
    union = study.reading(claim="C1", quantity="mixing", arm=MIXED, test="own")
    require(matched.n_seeds == 1, "one training run is finished")
    require(matched.ci_high < -SMALLEST["points"], "training on half of each costs more than the smallest effect")
    return flat(
        f"""
        **In the one training run that is finished, mixing costs accuracy.** A model trained on as many pairs, half
        of each objective, has {value_words(matched)} beside the model of one objective, on that one's own test
        (helpful {part_of(matched, HELPFUL)}; harmless {part_of(matched, HARMLESS)}; {extent_words(matched)}). With all
        pairs of both, twice as many, it is {value_words(union)}. Another run may differ by more than these
        intervals say, so the claims give no verdict yet: two more are to come.
        """
    )


@finding("05c_dial")
def dial(study: Study) -> str:
    """Joint training does at least as well as two models averaged."""
    gaps = {
        (arm, control): study.reading(claim="C1", quantity="frontier", arm=arm, control=control)
        for arm in MIXED_ARMS
        for control in ("ensemble", "interpolation")
    }
    smallest = SMALLEST["points"]
    require(all(row.ci_low > -smallest for row in gaps.values()), "no mixed model loses 3 points to either frontier")
    best = gaps[MIXED, "ensemble"]
    require(best.n_seeds == 1, "one training run is finished")
    require(best.value > 0, "the mixed model lies above the ensemble of both single models")
    return flat(
        f"""
        **So far, the data disagree, and joint training does not interfere.** Two models of one objective, combined
        afterwards, reach no better pair of accuracies than one model trained on both: at the same balance the mixed
        model lies {value_words(best)} beside their ensemble and {value_words(gaps[MIXED, "interpolation"])} beside
        their interpolated weights ({extent_words(best)}; trained on as many pairs,
        {value_words(gaps[MATCHED_ARM, "ensemble"])} and {value_words(gaps[MATCHED_ARM, "interpolation"])}). What
        mixing costs (chapter 2b) is what the two sets of labels take from each other. Who wants one reward model
        for both loses nothing by training it on both: so says one training run, and two more are to come.
        """
    )


def main(arguments: list[str] | None = None) -> int:
    """Write the texts of chapters; an empty one, and a warning, where the results do not bear it out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", help="names of chapters, such as 02_evaluate")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the stored runs")
    parser.add_argument("--output", type=Path, default=GENERATED, help="folder of the texts")
    options = parser.parse_args(arguments)
    study = Study(options.results)
    for chapter in options.chapters:
        text = ""
        try:
            text = FINDINGS[chapter](study) + "\n" if chapter in FINDINGS else ""
        except Unfounded as error:
            print(f"warning: book/_ext/findings.py, {chapter}: {error}", file=sys.stderr)
        with atomic_path(options.output / f"{chapter}.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
