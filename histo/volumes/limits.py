"""Limits of a study's files, checked before anything is decoded.

A few bytes can declare, or unpack to, more than any machine has; such a file must not take the run with it.
"""

import warnings
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import BinaryIO

from pydicom.filereader import _read_command_set_elements, _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from histo.errors import Cause, StudyError
from histo.volume_file import MOST_VOXELS

MOST_SERIES = 10_000
"""Of a file of four dimensions."""
MOST_FRAMES = 2**16
"""Of a DICOM file."""
MOST_DICOM_BYTES = 2**32
"""Of a DICOM file, which is read whole."""
MOST_DEFLATED_BYTES = 2**29
"""Of a deflated DICOM file, unpacked."""
MOST_STORED_BYTES = 2**32
"""Of a series in a NIfTI file, unpacked, which is held whole."""
_BLOCK = 2**20


def check_voxels(extents: Sequence[int], where: str) -> None:
    """Refuse a series of more voxels than can be held.

    Args:
        extents: Its slices, rows and columns, in any order.
        where: What messages call it.

    Raises:
        StudyError: `too_large`.
    """
    if prod(extents) > MOST_VOXELS:
        raise too_large(f"{where}: {' x '.join(map(str, extents))} voxels, more than {MOST_VOXELS:,}")


def check_stored(extents: Sequence[int], itemsize: int, where: str) -> None:
    """Refuse a series whose voxels take more bytes than can be held, however small they are packed.

    Args:
        extents: Its slices, rows and columns, in any order.
        itemsize: Bytes of a voxel.
        where: What messages call the file.

    Raises:
        StudyError: `too_large`.
    """
    size = prod(extents) * itemsize
    if size > MOST_STORED_BYTES:
        raise too_large(f"{where}: {size:,} bytes of voxels, more than {MOST_STORED_BYTES:,}")


def check_count(count: int, most: int, what: str, where: str) -> None:
    """Refuse a file that declares more parts than any has.

    Raises:
        StudyError: `too_large`.
    """
    if count > most:
        raise too_large(f"{where}: {count:,} {what}, more than {most:,}")


def check_deflated(opened: BinaryIO, where: str) -> None:
    """Refuse a deflated data set that unpacks to too much; nothing of it is kept, and the file is rewound.

    Raises:
        StudyError: `too_large`.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # reading it will say so
            read_preamble(opened, force=True)
            deflated = _read_file_meta_info(opened).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
            _read_command_set_elements(opened)
        if deflated and _unpacks_to_more(opened, MOST_DEFLATED_BYTES):
            raise too_large(f"{where}: unpacks to more than {MOST_DEFLATED_BYTES // 2**20} MiB")
    except zlib.error:  # likewise
        pass
    opened.seek(0)


def _unpacks_to_more(opened: BinaryIO, most: int) -> bool:
    unpacker, count = zlib.decompressobj(-zlib.MAX_WBITS), 0
    packed = opened.read(_BLOCK)
    while packed and not unpacker.eof and count <= most:
        count += len(unpacker.decompress(packed, _BLOCK))
        packed = unpacker.unconsumed_tail or opened.read(_BLOCK)
    return count > most


def too_large(what: str) -> StudyError:
    """Return the error of a file that declares too much."""
    return StudyError(Cause.TOO_LARGE, f"{what}; crop or divide it, or leave it out of the study")


def check_size(file: Path, opened: BinaryIO, where: str) -> None:
    """Refuse a DICOM file that is too large to be read whole.

    Raises:
        StudyError: `too_large`.
    """
    size = opened.seek(0, 2)
    opened.seek(0)
    if size > MOST_DICOM_BYTES:
        raise too_large(f"{where}: {file} has {size:,} bytes, more than {MOST_DICOM_BYTES:,}")
