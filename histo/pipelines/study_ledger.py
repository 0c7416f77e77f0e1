"""The ledger of studies, and what of a collection is done already, and what is to do."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from histo.errors import InputError
from histo.pipelines.resume import is_transient
from histo.pipelines.rows import Rows, RowsFile
from histo.pipelines.study_work import StudyJob, StudyTask, file_columns
from histo.pipelines.work import Row
from histo.volumes.studies import FoundStudy

FILE = "studies.parquet"
_ORDER = ("ok", "failed", "pending")
_NEEDED = {"ok": ("content_id", "fingerprint"), "absent": (), "failed": ("error_code",), "pending": ()}
_LOOKS = 16
"""Studies that are looked up at once; on a network file system each look is a wait."""
_PLACES = ("volume_path", "sheet_path")
"""Where results stand; they stay there as long as the study may be as it was when the cause of a failure is gone."""
_AT_REST = ("done", "failed")


def study_rows_file(out: Path) -> RowsFile:
    """Where the rows of studies stand."""
    return RowsFile(out / FILE, "study_id", "the studies are read again", _NEEDED)


class StudyLedger(Rows):
    """Keeps one row per study, and `studies.parquet` up to date.

    Studies that have a result, and are not in the collection now, keep their rows: `absent`.

    Args:
        job: The run.
        layout: Columns of the ledger.
        studies: What was found.
        fresh: Whether nothing of an earlier run counts.

    Raises:
        UsageError: If an earlier ledger cannot be read.
    """

    def __init__(self, job: StudyJob, layout: pa.Schema, studies: Sequence[FoundStudy], fresh: bool = False) -> None:
        super().__init__(study_rows_file(job.out), layout, _ORDER)
        earlier = {} if fresh else study_rows_file(job.out).earlier(layout)
        self._described = {study.study_id: job.describe(study) for study in studies}
        for study_id, described in self._described.items():
            row = earlier.pop(study_id, {"status": "pending", "attempts": 0})
            back = {"status": "ok"} if row["status"] == "absent" else {}
            self.put(self.known(row) | described | back)
        self.absent = {
            study_id: self.known(row) | {"status": "absent"}
            for study_id, row in earlier.items()
            if row["status"] in ("ok", "absent") or row.get("volume_path")
        }
        for row in self.absent.values():
            self.put_uncounted(row)

    def begin(self, study_id: str) -> None:
        """Count an attempt."""
        row = self.row(study_id)
        self.put_uncounted(row | {"attempts": (row.get("attempts") or 0) + 1})

    def settle(self, study_id: str, columns: Row) -> None:
        """Enter what became of a study."""
        earlier = self.row(study_id)
        may_come_back = columns["status"] == "failed" and is_transient(columns["error_code"])
        kept = {name: earlier[name] for name in _PLACES if may_come_back and earlier.get(name)}
        self.put_settled(self._described[study_id] | {"attempts": earlier["attempts"]} | kept | columns)

    def drop(self, study_id: str) -> None:
        """Forget a study that is absent."""
        del self.absent[study_id]
        self.remove_uncounted(study_id)

    def present(self) -> list[Row]:
        """Return the rows of the studies of the collection, in its order."""
        return [self.row(study_id) for study_id in self._described]


@dataclass(frozen=True)
class StudyTodo:
    """What a run has to do.

    Attributes:
        tasks: The studies that are to be done.
        states: Number of studies by what they were found to be.
    """

    tasks: tuple[StudyTask, ...]
    states: Counter[str]

    def describe(self, verb: str) -> str:
        """Say it in one line; `verb` is what is done to a study."""
        words = {
            "done": "done before",
            "failed": "failed before, which --retry-failed tries again",
            "new": f"to {verb}",
            "failed_again": f"to {verb} again, since what failed may be mended",
            "files": f"to {verb} anew, since their files changed",
            "settings": f"to {verb} anew, since settings changed",
            "result": f"to {verb} again, since their results are not there",
            "asked": f"to {verb} again, as asked",
        }
        return ", ".join(f"{self.states[state]} {text}" for state, text in words.items() if self.states[state])


def find_study_work(job: StudyJob, studies: Sequence[FoundStudy], ledger: StudyLedger, retry_failed: bool) -> StudyTodo:
    """Look at every study's files, row and result, and have the ledger expect those that are to be done.

    A study is done if its files are as its row says, and its result has the fingerprint that a run would give it now.
    """
    rows = [ledger.row(study.study_id) for study in studies]
    with ThreadPoolExecutor(_LOOKS) as threads:
        states = list(threads.map(lambda study, row: _state(job, study, row, retry_failed), studies, rows))
    tasks = []
    for study, row, state in zip(studies, rows, states, strict=True):
        if state not in _AT_REST:
            ledger.expect(study.study_id)
            tasks.append(StudyTask(study, {} if state == "asked" else row))
    return StudyTodo(tuple(tasks), Counter(states))


def _state(job: StudyJob, study: FoundStudy, row: Row, retry_failed: bool) -> str:
    failed = row["status"] == "failed"
    if row["status"] == "pending":
        state = "new"
    elif failed and is_transient(row["error_code"]):
        state = "failed_again"
    elif failed and retry_failed:
        state = "asked"
    elif _files_id(study) != row.get("files_id"):
        state = "files"
    elif row.get("fingerprint") != _expected_fingerprint(job, study, row):
        state = "settings"
    elif failed:
        state = "failed"
    else:
        state = "done" if job.has_result(row) else "result"
    return state


def _files_id(study: FoundStudy) -> str | None:
    try:
        return str(file_columns(study.files)["files_id"])
    except InputError:
        return None


def _expected_fingerprint(job: StudyJob, study: FoundStudy, row: Row) -> str:
    """Return what the fingerprint of an unchanged study would be now."""
    if row["status"] == "failed":
        return job.failure_fingerprint(row.get("files_id"))
    return job.fingerprint(row.get("content_id") or "", study.files)
