"""The pixels of DICOM planes, decoded and scaled to the scanner's units.

MONOCHROME1 says how to show values, not what they are, so they stay. Bits beyond those that the header declares are a
sign that a value did not fit, unless the header says what they are: overlays, or a sign that was not extended.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from histo.errors import Cause, StudyError
from histo.regular_file import open_regular
from histo.volumes.files import accessible
from histo.volumes.geometry.planes import Plane
from histo.volumes.intensity import Values
from histo.volumes.limits import check_deflated, check_size, check_voxels

_JPEG_SIZE = re.compile(
    rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7]\x00.[\x02-\x10](..)(..)[\x01-\x04]", re.DOTALL
)
"""What a frame of JPEG or JPEG-LS says of its height and width."""
_JPEG_2000_SIZE = re.compile(rb"\xff\x4f\xff\x51....(....)(....)(....)(....)", re.DOTALL)
"""What one of JPEG 2000 says of its grid, and of its place on it."""


def read_pixels(planes: Sequence[Plane], where: str) -> Values:
    """Decode planes of one shape, each file once.

    Args:
        planes: In the order of the array.
        where: What messages call the series.

    Raises:
        StudyError: `unreadable`, `too_large`, `no_decoder`, `overflow` or `no_access`.
    """
    check_voxels((len(planes), *planes[0].shape), where)
    values = np.empty((len(planes), *planes[0].shape), np.float32)
    targets: dict[Path, dict[int, int]] = {}
    for index, plane in enumerate(planes):
        targets.setdefault(plane.file, {})[plane.frame] = index
    for file, frames in targets.items():
        for frame, stored in _stored(file, set(frames), where):
            plane = planes[frames[frame]]
            values[frames[frame]] = stored.astype(np.float64) * (plane.slope or 1.0) + plane.intercept
    return values


def _stored(file: Path, wanted: set[int], where: str) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the wanted frames of a file as they are stored."""
    with _damage(file, where):
        with accessible(where, file), open_regular(file) as opened:
            check_size(file, opened, where)
            check_deflated(opened, f"{where}: {file}")
            dataset: Any = pydicom.dcmread(opened, force=True)
        _check_scaling(dataset, file, where)
        decoder = _decoder(dataset, file, where)
        _check_streams(dataset)
        frames = decoder.iter_array(dataset, raw=True, **_unmasked(dataset))
        left = set(wanted)
        for frame, (stored, _) in enumerate(frames):
            if frame in left:
                left.remove(frame)
                yield frame, _used_bits(dataset, stored, f"{where}: {file.name}")
            if not left:
                return
        raise EOFError(f"{len(wanted) - len(left)} of {len(wanted)} frames")


def _decoder(dataset: Any, file: Path, where: str) -> Any:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:  # a file without its preamble; pydicom has seen which of the two it is
        syntax = ImplicitVRLittleEndian if dataset.original_encoding[0] else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is None or not decoder.is_available:
        raise StudyError(
            Cause.NO_DECODER,
            f"{where}: {file} is compressed as {' '.join(syntax.name.split())}, which nothing here decodes; decompress"
            " it, as gdcmconv --raw does",
        )
    return decoder


def _check_streams(dataset: Any) -> None:
    """Refuse compressed frames that say to be larger than the header: decoders take memory for what they say."""
    if "JPEG" not in dataset.file_meta.TransferSyntaxUID.name:  # other streams may have the same bytes by chance
        return
    data, rows, columns = bytes(dataset.PixelData), int(dataset.Rows), int(dataset.Columns)
    sizes = [(int.from_bytes(found[1], "big"), int.from_bytes(found[2], "big")) for found in _JPEG_SIZE.finditer(data)]
    for found in _JPEG_2000_SIZE.finditer(data):
        width, height, left, top = (int.from_bytes(found[index], "big") for index in range(1, 5))
        sizes.append((height - top, width - left))
    for height, width in sizes:
        if height > rows or width > columns:
            raise ValueError(f"a frame of {height} x {width} pixels, and a header of {rows} x {columns}")


def _unmasked(dataset: Any) -> dict[str, bool]:
    return {} if dataset.file_meta.TransferSyntaxUID.is_compressed else {"correct_unused_bits": False}


def _check_scaling(dataset: Any, file: Path, where: str) -> None:
    if dataset.get("ModalityLUTSequence"):
        raise StudyError(
            Cause.UNREADABLE,
            f"{where}: {file} scales its values by a table (Modality LUT), which is not supported; convert it",
        )


def _used_bits(dataset: Any, stored: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """Return whole numbers of the bits that the header says are used, the sign extended.

    Raises:
        StudyError: `overflow`, where other bits are set that no overlay explains, nor the sign.
    """
    if stored.dtype.kind not in "iu" or int(dataset.BitsStored) >= 8 * stored.itemsize:
        return stored
    bits, whole = int(dataset.BitsStored), np.dtype(f"u{stored.itemsize}")
    raw = stored.astype(whole)
    unused = whole.type((1 << 8 * stored.itemsize) - (1 << bits))
    unexplained = whole.type(int(unused) & ~_overlay_bits(dataset))
    negative = (raw >> (bits - 1) & 1).astype(bool) & (stored.dtype.kind == "i")
    signs = np.where(negative, unexplained, whole.type(0))
    if (raw & unexplained).any() and (raw & unexplained != signs).any():
        raise _overflow(stored, bits, where)
    used: npt.NDArray[Any] = np.where(negative, raw | unused, raw & ~unused).astype(stored.dtype)
    return used


def _overlay_bits(dataset: Any) -> int:
    """Return the bits of pixels that hold overlays: graphics, which are no part of the values."""
    found = 0
    for group in range(0x6000, 0x6020, 2):
        size, place = (dataset.get((group, number)) for number in (0x0100, 0x0102))
        apart = (group, 0x3000) in dataset
        if size is not None and place is not None and size.value == dataset.BitsAllocated and not apart:
            found |= 1 << int(place.value)
    return found


def _overflow(stored: npt.NDArray[Any], bits: int, where: str) -> StudyError:
    signed = stored.dtype.kind == "i"
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return StudyError(
        Cause.OVERFLOW,
        f"{where} stores values from {int(stored.min())} to {int(stored.max())}; its {bits} bits hold {least} to"
        f" {most}: they have wrapped around, or the header is wrong; export the series again",
    )


@contextmanager
def _damage(file: Path, where: str) -> Iterator[None]:
    """Turn what damage does to the decoders into an error of the study."""
    try:
        yield
    except (StudyError, MemoryError):
        raise
    except Exception as error:  # decoders raise what they run into
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StudyError(
            Cause.UNREADABLE, f"{where}: the pixels of {file} cannot be decoded ({reason}); copy it again"
        ) from error
