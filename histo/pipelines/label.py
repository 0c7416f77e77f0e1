"""Label a folder of slides.

collection -> slide -> tissue mask -> grid -> regions -> tiles -> probabilities -> parts -> one file per slide
"""

import os
from functools import partial
from typing import Any

import pyarrow.parquet as pq
import ray
import ray.data
import ray.exceptions
from pydantic import Field

from histo import store
from histo.errors import HistoError, UsageError
from histo.learn.bundle import Bundle, bundle_hash, find_bundle, read_bundle
from histo.pipelines import parts
from histo.pipelines.cluster import Device, Placement, check_shared, describe, place, root_cause, session
from histo.pipelines.ledger import Ledger
from histo.pipelines.progress import Progress
from histo.pipelines.record import RunRecord, claim_output, versions
from histo.pipelines.region import RegionLabeler, plan_regions
from histo.pipelines.work import LabelJob, Row, describe_failure
from histo.slides.collection import UNREADABLE_FOLDER, Collection, find_slides
from histo.slides.plan import TilingSpec, TissueSpec
from histo.spec import AbsolutePath, Spec

_PLAN_CPUS = 0.1
"""CPUs of a planning task. Workers leave as much free, or a full pool would keep planning waiting for ever."""


class LabelSpec(Spec):
    """Write the class probabilities of every tile of every slide in a folder to Parquet tables."""

    slides: AbsolutePath
    """Folder of slides, searched in depth; or one slide."""
    model: AbsolutePath
    """Model bundle (a folder), or a training run, of which the best bundle is taken."""
    out: AbsolutePath
    """Folder of the results."""
    workers: int | None = Field(None, ge=1)
    """Workers that read and classify; default: one for each GPU, or for each CPU without GPUs."""
    device: Device = "auto"
    """Where to compute; auto takes GPUs where there are some."""
    mpp_if_missing: float | None = Field(None, ge=0.05, le=20)
    """Resolution of level 0 (µm/px) for slides that name none."""
    max_failed_fraction: float = Field(0.1, ge=0, le=1)
    """Share of unreadable tiles (0 to 1) above which a slide is failed, not partial."""
    batch_size: int = Field(16, ge=1)
    """Tiles per forward pass."""
    tiling: TilingSpec = TilingSpec()
    tissue: TissueSpec = TissueSpec()


def label(spec: LabelSpec) -> int:
    """Run a label job; returns 0, or 3 if some slides are failed or partial.

    Raises:
        HistoError: If the settings are bad.
    """
    spec = spec.model_copy(update={"model": find_bundle(spec.model)})
    bundle = read_bundle(spec.model)
    mpp = _requested_mpp(spec, bundle)
    collection = find_slides(spec.slides)
    claim_output(spec.out)
    _check_classes(spec, bundle)
    print(_found(collection), flush=True)
    with session(spec.workers) as resources:
        placement = place(spec.workers, spec.device, resources, cpu_workers=max(1, int(resources.cpus)))
        check_shared(spec.out, spec.slides, spec.model)
        facts = describe(placement) | {"other_files": collection.others}
        with RunRecord(spec.out, "label", spec, **facts) as record:
            store.remove(spec.out / "staging")
            ledger = Ledger(spec.out, collection, bundle.classes)
            _consume(_job(spec, bundle, mpp, placement), collection, ledger, placement)
            store.remove(spec.out / "staging")
            counts = ledger.counts()
            code = record.finish(_exit_code(counts, collection), slides=counts)
    for error in ledger.failures():
        print(f"failed: {error}")
    print(f"{', '.join(f'{n} {state}' for state, n in counts.items())}; tables: {spec.out}", flush=True)
    return code


def _exit_code(counts: dict[str, int], collection: Collection) -> int:
    assert not counts.get("pending"), "every slide was settled"
    return 3 if counts.get("failed") or counts.get("partial") or UNREADABLE_FOLDER in collection.others else 0


def _requested_mpp(spec: LabelSpec, bundle: Bundle) -> float:
    mpp = spec.tiling.mpp or bundle.input.mpp
    if mpp is None:
        raise UsageError(
            f"--model {spec.model}: the bundle does not say at which resolution it was trained; train it with --mpp, "
            "or give --tiling.mpp (µm/px)"
        )
    return mpp


def _check_classes(spec: LabelSpec, bundle: Bundle) -> None:
    """Refuse a folder that holds results of other classes."""
    earlier = spec.out / "slides.parquet"
    if earlier.exists():
        before = [name for name in pq.read_schema(earlier).names if name.startswith("fraction_")]
        if before != [f"fraction_{name}" for name in bundle.classes]:
            raise UsageError(f"--out {spec.out}: holds results of a bundle with other classes; give another folder")


