"""Map a scanner's values to 8 bits by a window.

Every rule gives a window, whose ends become 0 and 255. `percentile` and `zscore` are measured on the foreground of a
whole series: all values above its lowest. A series whose window is empty, since its foreground has one value or none,
becomes black.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from histo.errors import Cause, StudyError

Values = npt.NDArray[np.float32]
"""`(D, H, W)`, in the units of the scanner."""

LOWEST_HOUNSFIELD, HIGHEST_HOUNSFIELD = -32768, 32767


@dataclass(frozen=True)
class IntensityWindow:
    """Values from `low` to `high`, in the scanner's units, span the grey levels."""

    low: float
    high: float

    @property
    def empty(self) -> bool:
        """Whether there is no contrast to show."""
        return not self.high > self.low

    def grey(self, values: Values) -> npt.NDArray[np.uint8]:
        """Map values to 0..255, clipped, rounded half up.

        Examples:
            >>> IntensityWindow(0, 510).grey(np.array([-1, 1, 2.9, 600], np.float32)).tolist()
            [0, 1, 1, 255]
        """
        if self.empty:
            return np.zeros(values.shape, np.uint8)
        share = (values.astype(np.float64) - self.low) * (255 / (self.high - self.low))
        return np.floor(np.clip(share, 0, 255) + 0.5).astype(np.uint8)


def check_values(values_DHW: Values, where: str, hounsfield: bool) -> None:
    """Refuse values that cannot be.

    Args:
        values_DHW: Of a whole series.
        where: What messages call it.
        hounsfield: Whether they are Hounsfield units, which 16 bits hold.

    Raises:
        StudyError: `not_finite` or `overflow`.
    """
    low, high = float(values_DHW.min()), float(values_DHW.max())
    if not np.isfinite([low, high]).all():
        count = values_DHW.size - sum(int(np.isfinite(plane).sum()) for plane in values_DHW)
        raise StudyError(
            Cause.NOT_FINITE, f"{where}: {count} values are NaN or infinite; replace them by the value of background"
        )
    if hounsfield and (low < LOWEST_HOUNSFIELD or high > HIGHEST_HOUNSFIELD):
        raise StudyError(
            Cause.OVERFLOW,
            f"{where}: values from {low:g} to {high:g}; Hounsfield units lie within {LOWEST_HOUNSFIELD} and"
            f" {HIGHEST_HOUNSFIELD}: 16 bits have wrapped around; export the series again",
        )


def percentile_window(values_DHW: Values, low: float, high: float) -> IntensityWindow:
    """Span two percentiles (0 to 100) of the foreground, linear between neighbouring values."""
    counts, first = _count_high_bits(values_DHW)
    total = int(counts.sum()) - first
    if not total:
        return IntensityWindow(0, 0)
    ranks = [(total - 1) * share / 100 for share in (low, high)]
    values = {
        rank: _value_at(values_DHW, counts, rank + first)
        for rank in {int(place) for place in ranks} | {min(int(place) + 1, total - 1) for place in ranks}
    }
    ends = []
    for place in ranks:
        below, above = values[int(place)], values[min(int(place) + 1, total - 1)]
        ends.append(below + (above - below) * (place - int(place)))
    return IntensityWindow(*ends)


def _count_high_bits(values_DHW: Values) -> tuple[npt.NDArray[np.int64], int]:
    """Return how many values have each pattern of the upper 16 bits, and how many are the lowest value."""
    counts = np.zeros(2**16, np.int64)
    lowest, background = values_DHW.min(), 0
    for plane in values_DHW:
        counts += np.bincount(_ordered(plane) >> 16, minlength=2**16)
        background += int((plane == lowest).sum())
    return counts, background


def _value_at(values_DHW: Values, counts: npt.NDArray[np.int64], rank: int) -> float:
    """Return the value at a rank (0 the lowest) without sorting: find its upper bits, then count the lower ones."""
    until = np.cumsum(counts)
    upper = int(np.searchsorted(until, rank, side="right"))
    lower = np.zeros(2**16, np.int64)
    for plane in values_DHW:
        bits = _ordered(plane)
        lower += np.bincount(bits[bits >> 16 == upper] & 0xFFFF, minlength=2**16)
    place = int(np.searchsorted(np.cumsum(lower), rank - int(until[upper] - counts[upper]), side="right"))
    pattern = np.array(upper << 16 | place, np.uint32)
    return float(_from_ordered(pattern))


def _ordered(plane: Values) -> npt.NDArray[np.uint32]:
    """Turn floats into whole numbers of the same order, flat; the two zeros become one."""
    bits = (np.ascontiguousarray(plane).ravel() + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(2**31)).astype(np.uint32)


def _from_ordered(pattern: npt.NDArray[np.uint32]) -> np.float32:
    bits = np.where(pattern >> 31, pattern & np.uint32(2**31 - 1), ~pattern).astype(np.uint32)
    return np.float32(bits.view(np.float32))


def zscore_window(values_DHW: Values, span: float) -> IntensityWindow:
    """Span so many standard deviations below and above the mean of the foreground."""
    lowest, count, total = values_DHW.min(), 0, 0.0
    for plane in _planes(values_DHW):
        foreground = plane[plane > lowest].astype(np.float64)
        count, total = count + foreground.size, total + float(foreground.sum())
    if not count:
        return IntensityWindow(0, 0)
    mean, squares, highest = total / count, 0.0, values_DHW.max()
    constant = True
    for plane in _planes(values_DHW):
        foreground = plane[plane > lowest].astype(np.float64)
        squares += float(((foreground - mean) ** 2).sum())
        constant &= bool((foreground == highest).all())
    deviation = 0.0 if constant else float(np.sqrt(squares / count))
    return IntensityWindow(mean - span * deviation, mean + span * deviation)


def _planes(values_DHW: Values) -> Iterator[Values]:
    """Yield the slices, their values in one order whatever that of the file, so that sums round alike."""
    return (np.ascontiguousarray(plane) for plane in values_DHW)
