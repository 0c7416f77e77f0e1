"""Drive a label run: slides to planning, regions to workers, rows to the ledger.

The driver holds the regions of a few slides at a time, and never a pixel.
"""

import json
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from histo.errors import Cause, HistoError
from histo.pipelines.labelling import tile_tables
from histo.pipelines.labelling.plan_stream import Plans
from histo.pipelines.labelling.region_worker import RegionLabeler
from histo.pipelines.labelling.runtime import Runtime
from histo.pipelines.labelling.slide_ledger import SlideLedger
from histo.pipelines.labelling.tasks import LabelJob, RegionTask, SlideWork, Summary
from histo.run.failure import describe_failure, is_transient
from histo.run.interruption import interruptible
from histo.run.placement import Placement
from histo.run.pool import DESERTED, Pool
from histo.run.progress import Progress
from histo.slides.grid import cut_regions
from histo.tables import Row

_WAIT_S = 0.2
_MERGES = 4
"""Slides whose parts are joined at a time."""


def work_on(job: LabelJob, runtime: Runtime, slides: Sequence[Row], ledger: SlideLedger, placement: Placement) -> float:
    """Label slides, given as rows of `tables.FOUND`, and enter each of them into the ledger.

    Returns:
        The share of the workers' time in which the network waited for pixels, 0 to 1.

    Raises:
        HistoError: If the run cannot go on: the output cannot be written, or no worker lives.
    """
    pool = Pool[RegionTask, Summary](RegionLabeler, (job, runtime), placement, runtime.regions_at_once)
    with Plans(job, slides) as plans, pool:
        run = _Run(job, ledger, plans, pool)
        try:
            with interruptible(job.out):
                return run.to_its_end()
        finally:
            run.close()
            ledger.write(force=True)


class _Run:
    def __init__(self, job: LabelJob, ledger: SlideLedger, plans: Plans, pool: Pool[RegionTask, Summary]) -> None:
        self._job, self._ledger, self._plans, self._pool = job, ledger, plans, pool
        self._waiting: deque[RegionTask] = deque()
        self._threads = ThreadPoolExecutor(_MERGES, thread_name_prefix="merge")
        self._merges: dict[Future[None], str] = {}
        self._progress = Progress(sum(ledger.counts().values()))
        self._seconds = self._waited_s = 0.0

    def close(self) -> None:
        """Wait for what is being written."""
        self._threads.shutdown(cancel_futures=True)

    def to_its_end(self) -> float:
        """Label all slides; returns the share of the workers' time in which the network waited for pixels."""
        self._ledger.write(force=True)
        while self._plans.has_more or self._waiting or self._pool.is_busy:
            self._take_plans()
            while self._waiting and self._pool.has_room():
                self._pool.submit(self._waiting.popleft())
            done, lost = self._pool.collect(_WAIT_S)
            self._waiting.extendleft(task for task in lost if self._ledger.is_open(task.slide_id))
            for task, summary in done:
                self._seconds += summary.seconds
                self._waited_s += summary.waited_s
                self._enter(task, summary)
            self._end_merges()
            self._ledger.write()
            self._progress.show(self._ledger.settled, self._ledger.tiles_done, self._ledger.tiles_expected())
            if self._pool.is_deserted():
                self._progress.say(DESERTED)
        self._end_merges(wait=True)
        self._progress.end(self._ledger.tiles_done)
        return self._waited_s / self._seconds if self._seconds else 0.0

    def _take_plans(self) -> None:
        """Take slides until there is work for every worker and as much again."""
        while len(self._waiting) < self._pool.in_hand * self._pool.size:
            plan = self._plans.take(wait_s=0 if self._waiting or self._pool.is_busy else _WAIT_S)
            if plan is None:
                return
            self._waiting.extend(self._begin(plan))

    def _begin(self, plan: Row) -> list[RegionTask]:
        """Enter a row of `tables.PLANS`, and return the regions that are to be labelled."""
        columns = json.loads(plan["columns"])
        if columns.get("error_code") == Cause.STORAGE:
            self._fail(plan["slide_id"], columns)
        if not plan["work"]:
            self._ledger.begin(plan["slide_id"], columns, n_regions=0)
            self._settle(plan["slide_id"])
            return []
        work = SlideWork.from_json(plan["work"])
        tiles = np.asarray(plan["tile_index"], np.int64), np.asarray(plan["tissue_fraction"], np.float32)
        regions = list(cut_regions(work.grid, *tiles))
        self._ledger.begin(work.slide_id, columns, len(regions))
        large_first = sorted(regions, key=lambda region: -len(region.tile_index))  # workers end about together
        return [RegionTask(region, work) for region in large_first]

    def _enter(self, task: RegionTask, summary: Summary) -> None:
        slide_id = task.slide_id
        if not self._ledger.is_open(slide_id):  # another region has failed the slide meanwhile
            return
        if summary.failure is not None:
            self._fail(slide_id, summary.failure)
        elif self._ledger.add(slide_id, task.region.name, summary):
            if task.work.n_regions > 1 and self._ledger.has_result(slide_id):
                self._merge(task.work)
            else:
                self._settle(slide_id)

    def _settle(self, slide_id: str) -> None:
        if self._ledger.settle(slide_id) == "failed":
            self._discard(slide_id)

    def _fail(self, slide_id: str, failure: Row) -> None:
        """Fail a slide, and forget its other regions; if it is the output's fault, break the run off instead."""
        if failure["error_code"] == Cause.STORAGE:
            raise HistoError(f"--out {self._job.out}: {failure['error']}; what is finished stays")
        self._ledger.fail(slide_id, failure)
        self._discard(slide_id)
        self._waiting = deque(task for task in self._waiting if task.slide_id != slide_id)

    def _discard(self, slide_id: str) -> None:
        """A failed slide has no table, though one that it had before may be good again when the cause is gone."""
        tile_tables.discard_slide(
            self._job, slide_id, for_good=not is_transient(self._ledger.row(slide_id)["error_code"])
        )

    def _merge(self, work: SlideWork) -> None:
        """Have a slide's parts joined by a thread, in milliseconds; a task of Ray's would start a process."""
        regions, n_tiles = self._ledger.regions(work.slide_id), work.columns["n_tiles"]
        merge = self._threads.submit(
            tile_tables.merge_slide, self._job, work.slide_id, work.fingerprint, regions, n_tiles
        )
        self._merges[merge] = work.slide_id

    def _end_merges(self, wait: bool = False) -> None:
        """Settle the slides whose merges have ended."""
        for merge in list(self._merges):
            if not (wait or merge.done()):
                continue
            slide_id = self._merges.pop(merge)
            try:
                merge.result()
            except Exception as error:  # noqa: BLE001 -- a merge fails its slide, not the run
                self._fail(slide_id, describe_failure(error, slide_id))
            else:
                self._settle(slide_id)
