"""What the project needs: declared, pinned, locked, and a package that can be imported beside nothing else."""

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from conftest import copy_project
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN = {
    "tension_utils",
    *(path.stem for folder in ("workflow", "book/_ext", "tests") for path in (ROOT / folder).glob("*.py")),
}


def requirements(lines: list[str]) -> dict[str, Requirement]:
    """Return requirements by canonical name; those on the project's own extras are followed."""
    found = {}
    for requirement in map(Requirement, lines):
        if requirement.name == PROJECT["name"]:
            found |= requirements([line for extra in requirement.extras for line in EXTRAS[extra]])
        else:
            found[canonicalize_name(requirement.name)] = requirement
    return found


CORE = requirements(PROJECT["dependencies"])
RANGES = CORE | requirements([line for lines in EXTRAS.values() for line in lines])
PINS = requirements(
    [line.split("#")[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if line.split("#")[0].strip()]
)
LOCK = re.findall(r"^([\w.-]+)==(\S+)(.*(?:\n +--hash=.*)+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)


def imported(paths: list[Path]) -> dict[str, str]:
    """Return the distributions that files import, with one of the files each."""
    distributions, found = packages_distributions(), {}
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
            text = "\n".join("".join(cell) for cell in cells)
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in {name.split(".")[0] for name in names} - OWN - set(sys.stdlib_module_names):
                found[canonicalize_name(distributions[name][0])] = path.relative_to(ROOT).as_posix()
    return found


def test_every_import_of_the_core_is_declared() -> None:
    package = ROOT / "tension_utils"
    core = [path for path in package.rglob("*.py") if "show" not in path.parts]
    assert not {name: path for name, path in imported(core).items() if name not in CORE}
    shown = imported(sorted((package / "show").rglob("*.py")))
    assert not {name: path for name, path in shown.items() if name not in CORE | requirements(EXTRAS["show"])}


@pytest.mark.parametrize(
    "extra, pattern",
    [("pipeline", "workflow/*.py"), ("book", "book/_ext/*.py"), ("book", "notebooks/*.ipynb"), ("test", "tests/*.py")],
)
def test_every_import_of_the_programs_is_in_their_extra(extra: str, pattern: str) -> None:
    declared = CORE | requirements(EXTRAS[extra])
    found = imported(sorted(ROOT.glob(pattern)))
    assert found and not {name: path for name, path in found.items() if name not in declared}


def test_pins_and_ranges_name_the_same_packages_and_agree() -> None:
    assert set(PINS) == set(RANGES)
    for name, pin in PINS.items():
        pinned = next(iter(pin.specifier)).version
        assert RANGES[name].specifier.contains(pinned), f"{name}: {pinned} is outside {RANGES[name].specifier}"


def test_the_environment_of_these_tests_has_the_pins() -> None:
    other = {name: version(name) for name, pin in PINS.items() if not pin.specifier.contains(version(name))}
    assert not other, f"{other}: run `make test`, which installs requirements.txt"


def test_the_lock_holds_every_pin_but_that_of_torch_with_hashes_and_names_no_host() -> None:
    locked = {canonicalize_name(name): found for name, found, _ in LOCK}
    pins = {name: next(iter(pin.specifier)).version for name, pin in PINS.items() if name != "torch"}
    assert {name: locked.get(name) for name in pins} == pins, "run `make lock`"
    text = (ROOT / "requirements.lock").read_text()
    assert len(LOCK) == len([line for line in text.splitlines() if not line.startswith(" ")]), "each has its hashes"
    assert "://" not in text and "torch" not in locked and not [name for name in locked if name.startswith("nvidia-")]


def test_a_wheel_is_imported_where_nothing_else_is_installed(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(project)]
    subprocess.run(built, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {name.split("/")[0].split("-")[0] for name in archive.namelist()} == {"tension_utils"}
    target = tmp_path / "alone"
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)], check=True)
    code = f"""
import sys
sys.path.append({str(target)!r})
import tension_utils
assert tension_utils.__file__.startswith({str(target)!r})
assert "ablated" in dir(tension_utils) and "torch" not in sys.modules
try:
    tension_utils.ablated
except ModuleNotFoundError as error:
    print(error.name)
"""
    bare = [sys.executable, "-I", "-S", "-c", code]  # no packages but those of Python
    done = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, done.stderr
