"""Plan a label run in a Ray session: survey slides, label a sample, write a plan."""

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from histo import store, tables
from histo.folders import UNREADABLE_FOLDER, beside
from histo.input_files import readable
from histo.learn.bundle import Bundle, find_bundle, read_bundle
from histo.pipelines.labelling.slides import label_job
from histo.pipelines.labelling.spec import LabelSpec
from histo.pipelines.labelling.tasks import LabelJob, SlideTask
from histo.pipelines.planning.page import Totals, say_page
from histo.pipelines.planning.spec import PlanSpec
from histo.remote.location import AnyPath, scheme, shown
from histo.run.placement import one_each
from histo.run.record import versions
from histo.run.run_folder import RunFolder
from histo.run.say import say
from histo.slides.annotations.mask import with_masks
from histo.slides.finding.collection import Collection, FoundSlide
from histo.slides.finding.find import find_slides, fixed_folder
from histo.slides.readers.foreign import ways_out
from histo.tables import Row

FILE = "plan.parquet"
_SIZE_PX, _MPP = 224, 0.5
"""Tiles of the reference task, where no bundle says otherwise."""
_SAMPLE = 24
"""Slides whose tiles are found for the estimates, where they are not found for all."""
_MOST_IN_A_BLOCK, _BLOCKS = 16, 250


def plan_slides(spec: PlanSpec) -> int:
    """Plan a label run; returns 0, or 3 if some slides would fail.

    Raises:
        HistoError: If the settings are bad, or the slides cannot be looked at.
    """
    with ExitStack() as stack:
        model, copy, bundle = None, None, None
        if spec.model is not None:
            model = find_bundle(spec.model)
            copy = stack.enter_context(spec.cache.of(spec.read_timeout_s).local_folder(model))
            bundle = read_bundle(copy)
        job = _job(spec, model, copy, bundle)
        collection = with_masks(find_slides(spec.slides), spec.tissue)
        found = f"{len(collection.slides)} slides{beside(collection.linked, collection.others)}"
        say(f"{found}{ways_out(collection.others)}")
        with RunFolder(spec.out, "label", written=["plan"]):
            rows, totals = _survey(spec, job, copy, collection)
            _write(spec.out / FILE, rows, collection)
            store.remove_empty_folders(spec.out / "staging")
        say_page(rows, totals, job, spec.out / FILE)
    fails = any(row["status"] == "fails" for row in rows)
    return 3 if fails or UNREADABLE_FOLDER in collection.others else 0


def _job(spec: PlanSpec, model: AnyPath | None, copy: Path | None, bundle: Bundle | None) -> LabelJob:
    """Make the label run that is planned; without a bundle, one of tiles alone."""
    same = ("slides", "out", "mpp_if_missing", "mpp_override", "reader", "read_timeout_s", "tiling", "tissue", "cache")
    if model is not None and copy is not None and bundle is not None:
        asked = {name: getattr(spec, name) for name in (*same, "model", "workers", "device")}
        return label_job(LabelSpec(**asked), model, copy, bundle)
    size_px = spec.size_px or _SIZE_PX
    return LabelJob(
        out=spec.out,
        model=spec.out,
        model_hash="",
        weights_sha256="",
        classes=(),
        size_px=size_px,
        stride_px=spec.tiling.stride_px or size_px,
        mpp=spec.tiling.mpp or _MPP,
        tiling=spec.tiling.model_dump(mode="json"),
        tissue=spec.tissue.settings(),
        mpp_if_missing=spec.mpp_if_missing,
        mpp_override=spec.mpp_override,
        max_failed_fraction=0.0,
        read_timeout_s=spec.read_timeout_s,
        verify=False,
        reader=spec.reader,
        precision="float32",
        agreement=None,
        batch_size=None,
        versions=versions(),
        masked=spec.tissue.mask is not None,
        cache=spec.cache.of(spec.read_timeout_s),
    )


def _survey(spec: PlanSpec, job: LabelJob, copy: Path | None, collection: Collection) -> tuple[list[Row], Totals]:
    """Look at the slides, and label a sample of them if there is a bundle."""
    from histo.run.cluster import placed  # noqa: PLC0415 -- Ray takes long to load, and that was to be said first

    tasks = {slide.slide_id: _task(job, slide) for slide in collection.slides}
    seen = {name: task for name, task in tasks.items() if spec.exact or scheme(task.files[0]) is None}
    inputs = [*fixed_folder(spec.slides), *([spec.tissue.mask] if spec.tissue.mask else [])]
    with placed(True, spec.workers, partial(one_each, None, "cpu"), spec.out, *inputs) as placement:
        assert placement is not None, "it is needed"
        known = _look(job, seen, spec.exact, placement)
        sampled = _sample(job, tasks, known, spec.exact, placement) if spec.model is not None else {}
        pace = None
        if spec.model is not None and copy is not None and sampled:
            pace = _measure(spec, job, copy, [(tasks[name], columns) for name, columns in sampled.items()])
    rows = [_row(slide, known.get(slide.slide_id)) for slide in collection.slides]
    _name_copies(rows)
    totals = Totals.of(rows, [*sampled.values()], spec.exact, pace, placement.workers)
    if pace is not None:
        for row in rows:
            if row["status"] == "ready":
                row["label_seconds"] = pace.worker_s(totals.tiles_of(row))
    return rows, totals


