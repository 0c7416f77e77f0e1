"""Read tiled JPEG and JPEG 2000 slides directly, without OpenSlide.

The file's blocks are decoded as they are.

OpenSlide spends three quarters of its time on putting blocks together. Here a block is read and decoded once, and
strictly: what a decoder complains about is an error, and costs exactly the pixels of that block. A single block that is
sound, and coded in a way that only OpenSlide reads, is read by OpenSlide.
"""

import threading
from collections.abc import Sequence

import numpy as np

from histo.errors import ReadError
from histo.resample import Pixels, Window
from histo.slides.files import SharedFile
from histo.slides.readers.base import Level, Place, Reader
from histo.slides.readers.kept_blocks import KeptBlocks
from histo.slides.readers.mosaic import fill_windows
from histo.slides.readers.openslide import OpenSlideReader
from histo.slides.readers.tiff_decoders import ForeignError, JpegDecoder, decode_jpeg_2000
from histo.slides.readers.tiff_index import JPEG, BlockIndex, UnsuitedError, read_index

_FARTHEST = 2**62
"""No file has more bytes."""
_SLACK = 65_536
"""Bytes by which a block may be longer than its pixels are uncompressed; one that is longer still is no block."""


class DirectReader(Reader):
    """Reads the blocks of a TIFF file. Threads may share it.

    Attributes:
        foreign: Why the first block that was left to OpenSlide was; empty if none was.
        kept: Blocks that were decoded and are needed again.
    """

    name = "direct"

    def __init__(self, path: str, levels: Sequence[Level]) -> None:
        """Open a file.

        Args:
            path: The slide's file.
            levels: The pyramid, as OpenSlide describes it.

        Raises:
            UnsuitedError: If the file is not one that can be read directly.
            InputError: If its index contradicts itself, or the file cannot be read.
        """
        self.foreign = ""
        self._path = path
        self._reference: OpenSlideReader | None = None
        self._lock = threading.Lock()
        self._index = read_index(path, levels)
        try:
            self._jpeg = [JpegDecoder(index.tables, index.is_rgb) for index in self._index]
        except ValueError as error:
            raise UnsuitedError(f"its JPEG tables are damaged ({error})") from error
        self._file = SharedFile(path)
        self.kept = KeptBlocks()

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
        if level.blank and level.blank_blocks[row, column]:
            out[:] = 255
            return
        level.check_blocks(column * index.block_width, row * index.block_height, index.block_width, index.block_height)
        try:
            data = self._bytes(index, column, row)
            if index.compression == JPEG:
                self._jpeg[level.index].decode(data, out)
            else:
                decode_jpeg_2000(data, index.is_rgb, out)
        except ForeignError as error:
            self._read_foreign(level, column, row, out, error)
        except (OSError, ValueError) as error:
            x, y = column * index.block_width, row * index.block_height
            raise ReadError(f"level {level.index} at ({x}, {y}): {error}") from error
        out[max(0, level.height - row * index.block_height) :] = 255
        out[:, max(0, level.width - column * index.block_width) :] = 255

    def _read_foreign(self, level: Level, column: int, row: int, out: Pixels, reason: ForeignError) -> None:
        """Have OpenSlide read a block, if it does so pixel by pixel."""
        self.foreign = self.foreign or str(reason)
        index = self._index[level.index]
        x, y = column * index.block_width, row * index.block_height
        if not level.exact:
            raise ReadError(f"level {level.index} at ({x}, {y}): {reason}; use --reader openslide") from reason
        with self._lock:
            if self._reference is None:
                self._reference = OpenSlideReader(self._path)
            out[:] = self._reference.read(level, x, y, index.block_width, index.block_height)

    def _bytes(self, index: BlockIndex, column: int, row: int) -> bytes:
        offset, count = int(index.offsets[row, column]), int(index.counts[row, column])
        if not 0 < count <= 3 * index.block_width * index.block_height + _SLACK:
            raise ValueError(f"the file gives the block a length of {count} bytes")
        if not 0 <= offset < _FARTHEST:
            raise ValueError(f"the file gives the block a place at byte {offset}")
        data = self._file.read(offset, count)
        if len(data) < count:
            raise ValueError(f"the file ends {count - len(data)} bytes before the block does")
        return data

    def close(self) -> None:
        """See `Reader.close`."""
        self._file.close()
        if self._reference is not None:
            self._reference.close()
