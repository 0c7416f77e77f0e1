"""`python benchmarks/start.py [--before CHECKOUT] [--rounds 5]`: what the start and the end of a label run cost.

One slide of some ten tiles is labelled with EfficientNet-lite0 by two workers, beside an empty `ray.init` and shutdown,
and in turn with another checkout of histo if one is given. Printed are medians over the rounds: when the first line
and the first table were there, when all was done, and the processor time of all processes, Ray's daemons among them.
Linux only.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from cost import Cost, measure
from fixture import LITE0, TILE_PX, histo, make_slide
from job import ROOT
from machine import describe

from histo.demo.bundle import random_bundle

EDGE_PX = 2560
"""Of a slide of some ten tiles."""
EMPTY = """
import os
os.environ["RAY_USAGE_STATS_ENABLED"] = os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
import ray
ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.shutdown()
"""


@dataclass
class Runs:
    """What the runs of one checkout took, or those of an empty Ray.

    Attributes:
        name: What they are called in the table.
        first_s: From the command to the first table.
        costs: Of each run, whole.
    """

    name: str
    first_s: list[float] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)

    @property
    def wall_s(self) -> float:
        """From the command to its end."""
        return median(cost.wall_s for cost in self.costs)

    @property
    def cpu_s(self) -> float:
        """User and system time of all processes."""
        return median(cost.cpu_s for cost in self.costs)

    def row(self, empty_cpu_s: float) -> str:
        """Return the row of the table."""
        labelled = bool(self.first_s)
        said_s = f"{median(cost.said_s for cost in self.costs):.1f}" if labelled else ""
        first_s = f"{median(self.first_s):.1f}" if labelled else ""
        above = f"{self.cpu_s - empty_cpu_s:.1f}" if labelled else ""
        return f"| {self.name} | {said_s} | {first_s} | {self.wall_s:.1f} | {self.cpu_s:.1f} | {above} |"


def label(checkout: Path, slide: Path, model: Path, out: Path) -> tuple[float, Cost]:
    """Label the slide with a checkout of histo; returns when its table was there, and the cost."""
    job = [sys.executable, str(checkout / "jobs" / "label.py"), "--workers", "2"]
    begun = time.time()
    cost = measure([*job, "--slides", slide, "--model", model, "--out", out], {"PYTHONPATH": str(checkout)})
    tables = list((out / "tiles").rglob("*.parquet"))
    assert tables, cost.output
    return min(table.stat().st_mtime for table in tables) - begun, cost


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout of histo")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    checkouts = {"before": asked.before.resolve()} if asked.before else {}
    checkouts["now"] = ROOT
    empty, runs = Runs("empty Ray"), {name: Runs(name) for name in checkouts}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = random_bundle(folder, LITE0, TILE_PX)
        histo("convert", "--model", model)
        slide, places = make_slide(folder / "slides", EDGE_PX)
        for number in range(asked.rounds):
            empty.costs.append(measure([sys.executable, "-c", EMPTY]))
            for name, checkout in checkouts.items():
                first_s, cost = label(checkout, slide, model, folder / f"{name} {number}")
                runs[name].first_s.append(first_s)
                runs[name].costs.append(cost)
    print(f"{describe()}\n- one slide of {len(places)} tiles, two workers; medians of {asked.rounds} rounds\n")
    print("| what | first line, s | first table, s | end, s | CPU-s | above an empty Ray |\n|---|---|---|---|---|---|")
    for row in (empty, *runs.values()):
        print(row.row(empty.cpu_s))


if __name__ == "__main__":
    main()
