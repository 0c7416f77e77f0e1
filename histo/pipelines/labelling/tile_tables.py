"""Tile tables: parts of a slide in work, then one file per slide.

A part's name depends on the slide, its fingerprint and the region alone, so a second attempt overwrites its own part
and nothing else.
"""

import errno
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from histo import store, tables
from histo.input_files import safe_path, table_path
from histo.pipelines.labelling.tasks import Counts, LabelJob, SlideWork
from histo.remote.location import AnyPath
from histo.run.run_folder import remove_traces
from histo.slides.grid import Region
from histo.tables import Row

_ASIDE = "finished.table"
"""Name of a table that is set aside among the parts of its slide."""
_AT_ONCE = 8
"""Parts that are read at a time."""


def tiles_file(out: AnyPath, slide_id: str) -> AnyPath:
    """Where the finished table of a slide stands."""
    return out / "tiles" / table_path(slide_id)


def parts_folder(out: AnyPath, slide_id: str, fingerprint: str) -> AnyPath:
    """Where the parts of an unfinished slide stand."""
    return out / "staging" / "parts" / fingerprint[:16] / safe_path(slide_id)


def tile_table(
    job: LabelJob,
    region: Region,
    work: SlideWork,
    probabilities: npt.NDArray[np.float32],
    bad: npt.NDArray[np.bool_],
    quality: npt.NDArray[np.float32] | None = None,
) -> pa.Table:
    """Make the rows of a region, see `tables.TILES`.

    Args:
        job: The run.
        region: Its tiles.
        work: Of which slide, and how they were read.
        probabilities: `(tiles, classes)`.
        bad: Which tiles could not be read, `(tiles,)`; their probabilities mean nothing.
        quality: Focus and ink, NaN where there is none, `(tiles, 2)`; None if it is not measured.
    """
    grid_x, grid_y = work.grid.places(region.tile_index)
    n = len(region.tile_index)
    known = np.where(bad[:, None], 1 / len(job.classes), probabilities)
    pred = known.argmax(axis=1)
    entropy = -np.sum(known * np.log(np.maximum(known, np.finfo(np.float32).tiny)), axis=1)
    values: dict[str, pa.Array] = {
        "slide_id": pa.array([work.slide_id] * n),
        "tile_index": pa.array(region.tile_index),
        "grid_x": pa.array(grid_x),
        "grid_y": pa.array(grid_y),
        "x": pa.array(work.grid.x(grid_x)),
        "y": pa.array(work.grid.y(grid_y)),
        "width": pa.array([work.grid.width] * n),
        "height": pa.array([work.grid.height] * n),
        "tissue_fraction": pa.array(region.tissue_fraction),
        "pred": pa.array(pred, mask=bad),
        "label": pa.array(np.array(job.classes, object)[pred], mask=bad),
        "confidence": pa.array(known.max(axis=1), mask=bad),
        "entropy": pa.array(entropy, mask=bad),
        "status": pa.array(np.where(bad, "read_error", "ok").astype(object)),
    }
    values |= {f"prob_{name}": pa.array(known[:, i], mask=bad) for i, name in enumerate(job.classes)}
    values |= {} if quality is None else _quality_columns(quality)
    layout = tile_schema(job, work)
    return pa.table([values[field.name].cast(field.type) for field in layout], schema=layout)


def _quality_columns(quality: npt.NDArray[np.float32]) -> dict[str, pa.Array]:
    missing = np.isnan(quality)
    columns = enumerate(tables.QUALITY)
    return {column.name: pa.array(quality[:, i], column.type, mask=missing[:, i]) for i, column in columns}


def with_quality(rows: pa.Table, quality: npt.NDArray[np.float32]) -> pa.Table:
    """Return rows of a table with their quality in the place of what it says of it."""
    for name, values in _quality_columns(quality).items():
        rows = rows.drop_columns(name) if name in rows.column_names else rows
        rows = rows.append_column(name, values)
    return rows


def is_complete(job: LabelJob, slide_id: str) -> bool:
    """Whether a slide's table has all columns that a run asks for."""
    try:
        with tables.open_table(tiles_file(job.out, slide_id)) as file:
            return has_columns(job, file.schema_arrow)
    except (OSError, pa.ArrowException):
        return False


