"""Label slides: collection, to-do, plans, regions, one table per slide."""

from functools import partial
from pathlib import Path

from histo import store
from histo.errors import UsageError
from histo.folders import UNREADABLE_FOLDER, beside
from histo.learn.bundle import Bundle, TileInput, bundle_hash
from histo.learn.predict.precision import agreement
from histo.pipelines.labelling import tile_tables
from histo.pipelines.labelling.lookup import find_slide_todo
from histo.pipelines.labelling.slide_ledger import FILE, SlideLedger, ledger_file
from histo.pipelines.labelling.spec import LabelSpec
from histo.pipelines.labelling.stages import place_label
from histo.pipelines.labelling.tasks import LabelJob
from histo.pipelines.labelling.totals import say_next, say_totals
from histo.remote.location import AnyPath
from histo.run.failure import is_transient
from histo.run.record import RunRecord, collection_facts, is_begun, past_record, versions
from histo.run.report import report
from histo.run.run_folder import RunFolder
from histo.run.say import say
from histo.slides.annotations.mask import with_masks
from histo.slides.finding.collection import Collection
from histo.slides.finding.find import find_slides, fixed_folder
from histo.slides.readers.foreign import ways_out


def label_slides(spec: LabelSpec, slides: str, model: AnyPath, copy: Path, bundle: Bundle) -> int:
    """Label slides, or resume a run that does; returns 0, or 3 if some slides are failed or partial.

    Args:
        spec: The settings.
        slides: Where the slides are, see `find_slides`.
        model: Folder of the bundle.
        copy: The same on this node, if it is in object storage.
        bundle: What its document says.

    Raises:
        HistoError: If the settings are bad, or the run cannot go on.
    """
    job = label_job(spec, model, copy, bundle)
    collection = with_masks(find_slides(slides), spec.tissue)
    with RunFolder(spec.out, "label", written=["tiles"]) as folder:
        fresh = spec.overwrite and not is_begun(spec.out, spec)
        if not fresh:
            ledger_file(spec.out).check_classes("fraction_", bundle.classes)
        ledger = SlideLedger(job, collection, fresh)
        todo = find_slide_todo(job, collection, ledger, spec.retry_failed)
        say(f"{_describe(collection)}: {todo.describe('label', 'model or settings')}")
        from histo.run.cluster import describe, placed  # noqa: PLC0415 -- Ray takes long to load, and that was to be said first

        facts = collection_facts(collection.others, collection.linked, todo.states)
        earlier = None if fresh else past_record(spec.out)
        choose = partial(place_label, spec.workers, spec.readers, spec.device)
        inputs = [*fixed_folder(slides), model, *([spec.tissue.mask] if spec.tissue.mask else [])]
        asked = "--readers and --workers" if spec.readers else "--workers"
        with placed(bool(todo.tasks), spec.processes, choose, spec.out, *inputs, asked=asked) as placement:
            if fresh:
                _clear(spec.out)
            with folder.record(spec, earlier, model=str(model), **facts, **describe(placement)) as record:
                waited = {}
                if placement is not None:
                    from histo.pipelines.labelling.driver import label_all  # noqa: PLC0415 -- likewise
                    from histo.pipelines.labelling.runtime import find_runtime  # noqa: PLC0415 -- likewise

                    say(str(placement))
                    runtime = find_runtime(model, spec.out, placement, copy)
                    share = label_all(job, runtime, todo.tasks, ledger, placement)
                    waited = {"waiting_for_pixels": round(share, 3)}
                code = _finish(spec.out, collection.others, ledger, record, waited)
    if (table := ledger_file(spec.out).read()) is not None:
        say_totals(table, bundle.classes)
    report(ledger, spec.out, "tables", code)
    say_next(ledger)
    return code


def _finish(
    out: AnyPath, others: dict[str, int], ledger: SlideLedger, record: RunRecord, waited: dict[str, float]
) -> int:
    """Bring the ledger and the record of a run to their end; returns the exit code."""
    counts = ledger.counts()
    assert not counts.get("pending"), "every slide was settled"
    ledger.write(force=True)
    tile_tables.sweep(out, keep=[row["slide_id"] for row in ledger.failures() if is_transient(row["error_code"])])
    bad = counts.get("failed") or counts.get("partial") or UNREADABLE_FOLDER in others
    return record.finish(3 if bad else 0, slides=counts, **waited)


def _clear(out: AnyPath) -> None:
    for name in (FILE, "tiles", "staging"):
        store.remove(out / name)


def _describe(collection: Collection) -> str:
    return f"{len(collection.slides)} slides{beside(collection.linked, collection.others)}{ways_out(collection.others)}"


def label_job(spec: LabelSpec, model: AnyPath, copy: Path, bundle: Bundle) -> LabelJob:
    """Make a run of its settings.

    Args:
        spec: The settings.
        model: Folder of the bundle.
        copy: The same on this node, if it is in object storage.
        bundle: What its document says.

    Raises:
        UsageError: If the bundle cannot label slides, or its resolution is not known.
    """
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
        model=model,
        model_hash=bundle_hash(copy),
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
        agreement=agreement(copy, spec.precision),
        read_timeout_s=spec.read_timeout_s,
        verify=spec.verify,
        batch_size=spec.batch_size,
        versions=versions(),
        masked=spec.tissue.mask is not None,
        quality=spec.quality,
        cache=spec.cache.of(spec.read_timeout_s),
    )
