"""Write tiles and regions of a slide as GeoJSON (RFC 7946), as QuPath imports it.

QuPath reads a feature's `id` (a UUID), and of its properties `objectType`, `classification` (`name`, and `color` as
red, green and blue), `name` and `measurements`, numbers by name: `PathObjectTypeAdapter` in its
`QuPathTypeAdapters.java`, from version 0.4 on. Coordinates are pixels of level 0, from the upper left corner of what
QuPath shows, which of a slide with bounds is the part within them.
"""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.colors import to_rgb

from histo import store, tables
from histo.export.regions import Region
from histo.remote.location import AnyPath

MEASURED = ("confidence", "entropy", "tissue_fraction")
"""Columns that are measurements of a tile, beside its quality, if the table has it, and the probabilities."""
_NAMESPACE = uuid.UUID("b0d1f2c3-6c0e-5d53-9c1f-2f6d0a7c9e41")
_ROWS = 20_000
"""Rows of a table that are held at a time."""


class TooLargeError(Exception):
    """The file would be larger than it may be."""


def tile_features(
    table: AnyPath,
    classes: Sequence[str],
    colours: Mapping[str, str],
    origin: tuple[int, int],
    names_in: str,
    only: Sequence[str] | None = None,
    chosen: Set[int] | None = None,
) -> Iterator[str]:
    """Yield a tile object for each row of a tile table, as JSON.

    A tile that could not be read has no class, and is called `read_error`.

    Args:
        table: The tile table.
        classes: All classes.
        colours: Of all classes, `#RRGGBB`.
        origin: What is subtracted from places, level-0 pixels.
        names_in: Name of the slide and its table; a tile's UUID is made of it and of the tile's index.
        only: Classes that are exported; None for all, and for tiles that could not be read.
        chosen: Indices of the tiles that are exported; None for all.

    Raises:
        OSError: If the table cannot be read.
        pyarrow.ArrowException: Likewise.
    """
    classification = {name: json.dumps(_classification(name, colours)) for name in classes}
    with tables.open_table(table) as file:
        optional = [column.name for column in tables.QUALITY if column.name in file.schema_arrow.names]
        measured = [*MEASURED, *optional, *(f"prob_{name}" for name in classes)]
        names = [json.dumps(name) for name in measured]
        columns = ["tile_index", "x", "y", "width", "height", "label", *measured]
        for batch in file.iter_batches(_ROWS, columns=columns):
            rows = pa.table({name: batch.column(name) for name in columns})
            places = zip(*(rows[name].to_pylist() for name in columns[:6]), strict=True)
            values = zip(*(_numbers(rows[name]) for name in measured), strict=True)
            for (index, x, y, width, height, label), numbers in zip(places, values, strict=True):
                if (only is not None and label not in only) or (chosen is not None and index not in chosen):
                    continue
                left, top = x - origin[0], y - origin[1]
                ring = _ring(left, top, left + width, top + height)
                said = ",".join(f"{name}:{value}" for name, value in zip(names, numbers, strict=True) if value)
                of = f'"classification":{classification[label]}' if label else '"name":"read_error"'
                yield (
                    f'{{"type":"Feature","id":"{_uuid(names_in, index)}",'
                    f'"geometry":{{"type":"Polygon","coordinates":[{ring}]}},'
                    f'"properties":{{"objectType":"tile",{of},"measurements":{{{said}}}}}}}'
                )


def least_certain(table: AnyPath, count: int, only: Sequence[str] | None = None) -> frozenset[int]:
    """Return the indices of the tiles of least confidence; of equals, those that come first.

    Args:
        table: The tile table.
        count: Of tiles; there may be fewer.
        only: Classes of which they are; None for all.

    Raises:
        OSError: If the table cannot be read.
        pyarrow.ArrowException: Likewise.
    """
    with tables.open_table(table) as file:
        rows = file.read(["tile_index", "label", "confidence"])
    wanted = pc.is_valid(rows["label"]) if only is None else pc.is_in(rows["label"], pa.array(only, pa.string()))
    rows = rows.filter(wanted)
    order = np.argsort(rows["confidence"].to_numpy(), kind="stable")[:count]
    return frozenset(rows["tile_index"].to_numpy()[order].tolist())


def region_features(
    regions: Sequence[Region], colours: Mapping[str, str], origin: tuple[int, int], names_in: str
) -> Iterator[str]:
    """Yield an annotation for each region, as JSON; see `tile_features`."""
    for number, region in enumerate(regions):
        rings = [region.polygon.exterior, *region.polygon.interiors]
        coordinates = [[[round(x) - origin[0], round(y) - origin[1]] for x, y in ring.coords] for ring in rings]
        yield json.dumps(
            {
                "type": "Feature",
                "id": region_id(names_in, number),
                "geometry": {"type": "Polygon", "coordinates": coordinates},
                "properties": {
                    "objectType": "annotation",
                    "classification": _classification(region.name, colours),
                    "measurements": {
                        "n_tiles": region.n_tiles,
                        "area_mm2": region.area_mm2,
                        "mean_confidence": region.mean_confidence,
                    },
                },
            },
            separators=(",", ":"),
        )


def region_id(names_in: str, number: int) -> str:
    """Return the UUID of a region, given what its slide, table and way of merging are called."""
    return _uuid(names_in, f"region {number}")


def write_features(target: AnyPath, said: Mapping[str, Any], features: Iterator[str], most_bytes: int) -> None:
    """Write a feature collection, a feature at a time, atomically.

    Args:
        target: The file.
        said: What else it says of itself, as its member `histo`, which comes first.
        features: As JSON.
        most_bytes: Of the file.

    Raises:
        TooLargeError: If it would be larger.
    """
    with store.put_atomic(target) as file:
        size = file.write(f'{{"type":"FeatureCollection","histo":{json.dumps(said)},"features":['.encode())
        for number, feature in enumerate(features):
            size += file.write(f"{',' if number else ''}\n{feature}".encode())
            if size > most_bytes:
                raise TooLargeError
        file.write(b"\n]}\n")


def read_said(path: AnyPath) -> dict[str, Any]:
    """Return what a file of histo's says of itself.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is none.
    """
    with store.opened(path) as file:
        head = file.readline(2**20)
    found: dict[str, Any] = json.loads(head.rstrip().removesuffix(b"[") + b"[]}")["histo"]
    return found


def _classification(name: str, colours: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, "color": [round(255 * part) for part in to_rgb(colours[name])]}


def _numbers(column: pa.ChunkedArray) -> list[str | None]:
    """Write numbers as the shortest text that reads back as the same float32; what is no number is left out."""
    finite = pc.if_else(pc.is_finite(column), column, None)
    texts: list[str | None] = pc.cast(finite, pa.string()).to_pylist()
    return texts


def _ring(left: int, top: int, right: int, bottom: int) -> str:
    return f"[[{left},{top}],[{right},{top}],[{right},{bottom}],[{left},{bottom}],[{left},{top}]]"


def _uuid(names_in: str, name: object) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{names_in}/{name}"))
