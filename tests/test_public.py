"""The package's front: few names, loaded when they are used, and the example of README and help, run as printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import make_model, make_tokenizer

import tension_utils
from tension_utils.models import save_reward_model

ROOT = Path(__file__).parents[1]
NAME = re.compile(r'name = "[^"]+"')
README = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[1]


def help_example() -> str:
    block = re.search(r"code-block:: python\n\n((?:    .*\n|\n)+)", tension_utils.__doc__)[1]
    return "\n".join(line.removeprefix("    ") for line in block.splitlines()).strip()


def test_readme_and_help_show_the_same_example_of_ten_lines() -> None:
    lines = README.strip().splitlines()
    assert help_example() == README.strip()
    assert len([line for line in lines if line]) <= 10


def test_the_example_runs_as_printed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_reward_model(make_model("gpt2"), make_tokenizer(), tmp_path / "model")
    exec(NAME.sub(f"name = {str(tmp_path / 'model')!r}", README), {})
    whole, without = re.fullmatch(
        r"margin ([+-][\d.]+), without 1 neurons ([+-][\d.]+)\n", capsys.readouterr().out
    ).groups()
    assert float(whole) != float(without)


def test_importing_costs_no_library_and_every_name_is_there() -> None:
    code = "import sys, tension_utils; print(sorted(set(sys.modules) & {'torch', 'numpy', 'pandas', 'transformers'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr
    for name in tension_utils.__all__:
        assert getattr(tension_utils, name) is not None
        assert name == "__version__" or f"`{name}`" in tension_utils.__doc__
    assert set(tension_utils.__all__) <= set(dir(tension_utils))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="no attribute 'rewards'; it offers load_reward_model, "):
        tension_utils.rewards  # noqa: B018
