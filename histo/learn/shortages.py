"""What a split, or folds, lack where there are few cases: lines for a person."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from histo.learn.calibration import LEAST_CASES
from histo.learn.listing import Split
from histo.learn.source import Source

_PARTS: tuple[tuple[Split, str], ...] = (("val", "validation"), ("test", "the test split"))
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
    labels, drawn = source.labels(), np.array([split or "" for split in splits])
    taken = drawn != ""
    lines = []
    for part, name in _PARTS:
        own = drawn == part
        if not own.any():
            continue
        absent = [label for label in range(len(source.classes)) if label not in labels[own]]
        if absent:
            lines.append(f"{name} has no case of {_counted(source, absent, units, taken)}; its score is not known")
        share, asked = own.sum() / taken.sum(), fractions.get(part)
        if asked and abs(share - asked) > _NEAR:
            lines.append(f"{name} has {own.sum()} of {taken.sum()} cases, {share:.2f} of them; {asked:g} was asked for")
    count = int((drawn == "val").sum())
    if 0 < count < LEAST_CASES:
        lines.append(f"probabilities are not calibrated: {count} validation cases, fewer than {LEAST_CASES}")
    return lines


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
        >>> from histo.learn.images import ArrayImages
        >>> from histo.learn.source import Case
        >>> source = Source(("A", "B"), (Case("a", 0), Case("b", 1), Case("c", 1)), ArrayImages(()))
        >>> _counted(source, [0, 1], np.array([0, 1, 1]), np.ones(3, bool))
        'A (1 in all), B (1 in all)'
    """
    of_label = source.labels()
    return ", ".join(f"{source.classes[k]} ({len(np.unique(units[taken & (of_label == k)]))} in all)" for k in labels)
