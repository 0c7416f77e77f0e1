"""Columns of every Parquet table: name, type, unit and meaning."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from histo.regular_file import require_regular
from histo.remote.location import AnyPath, connect
from histo.store import opened, put_atomic

SCHEMA_VERSION = 1

Row = dict[str, Any]
"""A row of a table: its values by column."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Its name; `<CLASS>` stands for the name of each class.
        type: Its Arrow type.
        unit: The unit of its values, empty for names, counts and shares.
        meaning: What a value says.
    """

    name: str
    type: pa.DataType
    unit: str
    meaning: str

    @property
    def per_class(self) -> bool:
        """Whether the table has one such column for each class."""
        return "<CLASS>" in self.name


_STR, _I16, _I32, _I64, _F32, _F64 = pa.string(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()

TILES = (
    Column("slide_id", _STR, "", "path of the slide below the collection's folder"),
    Column("tile_index", _I32, "", "grid_y * columns + grid_x over the full grid"),
    Column("grid_x", _I32, "", "column of the tile in the grid"),
    Column("grid_y", _I32, "", "row of the tile in the grid"),
    Column("x", _I32, "level-0 px", "left edge"),
    Column("y", _I32, "level-0 px", "top edge"),
    Column("width", _I32, "level-0 px", "width, the same for all tiles of a slide"),
    Column("height", _I32, "level-0 px", "height, the same for all tiles of a slide"),
    Column("tissue_fraction", _F32, "", "share of the tile under the tissue mask, 0 to 1"),
    Column("pred", _I16, "", "index of the most probable class, the lowest one of equals"),
    Column("label", _STR, "", "name of the most probable class"),
    Column("confidence", _F32, "", "probability of that class"),
    Column("entropy", _F32, "nats", "entropy of the probabilities"),
    Column("prob_<CLASS>", _F32, "", "probability of the class"),
    Column("status", _STR, "", "`ok`, or `read_error`: pixels not readable, prediction columns null"),
)

QUALITY = (
    Column(
        "focus", _F32, "1", "sharpness: Laplacian over contrast at 1 µm/px; null without contrast, or if not readable"
    ),
    Column("ink", _F32, "", "share of the tile under blue, green or red ink, 0 to 1"),
)

SLIDES = (
    Column("slide_id", _STR, "", "path of the slide below the collection's folder"),
    Column("uri", _STR, "", "where the slide was found"),
    Column("tiles_path", _STR, "", "the slide's tile table, relative to the output folder; null if there is none"),
    Column("content_id", _STR, "", "sha256 over the size and 64 sampled blocks of the slide's files"),
    Column("sha256", _STR, "", "of the slide's whole files; with --verify only"),
    Column("quickhash", _STR, "", "OpenSlide's quickhash-1, where there is one"),
    Column("size_bytes", _I64, "bytes", "size of the slide's files"),
    Column("mtime_ns", _I64, "ns since 1970", "latest change of the slide's files"),
    Column("vendor", _STR, "", "format, as OpenSlide names it"),
    Column("reader", _STR, "", "what decoded the pixels"),
    Column("width", _I32, "level-0 px", "width of the slide"),
    Column("height", _I32, "level-0 px", "height of the slide"),
    Column("bounds_x", _I32, "level-0 px", "left edge of the scanned part; null where the slide names none"),
    Column("bounds_y", _I32, "level-0 px", "its top edge"),
    Column("bounds_width", _I32, "level-0 px", "its width"),
    Column("bounds_height", _I32, "level-0 px", "its height"),
    Column("level", _I16, "", "pyramid level that was read"),
    Column("blocks_left_out", _I32, "", "its empty file blocks where a coarser level shows no tissue: white"),
    Column("blocks_lost", _I32, "", "its other empty file blocks: tiles that need them are `read_error`"),
    Column("mpp_x", _F64, "µm/px", "resolution of level 0 along x"),
    Column("mpp_y", _F64, "µm/px", "resolution of level 0 along y"),
    Column("mpp_source", _STR, "", "`metadata`, or what was given: `list`, `if_missing`, `override`"),
    Column("effective_mpp", _F64, "µm/px", "resolution of the tiles' pixels (geometric mean of x and y)"),
    Column("objective_power", _F64, "", "nominal magnification, where the slide names one"),
    Column("n_tiles", _I32, "", "tiles with enough tissue; n_ok + n_failed"),
    Column("n_ok", _I32, "", "tiles with a prediction"),
    Column("n_failed", _I32, "", "tiles that could not be read"),
    Column("tissue_mm2", _F64, "mm²", "area of the tissue mask"),
    Column("status", _STR, "", "`ok`, `partial`, `failed`, `empty`, `pending` or `absent`"),
    Column("fingerprint", _STR, "", "sha256 of all that the result depends on, or the failure"),
    Column("error_code", _STR, "", "kind of failure"),
    Column("error", _STR, "", "what is wrong and what to do"),
    Column("traceback", _STR, "", "for failures that histo did not foresee"),
    Column(
        "seconds", _F64, "s", "time of planning, reading and network in the run that settled it, summed over threads"
    ),
    Column("attempts", _I32, "", "how often the slide was begun"),
    Column(
        "mask_sha256", _STR, "", "sha256 of the file of its tissue mask; null if masks from elsewhere are not asked for"
    ),
    Column("fraction_<CLASS>", _F64, "", "share of the ok tiles whose `pred` is the class"),
    Column("area_mm2_<CLASS>", _F64, "mm²", "tiles of the class x stride² x effective_mpp²"),
)

PLAN = (
    Column("slide_id", _STR, "", "path of the slide below the collection's folder"),
    Column("uri", _STR, "", "where the slide was found"),
    Column("status", _STR, "", "`ready`, `empty` (no tissue), `fails`, or `unseen` (remote, without --exact)"),
    Column("error_code", _STR, "", "kind of failure"),
    Column("error", _STR, "", "what is wrong and what to do"),
    Column("duplicate_of", _STR, "", "the first slide with the same content; null if it is the first itself"),
    Column("content_id", _STR, "", "sha256 over the size and 64 sampled blocks of the slide's files"),
    Column("size_bytes", _I64, "bytes", "size of the slide's files"),
    Column("mtime_ns", _I64, "ns since 1970", "latest change of the slide's files"),
    Column("vendor", _STR, "", "format, as OpenSlide names it"),
    Column("reader", _STR, "", "what decodes the pixels"),
    Column("width", _I32, "level-0 px", "width of the slide"),
    Column("height", _I32, "level-0 px", "height of the slide"),
    Column("objective_power", _F64, "", "nominal magnification, where the slide names one"),
    Column("mpp_x", _F64, "µm/px", "resolution of level 0 along x"),
    Column("mpp_y", _F64, "µm/px", "resolution of level 0 along y"),
    Column("mpp_source", _STR, "", "`metadata`, or what was given: `list`, `if_missing`, `override`"),
    Column("level", _I16, "", "pyramid level that is read"),
    Column("effective_mpp", _F64, "µm/px", "resolution of the tiles' pixels (geometric mean of x and y)"),
    Column("n_grid", _I32, "", "tiles of the whole grid"),
    Column("n_tiles", _I32, "", "tiles with enough tissue; null without --exact"),
    Column("tissue_mm2", _F64, "mm²", "area of the tissue mask; null without --exact"),
    Column("seconds", _F64, "s", "time that planning took"),
    Column("label_seconds", _F64, "s", "time of one worker that labelling takes, estimated; null without --model"),
)

KEPT_TILES = (
    Column("tile_index", _I32, "", "place of the tile in the grid, row by row"),
    Column("tissue_fraction", _F32, "", "share of the tile that is tissue"),
)

REGIONS = (
    Column("slide_id", _STR, "", "path of the slide below the collection's folder"),
    Column("region_id", _STR, "", "UUID, the same as in the GeoJSON"),
    Column("label", _STR, "", "name of its class"),
    Column("n_tiles", _I32, "", "tiles that were merged"),
    Column("area_mm2", _F64, "mm²", "tiles x stride² x effective_mpp²"),
    Column("mean_confidence", _F64, "", "mean of its tiles' probability of their most probable class"),
    Column("n_holes", _I32, "", "holes of the polygon"),
    Column("x_min", _I32, "level-0 px", "left edge of its bounding box"),
    Column("y_min", _I32, "level-0 px", "top edge"),
    Column("x_max", _I32, "level-0 px", "right edge"),
    Column("y_max", _I32, "level-0 px", "bottom edge"),
    Column("geometry", pa.binary(), "", "outline as well-known binary, level-0 pixels: the table is GeoParquet"),
)

CASES = (
    Column("case_id", _STR, "", "path of the image below its source, or a file and a row in it"),
    Column("source", _STR, "", "name of the source that it is from"),
    Column("label", _STR, "", "name of its class"),
    Column("group", _STR, "", "unit that is never split (a patient); null where unknown"),
    Column("split", _STR, "", "`train`, `val` or `test`; null for an image that takes no part"),
    Column("content_hash", _STR, "", "sha256 of shape and decoded pixels; null for an image that cannot be used"),
    Column("error", _STR, "", "why an image cannot be used"),
)

TILE_IMAGES = (
    Column("case_id", _STR, "", "path of the image below its source, or a file and a row in it"),
    Column("source", _STR, "", "name of the source that it is from"),
    Column("label", _STR, "", "name of its class"),
    Column("group", _STR, "", "unit that is never split (a patient); null where unknown"),
    Column("split", _STR, "", "`train`, `val` or `test` where the source says so, else null"),
    Column("content_hash", _STR, "", "sha256 of shape and decoded pixels"),
    Column("size_px", _I32, "px", "edge of the image"),
    Column("image", pa.binary(), "", "image file: the source's own bytes, or PNG of an array"),
)

_CUT = (
    Column("slide_id", _STR, "", "path of the slide below the collection's folder"),
    Column("x", _I32, "level-0 px", "left edge"),
    Column("y", _I32, "level-0 px", "top edge"),
    Column("width", _I32, "level-0 px", "width"),
    Column("height", _I32, "level-0 px", "height"),
    Column("tissue_fraction", _F32, "", "share of the tile under the tissue mask, 0 to 1"),
    Column("share", _F32, "", "share of the tile that lies in its class, 0 to 1; null without annotations"),
)

CUT_TILES = (*TILE_IMAGES, *_CUT)

CUT_FILES = (
    Column("path", _STR, "", "image file, relative to the output folder"),
    *(column for column in TILE_IMAGES if column.name not in ("case_id", "image")),
    *_CUT,
)

PREDICTIONS = (
    Column("case_id", _STR, "", "path of the image below its source, or a file and a row in it"),
    Column("source", _STR, "", "name of the source that it is from"),
    Column("group", _STR, "", "unit that is never split (a patient); null where unknown"),
    Column("truth", _STR, "", "labelled class"),
    Column("label", _STR, "", "name of the most probable class"),
    Column("pred", _I16, "", "its index"),
    Column("confidence", _F32, "", "its probability"),
    Column("prob_<CLASS>", _F32, "", "probability of the class"),
)

OUT_OF_FOLD = (
    Column("fold", _I32, "", "fold that the case is in: the one that its model did not learn from"),
    *PREDICTIONS,
)

FOLDS = tuple(
    Column("fold", _I32, "", "from 0; null for a case that takes no part") if column.name == "split" else column
    for column in CASES
)

_STUDY = (
    Column("study_id", _STR, "", "path of the study below the collection's folder, or its name in the manifest"),
    Column("uri", _STR, "", "where the study was found"),
)

_STUDY_FACTS = (
    Column("content_id", _STR, "", "sha256 over all bytes of the study's files"),
    Column("files_id", _STR, "", "sha256 over names, sizes and times of change of its files"),
    Column("n_files", _I32, "", "number of its files"),
    Column("size_bytes", _I64, "bytes", "size of its files"),
    Column("mtime_ns", _I64, "ns since 1970", "latest change of its files"),
    Column("format", _STR, "", "format of its files"),
    Column("n_series", _I32, "", "series in the volume"),
    Column("series", pa.list_(_STR), "", "their names, in the order of the channels"),
    Column("n_slices", pa.list_(_I32), "", "slices of each in the study's files"),
    Column("spacing_mm", pa.list_(pa.list_(_F64)), "mm", "of each, distance of slices, rows and columns in the files"),
    Column("notes", _STR, "", "what was left out or taken as it is; null if nothing was"),
    Column("status", _STR, "", "`ok`, `failed`, `pending` or `absent`"),
    Column("fingerprint", _STR, "", "sha256 of all that the result depends on, or the failure"),
    Column("error_code", _STR, "", "kind of failure"),
    Column("error", _STR, "", "what is wrong and what to do"),
    Column("traceback", _STR, "", "for failures that histo did not foresee"),
    Column("seconds", _F64, "s", "working time spent on the study by the run that settled it"),
    Column("attempts", _I32, "", "how often the study was begun"),
)

PREPARED_STUDIES = (
    *_STUDY,
    Column("label", _STR, "", "name of its class; null where unknown"),
    Column("group", _STR, "", "unit that is never split (a patient); null where unknown"),
    Column("split", _STR, "", "`train`, `val` or `test` where the collection says so, else null"),
    Column("volume_path", _STR, "", "the prepared volume, relative to the output folder; null if there is none"),
    Column("sheet_path", _STR, "", "its contact sheet, likewise"),
    *_STUDY_FACTS,
)

LABELLED_STUDIES = (
    *_STUDY,
    Column("pred", _I16, "", "index of the most probable class, the lowest one of equals; null if it failed"),
    Column("label", _STR, "", "name of the most probable class"),
    Column("confidence", _F32, "", "probability of that class"),
    Column("entropy", _F32, "nats", "entropy of the probabilities"),
    Column("prob_<CLASS>", _F32, "", "probability of the class"),
    *_STUDY_FACTS,
)


def schema(
    columns: Iterable[Column], classes: Sequence[str] = (), metadata: Mapping[str, str] | None = None
) -> pa.Schema:
    """Build the Arrow schema of a table, with one column for each class where a name says `<CLASS>`."""
    fields = [
        pa.field(column.name.replace("<CLASS>", name), column.type)
        for column in columns
        for name in (classes if column.per_class else [""])
    ]
    return pa.schema(fields, metadata={f"histo.{key}": value for key, value in (metadata or {}).items()})


def open_table(path: AnyPath) -> pq.ParquetFile:
    """Open a Parquet file, without ever waiting for what is no file.

    Raises:
        OSError: If it cannot be opened, or is no regular file.
        pyarrow.ArrowException: If it is damaged.
    """
    if not isinstance(path, Path):
        return pq.ParquetFile(opened(path), pre_buffer=True)
    require_regular(path)
    return pq.ParquetFile(path)


def dataset(files: Sequence[AnyPath], layout: pa.Schema) -> "pa.dataset.Dataset":
    """Return Parquet files, all in one place, as one dataset, of which only what is asked for is read."""
    from pyarrow.dataset import dataset as opened_as_one  # noqa: PLC0415 -- it loads slowly, and jobs do without

    remote = [str(file) for file in files if not isinstance(file, Path)]
    if not remote:
        return opened_as_one([str(file) for file in files], layout, format="parquet")
    storage = connect(remote[0])[0]
    return opened_as_one([connect(uri)[1] for uri in remote], layout, format="parquet", filesystem=storage)


def footer_value(path: AnyPath, name: str) -> str | None:
    """Return what the footer of a Parquet file says as `histo.NAME`; None if it does not, or cannot be read."""
    try:
        with open_table(path) as file:
            return str(file.schema_arrow.metadata[f"histo.{name}".encode()].decode())
    except (OSError, KeyError, TypeError, pa.ArrowException):
        return None


def write_table(path: AnyPath, table: pa.Table) -> None:
    """Write one Parquet file atomically (zstd)."""
    with put_atomic(path) as file:
        pq.write_table(table, file, compression="zstd")


def rows_table(rows: Sequence[Mapping[str, Any]], layout: pa.Schema) -> pa.Table:
    """Make a table of dicts, each of which may leave columns out (null) but may not add any.

    Raises:
        ValueError: If a row has a key that is no column.
    """
    unknown = {key for row in rows for key in row} - set(layout.names)
    if unknown:
        raise ValueError(f"no such columns: {sorted(unknown)}")
    return pa.table({name: [row.get(name) for row in rows] for name in layout.names}, schema=layout)
