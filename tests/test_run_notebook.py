"""The runner: nothing starts on wrong input, nothing is published unless every cell completed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from conftest import interruptible
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from run_notebook import (
    InputError,
    check_parameters,
    declared_parameters,
    main,
    matches,
    read_parameters,
    without_machine_paths,
)

ROOT = Path(__file__).parents[1]
DECLARATION = 'profile: str = "tiny"\nseeds: list[int] = [0, 1]\nrate: float = 0.5\nlimit: int = None\nuse_cache = True'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_notebook(*cells: str, declaration: str = DECLARATION, path: str = "source.ipynb") -> Path:
    """Write a micro notebook: a title, the parameters, then the given code cells."""
    parameters = new_code_cell(declaration, metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), parameters, *map(new_code_cell, cells)])
    nbformat.write(notebook, path)
    return Path(path)


def run(*extra: str, notebook: str = "source.ipynb") -> int:
    """Run the micro notebook into out/a.ipynb by way of work/a.ipynb."""
    return main([notebook, "--output", "out/a.ipynb", "--work", "work/a.ipynb", *extra])


def files(folder: str) -> list[str]:
    """Return the names in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


def command(*extra: str) -> list[str]:
    """Return the same request as a command for another process."""
    return [
        sys.executable,
        str(ROOT / "workflow" / "run_notebook.py"),
        "source.ipynb",
        "--output",
        "out/a.ipynb",
        "--work",
        "work/a.ipynb",
        *extra,
    ]


