"""Where the rows of tiles lie: parts of a slide while it is worked on, then one file per slide.

A part's name depends on the slide, its fingerprint and the region alone, so a second attempt overwrites its own part
and nothing else.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from histo import store, tables
from histo.errors import Cause, SlideError
from histo.pipelines.work import LabelJob, SlideWork
from histo.slides.collection import safe_path, table_path
from histo.slides.grid import Region

_MAX_ATTEMPTS = 2


def tiles_file(out: Path, slide_id: str) -> Path:
    """Where the finished table of a slide stands."""
    return out / "tiles" / table_path(slide_id)


def parts_folder(out: Path, slide_id: str, fingerprint: str) -> Path:
    """Where the parts of an unfinished slide stand."""
    return out / "staging" / "parts" / fingerprint[:16] / safe_path(slide_id)


def tile_table(
    job: LabelJob,
    slide_id: str,
    region: Region,
    work: SlideWork,
    probabilities: npt.NDArray[np.float32],
    bad: npt.NDArray[np.bool_],
) -> pa.Table:
    """Make the rows of a region, see `tables.TILES`.

    Args:
        job: The run.
        slide_id: Which slide.
        region: Its tiles.
        work: How they were read.
        probabilities: `(tiles, classes)`.
        bad: Which tiles could not be read, `(tiles,)`; their probabilities mean nothing.
    """
    grid_x, grid_y = work.grid.places(region.tile_index)
    count = len(region.tile_index)
    known = np.where(bad[:, None], 1 / len(job.classes), probabilities)
    pred = known.argmax(axis=1)
    entropy = -np.sum(known * np.log(np.maximum(known, np.finfo(np.float32).tiny)), axis=1)
    values: dict[str, pa.Array] = {
        "slide_id": pa.array([slide_id] * count),
        "tile_index": pa.array(region.tile_index),
        "grid_x": pa.array(grid_x),
        "grid_y": pa.array(grid_y),
        "x": pa.array(work.grid.x(grid_x)),
        "y": pa.array(work.grid.y(grid_y)),
        "width": pa.array([work.grid.width] * count),
        "height": pa.array([work.grid.height] * count),
        "tissue_fraction": pa.array(region.tissue_fraction),
        "pred": pa.array(pred, mask=bad),
        "label": pa.array(np.array(job.classes, object)[pred], mask=bad),
        "confidence": pa.array(known.max(axis=1), mask=bad),
        "entropy": pa.array(entropy, mask=bad),
        "status": pa.array(np.where(bad, "read_error", "ok").astype(object)),
    }
    values |= {f"prob_{name}": pa.array(known[:, i], mask=bad) for i, name in enumerate(job.classes)}
    layout = tile_schema(job, work)
    return pa.table([values[field.name].cast(field.type) for field in layout], schema=layout)


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
        "versions": json.dumps(job.versions),
    }
    return tables.schema(tables.TILES, job.classes, footer)


def write_region(job: LabelJob, slide_id: str, region: Region, work: SlideWork, table: pa.Table) -> None:
    """Write a region's part; the only region of a slide becomes the slide's file at once, if the slide has a result."""
    if work.n_regions == 1:
        n_failed = table["pred"].null_count
        if job.tolerates(len(table) - n_failed, n_failed):
            tables.write_table(tiles_file(job.out, slide_id), table)
    else:
        tables.write_table(parts_folder(job.out, slide_id, work.fingerprint) / f"{region.name}.parquet", table)


def merge_slide(job: LabelJob, slide_id: str, fingerprint: str, n_tiles: int) -> None:
    """Join the parts of a slide into its one file, sorted by tile, and remove them."""
    folder = parts_folder(job.out, slide_id, fingerprint)
    merged = pa.concat_tables(pq.read_table(part) for part in sorted(folder.glob("*.parquet"))).sort_by("tile_index")
    index = merged["tile_index"].to_numpy()
    assert len(index) == n_tiles, f"{slide_id}: {len(index)} rows of {n_tiles} tiles"
    assert (np.diff(index) > 0).all(), f"{slide_id}: a tile is there twice"
    tables.write_table(tiles_file(job.out, slide_id), merged)
    store.remove(folder)


def discard_slide(job: LabelJob, slide_id: str, fingerprint: str | None) -> None:
    """Remove what stands there of a slide that turned out to have no result."""
    store.remove(tiles_file(job.out, slide_id))
    if fingerprint:
        store.remove(parts_folder(job.out, slide_id, fingerprint))


@contextmanager
def attempt(job: LabelJob, slide_id: str, name: str) -> Iterator[None]:
    """Count attempts that never come back, so that work which kills its process is not repeated for ever.

    Raises:
        SlideError: If the same work was lost with its worker before, as often as is allowed.
    """
    marker = job.out / "staging" / "attempts" / safe_path(slide_id) / name
    lost = marker.stat().st_size if marker.exists() else 0
    if lost >= _MAX_ATTEMPTS:
        raise SlideError(
            Cause.WORKER_LOST,
            f"{slide_id}: {lost} workers were lost while they read it ({name}); the file may crash its decoder, or "
            "memory ran out; convert or replace it, or use fewer workers",
        )
    marker.parent.mkdir(parents=True, exist_ok=True)
    with marker.open("ab") as file:
        file.write(b".")
    try:
        yield
    finally:  # not reached by a process that dies
        marker.unlink(missing_ok=True)
