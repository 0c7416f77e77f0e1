"""Draw a prepared volume: every slice of every series, small.

Axes: S series, D slice, H row, W column; see `histo.volume_file`.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from histo.report.letters import SAID, font_file, has_glyphs, legible
from histo.store import put_atomic
from histo.volume_file import Volume

_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

_LONGEST_SIDE_PX = 128
_PER_LINE = 10
_GAP_PX = 2
_LINE_PX = 16
"""Height of a line of text."""
_SHADES = 64
"""Grey levels, which make the file a third smaller than 256 do."""
_TEXT, _GROUND = 255, 40
_CAPTION = (
    "Seen from the feet: anterior is on top, the patient's right (R) on the left, the patient's left (L) on the right. "
    "Slices run from inferior to superior, line by line."
)


def draw_contact_sheet(volume_SDHW: Volume, series: Sequence[str], title: str, target: Path) -> None:
    """Draw all slices of a volume to a PNG file, a block of lines for each series, the inferior slice first.

    Args:
        volume_SDHW: The volume, rows from posterior to anterior, columns from left to right.
        series: What each series is called.
        title: Stands above.
        target: The file.

    Raises:
        ValueError: If there are not as many names as series.
    """
    slices_SDHW = _as_seen(volume_SDHW)
    caption_text = _CAPTION if all(map(has_glyphs, (title, *series))) else f"{_CAPTION} {SAID.capitalize()}."
    title, *series = (legible(name.replace("\n", "\\n")) for name in (title, *series))
    blocks = [_lines(slices_DHW) for slices_DHW in slices_SDHW]
    font = ImageFont.truetype(font_file(), size=11)
    width = max(blocks[0].shape[1], *(_width(font, line) for line in (title, *series)))
    caption = _wrap(font, caption_text, width - 2 * _GAP_PX)
    n_lines = 1 + len(series) + len(caption)
    sheet = Image.new("L", (width, n_lines * _LINE_PX + sum(len(block) for block in blocks)), _GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP_PX, 0), title, _TEXT, font)
    top = _LINE_PX
    for name, block in zip(series, blocks, strict=True):
        pen.text((_GAP_PX, top), name, _TEXT, font)
        top += _LINE_PX
        sheet.paste(Image.fromarray(block), (0, top))
        _mark_sides(pen, font, (0, top), slices_SDHW.shape[2:])
        top += len(block)
    for line in caption:
        pen.text((_GAP_PX, top), line, _TEXT, font)
        top += _LINE_PX
    with put_atomic(target) as file:
        sheet.save(file, "PNG")


def _as_seen(volume_SDHW: Volume) -> Volume:
    """Make slices small, with few grey levels, anterior on top and the patient's right on the left."""
    height, width = volume_SDHW.shape[2:]
    factor = min(1.0, _LONGEST_SIDE_PX / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = [
        [cv2.resize(slice_HW, size, interpolation=cv2.INTER_AREA) for slice_HW in slices_DHW]
        for slices_DHW in volume_SDHW
    ]
    step = 256 // _SHADES
    return (np.asarray(small, np.uint8)[:, :, ::-1, ::-1] // step * np.uint8(255 // (_SHADES - 1))).astype(np.uint8)


def _lines(slices_DHW: Volume) -> Volume:
    """Put slices side by side, so many in a line; returns `(height, width)`."""
    count, height, width = slices_DHW.shape
    columns = min(count, _PER_LINE)
    sheet = np.full((-(-count // columns) * (height + _GAP_PX), columns * (width + _GAP_PX)), _GROUND, np.uint8)
    for i, pixels in enumerate(slices_DHW):
        top, left = i // columns * (height + _GAP_PX), i % columns * (width + _GAP_PX)
        sheet[top : top + height, left : left + width] = pixels
    return sheet


def _mark_sides(pen: ImageDraw.ImageDraw, font: _Font, corner: tuple[int, int], size: Sequence[int]) -> None:
    """Write R and L on the sides of the first slice, whose upper left corner and height and width are given."""
    (left, top), (height, width) = corner, size
    middle = top + height // 2
    pen.text((left + 2, middle), "R", _TEXT, font, anchor="lm", stroke_width=1, stroke_fill=0)
    pen.text((left + width - 2, middle), "L", _TEXT, font, anchor="rm", stroke_width=1, stroke_fill=0)


def _wrap(font: _Font, text: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _width(font: _Font, line: str) -> int:
    return int(font.getlength(line)) + 2 * _GAP_PX + 1
