"""Worker of a graph: start guarded, do tasks, hand some back for others.

Ray Data ends a graph whose actor raises while it starts, and restarts one that dies for ever, with the tasks that it
has. So a worker waits where it cannot start: it gets no tasks meanwhile. One that had tasks before it died hands them
back when it cannot start again.
"""

import errno
import hashlib
import pickle
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import ray

from histo import store
from histo.errors import Cause, HistoError
from histo.remote.location import AnyPath
from histo.tables import Row

WORKERS, FAILED = "staging/workers", "staging/failed"
"""Where attempts at starting are counted, and failures are left for the other tasks of the same slide."""
_OPEN, _READY = "open", "ready"
"""Marks: of the driver, that workers may start, and of a stage that has a worker."""
_STARTS = 3
"""Attempts at starting after which a worker is taken for one that cannot start."""
_LONGEST_WAIT_S = 60.0
_HAND_BACK_S = 5.0
"""A worker that cannot do its tasks takes so long for each, so that others do most of them."""

ARRAY = "array"
"""Column of what is handed over."""
_NOTHING: npt.NDArray[np.uint8] = np.zeros(1, np.uint8)


def file_name(unit: str) -> str:
    """Return a file's name for what belongs to a slide or study."""
    return hashlib.sha256(unit.encode(errors="surrogateescape")).hexdigest()


def stage_of(where: str) -> str:
    """Return the stage of a worker, as rows name workers."""
    return where.partition("/")[0]


class Answer(Protocol):
    """What a worker makes of a task."""

    @property
    def unit(self) -> str:
        """`slide_id` or `study_id`."""

    @property
    def error_code(self) -> str | None:
        """Cause of its failure, if it failed."""


@dataclass(frozen=True)
class Crew:
    """What the workers of a graph are made of.

    Attributes:
        worker: A class; called with the parts of a task it returns an `Answer`, or what it hands over.
        arguments: What it is made of.
        out: Output folder of the run, where attempts at starting are counted.
        left_out: Workers, by stage, node and GPU, that do nothing: they failed at all that they tried.
        hands_over: Whether a further stage goes on with their tasks, each with an array; see `Handed`.
    """

    worker: type
    arguments: tuple[object, ...]
    out: AnyPath
    left_out: tuple[str, ...] = ()
    hands_over: bool = False


@dataclass(frozen=True)
class Handed:
    """What a worker makes of a task for the workers of the next stage.

    Attributes:
        task: The parts of theirs; they are called with the array before these.
        array: It crosses Ray's object store as it is.
    """

    task: tuple[object, ...]
    array: npt.NDArray[np.uint8]


class Starts:
    """Attempts at starting of the workers of a stage, counted on disk, where a process that dies leaves its mark, too.

    Args:
        out: Output folder of the run.
        stage: Name of the stage.
    """

    def __init__(self, out: AnyPath, stage: str) -> None:
        self._all, self._folder = out / WORKERS, out / WORKERS / stage

    def count(self, worker: str) -> int:
        """Return how many attempts there were that came to nothing."""
        return len(self._reasons(worker))

    def begin(self, worker: str) -> None:
        """Count an attempt; where the driver's mark is gone, a worker that starts late ends, and leaves nothing."""
        if not store.is_there(self._all / _OPEN):
            raise FileNotFoundError(errno.ENOENT, "the run that this worker belongs to has ended", str(self._all))
        store.append(self._folder / worker, b"the process died while it started\n")

    def fail(self, worker: str, reason: str) -> None:
        """Enter the reason of the latest attempt."""
        lines = [*self._reasons(worker)[:-1], reason]
        with store.put_atomic(self._folder / worker) as file:
            file.write("".join(f"{line}\n" for line in lines).encode())

    def succeed(self, worker: str) -> None:
        """Enter that a worker is ready."""
        store.append(self._folder / _READY, b"")
        store.remove(self._folder / worker)

    def hopeless(self) -> tuple[str, int] | None:
        """Return a reason, and how many have tried, if all of these failed several times."""
        workers = [path.name for path in store.list_files(self._folder)]
        reasons = [] if _READY in workers else [self._reasons(worker) for worker in workers]
        if not reasons or any(len(lines) < _STARTS for lines in reasons):
            return None
        return reasons[-1][-1], len(reasons)

    def _reasons(self, worker: str) -> list[str]:
        """Return a line for each attempt of a worker; none if it has just become ready."""
        return (store.content_of(self._folder / worker) or b"").decode().splitlines()


