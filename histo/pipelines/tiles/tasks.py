"""Settings of a run that cuts tiles, and the messages of its workers."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from histo import tables
from histo.input_files import safe_path
from histo.remote.cache import Cache
from histo.slides.annotations.naming import Naming
from histo.slides.spec import ReaderChoice, TilingSpec, TissueSpec

IMAGES, SHEETS, LISTS = "images", "sheets", "slides"
"""Folders below the output: PNG files, contact sheets, and the lists of a slide's PNG files."""
FOLDERS = (IMAGES, SHEETS, LISTS)


@dataclass(frozen=True)
class CutTask:
    """A slide of which tiles are cut.

    Attributes:
        slide_id: The slide.
        files: Its files, the one to open first.
        annotation: Its annotation; None where tiles have no labels.
        group: Its patient, or itself.
        key: sha256 of all that its tiles depend on.
        mask: File of its tissue mask, empty if it has none; None if masks from elsewhere are not asked for.
        mpp: µm per level-0 pixel, if a list says so.
    """

    slide_id: str
    files: tuple[str, ...]
    annotation: Path | None
    group: str
    key: str
    mask: str | None = None
    mpp: float | None = None


@dataclass(frozen=True)
class CutJob:
    """What is the same for every slide.

    Attributes:
        out: Output folder.
        source: Name of the source.
        form: `table` or `images`.
        classes: All classes, in order.
        size_px: Edge of a tile, target pixels.
        mpp: µm per target pixel.
        tiling: Where tiles lie.
        tissue: What counts as tissue.
        naming: Classes of names in annotations.
        rest: Class of tissue that no annotation touches.
        min_share: Least share of a tile in its class.
        bounds: Whether annotations may count from the scanned part.
        sheets: Whether contact sheets are drawn.
        mpp_if_missing: µm per level-0 pixel for slides that name none.
        mpp_override: µm per level-0 pixel of every slide.
        reader: What decodes the slides.
        read_timeout_s: Seconds without a read after which a worker is ended.
        cache: Copies of remote slides on each node.
    """

    out: Path
    source: str
    form: str
    classes: tuple[str, ...]
    size_px: int
    mpp: float
    tiling: TilingSpec
    tissue: TissueSpec
    naming: Naming
    rest: str | None
    min_share: float
    bounds: bool
    sheets: bool
    mpp_if_missing: float | None
    mpp_override: float | None
    reader: ReaderChoice
    read_timeout_s: float
    cache: Cache = field(default_factory=Cache)

    @property
    def columns(self) -> tuple[tables.Column, ...]:
        """Columns of a part."""
        return tables.CUT_FILES if self.form == "images" else tables.CUT_TILES

    def part(self, slide_id: str) -> Path:
        """Where a slide's part of the table stands, or the list of its images."""
        folder = self.out / LISTS if self.form == "images" else self.out
        return folder / f"part-{hashlib.sha256(slide_id.encode()).hexdigest()[:16]}.parquet"

    def images(self, slide_id: str) -> Path:
        """Folder of a slide's images."""
        return self.out / IMAGES / safe_path(slide_id)

    def sheet(self, slide_id: str) -> Path:
        """Where a slide's contact sheet stands."""
        return self.out / SHEETS / f"{safe_path(slide_id)}.png"

    def is_done(self, task: CutTask) -> bool:
        """Whether a slide's tiles are there, cut as they would be cut now."""
        has_sheet = not self.sheets or self.sheet(task.slide_id).exists()
        return has_sheet and tables.footer_value(self.part(task.slide_id), "key") == task.key


@dataclass(frozen=True)
class Cut:
    """What became of a slide.

    Attributes:
        unit: Its `slide_id`.
        counts: Tiles of each class, or of the class `""` without annotations.
        left_out: Tiles that are not cut, by the reason.
        notes: What was mended in its annotation or left out of it.
        error_code: Cause of the failure, if there was one.
        error: What is wrong, and what to do.
    """

    unit: str
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()
    error_code: str | None = None
    error: str | None = None
