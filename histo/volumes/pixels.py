"""The pixels of DICOM planes, decoded and scaled to the scanner's units.

MONOCHROME1 says how to show values, not what they are, so they stay. Nothing is masked: bits beyond those that the
header declares are a sign that a value did not fit.
"""

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
from histo.volumes.files import accessible
from histo.volumes.geometry import Values
from histo.volumes.planes import Plane


def read_pixels(planes: Sequence[Plane], where: str) -> Values:
    """Decode planes of one shape, each file once.

    Args:
        planes: In the order of the array.
        where: What messages call the series.

    Raises:
        StudyError: `unreadable`, `no_decoder`, `overflow` or `no_access`.
    """
    values = np.empty((len(planes), *planes[0].shape), np.float32)
    targets: dict[Path, dict[int, int]] = {}
    for index, plane in enumerate(planes):
        targets.setdefault(plane.file, {})[plane.frame] = index
    for file, frames in targets.items():
        for frame, stored in _stored(file, set(frames), where):
            plane = planes[frames[frame]]
            values[frames[frame]] = stored.astype(np.float64) * plane.slope + plane.intercept
    return values


def _stored(file: Path, wanted: set[int], where: str) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the wanted frames of a file as they are stored."""
    with _damage(file, where):
        with accessible(where, file), file.open("rb") as opened:
            dataset: Any = pydicom.dcmread(opened, force=True)
        _check_scaling(dataset, file, where)
        frames = _decoder(dataset, file, where).iter_array(dataset, raw=True, **_unmasked(dataset))
        left = set(wanted)
        for frame, (stored, _) in enumerate(frames):
            if frame in left:
                _check_bits(dataset, stored, f"{where}: {file.name}")
                left.remove(frame)
                yield frame, stored
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
            f"{where}: {file} is compressed as {syntax.name}, which nothing here decodes; decompress it, as"
            " gdcmconv --raw does",
        )
    return decoder


def _unmasked(dataset: Any) -> dict[str, bool]:
    return {} if dataset.file_meta.TransferSyntaxUID.is_compressed else {"correct_unused_bits": False}


def _check_scaling(dataset: Any, file: Path, where: str) -> None:
    if dataset.get("ModalityLUTSequence"):
        raise StudyError(
            Cause.UNREADABLE,
            f"{where}: {file} scales its values by a table (Modality LUT), which is not supported; convert it",
        )


def _check_bits(dataset: Any, stored: npt.NDArray[Any], where: str) -> None:
    """Refuse whole numbers that need more bits than the header says are used, the sign included."""
    if stored.dtype.kind not in "iu":
        return
    bits, signed = int(dataset.BitsStored), stored.dtype.kind == "i"
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    low, high = int(stored.min()), int(stored.max())
    if low < least or high > most:
        raise StudyError(
            Cause.OVERFLOW,
            f"{where} stores values from {low} to {high}; its {bits} bits hold {least} to {most}: they have wrapped"
            " around, or the header is wrong; export the series again",
        )


@contextmanager
def _damage(file: Path, where: str) -> Iterator[None]:
    """Turn what damage does to the decoders into an error of the study."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # decoders raise what they run into
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StudyError(
            Cause.UNREADABLE, f"{where}: the pixels of {file} cannot be decoded ({reason}); copy it again"
        ) from error
