"""Labelled images: a folder of class folders, or an `.npz` file.

Folder: `SOURCE/CLASS/NAME.png` (or jpg, tif); the classes are the folders' names in alphabetical order.
npz: `images` or `data` with `labels`, or MedMNIST's `train_images`, `val_images`, `test_images` with their labels.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from PIL import Image

from histo.errors import UsageError
from histo.resample import Pixels

IMAGE_EXTENSIONS = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff"))
_EIGHT_BITS = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"))
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Case:
    """One labelled image.

    Attributes:
        case_id: Path below the source, or `FILE.npz#KEY/ROW`.
        label: Index into the source's classes.
        split: What the source itself says; None where it says nothing.
    """

    case_id: str
    label: int
    split: Split | None = None


class Images(Protocol):
    """Where the pixels of a source's cases come from."""

    def load(self, index: int) -> Pixels:
        """Return image number `index`, RGB `(H, W, 3)`."""


@dataclass(frozen=True)
class Source:
    """Labelled cases and their images, in one order."""

    classes: tuple[str, ...]
    cases: tuple[Case, ...]
    images: Images

    def labels(self) -> npt.NDArray[np.int64]:
        """Return the class index of every case."""
        return np.array([case.label for case in self.cases], np.int64)

    def select(self, members: Sequence[int]) -> "Source":
        """Return a source of some of the cases, in the given order."""
        return Source(self.classes, tuple(self.cases[i] for i in members), _Selected(self.images, tuple(members)))


@dataclass(frozen=True)
class _Selected:
    """Some of the images of another source."""

    images: Images
    members: tuple[int, ...]

    def load(self, index: int) -> Pixels:
        """See `Images.load`."""
        return self.images.load(self.members[index])


@dataclass(frozen=True)
class FileImages:
    """Images in files of their own."""

    paths: tuple[Path, ...]

    def load(self, index: int) -> Pixels:
        """Decode one file as RGB.

        Raises:
            UsageError: If it is not an image.
        """
        path = self.paths[index]
        try:
            with Image.open(path) as image:
                return _as_rgb(path, image)
        except (OSError, ValueError, SyntaxError) as error:
            raise UsageError(f"{path}: not a readable image ({error}); replace or remove it") from None


def _as_rgb(path: Path, image: Image.Image) -> Pixels:
    """Convert an image of 8 bits per channel to RGB; what is transparent becomes white.

    Raises:
        UsageError: If it has other pixels, which would have to be clipped or scaled by guess.
    """
    if image.mode not in _EIGHT_BITS:
        raise UsageError(f"{path}: pixels of mode {image.mode}; expected 8 bits per channel, convert the image")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class ArrayImages:
    """Images in memory, `(n, H, W, 3)` or grey `(n, H, W)` each."""

    arrays: tuple[Pixels, ...]

    def load(self, index: int) -> Pixels:
        """Return one image as RGB."""
        for array in self.arrays:
            if index < len(array):
                image = array[index]
                return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
            index -= len(array)
        raise IndexError(index)


def read_source(path: Path, classes: Sequence[str] | None = None) -> Source:
    """Read the list of cases of a source; pixels are loaded later.

    Args:
        path: A folder of class folders, or an `.npz` file.
        classes: Names of an npz file's labels 0, 1, ...; for a folder, the classes to use, in this order.

    Raises:
        UsageError: If there is no such source, or it is not of a known form.
    """
    if not path.exists():
        raise UsageError(f"--data {path}: no such file or folder")
    if not path.is_dir() and path.suffix != ".npz":
        raise UsageError(f"--data {path}: expected a folder of class folders or an .npz file")
    source = _read_folder(path, classes) if path.is_dir() else _read_npz(path, classes)
    repeated = [name for name, count in Counter(source.classes).items() if count > 1]
    if repeated:
        raise UsageError(f"--classes: {repeated[0]} is named twice")
    if len(source.classes) < 2:
        raise UsageError(f"--data {path}: a single class, {source.classes[0]}; a classifier needs two or more")
    return source


def _read_folder(root: Path, classes: Sequence[str] | None) -> Source:
    found = {folder.name: _image_files(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}
    names = tuple(classes) if classes else tuple(name for name in found if not name.startswith("."))
    if not names:
        raise UsageError(f"--data {root}: no class folders in it; expected {root.name}/CLASS/IMAGE.png")
    for name in names:
        if not found.get(name):
            raise UsageError(f"--data {root}: no images for class {name} (png, jpg or tif in {root / name})")
    pairs = [(path, label) for label, name in enumerate(names) for path in found[name]]
    cases = tuple(Case(path.relative_to(root).as_posix(), label) for path, label in pairs)
    return Source(names, cases, FileImages(tuple(path for path, _ in pairs)))


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file())


