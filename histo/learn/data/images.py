"""Read labelled images, and decode image files to RGB of 8 bits per channel.

Volumes are images as well here: `volume_images.py`.
"""

import io
import math
import struct
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import simplejpeg
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from histo.errors import ImageError, UsageError
from histo.learn.array_layout import TILES, Layout
from histo.regular_file import read_regular
from histo.resample import Pixels

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")
"""That are read, by Pillow's names, whatever a file's name ends with; others start programs, such as Ghostscript."""
MOST_PIXELS = 2**25
"""Of an image; 5792 x 5792. A process decodes several at a time, each in some 12 bytes per pixel."""
MOST_BYTES = 2**29
"""Of an image file; more than so many pixels need."""
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
_STRIP_BYTES, _TILE_BYTES = 279, 325
_COMPRESSION, _JPEG, _JPEG_TABLES = 259, 7, 347
_PROFILE = b"ICC_PROFILE\0"
"""By which libjpeg knows a colour profile."""
_UNSIGNED = frozenset((1, 4))
"""TIFF's sample formats of whole numbers from 0; 4 stands for one that is not said."""
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
)


@dataclass(frozen=True)
class Content:
    """What a source knows of an image without decoding it.

    Attributes:
        content_hash: As `histo.learn.data.inspection` takes it.
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

    def recorded_content(self, index: int) -> Content | None:
        """Return what is known of one image without decoding it, or None."""


def decode(name: str, data: bytes) -> Pixels:
    """Decode an image file of 8 bits per channel as RGB `(H, W, 3)`; what is transparent becomes white.

    Args:
        name: What messages call the image.
        data: The whole file.

    Raises:
        ImageError: If it is no image of `FORMATS`, has more than `MOST_PIXELS`, more than one page or frame, or other
            pixels, which would have to be clipped or scaled by guess.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(name, image)
            _check_single(name, image, data)
            _check_depth(name, image)
            _check_whole(name, image, data)
            return _as_rgb(image)
    except UnidentifiedImageError:
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise ImageError(f"{name}: not a readable image (no {known}); convert, replace or remove it") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow's own limits are higher
        raise ImageError(f"{name}: not a readable image (more than {_limit()}); cut it into tiles") from None
    except _DAMAGE as error:
        raise ImageError(f"{name}: not a readable image ({error}); replace or remove it") from None


def encode_png(pixels: Pixels) -> bytes:
    """Return an image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _limit() -> str:
    return f"{MOST_PIXELS:,} pixels, {math.isqrt(MOST_PIXELS)} x {math.isqrt(MOST_PIXELS)}"


def _check_size(name: str, image: ImageFile.ImageFile) -> None:
    """Refuse by its header, before anything is decoded, what has no pixels, or too many to be held."""
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: {width} x {height} px, an image without pixels; replace or remove it")
    block = 1
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        block = image.tag_v2.get(_TILE_WIDTH, 1) * image.tag_v2.get(_TILE_LENGTH, 1)
    if max(width * height, block) > MOST_PIXELS:
        raise ImageError(f"{name}: {width} x {height} px, more than {_limit()}; cut it into tiles, or shrink it")


def _check_single(name: str, image: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse a file of several images, of which all but the first would be left out."""
    if getattr(image, "is_animated", False) or (image.format == "PPM" and _has_second(image, data)):
        raise ImageError(
            f"{name}: more than one page or frame; write each into a file of its own, and list these in a manifest "
            "(CSV with the columns path and label)"
        )


