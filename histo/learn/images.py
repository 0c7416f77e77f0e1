"""Where the pixels of labelled images come from, and how an image file becomes RGB of 8 bits per channel.

Volumes are images as well here: `volume_images.py`.
"""

import io
import struct
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from histo.errors import ImageError, UsageError
from histo.learn.layout import TILES, Layout
from histo.resample import Pixels

_EIGHT_BITS = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"))
_DAMAGE = (  # what Pillow raises for damaged files of its many formats
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Content:
    """What a source knows of an image without decoding it.

    Attributes:
        content_hash: As `histo.learn.survey` takes it.
        edge_px: Edge of the (square) image.
    """

    content_hash: str
    edge_px: int


class Images(Protocol):
    """Where the pixels of a source's cases come from. An index counts from 0."""

    @property
    def layout(self) -> Layout:
        """How their arrays are laid out."""

    def load(self, index: int) -> Pixels:
        """Return one image, as the layout says: RGB `(H, W, 3)`, or a volume `(S, D, H, W)`.

        Raises:
            ImageError: If it cannot be used.
        """

    def encoded(self, index: int) -> bytes:
        """Return one image as an image file: as it is stored, or as PNG where it is stored as an array.

        Raises:
            ImageError: If it cannot be had.
        """

    def known(self, index: int) -> Content | None:
        """Return what is known of one image without decoding it, or None."""


def decode(name: str, data: bytes) -> Pixels:
    """Decode an image file of 8 bits per channel as RGB `(H, W, 3)`; what is transparent becomes white.

    Args:
        name: What messages call the image.
        data: The whole file.

    Raises:
        ImageError: If it is no image, or has other pixels, which would have to be clipped or scaled by guess.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode in _EIGHT_BITS:
                return _as_rgb(image)
            mode = image.mode
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a readable image (no known format); replace or remove it") from None
    except _DAMAGE as error:
        raise ImageError(f"{name}: not a readable image ({error}); replace or remove it") from None
    raise ImageError(f"{name}: pixels of mode {mode}; expected 8 bits per channel, convert the image")


def _as_rgb(image: Image.Image) -> Pixels:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class FileImages:
    """Images in files of their own."""

    paths: tuple[Path, ...]
    layout: ClassVar[Layout] = TILES

    def load(self, index: int) -> Pixels:
        """See `Images.load`."""
        return decode(str(self.paths[index]), self.encoded(index))

    def encoded(self, index: int) -> bytes:
        """Return the file's bytes."""
        path = self.paths[index]
        try:
            return path.read_bytes()
        except OSError as error:
            raise ImageError(f"{path}: not readable ({error.strerror or error}); replace or remove it") from None

    def known(self, index: int) -> Content | None:  # noqa: ARG002 -- nothing is known of any file
        """Return None: a file has to be decoded."""
        return None


@dataclass(frozen=True)
class ArrayImages:
    """Images in memory, `(n, H, W, 3)` or grey `(n, H, W)` each."""

    arrays: tuple[Pixels, ...]
    layout: ClassVar[Layout] = TILES

    def load(self, index: int) -> Pixels:
        """Return one image as RGB."""
        for array in self.arrays:
            if index < len(array):
                image = array[index]
                return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
            index -= len(array)
        raise IndexError(index)

    def encoded(self, index: int) -> bytes:
        """Return one image as PNG."""
        file = io.BytesIO()
        Image.fromarray(self.load(index)).save(file, "PNG")
        return file.getvalue()

    def known(self, index: int) -> Content | None:  # noqa: ARG002 -- nothing is known of any array
        """Return None: an array has to be hashed."""
        return None


@dataclass(frozen=True)
class SelectedImages:
    """Some of other images, in an order of their own."""

    images: Images
    members: tuple[int, ...]

    @property
    def layout(self) -> Layout:
        """See `Images.layout`."""
        return self.images.layout

    def load(self, index: int) -> Pixels:
        """See `Images.load`."""
        return self.images.load(self.members[index])

    def encoded(self, index: int) -> bytes:
        """See `Images.encoded`."""
        return self.images.encoded(self.members[index])

    def known(self, index: int) -> Content | None:
        """See `Images.known`."""
        return self.images.known(self.members[index])


@dataclass(frozen=True)
class JoinedImages:
    """Several images one after the other.

    Attributes:
        parts: What is joined.
        starts: Index of the first image of each part; ascending, the first one 0.
    """

    parts: tuple[Images, ...]
    starts: tuple[int, ...]

    @property
    def layout(self) -> Layout:
        """That of all parts, see `join_images`."""
        return self.parts[0].layout

    def load(self, index: int) -> Pixels:
        """See `Images.load`."""
        part, place = self._find(index)
        return part.load(place)

    def encoded(self, index: int) -> bytes:
        """See `Images.encoded`."""
        part, place = self._find(index)
        return part.encoded(place)

    def known(self, index: int) -> Content | None:
        """See `Images.known`."""
        part, place = self._find(index)
        return part.known(place)

    def _find(self, index: int) -> tuple[Images, int]:
        part = bisect_right(self.starts, index) - 1
        return self.parts[part], index - self.starts[part]


def join_images(parts: Sequence[Images], counts: Sequence[int]) -> Images:
    """Put images one after the other; `counts` says how many each part has.

    Raises:
        UsageError: If they are not laid out alike.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0].layout
    for part in parts[1:]:
        if part.layout != first:
            how = f"{first} beside {part.layout}"
            raise UsageError(
                f"the sources hold {how if str(first) != str(part.layout) else f'{first}, prepared in several ways'}; "
                "give sources of one kind"
            )
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return JoinedImages(tuple(parts), tuple(starts))
