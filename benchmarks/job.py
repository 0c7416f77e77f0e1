"""A job that is measured on few tiles and on many, so that its start can be told from its steady rate."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq
from cost import Cost, measure

ROOT = Path(__file__).resolve().parents[1]
HEADER = (
    "| what | tiles/s | CPU-s per tile | after the start: tiles/s | CPU-s per tile | start: s | CPU-s | peak, MB |\n"
    "|---|---|---|---|---|---|---|---|"
)
_numbers = count()


@dataclass
class Job:
    """Costs of the same command on few and on many tiles, over all rounds.

    Attributes:
        name: What it is called in the table.
        few_tiles: Of the short runs.
        tiles: Of the long ones.
        few: What the short runs cost.
        many: What the long ones cost.
    """

    name: str
    few_tiles: int
    tiles: int
    few: list[Cost] = field(default_factory=list)
    many: list[Cost] = field(default_factory=list)

    @property
    def steady_s(self) -> float:
        """Wall time of one tile after the start."""
        return (_wall_s(self.many) - _wall_s(self.few)) / (self.tiles - self.few_tiles)

    @property
    def steady_cpu_s(self) -> float:
        """CPU time of one tile after the start."""
        return (_cpu_s(self.many) - _cpu_s(self.few)) / (self.tiles - self.few_tiles)

    @property
    def start_s(self) -> float:
        """Wall time of the start."""
        return _wall_s(self.few) - self.few_tiles * self.steady_s

    @property
    def start_cpu_s(self) -> float:
        """CPU time of the start."""
        return _cpu_s(self.few) - self.few_tiles * self.steady_cpu_s

    def cpu_s_per_tile(self, tiles: int) -> float:
        """CPU time of one of so many tiles, with its share of the start."""
        return self.start_cpu_s / tiles + self.steady_cpu_s

    def row(self) -> str:
        """Return the job's row of the table, medians over the rounds."""
        peak_mb = median(cost.peak_mb for cost in self.many)
        return (
            f"| {self.name}, {self.tiles} tiles | {self.tiles / _wall_s(self.many):.1f} | "
            f"{_cpu_s(self.many) / self.tiles:.4f} | {1 / self.steady_s:.1f} | {self.steady_cpu_s:.4f} | "
            f"{self.start_s:.1f} | {self.start_cpu_s:.1f} | {peak_mb:.0f} |"
        )


def _wall_s(costs: Iterable[Cost]) -> float:
    return median(cost.wall_s for cost in costs)


def _cpu_s(costs: Iterable[Cost]) -> float:
    return median(cost.cpu_s for cost in costs)


def label(slides: Path, model: Path, folder: Path, *flags: str, tiles: int, prefix: tuple[str, ...] = ()) -> Cost:
    """Label slides with histo into a new folder, and check that every tile was labelled."""
    out = folder / f"labels {next(_numbers)}"
    command: list[str | Path] = [
        *prefix,
        sys.executable,
        ROOT / "jobs" / "label.py",
        "--slides",
        slides,
        "--model",
        model,
    ]
    cost = measure([*command, "--out", out, *flags], {"PYTHONPATH": str(ROOT)})
    labelled = sum(pq.read_table(out / "slides.parquet")["n_ok"].to_pylist())
    assert labelled == tiles, f"{labelled} tiles labelled, not {tiles}"
    return cost
