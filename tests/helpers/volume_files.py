"""Prepared volumes in files, of which it is known what they hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histo.volume_file import write_volume

PREPARATION = {"slices": 4, "size_px": 16, "algorithm": 1}


def write(path: Path, volume: np.ndarray, preparation: dict[str, Any] | None = PREPARATION) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_volume(file, volume, (5.0, 1.0, 1.0), {"preparation": preparation} if preparation else {})
    return path


def noise(seed: int, shape: Sequence[int] = (2, 4, 16, 16)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write_classes(root: Path, per_class: int = 3, shape: Sequence[int] = (2, 4, 16, 16), bright: int = 0) -> Path:
    """Folders `mts` and `norma`; the former have a cube in the middle that is brighter than noise by `bright`."""
    _, slices, height, width = shape
    middle = [slice(edge // 3, -(edge // 3)) for edge in (slices, height, width)]
    for number in range(per_class * 2):
        label = ("mts", "norma")[number % 2]
        volume = noise(number, shape) // 3
        if label == "mts":
            volume[:, *middle] += np.uint8(bright)
        write(root / label / f"P{number:03d}.nii.gz", volume)
    return root
