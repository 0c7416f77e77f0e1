"""docs/python.ipynb: it runs in a kernel, as its users run it, and shows what it says."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "notebook.py"


@pytest.fixture(scope="module")
def notebook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebook", PAGE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_notebook_goes_from_tiles_to_a_class_map(notebook: ModuleType, joined_ray: None, tmp_path: Path) -> None:
    done = notebook.run(tmp_path)

    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    right, judged = map(int, re.search(r"^(\d+) of (\d+)$", printed, flags=re.MULTILINE).groups())  # type: ignore[union-attr]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert right > 0.9 * judged > 30
    assert len(pictures) == 2
    assert (tmp_path / "notebook-output" / "labels" / "probabilities" / "MUC" / "demo_2.tif.png").exists()


def test_what_it_shows_is_kept_and_names_no_machine(notebook: ModuleType) -> None:
    text = notebook.NOTEBOOK.read_text(encoding="utf-8")

    assert text.count('"image/png"') == 2
    assert '"output_type": "error"' not in text
    assert len(text) < 2_000_000
    assert not re.search(r"/(?:tmp|home|root|work|Users)/", text)
