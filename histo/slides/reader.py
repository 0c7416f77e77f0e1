"""What a reader of slides is: the levels that it reads, and windows of the target grid that it fills."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from histo.errors import ReadError
from histo.resample import Pixels, Window, resample

Place = tuple[Window, Window]
"""A window of a target grid: along x, then along y. A window's ratio is level pixels per target pixel."""


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
    """

    index: int
    width: int
    height: int
    downsample: float
    exact: bool = True
    block_width: int = 1
    block_height: int = 1


class Reader(ABC):
    """Whatever decodes pixels of one open slide. One thread at a time, unless a reader says otherwise.

    Attributes:
        name: What the ledger calls it.
    """

    name: str

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
