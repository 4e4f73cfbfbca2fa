"""The page on your own reward model: its commands and its code run as printed, on two tiny random classifiers."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import copy_project
from tiny_models import make_model, make_tokenizer

from tension_utils import command
from tension_utils.artifacts import read_manifest
from tension_utils.models import save_reward_model

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "your_model.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```(bash|python)\n(.*?)```", PAGE, re.S)[::-1])  # the first of each language
CHAPTERS = re.findall(r"```bash\n(.*?)```", PAGE, re.S)[1]
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}<eos>\n{% endfor %}"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, toy_world: Path) -> Path:
    """A copy of the project with the page's models and pairs in it."""
    folder = copy_project(tmp_path_factory.mktemp("own") / "project")
    shutil.copytree(toy_world / "hh-rlhf", folder / "my-pairs")
    tokenizer = make_tokenizer(pad_is_eos=False)
    tokenizer.chat_template = CHAT
    for seed, name in enumerate(("my-helpful", "my-harmless")):
        model = make_model("llama", seed=seed, max_position_embeddings=512, pad_token_id=1)
        save_reward_model(model, tokenizer, folder / name)
    return folder


def run_notebook(project: Path, *arguments: str) -> nbformat.NotebookNode:
    environment = os.environ | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "workflow/run_notebook.py", *arguments]
    done = subprocess.run(call, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return nbformat.read(project / arguments[arguments.index("--output") + 1], as_version=4)


def passed_checks(notebook: nbformat.NotebookNode) -> int:
    texts = [out.get("data", {}).get("text/plain", "") for cell in notebook.cells for out in cell.get("outputs", [])]
    (table,) = [text for text in texts if text.startswith("Checks")]
    assert "fail" not in table.lower()
    return table.count("pass")


@pytest.mark.parametrize("line", BLOCKS["bash"].strip().splitlines())
def test_every_command_of_the_page_runs(
    line: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(project)
    assert command.main(shlex.split(line)[1:]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) > 1 and "warning" not in shown.err.lower()


def test_the_page_names_every_command() -> None:
    assert [line.split()[1] for line in BLOCKS["bash"].strip().splitlines()] == list(command.COMMANDS)


def test_the_chapters_run_on_adopted_models_as_printed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    exec(BLOCKS["python"], {})
    calls = [shlex.split(call) for call in CHAPTERS.replace("\\\n", " ").split(".venv/bin/python")[1:]]
    assert [Path(call[1]).stem for call in calls] == ["02_evaluate", "03_identify", "04_ablate", "05_overlap"]
    for call in calls:
        assert passed_checks(run_notebook(project, *call[1:])) >= 3
    facts = read_manifest(project / "runs/own/mine/helpful/seed0")
    assert set(facts) == {"train", "evaluate", "identify", "ablate"}
    assert facts["train"]["config"]["adopted"]["template"] == facts["evaluate"]["config"]["template"] == "chat"


def test_the_notebook_runs_on_two_models(project: Path) -> None:
    parameters = """{"models": {"helpful": "my-helpful", "harmless": "my-harmless"}, "template": "chat", "n_items": 6,
        "data_source": "my-pairs", "n_pairs": 6, "max_length": 512, "n_draws": 2, "root": "runs/page"}"""
    files = ("--output", "executed/11.ipynb", "--work", "work/11.ipynb")
    page = run_notebook(project, "notebooks/11_your_reward_model.ipynb", *files, "--parameters", parameters)
    assert passed_checks(page) == 5
    assert not (project / "runs/page/sandbox").exists()
