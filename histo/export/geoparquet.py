"""Write tables with outlines as GeoParquet 1.1, for geopandas, DuckDB and QGIS.

The column `geometry` has outlines as well-known binary, in pixels of level 0, y downwards; there is no reference system
of the earth (`crs` is null). Specification: geoparquet.org/releases/v1.1.0.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from histo import store, tables
from histo.remote.location import AnyPath

GEOMETRY = "geometry"
_ROWS = 20_000
"""Rows of a table that are held at a time."""


def geo_metadata(types: Sequence[str], bounds: tuple[float, ...] | None) -> dict[bytes, bytes]:
    """Return the entry of a Parquet footer that makes a table GeoParquet.

    Args:
        types: Kinds of geometry, such as `Polygon`.
        bounds: Of all outlines `(x_min, y_min, x_max, y_max)`, level-0 pixels; None where there are none.
    """
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": [*types], "crs": None}
    column |= {} if bounds is None else {"bbox": [*bounds]}
    document = {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
    return {b"geo": json.dumps(document).encode()}


def outlines(areas: npt.NDArray[np.object_]) -> pa.Array:
    """Return polygons as well-known binary."""
    return pa.array(shapely.to_wkb(areas).tolist(), pa.binary())


def write_geoparquet(table: AnyPath, target: AnyPath, key: str) -> None:
    """Write a tile table with the outline of each tile, atomically.

    Args:
        table: The tile table.
        target: The file.
        key: What it was made of; it stands in its footer.

    Raises:
        OSError: If the table cannot be read.
        pyarrow.ArrowException: Likewise.
    """
    with tables.open_table(table) as file:
        places = file.read(["x", "y", "width", "height"])
        x, y, width, height = (places[name].to_numpy() for name in places.column_names)
        bounds = (int(x.min()), int(y.min()), int((x + width).max()), int((y + height).max())) if len(x) else None
        metadata = {
            **(file.schema_arrow.metadata or {}),
            **geo_metadata(["Polygon"], bounds),
            b"histo.key": key.encode(),
        }
        layout = file.schema_arrow.append(pa.field(GEOMETRY, pa.binary())).with_metadata(metadata)
        with store.put_atomic(target) as out, pq.ParquetWriter(out, layout, compression="zstd") as writer:
            for batch in file.iter_batches(_ROWS):
                x, y, width, height = (batch.column(name).to_numpy() for name in places.column_names)
                boxes = shapely.box(x, y, x + width, y + height, ccw=True)
                writer.write_table(pa.table([*batch.columns, outlines(boxes)], schema=layout))
