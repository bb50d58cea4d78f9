"""The notebook studies/examples/tour.ipynb runs from its first to its last cell."""

import gc
import os
import sys
import warnings
from pathlib import Path

import nbformat
import pytest
from conftest import LATENCY_S
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

FILE = Path(__file__).parents[1] / "studies" / "examples" / "tour.ipynb"
ROOT = FILE.parents[2]
TIME_BRIEFLY = (
    f"--IPKernelApp.exec_lines=__import__('search.costs.latency', fromlist=['_']).MAX_SECONDS.update(cpu={LATENCY_S})"
)


def run_notebook(folder: Path):
    """Run the notebook in a folder, with this Python and this checkout; return it with its outputs."""
    notebook = nbformat.read(FILE, as_version=4)
    kernel = KernelManager(kernel_name="python3")
    kernel.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", TIME_BRIEFLY]
    command = folder / "bin" / "voxnas"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m search.cli "$@"\n')
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PLOTLY_RENDERER": "plotly_mimetype",
    }
    client = NotebookClient(notebook, timeout=600, km=kernel, resources={"metadata": {"path": str(folder)}})
    try:
        return client.execute(env=environment)
    finally:
        del client, kernel
        with warnings.catch_warnings():  # zmq's sockets close themselves only when they are collected
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text(notebook):
    return "".join(str(output.get("text", output.get("data", ""))) for output in outputs(notebook))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_runs_and_shows_frames_figures_and_reasons(tmp_path):
    done = run_notebook(tmp_path)
    shown = {kind for output in outputs(done) for kind in output.get("data", ())}
    assert {"text/html", "application/vnd.plotly.v1+json"} <= shown
    said = text(done)
    for words in ("3 trials are done", "the knee of a front of", "torch.Size([1, 4, 8, 48, 48])", "did you mean 'tpe'"):
        assert words in said, words
    committed = nbformat.read(FILE, as_version=4)
    assert [cell.source for cell in committed.cells] == [cell.source for cell in done.cells]


def test_the_committed_notebook_shows_its_outputs_and_is_small():
    committed = nbformat.read(FILE, as_version=4)
    assert FILE.stat().st_size < 200_000
    assert all(cell.execution_count for cell in committed.cells if cell.cell_type == "code")
    assert "application/vnd.plotly.v1+json" in text(committed) or any(
        "application/vnd.plotly.v1+json" in output.get("data", ()) for output in outputs(committed)
    )
    assert str(ROOT) not in FILE.read_text()
