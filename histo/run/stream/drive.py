"""Drive a graph: feed it, take its answers, and try lost tasks again."""

import logging
import pickle
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any, Generic, Self, TypeVar

import pyarrow as pa
import ray
import ray.data
import ray.exceptions
from ray.data.exceptions import ExecutionTimeoutError

from histo import store
from histo.errors import Cause, HistoError
from histo.remote.location import AnyPath
from histo.run.interruption import interruptible
from histo.run.placement import Placement
from histo.run.stream.graph import SPLIT, worker_resources
from histo.run.stream.one_node import without_helpers
from histo.run.stream.worker import FAILED, WORKERS, Answer, Starts, admit_workers, stage_of, stages_begun
from histo.tables import Row

_WAIT_S = 0.2
_LOOK_S = 1.0
"""Between looks at the workers."""
_STOP_S = 10.0
_AHEAD = 100
"""Answers that wait for the driver."""
_ATTEMPTS = 4
_HANDED_BACK_AT_MOST = 20
"""Tasks handed back one after the other, after which a graph is made anew."""
_ALONE_S = 60.0
_LATE_S = 120.0
"""Time for workers that have not yet tried to start, when all that have cannot: their nodes may be busy."""
DESERTED = "no worker is ready; waiting for a place in the cluster"
_OF_WORKERS, _OF_NODES = (Cause.INTERNAL,), (Cause.NO_ACCESS,)
"""Causes that may be a worker's, or its node's: what failed so is tried once more, without those that only fail."""

AnswerT = TypeVar("AnswerT", bound=Answer)


class Work(ABC, Generic[AnswerT]):
    """A run as its driver sees it: what is to be done, and what becomes of answers."""

    @property
    @abstractmethod
    def out(self) -> AnyPath:
        """Output folder."""

    @abstractmethod
    def is_open(self, unit: str) -> bool:
        """Whether something is still to be done for a slide or a study."""

    @abstractmethod
    def graph(self, left_out: tuple[str, ...]) -> ray.data.Dataset | None:
        """Make the graph of all that is open; nothing if nothing is.

        Args:
            left_out: Workers that do nothing, see `Crew`.
        """

    @abstractmethod
    def enter(self, answer: AnswerT) -> None:
        """Enter an answer."""

    @abstractmethod
    def between(self) -> None:
        """Do what is to be done now and then, with or without an answer."""

    @abstractmethod
    def say(self, text: str) -> None:
        """Print a line."""


class _StopError(Exception):
    """A graph is not needed any more."""


class _Stopper:
    """Callback of Ray Data's that ends the graph of this process, since it offers no other way from outside."""

    requested = threading.Event()

    def on_execution_step(self, executor: object) -> None:  # noqa: ARG002 -- the signature is Ray's
        """End the graph if that was asked for."""
        if self.requested.is_set():
            raise _StopError

    def before_execution_starts(self, executor: object) -> None:
        """Do nothing."""

    def after_execution_succeeds(self, executor: object) -> None:
        """Do nothing."""

    def after_execution_fails(self, executor: object, error: Exception) -> None:
        """Do nothing."""