def has_columns(job: LabelJob, layout: pa.Schema) -> bool:
    """Whether a table of this layout has all columns that a run asks for."""
    return not job.quality or all(column.name in layout.names for column in tables.QUALITY)


def tile_schema(job: LabelJob, work: SlideWork) -> pa.Schema:
    """Describe a slide's table: the columns, and in the footer what made them."""
    footer = {
        "schema_version": str(tables.SCHEMA_VERSION),
        "fingerprint": work.fingerprint,
        "model_sha256": job.weights_sha256,
        "classes": json.dumps(job.classes),
        "tiling": json.dumps(
            {
                "size_px": job.size_px,
                "stride_px": job.stride_px,
                "mpp": job.mpp,
                "effective_mpp": [work.sampling.effective_mpp_x, work.sampling.effective_mpp_y],
                "level": work.sampling.level,
            }
        ),
        "precision": json.dumps({"precision": job.precision, "agreement": job.agreement}),
        "versions": json.dumps(job.versions),
        "slide": json.dumps(work.columns),
    }
    return tables.schema((*tables.TILES, *(tables.QUALITY if job.quality else ())), job.classes, footer)


def write_region(job: LabelJob, region: Region, work: SlideWork, table: pa.Table) -> None:
    """Write a region's part; the only region of a slide becomes the slide's file at once, if the slide has a result."""
    if work.n_regions == 1:
        counts = count(table, job.classes)
        if job.tolerates(counts.n_ok, counts.n_failed):
            tables.write_table(tiles_file(job.out, work.slide_id), table)
    else:
        tables.write_table(part_file(job.out, region, work), table)


def part_file(out: AnyPath, region: Region, work: SlideWork) -> AnyPath:
    """Where the part of one region stands."""
    return parts_folder(out, work.slide_id, work.fingerprint) / f"{region.name}.parquet"


def staged_part(job: LabelJob, region: Region, work: SlideWork) -> pa.Table | None:
    """Return the rows of a region that an earlier attempt has written, if they are whole."""
    if work.n_regions == 1:
        return None
    table = _read(part_file(job.out, region, work), work.fingerprint)
    if table is None or table["tile_index"].to_pylist() != region.tile_index.tolist():
        return None
    return table if has_columns(job, table.schema) else None


def finished_table(job: LabelJob, slide_id: str, fingerprint: str) -> pa.Table | None:
    """Return a slide's table if it has this fingerprint, by which alone work counts as done; also one set aside."""
    path, aside = tiles_file(job.out, slide_id), parts_folder(job.out, slide_id, fingerprint) / _ASIDE
    table = _read(path, fingerprint)
    if table is None and (table := _read(aside, fingerprint)) is not None:
        store.move(aside, path)
    return table


def known_rows(region: Region, table: pa.Table) -> pa.Table | None:
    """Return the rows of a region in the finished table of its slide, if all are there, and each was read."""
    found = table.filter(pc.is_in(table["tile_index"], pa.array(region.tile_index, pa.int32())))
    is_whole = found["tile_index"].to_pylist() == region.tile_index.tolist() and not found["pred"].null_count
    return found if is_whole else None


def _read(path: AnyPath, fingerprint: str) -> pa.Table | None:
    try:
        with tables.open_table(path) as file:
            return file.read() if _fingerprint(file.schema_arrow) == fingerprint else None
    except (OSError, pa.ArrowException):
        return None


def is_finished(out: AnyPath, slide_id: str, fingerprint: str, n_tiles: int) -> bool:
    """Whether a slide's table has this fingerprint and as many rows; only the footer is read."""
    try:
        with tables.open_table(tiles_file(out, slide_id)) as file:
            return _fingerprint(file.schema_arrow) == fingerprint and file.metadata.num_rows == n_tiles
    except (OSError, pa.ArrowException):
        return False


def _fingerprint(layout: pa.Schema) -> str:
    footer: dict[bytes, bytes] = layout.metadata or {}
    return footer.get(b"histo.fingerprint", b"").decode()


