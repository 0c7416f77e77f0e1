"""Files made of tables of slides: find, remove and count them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from histo import store
from histo.errors import UsageError
from histo.pipelines.labelling.slide_ledger import ledger_file
from histo.remote.location import AnyPath
from histo.run.placement import one_each
from histo.run.say import say
from histo.tables import Row

_CLASS = "fraction_"
_LABELLED = ("ok", "partial", "empty")

AnswerT = TypeVar("AnswerT")


def read_ledger(out: AnyPath) -> pa.Table:
    """Read the ledger of a label run.

    Raises:
        UsageError: If no label run of slides is there, or its ledger cannot be read.
    """
    table = ledger_file(out).read()
    if table is None:
        raise UsageError(f"--out {out}: no label run of slides is there; give the folder of `histo label`")
    return table


def classes_of(table: pa.Table) -> list[str]:
    """Return the classes of a ledger, in order."""
    return [name.removeprefix(_CLASS) for name in table.column_names if name.startswith(_CLASS)]


def labelled_rows(table: pa.Table) -> list[Row]:
    """Return the rows of slides that are there and have a table."""
    return [row for row in table.to_pylist() if row["status"] in _LABELLED]


def rows_id(row: Row) -> str:
    """Return what tells the rows of a slide's table from other ones: its fingerprint, and the tiles that failed.

    Tiles that could not be read may be mended by another run of the same settings.
    """
    return f"{row['fingerprint']}/{row['n_failed']}" if row["n_failed"] else str(row["fingerprint"])


def say_found(table: pa.Table, rows: Sequence[Row], tasks: int, done: int, verb: str) -> None:
    """Say how many slides there are, and how many of them are to be done."""
    others = table.num_rows - len(rows)
    without = f"; {others} without a table (slides.parquet says why)" if others else ""
    before = f", {done} done before" if done else ""
    say(f"labelled slides: {len(rows)}; {tasks} to {verb}{before}{without}")


def remove_others(
    out: AnyPath,
    folders: Iterable[str],
    kept: set[AnyPath],
    suffixes: Sequence[str],
    key_of: Callable[[AnyPath], str | None],
) -> None:
    """Remove files of slides that have no table any more.

    Args:
        out: Folder of the label run.
        folders: Those below it that hold such files.
        kept: Files that stay.
        suffixes: Endings of such files.
        key_of: Returns what a file says that it was made of, and nothing if it is none of histo's, which stays.
    """
    for folder in folders:
        for path in list(store.list_files(out / folder, "*.*")):
            if path not in kept and path.suffix in suffixes and key_of(path) is not None:
                store.remove(path)


def settle(worker: type, job: Any, tasks: Mapping[str, object], workers: int | None, *inputs: AnyPath) -> list[AnswerT]:
    """Have workers do a task for each slide, on all CPUs; returns what became of each.

    Args:
        worker: A class of workers, made of the job.
        job: The run; its `out` is the folder of the label run.
        tasks: What is to be done, by `slide_id`.
        workers: Slides at a time; None for one on each CPU.
        inputs: What every node must see beside that folder.

    Raises:
        HistoError: If the run cannot go on.
    """
    if not tasks:
        return []
    from histo.run.cluster import placed  # noqa: PLC0415 -- Ray takes long to load

    with placed(True, workers, partial(one_each, workers, "cpu"), job.out, *inputs) as placement:
        from histo.run.stream.units import gather  # noqa: PLC0415 -- likewise
        from histo.run.stream.worker import Crew  # noqa: PLC0415 -- likewise

        assert placement is not None, "it is needed"
        by_name = {slide_id: (task,) for slide_id, task in tasks.items()}
        return gather(Crew(worker, (job,), job.out), by_name, placement, "slides")


def end(out: AnyPath, total: int, failed: Sequence[str], done: str, where: str) -> int:
    """Say what became of the slides; returns 0, or 3 if some failed.

    Args:
        out: Folder of the label run.
        total: Number of slides that have a table.
        failed: A line for each that failed.
        done: Past participle of what was done, as in `12 drawn`.
        where: Names the files.
    """
    store.remove_empty_folders(out / "staging")  # parts of slides may wait there
    for reason in failed:
        say(f"failed: {reason}")
    code = 3 if failed else 0
    said = f"{total - len(failed)} {done}" + (f", {len(failed)} failed (exit code {code})" if failed else "")
    say(f"{said}; {where}")
    return code
