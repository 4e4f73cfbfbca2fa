r"""Run one notebook strictly: check its parameters, execute it, publish it only if every cell completed.

    python workflow/run_notebook.py notebooks/02_evaluate.ipynb --output executed/02_evaluate.ipynb \
        --work work/tiny/02_evaluate.ipynb --parameters '{"root": "runs/tiny", "seeds": [0]}'

Exit status: 0 published, 1 the run failed, 2 the input is wrong (no kernel was started), 130 interrupted.
"""

import argparse
import ast
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Optional

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger
from pydantic import TypeAdapter, ValidationError

from accelerators import own_accelerator
from environment import kernel_environment
from schema import parse_yaml
from tension_utils.artifacts import atomic_path, git_commit, package_versions, parse_json
from tension_utils.config import exponent_hint, nearest

TYPES = {kind.__name__: kind for kind in (int, float, str, bool, list, dict)} | {"Any": Any, "Optional": Optional}
KERNEL_NAME = "python3"
KERNEL_TITLE = "Python 3 (ipykernel)"
START_SECONDS = 180  # for a kernel to answer; generous, as every core may be training
OUTPUT_SECONDS = 60  # for a cell's last output to arrive after its reply; nbclient's 4 s fail on a busy machine
RUNNER_TAGS = {"injected-parameters", "papermill-error-cell-tag"}  # cells that the source notebook does not have
RUNNER_PACKAGES = ("safetensors", "matplotlib", "papermill", "nbclient", "ipykernel")


class InputError(ValueError):
    """The request is wrong; nothing was started."""


class RunError(RuntimeError):
    """The notebook did not complete; it is kept for reading."""


class Parameter(NamedTuple):
    """One literal of the cell tagged ``parameters``: its type as text ("" accepts every value) and its default."""

    annotation: str
    default: Any


@dataclass(frozen=True)
class Request:
    """One run of one notebook.

    Args:
        notebook: source notebook; it is only read.
        output: where the executed notebook appears, complete or not at all.
        work: where it grows while it runs, and stays if it fails.
        parameters: values for names of the cell tagged ``parameters``.
        execution_timeout: seconds one cell may take; None is no limit.
    """

    notebook: Path
    output: Path
    work: Path
    parameters: dict[str, Any]
    execution_timeout: int | None = None


def matches(value: Any, annotation: str) -> bool:
    """Say whether a value has the type an annotation names; an int is a float, a bool is neither.

    Args:
        value: a JSON-like value.
        annotation: of names of `TYPES` and None, such as ``list[str]``, ``dict[str, int]`` or ``int | None``.

    Raises:
        InputError: the annotation is of another form.

    >>> matches(1, "float"), matches(True, "int"), matches([1, "a"], "list[int]"), matches(None, "str | None")
    (True, False, False, True)
    """
    try:
        adapter = TypeAdapter(eval(annotation or "Any", {"__builtins__": {}}, TYPES))
    except Exception:  # whatever a text that is no type can raise
        known = "int, float, str, bool, list, dict, list[X], dict[K, V], X | None"
        raise InputError(f"annotation {annotation!r} is not supported; use one of: {known}") from None
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def declared_parameters(notebook: nbformat.NotebookNode) -> dict[str, Parameter]:
    """Return the parameters a notebook declares, in the order of its cell tagged ``parameters``.

    ``papermill.inspect_notebook`` reads such a cell too, but overlooks ``int | None``, and texts with a number sign.

    Raises:
        InputError: no such cell, more than one, or a line that is not a literal with a known type.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(f"expected one code cell tagged 'parameters', found {len(cells)}; tag exactly one")
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise InputError(f"the cell tagged 'parameters' is not Python: line {error.lineno}: {error.msg}") from None
    is_text = [isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) for s in statements]
    return dict(_declared(statement) for statement, skip in zip(statements, is_text, strict=True) if not skip)


def _declared(statement: ast.stmt) -> tuple[str, Parameter]:
    """Turn ``name: type = literal`` or ``name = literal`` into a name and its `Parameter`."""
    where = f"line {statement.lineno} of the cell tagged 'parameters' ({ast.unparse(statement)})"
    target = statement.target if isinstance(statement, ast.AnnAssign) else getattr(statement, "targets", [None])[0]
    try:
        if not isinstance(target, ast.Name) or statement.value is None:
            raise ValueError
        default = ast.literal_eval(statement.value)
    except ValueError:
        raise InputError(f"{where} must assign a literal to a name: compute nothing there") from None
    written = ast.unparse(statement.annotation) if isinstance(statement, ast.AnnAssign) else ""
    annotation = written or ("" if default is None else type(default).__name__)
    annotation += " | None" * bool(annotation and default is None)
    if not matches(default, annotation):
        raise InputError(f"{where}: the default is not of the type it declares")
    return target.id, Parameter(annotation, default)


def check_parameters(declared: dict[str, Parameter], passed: dict[str, Any]) -> dict[str, Any]:
    """Return every parameter's value: the passed one, else the default.

    Raises:
        InputError: a passed name is unknown or a value has the wrong type; all faults in one message.
    """
    faults = []
    for name, value in passed.items():
        if name not in declared:
            hint = nearest(name, declared) or "."
            faults.append(f"unknown parameter {name!r}{hint} Known: {', '.join(declared) or 'none'}")
        elif not matches(value, declared[name].annotation):
            came = f"got {value!r} ({type(value).__name__}){exponent_hint(value)}"
            faults.append(f"parameter {name!r}: expected {declared[name].annotation}, {came}")
    if faults:
        raise InputError("\n".join(faults))
    return {name: parameter.default for name, parameter in declared.items()} | passed


def read_parameters(text: str | None, path: Path | None) -> dict[str, Any]:
    """Read parameters from a YAML or JSON file and from JSON or YAML text, which overrides the file.

    Raises:
        InputError: a file is missing, malformed, or not a mapping from names to values.
    """
    parameters = {}
    if path is not None:
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"parameters file {path}: expected a UTF-8 text; {error}") from None
        parameters |= _parse(content, f"parameters file {path}", is_json=path.suffix == ".json")
    if text is not None:
        parameters |= _parse(text, "--parameters", is_json=text.lstrip().startswith("{"))
    return parameters


def _parse(text: str, where: str, is_json: bool) -> dict[str, Any]:
    try:
        content = parse_json(text) if is_json else parse_yaml(text, where)
    except ValueError as error:
        raise InputError(f"{where}: expected JSON; {error}" if is_json else str(error)) from None
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(
            f'{where}: expected a mapping from names to values such as {{"profile": "tiny"}}, got {content!r}'
        )
    return content


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook.

    Raises:
        InputError: the file is missing or is not a notebook.
    """
    if not path.is_file():
        raise InputError(f"no notebook at {path}; give the path of an .ipynb file")
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises several unrelated types for broken files
        raise InputError(f"{path} is not a readable notebook: {first_line(error)}") from None
    return notebook


