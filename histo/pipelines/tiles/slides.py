"""Cut tiles from slides: annotations, a task for each slide, a table or images."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.csv

from histo import store, tables
from histo.class_names import check_groups, check_names
from histo.csv_table import read_csv
from histo.errors import InputError, UsageError
from histo.folders import beside
from histo.input_files import all_blocks, digest, readable, safe_path
from histo.learn.data.tile_table import IN_INDEX, INDEX, TableIndex, write_part
from histo.pipelines.tiles.cutter import Cutter
from histo.pipelines.tiles.spec import PrepareTilesSpec
from histo.pipelines.tiles.tasks import IMAGES, LISTS, SHEETS, Cut, CutJob, CutTask
from histo.remote.location import shown
from histo.run.ledger import fingerprint_of
from histo.run.placement import one_each
from histo.run.record import past_record
from histo.run.run_folder import RunFolder
from histo.run.say import say
from histo.slides.annotations.files import AnnotationFolder, missing, names_in
from histo.slides.annotations.mask import with_masks
from histo.slides.annotations.naming import Naming
from histo.slides.finding.collection import FoundSlide
from histo.slides.finding.find import find_slides, fixed_folder
from histo.slides.readers.foreign import ways_out
from histo.tables import open_table

ALGORITHM = 1
"""Version of the tiles that the same slides, annotations and settings give."""
MANIFEST = "manifest.csv"
_FREE = {"out", "workers", "sheets", "read_timeout_s", "slides", "annotations", "patients", "cache"}
"""Settings that no tile depends on, or whose files are looked at."""
_FLAG = "--annotations"
_MOST_NAMED = 5
_FAILED = "failed"
"""In the place of the key of a slide's part."""


def cut_slides(folder: RunFolder, spec: PrepareTilesSpec, root: str) -> int:
    """Cut the tiles of all slides, or go on where a run stopped; returns 0, or 3 if some slides failed.

    Args:
        folder: Of the output, held.
        spec: The settings.
        root: Where the slides are, see `find_slides`.

    Raises:
        HistoError: If the settings or annotations are bad, or the run cannot go on.
    """
    collection = with_masks(find_slides(root), spec.tissue)
    say(f"{len(collection.slides)} slides{beside(collection.linked, collection.others)}{ways_out(collection.others)}")
    annotated = _annotated(spec, collection.slides)
    naming = Naming(spec.names or {}, frozenset(spec.drop or ()), tuple(spec.classes) if spec.classes else None)
    classes = _classes(spec, naming, [path for _, path in annotated if path is not None])
    groups = _groups(spec, [slide.slide_id for slide, _ in annotated])
    job = _job(spec, root, naming, classes)
    chosen = spec.model_dump(mode="json", exclude=_FREE) | {"tissue": spec.tissue.settings()}
    made_by = fingerprint_of({"algorithm": ALGORITHM} | chosen)
    tasks = [_task(job, made_by, groups, slide, path) for slide, path in annotated]
    todo = {task.slide_id: (task,) for task in tasks if not job.is_done(task)}
    new = sum(not job.part(slide_id).exists() for slide_id in todo)
    said = [(new, "to cut"), (len(todo) - new, "to cut anew, since slides, annotations or settings changed")]
    said += [(len(tasks) - len(todo), "done before")]
    say(", ".join(f"{count} {text}" for count, text in said if count))
    _remove_others(job, tasks)
    answers = _cut(folder, spec, job, tasks, todo) if todo else []
    return _end(job, tasks, answers)


def _cut(
    folder: RunFolder, spec: PrepareTilesSpec, job: CutJob, tasks: Sequence[CutTask], todo: Mapping[str, object]
) -> list[Cut]:
    """Have workers cut slides; one that fails has a part without rows, so that the table is whole without it."""
    from histo.run.cluster import describe, placed  # noqa: PLC0415 -- Ray takes long to load, and that was to be said first

    inputs = [path for path in (spec.annotations, spec.tissue.mask) if path is not None]
    inputs += fixed_folder(spec.slides or "")
    with placed(True, spec.workers, partial(one_each, spec.workers, "cpu"), spec.out, *inputs) as placement:
        from histo.run.stream.units import gather  # noqa: PLC0415 -- likewise
        from histo.run.stream.worker import Crew  # noqa: PLC0415 -- likewise

        assert placement is not None, "it is needed"
        with folder.record(spec, past_record(spec.out), **describe(placement)) as record:
            for name in (INDEX, MANIFEST):  # what is not finished is no source
                store.remove(spec.out / name)
            answers: list[Cut] = gather(Crew(Cutter, (job,), spec.out), todo, placement, "slides")
            failed = {answer.unit: answer.error for answer in answers if answer.error is not None}
            for slide_id in failed:
                write_part(job.part(slide_id), [], IN_INDEX, job.columns, {"key": _FAILED})
            record.finish(3 if failed else 0, failed=failed, tiles=_count(job, tasks)[0])
    return answers