def _found(collection: Collection) -> str:
    others = ", ".join(f"{count} {extension}" for extension, count in collection.others.items())
    return f"{len(collection.slides)} slides{f' (and other files: {others})' if others else ''}"


def _job(spec: LabelSpec, bundle: Bundle, mpp: float, placement: Placement) -> LabelJob:
    return LabelJob(
        out=spec.out,
        model=spec.model,
        model_hash=bundle_hash(spec.model),
        weights_sha256=bundle.weights_sha256,
        classes=bundle.classes,
        size_px=bundle.input.size_px,
        stride_px=spec.tiling.stride_px or bundle.input.size_px,
        mpp=mpp,
        tiling=spec.tiling.model_dump(mode="json"),
        tissue=spec.tissue.model_dump(mode="json"),
        mpp_if_missing=spec.mpp_if_missing,
        max_failed_fraction=spec.max_failed_fraction,
        device=placement.torch_device,
        threads=placement.cpus,
        batch_size=spec.batch_size,
        versions=versions(),
    )


def label_graph(job: LabelJob, collection: Collection, placement: Placement) -> ray.data.Dataset:
    """Build the graph of a run: a slide, or a region, is a row; pixels never are."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # a region per block: the regions of one slide spread over all workers
    slides = [
        {"slide_id": slide.slide_id, "files": [os.fsencode(file) for file in slide.files]}
        for slide in collection.slides
    ]
    return (
        ray.data.from_items(slides, override_num_blocks=len(slides))
        .flat_map(partial(plan_regions, job=job), num_cpus=_PLAN_CPUS)
        .map(
            RegionLabeler,  # type: ignore[arg-type] # the protocol of classes is missing from map's annotation
            fn_constructor_kwargs={"job": job},
            compute=ray.data.ActorPoolStrategy(size=placement.workers),
            **worker_resources(placement),
        )
    )


def worker_resources(placement: Placement) -> dict[str, Any]:
    """What Ray reserves for one worker: its GPU, if it has one, and its CPUs less what planning needs."""
    return {"num_gpus": placement.gpus, "num_cpus": placement.cpus - _PLAN_CPUS}


def _consume(job: LabelJob, collection: Collection, ledger: Ledger, placement: Placement) -> None:
    """Enter every summary into the ledger, and have a slide's parts merged when its last region is in."""
    progress, merges = Progress(len(collection.slides)), _Merges(job, ledger)
    ledger.write(force=True)
    try:
        for summary in label_graph(job, collection, placement).iter_rows():
            if ledger.add(summary):
                merges.finish(summary)
            merges.collect()
            ledger.write()
            progress.show(ledger.settled, ledger.tiles_done, ledger.tiles_expected())
        merges.collect(wait=True)
    except ray.exceptions.RayError as error:
        raise HistoError(f"{job.out}: the run was broken off: {root_cause(error)}") from error
    finally:
        ledger.write(force=True)
    progress.end(ledger.tiles_done)


class _Merges:
    """The merge tasks under way. They reserve no CPU, since a full pool leaves none."""

    def __init__(self, job: LabelJob, ledger: Ledger) -> None:
        self._job, self._ledger = job, ledger
        self._merge = ray.remote(num_cpus=0, max_retries=3)(parts.merge_slide)
        self._running: dict[ray.ObjectRef[None], str] = {}

    def finish(self, summary: Row) -> None:
        """Do what a slide needs after its last region: merge its parts, or settle it at once."""
        slide_id, fingerprint = summary["slide_id"], summary["fingerprint"]
        if summary["n_regions"] > 1 and self._ledger.has_result(self._job, slide_id):
            n_tiles = self._ledger.n_tiles(slide_id)
            self._running[self._merge.remote(self._job, slide_id, fingerprint, n_tiles)] = slide_id
        elif self._ledger.settle(self._job, slide_id) == "failed":
            parts.discard_slide(self._job, slide_id, fingerprint)

    def collect(self, wait: bool = False) -> None:
        """Settle the slides whose merges have ended."""
        while self._running:
            ended, _ = ray.wait(list(self._running), num_returns=1, timeout=None if wait else 0)
            if not ended:
                return
            slide_id = self._running.pop(ended[0])
            try:
                ray.get(ended[0])
                self._ledger.settle(self._job, slide_id)
            except Exception as error:  # noqa: BLE001 -- a merge fails its slide, not the run
                self._ledger.fail(slide_id, describe_failure(error, slide_id))
                parts.discard_slide(self._job, slide_id, fingerprint=None)
