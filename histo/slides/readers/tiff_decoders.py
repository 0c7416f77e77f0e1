"""Decode single file blocks strictly.

A block that is no whole image of the right size and channels is an error.

A JPEG block must be decoded without a warning of libjpeg, and its colours are what the TIFF's tag says, whatever
markers it has; of JPEG 2000, whatever OpenJPEG refuses is an error, and what does not end where it says. The headers of
each block are read before it is decoded, since what one block says of itself another need not say.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import imagecodecs
import numpy as np
import simplejpeg

from histo.resample import Pixels

_START, _END = b"\xff\xd8", 0xD9
"""The markers that begin and end a JPEG stream."""
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""Adobe's marker up to its last byte, which says how colours are coded: 0 as red, green and blue, 1 as YCbCr."""
_HUFFMAN_TABLE, _QUANTIZATION_TABLE, _SCAN, _APP0, _APP2, _APP14 = 0xC4, 0xDB, 0xDA, 0xE0, 0xE2, 0xEE
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""The markers of frames, each a process of coding; the three left out are tables, an extension, and conditioning."""
_HUFFMAN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended sequential, and progressive."""
_SEGMENTS = _FRAMES | {0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
"""The markers that may stand before a scan and are followed by their length (ITU-T T.81, table B.1)."""
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""The markers that may stand there alone."""
_CODESTREAM = b"\xff\x4f\xff\x51"
"""The markers that begin a JPEG 2000 codestream."""
_PART, _LAST = b"\xff\x90", b"\xff\xd9"
"""The markers that begin a part of one, and end all of it."""
_SIZE = struct.Struct(">8x8IH9B")
"""A codestream up to the end of its SIZ segment, three components in it: of image and tiles size and place, then for
each component depth and step."""
_UNSIGNED_8_BITS = 7
MOST_CODE_TILES = 1024
"""Tiles that a codestream may divide a block into; OpenJPEG needs 0.2 s for so many, and 1 GB and 14 s for 65,536."""
_CR_RED, _CB_GREEN, _CR_GREEN, _CB_BLUE, _ONE = 140_200, 34_414, 71_414, 177_200, 100_000
"""Factors of ITU-R BT.601 (1.402, 0.34414, 0.71414 and 1.772), as whole numbers."""


class ForeignError(ValueError):
    """A block is sound, and coded in a way that only OpenSlide reads."""


class JpegDecoder:
    """Decodes the JPEG blocks of a level. Threads may share it.

    What stands before the scan of a block is the same for most blocks of a level, and is then taken as it was found in
    the last one that had something else there.

    Args:
        tables: What all blocks share, a JPEG stream of its own; empty if they share nothing.
        is_rgb: Whether the coded colours are red, green and blue.

    Raises:
        ValueError: If the tables are damaged.
    """

    def __init__(self, tables: bytes, is_rgb: bool) -> None:
        self._prefix = _read_tables(tables, is_rgb)
        self._last = _Head(_START, b"", ())

    def decode(self, data: bytes, out: Pixels) -> None:
        """Decode a block.

        Args:
            data: The block's bytes.
            out: What is filled, uint8 RGB, `(H, W, 3)`.

        Raises:
            ForeignError: If it is coded in a way that is left to OpenSlide.
            ValueError: If it is damaged, or not of this shape.
        """
        head = self._last
        if head.shape != out.shape or not data.startswith(head.stored):
            head = self._last = _read_head(data, out.shape)
        stream = b"".join([self._prefix, head.used, data[len(head.stored) :]])
        simplejpeg.decode_jpeg(stream, colorspace="RGB", buffer=out, strict=True)


def _read_tables(tables: bytes, is_rgb: bool) -> bytes:
    """Return what stands before each block's own JPEG data: how colours are coded, and the tables that all share.

    A stream without Adobe's marker would be taken for YCbCr; the TIFF tag knows better.
    """
    segments = [*_segments(tables)] if tables else []
    if any(segment.marker in _FRAMES for segment in segments):
        raise ValueError("they hold a frame")
    shared = [tables[s.start : s.end] for s in segments if s.marker in (_HUFFMAN_TABLE, _QUANTIZATION_TABLE)]
    return b"".join([_START, _ADOBE, b"\0" if is_rgb else b"\1", *shared])


class _Head(NamedTuple):
    """What stands in a block up to its scan: as it is stored, and what of it is used, if it is of a shape."""

    stored: bytes
    used: bytes
    shape: tuple[int, ...]


def _read_head(data: bytes, shape: tuple[int, ...]) -> _Head:
    """Read what stands up to a block's scan; see `JpegDecoder.decode`."""
    segments = [*_segments(data)]
    _check_frame(data, segments, shape)
    scan = data.find(bytes([0xFF, _SCAN]), segments[-1].end)
    if scan < 0:
        raise ValueError("the block has no JPEG scan")
    return _Head(data[: scan + 2], _without_colours(data[: scan + 2], segments), shape)


class _Segment(NamedTuple):
    """A marker of a JPEG stream with its parameters: where they begin in the stream, fill bytes first, and end."""

    marker: int
    start: int
    parameters: int
    end: int


def _segments(data: bytes) -> Iterator[_Segment]:
    """Yield the segments of a JPEG stream that stand before its first scan, or before its end where it has tables only.

    Raises:
        ValueError: If something stands there that is no marker, or one that has no place there.
    """
    if not data.startswith(_START):
        raise ValueError("the block is not a JPEG stream")
    at = len(_START)
    while at < len(data):
        code = at
        while data[code : code + 1] == b"\xff":  # any number of fill bytes may stand before the last of them
            code += 1
        marker = data[code] if at < code < len(data) else None
        if marker in (_SCAN, _END):
            return
        size = int.from_bytes(data[code + 1 : code + 3], "big") if marker in _SEGMENTS else 0
        if marker is None or not (size >= 2 or marker in _STANDALONE) or code + 1 + size > len(data):
            raise ValueError(f"the JPEG header is damaged at byte {at}")
        yield _Segment(marker, at, code + 3, code + 1 + size)
        at = code + 1 + size


def _check_frame(data: bytes, segments: Sequence[_Segment], shape: tuple[int, ...]) -> None:
    """Refuse a frame that is not of this shape `(H, W, channels)`, or not of a coding that is known."""
    frames = [segment for segment in segments if segment.marker in _FRAMES]
    if len(frames) != 1 or frames[0].end - frames[0].parameters < 6:
        raise ValueError("the block has not one JPEG frame")
    depth, height, width, channels = struct.unpack_from(">BHHB", data, frames[0].parameters)
    if channels != shape[2]:
        raise ValueError(f"the block has not 3 channels but {channels}")
    if (height, width) != shape[:2]:
        raise ValueError(f"the block is of {width} x {height} px, not {shape[1]} x {shape[0]}")
    if frames[0].marker not in _HUFFMAN_FRAMES or depth != 8:
        raise ForeignError(f"the block is JPEG of process {frames[0].marker - 0xC0} and {depth} bits")


def _without_colours(data: bytes, segments: Iterable[_Segment]) -> bytes:
    """Return a JPEG stream from its second marker on, without those that say how its colours are coded.

    A colour profile (APP2) is not used, and one that is damaged would be a warning.
    """
    kept, at = [], len(_START)
    for segment in segments:
        if segment.marker in (_APP0, _APP2, _APP14):
            kept.append(data[at : segment.start])
            at = segment.end
    return b"".join([*kept, data[at:]])


def decode_jpeg_2000(data: bytes, is_rgb: bool, out: Pixels) -> None:
    """Decode a JPEG 2000 block; see `JpegDecoder.decode`."""
    _check_size(data, out.shape)
    _check_parts(data)
    try:
        pixels = imagecodecs.jpeg2k_decode(data, numthreads=1)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    out[:] = pixels if is_rgb else _from_ycbcr(pixels)


def _check_parts(data: bytes) -> None:
    """Refuse a codestream that does not end where its parts do (ITU-T T.800, A.4.2); OpenJPEG shows what there is."""
    at = len(_START)
    while data[at : at + 2] not in (_PART, b""):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    while data[at : at + 2] == _PART:
        at += int.from_bytes(data[at + 6 : at + 10], "big") or max(12, len(data) - len(_LAST) - at)
    if data[at : at + 2] != _LAST:
        raise ValueError(f"the block's JPEG 2000 codestream does not end at byte {at}, as its parts say")


def _check_size(data: bytes, shape: tuple[int, ...]) -> None:
    """Refuse a JPEG 2000 codestream whose SIZ segment (ITU-T T.800, A.5.1) is not that of a block of 3 x 8 bits.

    OpenSlide shows the low byte of other depths, and the pixels of an image of another size or place beside each other.
    """
    if not data.startswith(_CODESTREAM) or len(data) < _SIZE.size:
        raise ValueError("the block is not a JPEG 2000 codestream")
    width, height, left, top, tile_width, tile_height, tile_left, tile_top, channels, *components = _SIZE.unpack_from(
        data
    )
    if (height, width, channels) != shape or left or top:
        raise ValueError(
            f"the block is {width} x {height} px of {channels} channels from ({left}, {top}) on, not "
            f"{shape[1]} x {shape[0]} of 3 from (0, 0) on"
        )
    if not tile_width or not tile_height or tile_left or tile_top:
        raise ValueError("the block's JPEG 2000 header is damaged: its tiles do not cover it")
    if (tiles := -(-width // tile_width) * -(-height // tile_height)) > MOST_CODE_TILES:
        raise ValueError(f"the block is coded in {tiles} tiles of its own, more than {MOST_CODE_TILES}")
    if set(components[::3]) != {_UNSIGNED_8_BITS}:
        raise ValueError("the block has not 8 bits per channel, as the file says")
    if {*components[1::3], *components[2::3]} != {1}:
        raise ForeignError("the block has colours of a lower resolution")


def _from_ycbcr(pixels: Pixels) -> Pixels:
    """Turn luminance and two differences to red, green and blue as OpenSlide does, rounded half up."""
    luminance, blueness, redness = np.moveaxis(pixels.astype(np.int32), -1, 0)
    blueness, redness = blueness - 128, redness - 128
    red = luminance + (_CR_RED * redness + _ONE // 2) // _ONE
    green = luminance + (_ONE // 2 - _CB_GREEN * blueness - _CR_GREEN * redness) // _ONE
    blue = luminance + (_CB_BLUE * blueness + _ONE // 2) // _ONE
    colours: Pixels = np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8)
    return colours
