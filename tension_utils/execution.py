"""Execute a notebook in this interpreter's kernel, and say why it stopped when it did."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger

from tension_utils.accelerators import own_accelerator

KERNEL_NAME = "python3"
KERNEL_TITLE = "Python 3 (ipykernel)"
START_SECONDS = 180  # for a kernel to answer; generous, as every core may be training
OUTPUT_SECONDS = 60  # for a cell's last output to arrive after its reply; nbclient's 4 s fail on a busy machine
RUNNER_TAGS = {"injected-parameters", "papermill-error-cell-tag"}  # cells that the source notebook does not have


@contextmanager
def own_kernel() -> Iterator[None]:
    """Make the kernel named python3 this interpreter, whatever kernels the user has installed.

    A private kernel specification comes first in the search path; a private IPython folder keeps the user's start-up
    files out and history locks away. Log level 40 hides ipykernel's warning about unencrypted loopback sockets.
    A fixed hash seed keeps the order of sets the same from run to run. Of several accelerators the kernel sees one.
    """
    with own_accelerator() as accelerator, tempfile.TemporaryDirectory(prefix="tension-kernel-") as folder:
        spec_folder = Path(folder) / "kernels" / KERNEL_NAME
        spec_folder.mkdir(parents=True)
        spec = {
            "argv": [
                sys.executable,
                "-m",
                "ipykernel_launcher",
                "-f",
                "{connection_file}",
                "--IPKernelApp.log_level=50",
            ],
            "display_name": KERNEL_TITLE,
            "language": "python",
            "env": {"IPYTHONDIR": str(Path(folder) / "ipython"), "PYTHONHASHSEED": "0"} | accelerator,
        }
        (spec_folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
        before = os.environ.get("JUPYTER_PATH")
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, before]))
        try:
            yield
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before


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


def source_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the cells that the source notebook has too."""
    return [cell for cell in notebook.cells if not RUNNER_TAGS & set(cell.metadata.get("tags", []))]


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
    cell, cells = suspects[0], source_cells(notebook)
    number = next((i for i, other in enumerate(cells, start=1) if other is cell), None)
    place = "the injected parameters" if number is None else f"cell {number} of {len(cells)}"
    lines = cell.source.strip().splitlines()
    return f"{place}, which begins with: {lines[0][:100]}" if lines else place


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