def environment() -> dict[str, str]:
    """Return an environment in which another process imports this checkout's package."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_success_publishes_with_provenance_and_without_machine_paths(folder, capfd):
    write_notebook(
        "import os, sys\nfrom pathlib import Path\nPath('seen').write_text(sys.executable)",
        "print(profile, seeds, rate, os.getcwd(), os.environ['IPYTHONDIR'].startswith(str(Path.home())))",
    )
    assert run("--parameters", '{"profile": "laptop", "rate": 1}') == 0
    text = Path("out/a.ipynb").read_text()
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[-1].outputs[0].text == "laptop [0, 1] 1 . False\n"
    assert Path("seen").read_text() == sys.executable
    assert str(folder) not in text
    assert sys.prefix not in text
    record = notebook.metadata.provenance
    assert record.parameters == {"profile": "laptop", "seeds": [0, 1], "rate": 1, "limit": None, "use_cache": True}
    assert record.notebook == "source.ipynb"
    assert len(record.notebook_sha256) == 64
    assert {"packages", "device", "python", "commit", "started", "finished", "seconds"} <= set(record)
    assert notebook.metadata.papermill.output_path == "out/a.ipynb"
    assert not Path("work/a.ipynb").exists()
    assert files("out") == ["a.ipynb"]
    error_output = capfd.readouterr().err
    assert "TCP" not in error_output
    assert error_output.count("\n") == 1, "off a terminal the runner says one line"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (
            '{"profil": "tiny"}',
            ["unknown parameter 'profil'", "did you mean 'profile'", "seeds, rate, limit, use_cache"],
        ),
        ('{"seeds": "0"}', ["'seeds'", "expected list[int]", "'0' (str)"]),
        ('{"seeds": [true]}', ["expected list[int]", "[True]"]),
        ('{"rate": "1e-4"}', ["expected float", "write 1.0e-4"]),
        ('{"use_cache": 1}', ["expected bool", "1 (int)"]),
        ('{"limit": 1.5}', ["expected int | None", "1.5 (float)"]),
        ('{"profile": null, "other": 1}', ["expected str", "unknown parameter 'other'"]),
        ('{"profile": "tiny"', ["--parameters: expected JSON"]),
        ('{"rate": 1, "rate": 2}', ["comes twice"]),
        ("[1, 2]", ["expected a mapping"]),
        ("a: [1", ["--parameters: line 1: expected YAML"]),
    ],
)
def test_wrong_parameters_start_no_kernel(folder, capsys, parameters, said):
    write_notebook("open('started', 'w')")
    assert run("--parameters", parameters) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in said), message
    assert not Path("started").exists()
    assert not Path("out").exists()
    assert not Path("work").exists()


def test_wrong_notebooks_and_paths_are_named(folder, capsys):
    assert run() == 2
    assert "no notebook at source.ipynb" in capsys.readouterr().err
    Path("source.ipynb").write_text('{"cells": [')
    assert run() == 2
    assert "not a readable notebook" in capsys.readouterr().err
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), "source.ipynb")
    assert run() == 2
    assert "one code cell tagged 'parameters', found 0" in capsys.readouterr().err
    write_notebook()
    assert main(["source.ipynb", "--output", "out/a.ipynb", "--work", "out/../out/a.ipynb"]) == 2
    assert "three different files" in capsys.readouterr().err
    assert run("--parameters-file", "absent.yaml") == 2
    assert "absent.yaml" in capsys.readouterr().err
    assert not Path("out").exists()


def test_failing_cell_keeps_the_notebook_then_the_next_run_completes(folder, capsys):
    write_notebook("from pathlib import Path\nvalue = int(Path('input').read_text())", "print('after', value)")
    assert run() == 1
    message = capsys.readouterr().err
    assert "cell 3 of 4" in message
    assert "FileNotFoundError" in message
    assert "work/a.ipynb" in message
    assert not Path("out").exists()
    kept = nbformat.read("work/a.ipynb", as_version=4)
    assert any(output.output_type == "error" for cell in kept.cells for output in cell.get("outputs", []))
    Path("input").write_text("7")
    assert run() == 0
    assert "after 7" in Path("out/a.ipynb").read_text()
    good = Path("out/a.ipynb").read_bytes()
    Path("input").write_text("seven")
    assert run() == 1
    assert "ValueError: invalid literal" in capsys.readouterr().err
    assert Path("out/a.ipynb").read_bytes() == good


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("import sys; sys.exit(0)", "SystemExit: 0 (a cell must not end the notebook"),
        ("import os; os._exit(0)", "the kernel died"),
        ("import time; time.sleep(60)", "longer than --execution-timeout 6 s"),
    ],
)
def test_silent_ends_are_failures(folder, capsys, cell, said):
    write_notebook(cell, "print('after')")
    assert run("--execution-timeout", "6") == 1
    message = capsys.readouterr().err
    assert said in message
    assert f"cell 3 of 4, which begins with: {cell}" in message
    assert not Path("out").exists()
    assert Path("work/a.ipynb").exists()


def wait_for(path: Path) -> None:
    """Wait until a file exists and holds something."""
    end = time.monotonic() + 90
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Say whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_interrupt_ends_the_kernel_and_says_so(folder):
    write_notebook("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)")
    process = subprocess.Popen(
        command(), env=environment(), stderr=subprocess.PIPE, text=True, preexec_fn=interruptible
    )
    wait_for(folder / "pid")
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=90)
    assert process.returncode == 130, message
    assert "interrupted" in message
    assert not Path("out").exists()
    assert not is_alive(int(Path("pid").read_text()))


def test_kill_in_the_middle_of_the_write_leaves_nothing_half_written(folder):
    Path("sitecustomize.py").write_text(
        "import os, signal\nif os.environ.get('KILL_AT_FSYNC'):\n"
        "    os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    write_notebook("value = 1")
    env = environment()
    env["PYTHONPATH"] = os.pathsep.join([str(folder), env["PYTHONPATH"]])
    killed = subprocess.run(command(), env=env | {"KILL_AT_FSYNC": "1"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not Path("out/a.ipynb").exists()
    assert run() == 0
    assert files("out") == ["a.ipynb"], "the next run completes and clears the part file"


def test_full_disk_is_one_message_and_keeps_the_run(folder, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    write_notebook("value = 1")
    monkeypatch.setattr(os, "fsync", full)
    assert run() == 1
    message = capsys.readouterr().err
    assert "cannot write out/a.ipynb" in message
    assert "No space left" in message
    assert files("out") == []
    assert Path("work/a.ipynb").exists()


def test_parameters_file_and_text_join(folder):
    Path("p.yaml").write_text("profile: laptop\nrate: 1.0e-4\n")
    Path("p.json").write_text(json.dumps({"rate": 2}))
    assert read_parameters(None, Path("p.yaml")) == {"profile": "laptop", "rate": 1e-4}
    assert read_parameters('{"rate": 3}', Path("p.yaml")) == {"profile": "laptop", "rate": 3}
    assert read_parameters(None, Path("p.json")) == {"rate": 2}
    assert read_parameters(None, None) == {}


@pytest.mark.parametrize(
    ("declaration", "said"),
    [
        ("a: int = 1 + len('x')", "must assign a literal"),
        ("import os", "must assign a literal"),
        ("a: int = 'x'", "not of the type"),
        ("a: torch.device = 'cpu'", "not supported"),
        ("a = (1, 2)", "not supported"),
        ("a: int = ", "not Python"),
        ("a: open('x') = 'x'", "not supported"),
    ],
)
def test_declarations_that_cannot_be_checked_are_refused(declaration, said):
    cell = new_code_cell(declaration, metadata={"tags": ["parameters"]})
    with pytest.raises(InputError, match=said):
        declared_parameters(new_notebook(cells=[cell]))


@settings(deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=3),
        lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=2), part, max_size=3),
    )
)
def test_a_value_passes_exactly_its_own_type(value):
    """Independent statement of the rule: the exact type's name, plus int where float is asked."""
    own = {type(value).__name__} | ({"float"} if type(value) is int else set())
    for name in ("int", "float", "str", "bool", "list", "dict"):
        assert matches(value, name) == (name in own)
        assert matches(value, f"{name} | None") == (name in own or value is None)
        assert matches([value, value], f"list[{name}]") == (name in own)
    if type(value).__name__ in ("int", "float", "str", "bool", "list", "dict"):
        cell = new_code_cell(f"# comment\na = {value!r}", metadata={"tags": ["parameters"]})
        declared = declared_parameters(new_notebook(cells=[cell]))
        assert check_parameters(declared, {"a": value}) == {"a": value}


