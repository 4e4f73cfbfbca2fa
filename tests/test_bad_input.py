"""Bad input from the outside: one clear message, non-zero exit, nothing half-written, and the next run continues.

Rows, files and weights are in the tests of their modules; here are the commands and the choices of the notebooks.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

import pipeline
import run_notebook
from run_notebook import check_parameters, declared_parameters
from tension_utils.config import (
    ABLATION_KINDS,
    ARMS,
    PRECISIONS,
    SCOPES,
    SCORE_KINDS,
    AblateConfig,
    DataConfig,
    EngineConfig,
    IdentifyConfig,
    TrainConfig,
    check_fields,
    list_runs,
)
from tension_utils.toy import model

pytestmark = pytest.mark.xdist_group("bad input")

ROOT = Path(__file__).parents[1]
STAGES = sorted(ROOT.glob("notebooks/0[1-5]_*.ipynb"))
every_stage = pytest.mark.parametrize("notebook", STAGES, ids=lambda path: path.stem)


def run_stage(notebook: Path, folder: Path, **parameters: object) -> int:
    """Run a stage notebook as the pipeline does, with its output and work below ``folder``."""
    places = ["--output", str(folder / "out.ipynb"), "--work", str(folder / "work.ipynb")]
    return run_notebook.main([str(notebook), *places, "--parameters", json.dumps(parameters)])


def test_the_five_stages_are_there() -> None:
    assert [path.stem for path in STAGES] == ["01_train", "02_evaluate", "03_identify", "04_ablate", "05_overlap"]


def test_unknown_profile_lists_the_files_there_are(capsys: pytest.CaptureFixture) -> None:
    assert pipeline.main(["--profile", "tinny", "--root", str(ROOT)]) == 2
    known = ", ".join(sorted(path.stem for path in (ROOT / "config").glob("*.yaml")))
    message = f"error: profile: expected one of {known}; got 'tinny'; did you mean 'tiny'?\n"
    assert capsys.readouterr().err == message


@every_stage
def test_unknown_parameter_lists_the_known_ones_and_starts_nothing(
    notebook: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run_stage(notebook, tmp_path, objectivs=["helpful"]) == 2
    message = capsys.readouterr().err
    assert f"{notebook}: unknown parameter 'objectivs'; did you mean 'objectives'? Known: " in message
    for name in declared_parameters(nbformat.read(notebook, as_version=4)):
        assert re.search(rf"\b{name}\b", message)
    assert not list(tmp_path.iterdir())


WRONG_VALUES = {"str": 3, "int": 0.5, "float": "1e-4", "list": "helpful", "dict": ["helpful"], "bool": 1}


@every_stage
def test_every_parameter_refuses_another_type_and_starts_nothing(
    notebook: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, parameter in declared_parameters(nbformat.read(notebook, as_version=4)).items():
        value = WRONG_VALUES[re.match(r"\w+", parameter.annotation)[0]]
        assert run_stage(notebook, tmp_path, **{name: value}) == 2, name
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and message.startswith("error: ")
        assert f"parameter {name!r}: expected {parameter.annotation}, got {value!r} ({type(value).__name__})" in message
    assert not list(tmp_path.iterdir())


def test_values_of_every_profile_are_parameters_of_their_notebook() -> None:
    import yaml

    for file in (ROOT / "config").glob("*.yaml"):
        profile = yaml.safe_load(file.read_text())
        for stage, notebook in zip(("train", "evaluate", "identify", "ablate", "overlap"), STAGES, strict=True):
            declared = declared_parameters(nbformat.read(notebook, as_version=4))
            common = {name: profile[name] for name in ("base_models", "objectives", "seeds")}
            check_parameters(declared, common | {"root": f"runs/{file.stem}"} | profile.get(stage, {}))


CHOICES: dict[str, tuple[Callable[[str], object], str, tuple[str, ...]]] = {
    "objective": (lambda bad: list_runs(Path("runs"), ["toy"], ["helpful", bad], [0]), "objectives", ARMS),
    "identified score kind": (lambda bad: IdentifyConfig(score_kinds=("rms", bad)), "score_kinds[1]", SCORE_KINDS),
    "ablated score kind": (lambda bad: AblateConfig(score_kinds=(bad,)), "score_kinds[0]", SCORE_KINDS),
    "ablation kind": (lambda bad: AblateConfig(ablation_kinds=("zero", bad)), "ablation_kinds[1]", ABLATION_KINDS),
    "main score kind": (lambda bad: AblateConfig(main_kind=bad), "main_kind", SCORE_KINDS),
    "identified scope": (lambda bad: IdentifyConfig(scopes=("all", bad)), "scopes[1]", SCOPES),
    "ablated scope": (lambda bad: AblateConfig(scope=bad), "scope", SCOPES),
    "training precision": (lambda bad: TrainConfig(precision=bad), "precision", PRECISIONS),
    "engine precision": (lambda bad: EngineConfig(precision=bad), "precision", PRECISIONS),
    "long pairs": (lambda bad: DataConfig(long_pairs=bad), "long_pairs", ("error", "drop", "truncate")),
    "bad pairs": (lambda bad: DataConfig(bad_pairs=bad), "bad_pairs", ("error", "drop")),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_unknown_choice_is_one_line_with_name_valid_ones_and_what_came(choice: str) -> None:
    make, name, valid = CHOICES[choice]
    with pytest.raises(ValueError) as caught:
        make("nonsense")
    assert str(caught.value) == f"{name}: expected one of {', '.join(valid)}; got 'nonsense'"


def test_unknown_training_option_lists_the_fields() -> None:
    with pytest.raises(
        ValueError, match=r"^train_options: expected fields of TrainConfig \(n_epochs, .*\); got \['lr'\]$"
    ):
        check_fields("train_options", {"lr": 1e-4}, TrainConfig)


def test_unknown_choice_in_a_notebook_is_kept_for_reading_and_the_message_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "work.ipynb").write_text("what an earlier failure left")
    assert run_stage(STAGES[-1], tmp_path, root="runs/no-such-profile", objectives=["helpful", "useful"]) == 1
    message = capsys.readouterr().err
    assert f"objectives: expected one of {', '.join(ARMS)}; got 'useful'" in message
    assert f"kept for reading: {tmp_path}/work.ipynb" in message
    assert nbformat.read(tmp_path / "work.ipynb", as_version=4).cells
    assert {path.name for path in tmp_path.iterdir()} == {"work.ipynb"}
    assert not (ROOT / "runs" / "no-such-profile").exists()


def command(module: object, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run a module's command line; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as caught:
        module.main()
    return caught.value.code


@pytest.mark.parametrize(
    "config, said",
    [
        ('{"conflict": 2}', "--config: expected fields of ToyConfig: conflict: expected at most 1; got 2"),
        ('{"n_train": "many"}', "n_train: expected a whole number; got 'many'"),
        (
            '{"conflicts": 0.4}',
            "conflicts: unknown name; did you mean 'conflict'? Known: conflict, noise, n_train, n_test",
        ),
        ('{"conflict": 0.4', "--config: "),
        ("[0.4]", "--config: expected fields of ToyConfig: "),
    ],
)
def test_wrong_knob_of_the_embedded_world_is_named_and_nothing_is_made(
    config: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(model, monkeypatch, "--folder", str(tmp_path / "world"), "--config", config) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
