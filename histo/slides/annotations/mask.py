"""Tissue masks from elsewhere: areas drawn on slides restrict or replace them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from histo.errors import Cause, SlideError, UsageError
from histo.slides.annotations.files import TABLE, AnnotationFolder, missing, names_in, read_areas
from histo.slides.annotations.label_map import read_table_classes
from histo.slides.annotations.shapes import DROPPED
from histo.slides.finding.collection import Collection
from histo.slides.slide import Slide
from histo.slides.spec import TissueSpec
from histo.slides.tissue import TissueMask
from histo.spec.base import changed_names

_FLAG = "--tissue.mask"
_INSIDE = "inside"


def with_masks(collection: Collection, tissue: TissueSpec) -> Collection:
    """Find the mask of every slide.

    Raises:
        UsageError: See `find_masks`; or if no slide has one.
    """
    if tissue.mask is None:
        for name in changed_names(tissue, ("mask_classes", "mask_use", "mask_bounds")):
            raise UsageError(f"--tissue.{name.replace('_', '-')}: a setting of masks; give --tissue.mask, too")
        return collection
    masks = find_masks(tissue, {slide.slide_id: slide.path for slide in collection.slides})
    slides = tuple(
        replace(slide, mask=str(path)) if (path := masks[slide.slide_id]) else slide for slide in collection.slides
    )
    if not any(masks.values()):
        raise missing(_FLAG, tissue.mask, slides[0].slide_id)
    return replace(collection, slides=slides)


def find_masks(tissue: TissueSpec, slides: Mapping[str, str]) -> dict[str, Path | None]:
    """Return the file of each slide's mask, by `slide_id`, or None if it has none.

    Args:
        tissue: Its `mask` is a folder of masks, or the mask of the only slide.
        slides: The files of all slides, by `slide_id`.

    Raises:
        UsageError: If a slide has several, no mask has a class that is to count, or some are tables of labels, and no
            classes are given.
    """
    assert tissue.mask is not None, "masks are asked for"
    annotations = AnnotationFolder(tissue.mask, slides, _FLAG)
    found = {slide_id: annotations.of(slide_id) for slide_id in slides}
    paths = [path for path in found.values() if path is not None]
    for path in paths:
        if path.suffix.lower() == TABLE and not tissue.mask_classes:
            classes = ", ".join(read_table_classes(path))
            raise UsageError(
                f"{_FLAG} {path}: a table of labels; name those that count with {_FLAG}-classes: {classes}"
            )
    _check_classes(tissue.mask_classes or (), paths)
    return found


def _check_classes(classes: Sequence[str], paths: Sequence[Path]) -> None:
    """Refuse a class that no mask has; the files are read until each is found."""
    left, seen = {*classes}, set[str]()
    for path in paths:
        if not left:
            return
        try:
            names = names_in(path)
        except SlideError:  # its slide fails
            continue
        if names is None:
            return
        left -= names
        seen |= names
    if left and paths:
        raise UsageError(f"{_FLAG}-classes {min(left)}: in no mask; they have {', '.join(sorted(seen)) or 'no names'}")


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

    areas = read_areas(Path(path), slide, class_of, tissue.mask_bounds).areas
    rows, columns = found.mask.shape
    inside = found.mask & False
    if _INSIDE in areas.classes:
        inside = areas.cells(_INSIDE, rows, columns, found.cell_width, found.cell_height)
    return replace(found, mask=inside if tissue.mask_use == "replace" else found.mask & inside)
