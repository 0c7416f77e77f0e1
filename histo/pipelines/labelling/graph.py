"""Graph of a label run: slides to regions, regions to summaries."""

from collections.abc import Iterator, Sequence

import ray.data

from histo.pipelines.labelling.plan_worker import plan_found
from histo.pipelines.labelling.region_worker import RegionLabeler
from histo.pipelines.labelling.runtime import Runtime
from histo.pipelines.labelling.tasks import LabelJob, RegionTask, SlideTask, Summary
from histo.run.placement import Placement
from histo.run.stream.graph import answer_row, split, task_row, tasks_in_blocks, work
from histo.run.stream.worker import Crew
from histo.tables import Row

_MOST_REGIONS, _SLIDES_PER_REGION = 16, 250
"""Regions in a block: one for small collections, so that each worker has some, and more for large ones."""
_MOST_PER_GPU = 8


def label_graph(
    job: LabelJob, runtime: Runtime, slides: Sequence[SlideTask], placement: Placement, left_out: tuple[str, ...] = ()
) -> ray.data.Dataset:
    """Build the graph: slides -> plan -> regions -> read and classify -> summaries."""
    found = tasks_in_blocks([(slide.slide_id, (slide,)) for slide in slides], regions_per_block(len(slides), placement))
    regions = split(found, plan, (job,), job.out)
    labelers = Crew(RegionLabeler, (job, runtime), job.out, left_out)
    return work(regions, labelers, placement, runtime.regions_at_once)


def plan(slide: SlideTask, job: LabelJob) -> Iterator[Row]:
    """Plan a slide; yields its regions, large ones first, or what became of it if no tile is to be read."""
    planned = plan_found(job, slide)
    if planned.work is None:
        yield answer_row(slide.slide_id, Summary(slide.slide_id, planned.columns))
    for region in sorted(planned.regions, key=lambda region: -len(region.tile_index)):  # workers end about together
        assert planned.work is not None, "regions are read in one way"
        yield task_row(slide.slide_id, RegionTask(region, planned.work))


def regions_per_block(n_slides: int, placement: Placement) -> int:
    """Return how many regions make a block: the driver's time is enough for some 60 blocks a second."""
    return min(_MOST_REGIONS, max(1 if not placement.gpus else _MOST_PER_GPU, n_slides // _SLIDES_PER_REGION))