def _has_second(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether an image of binary PPM, which says nothing of its number, is followed by another."""
    width, height = image.size
    row = (width + 7) // 8 if image.mode == "1" else width * len(image.getbands())
    end = image.tile[0].offset + height * row * (2 if _depth(image) > 8 else 1)
    rest = data[end : end + 32].lstrip()
    return data[1:2] in b"456" and rest[:1] == b"P" and rest[1:2].isdigit()


def _check_depth(name: str, image: ImageFile.ImageFile) -> None:
    """Refuse other than 8 bits per channel: by the mode, and by the header, of which the mode of colours hides it."""
    found = f"{_depth(image)} bits per channel" if image.mode in _EIGHT_BITS else f"pixels of mode {image.mode}"
    if image.mode not in _EIGHT_BITS or _depth(image) > 8:
        raise ImageError(f"{name}: {found}; expected 8 bits per channel, convert the image")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        kinds = set(image.tag_v2.get(_SAMPLE_FORMAT, ()))
        if kinds - _UNSIGNED:
            raise ImageError(f"{name}: signed numbers; expected 8 bits per channel, from 0 to 255, convert the image")


def _depth(image: ImageFile.ImageFile) -> int:
    """Return the bits of the deepest channel, as the file's header says."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))))
    how = image.tile[0].args if image.tile else ()  # what its decoder is told: the order of bits, and PPM's maximum
    order, *numbers = (how,) if isinstance(how, str) else how or ("",)
    if image.format == "PPM" and numbers:
        return int(numbers[0]).bit_length()
    return 16 if ";16" in str(order) else 8


def _check_whole(name: str, image: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse what Pillow would make up: JPEG that libjpeg warns of, and blocks of a TIFF that lie nowhere."""
    if image.format == "JPEG":
        _check_jpeg(name, data.replace(_PROFILE, bytes(len(_PROFILE))))  # it is not used, and may be damaged
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        places = [*tags.get(_STRIP_OFFSETS, ()), *tags.get(_TILE_OFFSETS, ())]
        sizes = [*tags.get(_STRIP_BYTES, ()), *tags.get(_TILE_BYTES, ())]
        if 0 in places or len(places) != len(sizes):
            raise ImageError(f"{name}: damaged (a block has no data); replace or remove it")
        if tags.get(_COMPRESSION) == _JPEG:
            shared = tags.get(_JPEG_TABLES, b"")[:-2]  # without its end, which the block has
            for place, size in zip(places, sizes, strict=True):
                block = data[place : place + size]
                _check_jpeg(name, shared + block[2:] if shared else block)


def _check_jpeg(name: str, data: bytes) -> None:
    try:
        simplejpeg.decode_jpeg(data, colorspace="GRAY", min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        raise ImageError(f"{name}: damaged ({error}); replace or remove it") from None


def from_pillow(image: Image.Image) -> Pixels:
    """Convert an image of Pillow's to RGB `(H, W, 3)`; what is transparent becomes white.

    Raises:
        ImageError: If it has other than 8 bits per channel, or its file cannot be read.
    """
    name = getattr(image, "filename", "") or "image"
    if image.mode not in _EIGHT_BITS:
        raise ImageError(f"{name}: pixels of mode {image.mode}; expected 8 bits per channel, convert the image")
    try:
        return _as_rgb(image)
    except _DAMAGE as error:
        raise ImageError(f"{name}: not a readable image ({error}); replace or remove it") from None


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
            return read_regular(path, MOST_BYTES)
        except ValueError as error:
            raise ImageError(f"{path}: no path ({error}); correct it") from None
        except FileNotFoundError as error:
            remedy = "write its path with / in place of \\" if "\\" in str(path) else "replace or remove it"
            raise ImageError(f"{path}: not readable ({error.strerror}); {remedy}") from None
        except OSError as error:
            raise ImageError(f"{path}: not readable ({error.strerror or error}); replace or remove it") from None

    def recorded_content(self, index: int) -> Content | None:  # noqa: ARG002 -- nothing is known of any file
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
        return encode_png(self.load(index))

    def recorded_content(self, index: int) -> Content | None:  # noqa: ARG002 -- nothing is known of any array
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

    def recorded_content(self, index: int) -> Content | None:
        """See `Images.recorded_content`."""
        return self.images.recorded_content(self.members[index])


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

    def recorded_content(self, index: int) -> Content | None:
        """See `Images.recorded_content`."""
        part, place = self._find(index)
        return part.recorded_content(place)

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
