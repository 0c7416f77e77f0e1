"""Graph of a label run: slides to regions, regions to summaries."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import ray.data

from histo.pipelines.labelling.plan_worker import plan_found
from histo.pipelines.labelling.region_reader import RegionReader
from histo.pipelines.labelling.region_worker import RegionLabeler, TileClassifier
from histo.pipelines.labelling.runtime import Runtime
from histo.pipelines.labelling.stages import LabelPlacement
from histo.pipelines.labelling.tasks import LabelJob, RegionTask, SlideTask, Summary
from histo.remote.location import scheme
from histo.run.stream.graph import answer_row, split, task_row, tasks_in_blocks, work
from histo.run.stream.worker import Crew
from histo.slides.grid import Region
from histo.tables import Row

_MOST_REGIONS, _SLIDES_PER_REGION = 16, 250
"""Regions in a block: one for small collections, so that each worker has some, and more for large ones."""
_MOST_PER_GPU = 8
_SLIDES_PER_WORKER, _MOST_OF_A_SLIDE = 4, 256
"""Remote slides for each worker, from which on a block holds all regions of a slide; more than one has."""
_MOST_HANDED_OVER = 2**25
"""Bytes of pixels that cross the object store as one, roughly."""


def label_graph(
    job: LabelJob, runtime: Runtime, slides: Sequence[SlideTask], placed: LabelPlacement, left_out: tuple[str, ...] = ()
) -> ray.data.Dataset:
    """Build the graph: slides -> plan -> regions -> read and classify -> summaries; or readers -> network, apart."""
    are_remote = any(scheme(slide.files[0]) is not None for slide in slides)
    together = regions_per_block(len(slides), placed, are_remote)
    found = tasks_in_blocks([(slide.slide_id, (slide,)) for slide in slides], together)
    most_tiles = _MOST_HANDED_OVER // (3 * job.size_px**2) if placed.readers else None
    regions = split(found, plan, (job, most_tiles), job.out)
    if not placed.readers:
        labelers = Crew(RegionLabeler, (job, runtime), job.out, left_out)
        return work(regions, labelers, placed, runtime.regions_at_once)
    readers = Crew(RegionReader, (job,), job.out, left_out, hands_over=True)
    classifiers = Crew(TileClassifier, (job, runtime), job.out, left_out)
    read = work(regions, readers, placed.reading)
    at_least = placed.workers if placed.gpus else max(1, placed.workers - 1)
    return work(read, classifiers, placed, runtime.regions_at_once, at_least)


def plan(slide: SlideTask, job: LabelJob, most_tiles: int | None) -> Iterator[Row]:
    """Plan a slide; yields its regions, large ones first, or what became of it if no tile is to be read."""
    planned = plan_found(job, slide)
    if planned.work is None:
        yield answer_row(slide.slide_id, Summary(slide.slide_id, planned.columns))
        return
    regions = [part for region in planned.regions for part in parts(region, most_tiles)]
    how = replace(planned.work, n_regions=len(regions))
    for region in sorted(regions, key=lambda region: -len(region.tile_index)):  # workers end about together
        yield task_row(slide.slide_id, RegionTask(region, how))


def parts(region: Region, most_tiles: int | None) -> Iterator[Region]:
    """Cut a region of too many tiles into parts; all others stay as they are."""
    count = len(region.tile_index)
    if most_tiles is None or count <= max(1, most_tiles):
        yield region
        return
    for start in range(0, count, max(1, most_tiles)):
        part = slice(start, start + max(1, most_tiles))
        yield Region(f"{region.name}_{start:03d}", region.tile_index[part], region.tissue_fraction[part])


def regions_per_block(n_slides: int, placed: LabelPlacement, are_remote: bool = False) -> int:
    """Return how many regions make a block: the driver's time is enough for some 60 blocks a second.

    Those of a remote slide stay together where there are enough slides, so that few nodes fetch it.
    """
    if placed.readers:
        return 1
    if are_remote and n_slides >= _SLIDES_PER_WORKER * placed.workers:
        return _MOST_OF_A_SLIDE
    return min(_MOST_REGIONS, max(1 if not placed.gpus else _MOST_PER_GPU, n_slides // _SLIDES_PER_REGION))
