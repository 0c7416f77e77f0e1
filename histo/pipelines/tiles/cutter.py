"""Cut the tiles of one slide, and label them by its annotation."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from histo import store
from histo.learn.data.images import encode_png
from histo.learn.data.inspection import hash_pixels
from histo.learn.data.tile_table import IN_INDEX, write_part
from histo.pipelines.tiles.tasks import Cut, CutJob, CutTask
from histo.report.slide.colours import class_colours
from histo.report.tile_sheet import PLAIN, SHOWN, SHOWN_PLAIN, Placed, draw_tile_sheet, sheet_mpp
from histo.resample import Pixels
from histo.run.failure import describe_failure
from histo.run.isolation import Watchdog, guarded
from histo.slides.annotations.areas import Areas
from histo.slides.annotations.files import read_areas
from histo.slides.annotations.tile_classes import NO_CLASS, classify_tiles
from histo.slides.plan import SlidePlan, plan_slide
from histo.slides.readers.base import Reader
from histo.slides.readers.watched import WatchedReader
from histo.slides.slide import open_slide
from histo.slides.tiles import cut_blocks, read_tiles
from histo.slides.tissue import read_thumbnail
from histo.tables import Row

_WORK = "cut"

Numbers = npt.NDArray[np.int64]


class Cutter:
    """Cuts slides. It lives as long as a Ray actor; a plain loop or a test calls it just as well."""

    def __init__(self, job: CutJob) -> None:
        self._job = job

    def __call__(self, task: CutTask) -> Cut:
        """Cut one slide; whatever goes wrong becomes its answer."""
        try:
            return guarded(self._job, task.slide_id, _WORK, partial(cut_slide, self._job, task), cut_slide, task)
        except Exception as error:  # noqa: BLE001 -- a slide is a boundary: anything becomes its answer
            failure = describe_failure(error, task.slide_id, batches=False)
            return Cut(task.slide_id, error_code=failure["error_code"], error=failure["error"])


def cut_slide(job: CutJob, task: CutTask) -> Cut:
    """Write the tiles of a slide, and its contact sheet.

    Raises:
        InputError: If the slide or its annotation cannot be used.
    """
    with job.cache.local(task.files) as copies:
        return _cut(job, task, copies.files[0])


def _cut(job: CutJob, task: CutTask, path: str) -> Cut:
    store.remove(job.sheet(task.slide_id))
    for image in job.images(task.slide_id).glob("*.png"):
        store.remove(image)
    watchdog = Watchdog(job.read_timeout_s)
    with watchdog.guard():
        slide, opened = open_slide(path, job.mpp_if_missing, job.reader, job.mpp_override, task.mpp)
    reader = WatchedReader(opened, watchdog.guard)
    try:
        annotation = None
        if task.annotation is not None:
            annotation = read_areas(task.annotation, slide, job.naming.class_of, job.bounds, job.naming.unknown)
        plan = plan_slide(slide, reader, job.size_px, job.mpp, job.tiling, job.tissue, task.mask)
        labelled = _label(job, plan, annotation.areas) if annotation else _unlabelled(plan)
        tiles = _Tiles(job, task, plan, reader, labelled)
        said = {"key": task.key}
        write_part(job.part(task.slide_id), tiles.rows(), IN_INDEX, job.columns, said)
        if job.sheets:
            tiles.draw(annotation.areas if annotation else None)
    finally:
        reader.close()
    left_out = +(labelled.left_out + tiles.left_out)
    return Cut(task.slide_id, tiles.counts, left_out, annotation.notes if annotation else ())


@dataclass(frozen=True)
class _Labelled:
    """Which of the tiles of a plan are cut.

    Attributes:
        chosen: Positions in the plan's tiles, `(n,)`.
        names: Their classes; None without annotations, `(n,)`.
        shares: That lie in them, likewise.
        left_out: Other tiles, by the reason.
    """

    chosen: Numbers
    names: list[str | None]
    shares: list[float | None]
    left_out: Counter[str]


def _unlabelled(plan: SlidePlan) -> _Labelled:
    count = len(plan.tile_index)
    return _Labelled(np.arange(count), [None] * count, [None] * count, Counter())


def _label(job: CutJob, plan: SlidePlan, areas: Areas) -> _Labelled:
    """Give the tiles of tissue their classes, and count those that have none."""
    classes = job.classes
    found = classify_tiles(plan.grid, areas, classes, job.min_share)
    numbers, touched = found.number[plan.tile_index], found.touched[plan.tile_index]
    if job.rest is not None:
        numbers = np.where(touched, numbers, np.int16(classes.index(job.rest)))
    chosen = np.flatnonzero(numbers != NO_CLASS)
    shares = np.where(touched, found.share[plan.tile_index], 1 - found.share[plan.tile_index])[chosen]
    left_out = Counter(
        {
            "too little of one class": int((touched & (numbers == NO_CLASS)).sum()),
            "little tissue": int((found.number != NO_CLASS).sum() - (found.number[plan.tile_index] != NO_CLASS).sum()),
            "in no annotation": int((~touched & (numbers == NO_CLASS)).sum()),
        }
    )
    return _Labelled(chosen, [classes[number] for number in numbers[chosen].tolist()], shares.tolist(), left_out)


class _Tiles:
    """The tiles that are cut from a slide; they are read once, a few at a time.

    Args:
        job: The run.
        task: The slide.
        plan: Its grid.
        reader: Decodes its pixels.
        labelled: Which tiles are cut.
    """

    def __init__(self, job: CutJob, task: CutTask, plan: SlidePlan, reader: Reader, labelled: _Labelled) -> None:
        self._job, self._task, self._plan, self._reader, self._labelled = job, task, plan, reader, labelled
        self.counts: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self._shown = _samples(labelled.names)
        self._samples: list[tuple[str, Pixels]] = []

    def rows(self) -> Iterator[Row]:
        """Yield a row for each tile that can be read; those that cannot are counted."""
        plan, labelled = self._plan, self._labelled
        kept = plan.tile_index[labelled.chosen]
        for members in cut_blocks(plan.grid, kept):
            pixels, bad = read_tiles(self._reader, plan.slide, plan.sampling, plan.grid, kept[members])
            for member, tile, failed in zip(members.tolist(), pixels, bad.tolist(), strict=True):
                if failed:
                    self.left_out["not readable"] += 1
                    continue
                name = labelled.names[member]
                self.counts[name or ""] += 1
                if member in self._shown:
                    self._samples.append((name or "", tile.copy()))
                yield self._row(member, tile)

    def _row(self, member: int, tile: Pixels) -> Row:
        job, task, plan, labelled = self._job, self._task, self._plan, self._labelled
        position = int(labelled.chosen[member])
        grid_x, grid_y = plan.grid.places(plan.tile_index[position : position + 1])
        x, y = int(plan.grid.x(grid_x)[0]), int(plan.grid.y(grid_y)[0])
        row = {
            "source": job.source,
            "label": labelled.names[member],
            "group": task.group,
            "content_hash": hash_pixels(tile),
            "size_px": job.size_px,
            "slide_id": task.slide_id,
            "x": x,
            "y": y,
            "width": plan.grid.width,
            "height": plan.grid.height,
            "tissue_fraction": float(plan.tissue_fraction[position]),
            "share": labelled.shares[member],
        }
        if job.form == "table":
            return row | {"case_id": f"{task.slide_id}/{x}_{y}", "image": encode_png(tile)}
        path = job.images(task.slide_id) / f"{x}_{y}.png"
        with store.put_atomic(path) as file:
            file.write(encode_png(tile))
        return row | {"path": path.relative_to(job.out).as_posix()}

    def draw(self, areas: Areas | None) -> None:
        """Draw the contact sheet, with the outlines of areas."""
        job, plan, labelled = self._job, self._plan, self._labelled
        thumbnail = read_thumbnail(self._reader, plan.slide, sheet_mpp(plan.slide))
        grid_x, grid_y = plan.grid.places(plan.tile_index[labelled.chosen])
        corners = np.stack([plan.grid.x(grid_x), plan.grid.y(grid_y)], axis=1)
        placed = Placed(corners, (plan.grid.width, plan.grid.height), [name or "" for name in labelled.names])
        title = f"{self._task.slide_id}: {self.counts.total()} tiles of {job.size_px} px at {job.mpp:g} µm/px"
        colours = class_colours(job.classes) if job.classes else {"": PLAIN}
        outlines = [line for name in areas.classes for line in areas.outlines(name)] if areas else []
        left_out = +(labelled.left_out + self.left_out)
        below = "left out: " + ", ".join(f"{count} ({why})" for why, count in left_out.items()) if left_out else ""
        target = job.sheet(self._task.slide_id)
        draw_tile_sheet(thumbnail, placed, self._samples, colours, outlines, (title, below), target)


def _samples(names: list[str | None]) -> frozenset[int]:
    """Choose the tiles of each class that a contact sheet shows, evenly over the slide."""
    members: dict[str | None, list[int]] = {}
    for number, name in enumerate(names):
        members.setdefault(name, []).append(number)
    shown = SHOWN_PLAIN if [*members] == [None] else SHOWN
    steps = np.linspace(0, 1, shown + 2)[1:-1]
    return frozenset(own[int(step * len(own))] for own in members.values() for step in steps)
