"""Do one study: read, prepare, and return its row of the ledger.

A study is read as a whole by one worker. Its result depends on what its files hold and are called, and on the settings:
the fingerprint.
"""

import hashlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from histo.errors import Cause, InputError, StudyError
from histo.input_files import all_blocks, digest, readable, readable_file
from histo.remote.location import AnyPath
from histo.run.failure import describe_failure
from histo.run.isolation import STUDY, Watchdog, guarded
from histo.run.ledger import fingerprint_of
from histo.tables import SCHEMA_VERSION, Row
from histo.volumes.finding.studies import FoundStudy
from histo.volumes.preparation import ALGORITHM, Prepared, prepare
from histo.volumes.spec import PreparationSpec


class StudyTask(NamedTuple):
    """What a worker is called with.

    Attributes:
        study: The study.
        row: What the ledger knows of it; nothing, where an earlier result does not count.
    """

    study: FoundStudy
    row: Row


class StudyAnswer(NamedTuple):
    """What a worker returns.

    Attributes:
        study_id: The study.
        columns: Its columns of the ledger.
    """

    study_id: str
    columns: Row

    @property
    def unit(self) -> str:
        """See `run.stream.worker.Answer`."""
        return self.study_id

    @property
    def error_code(self) -> str | None:
        """See `run.stream.worker.Answer`."""
        return self.columns.get("error_code")

    @property
    def error(self) -> str | None:
        """See `run.stream.units.UnitAnswer`."""
        return self.columns.get("error")


