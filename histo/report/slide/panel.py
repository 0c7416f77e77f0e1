"""Read the thumbnail of a labelled slide, as its pictures show it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from histo.errors import Cause, SlideError
from histo.report.slide.labels import SlideLabels
from histo.resample import Pixels
from histo.slides.empty_blocks import judge
from histo.slides.slide import Slide, open_slide
from histo.slides.tissue import read_thumbnail

LONGEST_PX = 1200
"""Of a panel."""
_LONGEST_SLIDE_PX = 6000
"""Of the whole slide, of which a panel shows the scanned part."""
_LINES = 170
"""Grey of lines where the file has lost its pixels."""


@dataclass(frozen=True)
class Panel:
    """A slide, or the scanned part of it, on few pixels.

    Attributes:
        pixels: RGB, `(H, W, 3)`.
        left_um: Its left edge on the slide, µm.
        top_um: Its top edge, likewise.
        width_um: µm.
        height_um: Likewise.
    """

    pixels: Pixels
    left_um: float
    top_um: float
    width_um: float
    height_um: float


def read_panel(path: Path, labels: SlideLabels) -> Panel:
    """Read the thumbnail of a slide, at most `LONGEST_PX` pixels along an edge; nothing is magnified.

    Of a slide that names its bounds, it is the part within them. Where the file has lost its pixels it is hatched.

    Raises:
        SlideError: If the slide cannot be opened, or is not the one that was labelled.
        ReadError: If nothing of it can be decoded.
    """
    slide, reader = open_slide(str(path), mpp_override=None if labels.mpp_source == "metadata" else labels.mpp[0])
    try:
        _check_same(slide, labels)
        left, top, width, height = _shown_part(slide)
        longest_um = max(width * slide.mpp_x, height * slide.mpp_y)
        whole_um = max(slide.width * slide.mpp_x, slide.height * slide.mpp_y)
        um_per_px = max(longest_um / LONGEST_PX, whole_um / _LONGEST_SLIDE_PX, slide.mpp_x, slide.mpp_y)
        thumbnail = read_thumbnail(reader, judge(slide, reader), um_per_px)
    finally:
        reader.close()
    size = max(1, round(width * slide.mpp_x / um_per_px)), max(1, round(height * slide.mpp_y / um_per_px))
    rows, columns = thumbnail.unknown.shape
    box = (
        left / thumbnail.cell_width,
        top / thumbnail.cell_height,
        min((left + width) / thumbnail.cell_width, columns),
        min((top + height) / thumbnail.cell_height, rows),
    )
    pixels = np.array(Image.fromarray(thumbnail.pixels).resize(size, Image.Resampling.BOX, box))
    unknown = np.asarray(Image.fromarray(thumbnail.unknown).resize(size, Image.Resampling.NEAREST, box))
    pixels[unknown & hatching(*unknown.shape)] = _LINES
    return Panel(pixels, left * slide.mpp_x, top * slide.mpp_y, width * slide.mpp_x, height * slide.mpp_y)


def _check_same(slide: Slide, labels: SlideLabels) -> None:
    size = round(labels.x.slide_um / labels.mpp[0]), round(labels.y.slide_um / labels.mpp[1])
    if (slide.width, slide.height) != size:
        raise SlideError(
            Cause.CHANGED,
            f"{slide.path}: has {slide.width} x {slide.height} px, and {labels.slide_id} had {size[0]} x {size[1]} px "
            "when it was labelled; label it again, or give its own file",
        )


def _shown_part(slide: Slide) -> tuple[int, int, int, int]:
    """Return the bounds of a slide that lie in it `(x, y, width, height)`, or all of it; level-0 pixels."""
    x, y, width, height = slide.bounds or (0, 0, slide.width, slide.height)
    left, top, right, bottom = max(0, x), max(0, y), min(slide.width, x + width), min(slide.height, y + height)
    if left < right and top < bottom:
        return left, top, right - left, bottom - top
    return 0, 0, slide.width, slide.height


def hatching(height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return diagonal lines, `(height, width)`."""
    diagonal: npt.NDArray[np.int64] = np.arange(height)[:, None] + np.arange(width)
    return diagonal % 6 < 2
