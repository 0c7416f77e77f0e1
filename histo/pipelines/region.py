"""The two workers of a label run: one plans a slide, the other reads and classifies its regions."""

import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from histo import tables
from histo.errors import Cause, ReadError, SlideError
from histo.pipelines import parts
from histo.pipelines.work import (
    LabelJob,
    Row,
    SlideWork,
    describe_failure,
    parse_region,
    region_row,
    settled_row,
    summary_row,
)
from histo.resample import Pixels
from histo.slides.collection import content_id
from histo.slides.grid import Region
from histo.slides.plan import SlidePlan, TilingSpec, TissueSpec, plan_slide
from histo.slides.slide import OpenSlideReader
from histo.slides.tiles import read_tile


def plan_regions(row: Row, job: LabelJob) -> Iterator[Row]:
    """Plan one slide: a row for each of its regions, or one row for a slide that has none or cannot be used."""
    slide_id, files = row["slide_id"], [os.fsdecode(file) for file in row["files"]]
    ledger: Row = {}
    start = time.perf_counter()
    try:
        with parts.attempt(job, slide_id, "plan"):
            ledger |= _file_columns(files)
            plan = plan_slide(
                files[0],
                job.size_px,
                job.mpp,
                TilingSpec.model_validate(job.tiling),
                TissueSpec.model_validate(job.tissue),
                job.mpp_if_missing,
            )
            ledger |= _plan_columns(plan)
            ledger["seconds"] = time.perf_counter() - start
            yield from _rows(job, slide_id, plan, ledger)
    except Exception as error:  # noqa: BLE001 -- a slide's plan is a boundary: anything becomes its ledger row
        yield settled_row(slide_id, ledger | describe_failure(error, slide_id))


def _file_columns(files: list[str]) -> Row:
    """The columns of the ledger that the slide's files tell."""
    try:
        stats = [Path(file).stat() for file in files]
        return {
            "size_bytes": sum(stat.st_size for stat in stats),
            "mtime_ns": max(stat.st_mtime_ns for stat in stats),
            "content_id": content_id(files),
        }
    except OSError as error:
        raise SlideError(
            Cause.UNREADABLE, f"{error.filename}: {error.strerror}; make the file readable, or remove it"
        ) from error


def _plan_columns(plan: SlidePlan) -> Row:
    """The columns of the ledger that planning knows."""
    slide = plan.slide
    return {
        "vendor": slide.vendor,
        "quickhash": slide.quickhash,
        "reader": plan.reader,
        "width": slide.width,
        "height": slide.height,
        "level": plan.sampling.level,
        "mpp_x": slide.mpp_x,
        "mpp_y": slide.mpp_y,
        "mpp_source": slide.mpp_source,
        "effective_mpp": plan.sampling.effective_mpp,
        "objective_power": slide.objective_power,
        "n_tiles": len(plan.tile_index),
        "tissue_mm2": plan.tissue_mm2,
    }


def _rows(job: LabelJob, slide_id: str, plan: SlidePlan, ledger: Row) -> Iterator[Row]:
    regions = list(plan.regions())
    fingerprint = job.fingerprint(ledger["content_id"], plan.slide, plan.reader)
    work = SlideWork(plan.slide, plan.sampling, plan.grid, len(regions), fingerprint)
    if not regions:
        empty = parts.tile_schema(job, work).empty_table()
        tables.write_table(parts.tiles_file(job.out, slide_id), empty)
        yield settled_row(slide_id, ledger)
    for region in regions:
        yield region_row(slide_id, region, work, ledger)


class RegionLabeler:
    """Reads a region's tiles, classifies them, writes them as one part, and returns one summary row.

    It lives as long as a Ray actor, and keeps the network and the slide that it reads open. A plain loop or a test
    calls it just as well.
    """

    def __init__(self, job: LabelJob) -> None:
        import torch  # noqa: PLC0415 -- the driver and the tasks that plan must not load it

        from histo.learn.predict import Predictor  # noqa: PLC0415 -- likewise

        torch.set_num_threads(job.threads)
        self._job = job
        self._predict = Predictor(job.model, job.device, job.batch_size)
        self._reads = ThreadPoolExecutor(job.threads, thread_name_prefix="read")
        self._local = threading.local()

    def __call__(self, row: Row) -> Row:
        """Label one region; a failure becomes part of its summary."""
        if not row["work"]:
            return summary_row(row)
        start = time.perf_counter()
        region, work = parse_region(row)
        try:
            with parts.attempt(self._job, row["slide_id"], region.name):
                probabilities, bad = self._classify(region, work)
                table = parts.tile_table(self._job, row["slide_id"], region, work, probabilities, bad)
                parts.write_region(self._job, row["slide_id"], region, work, table)
        except Exception as error:  # noqa: BLE001 -- a region is the other boundary
            where = f"{row['slide_id']}, region {region.name}"
            seconds = time.perf_counter() - start
            return summary_row(row, work, seconds=seconds, failure=describe_failure(error, where))
        pred = table["pred"].drop_null().to_numpy()
        return summary_row(
            row,
            work,
            counts=(len(pred), len(table) - len(pred)),
            class_counts=np.bincount(pred, minlength=len(self._job.classes)).tolist(),
            seconds=time.perf_counter() - start,
        )

    def _classify(self, region: Region, work: SlideWork) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return probabilities `(tiles, classes)`, and which tiles could not be read, `(tiles,)`."""
        count = len(region.tile_index)
        probabilities, bad = np.zeros((count, len(self._job.classes)), np.float32), np.ones(count, np.bool_)
        numbered = ((i, tile) for i, tile in enumerate(self._read_ahead(region, work)) if tile is not None)
        while batch := list(islice(numbered, self._job.batch_size)):
            places = [i for i, _ in batch]
            probabilities[places] = self._predict(np.stack([tile for _, tile in batch]))
            bad[places] = False
        return probabilities, bad

    def _read_ahead(self, region: Region, work: SlideWork) -> Iterator[Pixels | None]:
        """Yield the tiles in order, while threads read the ones after; memory holds two batches of them."""
        ahead = 2 * self._job.batch_size + self._job.threads
        waiting: deque[Future[Pixels | None]] = deque()
        for index in region.tile_index.tolist():
            waiting.append(self._reads.submit(self._read, index, work))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _read(self, tile_index: int, work: SlideWork) -> Pixels | None:
        """Read one tile; None if its pixels cannot be decoded."""
        grid_x, grid_y = work.grid.places(np.asarray([tile_index]))
        try:
            return read_tile(
                self._reader(work.slide.path), work.slide, work.sampling, work.grid, int(grid_x[0]), int(grid_y[0])
            )
        except ReadError:
            return None

    def _reader(self, path: str) -> OpenSlideReader:
        """Return this thread's reader of a slide, and close that of the slide before."""
        current: Any = getattr(self._local, "reader", None)
        if current is None or current[0] != path:
            if current is not None:
                current[1].close()
            current = (path, OpenSlideReader(path))
            self._local.reader = current
        reader: OpenSlideReader = current[1]
        return reader
