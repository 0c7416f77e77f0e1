"""Label a folder of slides; one of studies is left to `label_studies`.

collection -> slide -> tissue mask -> grid -> regions -> tiles -> probabilities -> parts -> one file per slide
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from histo import store
from histo.errors import UsageError
from histo.folders import UNREADABLE_FOLDER, beside
from histo.learn.bundle import Bundle, TileInput, bundle_hash, find_bundle, read_bundle
from histo.pipelines import parts
from histo.pipelines.cluster import check_shared, describe, session
from histo.pipelines.continued import show_failures, storage_errors, traces_removed
from histo.pipelines.label_model import agreement, converted_form
from histo.pipelines.label_run import label_slides
from histo.pipelines.label_spec import LabelSpec
from histo.pipelines.ledger import FILE, Ledger, read_ledger
from histo.pipelines.lock import sole_run
from histo.pipelines.placement import place
from histo.pipelines.record import RunRecord, check_job, claim_output, is_begun, past_record, versions
from histo.pipelines.resume import Todo, find_work, is_transient
from histo.pipelines.say import say
from histo.pipelines.work import LabelJob
from histo.slides.collection import Collection, find_slides
from histo.slides.foreign import ways_out

__all__ = ["LabelSpec", "label"]


def label(spec: LabelSpec) -> int:
    """Run a label job, or go on with one; returns 0, or 3 if some slides are failed or partial.

    Raises:
        HistoError: If the settings are bad, or the run cannot go on.
    """
    spec = spec.model_copy(update={"model": find_bundle(spec.model)})
    bundle = read_bundle(spec.model)
    if spec.studies is not None:
        from histo.pipelines.label_studies import label_studies  # noqa: PLC0415 -- slides do without its decoders

        return label_studies(spec, bundle)
    assert spec.slides is not None, "one of the two is given"
    job = _job(spec, bundle)
    collection = find_slides(spec.slides)
    claim_output(spec.out)
    with sole_run(spec.out), storage_errors(spec.out), traces_removed(spec.out, "tiles"):
        check_job(spec.out, "label")
        fresh = spec.overwrite and not is_begun(spec.out, spec)
        if not fresh:
            _check_classes(spec, bundle)
        ledger = Ledger(job, collection, fresh)
        todo = find_work(job, collection.slides, ledger, spec.retry_failed)
        say(f"{_found(collection)}: {todo.describe()}")
        code = _label(spec, job, collection, ledger, todo, fresh)
    _report(spec, ledger)
    return code


def _label(spec: LabelSpec, job: LabelJob, collection: Collection, ledger: Ledger, todo: Todo, fresh: bool) -> int:
    earlier = None if fresh else past_record(spec.out)
    there = {"other_files": collection.others, "linked_folders": collection.linked}
    facts: dict[str, Any] = there | {"found": dict(todo.states), "earlier": earlier}
    if not todo.slides:
        with RunRecord(spec.out, "label", spec, **facts) as run:
            return _finish(spec, collection, ledger, run)
    with session(spec.workers) as resources:
        placement = place(spec.workers, spec.device, resources, cpu_workers=max(1, int(resources.cpus)))
        check_shared(spec.out, *filter(None, (spec.slides,)), spec.model)
        job = replace(job, device=placement.torch_device, threads=placement.cpus)
        if fresh:
            _clear(spec.out)
        with RunRecord(spec.out, "label", spec, **facts, **describe(placement)) as run:
            if job.device == "cpu":
                job = replace(job, converted=converted_form(job.model, job.out))
            waited = label_slides(job, todo.slides, ledger, placement)
            return _finish(spec, collection, ledger, run, waiting_for_pixels=round(waited, 3))


def _finish(spec: LabelSpec, collection: Collection, ledger: Ledger, run: RunRecord, **facts: Any) -> int:
    counts = ledger.counts()
    assert not counts.get("pending"), "every slide was settled"
    ledger.write(force=True)
    parts.sweep(spec.out, keep=[row["slide_id"] for row in ledger.failures() if is_transient(row["error_code"])])
    bad = counts.get("failed") or counts.get("partial") or UNREADABLE_FOLDER in collection.others
    return run.finish(3 if bad else 0, slides=counts, **facts)


def _report(spec: LabelSpec, ledger: Ledger) -> None:
    show_failures(ledger.failures(), spec.out / FILE)
    say(f"{', '.join(f'{n} {state}' for state, n in ledger.counts().items())}; tables: {spec.out}")


def _clear(out: Path) -> None:
    for name in (FILE, "tiles", "staging"):
        store.remove(out / name)


def _check_classes(spec: LabelSpec, bundle: Bundle) -> None:
    """Refuse a folder that holds results of other classes."""
    if (table := read_ledger(spec.out)) is not None:
        before = [name for name in table.schema.names if name.startswith("fraction_")]
        if before != [f"fraction_{name}" for name in bundle.classes]:
            raise UsageError(
                f"--out {spec.out}: holds results of a bundle with other classes; give another folder, or remove them "
                "with --overwrite"
            )


def _found(collection: Collection) -> str:
    return f"{len(collection.slides)} slides{beside(collection.linked, collection.others)}{ways_out(collection.others)}"


def _job(spec: LabelSpec, bundle: Bundle) -> LabelJob:
    if not isinstance(bundle.input, TileInput):
        raise UsageError(f"--model {spec.model}: classifies studies; give --studies, or a bundle that classifies tiles")
    mpp = spec.tiling.mpp or bundle.input.mpp
    if mpp is None:
        raise UsageError(
            f"--model {spec.model}: the bundle does not say at which resolution it was trained; train it with --mpp, "
            "or give --tiling.mpp (µm/px)"
        )
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
        tissue=spec.tissue.settings(),
        mpp_if_missing=spec.mpp_if_missing,
        mpp_override=spec.mpp_override,
        max_failed_fraction=spec.max_failed_fraction,
        reader=spec.reader,
        precision=spec.precision,
        agreement=agreement(spec.model, spec.precision),
        read_timeout_s=spec.read_timeout_s,
        verify=spec.verify,
        batch_size=spec.batch_size,
        versions=versions(),
    )
