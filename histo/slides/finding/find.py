"""Find the slides of a collection: of a folder, a pattern, or a list."""

from pathlib import Path

from histo.remote.location import scheme
from histo.slides.finding.collection import Collection
from histo.slides.finding.folder import find_by_pattern, find_in_folder, fixed_part, is_pattern
from histo.slides.finding.slide_list import is_list, read_list


def fixed_folder(where: str) -> list[Path]:
    """Return what of a place every node must see: the folder, file or list, or the folder of a pattern."""
    if scheme(where) is not None:
        return []
    return [Path(fixed_part(where) if is_pattern(where) else where)]


def find_slides(where: str | Path) -> Collection:
    """List slides, sorted by `slide_id`.

    Args:
        where: Absolute path or URI of a folder, a slide, or a list (`.csv`, `.parquet`); or a pattern of such paths.

    Raises:
        UsageError: If there is no such thing, or it holds no slide.
    """
    where = str(where)
    if is_pattern(where):
        return find_by_pattern(where)
    return read_list(where) if is_list(where) else find_in_folder(where)
