"""Pool of workers: ready ones, their tasks, and the tasks of lost ones.

Ray Data has pools of actors, too; `docs/decisions/0002-slides-by-ray-data-regions-by-a-pool.md` says with figures why
this one is our own.
"""

import time
from typing import Any, Generic, Self, TypeVar

import ray
import ray.exceptions

from histo.errors import HistoError
from histo.run.placement import Placement

PLAN_CPUS = 0.1
"""CPUs of a planning task. Workers leave as much free, or a full pool would keep planning waiting for ever."""

_MORE_IN_HAND = 1
"""Tasks that a worker has beside those that it does, to go on with."""
_FALSE_STARTS = 5
"""Workers for each place that may be lost, one after the other, while none gets ready."""

DESERTED = "no worker is ready; waiting for a place in the cluster"
_ALONE_S = 60.0
"""Time without any worker after which a run says that it waits."""

TaskT = TypeVar("TaskT", bound=tuple[Any, ...])
"""What a worker is called with: a tuple of its arguments."""
AnswerT = TypeVar("AnswerT")


def worker_resources(placement: Placement) -> dict[str, Any]:
    """What Ray reserves for one worker: its GPU, if it has one, and its CPUs less what planning needs."""
    return {"num_gpus": placement.gpus, "num_cpus": placement.cpus - PLAN_CPUS}


class Pool(Generic[TaskT, AnswerT]):
    """As many workers as the placement says, each replaced when it is lost.

    A worker is given tasks only when it is ready, so that none waits for a place in a cluster that has shrunk.

    Args:
        worker: A class. It is made of the arguments, has `ready`, and is called with the parts of a task.
        arguments: What is the same for every task.
        placement: How many workers there are, and on what.
        at_once: Tasks that a worker does at a time, in threads.

    Attributes:
        size: Number of workers.
        in_hand: Tasks that a worker may have at a time.
    """

    def __init__(self, worker: type, arguments: tuple[object, ...], placement: Placement, at_once: int = 1) -> None:
        self.size = placement.workers
        self.in_hand = at_once + _MORE_IN_HAND
        self._arguments, self._at_once = arguments, at_once
        self._worker: Any = ray.remote(max_restarts=0, max_task_retries=0, **worker_resources(placement))(worker)
        self._starting: dict[ray.ObjectRef[None], Any] = {}
        self._in_hand: dict[Any, int] = {}
        self._tasks: dict[ray.ObjectRef[AnswerT], tuple[Any, TaskT]] = {}
        self._false_starts = 0
        self._alive_at = time.monotonic()

    def __enter__(self) -> Self:
        for _ in range(self.size):
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self._starting.values(), *self._in_hand]:
            ray.kill(worker)

    def _start(self) -> None:
        worker = self._worker.options(max_concurrency=self._at_once).remote(*self._arguments)
        self._starting[worker.ready.remote()] = worker

    def is_deserted(self) -> bool:
        """Whether no worker has been ready for a minute; it is said once a minute."""
        now = time.monotonic()
        if not self._in_hand and now - self._alive_at < _ALONE_S:
            return False
        self._alive_at = now
        return not self._in_hand

    @property
    def is_busy(self) -> bool:
        """Whether a task is in a worker's hand."""
        return bool(self._tasks)

    def has_room(self) -> bool:
        """Whether a worker can take another task."""
        return any(count < self.in_hand for count in self._in_hand.values())

    def submit(self, task: TaskT) -> None:
        """Give a task to the worker that has least in hand."""
        worker = min(self._in_hand, key=self._in_hand.__getitem__)
        self._tasks[worker.__call__.remote(*task)] = (worker, task)
        self._in_hand[worker] += 1

    def collect(self, wait_s: float) -> tuple[list[tuple[TaskT, AnswerT]], list[TaskT]]:
        """Wait for something to happen; returns what is done, and the tasks that were lost with a worker.

        Raises:
            HistoError: If no worker can start.
        """
        done: list[tuple[TaskT, AnswerT]] = []
        lost: list[TaskT] = []
        for ref in self._ended(wait_s):
            if ref in self._starting:
                self._get_ready(ref)
            elif ref in self._tasks:
                worker, task = self._tasks[ref]
                try:
                    answer = ray.get(ref)
                except ray.exceptions.RayTaskError:
                    raise
                except ray.exceptions.RayError:
                    lost += self._replace_worker(worker)
                else:
                    del self._tasks[ref]
                    self._in_hand[worker] -= 1
                    done.append((task, answer))
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

    def _replace_worker(self, worker: Any) -> list[TaskT]:
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
