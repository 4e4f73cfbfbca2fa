"""The ledger: each claim of the study as statements computed from stored results, as published and under control."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import pandas as pd

from tension_utils.evidence import Evidence
from tension_utils.mixing_claims import mixing_as_published, mixing_under_control
from tension_utils.neuron_claims import FINDING, OPPOSITION, SHARING, WEIGHT
from tension_utils.statements import Statement


@dataclass(frozen=True)
class Claim:
    """A claim of the study in our words, and how each way of computing it makes statements.

    Args:
        title: a few words.
        text: the claim.
        readings: functions of the evidence, as published first.
    """

    title: str
    text: str
    readings: tuple[Callable[[Evidence], list[Statement]], ...]


CLAIMS = {
    "C1": Claim(
        "Mixing costs accuracy",
        "A reward model trained on both objectives often does worse than one trained on a single objective.",
        (mixing_as_published, mixing_under_control),
    ),
    "C2": Claim(
        "Scores find neurons", "Simple activation scores find neurons that support their own objective.", FINDING
    ),
    "C3": Claim("Neurons oppose", "Neurons that support one objective often hurt the opposing one.", OPPOSITION),
    "C4": Claim("Neurons are shared", "Many neurons are shared between the objectives.", SHARING),
    "C5": Claim(
        "Shared neurons carry the tension", "The shared neurons weigh more than their number suggests.", WEIGHT
    ),
}


def ledger_table(evidence: Evidence) -> pd.DataFrame:
    """Return every claim's statements, one row each, with the columns of `Statement`."""
    found = [statement for claim in CLAIMS.values() for reading in claim.readings for statement in reading(evidence)]
    return pd.DataFrame([asdict(statement) for statement in found])
