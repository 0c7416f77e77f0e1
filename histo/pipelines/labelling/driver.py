"""Drive a label run: summaries of regions to tables and the ledger.

The driver holds the summaries of the slides in work, and never a pixel.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import ray.data

from histo.errors import Cause, HistoError
from histo.pipelines.labelling import tile_tables
from histo.pipelines.labelling.graph import label_graph
from histo.pipelines.labelling.runtime import Runtime
from histo.pipelines.labelling.slide_ledger import SlideLedger
from histo.pipelines.labelling.stages import LabelPlacement
from histo.pipelines.labelling.tasks import LabelJob, SlideTask, Summary
from histo.remote.location import AnyPath
from histo.run.failure import describe_failure, is_transient
from histo.run.progress import Progress
from histo.run.stream.drive import Work, drive
from histo.run.stream.metrics import Metrics
from histo.tables import Row

_MERGES = 4
"""Slides whose parts are joined at a time."""


def label_all(
    job: LabelJob, runtime: Runtime, slides: Sequence[SlideTask], ledger: SlideLedger, placement: LabelPlacement
) -> float:
    """Label slides, and enter each of them into the ledger.

    Returns:
        The share of the workers' time in which the network waited for pixels, 0 to 1.

    Raises:
        HistoError: If the run cannot go on: the output cannot be written, or no worker can start.
    """
    work = LabelWork(job, runtime, slides, ledger, placement)
    try:
        drive(work, placement, *([placement.reading] if placement.readers else []))
        return work.end()
    finally:
        work.close()
        ledger.write(force=True)


class LabelWork(Work[Summary]):
    """A label run as its driver sees it."""

    def __init__(
        self,
        job: LabelJob,
        runtime: Runtime,
        slides: Sequence[SlideTask],
        ledger: SlideLedger,
        placement: LabelPlacement,
    ) -> None:
        self._job, self._runtime, self._ledger, self._placement = job, runtime, ledger, placement
        self._open = {slide.slide_id: slide for slide in slides}
        self._begun: set[str] = set()
        self._threads = ThreadPoolExecutor(_MERGES, thread_name_prefix="merge")
        self._merges: dict[Future[None], str] = {}
        self._progress = Progress(sum(ledger.counts().values()))
        self._metrics = Metrics()
        self._seconds = self._waited_s = 0.0
        ledger.write(force=True)

    @property
    def out(self) -> AnyPath:
        """See `Work.out`."""
        return self._job.out

    def is_open(self, unit: str) -> bool:
        """See `Work.is_open`."""
        return unit in self._open and unit not in self._merges.values()

    def graph(self, left_out: tuple[str, ...]) -> ray.data.Dataset | None:
        """See `Work.graph`; what is known of slides that are not settled is forgotten, their parts are found again."""
        self._end_merges(wait=True)
        for slide_id in self._open:
            self._ledger.drop(slide_id)
        slides = list(self._open.values())
        return label_graph(self._job, self._runtime, slides, self._placement, left_out) if slides else None

    def enter(self, answer: Summary) -> None:
        """See `Work.enter`."""
        slide_id, ledger = answer.slide_id, self._ledger
        if not ledger.is_open(slide_id):
            ledger.begin(slide_id, answer.columns, answer.n_regions, again=slide_id in self._begun)
            self._begun.add(slide_id)
        self._seconds += answer.effort.network_s + answer.effort.waited_s
        self._waited_s += answer.effort.waited_s
        self._metrics.work(answer.effort.read_s, answer.effort.network_s, answer.effort.bytes_read)
        if answer.counts is not None:
            self._metrics.label(answer.counts.n_ok, answer.counts.n_failed)
        if answer.failure is not None:
            self._fail(slide_id, answer.failure)
        elif answer.error_code == Cause.STORAGE:
            self._fail(slide_id, answer.columns)
        elif not answer.n_regions:
            self._settle(slide_id)
        elif ledger.add(slide_id, answer):
            if answer.n_regions > 1 and ledger.has_result(slide_id):
                self._merge(answer)
            else:
                self._settle(slide_id)

    def between(self) -> None:
        """See `Work.between`."""
        self._end_merges()
        self._ledger.write()
        ledger = self._ledger
        failed = ledger.counts().get("failed", 0)
        self._progress.show(ledger.settled, failed, ledger.tiles(), self._waited)

    def say(self, text: str) -> None:
        """See `Work.say`."""
        self._progress.say(text)

    def end(self) -> float:
        """Say what was done; returns the share of the workers' time in which the network waited for pixels."""
        self._progress.end(self._ledger.tiles())
        return self._waited or 0.0

    @property
    def _waited(self) -> float | None:
        return self._waited_s / self._seconds if self._seconds else None

    def close(self) -> None:
        """Wait for what is being written."""
        self._threads.shutdown(cancel_futures=True)

    def _settle(self, slide_id: str) -> None:
        status = self._ledger.settle(slide_id)
        self._close(slide_id, status)

    def _fail(self, slide_id: str, failure: Row) -> None:
        """Fail a slide; if it is the output's fault, break the run off instead."""
        if failure["error_code"] == Cause.STORAGE:
            raise HistoError(f"--out {self._job.out}: {failure['error']}; what is finished stays")
        self._close(slide_id, self._ledger.fail(slide_id, failure))

    def _close(self, slide_id: str, status: str) -> None:
        """A failed slide has no table, though one that it had before may be good again when the cause is gone."""
        del self._open[slide_id]
        self._metrics.settle(status)
        row = self._ledger.row(slide_id)
        if status == "failed":
            tile_tables.discard_slide(self._job, slide_id, for_good=not is_transient(row["error_code"]))
        tiles = f", {row['n_ok']} tiles" if row["n_ok"] else ""
        self._progress.settle(f"failed: {row['error']}" if status == "failed" else f"{slide_id}: {status}{tiles}")

    def _merge(self, last: Summary) -> None:
        """Have a slide's parts joined by a thread, in milliseconds; a task of Ray's would start a process."""
        slide_id, columns = last.slide_id, last.columns
        merge = self._threads.submit(
            tile_tables.merge_slide,
            self._job,
            slide_id,
            columns["fingerprint"],
            self._ledger.regions(slide_id),
            columns["n_tiles"],
        )
        self._merges[merge] = slide_id

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
