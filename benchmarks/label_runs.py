"""`python benchmarks/label_runs.py [many] [memory]`: what whole label runs take in time and memory. Linux only.

`many`: ten thousand slides of one tile, a hundredth of them broken: what `histo plan --exact` takes and says, when the
first table is there, the driver's unshared memory over the run, and the time of a second run, which finds nothing to
do; then how far the plan was true. `memory`: the greatest unshared memory of the driver and its
workers together, of a run of one slide and of one of thirty such slides.
"""

import argparse
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from histo.demo.bundle import random_bundle
from histo.demo.fabricate import write_pyramid
from histo.demo.textures import paint

ROOT = Path(__file__).resolve().parents[1]
MB = 1024


@dataclass
class Run:
    """What was seen of one run.

    Attributes:
        wall_s: How long it took.
        first_s: When the first table was there.
        samples: Seconds since the start, tables, MB of the driver, and MB of the workers.
    """

    wall_s: float = 0.0
    first_s: float = 0.0
    samples: list[tuple[float, int, float, float]] = field(default_factory=list)


def private_mb(pid: int) -> float:
    """Return the unshared memory of a process; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(int(kb) for kb in re.findall(r"^Private_\w+: +(\d+) kB", text, flags=re.MULTILINE)) / MB


def workers(driver: int) -> list[int]:
    """Return the processes below the driver that label."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)  # noqa: S607
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    below = {driver}
    for _ in range(4):
        below |= {int(pid) for pid, parent, *_ in rows if int(parent) in below}
    return [int(pid) for pid, _, *args in rows if int(pid) in below and args and "RegionLabeler" in args[0]]


def label(slides: Path, bundle: Path, out: Path) -> Run:
    """Run a label job, and look at it four times a second."""
    command = [sys.executable, str(ROOT / "jobs" / "label.py"), "--slides", str(slides), "--model", str(bundle)]
    run, start = Run(), time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, "--out", str(out)], stdout=log, stderr=log)  # noqa: S603 -- our own job
        while process.poll() is None:
            tables = sum(1 for _ in (out / "tiles").rglob("*.parquet")) if (out / "tiles").exists() else 0
            run.first_s = run.first_s or (time.monotonic() - start if tables else 0.0)
            held = sum(map(private_mb, workers(process.pid)))
            run.samples.append((time.monotonic() - start, tables, private_mb(process.pid), held))
            time.sleep(0.25)
        run.wall_s = time.monotonic() - start
        log.seek(0)
        assert process.returncode in (0, 3), log.read().decode()
    return run


def many(folder: Path, count: int) -> None:
    """Label many slides of one tile, and label them again."""
    bundle = random_bundle(folder, "test_efficientnet", size_px=96)
    slides = folder / "slides"
    slides.mkdir()
    first = slides / "slide 00000.tif"
    write_pyramid(first, paint("TUM", 192, 192, np.random.default_rng(0)), mpp=0.25, downsamples=(1,))
    for number in range(1, count):
        path = slides / f"slide {number:05d}.tif"
        shutil.copyfile(first, path)
        with path.open("ab") as file:  # no two files are equal
            file.write(number.to_bytes(4, "little"))
    for number in range(0, count, 100):
        broken = slides / f"broken {number:05d}.svs"
        broken.write_bytes(b"" if number % 200 else first.read_bytes()[: 5000 + number])
    planned_s = plan(slides, bundle, folder / "plan")
    run, again = label(slides, bundle, folder / "out"), label(slides, bundle, folder / "out")
    print(f"\n{count} slides of one tile: first table after {run.first_s:.0f} s, all after {run.wall_s:.0f} s")
    print("| tables | MB of the driver |\n|---|---|")
    for share in (0.05, 0.25, 0.5, 0.75, 0.99):
        _, tables, driver, _ = next(sample for sample in run.samples if sample[1] >= share * count)
        print(f"| {tables} | {driver:.0f} |")
    print(f"a second run, which finds nothing to do: {again.wall_s:.1f} s")
    compare(folder / "plan" / "plan.parquet", folder / "out" / "slides.parquet")
    print(f"`histo plan --exact`: {planned_s:.0f} s; the label run took {run.wall_s:.0f} s")


def plan(slides: Path, bundle: Path, out: Path) -> float:
    """Plan a label run; returns the seconds that it took."""
    command = [sys.executable, str(ROOT / "jobs" / "plan.py"), "--slides", str(slides), "--model", str(bundle)]
    start = time.monotonic()
    said = subprocess.run([*command, "--out", str(out), "--exact"], capture_output=True, text=True, check=False)  # noqa: S603 -- our own job
    wall_s = time.monotonic() - start
    assert said.returncode == 3, said.stdout + said.stderr
    print("\n".join(line for line in said.stdout.splitlines() if not line.startswith("fails: ")))
    return wall_s


def compare(plan: Path, ledger: Path) -> None:
    """Hold what was planned against what came of it."""
    planned = {row["slide_id"]: row for row in pq.read_table(plan).to_pylist()}
    labelled = {row["slide_id"]: row for row in pq.read_table(ledger).to_pylist()}
    assert planned.keys() == labelled.keys()
    tiles = [name for name, row in labelled.items() if row["n_tiles"] != planned[name]["n_tiles"]]
    failed = {name: row["error"] for name, row in labelled.items() if row["status"] == "failed"}
    fails = {name: row["error"] for name, row in planned.items() if row["status"] == "fails"}
    print(f"slides whose tiles were planned otherwise: {len(tiles)} of {len(labelled)}")
    print(f"slides that failed: {len(failed)}; planned to, with the same reason: {len(fails.items() & failed.items())}")


def memory(folder: Path, count: int) -> None:
    """Label one slide, and then many such slides."""
    bundle = random_bundle(folder, "tf_efficientnet_lite0", size_px=224)
    image = paint("TUM", 8960, 8960, np.random.default_rng(0))
    print(
        f"\nslides of {20 * 20} tiles, {platform.machine()}\n| slides | seconds | driver, MB | workers, MB | both, MB |"
    )
    print("|---|---|---|---|---|")
    for number in (1, count):
        slides = folder / f"{number} slides"
        slides.mkdir()
        for place in range(number):
            write_pyramid(slides / f"{place}.tif", image, mpp=0.25)
        run = label(slides, bundle, folder / f"{number} out")
        _, _, driver, held = max(run.samples, key=lambda sample: sample[2] + sample[3])
        print(f"| {number} | {run.wall_s:.0f} | {driver:.0f} | {held:.0f} | {driver + held:.0f} |", flush=True)


def main() -> None:
    """Measure what is asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["many", "memory", []])
    parser.add_argument("--slides", type=int, default=10_000, help="of `many`")
    asked = parser.parse_args()
    parts = asked.parts or ["many", "memory"]
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            if part == "many":
                many(Path(folder), asked.slides)
            else:
                memory(Path(folder), 30)


if __name__ == "__main__":
    main()