@contextmanager
def own_kernel() -> Iterator[None]:
    """Make the kernel named python3 this interpreter, whatever kernels, settings and variables the user has.

    A private kernel specification comes first in the search path; a private IPython folder keeps the user's start-up
    files out and history locks away. Log level 50 hides ipykernel's warning about unencrypted loopback sockets. The
    environment is `kernel_environment`. Of several accelerators the kernel sees one.
    """
    with own_accelerator() as accelerator, tempfile.TemporaryDirectory(prefix="tension-kernel-") as folder:
        spec_folder = Path(folder) / "kernels" / KERNEL_NAME
        spec_folder.mkdir(parents=True)
        program = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--IPKernelApp.log_level=50"]
        spec = {"argv": program, "display_name": KERNEL_TITLE, "language": "python", "env": accelerator}
        (spec_folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
        before = dict(os.environ)
        own = kernel_environment(Path(folder))
        own["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, before.get("JUPYTER_PATH")]))
        try:
            _set_environment(own)
            yield
        finally:
            _set_environment(before)


def _set_environment(values: dict[str, str]) -> None:
    """Make these all the variables there are; what is there already stays, as threads may read it."""
    for name in set(os.environ) - set(values):
        del os.environ[name]
    os.environ.update(values)


class StrictEngine(NBClientEngine):
    """Papermill's own engine, except that an interrupt is told from a kernel that died."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, execution_timeout=None, **_unused):
        """Execute the cells; see `NBClientEngine`."""
        client = PapermillNotebookClient(
            nb_man,
            kernel_name=kernel_name,
            timeout=execution_timeout,
            startup_timeout=START_SECONDS,
            iopub_timeout=OUTPUT_SECONDS,
            log=logger,
        )
        try:
            return client.execute()
        except DeadKernelError:
            if hasattr(client, "_async_cleanup_kernel_future"):  # nbclient's answer to SIGINT and SIGTERM
                raise KeyboardInterrupt from None
            raise


def execute(notebook: nbformat.NotebookNode, work: Path, parameters: dict[str, Any], timeout: int | None) -> None:
    """Execute a notebook with this interpreter; errors of cells, kernels and signals pass through.

    Args:
        notebook: the source; its kernel name is overridden.
        work: file that papermill writes after every cell.
        parameters: injected after the cell tagged ``parameters``.
        timeout: seconds one cell may take; None is no limit.
    """
    papermill_engines.register("strict", StrictEngine)
    notebook.metadata["kernelspec"] = {"name": KERNEL_NAME, "display_name": KERNEL_TITLE, "language": "python"}
    with own_kernel():
        papermill.execute_notebook(
            notebook,
            str(work).replace("{", "{{").replace("}", "}}"),
            parameters=parameters,
            engine_name="strict",
            kernel_name=KERNEL_NAME,
            language="python",
            execution_timeout=timeout,
            progress_bar={"desc": work.stem, "file": sys.stderr, "disable": None, "leave": False},
        )


def first_line(error: BaseException) -> str:
    """Return ``Type: first line of the message`` of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def stopped_cell(notebook: nbformat.NotebookNode, error: BaseException | None) -> str | None:
    """Describe the cell that kept a notebook from completing, or return None if every code cell completed.

    Args:
        notebook: as papermill left it.
        error: what ended the run. Papermill marks the rest as completed when a kernel dies or a cell takes too long;
            then the last cell that was started is the one.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    states = [cell.metadata.get("papermill", {}) for cell in code]
    suspects = [cell for cell, state in zip(code, states, strict=True) if state.get("status") != "completed"]
    if not suspects and error is not None:
        suspects = [cell for cell, state in zip(code, states, strict=True) if state.get("start_time")][-1:]
    if not suspects:
        return None
    cell = suspects[0]
    cells = [c for c in notebook.cells if not RUNNER_TAGS & set(c.metadata.get("tags", []))]  # those of the source
    number = next((i for i, other in enumerate(cells, start=1) if other is cell), None)
    place = "the injected parameters" if number is None else f"cell {number} of {len(cells)}"
    lines = cell.source.strip().splitlines()
    return f"{place}, which begins with: {lines[0][:100]}" if lines else place


def missing_figures(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the names of figures whose cells show no picture: text refers to them, and pages could not be built."""
    found = []
    for cell in notebook.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure")
        kinds = {kind for output in cell.get("outputs", []) for kind in output.get("data", {})}
        if figure and not any(kind.startswith("image/") for kind in kinds):
            found.append(figure.get("name", "a figure without name"))
    return found


def reason(notebook: nbformat.NotebookNode, error: BaseException | None, timeout: int | None) -> str:
    """Return one line on why a run did not complete."""
    if isinstance(error, CellTimeoutError):
        return f"the cell took longer than --execution-timeout {timeout} s"
    if isinstance(error, DeadKernelError):
        return "the kernel died (out of memory, killed, or ended by its own code)"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                trap = " (a cell must not end the notebook: the cells after it did not run)"
                text = f"{output.ename}: {(output.evalue.strip().splitlines() or [''])[0]}"
                return text + (trap if output.ename == "SystemExit" else "")
    return first_line(error) if error else "a cell did not complete"


def device_name() -> str:
    """Return the name of the GPU, or else of the CPU."""
    try:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        gpus = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (subprocess.SubprocessError, OSError):
        gpus = []
    cpuinfo = Path("/proc/cpuinfo")
    cpus = re.findall(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else []
    return next(iter([*gpus, *cpus]), platform.processor() or platform.machine())


def provenance(notebook: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return what is known before a run starts: what will run, from which source, where.

    Args:
        notebook: the source notebook.
        parameters: every parameter's value, defaults included.
    """
    return {
        "notebook": relative(notebook),
        "notebook_sha256": hashlib.sha256(notebook.read_bytes()).hexdigest(),
        "parameters": parameters,
        "commit": git_commit(),
        "python": platform.python_version(),
        "packages": package_versions() | {name: version(name) for name in RUNNER_PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device_name(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def relative(path: Path) -> str:
    """Return a path as seen from the working directory, or its name alone when it lies outside."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.name


def home() -> Path:
    """Return the user's home, or the root folder for a user without an entry and a variable, as in containers."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def without_machine_paths(value: Any) -> Any:
    """Return a notebook's JSON-like content with machine paths shortened in every text.

    The working directory is removed, so its files stay readable as relative paths; the interpreter's folder becomes
    ``<python>`` and the home directory ``~``.
    """
    places = [
        (Path.cwd(), "."),
        (Path(sys.prefix), "<python>"),
        (Path(sys.base_prefix), "<python>"),
        (home(), "~"),
    ]
    rules = []
    for place, short in places:
        if len(place.parts) > 1 and str(place) not in ("/usr", "/usr/local"):
            start = r"(?<![\w./~-])" + re.escape(str(place))
            rules.append((re.compile(start + "/"), "" if short == "." else short + "/"))
            rules.append((re.compile(start + r"(?![\w.-])"), short))
    return _replaced(value, rules)


def _replaced(value: Any, rules: list[tuple[re.Pattern, str]]) -> Any:
    if isinstance(value, str):
        for pattern, new in rules:
            value = pattern.sub(new, value)
        return value
    if isinstance(value, dict):
        for key in value:
            value[key] = _replaced(value[key], rules)
        return value
    if isinstance(value, list):
        return [_replaced(element, rules) for element in value]
    return value


def require_own_notebook(path: Path, made: str) -> None:
    """Check that a file may be replaced.

    Args:
        path: of an executed notebook, or where there is none yet.
        made: key of its metadata that this program writes.

    Raises:
        InputError: something else is there.
    """
    if not os.path.lexists(path):
        return
    try:
        is_own = made in json.loads(path.read_text(encoding="utf-8"))["metadata"]
    except ValueError:
        is_own = made == "papermill" and path.suffix == ".ipynb"  # cut off while it was written
    except (OSError, KeyError, TypeError):
        is_own = False
    if not is_own:
        raise InputError(f"{path}: expected nothing there, or a notebook that was executed here; name another file")


def run_notebook(request: Request) -> float:
    """Check, execute and publish a notebook.

    Returns:
        Seconds it took.

    Raises:
        InputError: notebook, parameters or paths are wrong; no kernel was started.
        RunError: it did not complete, or could not be written; an earlier output stays as it was.
        KeyboardInterrupt: interrupted by SIGINT or SIGTERM; the kernel is ended.
    """
    notebook = read_notebook(request.notebook)
    if len({path.resolve() for path in (request.notebook, request.output, request.work)}) < 3:
        raise InputError("the notebook, --output and --work must be three different files")
    for place, made in ((request.output, "provenance"), (request.work, "papermill")):
        require_own_notebook(place, made)
    try:
        values = check_parameters(declared_parameters(notebook), request.parameters)
    except InputError as error:
        raise InputError(f"{request.notebook}: {error}") from None
    record = provenance(request.notebook, values)
    start, error = time.monotonic(), None
    try:
        request.work.parent.mkdir(parents=True, exist_ok=True)
        request.work.unlink(missing_ok=True)
        execute(notebook, request.work, request.parameters, request.execution_timeout)
    except (Exception, KeyboardInterrupt) as caught:
        error = caught
    seconds = time.monotonic() - start
    record |= {"finished": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(seconds, 3)}
    finish(request, record, error)
    return seconds


def finish(request: Request, record: dict[str, Any], error: BaseException | None) -> None:
    """Publish a completed run; otherwise keep it and raise, as `run_notebook` describes."""
    if not request.work.is_file():
        raise RunError(f"{request.notebook} did not start: {first_line(error)}") from None
    executed = nbformat.read(request.work, as_version=4)
    cell = stopped_cell(executed, error)
    if cell is None and error is None and (missing := missing_figures(executed)):
        where = f"kept for reading: {request.work}"
        raise RunError(f"{request.notebook}: expected a picture below each figure cell; none is at {missing}; {where}")
    if cell is None and error is None:
        places = {"input_path": relative(request.notebook), "output_path": relative(request.output)}
        executed.metadata.papermill |= places
        executed.metadata["provenance"] = record
        text = nbformat.writes(without_machine_paths(executed)) + "\n"
        try:
            with atomic_path(request.output) as part:
                part.write_text(text, encoding="utf-8")
        except OSError as fault:
            kept = f"the executed notebook is at {request.work}"
            raise RunError(f"cannot write {request.output}: {fault}; {kept}") from None
        request.work.unlink()
        return
    why = reason(executed, error, request.execution_timeout)
    message = f"{request.notebook} stopped at {cell or 'its start'}\n  {why}\n  kept for reading: {request.work}"
    if isinstance(error, KeyboardInterrupt):
        raise KeyboardInterrupt(message)
    raise RunError(message)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path, help="source notebook")
    parser.add_argument("--output", type=Path, required=True, help="executed notebook; appears only when complete")
    parser.add_argument("--work", type=Path, required=True, help="where it runs, and stays if it fails")
    parser.add_argument("--parameters", help="values as a JSON or YAML mapping; overrides the file")
    parser.add_argument("--parameters-file", type=Path, help="values as a .json or .yaml file")
    parser.add_argument("--execution-timeout", type=int, help="seconds one cell may take (default: no limit)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parse_arguments(arguments)
    try:
        parameters = read_parameters(options.parameters, options.parameters_file)
        places = (options.notebook, options.output, options.work)
        seconds = run_notebook(Request(*places, parameters, options.execution_timeout))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"error: {error or 'interrupted'}", file=sys.stderr)
        return 130
    print(f"{options.notebook} -> {options.output} ({seconds:.1f} s)", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
