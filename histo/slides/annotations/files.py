"""Find the annotation of a slide by its name, and read it.

The annotation of slide `a/s1.svs` is `a/s1.svs.EXT` or `a/s1.EXT` below the folder of annotations, with one of the
extensions of `EXTENSIONS`; that of a label run is found in its folder `tiles`, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import shapely

from histo.errors import UsageError
from histo.input_files import safe_path
from histo.slides.annotations.areas import Areas, MapAreas, ShapeAreas
from histo.slides.annotations.asap import read_asap
from histo.slides.annotations.geojson import read_geojson
from histo.slides.annotations.label_map import LabelMap, read_label_map, read_label_table
from histo.slides.annotations.shapes import Drawing, bad, without_overlaps
from histo.slides.slide import Slide

EXTENSIONS = (".geojson", ".json", ".xml", ".png", ".tif", ".tiff", ".parquet")
_SHAPES = {".geojson": read_geojson, ".json": read_geojson, ".xml": read_asap}
_MOST_NAMED = 5

ClassOf = Callable[[str | None], str | None]
"""See `shapes.without_overlaps`."""


@dataclass(frozen=True)
class Read:
    """The annotation of a slide.

    Attributes:
        areas: Of the classes.
        notes: What was mended or left out, for people.
    """

    areas: Areas
    notes: tuple[str, ...]


def find_annotation(folder: Path, slide_id: str, slide_file: str) -> Path | None:
    """Return the annotation of a slide, or None if there is none.

    Args:
        folder: Of annotations.
        slide_id: The slide.
        slide_file: Its own file, which is not taken for its annotation.

    Raises:
        UsageError: If there are several.
    """
    bare = PurePosixPath(slide_id).with_suffix("").as_posix()
    names = dict.fromkeys((slide_id, bare, safe_path(slide_id)))
    places = [folder / f"{name}{extension}" for name in names for extension in EXTENSIONS]
    places += [folder / "tiles" / f"{safe_path(slide_id)}.parquet"]
    found = [place for place in dict.fromkeys(places) if str(place) != slide_file and place.is_file()]
    if len(found) > 1:
        listed = ", ".join(place.name for place in found[:_MOST_NAMED])
        raise UsageError(f"{folder}: {slide_id} has {len(found)} annotations ({listed}); leave one of them")
    return found[0] if found else None


def read_drawing(path: Path) -> Drawing | None:
    """Read a file of shapes; None for one of another kind, which cannot be read without its slide.

    Raises:
        SlideError: If it cannot be used.
    """
    reader = _SHAPES.get(path.suffix.lower())
    return reader(path) if reader else None


def read_areas(path: Path, slide: Slide, class_of: ClassOf, bounds: bool) -> Read:
    """Read the annotation of a slide.

    Args:
        path: The file.
        slide: The slide.
        class_of: Class of each name, see `shapes.without_overlaps`.
        bounds: Whether GeoJSON and label maps may count from the scanned part of a slide that names it, as QuPath does.

    Raises:
        SlideError: If it cannot be used, or is not of this slide.
    """
    drawing = read_drawing(path)
    if drawing is None:
        table = path.suffix.lower() == ".parquet"
        labels: LabelMap = read_label_table(path, slide) if table else read_label_map(path, slide, bounds)
        return Read(MapAreas(labels, class_of), ())
    is_geojson = path.suffix.lower() != ".xml"
    origin = slide.bounds[:2] if bounds and slide.bounds and is_geojson else (0, 0)
    drawing = _placed(drawing, slide, origin)
    areas, contradictions = without_overlaps(drawing.shapes, class_of)
    notes = [f"{count} {what}" for what, count in drawing.notes.items()]
    if contradictions:
        notes.append(f"{contradictions} overlaps of different classes, whose common part has none")
    return Read(ShapeAreas(areas), tuple(notes))


def _placed(drawing: Drawing, slide: Slide, origin: tuple[int, int]) -> Drawing:
    """Put shapes into the frame of level 0, and refuse those that lie beside the slide."""
    extent = shapely.box(0, 0, slide.width, slide.height)
    shapes = []
    for shape in drawing.shapes:
        area = shapely.transform(shape.area, lambda points: points + origin) if any(origin) else shape.area
        if not shapely.area(shapely.intersection(area, extent)) > 0:
            x_min, y_min, x_max, y_max = (round(edge) for edge in area.bounds)
            raise bad(
                drawing.path,
                f"{shape.place} is at x {x_min} to {x_max}, y {y_min} to {y_max}, beside {slide.path} ({slide.width} x "
                f"{slide.height} px); coordinates are pixels of level 0",
            )
        shapes.append(type(shape)(shape.name, area, shape.place))
    return Drawing(drawing.path, tuple(shapes), drawing.notes)
