"""Plan a slide: open it, find its tissue, lay the grid of tiles."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeAlias

from histo import tables
from histo.input_files import all_blocks, digest, file_state, sampled_blocks, table_path
from histo.pipelines.labelling import tile_tables
from histo.pipelines.labelling.tasks import LabelJob, SlideTask, SlideWork, mask_id
from histo.remote.cache import Copies
from histo.remote.location import AnyPath
from histo.run.failure import describe_failure
from histo.run.isolation import Watchdog, guarded
from histo.slides.grid import Region
from histo.slides.plan import KeptTiles, SlidePlan, plan_again, plan_slide
from histo.slides.readers.base import Reader
from histo.slides.readers.watched import WatchedReader
from histo.slides.resolution import Sampling
from histo.slides.slide import Slide, open_slide
from histo.slides.spec import TilingSpec, TissueSpec
from histo.tables import Row


class Planned(NamedTuple):
    """A slide that was looked at.

    Attributes:
        columns: What is known of it for the ledger.
        work: How its tiles are read; None if none is to be read: it is finished, empty, or not usable.
        regions: Its regions.
    """

    columns: Row
    work: SlideWork | None = None
    regions: tuple[Region, ...] = ()


Look: TypeAlias = Callable[[LabelJob, SlideTask, Row], tuple[SlideWork, tuple[Region, ...]] | None]
"""Looks at a slide, a function of a module: it puts what it learns into the columns."""


def plan_found(job: LabelJob, found: SlideTask, look: Look | None = None) -> Planned:
    """Plan one slide that was found; whatever goes wrong becomes some of its columns.

    Args:
        job: The run.
        found: The slide.
        look: Looks at it otherwise than a label run does.
    """
    columns: Row = {"mask_sha256": mask_id(found.mask)}
    try:
        with job.cache.local(found.files) as copies:
            planned = _plan_here(job, replace(found, files=copies.files), columns, look)
            copies.mark(ahead=planned.work is not None)
    except Exception as error:  # noqa: BLE001 -- a slide's plan is a boundary: anything becomes its ledger row
        return Planned(columns | describe_failure(error, found.slide_id))
    return _named(planned, job, found, copies) if copies.are_copies else planned


def _plan_here(job: LabelJob, found: SlideTask, columns: Row, look: Look | None) -> Planned:
    """Plan a slide whose files are on this node, or seen by it."""
    try:
        size_bytes, mtime_ns = file_state(found.files)
        columns = columns | {"size_bytes": size_bytes, "mtime_ns": mtime_ns}
        here = partial(_plan, job, found, columns, look)
        return guarded(job, found.slide_id, "plan", here, _plan, found, columns, look)
    except Exception as error:  # noqa: BLE001 -- likewise
        return Planned(columns | describe_failure(error, found.slide_id))


def _named(planned: Planned, job: LabelJob, found: SlideTask, copies: Copies) -> Planned:
    """Name the remote files in the place of their copies, of which other nodes have their own."""
    columns = dict(planned.columns)
    for name in ("error", "traceback"):
        if columns.get(name):
            columns[name] = job.cache.named(columns[name], found.files, copies.states)
    if planned.work is None:
        return Planned(columns)
    slide = replace(planned.work.slide, path=found.files[0])
    work = replace(planned.work, files=found.files, states=copies.states, slide=slide)
    return Planned(columns, work, planned.regions)


def _plan(job: LabelJob, found: SlideTask, columns: Row, look: Look | None) -> Planned:
    columns, start = dict(columns), time.perf_counter()
    planned = None
    try:
        planned = (look or look_for_tiles)(job, found, columns)
    except MemoryError:  # tried again alone
        raise
    except Exception as error:  # noqa: BLE001 -- likewise; the columns keep what is known of the slide
        columns |= describe_failure(error, found.slide_id)
    columns["seconds"] = time.perf_counter() - start
    return Planned(columns) if planned is None else Planned(columns, *planned)


def look_for_tiles(job: LabelJob, found: SlideTask, columns: Row) -> tuple[SlideWork, tuple[Region, ...]] | None:
    """Open the slide, and plan it unless it is finished; what is learnt on the way is put into `columns`."""
    slide_id, files = found.slide_id, found.files
    with opened(job, found, columns) as (slide, reader):
        columns["fingerprint"] = job.fingerprint(*known(slide, columns))
        table = None if found.again else tile_tables.finished_table(job, slide_id, columns["fingerprint"])
        if table is not None and tile_tables.has_columns(job, table.schema):
            counts = tile_tables.count(table, job.classes)
            columns |= tile_tables.slide_columns(table) | columns
            columns |= {"n_ok": counts.n_ok, "n_failed": counts.n_failed, "classes": counts.classes}
            columns["mpp_source"] = slide.mpp_source  # other settings may lead to the same resolution
            return None
        plan = plan_opened(job, found, columns, slide, reader)
    columns |= plan_columns(plan)
    regions, state = tuple(plan.regions()), (columns["size_bytes"], columns["mtime_ns"])
    work = SlideWork(
        slide_id,
        files,
        state,
        plan.slide,
        plan.sampling,
        plan.grid,
        len(regions),
        columns["fingerprint"],
        dict(columns),
    )
    if not regions:
        tables.write_table(tile_tables.tiles_file(job.out, slide_id), tile_tables.tile_schema(job, work).empty_table())
        return None
    return work, regions


@contextmanager
def opened(job: LabelJob, found: SlideTask, columns: Row) -> Iterator[tuple[Slide, Reader]]:
    """Open a slide for as long as the block lasts; each read is watched."""
    watchdog = Watchdog(job.read_timeout_s)
    columns |= _identify(job, found, found.files, watchdog)
    with watchdog.guard():
        slide, reader = open_slide(found.files[0], job.mpp_if_missing, job.reader, job.mpp_override, found.mpp)
    try:
        columns |= _bounds(slide)
        yield slide, WatchedReader(reader, watchdog.guard)
    finally:
        reader.close()


def known(slide: Slide, columns: Row) -> tuple[str, float, float, str | None]:
    """Return what the fingerprints of a slide that is open need."""
    return columns["content_id"], slide.mpp_x, slide.mpp_y, columns["mask_sha256"]


def plan_opened(job: LabelJob, found: SlideTask, columns: Row, slide: Slide, reader: Reader) -> SlidePlan:
    """Find the tiles of a slide, or take them from where `histo plan --exact` has left them."""
    tiling = TilingSpec.model_validate(job.tiling)
    kept = KeptTiles.read(kept_file(job.out, found.slide_id), job.plan_fingerprint(*known(slide, columns)))
    if kept is not None:
        return plan_again(slide, reader, job.size_px, job.mpp, tiling, kept)
    tissue = TissueSpec.model_validate(job.tissue)
    return plan_slide(slide, reader, job.size_px, job.mpp, tiling, tissue, found.mask)


def kept_file(out: AnyPath, slide_id: str) -> AnyPath:
    """Where the tiles of a slide are that a plan has found."""
    return out / "plan" / table_path(slide_id)


def _identify(job: LabelJob, found: SlideTask, files: Sequence[str], watchdog: Watchdog) -> Row:
    """Return `content_id`, and `sha256` if asked for, which takes its place once it alone shows a change."""
    content = digest(watchdog.each(sampled_blocks(files)))
    if not job.verify:
        return {"content_id": content}
    whole = digest(watchdog.each(all_blocks(files)))
    known = found.sha256
    trusted = known in ("", whole) and not (known and known == found.content_id)
    return {"content_id": content if trusted else whole, "sha256": whole}


def _bounds(slide: Slide) -> Row:
    """The columns of the ledger for the scanned part, if the slide names it."""
    names = ("bounds_x", "bounds_y", "bounds_width", "bounds_height")
    return dict(zip(names, slide.bounds or (None,) * 4, strict=True))


def header_columns(slide: Slide, sampling: Sampling, reader: str) -> Row:
    """The columns of the ledger that the header of a slide gives."""
    return {
        "vendor": slide.vendor,
        "quickhash": slide.quickhash,
        "reader": reader,
        "width": slide.width,
        "height": slide.height,
        "level": sampling.level,
        "mpp_x": slide.mpp_x,
        "mpp_y": slide.mpp_y,
        "mpp_source": slide.mpp_source,
        "effective_mpp": sampling.effective_mpp,
        "objective_power": slide.objective_power,
    }


def plan_columns(plan: SlidePlan) -> Row:
    """The columns of the ledger that planning knows."""
    level = plan.slide.levels[plan.sampling.level]
    return header_columns(plan.slide, plan.sampling, plan.reader) | {
        "blocks_left_out": int(level.blank_blocks.sum()) if level.blank else 0,
        "blocks_lost": int(level.lost_blocks.sum()) if level.empty else 0,
        "n_tiles": len(plan.tile_index),
        "tissue_mm2": plan.tissue_mm2,
    }
