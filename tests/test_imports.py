"""What a process loads: a driver or a decoding task must not load torch, which takes seconds and CUDA libraries."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import histo

HISTO = Path(histo.__file__).parent


@pytest.mark.parametrize(
    "module",
    [
        "histo.cli",
        "histo.slides.plan",
        "histo.learn.bundle",
        "histo.pipelines.label",
        "histo.pipelines.training.entry",
        "histo.pipelines.training.predict_share",
    ],
)
def test_labelling_predicting_and_rays_controller_of_a_training_run_load_no_torch(module: str) -> None:
    program = f"import sys, {module}; print([m for m in ('torch', 'timm', 'torchvision') if m in sys.modules])"

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module", ["histo.pipelines.labelling.slides", "histo.pipelines.labelling.plan_worker", "histo.pipelines.label"]
)
def test_what_is_said_and_planned_first_loads_neither_ray_nor_other_slow_packages(module: str) -> None:
    program = f"import sys, {module}; print([m for m in ('ray', 'pandas', 'scipy', 'torch') if m in sys.modules])"

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "[]"


def test_a_worker_that_labels_loads_no_scipy() -> None:
    program = "import sys, histo.pipelines.labelling.region_worker; print('scipy' in sys.modules)"

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "False"


@pytest.mark.slow
@pytest.mark.parametrize("module", ["histo.learn.predict.openvino_predictor", "histo.learn.openvino.trace"])
def test_openvino_neither_forks_nor_reports_its_use(module: str) -> None:
    program = f"""
import os, sys, time
forks = []
os.register_at_fork(before=lambda: forks.append(1))
import {module}
time.sleep(1)
print(forks, "openvino" in sys.modules, sys.modules["openvino_telemetry"])
"""

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "[] True None"


def test_no_room_has_more_than_fifteen_modules() -> None:
    rooms = Counter(path.parent for path in HISTO.rglob("*.py") if not path.name.startswith("__"))

    assert {str(room.relative_to(HISTO)): count for room, count in rooms.items() if count > 15} == {}
    assert rooms[HISTO / "run"] > 5, "it looks into rooms"


def test_the_first_line_of_every_module_is_short_and_plain() -> None:
    """It says what the module is or does, verb or noun first; a clause that begins with `what` says neither."""
    riddles = re.compile(r"\b(what|where|how|which|whether|why|who|whose)\b", re.IGNORECASE)
    lines = {str(path): (ast.get_docstring(ast.parse(path.read_text())) or "") for path in HISTO.rglob("*.py")}
    first = {path: line.split("\n")[0] for path, line in lines.items()}

    assert {path: line for path, line in first.items() if len(line) > 80 or not line or riddles.search(line)} == {}
