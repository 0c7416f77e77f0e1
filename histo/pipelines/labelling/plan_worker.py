"""Plan a slide: open it, find its tissue, lay the grid of tiles."""

import json
import os
import time
from collections.abc import Sequence
from functools import partial

from histo import tables
from histo.errors import ReadError
from histo.input_files import all_blocks, digest, file_state, sampled_blocks
from histo.pipelines.labelling import tile_tables
from histo.pipelines.labelling.tasks import LabelJob, SlideWork
from histo.resample import Pixels
from histo.run.failure import describe_failure
from histo.run.isolation import Watchdog, guarded
from histo.slides.plan import SlidePlan, plan_slide
from histo.slides.readers.base import Level, Place, Reader
from histo.slides.slide import open_slide
from histo.slides.spec import TilingSpec, TissueSpec
from histo.tables import Row


def plan_row(row: Row, job: LabelJob) -> Row:
    """Plan one slide: a row of `tables.FOUND` in, its row of `tables.PLANS` out.

    A slide that is finished already, empty, or not usable has no work, and its columns say what became of it.
    """
    columns: Row = {}
    try:
        size_bytes, mtime_ns = file_state(_files(row))
        columns |= {"size_bytes": size_bytes, "mtime_ns": mtime_ns}
        here = partial(_plan, job, row, columns)
        return guarded(job, row["slide_id"], "plan", here, _plan, row, columns)
    except Exception as error:  # noqa: BLE001 -- a slide's plan is a boundary: anything becomes its ledger row
        return _row(row, columns | describe_failure(error, row["slide_id"]))


def _plan(job: LabelJob, row: Row, columns: Row) -> Row:
    columns, start = dict(columns), time.perf_counter()
    try:
        plan = _look(job, row, columns)
    except MemoryError:  # tried again alone
        raise
    except Exception as error:  # noqa: BLE001 -- likewise; the row keeps what is known of the slide
        plan = None
        columns |= describe_failure(error, row["slide_id"])
    columns["seconds"] = time.perf_counter() - start
    return _row(row, columns, plan)


def _look(job: LabelJob, row: Row, columns: Row) -> tuple[SlidePlan, SlideWork] | None:
    """Open the slide, and plan it unless it is finished; what is learnt on the way is put into `columns`."""
    slide_id, files, watchdog = row["slide_id"], _files(row), Watchdog(job.read_timeout_s)
    columns |= _identify(job, row, files, watchdog)
    with watchdog.guard():
        slide, reader = open_slide(files[0], job.mpp_if_missing, job.reader, job.mpp_override)
    try:
        columns["fingerprint"] = job.fingerprint(columns["content_id"], slide.mpp_x, slide.mpp_y)
        table = None if row["again"] else tile_tables.finished_table(job, slide_id, columns["fingerprint"])
        if table is not None:
            columns |= tile_tables.slide_columns(table) | columns | tile_tables.count(table, job.classes)._asdict()
            columns["mpp_source"] = slide.mpp_source  # other settings may lead to the same resolution
            return None
        tiling, tissue = TilingSpec.model_validate(job.tiling), TissueSpec.model_validate(job.tissue)
        plan = plan_slide(slide, _Watched(reader, watchdog), job.size_px, job.mpp, tiling, tissue)
    finally:
        reader.close()
    columns |= _plan_columns(plan)
    n_regions, state = len(list(plan.regions())), (columns["size_bytes"], columns["mtime_ns"])
    work = SlideWork(
        slide_id, tuple(files), state, slide, plan.sampling, plan.grid, n_regions, columns["fingerprint"], dict(columns)
    )
    if not n_regions:
        tables.write_table(tile_tables.tiles_file(job.out, slide_id), tile_tables.tile_schema(job, work).empty_table())
        return None
    return plan, work


def _files(row: Row) -> list[str]:
    return [os.fsdecode(file) for file in row["files"]]


def _row(row: Row, columns: Row, plan: tuple[SlidePlan, SlideWork] | None = None) -> Row:
    """Make a row of `tables.PLANS`; without a plan no tile of the slide is to be read."""
    return {
        "slide_id": row["slide_id"],
        "columns": json.dumps(columns),
        "work": plan[1].to_json() if plan else "",
        "tile_index": plan[0].tile_index.tolist() if plan else [],
        "tissue_fraction": plan[0].tissue_fraction.tolist() if plan else [],
    }


def _identify(job: LabelJob, row: Row, files: list[str], watchdog: Watchdog) -> Row:
    """Return `content_id`, and `sha256` if asked for, which takes its place once it alone shows a change."""
    content = digest(watchdog.each(sampled_blocks(files)))
    if not job.verify:
        return {"content_id": content}
    whole = digest(watchdog.each(all_blocks(files)))
    known = row["sha256"]
    trusted = known in ("", whole) and not (known and known == row["content_id"])
    return {"content_id": content if trusted else whole, "sha256": whole}


def _plan_columns(plan: SlidePlan) -> Row:
    """The columns of the ledger that planning knows."""
    slide = plan.slide
    level = slide.levels[plan.sampling.level]
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
        "blocks_left_out": int(level.blank_blocks.sum()) if level.blank else 0,
        "blocks_lost": int(level.lost_blocks.sum()) if level.empty else 0,
        "n_tiles": len(plan.tile_index),
        "tissue_mm2": plan.tissue_mm2,
    }


class _Watched(Reader):
    """A reader whose every read is watched."""

    def __init__(self, reader: Reader, watchdog: Watchdog) -> None:
        self._reader, self._watchdog = reader, watchdog
        self.name = reader.name

    @property
    def stored(self) -> Reader | None:
        """See `Reader.stored`."""
        stored = self._reader.stored
        if stored is self._reader:
            return self
        return stored and _Watched(stored, self._watchdog)

    def read(self, level: Level, x: int, y: int, width: int, height: int) -> Pixels:
        """See `Reader.read`."""
        with self._watchdog.guard():
            return self._reader.read(level, x, y, width, height)

    def read_windows(self, level: Level, places: Sequence[Place], targets: Sequence[Pixels]) -> list[ReadError | None]:
        """See `Reader.read_windows`."""
        with self._watchdog.guard():
            return self._reader.read_windows(level, places, targets)

    def close(self) -> None:
        """See `Reader.close`."""
        self._reader.close()
