"""Split cases into training, validation and test, or into folds."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from histo.errors import UsageError
from histo.learn.data.deal import deal
from histo.learn.data.inspection import Inspection
from histo.learn.data.listing import SPLITS, Split
from histo.learn.data.source import Case, Source
from histo.learn.data.spec import SplitSpec

_FINEST = 20
"""Most folds that groups are dealt into; a fraction is rounded to a number of so many folds or fewer."""


def assign_splits(source: Source, found: Inspection, spec: SplitSpec, seed: int) -> tuple[Split | None, ...]:
    """Give every usable case its split: the source's own where it has one, else a stratified, seeded draw.

    Few cases are split as well as they can be, see `deal`; `shortages` says what is wanting. Drawn are the cases
    without a split, and the training cases of a source that names none for validation; the latter never go to the test
    set. Cases of one group, or of equal content, stay together, and follow what is given for one of them, but not into
    the test set of another source, which stays as it is; that is a leak, see `leaks.py`.

    Args:
        source: The cases.
        found: Their inspection.
        spec: How much is held out.
        seed: Fixes the draw.

    Returns:
        A split for every case, None for one that cannot be used.

    Raises:
        UsageError: If a class would have no training case, or validation none at all.
    """
    if len(source.classes) < 2:
        raise UsageError(f"a single class, {source.classes[0]}; a classifier needs two or more")
    if spec.val_fraction + spec.test_fraction >= 1:
        raise UsageError(
            f"--split.val-fraction {spec.val_fraction:g} and --split.test-fraction {spec.test_fraction:g} leave "
            "nothing to train with"
        )
    units = number_units(source, found)
    splits: dict[int, Split] = {i: source.cases[i].split or "train" for i in found.usable()}
    undecided = _follow(source, found, units, splits)
    settled = {units[i] for i in undecided if source.cases[i].split == "train"}
    pool = [i for i in undecided if units[i] not in settled]
    tested = set(_draw(source, units, pool, spec.test_fraction, seed, "test", spec.val_fraction))
    rest = [i for i in undecided if i not in tested]
    share = spec.val_fraction * len(undecided) / max(1, len(rest))
    validated = _draw(source, units, rest, share, seed, "val")
    for i in (*tested, *validated):
        splits[i] = "test" if i in tested else "val"
    if "train" not in splits.values():
        raise UsageError(f"the source has no training {source.noun}, only parts for validation or testing")
    learned = {source.cases[i].label for i, split in splits.items() if split == "train"}
    unseen = [name for label, name in enumerate(source.classes) if label not in learned]
    if unseen:
        raise UsageError(
            f"class {unseen[0]}: none of its {source.noun} can be trained on; add some, or choose the classes with "
            "--classes"
        )
    return tuple(splits.get(i) for i in range(len(source.cases)))


def assign_folds(source: Source, found: Inspection, folds: int, seed: int) -> tuple[int | None, ...]:
    """Deal the usable cases into folds of like classes; cases of one group, or of equal content, into the same one.

    Cases that a source sets apart for testing take no part; other splits of a source do not count.

    Args:
        source: The cases.
        found: Their inspection.
        folds: How many.
        seed: Fixes the draw.

    Returns:
        The fold of every case, from 0; None for one that takes no part.

    Raises:
        UsageError: If there are fewer cases, or groups, than folds, or a class has a single one.
    """
    if len(source.classes) < 2:
        raise UsageError(f"a single class, {source.classes[0]}; a classifier needs two or more")
    members = [i for i in found.usable() if source.cases[i].split != "test"]
    labels, units = source.labels()[members], number_units(source, found)[members]
    counts = [len(np.unique(units[labels == label])) for label in range(len(source.classes))]
    together = len(np.unique(units))
    if together < folds:
        raise UsageError(
            f"--folds {folds}: there are {together} cases ({source.noun} of one group, or copies, count as one); ask "
            "for at most that many folds"
        )
    if min(counts) < 2:
        rare = source.classes[counts.index(min(counts))]
        raise UsageError(
            f"--folds {folds}: class {rare} has {min(counts)} cases ({source.noun} of one group, or copies, count as "
            "one), and the fold that tests it cannot learn it; add some, or choose the classes with --classes"
        )
    dealt = _fold_numbers(labels, units, folds, seed) if min(counts) >= folds else None
    if dealt is None:
        dealt = _deal(labels, units, [1 / folds] * folds, seed)
    fold_of = dict(zip(members, dealt.tolist(), strict=True))
    return tuple(fold_of.get(i) for i in range(len(source.cases)))


def _fold_numbers(
    labels: npt.NDArray[np.int64], units: npt.NDArray[np.int64], folds: int, seed: int
) -> npt.NDArray[np.int64] | None:
    """Return the fold of every place in `labels`, whole units in one; None if one is empty, or has all of a class."""
    alone = len(np.unique(units)) == len(labels)
    dealer = (StratifiedKFold if alone else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    dealt = np.zeros(len(labels), np.int64)
    for fold, (_, held_out) in enumerate(dealer.split(np.zeros((len(labels), 1)), labels, None if alone else units)):
        dealt[held_out] = fold
    held = any(len(np.unique(dealt[labels == label])) < 2 for label in np.unique(labels))
    return dealt if len(np.unique(dealt)) == folds and not held else None


def fold_splits(
    source: Source, found: Inspection, folds: Sequence[int | None], fold: int, spec: SplitSpec, seed: int
) -> tuple[Split | None, ...]:
    """Give every case its split in one run of a cross-validation: the fold tests it, a part of the others validates.

    Args:
        source: The cases.
        found: Their inspection.
        folds: Of every case, see `assign_folds`.
        fold: The one that is held out.
        spec: How much of the other folds is for validation.
        seed: Fixes that draw.

    Returns:
        A split for every case, None for one that takes no part.

    Raises:
        UsageError: If a class has too few cases, or groups, to be in all parts.
    """
    members = [i for i, number in enumerate(folds) if number is not None]
    chosen = source.select(members)
    given: list[Split | None] = ["test" if folds[i] == fold else None for i in members]
    cases = tuple(replace(case, split=split) for case, split in zip(chosen.cases, given, strict=True))
    splits = assign_splits(replace(chosen, cases=cases), found.select(members), spec, seed)
    split_of = dict(zip(members, splits, strict=True))
    return tuple(split_of.get(i) for i in range(len(source.cases)))


def number_units(source: Source, found: Inspection) -> npt.NDArray[np.int64]:
    """Number what stays together: cases of one group or of equal content, and what these have in common."""
    rows, columns = [], []
    keys: dict[tuple[str, str], int] = {}
    for i in found.usable():
        for kind, value in (("content", found.content_hashes[i]), ("group", source.cases[i].group)):
            if value is not None:
                rows.append(i)
                columns.append(len(source.cases) + keys.setdefault((kind, value), len(keys)))
    size = len(source.cases) + len(keys)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size))
    _, units = connected_components(graph, directed=False)
    return np.asarray(units[: len(source.cases)], np.int64)


def _follow(source: Source, found: Inspection, units: npt.NDArray[np.int64], splits: dict[int, Split]) -> list[int]:
    """Let cases that may be drawn follow the given ones of their unit; returns those that have none to follow."""
    with_val = {source.cases[i].source for i in found.usable() if source.cases[i].split == "val"}
    given: defaultdict[int, set[tuple[Split | None, str]]] = defaultdict(set)
    drawable = []
    for i in found.usable():
        case = source.cases[i]
        if case.split is None or (case.split == "train" and case.source not in with_val):
            drawable.append(i)
        else:
            given[units[i]].add((case.split, case.source))
    undecided = []
    for i in drawable:
        leaders = _leaders(source.cases[i], given[units[i]])
        splits[i] = leaders[0] if leaders else "train"
        undecided += [] if leaders else [i]
    return undecided


def _leaders(case: Case, given: set[tuple[Split | None, str]]) -> list[Split]:
    """Return the given splits that a case may follow. Into a test set it follows only cases of its own source."""
    told = {split for split, origin in given if split != "test" or (origin == case.source and case.split is None)}
    return [split for split in SPLITS if split in told]


def _draw(
    source: Source,
    units: npt.NDArray[np.int64],
    pool: Sequence[int],
    fraction: float,
    seed: int,
    part: Split,
    later: float = 0,
) -> list[int]:
    """Draw a share of the cases of a pool, whole units of it, stratified by class; a later draw takes another share."""
    if not pool or not fraction:
        return []
    labels, members = source.labels()[list(pool)], units[list(pool)]
    places = _draw_places(labels, members, fraction, seed)
    if places is None:
        shares = [1 - fraction - later, fraction, *([later] if later else [])]
        places = np.flatnonzero(_deal(labels, members, shares, seed, learner=0) == 1)
    if not len(places):
        raise UsageError(
            f"no class has two cases ({source.noun} of one group, or copies, count as one), so that none is left for "
            f"{part}; add some, or give --split.{part}-fraction 0"
        )
    return [pool[place] for place in places.tolist()]


def _deal(
    labels: npt.NDArray[np.int64],
    units: npt.NDArray[np.int64],
    shares: Sequence[float],
    seed: int,
    learner: int | None = None,
) -> npt.NDArray[np.int64]:
    """Deal few units, see `deal`; returns the part of every place in `labels`."""
    _, unit_of = np.unique(units, return_inverse=True)
    _, class_of = np.unique(labels, return_inverse=True)
    counts_UK = np.zeros((unit_of.max() + 1, class_of.max() + 1), np.int64)
    np.add.at(counts_UK, (unit_of, class_of), 1)
    return deal(counts_UK, shares, seed, learner)[unit_of]


def _draw_places(
    labels: npt.NDArray[np.int64], units: npt.NDArray[np.int64], fraction: float, seed: int
) -> npt.NDArray[np.int64] | None:
    """Draw a share of places in `labels`, whole units, by class.

    None where scikit-learn asks for more units, or leaves a class on one side.
    """
    alone = len(np.unique(units)) == len(labels)
    out = _draw_cases(labels, fraction, seed) if alone else _draw_units(labels, units, fraction, seed)
    if out is None or any(len(np.unique(out[labels == label])) < 2 for label in np.unique(labels)):
        return None
    return np.flatnonzero(out)


def _draw_cases(labels: npt.NDArray[np.int64], fraction: float, seed: int) -> npt.NDArray[np.bool_] | None:
    """Return which cases are held out; None where there are fewer, of a class or to hold out, than there have to be."""
    out = np.zeros(len(labels), bool)
    try:
        _, held_out = train_test_split(np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed)
    except ValueError:
        return None
    out[held_out] = True
    return out


def _draw_units(
    labels: npt.NDArray[np.int64], units: npt.NDArray[np.int64], fraction: float, seed: int
) -> npt.NDArray[np.bool_] | None:
    """Return which cases are held out, whole units; None where a class has fewer units than the fraction has folds."""
    ratio = Fraction(fraction).limit_denominator(_FINEST)
    if not 0 < ratio < 1:
        return None
    if min(len(np.unique(units[labels == label])) for label in np.unique(labels)) < ratio.denominator:
        return None
    dealt = _fold_numbers(labels, units, ratio.denominator, seed)
    return None if dealt is None else dealt < ratio.numerator


def split_hash(case_ids: Sequence[str], splits: Sequence[Split | None]) -> str:
    """Return the sha256 of the assignment of every case."""
    rows = [[case_id, split] for case_id, split in zip(case_ids, splits, strict=True)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
