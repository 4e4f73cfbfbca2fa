"""What the ledger reads: the item-level tables and score files of a profile's runs."""

from dataclasses import dataclass

import pandas as pd

from tension_utils.artifacts import read_table
from tension_utils.config import MIXED, OBJECTIVES, SCORE_KINDS
from tension_utils.runs import Run

MAIN_FRACTION = 0.1  # the study's share of neurons


@dataclass(frozen=True)
class Evidence:
    """Stored results of a set of reward models.

    Args:
        evaluation: rows of evaluation.parquet, of all objectives of `OBJECTIVES` and possibly of further arms.
        ablation: rows of ablation.parquet; None where no set was removed.
        runs: the reward models whose neuron scores are read; none where none were taken.

    Raises:
        ValueError: an objective was not evaluated.
    """

    evaluation: pd.DataFrame
    ablation: pd.DataFrame | None = None
    runs: tuple[Run, ...] = ()

    def __post_init__(self) -> None:
        missing = [name for name in OBJECTIVES if name not in set(self.evaluation.objective)]
        if missing:
            there = ", ".join(missing)
            raise ValueError(f"the ledger compares {', '.join(OBJECTIVES)}; there is no evaluation of {there}")

    @classmethod
    def of(cls, runs: list[Run]) -> "Evidence":
        """Read the artifacts of runs whose stages are complete.

        Raises:
            FileNotFoundError: names the missing file and the chapter to run.
        """
        main = tuple(run for run in runs if run.objective in OBJECTIVES)
        return cls(read_table(runs, "evaluation", "02_evaluate"), read_table(main, "ablation", "04_ablate"), main)

    @property
    def fraction(self) -> float:
        """The share of neurons nearest to the study's tenth that was removed; a tenth where none were."""
        if self.ablation is None:
            return MAIN_FRACTION
        shares = self.ablation.fraction.unique()
        return float(min(shares, key=lambda share: abs(share - MAIN_FRACTION)))

    @property
    def score_kinds(self) -> list[str]:
        """The score kinds whose sets were removed."""
        return [kind for kind in SCORE_KINDS if kind in set(self.ablation.set)]

    def removed(self, sets: list[str], *, from_mixed: bool) -> pd.DataFrame:
        """Return the rows of targeted sets and their random draws at `fraction`, of the first ablation kind.

        Args:
            sets: names of targeted sets.
            from_mixed: whether of the mixed reward model, or else of the single ones.
        """
        rows = self.ablation
        is_it = rows.matched_to.isin(sets) & (rows.fraction == self.fraction) & (rows.ablation_kind == "zero")
        return rows[is_it & ((rows.objective == MIXED) == from_mixed)]
