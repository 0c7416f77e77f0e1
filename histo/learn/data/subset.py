"""Draw stratified, seeded subsets, each contained in every larger one.

`tiny` and `small` are 100 and 800 images of each class, as the sets of 900 and 7200 images of nine classes that the
original task has beside its full one.
"""

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import numpy.typing as npt

from histo.errors import UsageError
from histo.learn.data.source import Source
from histo.learn.data.spec import _FRACTION, PER_CLASS


def draw_subset(source: Source, subset: str, seed: int) -> list[int]:
    """Draw a part of a source; cases that are set apart for testing all stay, and do not count.

    Every class keeps at least one image. Shares are Webster's (odd divisors), which never shrink when the total grows;
    by largest remainders they may (the Alabama paradox), and a subset would not contain the smaller ones.

    Args:
        source: The cases.
        subset: A `Subset`.
        seed: Fixes the draw.

    Returns:
        Indices of the cases, ascending.

    Raises:
        UsageError: If there are fewer images than asked for, or fewer are asked for than there are classes.
    """
    tests = [i for i, case in enumerate(source.cases) if case.split == "test"]
    classes = _classes_in_order(source, seed)
    if subset in PER_CLASS:
        drawn = [i for members in classes for i in members[: PER_CLASS[subset]]]
    else:
        order = _interleave(classes)
        firsts = {members[0] for members in classes}
        order.sort(key=lambda member: member not in firsts)
        drawn = order[: _count(source, subset, len(order), len(classes))]
    return sorted(drawn + tests)


def _classes_in_order(source: Source, seed: int) -> list[list[int]]:
    """Shuffle every class; its training and validation cases, where a source has both, keep their proportion."""
    strata: defaultdict[int, defaultdict[bool, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, case in enumerate(source.cases):
        if case.split != "test":
            strata[case.label][case.split == "val"].append(i)
    return [
        _interleave(
            [
                np.random.default_rng((seed, label, val)).permutation(strata[label][val]).tolist()
                for val in (False, True)
            ]
        )
        for label in sorted(strata)
    ]


def _interleave(strata: Sequence[Sequence[int]]) -> list[int]:
    """Merge sequences so that every beginning of the result has its share of each.

    Examples:
        >>> _interleave([[1, 2, 3, 4], [10, 20]])
        [1, 10, 2, 3, 20, 4]
    """
    keyed = [
        ((place + 0.5) / len(members), number, member)
        for number, members in enumerate(strata)
        for place, member in enumerate(members)
    ]
    return [member for _, _, member in sorted(keyed)]


def _count(source: Source, subset: str, available: int, classes: int) -> int:
    if subset == "full":
        return available
    if _FRACTION.fullmatch(subset):
        return max(classes, floor(Fraction(subset) * available + Fraction(1, 2)))
    if not classes <= int(subset) <= available:
        noun = source.noun
        raise UsageError(
            f"--subset {subset}: there are {available} {noun} of {classes} classes, test {noun} apart; ask for at most "
            "all, and for one of each class or more"
        )
    return int(subset)


def evenly(values: npt.NDArray[Any], most: int) -> npt.NDArray[Any]:
    """Return at most so many of the values, evenly taken.

    Examples:
        >>> evenly(np.arange(10), 4)
        array([0, 3, 6, 9])
        >>> evenly(np.arange(3), 4)
        array([0, 1, 2])
    """
    return values if len(values) <= most else values[np.linspace(0, len(values) - 1, most).round().astype(int)]
