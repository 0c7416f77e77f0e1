"""Which case is for training and which is held out."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from pydantic import Field
from sklearn.model_selection import train_test_split

from histo.errors import UsageError
from histo.learn.source import Source, Split
from histo.spec import Spec


class SplitSpec(Spec):
    """How cases are held out, where the source does not say so itself."""

    val_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of the cases for validation (0 to 1), stratified by class."""


def assign_splits(source: Source, spec: SplitSpec, seed: int) -> tuple[Split, ...]:
    """Give every case its split: the source's own where it has one, else a stratified, seeded draw.

    Raises:
        UsageError: If a class has too few cases to be in both parts.
    """
    splits: list[Split | None] = [case.split for case in source.cases]
    open_cases = [i for i, split in enumerate(splits) if split is None or (split == "train" and "val" not in splits)]
    held_out = set(_draw(source, open_cases, spec.val_fraction, seed)) if open_cases else set()
    if "train" not in splits and not open_cases:
        raise UsageError("the source has no training images, only parts for validation or testing")
    drawn: dict[int, Split] = {i: "val" if i in held_out else "train" for i in open_cases}
    return tuple(drawn.get(i) or _given(split) for i, split in enumerate(splits))


def _given(split: Split | None) -> Split:
    assert split is not None, "every case without a split was drawn"
    return split


def _draw(source: Source, candidates: Sequence[int], fraction: float, seed: int) -> list[int]:
    labels = source.labels()[list(candidates)]
    counts = np.bincount(labels, minlength=len(source.classes))
    rare = [name for name, count in zip(source.classes, counts, strict=True) if count == 1]
    if rare:
        raise UsageError(f"class {rare[0]} has a single image; it needs two or more, one of them for validation")
    try:
        _, held_out = train_test_split(list(candidates), test_size=fraction, stratify=labels, random_state=seed)
    except ValueError as error:
        raise UsageError(f"--split.val-fraction {fraction:g} of {len(candidates)} images: {error}") from None
    return [int(index) for index in held_out]


def split_hash(source: Source, splits: Sequence[Split]) -> str:
    """Return the sha256 of the assignment of every case."""
    rows = [[case.case_id, split] for case, split in zip(source.cases, splits, strict=True)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
