"""Label jobs as processes of their own, which can be killed, and whose readers can be made to fail."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from helpers.plain_loop import rows_of
from histo.demo.fabricate import QUALITY, write_pyramid
from histo.demo.textures import paint

ROOT = Path(__file__).resolve().parents[2]
FAULTY = os.pathsep.join([str(ROOT / "tests" / "faulty"), str(ROOT)])
"""PYTHONPATH of processes whose slides misbehave; they run this tree, wherever histo is installed from."""


WITHIN_S = 800
"""Time for a job to get somewhere, or to its end: many times what it takes, as others may take the cores."""


def start(slides: Path, bundle: Path, out: Path, *flags: str, **environment: str) -> subprocess.Popen[str]:
    """Start `jobs/label.py`; where FAULTS or SLOW_S is set, slides misbehave as their names say."""
    command = [sys.executable, str(ROOT / "jobs" / "label.py"), "--slides", str(slides), "--model", str(bundle)]
    path = {"PYTHONPATH": FAULTY if environment.keys() & {"FAULTS", "SLOW_S"} else str(ROOT)}
    return subprocess.Popen(
        [*command, "--out", str(out), *flags],
        env=os.environ | path | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def end(process: subprocess.Popen[str], timeout_s: float = WITHIN_S) -> tuple[int, str]:
    """Wait for a job; its exit code, and what it printed."""
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output


def run(slides: Path, bundle: Path, out: Path, *flags: str, **environment: str) -> tuple[int, str]:
    """Run `jobs/label.py` to its end."""
    return end(start(slides, bundle, out, *flags, **environment))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for a job to get somewhere; one that does not is killed, so that no other test is beside it."""
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"the run does not get there: {process.communicate()[0]}")
        time.sleep(0.05)


def ledger(out: Path) -> dict[str, dict[str, Any]]:
    """Rows by slide."""
    return {row["slide_id"]: row for row in rows_of(out / "slides.parquet")}


def tables(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of every slide's table."""
    return {row["slide_id"]: rows_of(out / row["tiles_path"]) for row in ledger(out).values() if row["tiles_path"]}


def assert_same_tables(found: Path, expected: Path) -> None:
    """Coordinates and counts exactly, probabilities within 1e-4."""
    ours, theirs = tables(found), tables(expected)
    assert ours.keys() == theirs.keys()
    for slide_id, rows in theirs.items():
        exact = [name for name in rows[0] if not name.startswith(("prob_", "confidence", "entropy"))] if rows else []
        for name in exact:
            assert [row[name] for row in ours[slide_id]] == [row[name] for row in rows], (slide_id, name)
        for name in rows[0] if rows else []:
            if name.startswith("prob_"):
                np.testing.assert_allclose([r[name] for r in ours[slide_id]], [r[name] for r in rows], atol=1e-4)
    counts = ("status", "n_tiles", "n_ok", "n_failed", "tissue_mm2", "error_code")
    assert {name: [row[c] for c in counts] for name, row in ledger(found).items()} == {
        name: [row[c] for c in counts] for name, row in ledger(expected).items()
    }


def write_slide(path: Path, width: int = 2304, height: int = 1152, seed: int = 0, lossless: bool = False) -> Path:
    """Write a slide of tissue all over at 0.25 µm/px: 12 x 6 tiles of 96 px at 0.5 µm/px, or as many as fit.

    A lossless one is read by OpenSlide, which can be made to fail.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_slide(width, height, seed, lossless))
    return path


@cache
def _slide(width: int, height: int, seed: int, lossless: bool) -> bytes:
    """Paint a slide, once for all tests that want the same one."""
    image = paint("TUM", height, width, np.random.default_rng(seed))
    with TemporaryDirectory() as folder:
        file = Path(folder, "slide.tif")
        write_pyramid(file, image, mpp=0.25, quality=None if lossless else QUALITY)
        return file.read_bytes()
