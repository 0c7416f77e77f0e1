"""Compare studies with their rows of the ledger, and with their results."""

from collections.abc import Sequence

from histo.errors import InputError
from histo.pipelines.studies.ledger import StudyLedger
from histo.pipelines.studies.worker import StudyJob, StudyTask, file_columns
from histo.run.todo import Lookup, Todo, find_todo
from histo.tables import Row
from histo.volumes.finding.studies import FoundStudy


class StudyLookup(Lookup[FoundStudy]):
    """See `Lookup`."""

    def __init__(self, job: StudyJob) -> None:
        self._job = job

    def name(self, item: FoundStudy) -> str:
        """See `Lookup.name`."""
        return item.study_id

    def is_unchanged(self, item: FoundStudy, row: Row) -> bool:
        """See `Lookup.is_unchanged`."""
        try:
            files_id = file_columns(item.files)["files_id"]
        except InputError:
            files_id = None
        return bool(files_id == row.get("files_id"))

    def expected_fingerprint(self, item: FoundStudy, row: Row) -> str | None:
        """See `Lookup.expected_fingerprint`."""
        if row["status"] == "failed":
            return self._job.failure_fingerprint(row.get("files_id"))
        return self._job.fingerprint(row.get("content_id") or "", item.files)

    def has_result(self, item: FoundStudy, row: Row) -> bool:  # noqa: ARG002 -- the row says where it is
        """See `Lookup.has_result`."""
        return self._job.has_result(row)


def find_study_todo(
    job: StudyJob, studies: Sequence[FoundStudy], ledger: StudyLedger, retry_failed: bool
) -> Todo[StudyTask]:
    """Find the studies that are to be done."""
    return find_todo(studies, StudyLookup(job), ledger, _task, retry_failed)


def _task(study: FoundStudy, row: Row, again: bool) -> StudyTask:
    return StudyTask(study, {} if again else row)
