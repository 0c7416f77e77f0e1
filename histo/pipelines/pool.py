"""The workers of a label run: which of them are ready, what each of them has in hand, and what is lost with one.

Ray Data has pools of actors, too; `docs/decisions/0002-slides-by-ray-data-regions-by-a-pool.md` says with figures why
this one is our own.
"""

from dataclasses import dataclass
from typing import Any, Self

import ray
import ray.exceptions

from histo.errors import HistoError
from histo.pipelines.cluster import Placement
from histo.pipelines.region import RegionLabeler
from histo.pipelines.work import LabelJob, SlideWork, Summary
from histo.slides.grid import Region

PLAN_CPUS = 0.1
"""CPUs of a planning task. Workers leave as much free, or a full pool would keep planning waiting for ever."""

_MORE_IN_HAND = 1
"""Regions that a worker has beside those that it labels, to go on with."""
_FALSE_STARTS = 5
"""Workers for each place that may be lost, one after the other, while none gets ready."""


@dataclass(frozen=True)
class Task:
    """A region of a slide."""

    region: Region
    work: SlideWork

    @property
    def slide_id(self) -> str:
        """The slide that it is of."""
        return self.work.slide_id


def worker_resources(placement: Placement) -> dict[str, Any]:
    """What Ray reserves for one worker: its GPU, if it has one, and its CPUs less what planning needs."""
    return {"num_gpus": placement.gpus, "num_cpus": placement.cpus - PLAN_CPUS}


class Pool:
    """As many workers as the placement says, each replaced when it is lost.

    A worker is given regions only when it is ready, so that none waits for a place in a cluster that has shrunk.

    Attributes:
        size: Number of workers.
        in_hand: Regions that a worker may have at a time.
    """

    def __init__(self, job: LabelJob, placement: Placement) -> None:
        self.size = placement.workers
        self.in_hand = job.regions_at_once + _MORE_IN_HAND
        self._job = job
        self._worker = ray.remote(max_restarts=0, max_task_retries=0, **worker_resources(placement))(RegionLabeler)
        self._starting: dict[ray.ObjectRef[None], Any] = {}
        self._in_hand: dict[Any, int] = {}
        self._tasks: dict[ray.ObjectRef[Summary], tuple[Any, Task]] = {}
        self._false_starts = 0

    def __enter__(self) -> Self:
        for _ in range(self.size):
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self._starting.values(), *self._in_hand]:
            ray.kill(worker)

    def _start(self) -> None:
        worker = self._worker.options(max_concurrency=self._job.regions_at_once).remote(self._job)
        self._starting[worker.ready.remote()] = worker  # type: ignore[attr-defined] # Ray adds it

    @property
    def is_alive(self) -> bool:
        """Whether a worker is ready."""
        return bool(self._in_hand)

    @property
    def is_busy(self) -> bool:
        """Whether a region is in a worker's hand."""
        return bool(self._tasks)

    def has_room(self) -> bool:
        """Whether a worker can take another region."""
        return any(count < self.in_hand for count in self._in_hand.values())

    def give(self, task: Task) -> None:
        """Give a region to the worker that has least in hand."""
        worker = min(self._in_hand, key=self._in_hand.__getitem__)
        self._tasks[worker.__call__.remote(task.region, task.work)] = (worker, task)
        self._in_hand[worker] += 1

    def collect(self, wait_s: float) -> tuple[list[tuple[Task, Summary]], list[Task]]:
        """Wait for something to happen; returns the regions that are done, and those that were lost with a worker.

        Raises:
            HistoError: If no worker can start.
        """
        done: list[tuple[Task, Summary]] = []
        lost: list[Task] = []
        for ref in self._ended(wait_s):
            if ref in self._starting:
                self._get_ready(ref)
            elif ref in self._tasks:
                worker, task = self._tasks[ref]
                try:
                    summary = ray.get(ref)
                except ray.exceptions.RayTaskError:
                    raise
                except ray.exceptions.RayError:
                    lost += self._bury(worker)
                else:
                    del self._tasks[ref]
                    self._in_hand[worker] -= 1
                    done.append((task, summary))
        return done, lost

    def _ended(self, wait_s: float) -> list[Any]:
        refs = [*self._starting, *self._tasks]
        first, _ = ray.wait(refs, num_returns=1, timeout=wait_s)
        return ray.wait(refs, num_returns=len(refs), timeout=0)[0] if first else []

    def _get_ready(self, ref: Any) -> None:
        worker = self._starting.pop(ref)
        try:
            ray.get(ref)
        except ray.exceptions.RayError as error:
            failed = isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed
            self._false_starts += 1
            if failed or self._false_starts > _FALSE_STARTS * self.size:
                raise HistoError(f"no worker can start: {_reason(error)}") from error
            self._start()
        else:
            self._false_starts = 0
            self._in_hand[worker] = 0

    def _bury(self, worker: Any) -> list[Task]:
        """Replace a worker that is lost, or out of reach; returns what it had in hand."""
        ray.kill(worker)
        del self._in_hand[worker]
        lost = {ref: task for ref, (holder, task) in self._tasks.items() if holder == worker}
        for ref in lost:
            del self._tasks[ref]
        self._start()
        return list(lost.values())


def _reason(error: Exception) -> str:
    """Return what a worker raised when it was made: the last line of the traceback that Ray passes on as text."""
    last = str(error).strip().splitlines()[-1]
    return last.partition(": ")[2] if last.startswith("histo.errors.") else last
