"""Run docs/python.ipynb, and keep its results: `make notebook`.

What jobs print stays out: it has times, and paths of the machine that it ran on.
"""

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).resolve().parents[1] / "python.ipynb"
_OF_JOBS = ("histo.train(", "histo.label(", "histo.draw(", "histo.evaluate(")


def run(folder: Path) -> NotebookNode:
    """Run all cells in a folder; an error in one is an error here."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def _keep_results(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata = NotebookNode()
        if any(name in cell.source for name in _OF_JOBS):
            cell.outputs = [output for output in cell.outputs if output.output_type != "stream"]
    notebook.metadata.language_info = NotebookNode(name="python")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        done = run(Path(folder))
    _keep_results(done)
    nbformat.write(done, NOTEBOOK)
