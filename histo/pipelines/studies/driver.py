"""Drive a run over studies: studies to workers, rows to the ledger."""

from collections import deque
from contextlib import suppress
from pathlib import Path

from histo.errors import Cause, HistoError, UsageError
from histo.folders import UNREADABLE_FOLDER, beside
from histo.pipelines.studies.ledger import StudyLedger
from histo.pipelines.studies.worker import StudyJob, StudyTask
from histo.run.interruption import interruptible
from histo.run.placement import Placement
from histo.run.pool import DESERTED, Pool
from histo.run.progress import StudyProgress
from histo.run.record import RunRecord
from histo.run.run_folder import remove_traces
from histo.run.todo import Todo
from histo.tables import Row
from histo.volumes.finding.studies import Studies

_WAIT_S = 0.2


def check_apart(out: Path, studies: Path) -> None:
    """Make sure that results do not come to lie among the studies.

    Raises:
        UsageError: If they would.
    """
    if out == studies or studies in out.parents:
        raise UsageError(f"--out {out}: lies in --studies {studies}, where studies are looked for; give another folder")


def settle_studies(
    worker: type,
    arguments: tuple[StudyJob, *tuple[object, ...]],
    todo: Todo[StudyTask],
    ledger: StudyLedger,
    placement: Placement,
) -> None:
    """Have workers do studies, and enter each of them into the ledger.

    Args:
        worker: A class of workers, a `StudyWorker`.
        arguments: What it is made of, the job first.
        todo: The studies.
        ledger: Where they are entered.
        placement: How many workers there are, and on what.

    Raises:
        HistoError: If the run cannot go on: the output cannot be written, or no worker lives.
    """
    with Pool[StudyTask, Row](worker, arguments, placement) as pool:
        try:
            with interruptible(arguments[0].out):
                _to_its_end(pool, todo, ledger)
        finally:
            ledger.write(force=True)


def _to_its_end(pool: Pool[StudyTask, Row], todo: Todo[StudyTask], ledger: StudyLedger) -> None:
    waiting, begun = deque(todo.tasks), set[str]()
    progress = StudyProgress(sum(ledger.counts().values()), ledger.settled)
    ledger.write(force=True)
    while waiting or pool.is_busy:
        while waiting and pool.has_room():
            task = waiting.popleft()
            if task.study.study_id not in begun:
                ledger.begin(task.study.study_id)
                begun.add(task.study.study_id)
            pool.submit(task)
        done, lost = pool.collect(_WAIT_S)
        waiting.extendleft(lost)
        for task, columns in done:
            if columns.get("error_code") == Cause.STORAGE:
                raise HistoError(f"--out: {columns['error']}; what is finished stays")
            ledger.settle(task.study.study_id, columns)
        ledger.write()
        progress.show(ledger.settled)
        if pool.is_deserted():
            progress.say(DESERTED)
    progress.end(ledger.settled)


def finish(run: RunRecord, found: Studies, ledger: StudyLedger, out: Path) -> int:
    """Bring the ledger and the record of a run to their end; returns the exit code."""
    counts = ledger.counts()
    assert not counts.get("pending"), "every study was settled"
    ledger.write(force=True)
    remove_traces(out)
    with suppress(OSError):
        (out / "staging").rmdir()
    bad = counts.get("failed") or UNREADABLE_FOLDER in found.others
    return run.finish(3 if bad else 0, studies=counts)


def describe_found(found: Studies) -> str:
    """Say in a few words what a collection holds."""
    return f"{len(found.studies)} studies{beside(found.linked, found.others)}"