class Answers:
    """Rows that come out of a graph, taken by a thread, so that the driver can do other things while none comes."""

    def __init__(self, graph: ray.data.Dataset) -> None:
        self.has_more = True
        graph.context.custom_execution_callback_classes = [_Stopper]  # type: ignore[list-item] # it has the methods
        _Stopper.requested.clear()
        self._graph = graph
        self._queue: queue.Queue[Row | Exception | None] = queue.Queue(_AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._take, name="answers", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        _Stopper.requested.set()
        self._thread.join(_STOP_S)

    def next(self, wait_s: float) -> Row | None:
        """Return the next row; None if there is none yet, or none any more.

        Raises:
            RayError: If the graph cannot go on.
        """
        try:
            row = self._queue.get(timeout=wait_s)
        except queue.Empty:
            return None
        if isinstance(row, Exception):
            raise row
        self.has_more = row is not None
        return row

    def _take(self) -> None:
        try:
            with closing(_rows(self._graph)) as rows:
                for row in rows:
                    self._put(row)
                    if self._closed.is_set():
                        return
            self._put(None)
        except Exception as error:  # noqa: BLE001 -- it is raised where it can be caught, in the driver's own thread
            self._put(error)

    def _put(self, row: Row | Exception | None) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(row, timeout=0.1)
            except queue.Full:
                continue
            return


def _rows(graph: ray.data.Dataset) -> Generator[Row, None, None]:
    for block in graph.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
        assert isinstance(block, pa.Table), "as asked for"
        yield from block.to_pylist()


def drive(work: Work[Any], *placements: Placement) -> None:
    """Have a run's work done.

    Args:
        work: The run.
        placements: Of the workers of each stage of its graphs.

    Raises:
        HistoError: If the run cannot go on: the output cannot be written, or no worker can start.
    """
    attempts: list[_Attempt] = []
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    with interruptible(work.out), without_helpers():
        while True:
            _clear(work.out)
            graph = work.graph(attempts[-1].useless() if attempts else ())
            if graph is None:
                return
            if len(attempts) == _ATTEMPTS:
                trouble = attempts[-1].trouble
                raise HistoError(f"{work.out}: parts of the run were lost again and again; run it again") from trouble
            attempts.append(_Attempt(work, placements, is_first=not attempts))
            attempts[-1].to_its_end(graph)


def _clear(out: AnyPath) -> None:
    """Remove what the workers of a graph leave for each other."""
    for folder in (WORKERS, FAILED, SPLIT):
        store.remove(out / folder)


class _Attempt:
    """One graph, from its first answer to its last.

    Attributes:
        trouble: Why it ended before its last answer, if it did.
    """

    def __init__(self, work: Work[Any], placements: Sequence[Placement], is_first: bool) -> None:
        self._work, self._placements = work, placements
        self._elsewhere = (*_OF_WORKERS, *(_OF_NODES if len(_nodes()) > 1 else ())) if is_first else ()
        admit_workers(work.out)
        self._handed_back: set[str] = set()
        self._failed, self._done = Counter[str](), Counter[str]()
        self._in_a_row = 0
        self._heard, self._looked = time.monotonic(), 0.0
        self._most = max(placement.workers for placement in placements)
        self._hopeless_since: dict[str, float] = {}
        self.trouble: Exception | None = None

    def to_its_end(self, graph: ray.data.Dataset) -> None:
        """Take all answers.

        Raises:
            HistoError: If no worker can start.
            RayTaskError: What a worker raised.
        """
        try:
            with Answers(graph) as answers:
                self._take(answers)
        except ray.exceptions.RayTaskError:
            raise
        except (ray.exceptions.RayError, ExecutionTimeoutError) as error:
            if isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed:
                raise HistoError(f"no worker can start: {_last_line(error)}") from error
            self.trouble = error

    def _take(self, answers: Answers) -> None:
        while answers.has_more and self._in_a_row < _HANDED_BACK_AT_MOST:
            row = answers.next(_WAIT_S)
            if row is not None:
                self._heard = time.monotonic()
                self._enter(row)
            else:
                self._look_after_workers()
            self._work.between()

    def useless(self) -> tuple[str, ...]:
        """Return the workers that failed at all that they tried, if others of their stage did not."""
        well = {stage_of(where) for where in self._done}
        return tuple(where for where in self._failed if not self._done[where] and stage_of(where) in well)

    def _enter(self, row: Row) -> None:
        unit, stages = row["unit"], row["where"].split()
        if row["fatal"]:
            raise HistoError(f"{self._work.out}: the run was broken off: {row['fatal']}")
        answer: Answer | None = pickle.loads(row["answer"]) if row["answer"] else None  # noqa: S301 -- from our own worker
        is_lost = answer is None or answer.error_code in self._elsewhere
        if is_lost:
            self._failed.update(stages[-1:])
        else:
            self._done.update(stages)
        self._in_a_row = self._in_a_row + 1 if answer is None else 0
        if is_lost:
            self._handed_back.add(unit)
        elif unit not in self._handed_back and self._work.is_open(unit):
            self._work.enter(answer)

    def _look_after_workers(self) -> None:
        for stage in self._stages_begun():
            found = Starts(self._work.out, stage).hopeless()
            since = self._hopeless_since.setdefault(stage, time.monotonic())
            if found is None:
                del self._hopeless_since[stage]
            elif found[1] >= self._most or time.monotonic() - since >= _LATE_S:
                raise HistoError(f"no worker can start: {found[0]}")
        if time.monotonic() - self._heard >= _ALONE_S and not all(map(_has_place, self._placements)):
            self._heard = time.monotonic()
            self._work.say(DESERTED)

    def _stages_begun(self) -> set[str]:
        """Look at the marks of workers, which takes a request where they are in object storage."""
        if time.monotonic() - self._looked < _LOOK_S:
            return set()
        self._looked = time.monotonic()
        return stages_begun(self._work.out)


def _last_line(error: Exception) -> str:
    """Return what the traceback ends with that Ray passes on as text."""
    return str(error).strip().splitlines()[-1].strip()


def _has_place(placement: Placement) -> bool:
    """Whether any node that is there could hold a worker."""
    needs = worker_resources(placement)
    return any(
        node.get("CPU", 0) >= needs["num_cpus"] and node.get("GPU", 0) >= needs.get("num_gpus", 0) for node in _nodes()
    )


def _nodes() -> list[Row]:
    """Return the resources of the nodes that are there."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call] # Ray's own
