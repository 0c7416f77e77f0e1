"""What tests have isolated processes do; a module, so that such a process can import it."""

import os
import signal
import time
from pathlib import Path

from histo.pipelines.labelling.tasks import LabelJob
from histo.run.isolation import Watchdog


def wait(path: str) -> None:
    """Leave the process's number, and wait for the end."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def pid(job: LabelJob) -> int:
    """Return the process's number."""
    return os.getpid()


def end(job: LabelJob, how: str, log: str) -> None:
    """Die in one of the ways that workers die, and leave a line."""
    with Path(log).open("a") as file:
        file.write(f"{os.getppid()}\n")
    print("what a decoder prints")
    if how == "hang":
        with Watchdog(job.read_timeout_s).guard():
            time.sleep(60)
    turns = how.split()
    os.kill(os.getpid(), signal.Signals[turns[(len(Path(log).read_text().splitlines()) - 1) % len(turns)]])


def fail(job: LabelJob, error: Exception) -> None:
    """Raise an error."""
    raise error


def fall_short(job: LabelJob, log: str, times: int) -> int:
    """Be short of memory as many times, and then return the process's number."""
    with Path(log).open("a") as file:
        file.write(f"{os.getpid()}\n")
    if len(Path(log).read_text().splitlines()) <= times:
        raise MemoryError
    return os.getpid()