def slide_columns(table: pa.Table) -> Row:
    """Return what the footer of a slide's table says of the slide: the ledger's columns that planning knew."""
    columns: Row = json.loads(table.schema.metadata[b"histo.slide"])
    return columns


def kept_counts(job: LabelJob, region: Region, work: SlideWork) -> Counts | None:
    """Count the tiles of a part that an earlier attempt has made, if there is one."""
    part = staged_part(job, region, work)
    return None if part is None else count(part, job.classes)._replace(is_kept=True)


def count(table: pa.Table, classes: tuple[str, ...]) -> Counts:
    """Count the rows of tiles."""
    pred = table["pred"].drop_null().to_numpy()
    return Counts(len(pred), len(table) - len(pred), np.bincount(pred, minlength=len(classes)).tolist())


def merge_slide(job: LabelJob, slide_id: str, fingerprint: str, regions: Sequence[str], n_tiles: int) -> None:
    """Join the parts of a slide into its one file, sorted by tile, and remove them; once more does no harm.

    Args:
        job: The run.
        slide_id: The slide.
        fingerprint: Of its result.
        regions: Names of its regions; what else an earlier plan may have left is not used.
        n_tiles: Number of its tiles.
    """
    folder = parts_folder(job.out, slide_id, fingerprint)
    there = {part.name for part in store.list_files(folder)}
    staged = [folder / f"{name}.parquet" for name in sorted(regions)]
    if not all(part.name in there for part in staged) and is_finished(job.out, slide_id, fingerprint, n_tiles):
        store.remove(folder)  # the task was lost while it did this
        return
    columns = (*tables.TILES, *(tables.QUALITY if job.quality else ()))
    names = [field.name for field in tables.schema(columns, job.classes)]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        merged = pa.concat_tables(threads.map(partial(_columns_of, names), staged)).sort_by("tile_index")
    index = merged["tile_index"].to_numpy()
    assert len(index) == n_tiles, f"{slide_id}: {len(index)} rows of {n_tiles} tiles"
    assert (np.diff(index) > 0).all(), f"{slide_id}: a tile is there twice"
    tables.write_table(tiles_file(job.out, slide_id), merged)
    store.remove(folder)


def _columns_of(names: Sequence[str], part: AnyPath) -> pa.Table:
    """Read a part in one request."""
    content = store.content_of(part)
    if content is None:
        raise FileNotFoundError(errno.ENOENT, "no such file", str(part))
    return pq.ParquetFile(pa.BufferReader(content)).read(list(names))


def forget(out: AnyPath, slide_id: str) -> None:
    """Remove what is staged of a slide, of whatever fingerprint."""
    for folder in store.children(out / "staging" / "parts"):
        store.remove(folder / safe_path(slide_id))


def discard_slide(job: LabelJob, slide_id: str, for_good: bool) -> None:
    """Take away the table that stands there of a slide that has no result now.

    Unless it is for good, the table is only set aside: what a lost drive makes fail today may be as it was tomorrow.
    """
    path = tiles_file(job.out, slide_id)
    try:
        fingerprint = "" if for_good else _fingerprint(tables.open_table(path).schema_arrow)
    except (OSError, pa.ArrowException):
        fingerprint = ""
    if fingerprint:
        store.move(path, parts_folder(job.out, slide_id, fingerprint) / _ASIDE)
    else:
        store.remove(path)


def sweep(out: AnyPath, keep: Iterable[str]) -> None:
    """Remove what a run needed on its way, but the parts of slides that are to go on, given by `slide_id`."""
    remove_traces(out, "tiles")
    kept = {safe_path(slide_id) for slide_id in keep}
    for path, slide in list(_staged(out)):
        if slide not in kept:
            store.remove(path)
    store.remove_empty_folders(out / "staging")


def _staged(out: AnyPath) -> Iterator[tuple[AnyPath, str]]:
    """Yield the files that are staged, each with the slide that it is a part of; others with no name."""
    staging = out / "staging"
    for path in store.list_files(staging):
        yield path, "/".join(path.parent.parts[len(staging.parts) + 2 :])