def _read_npz(path: Path, classes: Sequence[str] | None) -> Source:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise UsageError(f"--data {path}: not a readable npz file ({error})") from None
    parts = _npz_parts(path, arrays)
    labels = np.concatenate([arrays[label_key].reshape(-1) for _, label_key, _ in parts])
    names, numbers = _name_labels(path, labels, classes)
    rows = [(key, row, split) for key, _, split in parts for row in range(len(arrays[key]))]
    cases = tuple(
        Case(f"{path.name}#{key}/{row}", int(number), split)
        for (key, row, split), number in zip(rows, numbers, strict=True)
    )
    return Source(names, cases, ArrayImages(tuple(arrays[key] for key, _, _ in parts)))


def _npz_parts(path: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> list[tuple[str, str, Split | None]]:
    """Find the pairs of image and label arrays; a file of a single part says nothing about a split."""
    splits: tuple[Split, ...] = ("train", "val", "test")
    known: list[tuple[str, str, Split | None]] = [(f"{split}_images", f"{split}_labels", split) for split in splits]
    known += [("images", "labels", None), ("data", "labels", None)]
    parts = [part for part in known if part[0] in arrays and part[1] in arrays]
    if not parts:
        raise UsageError(
            f"--data {path}: holds {sorted(arrays)}; expected data and labels, images and labels, or train_images and "
            "train_labels (val_, test_)"
        )
    for key, label_key, _ in parts:
        images, labels = arrays[key], arrays[label_key]
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
            raise UsageError(
                f"--data {path}: {key} is {images.dtype} {images.shape}; expected uint8 (n, height, width, 3)"
            )
        if labels.size != len(images):
            raise UsageError(f"--data {path}: {len(images)} images in {key}, but {labels.size} labels in {label_key}")
    return parts if len(parts) > 1 else [(parts[0][0], parts[0][1], None)]


def _name_labels(
    path: Path, labels: npt.NDArray[np.generic], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Turn labels (numbers, or names) into class names and numbers."""
    if labels.dtype.kind == "U":
        names = tuple(classes) if classes else tuple(str(name) for name in np.unique(labels))
        strangers = set(labels.tolist()) - set(names)
        if strangers:
            raise UsageError(f"--data {path}: labels {sorted(strangers)} are not in --classes {','.join(names)}")
        return names, np.array([names.index(str(label)) for label in labels], np.int64)
    if not len(labels):
        raise UsageError(f"--data {path}: holds no images")
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise UsageError(f"--data {path}: labels must be names or whole numbers from 0, not {labels.dtype}")
    highest = int(labels.max())
    names = tuple(classes) if classes else tuple(str(number) for number in range(highest + 1))
    if highest >= len(names):
        raise UsageError(f"--data {path}: label {highest} needs {highest + 1} class names, there are {len(names)}")
    return names, labels.astype(np.int64)


@dataclass(frozen=True)
class Survey:
    """What one look at every image of a source finds: its content, and the edge of its (square) images."""

    content_hashes: tuple[str, ...]
    edges_px: tuple[int, ...]

    def fingerprint(self, source: Source) -> str:
        """Return the sha256 of all cases: id, class name and content."""
        rows = [
            [case.case_id, source.classes[case.label], content]
            for case, content in zip(source.cases, self.content_hashes, strict=True)
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def survey(source: Source) -> Survey:
    """Decode every image once, before any work starts.

    Raises:
        UsageError: If an image is broken or not square.
    """

    def look(index: int) -> tuple[str, int]:
        image = source.images.load(index)
        height, width = image.shape[:2]
        if height != width:
            raise UsageError(f"{source.cases[index].case_id}: {width}x{height} px; tiles must be square")
        digest = hashlib.sha256(f"{height}x{width}:".encode())
        digest.update(image.tobytes())
        return digest.hexdigest(), width

    with ThreadPoolExecutor() as pool:
        hashes, edges = zip(*pool.map(look, range(len(source.cases))), strict=True)
    return Survey(hashes, edges)


def tile_mpp(source_mpp: float | None, edges_px: Sequence[int], size_px: int) -> float | None:
    """Return the resolution of tiles made from images of another size: source mpp x source px / size_px.

    Raises:
        UsageError: If images of several sizes share one resolution: each would show another field.

    Examples:
        >>> tile_mpp(4.0, [28, 28], size_px=224)
        0.5
    """
    if source_mpp is None:
        return None
    sizes = Counter(edges_px).most_common(2)
    if len(sizes) > 1:
        raise UsageError(
            f"--mpp {source_mpp:g}: the images have several sizes ({sizes[0][0]} and {sizes[1][0]} px, for instance); "
            "tiles of one resolution need one size"
        )
    return source_mpp * sizes[0][0] / size_px
