"""A label run in a plain loop: its workers are called one after the other, without Ray."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from helpers.plain_loop import rows_of
from histo.learn.bundle import bundle_hash, read_bundle
from histo.pipelines.labelling import tile_tables
from histo.pipelines.labelling.lookup import find_slide_todo
from histo.pipelines.labelling.plan_worker import Planned, plan_found
from histo.pipelines.labelling.region_worker import RegionLabeler
from histo.pipelines.labelling.slide_ledger import SlideLedger
from histo.pipelines.labelling.tasks import LabelJob, RegionTask, SlideTask, Summary
from histo.run.failure import is_transient
from histo.slides.finding.collection import Collection, FoundSlide
from histo.slides.finding.find import find_slides
from histo.slides.spec import TilingSpec, TissueSpec
from histo.tables import Row


def make_job(bundle: Path, out: Path, **changes: Any) -> LabelJob:
    """What `histo label` makes of its defaults, for tiles of the bundle's size at 0.5 µm/px."""
    description = read_bundle(bundle)
    job = LabelJob(
        out=out,
        model=bundle,
        model_hash=bundle_hash(bundle),
        weights_sha256=description.weights_sha256,
        classes=description.classes,
        size_px=description.input.size_px,
        stride_px=description.input.size_px,
        mpp=0.5,
        tiling=TilingSpec().model_dump(mode="json"),
        tissue=TissueSpec().settings(),
        mpp_if_missing=None,
        max_failed_fraction=0.1,
        read_timeout_s=60,
        verify=False,
        reader="auto",
        precision="float32",
        agreement=None,
        batch_size=16,
        versions={},
    )
    return replace(job, **changes)


def found(path: Path) -> FoundSlide:
    """A slide of one file, alone in its folder."""
    return FoundSlide(path.name, str(path), (str(path),))


def plan(job: LabelJob, slide: FoundSlide, again: bool = False) -> Planned:
    """Plan a slide."""
    return plan_found(job, SlideTask(slide.slide_id, slide.files, again))


def tasks(job: LabelJob, slide: FoundSlide) -> list[RegionTask]:
    """Plan a slide, even if it is finished, and return its regions."""
    planned = plan(job, slide, again=True)
    assert planned.work is not None
    return [RegionTask(region, planned.work) for region in planned.regions]


def label(
    job: LabelJob, slide: FoundSlide, worker: Callable[..., Summary] | None = None, between: Callable[[], Any] = bool
) -> Row:
    """Label a slide as the driver does, and return its row of the ledger; `between` is called after planning."""
    _label_all(job, Collection((slide,), {}), worker or RegionLabeler(job), between)
    return next(row for row in rows_of(job.out / "slides.parquet") if row["slide_id"] == slide.slide_id)


def label_collection(job: LabelJob, where: str | Path) -> dict[str, Row]:
    """Label all slides of a collection, and return their rows of the ledger."""
    _label_all(job, find_slides(where), RegionLabeler(job), bool)
    return {row["slide_id"]: row for row in rows_of(job.out / "slides.parquet")}


def label_folder(job: LabelJob, folder: Path) -> Path:
    """Label all slides below a folder, and return the folder of their tables."""
    _label_all(job, find_slides(folder), RegionLabeler(job), bool)
    return cast(Path, job.out)


def _label_all(
    job: LabelJob, collection: Collection, worker: Callable[..., Summary], between: Callable[[], Any]
) -> None:
    ledger = SlideLedger(job, collection)
    for task in find_slide_todo(job, collection, ledger, retry_failed=False).tasks:
        planned = plan_found(job, task)
        between()
        ledger.begin(task.slide_id, planned.columns, len(planned.regions))
        _label_regions(job, task.slide_id, planned, ledger, worker)
        if (settled := ledger.row(task.slide_id))["status"] == "failed":
            tile_tables.discard_slide(job, task.slide_id, for_good=not is_transient(settled["error_code"]))
    ledger.write(force=True)


def _label_regions(
    job: LabelJob, slide_id: str, planned: Planned, ledger: SlideLedger, worker: Callable[..., Summary]
) -> None:
    for region in planned.regions:
        summary = worker(region, planned.work)
        if summary.failure is not None:
            ledger.fail(slide_id, summary.failure)
            return
        ledger.add(slide_id, summary)
    if len(planned.regions) > 1 and ledger.has_result(slide_id):
        columns = planned.columns
        tile_tables.merge_slide(job, slide_id, columns["fingerprint"], ledger.regions(slide_id), columns["n_tiles"])
    ledger.settle(slide_id)
