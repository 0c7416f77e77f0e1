"""Command `report`: draw the slides of a label run."""

from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import pyarrow as pa

from histo import store
from histo.errors import UsageError
from histo.pipelines.labelling.slide_ledger import ledger_file
from histo.pipelines.pictures.spec import ReportSpec
from histo.pipelines.pictures.worker import (
    FOLDERS,
    PICTURES,
    PROBABILITIES,
    PictureJob,
    PictureTask,
    key_of,
)
from histo.report.slide.colours import class_colours
from histo.run.placement import one_each
from histo.run.record import past_record
from histo.run.run_folder import RunFolder
from histo.run.say import say
from histo.slides.collection import CLASS_MAPS, find_slides
from histo.spec.names import nearest
from histo.tables import Row

__all__ = ["ReportSpec", "report"]

_CLASS = "fraction_"
_DRAWN = ("ok", "partial", "empty")


def report(spec: ReportSpec) -> int:
    """Draw all slides of a label run that have a table, or go on where a run stopped; returns 0, or 3 if some failed.

    Raises:
        HistoError: If the folder holds no label run, or the run cannot go on.
    """
    with RunFolder(spec.out, "label", written=FOLDERS) if spec.out.is_dir() else nullcontext():
        table = _ledger(spec)
        job, slides = _job(spec, table), _slides(spec)
        rows: list[Row] = [row for row in table.to_pylist() if row["status"] in _DRAWN]
        _remove_others(job, [row["slide_id"] for row in table.to_pylist() if row["tiles_path"]])
        tasks, failed = _find_tasks(job, slides, rows)
        done = len(rows) - len(tasks) - len(failed)
        others = table.num_rows - len(rows)
        without = f"; {others} without a table (slides.parquet says why)" if others else ""
        say(f"labelled slides: {len(rows)}; {len(tasks)} to draw{f', {done} done before' if done else ''}{without}")
        from histo.run.cluster import placed  # noqa: PLC0415 -- Ray takes long to load

        with placed(bool(tasks), spec.workers, partial(one_each, spec.workers, "cpu"), spec.out, slides) as placement:
            if placement is not None:
                from histo.pipelines.pictures.driver import draw_all  # noqa: PLC0415 -- likewise

                failed += [str(drawn.error) for drawn in draw_all(job, tasks, placement)]
    with suppress(OSError):  # parts of slides may wait there
        (spec.out / "staging").rmdir()
    for reason in failed:
        say(f"failed: {reason}")
    code = 3 if failed else 0
    said = f"{len(rows) - len(failed)} drawn" + (f", {len(failed)} failed (exit code {code})" if failed else "")
    say(f"{said}; pictures: {spec.out / PICTURES}; class maps for QuPath: {spec.out / CLASS_MAPS}")
    return code


def _ledger(spec: ReportSpec) -> pa.Table:
    table = ledger_file(spec.out).read()
    if table is None:
        raise UsageError(f"--out {spec.out}: no label run of slides is there; give the folder of `histo label`")
    return table


def pictures_of(spec: ReportSpec) -> dict[str, Path]:
    """Return the picture of each slide that is drawn, by `slide_id`, made of its table and of these settings."""
    table = _ledger(spec)
    job = _job(spec, table)
    rows = [row for row in table.to_pylist() if row["status"] in _DRAWN]
    return {row["slide_id"]: job.picture(row["slide_id"]) for row in rows if job.is_done(_task(job, row))}


def _job(spec: ReportSpec, table: pa.Table) -> PictureJob:
    """Check the settings against the classes of the ledger."""
    classes = [name.removeprefix(_CLASS) for name in table.column_names if name.startswith(_CLASS)]
    probabilities = tuple(spec.probabilities or ())
    class_colours(classes, spec.colours)
    for name in probabilities:
        if name not in classes:
            raise UsageError(f"--probabilities {name}: no class of these tables{nearest(name, classes)}")
    return PictureJob(spec.out, spec.read_timeout_s, probabilities, spec.colours or {})


def _find_tasks(job: PictureJob, slides: Path, rows: list[Row]) -> tuple[list[PictureTask], list[str]]:
    """Return the slides that are to be drawn, and a line for each of them that is not found."""
    found = {slide.slide_id: slide.path for slide in find_slides(slides).slides}
    tasks, lost = [], []
    for row in rows:
        slide_id, path = row["slide_id"], found.get(row["slide_id"])
        task = _task(job, row, path or "")
        if job.is_done(task):
            continue
        if path is None:
            lost.append(f"{slide_id}: not found below {slides}; give --slides")
        else:
            tasks.append(task)
    return tasks, lost


def _task(job: PictureJob, row: Row, path: str = "") -> PictureTask:
    return PictureTask(row["slide_id"], path, job.out / row["tiles_path"], row["fingerprint"])


def _slides(spec: ReportSpec) -> Path:
    """Return where the slides are: where they were labelled, unless it is given."""
    if spec.slides is not None:
        return spec.slides
    record = past_record(spec.out) or {}
    labelled = (record.get("spec") or {}).get("slides")
    if not labelled:
        raise UsageError(f"--slides is missing: {spec.out / 'run.json'} does not say where the slides were labelled")
    if not Path(labelled).exists():
        raise UsageError(f"--slides is missing: {labelled}, where they were labelled, is not there any more")
    return Path(labelled)


def _remove_others(job: PictureJob, ids: list[str]) -> None:
    """Remove the pictures of slides that have no table any more, all but those given."""
    classes = [path.name for path in (job.out / PROBABILITIES).glob("*")]
    kept = {job.class_map(slide_id) for slide_id in ids}
    kept |= {job.picture(slide_id, of) for slide_id in ids for of in (None, *classes)}
    for folder in FOLDERS:
        for path in (job.out / folder).rglob("*.*"):
            if path not in kept and path.suffix in (".png", ".tif") and key_of(path) is not None:
                store.remove(path)
