"""Prepare tiles: sources -> shards -> parts of one tile table, the fast form of labelled tiles."""

from collections.abc import Sequence
from pathlib import Path

import ray
import ray.exceptions
from pydantic import Field

from histo import store
from histo.errors import HistoError, ImageError, UsageError
from histo.learn.images import Content
from histo.learn.source import Source, read_sources
from histo.learn.survey import Survey, check_broken, examine, make_survey
from histo.learn.tile_table import TableFooter, write_part
from histo.pipelines.cluster import check_shared, describe, root_cause, session
from histo.pipelines.placement import place
from histo.pipelines.record import RunRecord, claim_output
from histo.pipelines.say import say
from histo.spec import AbsolutePath, AbsolutePaths, Spec

_SHARD = 1024
"""Cases of a part; a task holds the encoded images of one in memory."""


class PrepareTilesSpec(Spec):
    """Write labelled tiles to one table of Parquet files, from which training reads them fast."""

    data: AbsolutePaths
    """Labelled tiles: folders of class folders, .npz files, .csv or .parquet manifests; one or several."""
    out: AbsolutePath
    """Folder of the table; must not hold one yet."""
    workers: int | None = Field(None, ge=1)
    """Tasks that decode at the same time; default: one for each CPU."""
    classes: list[str] | None = None
    """Class names: of labels 0, 1, ..., or the class folders and named labels to use; in this order."""
    max_broken: float = Field(0.01, ge=0, le=1)
    """Share of images (0 to 1) that may be unusable; they are left out and listed."""


def prepare_tiles(spec: PrepareTilesSpec) -> int:
    """Run a job that writes a tile table; returns the exit code.

    Raises:
        HistoError: If the sources or the settings are bad, or too many images are broken.
    """
    if any(spec.out.glob("*.parquet")):
        raise UsageError(f"--out {spec.out}: already holds a table; give another folder, or remove this one")
    source = read_sources(spec.data, spec.classes)
    if source.images.layout.task != "tiles":
        raise UsageError(
            f"--data {spec.data[0]}: holds {source.images.layout}, and a tile table is for tiles; give volumes to "
            "histo train as they are"
        )
    claim_output(spec.out)
    say(source.describe())
    with session(spec.workers) as resources:
        placement = place(spec.workers, "cpu", resources, cpu_workers=max(1, int(resources.cpus)))
        check_shared(spec.out, *spec.data)
        with RunRecord(spec.out, "prepare tiles", spec, **describe(placement), **source.facts()) as record:
            try:
                found = _write_parts(source, spec.out, placement.workers)
                broken = [error for error in found.errors if error is not None]
                record.finish(0, n_cases=len(found.usable()), broken=broken, data_fingerprint=found.fingerprint(source))
                lines = check_broken(found, spec.max_broken)
            except BaseException:
                _discard(spec.out)
                raise
    say("\n".join([*lines, f"{len(found.usable())} images of {len(source.classes)} classes; table: {spec.out}"]))
    return 0


def _discard(out: Path) -> None:
    """Remove the parts of a table that is not to be used."""
    for part in out.glob("*.parquet"):
        store.remove(part)


def _write_parts(source: Source, out: Path, workers: int) -> Survey:
    """Write every shard as a part, so many at a time; returns what was found on the way."""
    task = ray.remote(num_cpus=1, max_retries=3)(write_shard)
    shared = ray.put(source)
    starts = range(0, len(source.cases), _SHARD)
    footer = TableFooter(source.classes, len(starts))
    found: dict[int, list[Content | str]] = {}
    running: dict[ray.ObjectRef[list[Content | str]], int] = {}
    try:
        for number, start in enumerate(starts):
            if len(running) == workers:
                _collect(running, found, len(starts))
            members = range(start, min(start + _SHARD, len(source.cases)))
            running[task.remote(shared, members, out / f"part-{number:05d}.parquet", footer)] = number
        while running:
            _collect(running, found, len(starts))
    except ray.exceptions.RayError as error:
        for reference in running:
            ray.cancel(reference, force=True)
        ray.wait(list(running), num_returns=len(running), timeout=60)
        raise HistoError(f"{out}: the run was broken off: {root_cause(error)}") from error
    return make_survey([look for number in range(len(starts)) for look in found[number]])


def _collect(
    running: "dict[ray.ObjectRef[list[Content | str]], int]", found: dict[int, list[Content | str]], parts: int
) -> None:
    """Take the result of the task that ends next."""
    (ended, *_), _ = ray.wait(list(running), num_returns=1)
    found[running.pop(ended)] = ray.get(ended)
    say(f"part {len(found)}/{parts}")


def write_shard(source: Source, members: Sequence[int], path: Path, footer: TableFooter) -> list[Content | str]:
    """Write some cases as one part of a table; returns for each its content, or why it is left out."""
    rows, looks = [], []
    for i in members:
        case = source.cases[i]
        look, data = _encode(source, i)
        looks.append(look)
        if isinstance(look, Content):
            rows.append(
                {
                    "case_id": case.case_id,
                    "source": case.source,
                    "label": source.classes[case.label],
                    "group": case.group,
                    "split": case.split,
                    "content_hash": look.content_hash,
                    "size_px": look.edge_px,
                    "image": data,
                }
            )
    write_part(path, rows, footer)
    return looks


def _encode(source: Source, index: int) -> tuple[Content | str, bytes]:
    """Return the content of an image, or why it cannot be used, and its image file."""
    look = examine(source.images, index, source.cases[index].case_id)
    try:
        return look, source.images.encoded(index) if isinstance(look, Content) else b""
    except ImageError as error:
        return str(error), b""
