"""Ledger of studies: a row for every study found, and its outcome."""

from collections.abc import Sequence

import pyarrow as pa

from histo.pipelines.studies.worker import StudyJob
from histo.remote.location import AnyPath
from histo.run.failure import is_transient
from histo.run.ledger import Ledger, LedgerFile
from histo.tables import Row
from histo.volumes.finding.studies import FoundStudy

FILE = "studies.parquet"
_ORDER = ("ok", "failed", "pending")
_NEEDED = {"ok": ("content_id", "fingerprint"), "absent": (), "failed": ("error_code",), "pending": ()}
_PLACES = ("volume_path", "sheet_path")
"""Where results stand; they stay there as long as the study may be as it was when the cause of a failure is gone."""


def ledger_file(out: AnyPath) -> LedgerFile:
    """Where the rows of studies stand."""
    return LedgerFile(out / FILE, "study_id", "the studies are read again", _NEEDED)


class StudyLedger(Ledger):
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
        super().__init__(ledger_file(job.out), layout, _ORDER)
        earlier = {} if fresh else ledger_file(job.out).earlier(layout)
        self._described = {study.study_id: job.describe(study) for study in studies}
        for study_id, described in self._described.items():
            row = earlier.pop(study_id, {"status": "pending", "attempts": 0})
            back = {"status": "ok"} if row["status"] == "absent" else {}
            self.put(self.declared(row) | described | back)
        self.absent = {
            study_id: self.declared(row) | {"status": "absent"}
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
