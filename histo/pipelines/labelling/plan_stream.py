"""Slides being planned by Ray Data, a few ahead of the workers."""

import queue
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Self

import ray.data
import ray.exceptions

from histo.errors import HistoError
from histo.pipelines.labelling.plan_worker import plan_row
from histo.pipelines.labelling.tasks import LabelJob
from histo.run.pool import PLAN_CPUS
from histo.tables import Row

_AHEAD = 4
"""Planned slides that wait to be taken."""
_AT_ONCE = 500
"""Slides that Ray Data gets at a time: it keeps some kilobytes for each until the last of them is planned."""
_ATTEMPTS = 3


def plan_graph(job: LabelJob, slides: Sequence[Row]) -> ray.data.Dataset:
    """Build the graph that plans slides: a row, in a block of its own, per slide; pixels never are."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    return ray.data.from_items(list(slides), override_num_blocks=len(slides)).map(
        partial(plan_row, job=job), num_cpus=PLAN_CPUS
    )


class Plans:
    """A thread that iterates over the graph, and stops when as many plans wait as may.

    Args:
        job: The run.
        slides: Rows of `tables.FOUND`.

    Attributes:
        has_more: Whether a plan is still to come.
    """

    def __init__(self, job: LabelJob, slides: Sequence[Row]) -> None:
        self.has_more = True
        self._job, self._slides = job, slides
        self._queue: queue.Queue[Row | Exception | None] = queue.Queue(_AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="plans", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(timeout=5)

    def take(self, wait_s: float) -> Row | None:
        """Return the next row of `tables.PLANS`; None if there is none yet, or none any more.

        Raises:
            HistoError: If Ray Data cannot go on.
        """
        try:
            plan = self._queue.get(timeout=wait_s) if wait_s else self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(plan, Exception):
            raise plan
        self.has_more = plan is not None
        return plan

    def _feed(self) -> None:
        try:
            for first in range(0, len(self._slides), _AT_ONCE):
                for plan in _planned(self._job, self._slides[first : first + _AT_ONCE]):
                    self._put(plan)
                    if self._closed.is_set():
                        return
            self._put(None)
        except Exception as error:  # noqa: BLE001 -- it is raised where it can be caught, in the driver's own thread
            self._put(error)

    def _put(self, plan: Row | Exception | None) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(plan, timeout=0.1)
            except queue.Full:
                continue
            return


def _planned(job: LabelJob, slides: Sequence[Row]) -> Iterator[Row]:
    """Yield the plan of every slide once; what Ray Data loses on the way is planned again."""
    missing = {row["slide_id"]: row for row in slides}
    trouble: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            for plan in plan_graph(job, list(missing.values())).iter_rows():
                if missing.pop(plan["slide_id"], None) is not None:
                    yield plan
        except ray.exceptions.RayError as error:
            trouble = error
        if not missing:
            return
    raise HistoError(f"{len(missing)} slides could not be planned, {next(iter(missing))} among them") from trouble
