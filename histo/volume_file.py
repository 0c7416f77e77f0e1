"""File of a prepared volume: NIfTI, with the settings that made it.

Axes: S series, D slice, H row, W column. A volume is uint8, `(S, D, H, W)`: slices from inferior to superior, rows from
posterior to anterior, columns from left to right. In the file the axes are reversed, as NIfTI has them, `(W, H, D, S)`,
and the affine is that of RAS. What histo knows of a volume stands as JSON in an extension of the header.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from histo.errors import ImageError
from histo.regular_file import open_regular

Volume = npt.NDArray[np.uint8]
"""`(S, D, H, W)`."""
EXTENSIONS = (".nii.gz", ".nii")
MOST_VOXELS = 2**30
"""Of a volume, or of a series of a study: 1024 slices of 1024 x 1024."""
MOST_HEADER_BYTES = 2**26
"""Before the voxels of a NIfTI file."""
_HEADER = 348
GZIP = b"\x1f\x8b"
"""What a gzipped file begins with."""

_COMMENT = 6
"""NIfTI's code of an extension of plain text."""
_DAMAGE = (OSError, EOFError, ValueError, OverflowError, ImageFileError, WrapStructError, HeaderDataError, zlib.error)


def write_volume(file: BinaryIO, volume_SDHW: Volume, spacing_mm: Sequence[float], facts: dict[str, Any]) -> None:
    """Write a volume as gzipped NIfTI-1; equal volumes and facts give equal bytes.

    Args:
        file: Where to.
        volume_SDHW: The volume.
        spacing_mm: Distance of neighbouring slices, rows and columns.
        facts: What there is to know of it: a JSON document.
    """
    affine = np.diag([*spacing_mm[::-1], 1.0])
    image: Any = nib.Nifti1Image(volume_SDHW.transpose(), affine)  # type: ignore[no-untyped-call] # nibabel's own
    image.header.set_xyzt_units("mm")
    image.header.extensions.append(
        nib.nifti1.Nifti1Extension(_COMMENT, json.dumps({"histo": facts}, sort_keys=True).encode())
    )
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0, filename="") as packed:
        packed.write(image.to_bytes())


def read_volume(path: Path) -> tuple[Volume, dict[str, Any]]:
    """Read a volume, and what its file says of it; a file of others, of three or four dimensions and 8 bits, will do.

    Raises:
        ImageError: If it cannot be read, or holds other values.
    """
    image = _open(path, with_voxels=True)
    try:
        array = np.asarray(image.dataobj)
    except _DAMAGE as error:
        raise ImageError(f"{path}: not readable ({_one_line(error)}); prepare or copy it again") from None
    return np.ascontiguousarray(array.reshape(*array.shape[:3], -1).transpose()), _facts(image)


def read_header(path: Path) -> tuple[tuple[int, int, int, int], dict[str, Any]]:
    """Return the shape `(S, D, H, W)` of a volume, and what its file says of it: nothing, if histo did not write it.

    Raises:
        ImageError: As `read_volume`.
    """
    image = _open(path)
    width, height, slices, *series = image.shape
    return (series[0] if series else 1, slices, height, width), _facts(image)


def _open(path: Path, with_voxels: bool = False) -> Any:
    """Read a file's header, and its voxels only if they are such as a volume has."""
    try:
        with unpacked(path) as file:
            content = file.read(_HEADER)
            header: Any = nib.Nifti1Header.from_fileobj(BytesIO(content))  # type: ignore[no-untyped-call] # nibabel's own
            offset, shape = int(header.get_data_offset()), header.get_data_shape()
            if offset > MOST_HEADER_BYTES:
                raise EOFError(f"a header of {offset} bytes")
            content += file.read(max(0, offset - _HEADER))
            fits = header.get_data_dtype() == np.uint8 and all(extent > 0 for extent in shape)
            if fits and prod(map(int, shape)) > MOST_VOXELS:
                raise ImageError(
                    f"{path}: {' x '.join(map(str, shape))} voxels, more than {MOST_VOXELS:,}; prepare smaller volumes"
                )
            if fits and with_voxels:
                content += file.read(prod(map(int, shape)))
        image: Any = nib.Nifti1Image.from_bytes(content)
    except FileNotFoundError:
        raise ImageError(f"{path}: not readable (no such file); replace or remove it") from None
    except _DAMAGE as error:
        raise ImageError(f"{path}: not a readable NIfTI file ({_one_line(error)}); prepare or copy it again") from None
    kind, shape = image.get_data_dtype(), image.shape
    scaled = image.dataobj.slope != 1 or image.dataobj.inter != 0
    if kind != np.uint8 or scaled or len(shape) not in (3, 4) or min(shape) < 1:
        what = f"{'scaled ' if scaled else ''}{kind} {shape}"
        raise ImageError(
            f"{path}: {what}; expected a prepared volume, uint8 of 3 or 4 dimensions: see `histo prepare volumes`"
        )
    return image


@contextmanager
def unpacked(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    """Open a NIfTI file, gzipped or not, which its first bytes say.

    Raises:
        OSError: If it cannot be read, or is no regular file.
    """
    with open_regular(path) as raw:
        packed = raw.read(2) == GZIP
        raw.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=raw) as unpacking:
                yield unpacking
        else:
            yield raw


def _facts(image: Any) -> dict[str, Any]:
    for extension in image.header.extensions:
        if extension.get_code() == _COMMENT:
            try:
                document = json.loads(extension.get_content())
            except (ValueError, RecursionError):
                continue
            facts = document.get("histo") if isinstance(document, dict) else None
            if isinstance(facts, dict):
                return facts
    return {}


def _one_line(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return " ".join((reason or str(error)).split()) or type(error).__name__
