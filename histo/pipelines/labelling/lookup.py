"""Compare slides with their rows of the ledger, and with their tables."""

from functools import partial

from histo.errors import InputError
from histo.pipelines.labelling import tile_tables
from histo.pipelines.labelling.slide_ledger import SlideLedger
from histo.pipelines.labelling.tasks import LabelJob, SlideTask, mask_id
from histo.run.todo import Lookup, Todo, find_todo
from histo.slides.finding.collection import Collection, FoundSlide
from histo.tables import Row


class SlideLookup(Lookup[FoundSlide]):
    """See `Lookup`."""

    def __init__(self, job: LabelJob) -> None:
        self._job = job

    def name(self, item: FoundSlide) -> str:
        """See `Lookup.name`."""
        return item.slide_id

    def is_unchanged(self, item: FoundSlide, row: Row) -> bool:
        """See `Lookup.is_unchanged`."""
        try:
            return item.state() == (row.get("size_bytes"), row.get("mtime_ns"))
        except InputError:
            return False

    def expected_fingerprint(self, item: FoundSlide, row: Row) -> str | None:
        """See `Lookup.expected_fingerprint`."""
        job = self._job
        if row["status"] == "failed":
            return job.failure_fingerprint(row.get("size_bytes"), row.get("mtime_ns"), self._mask_id(item), item.mpp)
        if not job.tolerates(row["n_ok"], row["n_failed"]):
            return None
        mpp = self._expected_mpp(item, row)
        return None if mpp is None else job.fingerprint(row["content_id"], *mpp, self._mask_id(item))

    def _mask_id(self, item: FoundSlide) -> str | None:
        return mask_id(item.mask) if self._job.masked else None

    def _expected_mpp(self, item: FoundSlide, row: Row) -> tuple[float, float] | None:
        """Return what the resolution would be now (µm/px along x and y); None if only opening the slide can tell."""
        job = self._job
        if job.mpp_override is not None:
            return job.mpp_override, job.mpp_override
        if item.mpp is not None:
            return item.mpp, item.mpp
        known = row["mpp_x"], row["mpp_y"]
        filled = row["mpp_source"] == "if_missing" and known == (job.mpp_if_missing, job.mpp_if_missing)
        return known if filled or row["mpp_source"] == "metadata" else None

    def has_result(self, item: FoundSlide, row: Row) -> bool:
        """See `Lookup.has_result`."""
        return tile_tables.is_finished(self._job.out, item.slide_id, row["fingerprint"], row["n_tiles"])

    def is_complete(self, item: FoundSlide, row: Row) -> bool:  # noqa: ARG002 -- the name is enough
        """See `Lookup.is_complete`."""
        return not self._job.quality or tile_tables.is_complete(self._job, item.slide_id)


def find_slide_todo(job: LabelJob, collection: Collection, ledger: SlideLedger, retry_failed: bool) -> Todo[SlideTask]:
    """Find the slides that are to be labelled."""
    return find_todo(collection.slides, SlideLookup(job), ledger, partial(_task, job), retry_failed, job.verify)


def _task(job: LabelJob, slide: FoundSlide, row: Row, again: bool) -> SlideTask:
    if again:
        tile_tables.forget(job.out, slide.slide_id)
    known = row.get("content_id") or "", row.get("sha256") or ""
    return SlideTask(slide.slide_id, slide.files, again, *known, slide.mask if job.masked else None, slide.mpp)
