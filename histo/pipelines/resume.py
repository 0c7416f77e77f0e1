"""What of a collection is done already, and what is to do."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from histo.errors import Cause, SlideError
from histo.pipelines import parts
from histo.pipelines.ledger import Ledger
from histo.pipelines.work import LabelJob, Row
from histo.slides.collection import FoundSlide, file_state

_LOOKS = 16
"""Slides that are looked up at once; on a network file system each look is a wait."""

_WORDS = {
    "done": "done before",
    "failed": "failed before, which --retry-failed tries again",
    "new": "to label",
    "failed_again": "to label again, since what failed may be mended",
    "file": "to label anew, since the file changed",
    "settings": "to label anew, since model or settings changed",
    "table": "to label again, since their tables are not there",
    "asked": "to label again, as asked",
    "verify": "to verify",
}
_AT_REST = ("done", "failed")


@dataclass(frozen=True)
class Todo:
    """What a run has to do.

    Attributes:
        slides: Rows of `tables.FOUND`.
        states: Number of slides by what they were found to be.
    """

    slides: tuple[Row, ...]
    states: Counter[str]

    def describe(self) -> str:
        """Say it in one line."""
        return ", ".join(f"{self.states[state]} {words}" for state, words in _WORDS.items() if self.states[state])


def find_work(job: LabelJob, slides: Sequence[FoundSlide], ledger: Ledger, retry_failed: bool) -> Todo:
    """Look at every slide's file, row and table, and have the ledger expect those that are to be done.

    A slide is done if its file is as its row says, and its table has the fingerprint that a run would give it now.
    """
    rows = [ledger.row(slide.slide_id) for slide in slides]
    with ThreadPoolExecutor(_LOOKS) as threads:
        states = list(threads.map(lambda slide, row: _state(job, slide, row, retry_failed), slides, rows))
    todo = []
    for slide, row, state in zip(slides, rows, states, strict=True):
        if state not in _AT_REST:
            ledger.expect(slide.slide_id)
            if state == "asked":
                parts.forget(job.out, slide.slide_id)
            todo.append(_found(slide, row, again=state == "asked"))
    return Todo(tuple(todo), Counter(states))


def _found(slide: FoundSlide, row: Row, again: bool) -> Row:
    files = [os.fsencode(file) for file in slide.files]
    known = {name: row.get(name) or "" for name in ("content_id", "sha256")}
    return {"slide_id": slide.slide_id, "files": files, "again": again} | known


def _state(job: LabelJob, slide: FoundSlide, row: Row, retry_failed: bool) -> str:
    failed = row["status"] == "failed"
    if row["status"] == "pending":
        state = "new"
    elif failed and is_transient(row["error_code"]):
        state = "failed_again"
    elif retry_failed and (failed or row["status"] == "partial"):
        state = "asked"
    elif not _is_unchanged(slide, row):
        state = "file"
    elif job.verify and not failed:
        state = "verify"
    elif row.get("fingerprint") != _expected_fingerprint(job, row):
        state = "settings"
    elif failed:
        state = "failed"
    else:
        state = "done" if parts.is_finished(job.out, slide.slide_id, row["fingerprint"], row["n_tiles"]) else "table"
    return state


def _is_unchanged(slide: FoundSlide, row: Row) -> bool:
    try:
        return file_state(slide.files) == (row.get("size_bytes"), row.get("mtime_ns"))
    except SlideError:
        return False


def _expected_fingerprint(job: LabelJob, row: Row) -> str | None:
    """Return what the fingerprint of an unchanged slide would be now; None if only opening it can tell."""
    if row["status"] == "failed":
        return job.failure_fingerprint(row.get("size_bytes"), row.get("mtime_ns"))
    if not job.tolerates(row["n_ok"], row["n_failed"]):
        return None
    mpp = _expected_mpp(job, row)
    return None if mpp is None else job.fingerprint(row["content_id"], *mpp)


def _expected_mpp(job: LabelJob, row: Row) -> tuple[float, float] | None:
    """Return what the resolution of a slide would be now (µm/px along x and y); None if only opening it can tell."""
    if job.mpp_override is not None:
        return job.mpp_override, job.mpp_override
    known = row["mpp_x"], row["mpp_y"]
    filled = row["mpp_source"] == "if_missing" and known == (job.mpp_if_missing, job.mpp_if_missing)
    return known if filled or row["mpp_source"] == "metadata" else None


def is_transient(error_code: str) -> bool:
    """Whether a failure, also one that an older or newer histo entered, is tried again without being asked to."""
    return error_code not in {cause.value for cause in Cause if not cause.transient}
