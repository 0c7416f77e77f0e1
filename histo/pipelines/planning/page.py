"""Totals of a plan, and the page that says them."""

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from histo.errors import Cause
from histo.pipelines.labelling.tasks import LabelJob
from histo.remote.location import AnyPath
from histo.run.progress import duration
from histo.run.say import say
from histo.tables import Row

if TYPE_CHECKING:
    from histo.pipelines.planning.calibration import Pace

_FAILURES_SHOWN = 50
_ROW_BYTES, _TABLE_BYTES = 70, 10_000
"""Of tables of nine classes, where no sample was labelled."""


@dataclass(frozen=True)
class Totals:
    """What a plan comes to.

    Attributes:
        slides: Number of slides that can be labelled.
        tiles: Number of their tiles.
        most_tiles: Number of tiles of their whole grids.
        is_exact: Whether the tiles were found.
        share: Share of the grid's tiles that have tissue, in a sample; None if none was looked at.
        sampled: Number of slides in the sample.
        disk_bytes: Size of the output.
        wall_s: Time of the run; None if no sample was labelled.
        pace: What was measured.
    """

    slides: int
    tiles: int
    most_tiles: int
    is_exact: bool
    share: float | None
    sampled: int
    disk_bytes: float
    wall_s: float | None
    pace: "Pace | None"

    @classmethod
    def of(
        cls, rows: Sequence[Row], sample: Sequence[Row], is_exact: bool, pace: "Pace | None", planners: int
    ) -> "Totals":
        """Add up.

        Args:
            rows: Of the plan.
            sample: What is known of slides that were looked at closely.
            is_exact: Whether all slides were.
            pace: What labelling some of their tiles has shown.
            planners: Slides that are planned at a time.
        """
        labelled = [row for row in rows if row["status"] in ("ready", "unseen")]
        seen = [row for row in labelled if row["status"] == "ready"]
        most = sum(row["n_grid"] for row in seen)
        grid = sum(row["n_grid"] for row in sample)
        share = sum(row["n_tiles"] for row in sample) / grid if grid else None
        tiles = sum(row["n_tiles"] for row in seen) if is_exact else round(most * (1 if share is None else share))
        if len(seen) < len(labelled):  # remote ones are expected to be as those of the sample
            of_each = sum(row["n_tiles"] for row in sample) / len(sample) if sample else 0
            tiles += round(of_each * (len(labelled) - len(seen)))
        disk = len(labelled) * _TABLE_BYTES + tiles * _ROW_BYTES
        wall_s = None
        if pace is not None:
            disk, wall_s = pace.disk_bytes(len(labelled), tiles), pace.wall_s(len(labelled), tiles)
            planning = [row["seconds"] for row in sample if row.get("seconds")]
            if not is_exact and planning:
                wall_s += len(labelled) * sum(planning) / len(planning) / planners
        return cls(len(labelled), tiles, most, is_exact, share, len(sample), disk, wall_s, pace)

    def tiles_of(self, row: Row) -> int:
        """Return the number of tiles of a slide, or what it is expected to be."""
        tiles: int = (
            row["n_tiles"] if self.is_exact else round(row["n_grid"] * (1 if self.share is None else self.share))
        )
        return tiles


def say_page(rows: Sequence[Row], totals: Totals, job: LabelJob, path: AnyPath) -> None:
    """Print what a plan says.

    Args:
        rows: Of the plan.
        totals: What they come to.
        job: The label run that is planned.
        path: Where the plan stands.
    """
    for number, row in enumerate(row for row in rows if row["status"] == "fails"):
        if number == _FAILURES_SHOWN:
            say(f"fails: more; see the column `error` of {path}")
            break
        say(f"fails: {row['error']}")
    for name, text in _lines(rows, totals, job, path):
        say(f"{name:9} {text}")


def _lines(rows: Sequence[Row], totals: Totals, job: LabelJob, path: AnyPath) -> Iterable[tuple[str, str]]:
    opened = [row for row in rows if row.get("vendor")]
    status, size = Counter(row["status"] for row in rows), sum(row.get("size_bytes") or 0 for row in rows)
    yield "slides", f"{_counted(status)}; {_size(size)}"
    if opened:
        yield "format", _counted(Counter(row["vendor"] for row in opened))
        yield "reader", _counted(Counter(row["reader"] for row in opened))
    yield "µm/px", _resolutions(rows)
    yield "tiles", _tiles(totals, job)
    if copies := sum(row.get("duplicate_of") is not None for row in rows):
        yield "copies", f"{copies} slides have the content of another one (column `duplicate_of`)"
    if status["fails"]:
        yield "fails", _counted(Counter(row["error_code"] for row in rows if row["status"] == "fails"))
    nine = "" if totals.pace is not None else ", of nine classes"
    yield "disk", f"about {_size(totals.disk_bytes)} for the tables{nine}{_free(path.parent)}"
    if totals.wall_s is not None and (pace := totals.pace) is not None:
        workers = f"{pace.workers} worker{'s' if pace.workers != 1 else ''}"
        measured = f"{pace.tile_s * 1000:.3g} ms a tile and {pace.slide_s:.2g} s a slide of one worker"
        sample = f"{pace.tiles} tiles of {pace.slides} slides"
        yield "time", f"about {duration(totals.wall_s)} with {workers}: {measured}, measured on {sample}"
    yield "plan", str(path)


def _resolutions(rows: Sequence[Row]) -> str:
    known = Counter(f"{row['mpp_x']:.4g} ({row['mpp_source']})" for row in rows if row.get("mpp_x"))
    missing = sum(row.get("error_code") == Cause.NO_MPP for row in rows)
    way_out = [f"missing {missing} (--mpp-if-missing, or a list that says it)"] if missing else []
    return ", ".join([*([_counted(known)] if known else []), *way_out]) or "none is known yet"


def _tiles(totals: Totals, job: LabelJob) -> str:
    kind = f"of {job.size_px} px at {job.mpp:g} µm/px"
    if totals.is_exact:
        return f"{totals.tiles:,} {kind}, on tissue, in {totals.slides} slides"
    most = f"at most {totals.most_tiles:,} {kind}, whole grids"
    if totals.share is None:
        return f"{most}; --exact finds those on tissue"
    return f"about {totals.tiles:,} on tissue, by {totals.sampled} slides; {most}; --exact finds those on tissue"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in sorted(counts, key=lambda name: (-counts[name], name)))


def _free(out: AnyPath) -> str:
    return f"; {_size(shutil.disk_usage(out).free)} are free there" if isinstance(out, Path) else ""


def _size(size_bytes: float) -> str:
    """Say a size.

    Examples:
        >>> _size(1_500_000), _size(2_500_000_000_000)
        ('1.5 MB', '2.5 TB')
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}" if unit != "bytes" else f"{size_bytes:.0f} bytes"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"
