"""`make bench`: what labelling a slide costs, in parts and as a whole, beside the script that a user would write.

One fabricated slide, of 40,000 x 40,000 px unless another edge is asked for (see `slide.py`). Every part runs in
processes of its own; parts are interleaved, and figures are medians of the rounds. The bound is what reader and model
alone give together; the start is what a slide of few tiles takes. Linux only, without a GPU.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import machine
import numpy as np
from cost import measure
from fixture import LITE0, RESNET18, make_bundle, make_slide
from job import HEADER, ROOT, Job, label

from histo.learn.openvino.core import has_bf16

HERE = Path(__file__).parent
FEW_PX = 2048
"""Edge of the slide of few tiles."""
PLAIN_TILES = 600
CORES = len(os.sched_getaffinity(0))
Rates = dict[str, list[dict[str, float]]]


class Bench:
    """Slides, bundles, and what was measured on them so far."""

    def __init__(self, folder: Path, edge_px: int) -> None:
        self.folder = folder
        self.slide, self.places = make_slide(folder / "slide", edge_px)
        self.few, few_places = make_slide(folder / "few", FEW_PX)
        np.save(folder / "places.npy", self.places)
        self.bundles = {backbone: make_bundle(folder / backbone, backbone) for backbone in (LITE0, RESNET18)}
        precisions = ("float32", "bf16") if has_bf16() else ("float32",)
        few, many = len(few_places), len(self.places)
        self.jobs = {(b, p): Job(f"whole job, {b}, {p}", few, many) for b in self.bundles for p in precisions}
        plain = min(PLAIN_TILES, many)
        self.plain = {b: Job(f"plain script, {b}, float32", few, plain) for b in self.bundles}
        self.rates: Rates = defaultdict(list)

    def round(self) -> None:
        """Measure everything once."""
        self._alone("planning alone (opening, probes, tissue mask, grid)", "plan", 1)
        for processes in sorted({1, CORES}):
            self._alone(f"reader alone, processes: {processes}", "reader", processes)
        for (backbone, precision), job in self.jobs.items():
            bundle = self.bundles[backbone]
            flags = ("--model", str(bundle), "--precision", precision)
            self._alone(f"model alone, {backbone}, {precision}", "model", CORES, *flags)
            job.few.append(label(self.few, bundle, self.folder, *flags[2:], tiles=job.few_tiles))
            job.many.append(label(self.slide, bundle, self.folder, *flags[2:], tiles=job.tiles))
        for backbone, job in self.plain.items():
            for costs, tiles in ((job.few, job.few_tiles), (job.many, job.tiles)):
                files = (
                    "--slide",
                    self.slide,
                    "--places",
                    self.folder / "places.npy",
                    "--out",
                    self.folder / "out.npy",
                )
                command: list[str | Path] = [
                    sys.executable,
                    HERE / "plain_label.py",
                    *files,
                    "--model",
                    self.bundles[backbone],
                ]
                costs.append(measure([*command, "--tiles", str(tiles)]))

    def _alone(self, name: str, part: str, processes: int, *flags: str) -> None:
        command: list[str | Path] = [
            sys.executable,
            HERE / "alone.py",
            part,
            "--slide",
            self.slide,
            "--processes",
            str(processes),
        ]
        cost = measure([*command, *flags], {"PYTHONPATH": str(ROOT)})
        self.rates[name].append({**json.loads(cost.output.splitlines()[-1]), "peak_mb": cost.peak_mb})

    def _rate(self, name: str, figure: str) -> float:
        return median(found[figure] for found in self.rates[name])

    def report(self) -> None:
        """Print the table, and what follows from it."""
        print(HEADER)
        for name in self.rates:
            rate, cpu_s, peak_mb = (self._rate(name, key) for key in ("tiles_per_s", "cpu_s_per_tile", "peak_mb"))
            print(f"| {name} | {rate:.1f} | {cpu_s:.4f} | | | | | {peak_mb:.0f} |")
        for (backbone, precision), job in self.jobs.items():
            rate, cpu_s = self._bound(backbone, precision)
            print(f"| bound, {backbone}, {precision} | {rate:.1f} | {cpu_s:.4f} | | | | | |\n{job.row()}")
        for job in self.plain.values():
            print(job.row())
        print("\n| job | steady rate over bound | the plain script's CPU per tile over the job's | without the start |")
        print("|---|---|---|---|")
        for (backbone, precision), job in self.jobs.items():
            plain, bound = self.plain[backbone], self._bound(backbone, precision)[0]
            whole = plain.cpu_s_per_tile(job.tiles) / job.cpu_s_per_tile(job.tiles)
            steady = plain.steady_cpu_s / job.steady_cpu_s
            print(f"| {backbone}, {precision} | {1 / job.steady_s / bound:.2f} | {whole:.1f} | {steady:.1f} |")

    def _bound(self, backbone: str, precision: str) -> tuple[float, float]:
        """Return the tiles per second and the CPU-seconds per tile that reader and model alone give together."""
        names = f"reader alone, processes: {CORES}", f"model alone, {backbone}, {precision}"
        rates = [self._rate(name, "tiles_per_s") for name in names]
        return 1 / sum(1 / rate for rate in rates), sum(self._rate(name, "cpu_s_per_tile") for name in names)


def main() -> None:
    """Measure for so many rounds, or as many as there is time for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--edge-px", type=int, default=40_000, help="of the slide")
    parser.add_argument("--minutes", type=float, default=19, help="begin no round that would not end in this time")
    parser.add_argument(
        "--quick", action="store_true", help="one round on a small slide: whether all runs, not how fast"
    )
    options = parser.parse_args()
    begin = time.monotonic()
    rounds = 1 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), 8192 if options.quick else options.edge_px)
        longest_s = 0.0
        for number in range(1, rounds + 1):
            start = time.monotonic()
            bench.round()
            longest_s = max(longest_s, time.monotonic() - start)
            print(f"round {number}: {longest_s:.0f} s", file=sys.stderr, flush=True)
            if time.monotonic() - begin + longest_s > 60 * options.minutes:
                break
        print(f"{machine.describe()}\n- medians of {number} rounds; {len(bench.places)} tiles\n")
        bench.report()


if __name__ == "__main__":
    main()
