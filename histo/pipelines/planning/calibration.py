"""Measure the pace of a label run on a sample of its slides, by labelling them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from histo import store
from histo.pipelines.labelling.driver import LabelWork
from histo.pipelines.labelling.plan_worker import kept_file
from histo.pipelines.labelling.runtime import Runtime
from histo.pipelines.labelling.slide_ledger import SlideLedger
from histo.pipelines.labelling.stages import LabelPlacement
from histo.pipelines.labelling.tasks import LabelJob, SlideTask, Summary
from histo.remote.location import AnyPath
from histo.run.progress import Progress
from histo.run.stream.drive import drive
from histo.slides.finding.collection import Collection, FoundSlide
from histo.slides.grid import REGION_TILES
from histo.slides.plan import KeptTiles
from histo.tables import Row, open_table

FOLDER = "staging/calibration"
"""In the output folder: the tables of the sample, for as long as it is labelled."""
_AIM_S = 15.0
"""That labelling the sample takes, about."""
_FIRST_TILES = 16
_ROUNDS = 3
"""Each is of as many tiles as the one before shows to be enough; the first labels a few."""
_MOST_TILES, _MOST_SLIDES = 256, 1000
"""Of a slide of the sample, and of all of it."""
_START_OF_RAY_S = 5.0


@dataclass(frozen=True)
class Pace:
    """What labelling costs.

    Attributes:
        start_s: Time until the first region is done, the start of Ray included.
        slide_s: Time of one worker for a slide, whatever its size.
        tile_s: Time of one worker for a tile.
        workers: Number of workers.
        slide_bytes: Size of a table without rows.
        tile_bytes: Size of a row.
        slides: Number of slides that were labelled to measure it.
        tiles: Likewise of tiles.
    """

    start_s: float
    slide_s: float
    tile_s: float
    workers: int
    slide_bytes: float
    tile_bytes: float
    slides: int
    tiles: int

    def worker_s(self, tiles: int) -> float:
        """Return the time of one worker for a slide of so many tiles."""
        return self.slide_s + tiles * self.tile_s

    def wall_s(self, slides: int, tiles: int) -> float:
        """Return the time of a run."""
        return self.start_s + (slides * self.slide_s + tiles * self.tile_s) / self.workers

    def disk_bytes(self, slides: int, tiles: int) -> float:
        """Return the size of all tables."""
        return slides * self.slide_bytes + tiles * self.tile_bytes


class _Silent(Progress):
    """Progress that nobody sees."""

    def show(self, *_: object) -> None:
        """Print nothing."""

    def settle(self, text: str) -> None:
        """Print nothing."""

    def end(self, *_: object) -> None:
        """Print nothing."""


class _Answer(NamedTuple):
    """What came of a region.

    Attributes:
        slide_id: Its slide.
        at: When it came.
        tiles: Number of its tiles.
        worked_s: Time of its worker.
    """

    slide_id: str
    at: float
    tiles: int
    worked_s: float


class _Timed(LabelWork):
    """A label run whose answers are timed."""

    def __init__(
        self,
        job: LabelJob,
        runtime: Runtime,
        slides: Sequence[SlideTask],
        ledger: SlideLedger,
        placement: LabelPlacement,
    ) -> None:
        super().__init__(job, runtime, slides, ledger, placement)
        self._progress = _Silent(len(slides))
        self.begun = time.monotonic()
        self.answers: list[_Answer] = []

    def enter(self, answer: Summary) -> None:
        """See `Work.enter`."""
        tiles = sum(answer.counts[:2]) if answer.counts is not None else 0
        worked_s = answer.effort.network_s + answer.effort.waited_s
        self.answers.append(_Answer(answer.slide_id, time.monotonic(), tiles, worked_s))
        super().enter(answer)


def calibrate(
    job: LabelJob, runtime: Runtime, slides: Sequence[tuple[SlideTask, Row]], placement: LabelPlacement
) -> Pace | None:
    """Label a few tiles of some slides, in a folder that is removed.

    Args:
        job: The label run; its output folder is that of the plan, where the tiles of the slides are kept.
        runtime: On what it computes.
        slides: Those that have tiles, in random order, each with what a `Surveyor` knows of it.
        placement: Its workers.

    Returns:
        Its pace; None if no tile can be read.
    """
    out, budget_s = job.out / FOLDER, _AIM_S * placement.workers
    count, most, pace = placement.workers, _FIRST_TILES, None
    try:
        for number in range(_ROUNDS):
            tasks = _prepare(job, out / str(number), slides[:count], most)
            latest = _pace(_label(replace(job, out=out / str(number)), runtime, tasks, placement), placement)
            if latest is None:
                break
            pace, before = latest, (count, most)
            most = min(_MOST_TILES, max(_FIRST_TILES, int(budget_s / len(slides) / max(pace.tile_s, 1e-6))))
            mean = sum(min(most, columns["n_tiles"]) for _, columns in slides) / len(slides)
            count = max(
                count, min(_MOST_SLIDES, len(slides), int(budget_s / max(pace.slide_s + mean * pace.tile_s, 1e-6)))
            )
            if count <= 1.5 * before[0] and most <= 1.5 * before[1]:
                break
        return pace
    finally:
        store.remove(out)


def _prepare(job: LabelJob, out: AnyPath, slides: Sequence[tuple[SlideTask, Row]], most: int) -> list[SlideTask]:
    """Have a label run find but some tiles of each slide: those of one region, in the middle of all."""
    for found, columns in slides:
        known = (columns[name] for name in ("content_id", "mpp_x", "mpp_y", "mask_sha256"))
        key = job.plan_fingerprint(*known)
        kept = KeptTiles.read(kept_file(job.out, found.slide_id), key)
        assert kept is not None, "a surveyor has found them"
        some = _some(kept, columns["grid_columns"], most)
        KeptTiles(kept.tile_index[some], kept.tissue_fraction[some], kept.tissue_mm2).write(
            kept_file(out, found.slide_id), key
        )
    return [found for found, _ in slides]


def _some(kept: KeptTiles, columns: int, most: int) -> npt.NDArray[np.intp]:
    """Choose tiles of one region."""
    grid_y, grid_x = np.divmod(kept.tile_index, columns)
    y, x = grid_y // REGION_TILES, grid_x // REGION_TILES
    middle = len(kept.tile_index) // 2
    return np.flatnonzero((y == y[middle]) & (x == x[middle]))[:most]


def _label(job: LabelJob, runtime: Runtime, slides: Sequence[SlideTask], placement: LabelPlacement) -> _Timed:
    found = tuple(FoundSlide(slide.slide_id, slide.files[0], slide.files, mpp=slide.mpp) for slide in slides)
    work = _Timed(job, runtime, slides, SlideLedger(job, Collection(found, {})), placement)
    try:
        drive(work, placement, *([placement.reading] if placement.readers else []))
    finally:
        work.close()
    return work


def _pace(run: _Timed, placement: LabelPlacement) -> Pace | None:
    """Tell the cost of slides from that of tiles: workers know the latter, and the rest of the time is the former."""
    begun = max(1, len(run.answers) // 5)  # until then networks and processes are warming up
    counted = run.answers[begun:] if sum(answer.tiles for answer in run.answers[begun:]) else run.answers
    tiles = sum(answer.tiles for answer in counted)
    if not tiles:
        return None
    wall_s = counted[-1].at - run.answers[begun - 1].at if len(run.answers) > begun else 0.0
    tile_s = sum(answer.worked_s for answer in counted) / tiles
    slide_s = max(0.0, wall_s * placement.workers - tiles * tile_s) / len({answer.slide_id for answer in counted})
    tables = list(store.list_files(run.out / "tiles", "*.parquet"))
    rows = sum(answer.tiles for answer in run.answers)
    sizes = [_sizes(path) for path in tables]
    return Pace(
        start_s=run.answers[0].at - run.begun + _START_OF_RAY_S,
        slide_s=slide_s,
        tile_s=tile_s,
        workers=placement.workers,
        slide_bytes=sum(whole - size for whole, size in sizes) / len(sizes),
        tile_bytes=sum(size for _, size in sizes) / rows,
        slides=len(tables),
        tiles=rows,
    )


def _sizes(path: AnyPath) -> tuple[int, int]:
    """Return the size of a table, and that of its rows alone."""
    with open_table(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        columns = (group.column(number) for group in groups for number in range(group.num_columns))
        rows = sum(column.total_compressed_size for column in columns)
    return len(store.content_of(path) or b""), rows
