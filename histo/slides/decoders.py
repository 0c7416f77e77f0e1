"""Decode single file blocks, strictly: what is not a whole image of the right size and channels is an error.

A JPEG block must be decoded without a warning of libjpeg, and its colours are what the TIFF's tag says, whatever
markers it has; of JPEG 2000, whatever OpenJPEG refuses is an error.
"""

import io
import struct
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import Image

from histo.resample import Pixels

_START, _END = b"\xff\xd8", b"\xff\xd9"
"""The markers that begin and end a JPEG stream."""
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""Adobe's marker up to its last byte, which says how colours are coded: 0 as red, green and blue, 1 as YCbCr."""
_APP0, _APP14, _SCAN = 0xE0, 0xEE, 0xDA
_FRAMES = {0xC0, 0xC1, 0xC2}
_CODESTREAM = b"\xff\x4f\xff\x51"
"""The markers that begin a JPEG 2000 codestream."""
_CR_RED, _CB_GREEN, _CR_GREEN, _CB_BLUE, _ONE = 140_200, 34_414, 71_414, 177_200, 100_000
"""Factors of ITU-R BT.601 (1.402, 0.34414, 0.71414 and 1.772), as whole numbers."""


def jpeg_prefix(tables: bytes, is_rgb: bool) -> bytes:
    """Return what stands before each block's own JPEG data: how colours are coded, and the tables that all share.

    A stream without Adobe's marker would be taken for YCbCr; the TIFF tag knows better.
    """
    shared = _without_colours(tables.removesuffix(_END)) if tables else b""
    return _START + _ADOBE + (b"\0" if is_rgb else b"\1") + shared


def decode_jpeg(prefix: bytes, data: bytes, out: Pixels) -> None:
    """Decode a JPEG block.

    Args:
        prefix: See `jpeg_prefix`.
        data: The block's bytes.
        out: What is filled, uint8 RGB, `(H, W, 3)`.

    Raises:
        ValueError: If it is damaged, or not of this shape.
    """
    pixels = simplejpeg.decode_jpeg(prefix + _without_colours(data), colorspace="RGB", buffer=out, strict=True)
    if pixels.shape != out.shape:
        raise ValueError(
            f"the block is of {pixels.shape[1]} x {pixels.shape[0]} px, not {out.shape[1]} x {out.shape[0]}"
        )


def _without_colours(data: bytes) -> bytes:
    """Return a JPEG stream from its second marker on, without those that say how its colours are coded."""
    if not data.startswith(_START):
        raise ValueError("the block is not a JPEG stream")
    kept, at = [], len(_START)
    for marker, start, end in _segments(data):
        if marker in _FRAMES and data[start + 9 : start + 10] != b"\3":
            raise ValueError("the block has not 3 channels")
        if marker in (_APP0, _APP14):
            kept.append(data[at:start])
            at = end
    return b"".join([*kept, data[at:]])


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment of a JPEG stream before its image data."""
    at = len(_START)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], at, end
        at = end


def decode_jpeg_2000(data: bytes, is_rgb: bool, out: Pixels) -> None:
    """Decode a JPEG 2000 block; see `decode_jpeg`."""
    if len(data) < 51 or not data.startswith(_CODESTREAM):
        raise ValueError("the block is not a JPEG 2000 codestream")
    width, height, left, top = struct.unpack_from(">IIII", data, 8)
    if (height - top, width - left) != out.shape[:2] or data[40:42] != b"\0\3":
        raise ValueError(f"the block is not {out.shape[1]} x {out.shape[0]} px of 3 channels")
    if {data[43:45], data[46:48], data[49:51]} != {b"\1\1"}:
        raise ValueError("the block has colours of a lower resolution, which are left to OpenSlide")
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG2000"]) as image:
            pixels = np.asarray(image)
    except SyntaxError as error:
        raise ValueError(str(error)) from error
    if pixels.shape != out.shape:
        raise ValueError("the block is not of 3 channels of 8 bits")
    out[:] = pixels if is_rgb else _from_ycbcr(pixels)


def _from_ycbcr(pixels: Pixels) -> Pixels:
    """Turn luminance and two differences to red, green and blue as OpenSlide does, rounded half up."""
    luminance, blueness, redness = np.moveaxis(pixels.astype(np.int32), -1, 0)
    blueness, redness = blueness - 128, redness - 128
    red = luminance + (_CR_RED * redness + _ONE // 2) // _ONE
    green = luminance + (_ONE // 2 - _CB_GREEN * blueness - _CR_GREEN * redness) // _ONE
    blue = luminance + (_CB_BLUE * blueness + _ONE // 2) // _ONE
    colours: Pixels = np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8)
    return colours
