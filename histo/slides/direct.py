"""Read JPEG and Aperio JPEG 2000 slides without OpenSlide: the file's blocks, decoded as they are.

OpenSlide spends three quarters of its time on putting blocks together. Here a block is read and decoded once, and
strictly: a warning of the decoder, which others pass over, is an error, and costs exactly the pixels of that block.
"""

import io
import os
import struct
import weakref
from collections.abc import Sequence

import numpy as np
import simplejpeg
from PIL import Image

from histo.errors import ReadError
from histo.resample import Pixels, Window
from histo.slides.block_index import JPEG, BlockIndex, read_index
from histo.slides.mosaic import fill_windows
from histo.slides.reader import Level, Place, Reader

_START, _END = b"\xff\xd8", b"\xff\xd9"
"""The markers that begin and end a JPEG stream."""
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""Adobe's marker up to its last byte, which says how colours are coded: 0 as red, green and blue, 1 as YCbCr."""
_CODESTREAM = b"\xff\x4f\xff\x51"
"""The markers that begin a JPEG 2000 codestream."""
_SLACK = 65_536
"""Bytes by which a block may be longer than its pixels are uncompressed; one that is longer still is no block."""


class DirectReader(Reader):
    """Reads the blocks of a TIFF file. Threads may share it: it keeps nothing between reads but the index."""

    name = "direct"

    def __init__(self, path: str, levels: Sequence[Level]) -> None:
        """Open a file.

        Args:
            path: The slide's file.
            levels: The pyramid, as OpenSlide describes it.

        Raises:
            UnsuitedError: If the file is not one that can be read directly.
            SlideError: If its index contradicts itself.
        """
        self._index = read_index(path, levels)
        self._prefixes = [_prefix(index) for index in self._index]
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self._file)  # at the latest when no thread holds it any more

    def read(self, level: Level, x: int, y: int, width: int, height: int) -> Pixels:
        """See `Reader.read`."""
        pixels = np.empty((height, width, 3), np.uint8)
        (error,) = self.read_windows(level, [(Window(x, width, 1), Window(y, height, 1))], [pixels])
        if error is not None:
            raise error
        return pixels

    def read_windows(self, level: Level, places: Sequence[Place], targets: Sequence[Pixels]) -> list[ReadError | None]:
        """See `Reader.read_windows`: each file block under any of the windows is decoded once, and no other."""
        return fill_windows(self, level, places, targets)

    def block_size(self, level: Level) -> tuple[int, int]:
        """See `FileBlocks.block_size`."""
        index = self._index[level.index]
        return index.block_width, index.block_height

    def block_bytes(self, level: Level) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        """Return how many bytes each file block of a level has, `(rows, columns)`."""
        return self._index[level.index].counts

    def decode_block(self, level: Level, column: int, row: int, out: Pixels) -> None:
        """See `FileBlocks.decode_block`."""
        index = self._index[level.index]
        try:
            data = self._bytes(index, column, row)
            if index.compression == JPEG:
                _decode_jpeg(self._prefixes[level.index], data, out)
            else:
                _decode_jpeg_2000(data, index.is_rgb, out)
        except (OSError, ValueError) as error:
            x, y = column * index.block_width, row * index.block_height
            raise ReadError(f"level {level.index} at ({x}, {y}): {error}") from error
        out[max(0, level.height - row * index.block_height) :] = 255
        out[:, max(0, level.width - column * index.block_width) :] = 255

    def _bytes(self, index: BlockIndex, column: int, row: int) -> bytes:
        offset, count = int(index.offsets[row, column]), int(index.counts[row, column])
        if not 0 < count <= 3 * index.block_width * index.block_height + _SLACK:
            raise ValueError(f"the file gives the block a length of {count} bytes")
        data = os.pread(self._file, count, offset)
        if len(data) < count:
            raise ValueError(f"the file ends {count - len(data)} bytes before the block does")
        return data

    def close(self) -> None:
        """See `Reader.close`."""
        self._close()


def _prefix(index: BlockIndex) -> bytes:
    """Return what stands before each block's own JPEG data: how colours are coded, and the tables.

    A stream without Adobe's marker would be taken for YCbCr; the TIFF tag knows better.
    """
    tables = index.tables.removeprefix(_START).removesuffix(_END)
    return _START + _ADOBE + (b"\0" if index.is_rgb else b"\1") + tables


def _decode_jpeg(prefix: bytes, data: bytes, out: Pixels) -> None:
    if not data.startswith(_START):
        raise ValueError("the block is not a JPEG stream")
    pixels = simplejpeg.decode_jpeg(prefix + data[len(_START) :], colorspace="RGB", buffer=out, strict=True)
    if pixels.shape != out.shape:
        raise ValueError(
            f"the block is of {pixels.shape[1]} x {pixels.shape[0]} px, not {out.shape[1]} x {out.shape[0]}"
        )


def _decode_jpeg_2000(data: bytes, is_rgb: bool, out: Pixels) -> None:
    if len(data) < 48 or not data.startswith(_CODESTREAM):
        raise ValueError("the block is not a JPEG 2000 codestream")
    width, height = struct.unpack_from(">II", data, 8)
    if (height, width) != out.shape[:2] or data[40:42] != b"\0\3":
        raise ValueError(f"the block is not {out.shape[1]} x {out.shape[0]} px of 3 channels")
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG2000"]) as image:
            image.load()
    except SyntaxError as error:
        raise ValueError(str(error)) from error
    if not is_rgb and data[46:48] == b"\1\1":  # Pillow turns YCbCr to RGB where colour has a lower resolution only
        out[:] = np.asarray(Image.frombytes("YCbCr", image.size, image.tobytes()).convert("RGB"))
    else:
        out[:] = np.asarray(image)
