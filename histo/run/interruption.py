"""Stop cleanly on Ctrl-C, SIGTERM and Ray's failures; say the way to resume."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ray.exceptions

from histo.errors import HistoError
from histo.remote.location import AnyPath
from histo.run.cluster import root_cause
from histo.run.say import put, say


@contextmanager
def interruptible(out: AnyPath, resume: str = "the same command goes on from here") -> Iterator[None]:
    """Say that a run is interrupted, because Ray cannot go on or because it is stopped.

    Args:
        out: Its output folder.
        resume: How it is resumed.

    Raises:
        HistoError: If Ray cannot go on.
    """
    try:
        yield
    except ray.exceptions.RayError as error:
        raise HistoError(f"{out}: the run was broken off: {root_cause(error)}") from error
    except KeyboardInterrupt:
        if sys.stdout and sys.stdout.isatty():
            put("\n")  # the terminal has shown ^C behind the progress
        say(f"stopping; {resume}")
        raise
