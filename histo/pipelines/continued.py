"""What every run does around its work that the same command can continue: how it is stopped, and how it breaks off."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ray.exceptions

from histo import store
from histo.errors import HistoError
from histo.pipelines.cluster import root_cause
from histo.pipelines.say import say
from histo.pipelines.work import Row

_FAILURES_SHOWN = 50


@contextmanager
def break_offs(out: Path, how: str = "the same command goes on from here") -> Iterator[None]:
    """Say that a run breaks off, because Ray cannot go on or because it is stopped.

    Args:
        out: Its output folder.
        how: How it is continued.

    Raises:
        HistoError: If Ray cannot go on.
    """
    try:
        yield
    except ray.exceptions.RayError as error:
        raise HistoError(f"{out}: the run was broken off: {root_cause(error)}") from error
    except KeyboardInterrupt:
        say(f"stopping; {how}")
        raise


@contextmanager
def storage_errors(out: Path, how: str = "the same command goes on") -> Iterator[None]:
    """Say what to do when the output cannot be written; every file there is whole, since files appear whole.

    Args:
        out: Output folder.
        how: How the run is continued.

    Raises:
        HistoError: If it cannot.
    """
    try:
        yield
    except OSError as error:
        raise HistoError(
            f"--out {out}: {error.strerror or error}; mend the storage or make room on it; {how}"
        ) from error


@contextmanager
def traces_removed(out: Path, *folders: str) -> Iterator[None]:
    """Remove what stopped workers leave when Ray has ended: workers that the run itself stops are not lost."""
    try:
        yield
    finally:
        with suppress(OSError):  # if the output is what failed
            remove_traces(out, *folders)


def remove_traces(out: Path, *folders: str) -> None:
    """Remove what processes leave where they are killed: the marks of their attempts, and drafts of files.

    Args:
        out: Output folder.
        folders: Those in it that workers write to, `staging` apart.
    """
    store.remove(out / "staging" / "attempts")
    for folder in (*folders, "staging"):
        for draft in list((out / folder).rglob(f".*{store.TEMPORARY_SUFFIX}")):
            store.remove(draft)


def show_failures(rows: Iterable[Row], ledger: Path) -> None:
    """Print what is wrong with what failed, given as rows of a ledger; with the first fifty of them."""
    for number, row in enumerate(rows):
        if number == _FAILURES_SHOWN:
            say(f"failed: more; see the column `error` of {ledger}")
            break
        say(f"failed: {row['error']}")
