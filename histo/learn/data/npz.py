"""List the arrays of an `.npz` file, also in MedMNIST's parts.

`images` or `data` with `labels`; or those of MedMNIST for training, validation and test.

Those are `train_images`, `train_labels`, `val_images` and so on. The file is read into memory as a whole.
"""

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

import numpy as np
import numpy.typing as npt

from histo.errors import UsageError
from histo.learn.data.images import ArrayImages
from histo.learn.data.listing import SPLITS, Listing, Split
from histo.regular_file import require_regular

MOST_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
"""Of all images and labels of a file, unpacked: half of this machine's memory."""
_ARRAY = ".npy"
_Part = tuple[str, str, Split | None]
_PARTS: tuple[_Part, ...] = (
    *((f"{split}_images", f"{split}_labels", split) for split in SPLITS),
    ("images", "labels", None),
    ("data", "labels", None),
)


def list_npz(path: Path, flag: str) -> Listing:
    """Read the arrays of an npz file; labels are numbers, or names as text.

    Args:
        path: The file.
        flag: What messages call the source.

    Raises:
        UsageError: If it is not of a known form.
    """
    arrays, others = _read_arrays(path, flag)
    parts = _find_parts(path, arrays, others, flag)
    rows = [(key, row, split) for key, _, split in parts for row in range(len(arrays[key]))]
    labels, classes = _read_labels(path, [arrays[label_key].reshape(-1) for _, label_key, _ in parts], flag)
    return Listing(
        case_ids=[f"{path.name}#{key}/{row}" for key, row, _ in rows],
        labels=labels,
        images=ArrayImages(tuple(arrays[key] for key, _, _ in parts)),
        classes=classes,
        splits=[split for _, _, split in rows],
        groups=[None] * len(rows),
        others={f"array {key}": 1 for key in sorted({*arrays, *others}) if not any(key in part for part in parts)},
    )


def _read_arrays(path: Path, flag: str) -> tuple[dict[str, npt.NDArray[Any]], list[str]]:
    """Read images and labels by name, after their sizes have been looked up; return also the names of other arrays."""
    where = f"{flag} {path}: not a readable npz file"
    try:
        require_regular(path)
        with ZipFile(path) as members:
            found = [member for member in members.infolist() if member.filename.endswith(_ARRAY)]
            wanted = [member for member in found if any(_name(member) in part for part in _PARTS)]
            _check_sizes(members, wanted)
        with np.load(path, allow_pickle=False) as file:
            arrays = {_name(member): file[member.filename] for member in wanted}
        return arrays, [_name(member) for member in found if member not in wanted]
    except MemoryError:
        raise UsageError(f"{where} (memory is short); write a tile table, which is read in parts") from None
    except OSError as error:
        raise UsageError(f"{where} ({error.strerror or error})") from None
    except Exception as error:  # noqa: BLE001 -- zipfile, its decoders and numpy raise what they run into
        raise UsageError(f"{where} ({' '.join(str(error).split()) or type(error).__name__})") from None


def _name(member: ZipInfo) -> str:
    return member.filename.removesuffix(_ARRAY)


def _check_sizes(members: ZipFile, arrays: Sequence[ZipInfo]) -> None:
    """Refuse arrays of one name, of too many bytes, or of another size than their member has, before any is read."""
    if len({member.filename for member in arrays}) < len(arrays):
        raise ValueError("two arrays have one name; write it anew")
    total = sum(member.file_size for member in arrays)
    if total > MOST_BYTES:
        raise ValueError(
            f"{total:,} bytes, more than half of this machine's memory, {MOST_BYTES:,}; save it as several files, and "
            "give --data each"
        )
    for member in arrays:
        with members.open(member) as opened:
            version = np.lib.format.read_magic(opened)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = read(opened)
            needed = opened.tell() + prod(shape) * kind.itemsize
        if kind.hasobject:
            raise ValueError(f"{member.filename}: Python objects, which are not read; save text with .astype(str)")
        if needed != member.file_size:
            raise ValueError(f"{member.filename}: {shape} needs {needed:,} bytes, it has {member.file_size:,}")


def _find_parts(
    path: Path, arrays: dict[str, npt.NDArray[np.generic]], others: Sequence[str], flag: str
) -> list[_Part]:
    """Find the pairs of image and label arrays; a file of a single part says nothing about a split."""
    parts = [part for part in _PARTS if part[0] in arrays and part[1] in arrays]
    if not parts:
        held = sorted({*arrays, *others})
        raise UsageError(
            f"{flag} {path}: holds {held}; expected data and labels, images and labels, or train_images and "
            "train_labels (val_, test_)"
        )
    for key, label_key, _ in parts:
        images, labels = arrays[key], arrays[label_key]
        extents = images.shape[1:3]
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)) or 0 in extents:
            raise UsageError(
                f"{flag} {path}: {key} is {images.dtype} {images.shape}; expected uint8 (n, height, width, 3)"
            )
        if labels.size != len(images):
            raise UsageError(f"{flag} {path}: {len(images)} images in {key}, but {labels.size} labels in {label_key}")
    return parts if len(parts) > 1 else [(parts[0][0], parts[0][1], None)]


def _read_labels(
    path: Path, parts: list[npt.NDArray[np.generic]], flag: str
) -> tuple[list[str] | list[int], tuple[str, ...] | None]:
    """Return all labels, and the names of the classes if they are names."""
    kinds = {labels.dtype.kind for labels in parts}
    labels = np.concatenate(parts)
    if kinds == {"S"}:
        labels, kinds = _decoded(path, labels, flag), {"U"}
    if not len(labels):
        raise UsageError(f"{flag} {path}: holds no images")
    if kinds == {"U"}:
        return labels.tolist(), tuple(np.unique(labels).tolist())
    if "f" in kinds <= {"i", "u", "f"}:
        floats = labels.astype(np.float64)
        if (abs(floats) < 2**31).all() and (floats % 1 == 0).all():
            labels, kinds = floats.astype(np.int64), {"i"}
    if not kinds <= {"i", "u"} or labels.min() < 0:
        raise UsageError(f"{flag} {path}: labels must be names or whole numbers from 0, not {labels.dtype}")
    return labels.tolist(), None


def _decoded(path: Path, labels: npt.NDArray[np.generic], flag: str) -> npt.NDArray[np.str_]:
    try:
        return np.char.decode(labels.astype(np.bytes_), "utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{flag} {path}: labels are bytes that are not UTF-8; save text with .astype(str)") from None
