"""`import histo`: its names, its cost, and its types as a program of a user's sees them."""

import subprocess
import sys

import pytest

import histo


def test_every_public_name_is_there_with_a_docstring_and_no_other() -> None:
    listed = {name for names in histo._PLACES.values() for name in names} | {"__version__"}

    assert listed == set(histo.__all__) <= set(dir(histo))
    for name in listed - {"__version__"}:
        assert getattr(histo, name).__doc__, name
    with pytest.raises(AttributeError, match="module 'histo' has no attribute 'lable'"):
        _ = histo.lable  # type: ignore[attr-defined]


def test_import_costs_next_to_nothing_and_loads_nothing_heavy() -> None:
    program = """
import time
start = time.process_time()
import histo
print(time.process_time() - start)
import sys
heavy = ("numpy", "pyarrow", "pydantic", "ray", "torch", "openslide", "matplotlib")
print([name for name in heavy if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, loaded = shown.stdout.splitlines()

    assert loaded == "[]"
    assert float(seconds) < 0.3


@pytest.mark.parametrize("name", ["load_model", "open_slide", "read_labels", "label", "train"])
def test_a_function_loads_neither_ray_nor_torch_before_it_is_called(name: str) -> None:
    program = f"import sys, histo; histo.{name}; print([m for m in ('ray', 'torch', 'scipy') if m in sys.modules])"

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "[]"