def _annotated(spec: PrepareTilesSpec, slides: Sequence[FoundSlide]) -> list[tuple[FoundSlide, Path | None]]:
    """Return the slides of which tiles are cut, with their annotations.

    Raises:
        UsageError: If none has one, or one has several.
    """
    if spec.annotations is None:
        return [(slide, None) for slide in slides]
    annotations = AnnotationFolder(spec.annotations, {slide.slide_id: slide.path for slide in slides}, _FLAG)
    found = [(slide, annotations.of(slide.slide_id)) for slide in slides]
    with_one = [(slide, path) for slide, path in found if path is not None]
    if not with_one:
        raise missing(_FLAG, spec.annotations, slides[0].slide_id)
    without = [slide.slide_id for slide, path in found if path is None]
    if without:
        say(f"{len(without)} without annotations, left out: {_listed(without)}")
    if idle := annotations.others({path for _, path in with_one}):
        say(f"{len(idle)} annotations without a slide: {_listed([path.name for path in idle])}")
    return [*with_one]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")


def _classes(spec: PrepareTilesSpec, naming: Naming, paths: Sequence[Path]) -> tuple[str, ...]:
    """Return all classes: the given ones, or those that the annotations name, in alphabetical order.

    Raises:
        UsageError: If an annotation cannot be used, or none names a class.
    """
    if not paths:
        return ()
    both = {*naming.names} & {*naming.drop}
    if both:
        raise UsageError(f"--drop {min(both)}: named by --names, too; leave one of them out")
    names, has_maps = _names(paths)
    found = {of for name in names if (of := naming.class_of(name))}
    known = found | {*naming.names.values()} | ({spec.rest} if spec.rest else set())
    check_names(f"{_FLAG} {spec.annotations}", known | {*(spec.classes or ())})
    given = {"--names": {*naming.names}, "--drop": {*naming.drop}}
    for flag, own in given.items():
        if unused := sorted(name for name in own - names if not (has_maps and name.isdecimal())):
            say(f"{flag} {_listed(unused)}: in no annotation; the names there: {_listed(sorted(names)) or 'none'}")
    if spec.classes:
        if repeated := [name for name, count in Counter(spec.classes).items() if count > 1]:
            raise UsageError(f"--classes: {repeated[0]} is named twice")
        if spec.rest and spec.rest not in spec.classes:
            raise UsageError(f"--rest {spec.rest}: not one of --classes")
        if unused := [name for name in spec.classes if name not in known and not has_maps]:
            say(f"--classes {_listed(unused)}: in no annotation; the classes there: {_listed(sorted(known)) or 'none'}")
        return tuple(spec.classes)
    if not known:
        raise UsageError(
            f"{_FLAG} {spec.annotations}: no shape has a class; set it in QuPath, or name the values of label maps "
            "with --names 1=CLASS"
        )
    return tuple(sorted(known))


def _names(paths: Sequence[Path]) -> tuple[set[str], bool]:
    """Return the names in all annotations, each of which is checked, and whether some are label maps, without names."""
    names: set[str] = set()
    has_maps = False
    for path in paths:
        try:
            found = names_in(path)
        except InputError as error:
            raise UsageError(f"{_FLAG} {error}") from None
        names |= found or set()
        has_maps |= found is None
    return names, has_maps


