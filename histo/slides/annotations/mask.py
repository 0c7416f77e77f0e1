"""Tissue masks from elsewhere: areas drawn on slides restrict or replace them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from histo.errors import Cause, SlideError, UsageError
from histo.slides.annotations.files import AnnotationFolder, read_areas
from histo.slides.annotations.shapes import DROPPED
from histo.slides.collection import Collection
from histo.slides.slide import Slide
from histo.slides.spec import TissueSpec
from histo.slides.tissue import TissueMask

_INSIDE = "inside"
_TABLE = ".parquet"


def with_masks(collection: Collection, tissue: TissueSpec) -> Collection:
    """Find the mask of every slide; it becomes one of the slide's files, so that a change of it is one of the slide.

    Raises:
        UsageError: If no slide has one, one has several, or tables of labels are given without the classes that count.
    """
    if tissue.mask is None:
        return collection
    masks = find_masks(tissue, {slide.slide_id: slide.path for slide in collection.slides})
    slides = tuple(
        replace(slide, mask=str(path), files=(*slide.files, str(path))) if (path := masks[slide.slide_id]) else slide
        for slide in collection.slides
    )
    if not any(slide.mask for slide in slides):
        name = slides[0].slide_id
        raise UsageError(
            f"--tissue.mask {tissue.mask}: none is named as a slide; that of {name} would be {name}.geojson, or so with"
            " .xml, .png, .tif or .parquet, or without the slide's extension"
        )
    return replace(collection, slides=slides)


def find_masks(tissue: TissueSpec, slides: Mapping[str, str]) -> dict[str, Path | None]:
    """Return the file of each slide's mask, by `slide_id`, or None if it has none.

    Args:
        tissue: Its `mask` is a folder of masks, or the mask of the one slide.
        slides: The files of all slides, by `slide_id`.

    Raises:
        UsageError: If a slide has several, or some are tables of labels, and no classes are given that count.
    """
    folder = tissue.mask
    if folder is None or not folder.exists():
        raise UsageError(f"--tissue.mask {folder}: no such file or folder")
    if folder.is_file():
        if len(slides) > 1:
            raise UsageError(f"--tissue.mask {folder}: one file, and there are {len(slides)} slides; give a folder")
        found: dict[str, Path | None] = dict.fromkeys(slides, folder)
    else:
        annotations = AnnotationFolder(folder, slides)
        found = {slide_id: annotations.of(slide_id) for slide_id in slides}
    for path in found.values():
        if path is not None and path.suffix.lower() == _TABLE and not tissue.mask_classes:
            raise UsageError(
                f"--tissue.mask {path}: a table of labels; say with --tissue.mask-classes which of them count"
            )
    return found


def masked(found: TissueMask, slide: Slide, tissue: TissueSpec, path: str) -> TissueMask:
    """Restrict the tissue that was found to the areas of a file, or replace it by them.

    A pixel of the mask lies in an area if its centre does.

    Args:
        found: The tissue.
        slide: The slide.
        tissue: Which classes count, and whether they replace what was found.
        path: The file; empty if there is none.

    Raises:
        SlideError: If there is none, or it cannot be used.
    """
    if not path:
        raise SlideError(
            Cause.BAD_ANNOTATION, f"{slide.path}: no mask is named as this slide; add one, or leave the slide out"
        )

    def class_of(name: str | None) -> str | None:
        if tissue.mask_classes is None:
            return _INSIDE
        return None if name is None else _INSIDE if name in tissue.mask_classes else DROPPED

    areas = read_areas(Path(path), slide, class_of, bounds=True).areas
    rows, columns = found.mask.shape
    inside = found.mask & False
    if _INSIDE in areas.classes:
        inside = areas.cells(_INSIDE, rows, columns, found.cell_width, found.cell_height)
    return replace(found, mask=inside if tissue.mask_use == "replace" else found.mask & inside)
