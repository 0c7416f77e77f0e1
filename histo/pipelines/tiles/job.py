"""Write a tile table: source -> shards, a task each -> parts of the table."""

from collections.abc import Sequence
from pathlib import Path

import ray
import ray.exceptions

from histo import store
from histo.errors import HistoError, ImageError
from histo.learn.data.images import Content
from histo.learn.data.inspection import Inspection, check_broken, examine, make_inspection
from histo.learn.data.source import Source
from histo.learn.data.tile_table import TableFooter, write_part
from histo.pipelines.tiles.spec import PrepareTilesSpec
from histo.run.cluster import check_shared, describe, root_cause, session
from histo.run.placement import one_each
from histo.run.run_folder import RunFolder
from histo.run.say import say

_SHARD = 1024
"""Cases of a part; a task holds the encoded images of one in memory."""


def write_table(folder: RunFolder, spec: PrepareTilesSpec, source: Source) -> int:
    """Write the cases of a source to a tile table; returns the exit code.

    Args:
        folder: Of the table, held.
        spec: The settings.
        source: The cases.

    Raises:
        HistoError: If too many images are broken, or Ray cannot go on.
    """
    with session(spec.workers) as resources:
        placement = one_each(spec.workers, "cpu", resources)
        check_shared(spec.out, *(spec.data or ()))
        with folder.record(spec, **describe(placement), **source.facts()) as record:
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


def _write_parts(source: Source, out: Path, workers: int) -> Inspection:
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
    return make_inspection([look for number in range(len(starts)) for look in found[number]])


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
