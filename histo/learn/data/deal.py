"""Deal few units into parts so that every part has every class.

A unit is what stays together, such as the images of a patient. scikit-learn's dealers ask for as many units of a class
as there are parts, or more; this one takes what there is.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MOST_DRAWS, _MOST_UNITS = 32, 20_000
"""Draws of which the best one is taken, and units that are dealt in all of them together."""


def deal(
    counts_UK: npt.NDArray[np.int64], shares: Sequence[float], seed: int, learner: int | None = None
) -> npt.NDArray[np.int64]:
    """Deal units into parts by iterative stratification (Sechidis et al. 2011, doi 10.1007/978-3-642-23808-6_10).

    The class with the fewest units left is dealt next, each of its units to the part that lacks most of that class. Of
    several draws the one counts in which the fewest classes are missing in a part, then the one that is nearest to
    the shares.

    Args:
        counts_UK: Cases of each of K classes in each of U units.
        shares: Of the parts, which add up to 1.
        seed: Fixes the draws.
        learner: The part that every class has to be in, also one with a single unit; None: all parts are alike.

    Returns:
        The part of every unit, `(U,)`.

    Examples:
        >>> deal(np.array([[1, 0]] * 4 + [[0, 1]] * 4), (0.75, 0.25), seed=0, learner=0).tolist()
        [0, 0, 0, 1, 1, 0, 0, 0]
    """
    random = np.random.default_rng(seed)
    wanted_PK = np.outer(shares, counts_UK.sum(axis=0))
    draws = min(_MOST_DRAWS, max(1, _MOST_UNITS // max(1, len(counts_UK))))
    dealt = [_draw(counts_UK, wanted_PK, random, learner) for _ in range(draws)]
    return min(dealt, key=lambda parts_U: _cost(counts_UK, wanted_PK, parts_U, learner))


def _draw(
    counts_UK: npt.NDArray[np.int64],
    wanted_PK: npt.NDArray[np.float64],
    random: np.random.Generator,
    learner: int | None,
) -> npt.NDArray[np.int64]:
    lacking_PK, held_PK = wanted_PK.copy(), np.zeros(wanted_PK.shape, bool)
    parts_U = np.full(len(counts_UK), -1)
    while (open_U := parts_U < 0).any():
        left_K = (counts_UK[open_U] > 0).sum(axis=0)
        label = int(np.where(left_K, left_K, len(counts_UK) + 1).argmin())
        units = random.permutation(np.flatnonzero(open_U & (counts_UK[:, label] > 0)))
        for left, unit in zip(range(len(units), 0, -1), units, strict=True):
            choice = _choice(held_PK[:, label], left, learner)
            lacks = [(lacking_PK[part, label], lacking_PK[part].sum()) for part in choice]
            if len(choice) < len(wanted_PK):  # the class is too rare for its own shares
                lacks = [(total, own) for own, total in lacks]
            keys = [(*lack, random.random()) for lack in lacks]
            part = choice[keys.index(max(keys))]
            parts_U[unit] = part
            lacking_PK[part] -= counts_UK[unit]
            held_PK[part] |= counts_UK[unit] > 0
    return parts_U


def _choice(held_P: npt.NDArray[np.bool_], left: int, learner: int | None) -> list[int]:
    """Return the parts that may get the next unit of a class, of which so many units are left.

    Args:
        held_P: Which parts have the class.
        left: Units, this one included.
        learner: See `deal`.
    """
    without = np.flatnonzero(~held_P).tolist()
    if not 0 < left <= len(without):
        return list(range(len(held_P)))
    return [learner] if learner in without else without


def _cost(
    counts_UK: npt.NDArray[np.int64],
    wanted_PK: npt.NDArray[np.float64],
    parts_U: npt.NDArray[np.int64],
    learner: int | None,
) -> tuple[int, int, float]:
    """Return how many classes the learner lacks, in how many places one is missing, and how far the shares are off."""
    held_PK = np.stack([counts_UK[parts_U == part].sum(axis=0) for part in range(len(wanted_PK))])
    possible_K = np.minimum((counts_UK > 0).sum(axis=0), len(wanted_PK))
    unlearned = 0 if learner is None else int((held_PK[learner] == 0).sum())
    off_PK = np.abs(held_PK - wanted_PK) / counts_UK.sum(axis=0)
    off_P = np.abs(held_PK.sum(axis=1) - wanted_PK.sum(axis=1)) / counts_UK.sum()
    return unlearned, int((possible_K - (held_PK > 0).sum(axis=0)).sum()), float(off_PK.sum() + off_P.sum())
