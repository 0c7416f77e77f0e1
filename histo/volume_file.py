"""The file of a prepared volume: one study as one array, in a NIfTI file that says how it was made.

Axes: S series, D slice, H row, W column. A volume is uint8, `(S, D, H, W)`: slices from inferior to superior, rows from
posterior to anterior, columns from left to right. In the file the axes are reversed, as NIfTI has them, `(W, H, D, S)`,
and the affine is that of RAS. What histo knows of a volume stands as JSON in an extension of the header.
"""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from histo.errors import ImageError

Volume = npt.NDArray[np.uint8]
"""`(S, D, H, W)`."""
EXTENSIONS = (".nii.gz", ".nii")

_COMMENT = 6
"""NIfTI's code of an extension of plain text."""
_DAMAGE = (OSError, EOFError, ValueError, ImageFileError, WrapStructError, HeaderDataError, zlib.error)


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
    image = _open(path)
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


def _open(path: Path) -> Any:
    try:
        image: Any = nib.Nifti1Image.from_filename(path)
    except FileNotFoundError:
        raise ImageError(f"{path}: not readable (no such file); replace or remove it") from None
    except _DAMAGE as error:
        raise ImageError(f"{path}: not a readable NIfTI file ({_one_line(error)}); prepare or copy it again") from None
    kind, shape = image.get_data_dtype(), image.shape
    scaled = image.dataobj.slope != 1 or image.dataobj.inter != 0
    if kind != np.uint8 or scaled or len(shape) not in (3, 4):
        what = f"{'scaled ' if scaled else ''}{kind} {shape}"
        raise ImageError(
            f"{path}: {what}; expected a prepared volume, uint8 of 3 or 4 dimensions: see `histo prepare volumes`"
        )
    return image


def _facts(image: Any) -> dict[str, Any]:
    for extension in image.header.extensions:
        if extension.get_code() == _COMMENT:
            try:
                document = json.loads(extension.get_content())
            except ValueError:
                continue
            if isinstance(document, dict) and "histo" in document:
                facts: dict[str, Any] = document["histo"]
                return facts
    return {}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