def admit_workers(out: AnyPath) -> None:
    """Let workers start from now on, until `WORKERS` is removed."""
    store.append(out / WORKERS / _OPEN, b"")


def stages_begun(out: AnyPath) -> set[str]:
    """Return the stages of which a worker has tried to start."""
    return {path.parent.name for path in store.list_files(out / WORKERS) if path.name != _OPEN}


class Worker:
    """The actor that Ray Data makes; see the module."""

    def __init__(self, crew: Crew) -> None:
        context = ray.get_runtime_context()
        self._crew, self._me = crew, context.get_actor_id() or "here"
        self._starts = Starts(crew.out, crew.worker.__name__)
        place = ":".join([context.get_node_id(), *map(str, ray.get_gpu_ids())])
        self._where = f"{crew.worker.__name__}/{place}"
        self._failed_in_a_row = 0
        while self._where in crew.left_out:
            time.sleep(_LONGEST_WAIT_S)
        self._worker = self._started(may_give_up=is_started_again())

    def __call__(self, row: Row) -> Row:
        """Do the task of a row; one that has its answer already, or was handed back or over, is passed on."""
        array = row.pop(ARRAY, None)
        made = row if row["answer"] or not row["task"] else self._done(row, array)
        return {ARRAY: _NOTHING} | made if self._crew.hands_over else made

    def _done(self, row: Row, array: npt.NDArray[np.uint8] | None) -> Row:
        here = row | {"where": f"{row['where']} {self._where}".strip()}
        if self._worker is None:
            time.sleep(_HAND_BACK_S)
            return here | {"task": b""}
        failed = self._crew.out / FAILED / file_name(row["unit"])
        try:
            if (known := store.content_of(failed)) is not None:
                return row | {"task": b"", "answer": known, "where": ""}
            task = pickle.loads(row["task"])  # noqa: S301 -- from our own driver
            made = self._worker(*task) if array is None else self._worker(array, *task)
            if isinstance(made, Handed):
                return here | {"task": pickle.dumps(made.task), ARRAY: made.array}
            return here | {"task": b"", "answer": self._packed(made, failed)}
        except Exception as error:  # noqa: BLE001 -- the run's end, of which Ray would pass on a traceback as text
            return here | {"task": b"", "fatal": _reason(error)}

    def _packed(self, answer: Answer, failed: AnyPath) -> bytes:
        """Pack an answer; a failure is left for the other tasks of its slide, which then need not be done."""
        packed = pickle.dumps(answer)
        if answer.error_code is not None:
            with suppress(OSError), store.put_atomic(failed) as file:
                file.write(packed)
        self._slow_down(answer)
        return packed

    def _slow_down(self, answer: Answer) -> None:
        """Leave the tasks to others as long as nothing but what was not foreseen comes of them here."""
        self._failed_in_a_row = self._failed_in_a_row + 1 if answer.error_code == Cause.INTERNAL else 0
        if self._failed_in_a_row:
            time.sleep(min(2.0**self._failed_in_a_row, _HAND_BACK_S * 6))

    def _started(self, may_give_up: bool) -> Any:
        """Make the worker, which may take several attempts; returns nothing if it is given up."""
        while True:
            before = self._starts.count(self._me)
            if may_give_up and before >= _STARTS:
                return None
            time.sleep(min(2.0**before - 1, _LONGEST_WAIT_S))
            self._starts.begin(self._me)
            try:
                worker = self._crew.worker(*self._crew.arguments)
            except Exception as error:  # noqa: BLE001 -- whatever it is, it may be gone, or others may do without it
                self._starts.fail(self._me, _reason(error))
            else:
                self._starts.succeed(self._me)
                return worker


def is_started_again() -> bool:
    """Whether this actor died before, and may have tasks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's property uses one that Ray deprecates
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, HistoError) else f"{type(error).__name__}: {text}"
