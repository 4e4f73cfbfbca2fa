"""Two small reward models and their world, to try on them what is meant for reward models from elsewhere."""

from pathlib import Path

from tension_utils.config import SINGLE_OBJECTIVES, DataConfig, Run, TrainConfig
from tension_utils.toy.model import ensure_toy_world
from tension_utils.toy.world import ToyConfig
from tension_utils.training import train_run

WORLD = ToyConfig(n_train=200, n_test=60, n_bench=10, n_corpus=800)

DATA = DataConfig(n_train_pairs=160, n_validation_pairs=20, max_length=256)

TRAIN = TrainConfig(learning_rate=5e-4, n_evaluations=1, precision="float32")


def ensure_sandbox(folder: Path) -> tuple[dict[str, str], str]:
    """Make a toy world and train a helpful and a harmless reward model in it, unless they are there.

    Returns:
        The models' folders by objective, and the folder of the preference pairs.
    """
    world = ensure_toy_world(folder / "toy-world", WORLD)
    runs = [Run(folder, "toy", objective, 0) for objective in SINGLE_OBJECTIVES]
    for run in runs:
        train_run(run, DATA, TRAIN)
    return {run.objective: str(run.folder / "reward_model") for run in runs}, str(world / "hh-rlhf")