def test_machine_paths_are_shortened_only_where_they_stand_alone(folder, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/someone"))
    text = f"{folder}/a.py, {folder}, {folder}x/b, other{folder}/c, /home/someone/d, {sys.prefix}/lib/e.py"
    expected = f"a.py, ., {folder}x/b, other{folder}/c, ~/d, <python>/lib/e.py"
    assert without_machine_paths({"k": [text, 1]}) == {"k": [expected, 1]}


def test_the_kernel_has_the_same_environment_whoever_starts_it(folder, monkeypatch):
    changed = {"MPLBACKEND": "Agg", "MATPLOTLIBRC": str(folder / "mine"), "PYTHONHASHSEED": "7", "PYTHONOPTIMIZE": "2"}
    changed |= {"PYTHONSTARTUP": "start.py", "LC_ALL": "tr_TR", "TZ": "Asia/Kolkata", "LINES": "3", "KEPT": "yes"}
    Path("mine").write_text("figure.figsize: 1, 1\n")
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    write_notebook(
        "import os, matplotlib\nfrom matplotlib import pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        "print({name: os.environ.get(name) for name in ('PYTHONHASHSEED', 'PYTHONOPTIMIZE', 'TZ', 'LINES', 'KEPT')})\n"
        "print(matplotlib.get_backend(), plt.rcParams['figure.figsize'], os.environ['LC_ALL'])",
    )
    assert run() == 0
    drawn, said = nbformat.read("out/a.ipynb", as_version=4).cells[-2:]
    assert any("image/png" in output.get("data", {}) for output in drawn.outputs)
    kept = {"PYTHONHASHSEED": "0", "PYTHONOPTIMIZE": None, "TZ": None, "LINES": None, "KEPT": "yes"}
    assert said.outputs[0].text.splitlines()[0] == str(kept)
    assert said.outputs[0].text.splitlines()[1].endswith("inline [6.4, 4.8] C.UTF-8")
    assert dict(os.environ) == before


def test_a_figure_cell_without_a_picture_is_an_error(folder, capsys):
    path = write_notebook("print('no figure')")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].metadata["mystnb"] = {"figure": {"name": "fig-a", "caption": "A figure."}}
    nbformat.write(notebook, path)
    assert run() == 1
    assert "expected a picture below each figure cell; none is at ['fig-a']" in capsys.readouterr().err
    assert not Path("out/a.ipynb").exists() and Path("work/a.ipynb").exists()
    assert run() == 1, "what was kept for reading may be replaced"


@pytest.mark.parametrize("place", ["out/a.ipynb", "work/a.ipynb"])
def test_files_that_were_not_made_here_are_never_replaced(folder, capsys, place):
    write_notebook("1")
    Path(place).parent.mkdir()
    for content in (None, nbformat.writes(new_notebook(cells=[new_markdown_cell("mine")])), "[]"):
        Path(place).mkdir() if content is None else Path(place).write_text(content)
        assert run() == 2
        assert f"{place}: expected nothing there, or a notebook that was executed here" in capsys.readouterr().err
        if content is None:
            Path(place).rmdir()
        else:
            assert Path(place).read_text() == content


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_user_without_an_entry_gets_a_home_and_a_name(tmp_path):
    from environment import usable_environment

    for folder in (tmp_path, *tmp_path.parents):  # of this run of the tests; others must be able to pass
        if folder == tmp_path or folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o777)
    code = "import os, sys, json; sys.path[:0] = sys.argv[1:3]; from pathlib import Path; import run_notebook\n"
    code += "from environment import usable_environment\nos.setuid(54321)\nassert run_notebook.home() == Path('/')\n"
    code += "print(json.dumps(usable_environment(Path(sys.argv[3]))))"
    bare = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    asked = [sys.executable, "-c", code, str(ROOT / "workflow"), str(ROOT), str(tmp_path)]
    done = subprocess.run(asked, env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["HOME"] == str(tmp_path / ".cache" / "home") and Path(found["HOME"]).is_dir()
    assert found["USER"] == found["LOGNAME"] == "user54321"
    assert usable_environment(tmp_path)["HOME"] == os.environ["HOME"]
