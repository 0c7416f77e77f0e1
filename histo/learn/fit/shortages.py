"""Say in lines for a person the shortages of a split of few cases."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from histo.learn.data.listing import Split
from histo.learn.data.source import Source
from histo.learn.fit.calibration import LEAST_CASES

_PARTS: dict[Split, str] = {"val": "validation", "test": "the test split"}
_NEAR = 0.05
"""How far a share may be from the one that was asked for without a word."""


def shortages(
    source: Source, splits: Sequence[Split | None], units: npt.NDArray[np.int64], fractions: dict[Split, float]
) -> list[str]:
    """Say which classes are missing from validation or from the test split, and which shares are far from those asked.

    Args:
        source: The cases.
        splits: Of every case.
        units: What stays together, see `number_units`.
        fractions: Shares that were drawn from all cases; none where a source gives its own splits.
    """
    lines = []
    taken = sum(split is not None for split in splits)
    for part, name in _PARTS.items():
        lines += absences(source, splits, units, part)
        own, asked = splits.count(part), fractions.get(part)
        if own and asked and abs(own / taken - asked) > _NEAR:
            lines.append(f"{name} has {own} of {taken} cases, {own / taken:.2f} of them; {asked:g} was asked for")
    return [*lines, *calibration_shortage(splits)]


def absences(source: Source, splits: Sequence[Split | None], units: npt.NDArray[np.int64], part: Split) -> list[str]:
    """Say which classes are missing from a part, if there is such a part."""
    labels, own = source.labels(), np.array([split == part for split in splits])
    absent = [label for label in range(len(source.classes)) if label not in labels[own]]
    if not own.any() or not absent:
        return []
    taken = np.array([split is not None for split in splits])
    return [f"{_PARTS[part]} has no case of {_counted(source, absent, units, taken)}; its score is not known"]


def calibration_shortage(splits: Sequence[Split | None]) -> list[str]:
    """Say where validation has too few cases for a temperature."""
    count = splits.count("val")
    if not 0 < count < LEAST_CASES:
        return []
    return [f"probabilities are not calibrated: {count} validation cases, fewer than {LEAST_CASES}"]


def fold_shortages(source: Source, folds: Sequence[int | None], units: npt.NDArray[np.int64], count: int) -> list[str]:
    """Say which classes have no case in some of the folds, see `assign_folds`."""
    labels, member = source.labels(), np.array([fold is not None for fold in folds])
    fold_of = np.array([-1 if fold is None else fold for fold in folds])
    absent = [
        label for label in range(len(source.classes)) if len(np.unique(fold_of[member & (labels == label)])) < count
    ]
    if not absent:
        return []
    return [f"some of the {count} folds test no case of {_counted(source, absent, units, member)}"]


def _counted(source: Source, labels: Sequence[int], units: npt.NDArray[np.int64], taken: npt.NDArray[np.bool_]) -> str:
    """Name classes, each with the number of its cases, those that stay together counted as one.

    Examples:
        >>> from histo.learn.data.images import ArrayImages
        >>> from histo.learn.data.source import Case
        >>> source = Source(("A", "B"), (Case("a", 0), Case("b", 1), Case("c", 1)), ArrayImages(()))
        >>> _counted(source, [0, 1], np.array([0, 1, 1]), np.ones(3, bool))
        'A (1 in all), B (1 in all)'
    """
    of_label = source.labels()
    return ", ".join(f"{source.classes[k]} ({len(np.unique(units[taken & (of_label == k)]))} in all)" for k in labels)
