"""The unit of work, one reward model or the pair of one seed's single ones, and the folder of its artifacts."""

from dataclasses import dataclass
from pathlib import Path

from tension_utils.checks import check_choice, check_choices, check_range
from tension_utils.config import ARMS, SINGLE_OBJECTIVES

SINGLE_PAIR = "single-pair"  # folder of what belongs to both single-objective reward models of a seed


@dataclass(frozen=True)
class Run:
    """The unit of work: one reward model, named by base model, objective and seed, and the folder it fills.

    Args:
        root: the profile's folder, ``runs/<profile>``.
        base_model: public name or folder of the base model, or ``"toy"``.
    """

    root: Path
    base_model: str
    objective: str
    seed: int

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, ARMS)
        check_range("seed", self.seed, 0)
        if not isinstance(self.seed, int):
            raise ValueError(f"seed: expected a whole number; got {self.seed!r}")
        if not isinstance(self.base_model, str) or not self.base_model_name:
            raise ValueError(f"base_model: expected a public name, a folder or 'toy'; got {self.base_model!r}")
        object.__setattr__(self, "root", Path(self.root))

    @property
    def base_model_name(self) -> str:
        """Short name of the base model: the last part of its name or path, in lower case."""
        return self.base_model.rstrip("/").split("/")[-1].lower()

    @property
    def folder(self) -> Path:
        """Where this reward model's artifacts lie."""
        return self.root / self.base_model_name / self.objective / f"seed{self.seed}"

    @property
    def label(self) -> dict[str, str | int]:
        """Columns that name this run in a table."""
        return {"base_model": self.base_model_name, "objective": self.objective, "seed": self.seed}


@dataclass(frozen=True)
class SinglePair:
    """The helpful and the harmless reward model of one base model and seed, and the folder of what belongs to both.

    Args:
        root: the profile's folder, ``runs/<profile>``.
        base_model: public name or folder of the base model, or ``"toy"``.
    """

    root: Path
    base_model: str
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.helpful.root)  # a run checks all three values

    @property
    def helpful(self) -> Run:
        """The helpful reward model."""
        return self.run_of(SINGLE_OBJECTIVES[0])

    @property
    def harmless(self) -> Run:
        """The harmless reward model."""
        return self.run_of(SINGLE_OBJECTIVES[1])

    def run_of(self, objective: str) -> Run:
        """Return the run of any of `config.ARMS` with this base model and seed."""
        return Run(self.root, self.base_model, objective, self.seed)

    @property
    def folder(self) -> Path:
        """Where the pair's artifacts lie."""
        return self.root / self.helpful.base_model_name / SINGLE_PAIR / f"seed{self.seed}"

    @property
    def label(self) -> dict[str, str | int]:
        """Columns that name this pair in a table."""
        return {"base_model": self.helpful.base_model_name, "seed": self.seed}


def list_runs(root: Path, base_models: list[str], objectives: list[str], seeds: list[int]) -> list[Run]:
    """Return every combination as a `Run`, base models first.

    Raises:
        ValueError: if a list is empty, repeats a value, or names an unknown objective.
    """
    check_choices("objectives", objectives, ARMS)
    for name, values in (("base_models", base_models), ("seeds", seeds)):
        if not values or len(set(values)) != len(values):
            raise ValueError(f"{name}: expected at least one value and none twice; got {values!r}")
    runs = [Run(root, model, objective, seed) for model in base_models for objective in objectives for seed in seeds]
    if len({run.folder for run in runs}) != len(runs):
        raise ValueError(f"base_models: two of {base_models!r} have the same short name; rename one folder")
    return runs


def list_pairs(runs: list[Run]) -> list[SinglePair]:
    """Return the pairs of single-objective reward models that runs belong to, each once, in the runs' order."""
    return list(dict.fromkeys(SinglePair(run.root, run.base_model, run.seed) for run in runs))


def named_runs(values: dict) -> list[Run]:
    """Return the runs that the values of a profile name: profile, base_models, objectives, seeds; others are ignored.

    Raises:
        ValueError: if one of them is missing or `list_runs` refuses them.
    """
    names = ("profile", "base_models", "objectives", "seeds")
    if not isinstance(values, dict) or not set(names) <= set(values):
        raise ValueError(f"--parameters: expected an object with {', '.join(names)}; got {values!r}")
    profile, *lists = (values[name] for name in names)
    return list_runs(Path("runs") / profile, *lists)
