"""Retry work that kills its process in a disposable one, and prove its cause.

A mark on disk counts the workers that began a piece of work and never came back from it. Work that was lost twice is
done in a process of its own, which a worker starts, watches and buries. Only what dies there three times is blamed on
the slide or the study; being killed from outside, together with the worker or with the whole node, proves nothing.
"""

import faulthandler
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from histo import store
from histo.errors import Cause, InputError
from histo.input_files import safe_path
from histo.remote.location import AnyPath

LOST_BEFORE_ISOLATION = 2
DEATHS = 3
STUDY = "study"
"""Name of the piece of work that a whole study is."""
_LOST_AT_MOST = 12
"""A piece of work may be lost that often, alone or not, before a run leaves it to the next run."""

_TIMED_OUT = "Timeout ("
"""What faulthandler writes when the time is up, before it ends the process."""

_ONE_AT_A_TIME = threading.Lock()
"""Held by the thread of a worker that has an isolated process: each has a network of its own on the worker's GPU."""

T = TypeVar("T")


class Job(Protocol):
    """What has to be known of a run."""

    @property
    def out(self) -> AnyPath:
        """Output folder."""

    @property
    def read_timeout_s(self) -> float:
        """Seconds without a read after which a worker is ended."""


def guarded(job: Job, unit: str, name: str, here: Callable[[], T], alone: Callable[..., T], *arguments: Any) -> T:
    """Do a piece of work here, or in a process of its own if memory is short, or it was lost with its worker before.

    Args:
        job: The run.
        unit: `slide_id` or `study_id` of what it reads.
        name: Of the piece, unique within that.
        here: Does it in this process.
        alone: Does the same in another one: a function of a module, called with the job and the arguments.
        arguments: What is picklable.

    Raises:
        InputError: If the work ends a process that does nothing else, or is short of memory there, every time.
    """
    with _attempt(job, unit, name) as lost:
        if lost < LOST_BEFORE_ISOLATION:
            with suppress(MemoryError):  # what was short may have been taken by others: alone, it is tried again
                return here()
        elif lost >= _LOST_AT_MOST:
            raise InputError(
                Cause.WORKER_LOST,
                f"{unit}: {lost} workers were lost while they read it ({name}); give workers more memory, or use "
                "fewer of them, and run it again",
            )
        return _alone(job, unit, name, alone, *arguments)


@contextmanager
def _attempt(job: Job, unit: str, name: str) -> Iterator[int]:
    """Mark that a piece of work has begun; yields how many workers were lost with it so far."""
    mark = job.out / "staging" / "attempts" / safe_path(unit) / name
    lost = len(store.content_of(mark) or b"")
    store.append(mark, b".")
    try:
        yield lost
    finally:  # not reached by a process that dies
        store.remove(mark)


def _alone(job: Job, unit: str, name: str, work: Callable[..., T], *arguments: Any) -> T:
    causes = []
    for _ in range(DEATHS):
        with _ONE_AT_A_TIME:
            code, answer, log = _disposable_process((work, job, *arguments))
        if code == 0:
            try:
                result: T = _unpack(answer)
            except MemoryError:
                causes.append(Cause.TOO_LARGE)
                continue
            return result
        if code > 0 and _TIMED_OUT not in log:
            raise RuntimeError(f"an isolated process failed: {log[-2000:]}")
        causes.append(_cause(code))
    mendable = [cause for cause in causes if cause.transient]
    cause = mendable[0] if mendable else causes[-1]
    raise _blame(cause, f"{unit} ({name})", code, job.read_timeout_s, batches=name != STUDY)


def _cause(code: int) -> Cause:
    if code > 0:
        return Cause.TIMEOUT
    return Cause.OUT_OF_MEMORY if code == -signal.SIGKILL else Cause.CRASH


def _unpack(answer: bytes) -> Any:
    """Return what the work returned, or raise what it raised."""
    result = pickle.loads(answer)  # noqa: S301 -- from our own child
    if isinstance(result, Exception):
        raise result
    return result


def _disposable_process(task: tuple[Any, ...]) -> tuple[int, bytes, str]:
    """Run a task in a process that dies with this one; returns its exit code, its answer, and its log."""
    command = [sys.executable, "-P", "-m", "histo.run.isolation"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(  # noqa: S603 -- this module itself
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
        ) as process:
            assert process.stdin is not None, "it is a pipe"
            assert process.stdout is not None, "it is a pipe"
            try:
                process.stdin.write(pickle.dumps(task))
                process.stdin.flush()
                answer = process.stdout.read()  # ends when the process does; its input stays open for as long
            except BrokenPipeError:  # it died before it read its task
                answer = b""
            code = process.wait()
        log.seek(0)
        return code, answer, log.read().decode(errors="replace")


def _blame(cause: Cause, where: str, code: int, timeout_s: float, batches: bool) -> InputError:
    if cause is Cause.TIMEOUT:
        message = (
            f"nothing could be read for {timeout_s:g} s, nor in {DEATHS} attempts alone; look after the storage, or "
            "raise --read-timeout-s, and run it again"
        )
    elif cause is Cause.OUT_OF_MEMORY:
        message = (
            f"the process that reads it was killed, also in {DEATHS} attempts alone, most likely for want of memory; "
            f"{less_memory(batches)}, and run it again"
        )
    elif cause is Cause.TOO_LARGE:
        message = (
            f"needs more memory than there is, also in {DEATHS} attempts alone; leave it out, or run it again where "
            "there is more, with --retry-failed"
        )
    else:
        message = (
            f"reading it ends the process ({signal.Signals(-code).name}), also in {DEATHS} attempts alone; the file "
            "crashes its decoder: convert or export it again, or remove it"
        )
    return InputError(cause, f"{where}: {message}")


def less_memory(batches: bool) -> str:
    """Say what takes less memory."""
    return f"use fewer --workers{' or a smaller --batch-size' if batches else ''}"


class Watchdog:
    """Ends this process if one read takes too long: a thread that hangs in a decoder can be ended in no other way.

    Several threads may be watched at once.

    Args:
        seconds: That a read may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._since: list[float] = []

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Watch what happens in the block."""
        begun = time.monotonic()
        with self._lock:
            self._since.append(begun)
            self._time_the_oldest()
        try:
            yield
        finally:
            with self._lock:
                self._since.remove(begun)
                self._time_the_oldest()

    def _time_the_oldest(self) -> None:
        if self._since:
            left = max(0.001, min(self._since) + self._seconds - time.monotonic())
            faulthandler.dump_traceback_later(left, exit=True, file=2)  # standard error, whatever stands for it
        else:
            faulthandler.cancel_dump_traceback_later()

    def each(self, items: Iterator[T]) -> Iterator[T]:
        """Yield the items, and watch the making of each."""
        while True:
            with self.guard():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


def _main() -> None:
    """Do the task that comes in, and answer; what the task prints goes to the log."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _die_first()
    work, *arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 -- from our own parent
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = pickle.dumps(work(*arguments))
    except Exception as error:  # noqa: BLE001 -- the parent raises it, whatever it is
        error.add_note(traceback.format_exc())
        result = pickle.dumps(error)
    answer.write(result)
    answer.flush()
    os._exit(0)


def _die_first() -> None:
    """Ask the system, where it can be asked, to kill this process rather than its worker if memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    _main()
