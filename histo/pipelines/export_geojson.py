"""Command `export geojson`: write the tiles or regions of slides for QuPath."""

from contextlib import nullcontext

import pyarrow as pa

from histo.errors import UsageError
from histo.pipelines.derived.slide_files import (
    classes_of,
    end,
    labelled_rows,
    read_ledger,
    remove_others,
    rows_id,
    say_found,
    settle,
)
from histo.pipelines.exports.spec import ExportGeojsonSpec
from histo.pipelines.exports.worker import (
    FOLDERS,
    GEOJSON,
    REGIONS,
    Exported,
    Exporter,
    ExportJob,
    ExportTask,
    key_of,
)
from histo.remote.location import AnyPath
from histo.report.slide.colours import class_colours
from histo.run.run_folder import RunFolder
from histo.run.say import say
from histo.spec.names import nearest
from histo.store import is_there
from histo.tables import Row

__all__ = ["ExportGeojsonSpec", "export_geojson"]


def export_geojson(spec: ExportGeojsonSpec) -> int:
    """Export all slides of a label run that have a table, or go on where a run stopped; returns 0, or 3 if some failed.

    Raises:
        HistoError: If the folder holds no label run, or the run cannot go on.
    """
    with RunFolder(spec.out, "label", written=FOLDERS) if is_there(spec.out) else nullcontext():
        table = read_ledger(spec.out)
        job, rows = _job(spec, table), labelled_rows(table)
        ids = [row["slide_id"] for row in table.to_pylist() if row["tiles_path"]]
        kept = {path for slide_id in ids for path in (job.file(slide_id), job.table(slide_id))}
        remove_others(job.out, FOLDERS, kept, (".geojson", ".parquet"), key_of)
        tasks = [task for task in (_task(spec, row) for row in rows) if not job.is_done(task)]
        say_found(table, rows, len(tasks), len(rows) - len(tasks), "export")
        done: list[Exported] = settle(Exporter, job, {task.slide_id: task for task in tasks}, spec.workers)
    for answer in done:
        if answer.merged:
            say(f"{answer.unit}: more than {spec.max_mb:g} MB of tiles, merged into regions (--max-mb)")
    failed = [answer.error for answer in done if answer.error is not None]
    where = f"GeoJSON for QuPath: {spec.out / GEOJSON}"
    if spec.regions or any(answer.merged for answer in done):
        where += f"; tables of regions: {spec.out / REGIONS}"
    return end(spec.out, len(rows), failed, "exported", where)


def geojson_of(spec: ExportGeojsonSpec) -> dict[str, AnyPath]:
    """Return the file of each slide that is exported, by `slide_id`, made of its table and of these settings."""
    table = read_ledger(spec.out)
    job = _job(spec, table)
    rows = labelled_rows(table)
    return {row["slide_id"]: job.file(row["slide_id"]) for row in rows if job.is_done(_task(spec, row))}


def _job(spec: ExportGeojsonSpec, table: pa.Table) -> ExportJob:
    """Check the settings against the classes of the ledger."""
    classes = classes_of(table)
    class_colours(classes, spec.colours)
    for name in spec.classes or ():
        if name not in classes:
            raise UsageError(f"--classes {name}: no class of these tables{nearest(name, classes)}")
    if spec.bounds and "bounds_x" not in table.column_names:
        raise UsageError(
            f"--out {spec.out}: its ledger is from before slides' bounds were in it; label again, or give --no-bounds"
        )
    if spec.smooth and not spec.regions:
        raise UsageError("--smooth: changes the classes of tiles before they are merged; give --regions, too")
    if spec.regions and spec.least_certain:
        raise UsageError("--least-certain: chooses single tiles; leave --regions out")
    chosen = tuple(spec.classes) if spec.classes is not None else None
    return ExportJob(
        spec.out, spec.regions, spec.smooth, chosen, spec.colours or {}, round(spec.max_mb * 1e6), spec.least_certain
    )


def _task(spec: ExportGeojsonSpec, row: Row) -> ExportTask:
    origin = (row.get("bounds_x") or 0, row.get("bounds_y") or 0) if spec.bounds else (0, 0)
    return ExportTask(row["slide_id"], spec.out / row["tiles_path"], row["fingerprint"], rows_id(row), origin)
