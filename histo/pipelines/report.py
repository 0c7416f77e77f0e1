"""Command `report`: draw the slides of a label run."""

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
from histo.pipelines.pictures.spec import ReportSpec
from histo.pipelines.pictures.worker import (
    FOLDERS,
    PICTURES,
    PROBABILITIES,
    Drawer,
    Drawn,
    PictureJob,
    PictureTask,
    key_of,
)
from histo.remote.location import AnyPath, shown
from histo.report.slide.colours import class_colours
from histo.run.record import past_record
from histo.run.run_folder import RunFolder
from histo.slides.finding.find import find_slides, fixed_folder
from histo.slides.finding.folder import CLASS_MAPS
from histo.spec.names import nearest
from histo.store import is_there, list_files
from histo.tables import Row

__all__ = ["ReportSpec", "report"]


def report(spec: ReportSpec) -> int:
    """Draw all slides of a label run that have a table, or go on where a run stopped; returns 0, or 3 if some failed.

    Raises:
        HistoError: If the folder holds no label run, or the run cannot go on.
    """
    with RunFolder(spec.out, "label", written=FOLDERS) if is_there(spec.out) else nullcontext():
        table = read_ledger(spec.out)
        job, slides, rows = _job(spec, table), _slides(spec), labelled_rows(table)
        _remove_others(job, [row["slide_id"] for row in table.to_pylist() if row["tiles_path"]])
        tasks, failed = _find_tasks(job, slides, rows)
        say_found(table, rows, len(tasks), len(rows) - len(tasks) - len(failed), "draw")
        drawn: list[Drawn] = settle(
            Drawer, job, {task.slide_id: task for task in tasks}, spec.workers, *fixed_folder(slides)
        )
        failed += [answer.error for answer in drawn if answer.error is not None]
    where = f"pictures: {spec.out / PICTURES}; class maps for QuPath: {spec.out / CLASS_MAPS}"
    return end(spec.out, len(rows), failed, "drawn", where)


def pictures_of(spec: ReportSpec) -> dict[str, AnyPath]:
    """Return the picture of each slide that is drawn, by `slide_id`, made of its table and of these settings."""
    table = read_ledger(spec.out)
    job = _job(spec, table)
    rows = labelled_rows(table)
    return {row["slide_id"]: job.picture(row["slide_id"]) for row in rows if job.is_done(_task(job, row))}


def _job(spec: ReportSpec, table: pa.Table) -> PictureJob:
    """Check the settings against the classes of the ledger."""
    classes, probabilities = classes_of(table), tuple(spec.probabilities or ())
    class_colours(classes, spec.colours)
    for name in probabilities:
        if name not in classes:
            raise UsageError(f"--probabilities {name}: no class of these tables{nearest(name, classes)}")
    cache = spec.cache.of(spec.read_timeout_s)
    return PictureJob(spec.out, spec.read_timeout_s, probabilities, spec.colours or {}, cache)


def _find_tasks(job: PictureJob, slides: str, rows: list[Row]) -> tuple[list[PictureTask], list[str]]:
    """Return the slides that are to be drawn, and a line for each of them that is not found."""
    found = {slide.slide_id: slide.files for slide in find_slides(slides).slides}
    tasks, lost = [], []
    for row in rows:
        slide_id, files = row["slide_id"], found.get(row["slide_id"])
        task = _task(job, row, files or ())
        if job.is_done(task):
            continue
        if files is None:
            lost.append(f"{slide_id}: not found below {shown(slides)}; give --slides")
        else:
            tasks.append(task)
    return tasks, lost


def _task(job: PictureJob, row: Row, files: tuple[str, ...] = ()) -> PictureTask:
    return PictureTask(row["slide_id"], files, job.out / row["tiles_path"], rows_id(row))


def _slides(spec: ReportSpec) -> str:
    """Return where the slides are: where they were labelled, unless it is given."""
    if spec.slides is not None:
        return spec.slides
    record = past_record(spec.out) or {}
    labelled = (record.get("spec") or {}).get("slides")
    if not labelled:
        raise UsageError(f"--slides is missing: {spec.out / 'run.json'} does not say where the slides were labelled")
    for folder in fixed_folder(labelled):
        if not folder.exists():
            raise UsageError(f"--slides is missing: {labelled}, where they were labelled, is not there any more")
    return str(labelled)


def _remove_others(job: PictureJob, ids: list[str]) -> None:
    """Remove the pictures of slides that have no table any more, all but those given."""
    classes = {path.parent.name for path in list_files(job.out / PROBABILITIES)}
    kept = {job.class_map(slide_id) for slide_id in ids}
    kept |= {job.picture(slide_id, of) for slide_id in ids for of in (None, *classes)}
    remove_others(job.out, FOLDERS, kept, (".png", ".tif"), key_of)