def _groups(spec: PrepareTilesSpec, slides: Sequence[str]) -> dict[str, str]:
    """Return the group of each slide: its patient, or itself.

    Raises:
        UsageError: If the table of patients cannot be read, or lacks a slide.
    """
    if spec.patients is None:
        return {name: name for name in slides}
    where = f"--patients {spec.patients}"
    try:
        table = read_csv(spec.patients, ("slide", "patient"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{where}: not a readable CSV file ({' '.join(str(error).split())})") from None
    for name in ("slide", "patient"):
        if table.column_names.count(name) != 1:
            raise UsageError(f"{where}: no column {name}; it has {', '.join(table.column_names)}")
    patients: dict[str, str] = {}
    for row, (slide, patient) in enumerate(
        zip(*(table[name].to_pylist() for name in ("slide", "patient")), strict=True), 1
    ):
        if not slide or not patient:
            raise UsageError(f"{where}: row {row} has no {'patient' if slide else 'slide'}")
        if patients.setdefault(slide, patient) != patient:
            raise UsageError(f"{where}: {slide} has two patients, {patients[slide]} and {patient}")
    found = {name: patients.get(name) or patients.get(PurePosixPath(name).name) for name in slides}
    if lacking := [name for name, patient in found.items() if patient is None]:
        raise UsageError(f"{where}: {len(lacking)} slides have no row, the first is {lacking[0]}")
    check_groups(where, found.values())
    return {name: str(patient) for name, patient in found.items()}


def _job(spec: PrepareTilesSpec, root: str, naming: Naming, classes: tuple[str, ...]) -> CutJob:
    assert spec.tiling.mpp is not None, "it is checked"
    return CutJob(
        out=spec.out,
        source=readable(PurePosixPath(shown(root)).name),
        form=spec.form,
        classes=classes,
        size_px=spec.size_px,
        mpp=spec.tiling.mpp,
        tiling=spec.tiling,
        tissue=spec.tissue,
        naming=naming,
        rest=spec.rest,
        min_share=spec.min_share,
        bounds=spec.bounds,
        sheets=spec.sheets,
        mpp_if_missing=spec.mpp_if_missing,
        mpp_override=spec.mpp_override,
        reader=spec.reader,
        read_timeout_s=spec.read_timeout_s,
        cache=spec.cache.of(spec.read_timeout_s),
    )


def _task(job: CutJob, made_by: str, groups: Mapping[str, str], slide: FoundSlide, annotation: Path | None) -> CutTask:
    """Return the task of a slide; its key names the state of its files, and the content of its annotation and mask."""
    drawn = [str(annotation) if annotation else "", slide.mask]
    made_of = {"made_by": made_by, "slide_id": slide.slide_id, "group": groups[slide.slide_id]}
    made_of |= {} if slide.mpp is None else {"mpp": str(slide.mpp)}
    try:
        made_of["state"] = str(tuple(slide.state()))
        made_of |= {f"drawn_{i}": digest(all_blocks([path])) for i, path in enumerate(drawn) if path}
        key = fingerprint_of(made_of)
    except InputError:  # the worker says what is wrong
        key = ""
    mask = slide.mask if job.tissue.mask else None
    return CutTask(slide.slide_id, slide.files, annotation, groups[slide.slide_id], key, mask, slide.mpp)


def _remove_others(job: CutJob, tasks: Sequence[CutTask]) -> None:
    """Remove what an earlier run left that is not of this table: parts, images and sheets of other slides or forms."""
    parts = {job.part(task.slide_id) for task in tasks}
    for part in [*job.out.glob("part-*.parquet"), *(job.out / LISTS).glob("part-*.parquet")]:
        if part not in parts:
            store.remove(part)
    for name in (INDEX,) if job.form == "images" else (MANIFEST, IMAGES, LISTS):
        store.remove(job.out / name)
    names = {safe_path(task.slide_id) for task in tasks}
    for folder, ending in ((SHEETS, ".png"), (IMAGES, "")):
        for path in (job.out / folder).rglob("*.png"):
            own = path if ending else path.parent
            if own.relative_to(job.out / folder).as_posix().removesuffix(ending) not in names:
                store.remove(path)


def _end(job: CutJob, tasks: Sequence[CutTask], answers: Sequence[Cut]) -> int:
    """Write the manifest, and say what there is; returns the exit code."""
    store.remove(job.out / "staging")
    failed = [answer for answer in answers if answer.error is not None]
    counts, slides = _count(job, tasks)
    for answer in answers:
        for note in answer.notes:
            say(f"{answer.unit}: {note}")
    left_out: Counter[str] = sum((answer.left_out for answer in answers), Counter())
    if left_out:
        say("left out: " + ", ".join(f"{count} tiles ({why})" for why, count in left_out.items()))
    for answer in failed:
        say(f"failed: {answer.error}")
    for name in job.classes:
        say(f"  {name:16}{counts[name]:8} tiles{slides[name]:6} slides")
    _write_index(job, tasks)
    code = 3 if failed else 0
    said = f"{counts.total()} tiles of {len(tasks) - len(failed)} slides"
    said += f", {len(failed)} failed (exit code {code})" if failed else ""
    say(f"{said}; {job.form}: {job.out}" + (f"; contact sheets: {job.out / SHEETS}" if job.sheets else ""))
    if not failed and job.classes and all(counts[name] for name in job.classes):
        mpp = f" --mpp {job.mpp:g}" if job.form == "images" else ""
        say(f"next: histo train --data {shlex.quote(str(job.out))}{mpp} --size-px {job.size_px} --out RUN")
    return code


def _count(job: CutJob, tasks: Sequence[CutTask]) -> tuple[Counter[str], Counter[str]]:
    """Count the tiles of each class, and the slides that have some."""
    tiles: Counter[str] = Counter()
    slides: Counter[str] = Counter()
    for task in tasks:
        with open_table(job.part(task.slide_id)) as file:
            own = Counter(name or "" for name in file.read(["label"])["label"].to_pylist())
        tiles += own
        slides.update(own.keys())
    return tiles, slides


def _write_index(job: CutJob, tasks: Sequence[CutTask]) -> None:
    """Write what makes a table, or a folder of images, of the parts."""
    if job.form == "table":
        parts = {
            job.part(task.slide_id).name: tables.footer_value(job.part(task.slide_id), "key") or "" for task in tasks
        }
        index = TableIndex(classes=job.classes, mpp=job.mpp, parts=parts)
        store.put_json(job.out / INDEX, index.model_dump(mode="json"))
        return
    with store.put_atomic(job.out / MANIFEST) as file:
        for number, task in enumerate(tasks):
            with open_table(job.part(task.slide_id)) as part:
                table = part.read([column.name for column in tables.CUT_FILES])
            options = pyarrow.csv.WriteOptions(include_header=number == 0)
            pyarrow.csv.write_csv(table, file, options)
