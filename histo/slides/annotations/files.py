"""Find the annotation of a slide by its name, and read it.

The annotation of slide `a/s1.svs` is `a/s1.svs.EXT` or `a/s1.EXT` below the folder of annotations, or the same without
the slide's folder, with one of the extensions of `EXTENSIONS`; that of a label run is found in its folder `tiles`, too.
A name that would be that of two slides is that of none.
"""

import os
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import shapely

from histo.errors import UsageError
from histo.folders import walk
from histo.input_files import safe_path
from histo.slides.annotations.areas import Areas, MapAreas, ShapeAreas
from histo.slides.annotations.asap import read_asap
from histo.slides.annotations.geojson import read_geojson
from histo.slides.annotations.label_map import read_label_map, read_label_table, read_table_classes
from histo.slides.annotations.shapes import Drawing, bad, without_overlaps
from histo.slides.slide import Slide

TABLE = ".parquet"
EXTENSIONS = (".geojson", ".json", ".xml", ".png", ".tif", ".tiff", TABLE)
_SHAPES = {".geojson": read_geojson, ".json": read_geojson, ".xml": read_asap}
_ANNOTATIONS = (".geojson", ".xml")
"""Extensions of files that are nothing else."""
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


def names_in(path: Path) -> set[str] | None:
    """Return the names in an annotation; None of a label map, whose values alone are no names.

    Raises:
        SlideError: If it cannot be used.
    """
    if path.suffix.lower() == TABLE:
        return set(read_table_classes(path))
    drawing = _read_drawing(path)
    return None if drawing is None else set(drawing.names())


class AnnotationFolder:
    """A folder of annotations, one for each slide.

    Args:
        folder: It, searched in depth; or the annotation of the only slide.
        slides: The files of all slides, by `slide_id`; none of them is taken for an annotation.
        flag: What messages call it.

    Raises:
        UsageError: If it is not there, or a file and there are several slides.
    """

    def __init__(self, folder: Path, slides: Mapping[str, str], flag: str) -> None:
        self._folder, self._flag = folder, flag
        self._files: dict[str, list[Path]] = {}
        self._only: Path | None = None
        if not folder.exists():
            raise UsageError(f"{flag} {folder}: no such file or folder")
        if folder.is_file():
            if len(slides) > 1:
                raise UsageError(f"{flag} {folder}: one file, and there are {len(slides)} slides; give a folder")
            self._only = folder
            return
        taken = {os.path.realpath(path) for path in slides.values()}
        for path in (path for inside in walk(folder).folders for path in inside.files):
            if path.suffix.lower() in EXTENSIONS and os.path.realpath(path) not in taken:
                self._files.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
        self._counts = Counter(name for slide_id in slides for name in {*_own_names(slide_id), *_bare_names(slide_id)})

    def of(self, slide_id: str) -> Path | None:
        """Return the annotation of a slide, or None if there is none.

        Raises:
            UsageError: If there are several.
        """
        if self._only is not None:
            return self._only
        for names in (_own_names(slide_id), _bare_names(slide_id)):
            unique = [name for name in dict.fromkeys(names) if self._counts[name] == 1]
            paths = [path for name in unique for path in self._files.get(name, ())]
            if len(paths) > 1:
                listed = ", ".join(path.name for path in paths[:_MOST_NAMED])
                raise UsageError(
                    f"{self._folder}: {slide_id} has {len(paths)} annotations ({listed}); leave one of them"
                )
            if paths:
                return paths[0]
        return None

    def others(self, used: Container[Path]) -> list[Path]:
        """Return the files that are nothing but annotations, and are not used; of a label run, there are none."""
        if (self._folder / "slides.parquet").exists():
            return []
        files = sorted(path for paths in self._files.values() for path in paths)
        return [path for path in files if path.suffix.lower() in _ANNOTATIONS and path not in used]


def _own_names(slide_id: str) -> list[str]:
    """Return the names of a slide's annotation, without an extension."""
    safe = safe_path(slide_id)
    return [slide_id, PurePosixPath(slide_id).with_suffix("").as_posix(), safe, f"tiles/{safe}"]


def _bare_names(slide_id: str) -> list[str]:
    """Return them without the folder of the slide."""
    name = PurePosixPath(slide_id).name
    return [name, PurePosixPath(name).with_suffix("").as_posix()]


def _read_drawing(path: Path) -> Drawing | None:
    """Read a file of shapes; None for one of another kind, which cannot be read without its slide."""
    reader = _SHAPES.get(path.suffix.lower())
    return reader(path) if reader else None


def missing(flag: str, folder: Path, slide_id: str) -> UsageError:
    """Return the error of a folder in which no annotation is named as a slide."""
    files = sorted(path.name for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    there = f"it holds {', '.join(files[:_MOST_NAMED])}" if files else "it holds none"
    return UsageError(
        f"{flag} {folder}: none is named as a slide, and {there}; that of {slide_id} would be {slide_id}.geojson, or so"
        " with .xml, .png, .tif or .parquet, or without the slide's extension"
    )


def read_areas(
    path: Path,
    slide: Slide,
    class_of: ClassOf,
    bounds: bool,
    unknown: Callable[[Iterable[str]], list[str]] = lambda _: [],
) -> Read:
    """Read the annotation of a slide.

    Args:
        path: The file.
        slide: The slide.
        class_of: Class of each name, see `shapes.without_overlaps`.
        bounds: Whether GeoJSON and label maps may count from the scanned part of a slide that names it, as QuPath does.
        unknown: Returns those values of a label map that have no name.

    Raises:
        SlideError: If it cannot be used, or is not of this slide.
    """
    drawing = _read_drawing(path)
    if drawing is None:
        if path.suffix.lower() == TABLE:
            return Read(MapAreas(read_label_table(path, slide), class_of), ())
        labels = read_label_map(path, slide, bounds)
        if without := unknown(labels.names.values()):
            listed = ", ".join(without)
            raise bad(str(path), f"values {listed} are no classes; give --names {without[0]}=CLASS, or --drop {listed}")
        return Read(MapAreas(labels, class_of), ())
    is_geojson = path.suffix.lower() != ".xml"
    origin = slide.bounds[:2] if bounds and slide.bounds and is_geojson else (0, 0)
    drawing = _placed(drawing, slide, origin)
    areas, contradictions = without_overlaps(drawing.shapes, class_of)
    notes = [f"{count} {what}" for what, count in drawing.notes.items()]
    if unnamed := sum(class_of(shape.name) is None for shape in drawing.shapes):
        notes.append(f"{unnamed} shapes without a class, left out")
    if contradictions:
        notes.append(f"{contradictions} overlaps of different classes, whose common part has none")
    return Read(ShapeAreas(areas), tuple(notes))


def _placed(drawing: Drawing, slide: Slide, origin: tuple[int, int]) -> Drawing:
    """Put shapes into the frame of level 0, and refuse those that lie beside the slide."""
    extent = shapely.box(0, 0, slide.width, slide.height)
    if (
        drawing.shapes
        and max(np.ptp(shapely.total_bounds([shape.area for shape in drawing.shapes]).reshape(2, 2), 0)) < 2
    ):
        raise bad(
            drawing.path, "all its shapes lie within 2 px; coordinates are pixels of level 0, not degrees or shares"
        )
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
