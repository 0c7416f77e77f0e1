"""The driver of a run over studies: they go to workers, and what comes back to the ledger."""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from histo.errors import Cause, HistoError, UsageError
from histo.folders import UNREADABLE_FOLDER, beside
from histo.pipelines.cluster import check_shared, session
from histo.pipelines.continued import (
    break_offs,
    remove_traces,
    show_failures,
    storage_errors,
    traces_removed,
)
from histo.pipelines.lock import sole_run
from histo.pipelines.placement import Device, Placement, place
from histo.pipelines.pool import DESERTED, Pool
from histo.pipelines.progress import StudyProgress
from histo.pipelines.record import RunRecord, check_job, claim_output
from histo.pipelines.say import say
from histo.pipelines.study_ledger import FILE, StudyLedger, StudyTodo
from histo.pipelines.study_work import JobT, StudyTask, StudyWorker
from histo.pipelines.work import Row
from histo.volumes.studies import Studies

_WAIT_S = 0.2


def check_apart(out: Path, studies: Path) -> None:
    """Make sure that results do not come to lie among the studies.

    Raises:
        UsageError: If they would.
    """
    if out == studies or studies in out.parents:
        raise UsageError(f"--out {out}: lies in --studies {studies}, where studies are looked for; give another folder")


@contextmanager
def claimed(out: Path, command: str, *folders: str) -> Iterator[None]:
    """Hold an output folder for a run that the same command can continue.

    Args:
        out: The folder.
        command: The job.
        folders: In the output, to which workers write.

    Raises:
        HistoError: If it cannot be written, holds something else, or another run holds it.
    """
    claim_output(out)
    with sole_run(out), storage_errors(out), traces_removed(out, *folders):
        check_job(out, command)
        yield


@contextmanager
def placed(todo: StudyTodo, workers: int | None, device: Device, *shared: Path) -> Iterator[Placement | None]:
    """Join or start Ray, unless nothing is to do; yields where the workers are.

    Args:
        todo: What is to do.
        workers: Asked for.
        device: Where they compute.
        shared: The output folder, and the inputs, which every node must see.

    Raises:
        UsageError: If they cannot be placed.
    """
    with ExitStack() as stack:
        placement = None
        if todo.tasks:
            resources = stack.enter_context(session(workers))
            placement = place(workers, device, resources, cpu_workers=max(1, int(resources.cpus)))
            check_shared(*shared)
        yield placement


def settle_studies(
    worker: type[StudyWorker[JobT]],
    job: JobT,
    todo: StudyTodo,
    ledger: StudyLedger,
    placement: Placement,
    at_once: int = 1,
) -> None:
    """Have workers do studies, and enter each of them into the ledger.

    Args:
        worker: What does a study.
        job: What it is made of.
        todo: The studies.
        ledger: Where they are entered.
        placement: How many workers there are, and on what.
        at_once: Studies that a worker does at a time.

    Raises:
        HistoError: If the run cannot go on: the output cannot be written, or no worker lives.
    """
    with Pool[StudyTask, Row](worker, job, placement, at_once) as pool:
        try:
            with break_offs(job.out):
                _to_its_end(pool, todo, ledger)
        finally:
            ledger.write(force=True)


def _to_its_end(pool: Pool[StudyTask, Row], todo: StudyTodo, ledger: StudyLedger) -> None:
    waiting, begun = deque(todo.tasks), set[str]()
    progress = StudyProgress(sum(ledger.counts().values()), ledger.settled)
    ledger.write(force=True)
    while waiting or pool.is_busy:
        while waiting and pool.has_room():
            task = waiting.popleft()
            if task.study.study_id not in begun:
                ledger.begin(task.study.study_id)
                begun.add(task.study.study_id)
            pool.give(task)
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


def report(ledger: StudyLedger, out: Path, what: str) -> None:
    """Print why studies failed, and how many are in which state."""
    show_failures(ledger.failures(), out / FILE)
    say(f"{', '.join(f'{n} {state}' for state, n in ledger.counts().items())}; {what}: {out}")
