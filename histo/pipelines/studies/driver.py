"""Drive a run over studies: studies to workers, rows to the ledger."""

from pathlib import Path

from histo import store
from histo.errors import UsageError
from histo.folders import UNREADABLE_FOLDER, beside
from histo.pipelines.studies.ledger import StudyLedger
from histo.pipelines.studies.worker import StudyAnswer, StudyJob, StudyTask
from histo.remote.location import AnyPath
from histo.run.placement import Placement
from histo.run.progress import CountProgress
from histo.run.record import RunRecord
from histo.run.run_folder import remove_traces
from histo.run.stream.drive import drive
from histo.run.stream.units import UnitWork
from histo.run.stream.worker import Crew
from histo.run.todo import Todo
from histo.volumes.finding.studies import Studies


def check_apart(out: AnyPath, studies: Path) -> None:
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
        HistoError: If the run cannot go on: the output cannot be written, or no worker can start.
    """
    work = _StudyWork(Crew(worker, arguments, arguments[0].out), todo, ledger, placement)
    try:
        drive(work, placement)
        work.end()
    finally:
        ledger.write(force=True)


class _StudyWork(UnitWork[StudyAnswer]):
    def __init__(self, crew: Crew, todo: Todo[StudyTask], ledger: StudyLedger, placement: Placement) -> None:
        progress = CountProgress("studies", sum(ledger.counts().values()), ledger.settled)
        super().__init__(crew, {task.study.study_id: task for task in todo.tasks}, placement, progress)
        self._ledger = ledger
        ledger.write(force=True)

    @property
    def done(self) -> int:
        """See `UnitWork.done`."""
        return self._ledger.settled

    def settle(self, answer: StudyAnswer) -> None:
        """See `UnitWork.settle`."""
        self._ledger.begin(answer.study_id)
        self._ledger.settle(answer.study_id, answer.columns)

    def between(self) -> None:
        """See `Work.between`."""
        self._ledger.write()
        super().between()


def finish(run: RunRecord, found: Studies, ledger: StudyLedger, out: AnyPath) -> int:
    """Bring the ledger and the record of a run to their end; returns the exit code."""
    counts = ledger.counts()
    assert not counts.get("pending"), "every study was settled"
    ledger.write(force=True)
    remove_traces(out)
    store.remove_empty_folders(out / "staging")
    bad = counts.get("failed") or UNREADABLE_FOLDER in found.others
    return run.finish(3 if bad else 0, studies=counts)


def describe_found(found: Studies) -> str:
    """Say in a few words what a collection holds."""
    return f"{len(found.studies)} studies{beside(found.linked, found.others)}"
