"""`python benchmarks/graph.py`: what a label run's graph costs its driver, with workers that do nothing.

Slides are planned into regions of 256 tiles, which are as large as those of a slide, by the graph, the worker and the
driver of a label run (`histo/run/stream`). Printed are the rate, the driver's processor time, and the growth of its
unshared memory, from the first tenth on. Linux only.
"""

import argparse
import re
import tempfile
import time
from pathlib import Path

import ray.data

from histo.pipelines.labelling.graph import regions_per_block
from histo.pipelines.labelling.stages import LabelPlacement
from histo.pipelines.labelling.tasks import Summary
from histo.run.cluster import session
from histo.run.stream.drive import Work, drive
from histo.run.stream.graph import split, task_row, tasks_in_blocks, work
from histo.run.stream.worker import Crew
from histo.tables import Row

TILES = 256
REGION, COLUMNS = b"r" * 5000, {"column": "c" * 1500}
"""As large as a region with its slide's description, and as what planning knows of a slide."""


class Idle:
    """A worker that does nothing."""

    def __call__(self, unit: str, region: bytes) -> Summary:  # noqa: ARG002 -- it travels
        """Answer."""
        return Summary(unit, COLUMNS)


def plan(unit: str, regions: int) -> list[Row]:
    """Make the regions of a slide."""
    return [task_row(unit, (unit, REGION)) for _ in range(regions)]


class Measured(Work[Summary]):
    """A run that counts."""

    def __init__(self, out: Path, slides: int, regions: int, placement: LabelPlacement, per_block: int) -> None:
        self._out, self._regions, self._placement, self._per_block = out, regions, placement, per_block
        self._left = dict.fromkeys((f"slide {number}" for number in range(slides)), regions)
        self._total, self.done = slides * regions, 0
        self.start = (0.0, 0.0, 0, 0)

    @property
    def out(self) -> Path:
        """See `Work.out`."""
        return self._out

    def is_open(self, unit: str) -> bool:
        """See `Work.is_open`."""
        return unit in self._left

    def graph(self, left_out: tuple[str, ...]) -> ray.data.Dataset | None:
        """See `Work.graph`."""
        if not self._left:
            return None
        slides = tasks_in_blocks([(unit, (unit,)) for unit in self._left], self._per_block)
        return work(
            split(slides, plan, (self._regions,), self._out), Crew(Idle, (), self._out, left_out), self._placement
        )

    def enter(self, answer: Summary) -> None:
        """See `Work.enter`."""
        self.done += 1
        self._left[answer.unit] -= 1
        if not self._left[answer.unit]:
            del self._left[answer.unit]
        if self.done == self._total // 10:
            self.start = (time.perf_counter(), time.process_time(), private_kb(), self.done)

    def between(self) -> None:
        """See `Work.between`."""

    def say(self, text: str) -> None:
        """See `Work.say`."""
        print(text)


def private_kb() -> int:
    """Return the unshared memory of this process."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"^Private_\w+: +(\d+) kB", text, flags=re.MULTILINE))


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--regions", type=int, default=40)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--per-block", type=int, help="regions in a block; what a label run of so many slides takes")
    asked = parser.parse_args()
    placement = LabelPlacement(asked.workers, 0, 1)
    per_block = asked.per_block or regions_per_block(asked.slides, placement)
    with tempfile.TemporaryDirectory() as out, session(asked.workers):
        run = Measured(Path(out), asked.slides, asked.regions, placement, per_block)
        drive(run, placement)
        wall, cpu, kb, done = run.start
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        grown, done = (private_kb() - kb) / 1024, run.done - done
    print("| slides | regions | in a block | workers | tiles/s | driver, CPU-ms per block | driver grows by, MB |")
    print("|---|---|---|---|---|---|---|")
    blocks = done / per_block
    print(
        f"| {asked.slides} | {asked.regions} | {per_block} | {asked.workers} | {done * TILES / wall:,.0f} | "
        f"{1000 * cpu / blocks:.1f} | {grown:.0f} |"
    )


if __name__ == "__main__":
    main()
