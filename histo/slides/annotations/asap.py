"""Read annotations of ASAP (XML, computationalpathologygroup.github.io/ASAP).

The name of a shape is its group (`PartOfGroup`). Polygons and rectangles are taken as they are, and a spline as the
polygon through its points. Dots, point sets and measures enclose nothing; they are counted and left out. Coordinates
are pixels of level 0.
"""

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from histo.regular_file import read_regular
from histo.slides.annotations.shapes import Drawing, Points, Shape, bad, polygon

_WITH_AREA = {"polygon", "rectangle", "spline"}
_NO_GROUP = {"", "none"}


def read_asap(path: Path) -> Drawing:
    """Read the shapes of a file.

    Raises:
        SlideError: If it is not ASAP's XML, or a shape cannot be used; it names the annotation.
    """
    try:
        content = read_regular(path)
        if b"<!" in content.replace(b"<!--", b""):
            raise bad(str(path), "declares a document type, which ASAP does not; export it again")
        root = ET.fromstring(content)  # noqa: S314 -- without declarations, there are no entities to expand
    except OSError as error:
        raise bad(str(path), f"{error.strerror or error}") from None
    except (ET.ParseError, ValueError, LookupError) as error:
        raise bad(str(path), f"not XML ({error}); export it again") from None
    if root.tag != "ASAP_Annotations":
        raise bad(str(path), f"not ASAP's XML: it begins with <{root.tag}>; export it from ASAP, or as GeoJSON")
    notes: Counter[str] = Counter()
    shapes = []
    for number, annotation in enumerate(root.iter("Annotation"), start=1):
        place = f"annotation {number} ({annotation.get('Name', '')[:40]})"
        if annotation.get("Type", "").lower() not in _WITH_AREA:
            notes["points and lines, left out"] += 1
            continue
        try:
            area = polygon([_points(annotation)], notes)
        except ValueError as error:
            raise bad(str(path), f"{place}: {error}; mend it there, or remove it") from None
        group = annotation.get("PartOfGroup", "").strip()
        shapes.append(Shape(None if group.lower() in _NO_GROUP else group, area, place))
    return Drawing(str(path), tuple(shapes), +notes)


def _points(annotation: ET.Element) -> Points:
    """Return the points of an annotation, `(n, 2)`, in the order that they name."""
    points = []
    for number, point in enumerate(annotation.iter("Coordinate")):
        try:
            x, y = (float(point.get(axis, "").replace(",", ".")) for axis in "XY")
            points.append((int(point.get("Order", number)), x, y))
        except ValueError:
            raise ValueError(f"its point {number + 1} has no X and Y that are numbers") from None
    points.sort(key=lambda point: point[0])
    places = [point[1:] for point in points]
    return np.array([*places, *places[:1]], np.float64).reshape(-1, 2)  # ASAP leaves the last point to its reader
