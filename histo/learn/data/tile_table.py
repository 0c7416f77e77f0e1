"""Encoded images in Parquet files: random access, and tile tables.

A tile table is a folder of parts. Each has the columns of `histo.tables.TILE_IMAGES`, row groups of a few images, so
that reading one reads little else, page checksums, and in its footer the classes and the number of parts.
"""

import json
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from histo import tables
from histo.errors import ImageError
from histo.learn.array_layout import TILES, Layout
from histo.learn.data.images import Content, decode
from histo.regular_file import read_regular
from histo.resample import Pixels
from histo.store import put_atomic

INDEX = "table.json"
ROWS_PER_GROUP = 4
"""Images in a row group, of which reading one reads all; see docs/decisions/0005-tile-tables.md."""
_ROW_GROUPS_KEPT = 2
_ROWS_AT_A_TIME = 16 * ROWS_PER_GROUP
"""That are in memory while a part is written."""


@dataclass(frozen=True)
class TableFooter:
    """What a part of a tile table says of the whole.

    Attributes:
        classes: Names of the classes in order.
        parts: Number of parts of the table; 0 if its index says all of this, `TableIndex`.
    """

    classes: tuple[str, ...]
    parts: int


class TableIndex(BaseModel):
    """What `table.json` says of a table whose parts come and go: tiles that were cut from slides."""

    model_config = ConfigDict(frozen=True)

    classes: tuple[str, ...]
    """Names of the classes in order; none of tiles without labels."""
    mpp: float = Field(gt=0, allow_inf_nan=False)
    """Resolution of the tiles (µm/px)."""
    parts: dict[str, str]
    """Names of the files of all parts, and the key that the footer of each has."""


IN_INDEX = TableFooter((), 0)
"""The footer of a part of a table that has an index."""


def read_index(folder: Path) -> TableIndex | None:
    """Return the index of a table, or None if it has none.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged.
    """
    path = folder / INDEX
    return TableIndex.model_validate_json(read_regular(path)) if path.exists() else None


def read_footer(schema: pa.Schema) -> TableFooter | None:
    """Return what the footer of a Parquet file says, or None if `prepare tiles` did not write it.

    Raises:
        pyarrow.ArrowInvalid: If it is damaged.
    """
    metadata = schema.metadata or {}
    if metadata.get(b"histo.table") != b"tiles":
        return None
    try:
        return TableFooter(tuple(json.loads(metadata[b"histo.classes"])), int(metadata[b"histo.parts"]))
    except (KeyError, ValueError, TypeError):
        raise pa.ArrowInvalid("its footer is damaged; prepare it again") from None


def write_part(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    footer: TableFooter,
    columns: Sequence[tables.Column] = tables.TILE_IMAGES,
    said: Mapping[str, str] | None = None,
) -> None:
    """Write one part of a tile table atomically, a few rows at a time.

    Args:
        path: The file.
        rows: With the columns of the table.
        footer: What the part says of the whole.
        columns: Of the table.
        said: What else its footer says.
    """
    metadata = {
        "table": "tiles",
        "schema_version": str(tables.SCHEMA_VERSION),
        "classes": json.dumps(footer.classes),
        "parts": str(footer.parts),
        **(said or {}),
    }
    schema = tables.schema(columns, metadata=metadata)
    with (
        put_atomic(path) as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="none",  # the images are compressed already
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        ) as writer,
    ):
        following = iter(rows)
        while some := [*islice(following, _ROWS_AT_A_TIME)]:
            writer.write_table(tables.rows_table(some, schema), row_group_size=ROWS_PER_GROUP)


@dataclass
class _Files:
    """The open files of one process: each is opened at its first use, and the last row groups read are kept."""

    pid: int
    lock: Lock = field(default_factory=Lock)
    files: dict[Path, tuple[pq.ParquetFile, list[int]]] = field(default_factory=dict)
    kept: OrderedDict[tuple[Path, int], pa.ChunkedArray] = field(default_factory=OrderedDict)

    def image(self, path: Path, row: int) -> bytes | None:
        """Return the bytes of one row."""
        with self.lock:
            file, ends = self._open(path)
            group = bisect_right(ends, row)
            if (path, group) not in self.kept:
                self.kept[path, group] = file.read_row_group(group, columns=["image"], use_threads=False).column(0)
            self.kept.move_to_end((path, group))
            if len(self.kept) > _ROW_GROUPS_KEPT:
                self.kept.popitem(last=False)
            images = self.kept[path, group]
        start = ends[group - 1] if group else 0
        data: bytes | None = images[row - start].as_py()
        return data

    def _open(self, path: Path) -> tuple[pq.ParquetFile, list[int]]:
        """Open a file; returns with it the row behind the last one of each row group."""
        if path not in self.files:
            file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
            counts = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            self.files[path] = file, list(accumulate(counts))
        return self.files[path]


class TableImages:
    """The column `image` of Parquet files, one after the other. Every process opens the files for itself.

    Args:
        paths: The files.
        counts: Number of rows of each.
        contents: What is known of every image; empty where nothing is.
    """

    layout: ClassVar[Layout] = TILES

    def __init__(self, paths: Sequence[Path], counts: Sequence[int], contents: Sequence[Content] = ()) -> None:
        self._paths, self._counts, self._contents = tuple(paths), tuple(counts), tuple(contents)
        self._ends = list(accumulate(counts))
        self._files = _Files(os.getpid())

    def __reduce__(self) -> tuple[type["TableImages"], tuple[Any, ...]]:
        """Pickle without the open files."""
        return TableImages, (self._paths, self._counts, self._contents)

    def load(self, index: int) -> Pixels:
        """See `Images.load`."""
        return decode(self._name(index), self.encoded(index))

    def encoded(self, index: int) -> bytes:
        """Return the bytes of one row."""
        if self._files.pid != os.getpid():  # in a fork: what the parent opened is the parent's
            self._files = _Files(os.getpid())
        path, row = self._find(index)
        try:
            data = self._files.image(path, row)
        except (OSError, pa.ArrowException) as error:
            raise ImageError(
                f"{self._name(index)}: not readable ({error}); the file is damaged, write it anew"
            ) from None
        if data is None:
            raise ImageError(f"{self._name(index)}: the image is null; fill or remove the row")
        return data

    def recorded_content(self, index: int) -> Content | None:
        """Return what a tile table says of one image."""
        return self._contents[index] if self._contents else None

    def _find(self, index: int) -> tuple[Path, int]:
        part = bisect_right(self._ends, index)
        return self._paths[part], index - (self._ends[part - 1] if part else 0)

    def _name(self, index: int) -> str:
        path, row = self._find(index)
        return f"{path}#{row}"
