"""What a process loads: a driver or a decoding task must not load torch, which takes seconds and CUDA libraries."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "histo.cli",
        "histo.slides.plan",
        "histo.learn.bundle",
        "histo.pipelines.label",
        "histo.pipelines.train_entry",
        "histo.pipelines.predict_share",
    ],
)
def test_labelling_predicting_and_rays_controller_of_a_training_run_load_no_torch(module: str) -> None:
    program = f"import sys, {module}; print([m for m in ('torch', 'timm', 'torchvision') if m in sys.modules])"

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("module", ["histo.learn.runtime", "histo.learn.tracing"])
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
