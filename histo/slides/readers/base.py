"""Interface of readers: levels, and windows resampled to the target grid."""

import base64
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from histo.errors import ReadError
from histo.resample import Pixels, Window, resample

Place = tuple[Window, Window]
"""A window of a target grid: along x, then along y. A window's ratio is level pixels per target pixel."""
Blocks = npt.NDArray[np.bool_]
"""Some of the file blocks of a level, `(rows, columns)`."""


def pack_blocks(blocks: Blocks) -> str:
    """Write down some of a level's file blocks in few characters, none for none of them."""
    return base64.b64encode(zlib.compress(np.packbits(blocks).tobytes())).decode() if blocks.any() else ""


@dataclass(frozen=True)
class Level:
    """One image of the pyramid.

    Attributes:
        index: 0 is the finest.
        width: In its own pixels.
        height: Likewise.
        downsample: Level-0 pixels per pixel of it.
        exact: Whether OpenSlide can read it pixel by pixel. It takes places in level-0 pixels, so where its own
            downsample is not whole (2.0005, from sizes that were rounded), it interpolates between pixels of the level.
        block_width: Width of the file blocks that it is stored in, its own pixels; 1 where the file does not say.
        block_height: Likewise.
        empty: The file blocks that have no pixels, see `pack_blocks`.
        omitted: Those that may have been left out on purpose, since the file gives them neither length nor place.
        blank: Those that were, and are white; see `empty_blocks.judge`. All other empty ones are damage.
    """

    index: int
    width: int
    height: int
    downsample: float
    exact: bool = True
    block_width: int = 1
    block_height: int = 1
    empty: str = ""
    omitted: str = ""
    blank: str = ""

    @property
    def across(self) -> int:
        """Number of file blocks along x."""
        return -(-self.width // self.block_width)

    @property
    def down(self) -> int:
        """Number of file blocks along y."""
        return -(-self.height // self.block_height)

    def unpack(self, packed: str) -> Blocks:
        """Read what `pack_blocks` wrote."""
        size = self.down * self.across
        bits = (
            np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8) if packed else np.zeros(size, np.uint8)
        )
        return np.unpackbits(bits, count=size).view(np.bool_).reshape(self.down, self.across)

    @cached_property
    def blank_blocks(self) -> Blocks:
        """The file blocks that were left out on purpose."""
        return self.unpack(self.blank)

    @cached_property
    def lost_blocks(self) -> Blocks:
        """The file blocks that are empty and were not left out on purpose."""
        return self.unpack(self.empty) & ~self.blank_blocks

    def check_blocks(self, x: int, y: int, width: int, height: int) -> None:
        """Raise `ReadError` if a rectangle, in pixels of the level, touches a block that is lost."""
        if self.empty and self.lost_blocks[self.blocks_under(x, y, width, height)].any():
            raise ReadError(
                f"level {self.index} at ({x}, {y}): the file has no data for a block, and no coarser level shows that "
                "there is no tissue"
            )

    def blocks_under(self, x: int, y: int, width: int, height: int) -> tuple[slice, slice]:
        """Return rows and columns of the file blocks that a rectangle touches, which may reach over the edges."""
        return (
            slice(max(0, y) // self.block_height, max(0, -(-(y + height) // self.block_height))),
            slice(max(0, x) // self.block_width, max(0, -(-(x + width) // self.block_width))),
        )


class Reader(ABC):
    """Whatever decodes pixels of one open slide. One thread at a time, unless a reader says otherwise.

    Attributes:
        name: What the ledger calls it.
    """

    name: str

    @property
    def stored(self) -> "Reader | None":
        """What shows each level as it is stored in the file: this reader, another one, or nothing."""
        return self

    @abstractmethod
    def read(self, level: Level, x: int, y: int, width: int, height: int) -> Pixels:
        """Read a rectangle, in pixels of the level; what lies outside the level, or is transparent, is white.

        Returns:
            uint8 RGB, `(height, width, 3)`.

        Raises:
            ReadError: If these pixels cannot be decoded.
        """

    def read_windows(self, level: Level, places: Sequence[Place], targets: Sequence[Pixels]) -> list[ReadError | None]:
        """Average one level onto windows of a target grid; where they lie and how many they are changes no pixel.

        Args:
            level: The level that is read.
            places: The windows, all of the same ratios.
            targets: What is filled, uint8 RGB `(rows.count, columns.count, 3)` for each window; white beyond the edge.

        Returns:
            For each window why it cannot be decoded, or None. What its target then holds is undefined.
        """
        return [self._fill(level, *place, target) for place, target in zip(places, targets, strict=True)]

    def _fill(self, level: Level, columns: Window, rows: Window, target: Pixels) -> ReadError | None:
        (left, right), (top, bottom) = columns.source_span(), rows.source_span()
        try:
            pixels = self.read(level, left, top, right - left, bottom - top)
        except ReadError as error:
            return error
        target[:] = resample(pixels, columns, rows)
        return None

    @abstractmethod
    def close(self) -> None:
        """Release the file."""