@dataclass(frozen=True)
class StudyJob(ABC):
    """What is the same for every study of a run.

    Attributes:
        out: Output folder.
        read_timeout_s: Seconds that reading and preparing a study may take before its worker is ended.
        preparation: How a study becomes a volume.
        preparation_is_fixed: Whether it is that of a bundle, which no flag changes.
    """

    preparation_is_fixed: ClassVar[bool] = False

    out: AnyPath
    read_timeout_s: float
    preparation: PreparationSpec

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what a result depends on, the study and its preparation apart."""

    @abstractmethod
    def has_result(self, row: Row) -> bool:
        """Whether the result of a row that says `ok` is in its place, with the fingerprint of the row."""

    def describe(self, study: FoundStudy) -> Row:
        """Return the columns that come from the collection."""
        return {"study_id": study.study_id, "uri": readable(study.uri)}

    def fingerprint(self, content_id: str, files: Sequence[Path]) -> str:
        """Return the sha256 of everything that a result depends on; not of workers or Ray."""
        return fingerprint_of(self._settings() | {"content_id": content_id, "names": _sha256_of_names(files)})

    def failure_fingerprint(self, files_id: str | None) -> str:
        """Return the sha256 of everything that a failure may depend on."""
        return fingerprint_of(self._settings() | {"files": files_id})

    def _settings(self) -> dict[str, Any]:
        return self.settings() | {
            "schema": SCHEMA_VERSION,
            "algorithm": ALGORITHM,
            "preparation": self.preparation.model_dump(mode="json"),
        }


def _names(files: Sequence[Path]) -> list[str]:
    """Name files by what differs between their paths, as series are named."""
    folder = os.path.commonpath([file.parent for file in files]) if files else ""
    return [os.path.relpath(file, folder) for file in files]


def _sha256_of_names(files: Sequence[Path]) -> str:
    return hashlib.sha256(json.dumps(_names(files)).encode()).hexdigest()


def file_columns(files: Sequence[Path]) -> Row:
    """Look at the files of a study; returns the columns of the ledger that tell whether they are what they were.

    Raises:
        InputError: If one is not there, or may not be looked at.
        StudyError: If one may keep its reader waiting for ever.
    """
    looks = []
    for name, file in zip(_names(files), files, strict=True):
        with readable_file(str(file)):
            stat = file.stat()
        if not (S_ISREG(stat.st_mode) or S_ISDIR(stat.st_mode)):  # nor is it read for its content
            raise StudyError(Cause.UNREADABLE, f"{file}: is a pipe, a socket or a device; give a file, or remove it")
        looks.append((name, stat.st_size, stat.st_mtime_ns))
    return {
        "n_files": len(looks),
        "size_bytes": sum(size for _, size, _ in looks),
        "mtime_ns": max((mtime_ns for _, _, mtime_ns in looks), default=None),
        "files_id": hashlib.sha256(json.dumps(looks).encode()).hexdigest(),
    }


JobT = TypeVar("JobT", bound=StudyJob)


class StudyWorker(ABC, Generic[JobT]):
    """Reads a study, prepares it, and answers with its columns of the ledger; a failure becomes some of them.

    It lives as long as a Ray actor. A plain loop or a test calls it just as well.

    Args:
        job: What is the same for every study.
        made_of: What else such a worker is made of, also in a process of its own.
    """

    def __init__(self, job: JobT, made_of: tuple[object, ...] = ()) -> None:
        self._job, self._made_of = job, made_of
        self._watchdog = Watchdog(job.read_timeout_s)

    def __call__(self, study: FoundStudy, row: Row) -> StudyAnswer:
        """Do one study."""
        start = time.perf_counter()
        try:
            here = partial(self.work, study, row)
            columns = guarded(self._job, study.study_id, STUDY, here, self.alone(), *self._made_of, study, row)
            columns |= {"status": "ok"}
        except FloatingPointError:  # the bundle's fault, not the study's: the run ends
            raise
        except Exception as error:  # noqa: BLE001 -- a study is a boundary: anything becomes its ledger row
            columns = self._failure(study, error)
        return StudyAnswer(study.study_id, columns | {"seconds": time.perf_counter() - start})

    def _failure(self, study: FoundStudy, error: Exception) -> Row:
        failure = describe_failure(error, study.study_id, batches=False)
        try:
            files = file_columns(study.files)
        except InputError as gone:
            files, failure = {}, describe_failure(gone, study.study_id)
        fingerprint = self._job.failure_fingerprint(files.get("files_id"))
        return files | failure | {"status": "failed", "fingerprint": fingerprint}

    def work(self, study: FoundStudy, row: Row) -> Row:
        """Do one study; returns its columns.

        Raises:
            InputError: If it cannot be used.
        """
        files = file_columns(study.files)
        content_id = digest(self._watchdog.each(all_blocks(map(str, study.files))))
        fingerprint = self._job.fingerprint(content_id, study.files)
        columns = files | {"content_id": content_id, "fingerprint": fingerprint}
        if (known := self.earlier_result(study, row, fingerprint)) is not None:
            return known | columns
        try:
            prepared = self._prepare(study)
        except Exception:  # a lost drive must not be taken for a damaged study
            digest(self._watchdog.each(all_blocks(map(str, study.files))))
            raise
        finally:
            _check_unchanged(study, files)
        return columns | prepared.columns | self.process(study, prepared, fingerprint)

    def _prepare(self, study: FoundStudy) -> Prepared:
        try:
            with self._watchdog.guard():
                return prepare(study.study_id, study.files, self._job.preparation)
        except StudyError as error:
            if self._job.preparation_is_fixed:
                raise StudyError(error.cause, error.of_bundle) from error
            raise

    @abstractmethod
    def alone(self) -> Callable[..., Row]:
        """Return what does the same as `work`, in a process of its own: a function of a module."""

    @abstractmethod
    def earlier_result(self, study: FoundStudy, row: Row, fingerprint: str) -> Row | None:
        """Return the columns of a result of this fingerprint that is there already."""

    @abstractmethod
    def process(self, study: FoundStudy, prepared: Prepared, fingerprint: str) -> Row:
        """Do with a prepared study what the run is for; returns the columns that say so."""


def _check_unchanged(study: FoundStudy, before: Row) -> None:
    if file_columns(study.files) != before:
        raise StudyError(
            Cause.CHANGED,
            f"{study.study_id}: its files changed while they were read; run it again when all are there",
        )
