"""A label run in a plain loop: its workers are called one after the other, without Ray."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from helpers.plain_loop import rows_of
from histo.learn.bundle import bundle_hash, read_bundle
from histo.pipelines.labelling import tile_tables
from histo.pipelines.labelling.lookup import find_slide_todo
from histo.pipelines.labelling.plan_worker import plan_row
from histo.pipelines.labelling.region_worker import RegionLabeler
from histo.pipelines.labelling.slide_ledger import SlideLedger
from histo.pipelines.labelling.tasks import LabelJob, RegionTask, SlideWork, Summary
from histo.run.failure import is_transient
from histo.slides.collection import Collection, FoundSlide, find_slides
from histo.slides.grid import cut_regions
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


def plan(job: LabelJob, slide: FoundSlide, again: bool = False) -> Row:
    """Plan a slide; a row of `tables.PLANS`."""
    files = [os.fsencode(file) for file in slide.files]
    return plan_row({"slide_id": slide.slide_id, "files": files, "again": again, "content_id": "", "sha256": ""}, job)


def tasks(job: LabelJob, slide: FoundSlide) -> list[RegionTask]:
    """Plan a slide, even if it is finished, and return its regions."""
    row = plan(job, slide, again=True)
    work = SlideWork.from_json(row["work"])
    kept = np.asarray(row["tile_index"], np.int64), np.asarray(row["tissue_fraction"], np.float32)
    return [RegionTask(region, work) for region in cut_regions(work.grid, *kept)]


def label(
    job: LabelJob, slide: FoundSlide, worker: Callable[..., Summary] | None = None, between: Callable[[], Any] = bool
) -> Row:
    """Label a slide as the driver does, and return its row of the ledger; `between` is called after planning."""
    _label_all(job, Collection((slide,), {}), worker or RegionLabeler(job), between)
    return next(row for row in rows_of(job.out / "slides.parquet") if row["slide_id"] == slide.slide_id)


def label_folder(job: LabelJob, folder: Path) -> Path:
    """Label all slides below a folder, and return the folder of their tables."""
    _label_all(job, find_slides(folder), RegionLabeler(job), bool)
    return job.out


def _label_all(
    job: LabelJob, collection: Collection, worker: Callable[..., Summary], between: Callable[[], Any]
) -> None:
    ledger = SlideLedger(job, collection)
    for todo in find_slide_todo(job, collection, ledger, retry_failed=False).tasks:
        row = plan_row(todo, job)
        between()
        _enter(job, row, ledger, worker)
        if (settled := ledger.row(row["slide_id"]))["status"] == "failed":
            tile_tables.discard_slide(job, row["slide_id"], for_good=not is_transient(settled["error_code"]))
    ledger.write(force=True)


def _enter(job: LabelJob, row: Row, ledger: SlideLedger, worker: Callable[..., Summary]) -> None:
    if not row["work"]:
        ledger.begin(row["slide_id"], json.loads(row["columns"]), n_regions=0)
        ledger.settle(row["slide_id"])
    else:
        _label_regions(job, row, ledger, worker)


def _label_regions(job: LabelJob, row: Row, ledger: SlideLedger, worker: Callable[..., Summary]) -> None:
    work = SlideWork.from_json(row["work"])
    kept = np.asarray(row["tile_index"], np.int64), np.asarray(row["tissue_fraction"], np.float32)
    ledger.begin(work.slide_id, json.loads(row["columns"]), work.n_regions)
    for region in cut_regions(work.grid, *kept):
        summary = worker(region, work)
        if summary.failure is not None:
            ledger.fail(work.slide_id, summary.failure)
            return
        ledger.add(work.slide_id, region.name, summary)
    if work.n_regions > 1 and ledger.has_result(work.slide_id):
        names = ledger.regions(work.slide_id)
        tile_tables.merge_slide(job, work.slide_id, work.fingerprint, names, work.columns["n_tiles"])
    ledger.settle(work.slide_id)
