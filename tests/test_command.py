"""The command: every subcommand on tiny models and the toy world, what it writes, and what it says of bad input."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from tiny_models import make_model, make_tokenizer

from tension_utils import command
from tension_utils.benchmarks.load import load_benchmark
from tension_utils.config import SCORE_KINDS
from tension_utils.evaluation import score_items
from tension_utils.models import load_reward_model, load_tokenizer, save_reward_model
from tension_utils.neurons import NeuronSet

ROOT = Path(__file__).parents[1]
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}<eos>\n{% endfor %}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two models of one shape with a chat template, and one of another shape."""
    root, tokenizer = tmp_path_factory.mktemp("models"), make_tokenizer(pad_is_eos=False)
    tokenizer.chat_template = CHAT
    kinds = {"one": ("llama", 0), "two": ("llama", 1), "other": ("gpt2", 2)}
    for name, (kind, seed) in kinds.items():
        model = make_model(kind, seed=seed, max_position_embeddings=512, pad_token_id=1)
        save_reward_model(model, tokenizer, root / name)
    return {name: str(root / name) for name in kinds}


@pytest.fixture(scope="module")
def data(toy_world: Path) -> str:
    return str(toy_world / "hh-rlhf")


def test_score_gives_the_package_s_rewards(
    models: dict[str, str], data: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["score", models["one"], data, "--template", "chat", "--n-items", "3"]
    assert command.main([*arguments, "--output", str(tmp_path / "rewards.parquet")]) == 0
    shown = capsys.readouterr()
    table = pd.read_parquet(tmp_path / "rewards.parquet")
    subsets = {"helpful": ("helpful-base",), "harmless": ("harmless-base",)}
    items = {item.item_id: item for item in load_benchmark("hh-rlhf", data, subsets=subsets)}
    model, tokenizer = load_reward_model(models["one"]), load_tokenizer(models["one"])
    rewards = score_items(model, tokenizer, [items[name] for name in table.item_id], template="chat", progress=False)
    assert len(table) == 6 and table.margin.tolist() == pytest.approx([each.margin for each in rewards], abs=1e-4)
    assert set(table.template) == {"chat"} and all(name in shown.out for name in table.item_id)
    assert "Loading weights" in shown.err and "Loading weights" not in shown.out, "bars are on stderr"


def test_evaluate_gives_accuracy_with_its_interval_and_warns_of_the_template(
    models: dict[str, str], data: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["evaluate", models["one"], data, "--n-items", "6", "--output", str(tmp_path / "a.parquet")]
    assert command.main(arguments) == 0
    table = pd.read_parquet(tmp_path / "a.parquet")
    assert set(table.subset) == {"helpful-base", "harmless-base"} and set(table.template) == {"hh"}
    assert (table.n_clusters == 6).all() and (table.ci_low <= table.accuracy).all()
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tension: ")]
    assert len(told) == 1 and "has a chat template, and texts are put in that of HH-RLHF" in told[0]


def test_neurons_are_those_of_the_package_highest_first(
    models: dict[str, str], data: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["neurons", models["one"], data, "--template", "hh", "--n-items", "2", "--fraction", "0.05"]
    assert command.main([*arguments, "--output", str(tmp_path / "n.parquet")]) == 0
    table = pd.read_parquet(tmp_path / "n.parquet")
    assert len(table) == round(0.05 * 3 * 48) and table.attribution.is_monotonic_decreasing
    assert len(NeuronSet.of((3, 48), zip(table.layer, table["index"], strict=True))) == len(table)
    assert command.main([*arguments, "--fraction", "0.5"]) == 0
    assert "... and 52 more rows; --output FILE.parquet writes all" in capsys.readouterr().out
    assert command.main([*arguments, "--kind", "rms_change"]) == 2
    assert "--kind rms_change compares with the model before training: expected its name" in capsys.readouterr().err
    assert command.main([*arguments, "--kind", "rms_change", "--base-model", models["two"]]) == 0


def test_ablate_compares_with_random_sets_on_prompts_that_did_not_select(
    models: dict[str, str], data: str, tmp_path: Path
) -> None:
    arguments = ["ablate", models["one"], data, "--template", "hh", "--n-items", "4", "--fraction", "0.1"]
    assert command.main([*arguments, "--n-draws", "3", "--output", str(tmp_path / "e.parquet")]) == 0
    table = pd.read_parquet(tmp_path / "e.parquet")
    assert table["set"].tolist() == ["attribution"] * 2 and set(table.metric) == {"accuracy", "margin"}
    assert (table.n_draws == 3).all() and (table.n_clusters == 4).all() and (table.n_neurons == 14).all()
    assert table[table.metric == "margin"].effect.abs().item() > 0


def test_overlap_compares_two_models_of_one_shape(
    models: dict[str, str], data: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tail = [data, "--template", "hh", "--n-items", "2", "--kind", "mean_abs", "--fraction", "0.1"]
    assert command.main(["overlap", models["one"], models["two"], *tail, "--output", str(tmp_path / "o.parquet")]) == 0
    assert command.main(["overlap", models["one"], models["one"], *tail]) == 0
    row = pd.read_parquet(tmp_path / "o.parquet").iloc[0]
    assert 0 < row.jaccard < 1 and row.n_neurons == 14
    assert " 1 " in capsys.readouterr().out.splitlines()[-1], "a model overlaps itself fully"
    assert command.main(["overlap", models["one"], models["other"], *tail]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "('llama', 3, 48); got ('gpt2', 3, 48); neurons of different networks cannot be compared" in told


BAD = {
    "no such model": (["score", "MISSING", "DATA"], "expected a model folder, but .* does not exist"),
    "no such data": (["score", "MODEL", "MISSING"], "expected the folder .*helpful-base"),
    "no such benchmark folder": (
        ["score", "MODEL", "MISSING", "--layout", "rm-bench"],
        "rm-bench: expected the folder",
    ),
    "no such subset": (["score", "MODEL", "DATA", "--helpful", "mine"], "expected the folder .*mine.*has"),
    "no such template": (["score", "MODEL", "DATA", "--template", "chatml"], "invalid choice: 'chatml'"),
    "no such command": (["scores", "MODEL", "DATA"], "invalid choice: 'scores'.*see tension --help"),
    "empty data": (["score", "MODEL", ""], "DATA: expected a folder or a public name; got ''"),
    "blank model": (["score", " ", "DATA"], "MODEL: expected a folder or a public name; got ' '"),
    "no data": (["score", "MODEL"], "required: DATA; see tension score --help"),
    "too few items": (["score", "MODEL", "DATA", "--n-items", "-1"], "--n-items: expected at least 0; got -1"),
    "fraction": (["neurons", "MODEL", "DATA", "--fraction", "1"], "--fraction: expected more than 0 and less than 1"),
    "other file": (["score", "MODEL", "DATA", "--output", "a.csv"], "file name that ends with .parquet; got a.csv"),
    "no device": (["score", "MODEL", "DATA", "--device", "cuda"], "--device cuda: expected a GPU"),
    "too long": (["score", "MODEL", "DATA", "--max-length", "513"], "--max-length: expected at most 512, the context"),
    "too short": (["score", "MODEL", "DATA", "--max-length", "8"], "at least one item that fits into max_length"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_ends_with_one_line_and_code_2(
    fault: str, models: dict[str, str], data: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments, sentence = BAD[fault]
    names = {"MODEL": models["one"], "DATA": data, "MISSING": str(tmp_path / "nowhere")}
    template = [] if "--template" in arguments else ["--template", "hh"]
    assert command.main([*(names.get(word, word) for word in arguments), *template]) == 2
    shown = capsys.readouterr()
    last = shown.err.splitlines()[-1]
    assert re.search(sentence, last), last
    assert last.startswith("tension") and "Traceback" not in shown.err and not shown.out


def test_a_file_is_replaced_only_with_force_and_before_that_nothing_is_loaded(
    models: dict[str, str], data: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"mine")
    arguments = ["score", models["one"], data, "--template", "hh", "--n-items", "1"]
    arguments += ["--output", str(tmp_path / "a.parquet")]
    assert command.main(arguments) == 2 and (tmp_path / "a.parquet").read_bytes() == b"mine"
    assert "a.parquet is there; name another file, or replace it with --force" in capsys.readouterr().err
    assert command.main([*arguments, "--force"]) == 0
    assert len(pd.read_parquet(tmp_path / "a.parquet")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_what_is_no_bad_input_is_not_hidden(
    models: dict[str, str], data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def stop(options: object) -> None:
        """Stop."""
        raise KeyboardInterrupt

    def fail(options: object) -> None:
        """Fail."""
        raise RuntimeError("a fault of ours")

    monkeypatch.setitem(command.COMMANDS, "score", stop)
    assert command.main(["score", models["one"], data]) == 1
    assert capsys.readouterr().err == "tension: stopped\n"
    monkeypatch.setitem(command.COMMANDS, "score", fail)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        command.main(["score", models["one"], data])


def test_help_has_examples_that_parse_and_loads_no_torch(capsys: pytest.CaptureFixture) -> None:
    code = """import sys, tension_utils.command
print(tension_utils.command.main(["--help"]), "torch" in sys.modules, "pandas" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 False False", done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("  tension ")]
    assert {words[1] for words in lines} == set(command.COMMANDS)
    for words in lines:
        assert command._parser().parse_args(words[1:]).command == words[1]
    for name in command.COMMANDS:
        assert command.main([name, "--help"]) == 0
        assert "examples:" in capsys.readouterr().out


def test_the_console_script_and_the_module_are_this_command() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"tension": "tension_utils.command:main"}
    done = subprocess.run([sys.executable, "-m", "tension_utils", "score"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "MODEL, DATA" in done.stderr


def test_kinds_are_those_of_the_package() -> None:
    from tension_utils.activations import KINDS

    assert set(SCORE_KINDS) == set(KINDS)
