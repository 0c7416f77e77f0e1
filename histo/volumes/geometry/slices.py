"""Choose the slices of a volume, by position alone."""

from histo.errors import Cause, StudyError
from histo.volumes.spec import Choice, Fill


def choose_slices(count: int, wanted: int, choice: Choice = "even", fill: Fill = "repeat") -> list[int | None]:
    """Choose `wanted` of `count` slices; None stands for a black one.

    `even`: slice `i` of the choice is the one nearest to the position `(i + 0.5) / wanted` of the extent between the
    outer faces of the first and the last slice; ties go to the lower one. `outer-middle`: the `ceil(wanted / 4)`
    lowest, the `floor(wanted / 4)` highest, and the rest in one run in the middle of what lies between, the odd slice
    above. Where a series has fewer slices than wanted: `repeat` takes the even rule, which then names some slices
    several times; `pad` takes all slices, with black ones before and after, the odd one after.

    Examples:
        >>> choose_slices(10, 5)
        [0, 2, 4, 6, 8]
        >>> choose_slices(20, 8, "outer-middle")
        [0, 1, 8, 9, 10, 11, 18, 19]
        >>> choose_slices(3, 5)
        [0, 0, 1, 2, 2]
        >>> choose_slices(3, 5, fill="pad")
        [None, 0, 1, 2, None]
    """
    if count < 1 or wanted < 1:
        raise ValueError(f"{wanted} of {count} slices cannot be chosen")
    if count < wanted and fill == "pad":
        before = (wanted - count) // 2
        return [None] * before + [*range(count)] + [None] * (wanted - count - before)
    if count < wanted or choice == "even":
        return [((2 * index + 1) * count - 1) // (2 * wanted) for index in range(wanted)]
    low, high = (wanted + 3) // 4, wanted // 4
    start = low + (count - wanted) // 2
    middle = wanted - low - high
    return [*range(low), *range(start, start + middle), *range(count - high, count)]


def slice_distance_mm(chosen: list[int | None], count: int, spacing_mm: float, choice: Choice) -> float:
    """Return the mean distance of neighbouring slices of the volume, mm, given that of the series."""
    places = [index for index in chosen if index is not None]
    if len(places) < len(chosen):
        return spacing_mm
    if choice == "even" or count < len(chosen):
        return spacing_mm * count / len(chosen)
    return spacing_mm * (places[-1] - places[0]) / (len(places) - 1)


def require_several(counts: tuple[int, ...], where: str) -> None:
    """Refuse what is no volume.

    Raises:
        StudyError: `one_slice`, if a series `(D, H, W)` is one slice thick along an axis.
    """
    if min(counts) < 2:
        raise StudyError(
            Cause.ONE_SLICE, f"{where}: one slice ({' x '.join(map(str, counts))}); leave out scouts and single images"
        )
