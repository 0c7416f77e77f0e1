"""A training run whose worker, or whose driver, is killed: it ends with the numbers of a run that was left alone."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.inline_ray import inline
from helpers.label_process import FAULTY, ROOT, WITHIN_S, wait_until
from helpers.processes import descendants, has_title
from PIL import Image

from histo.cli import main
from histo.learn.fit.history import History

EPOCHS = 5
"""So many that workers which outlive their driver for some seconds do not come to the end."""
SLOW_S = "0.05"
"""What reading an image takes: an epoch of two workers lasts three seconds or more, on any machine."""
SETTINGS = ["--workers", "2", "--size-px", "64", "--fit.head.epochs", "1", "--fit.tune.epochs", str(EPOCHS - 1)]
WORKER = "ray::RayTrainWorker"
MEASURED = ("epoch", "phase", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of forty tiles each, which can be made slow to read."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("images")
    for number in range(120):
        path = folder / f"slow-class {number % 3}" / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        noise = random.normal(60 + 60 * (number % 3), 40, (64, 64, 3))
        Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(path)
    return folder


def start(images: Path, run: Path, *flags: str, slow_s: str = SLOW_S) -> subprocess.Popen[str]:
    """Start a run of `EPOCHS` on two workers."""
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), "--data", str(images), "--out", str(run)]
    return subprocess.Popen(
        [*command, *SETTINGS, *flags],
        env=os.environ | {"PYTHONPATH": FAULTY, "SLOW_S": slow_s},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def undisturbed(images: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    with inline():
        assert main(["train", "--data", str(images), "--out", str(run), *SETTINGS, *tiny]) == 0
    return run


def measured(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in MEASURED} for line in lines]


def steps(run: Path) -> list[tuple[int, int]]:
    lines = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    return [(line["epoch"], line["step"]) for line in lines]


def epochs(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def wait_until_gone(workers: set[int]) -> None:
    """Wait for workers without a driver: they notice after two seconds or so, and write until then."""
    deadline = time.monotonic() + WITHIN_S
    while any(has_title(pid, WORKER) for pid in workers):
        assert time.monotonic() < deadline, "workers outlive their driver"
        time.sleep(0.1)


def test_a_run_whose_worker_and_then_driver_are_killed_ends_with_the_numbers_of_one_left_alone(
    images: Path, tiny: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(images, run, *tiny)
    wait_until(lambda: epochs(run) == 1, process)
    time.sleep(1)
    before = descendants(process.pid, WORKER)
    os.kill(max(before), signal.SIGKILL)
    wait_until(lambda: bool(descendants(process.pid, WORKER) - before) or epochs(run) > 1, process)
    assert len(before) == 2
    assert epochs(run) == 1, "killed in the middle of the second epoch, and begun again"

    wait_until(lambda: History(run).last >= 2, process)
    assert measured(run)[:2] == measured(undisturbed)[:2]
    workers = descendants(process.pid, WORKER)
    process.kill()
    process.communicate()
    wait_until_gone(workers)
    done = History(run).last

    output = finish(start(images, run, *tiny, "--resume", slow_s="0"))

    record = json.loads((run / "run.json").read_text())
    assert len(workers) == 2
    assert 2 <= done < EPOCHS, "killed in the middle"
    assert {int(number) for number in re.findall(rf"epoch (\d+)/{EPOCHS}", output)} == set(range(done + 1, EPOCHS + 1))
    assert measured(run) == measured(undisturbed)
    assert steps(run) == steps(undisturbed)
    assert (record["exit_code"], len(record["earlier"]), record["earlier"][0]["finished"]) == (0, 1, None)
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in undisturbed.iterdir())
