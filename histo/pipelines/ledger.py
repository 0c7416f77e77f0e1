"""The ledger: a row for every slide found, and what became of it."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from histo import tables
from histo.errors import Cause
from histo.pipelines.work import LabelJob, Row, one_line
from histo.slides.collection import Collection, readable, table_path

_REWRITE_S = 5.0


@dataclass
class _Entry:
    """The running account of one slide."""

    columns: Row
    class_counts: list[int]
    regions_done: int = 0
    n_regions: int | None = None
    failure: Row = field(default_factory=dict)


class Ledger:
    """Collects summaries into one row per slide, and keeps `slides.parquet` up to date.

    Slides that were labelled into the same folder before and are not in the collection now keep their rows: `absent`.

    Args:
        out: Output folder.
        collection: What was found.
        classes: Names, in order.

    Attributes:
        settled: Number of slides that are done.
        tiles_done: Number of tiles that are done.
    """

    def __init__(self, out: Path, collection: Collection, classes: Sequence[str]) -> None:
        self._out, self._classes = out, tuple(classes)
        self._written = 0.0
        self._entries = {
            slide.slide_id: _Entry(
                {"slide_id": slide.slide_id, "uri": readable(slide.path), "status": "pending", "attempts": 1},
                [0] * len(classes),
            )
            for slide in collection.slides
        }
        self._absent = [row | {"status": "absent"} for row in self._earlier() if row["slide_id"] not in self._entries]
        self.settled = self.tiles_done = 0
        self._planned_slides = self._planned_tiles = 0

    def _earlier(self) -> list[Row]:
        path = self._out / "slides.parquet"
        rows: list[Row] = pq.ParquetFile(path).read().to_pylist() if path.exists() else []
        return rows

    def add(self, summary: Row) -> bool:
        """Enter one region's summary; true if it was the last one of its slide."""
        entry = self._entries[summary["slide_id"]]
        if entry.n_regions is None:
            entry.columns |= json.loads(summary["slide"])
            entry.columns |= {"n_ok": 0, "n_failed": 0}
            entry.n_regions = summary["n_regions"]
            self._planned_slides += 1
            self._planned_tiles += entry.columns.get("n_tiles", 0)
        entry.columns["n_ok"] += summary["n_ok"]
        entry.columns["n_failed"] += summary["n_failed"]
        entry.columns["seconds"] = entry.columns.get("seconds", 0.0) + summary["seconds"]
        if summary["failure"] and not entry.failure:
            entry.failure = json.loads(summary["failure"])
        for number, count in enumerate(summary["class_counts"]):
            entry.class_counts[number] += int(count)
        entry.regions_done += bool(summary["region"])
        self.tiles_done += summary["n_ok"] + summary["n_failed"]
        return entry.regions_done >= entry.n_regions

    def has_result(self, job: LabelJob, slide_id: str) -> bool:
        """Whether a slide whose regions are all in gets a table."""
        entry = self._entries[slide_id]
        if entry.failure or entry.columns.get("error_code"):
            return False
        return job.tolerates(entry.columns["n_ok"], entry.columns["n_failed"])

    def settle(self, job: LabelJob, slide_id: str) -> str:
        """Enter what became of a slide, once its table is in place if it has one; returns its status."""
        entry = self._entries[slide_id]
        columns = entry.columns
        if self.has_result(job, slide_id):
            columns |= {"status": _status(columns), "tiles_path": f"tiles/{table_path(slide_id)}"}
            columns |= self._shares(entry, tile_mm2=(job.stride_px * columns["effective_mpp"]) ** 2 / 1e6)
            self.settled += 1
        elif entry.failure or columns.get("error_code"):
            self.fail(slide_id, entry.failure)
        else:
            columns |= _too_many_failed(columns, job.max_failed_fraction) | {"status": "failed"}
            self.settled += 1
        return str(columns["status"])

    def _shares(self, entry: _Entry, tile_mm2: float) -> Row:
        """The columns that each class has: its share of the ok tiles, and the area that its tiles stand for."""
        n_ok, counts = entry.columns["n_ok"], list(zip(self._classes, entry.class_counts, strict=True))
        return {f"fraction_{name}": count / n_ok if n_ok else None for name, count in counts} | {
            f"area_mm2_{name}": count * tile_mm2 for name, count in counts
        }

    def fail(self, slide_id: str, failure: Row) -> None:
        """Enter a slide as failed for a reason that leaves its tiles unknown."""
        self._entries[slide_id].columns |= failure | {"status": "failed", "n_ok": None, "n_failed": None}
        self.settled += 1

    def n_tiles(self, slide_id: str) -> int:
        """Return the number of tiles that were planned for a slide."""
        return int(self._entries[slide_id].columns["n_tiles"])

    def counts(self) -> dict[str, int]:
        """Return the number of slides of each status."""
        states = [entry.columns["status"] for entry in self._entries.values()]
        order = ("ok", "partial", "empty", "failed", "pending")
        return {state: states.count(state) for state in order if state in states}

    def tiles_expected(self) -> float:
        """Estimate the tiles of all slides: those that are not planned yet count like the others."""
        return self._planned_tiles * len(self._entries) / max(1, self._planned_slides)

    def write(self, force: bool = False) -> None:
        """Rewrite `slides.parquet` atomically, at most every few seconds unless `force`."""
        now = time.monotonic()
        if force or now - self._written >= _REWRITE_S:
            rows = sorted(self._absent + [e.columns for e in self._entries.values()], key=lambda row: row["slide_id"])
            layout = tables.schema(tables.SLIDES, self._classes, {"schema_version": str(tables.SCHEMA_VERSION)})
            tables.write_table(self._out / "slides.parquet", tables.rows_table(rows, layout))
            self._written = now

    def failures(self) -> list[str]:
        """Return the error of every failed slide."""
        return [str(entry.columns["error"]) for entry in self._entries.values() if entry.columns["status"] == "failed"]


def _status(columns: Row) -> str:
    if columns["n_tiles"] == 0:
        return "empty"
    return "partial" if columns["n_failed"] else "ok"


def _too_many_failed(columns: Row, limit: float) -> Row:
    return {
        "error_code": Cause.BAD_TILES.value,
        "error": one_line(
            f"{columns['slide_id']}: {columns['n_failed']} of {columns['n_tiles']} tiles cannot be read, more than "
            f"--max-failed-fraction {limit:g} admits; the file is damaged, copy or export it again"
        ),
    }
