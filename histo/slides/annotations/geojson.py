"""Read GeoJSON (RFC 7946) as QuPath and other programs write it.

Taken are polygons and multipolygons, also in geometry collections, of a feature collection, a list of features or one
feature. The name is that of the property `classification` (its `name`, or the text itself). Points and lines enclose
nothing, and cells and other detections are no regions of tissue; both are counted and left out. Coordinates are pixels
of level 0.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from histo.regular_file import read_regular
from histo.slides.annotations.shapes import Drawing, Points, Shape, bad, polygon

_MOST_BYTES = 2**30
_NO_REGION = {"detection", "cell", "root", "tma_core"}
"""QuPath's types of objects that are no regions; `annotation` and `tile` are."""
_NO_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")
_DEEPEST = 8
"""Collections within collections that are followed."""


def read_geojson(path: Path) -> Drawing:
    """Read the shapes of a file.

    Raises:
        SlideError: If it is not GeoJSON, or a shape cannot be used; it names the feature.
    """
    notes: Counter[str] = Counter()
    shapes = []
    for number, feature in enumerate(_features(path), start=1):
        place = f"feature {number}"
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            kind = feature.get("type") if isinstance(feature, dict) else type(feature).__name__
            raise bad(str(path), f"{place} is no Feature but {kind!r}; export the objects as one feature collection")
        if isinstance(feature.get("id"), str):
            place += f" ({feature['id'][:40]})"
        properties = feature.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        if str(properties.get("objectType", properties.get("object_type", ""))).lower() in _NO_REGION:
            notes["detections, left out"] += 1
            continue
        try:
            parts = [*_areas(feature.get("geometry"), notes, 0)]
            if parts:
                area = parts[0] if len(parts) == 1 else shapely.union_all(parts)
                shapes.append(Shape(_name(properties), area, place))
        except (ValueError, TypeError, OverflowError) as error:
            raise bad(str(path), f"{place}: {error}; mend it there, or remove it") from None
    return Drawing(str(path), tuple(shapes), +notes)


def _features(path: Path) -> list[Any]:
    try:
        document = json.loads(read_regular(path, _MOST_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise bad(str(path), f"{error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        said = "too deeply nested" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise bad(str(path), f"not JSON ({said}); export it again") from None
    if isinstance(document, list):
        return document
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "Feature":
        return [document]
    features = document.get("features") if kind == "FeatureCollection" else None
    if not isinstance(features, list):
        raise bad(str(path), "not GeoJSON: neither a feature collection nor a list of features; export it again")
    return features


def _name(properties: dict[str, Any]) -> str | None:
    """Return the class that a feature names."""
    named = properties.get("classification")
    if isinstance(named, dict):
        named = named.get("name") or ": ".join(map(str, named.get("names") or [])) or None
    if named is not None and not isinstance(named, str):
        raise TypeError(f"its classification is {named!r}, not a name")
    return named.strip() or None if named else None


def _areas(geometry: Any, notes: Counter[str], depth: int) -> Iterator[shapely.Geometry]:
    """Yield the polygons of a geometry."""
    if geometry is None:
        notes["features without a geometry, left out"] += 1
        return
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind in _NO_AREA:
        notes["points and lines, left out"] += 1
    elif kind == "GeometryCollection" and depth < _DEEPEST and isinstance(geometry.get("geometries"), list):
        for part in geometry["geometries"]:
            yield from _areas(part, notes, depth + 1)
    elif kind == "Polygon":
        yield polygon(_rings(geometry.get("coordinates")), notes)
    elif kind == "MultiPolygon" and isinstance(geometry.get("coordinates"), list) and geometry["coordinates"]:
        for rings in geometry["coordinates"]:
            yield polygon(_rings(rings), notes)
    else:
        raise ValueError(f"its geometry is {kind!r}, and not of the kinds that have an area")


def _rings(rings: Any) -> list[Points]:
    if not isinstance(rings, list) or not rings:
        raise ValueError("a polygon without rings")
    return [np.array([_point(point) for point in ring], np.float64).reshape(-1, 2) for ring in map(_listed, rings)]


def _listed(ring: Any) -> list[Any]:
    if not isinstance(ring, list):
        raise TypeError(f"a ring is {str(ring)[:40]!r}, not a list of points")
    return ring


def _point(point: Any) -> tuple[float, float]:
    good = isinstance(point, list) and len(point) > 1
    if not good or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in point[:2]):
        raise TypeError(f"a point is {str(point)[:40]!r}, not two numbers")
    return float(point[0]), float(point[1])