def _task(job: LabelJob, slide: FoundSlide) -> SlideTask:
    return SlideTask(slide.slide_id, slide.files, mask=slide.mask if job.masked else None, mpp=slide.mpp)


def _look(job: LabelJob, tasks: Mapping[str, SlideTask], exact: bool, placement: Any) -> dict[str, Row]:
    """Have workers look at slides; returns what they know, by `slide_id`."""
    from histo.pipelines.planning.surveyor import Surveyed, Surveyor  # noqa: PLC0415 -- likewise
    from histo.run.stream.units import gather  # noqa: PLC0415 -- likewise
    from histo.run.stream.worker import Crew  # noqa: PLC0415 -- likewise

    if not tasks:
        return {}
    crew, alone = Crew(Surveyor, (job, exact), job.out), {name: (task,) for name, task in tasks.items()}
    together = min(_MOST_IN_A_BLOCK, max(1, len(tasks) // _BLOCKS))
    answers: list[Surveyed] = gather(crew, alone, placement, "slides", together)
    return {answer.unit: answer.columns for answer in answers}


def _sample(
    job: LabelJob, tasks: Mapping[str, SlideTask], known: Mapping[str, Row], exact: bool, placement: Any
) -> dict[str, Row]:
    """Return slides that have tiles, in random order, with what is known of them once their tiles are found."""
    usable = [name for name in tasks if name not in known or not known[name].get("error_code")]
    random.Random(0).shuffle(usable)  # noqa: S311 -- a sample, not a secret
    if not exact:
        usable = usable[:_SAMPLE]
        known = _look(job, {name: tasks[name] for name in usable}, True, placement)
    return {name: known[name] for name in usable if known[name].get("n_tiles")}


def _measure(spec: PlanSpec, job: LabelJob, copy: Path, sample: Sequence[tuple[SlideTask, Row]]) -> Any:
    from histo.pipelines.labelling.runtime import find_runtime  # noqa: PLC0415 -- likewise
    from histo.pipelines.labelling.stages import place_label  # noqa: PLC0415 -- likewise
    from histo.pipelines.planning.calibration import calibrate  # noqa: PLC0415 -- likewise
    from histo.run.cluster import placed  # noqa: PLC0415 -- likewise

    choose = partial(place_label, spec.workers, None, spec.device)
    with placed(True, spec.workers, choose, spec.out) as placement:
        assert placement is not None, "it is needed"
        say(f"labelling a few tiles to measure the time: {placement}")
        return calibrate(job, find_runtime(job.model, spec.out, placement, copy), sample, placement)


def _row(slide: FoundSlide, known: Row | None) -> Row:
    """Return the row of a slide."""
    row: Row = {"slide_id": slide.slide_id, "uri": readable(shown(slide.path)), **slide.columns}
    if known is None:
        size_bytes, mtime_ns = slide.state()
        return row | {"status": "unseen", "size_bytes": size_bytes, "mtime_ns": mtime_ns}
    named = {column.name for column in tables.PLAN}
    status = "fails" if known.get("error_code") else "empty" if known.get("n_tiles") == 0 else "ready"
    return {name: value for name, value in known.items() if name in named} | row | {"status": status}


def _name_copies(rows: Sequence[Row]) -> None:
    """Say of slides with the same content of which one they are copies."""
    first: dict[str, str] = {}
    for row in rows:
        content_id = row.get("content_id")
        if content_id is not None:
            row["duplicate_of"] = first.get(content_id)
            first.setdefault(content_id, row["slide_id"])


def _write(path: AnyPath, rows: Sequence[Row], collection: Collection) -> None:
    layout = tables.schema(tables.PLAN, metadata={"schema_version": str(tables.SCHEMA_VERSION)})
    listed = [pa.field(name, kind) for name, kind in collection.columns.items()]
    tables.write_table(path, tables.rows_table(rows, pa.schema([*layout, *listed], layout.metadata)))
