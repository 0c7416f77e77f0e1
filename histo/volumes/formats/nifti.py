"""Read NIfTI files: three dimensions are a series, a fourth counts series.

Voxels are read and scaled here rather than by nibabel's array proxy, since a gzipped file is to be read to its end,
where its checksum stands, and one volume of four dimensions without the others.
"""

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from histo.errors import Cause, ImageError, StudyError
from histo.regular_file import open_regular
from histo.volume_file import GZIP, MOST_HEADER_BYTES, unpacked
from histo.volume_file import read_header as read_volume_header
from histo.volumes.files import accessible, stem
from histo.volumes.geometry.axes import Affine
from histo.volumes.intensity import Values
from histo.volumes.limits import MOST_SERIES, check_count, check_stored, check_voxels
from histo.volumes.series import FoundSeries, Series

_DAMAGE = (OSError, EOFError, ValueError, OverflowError, KeyError, ImageFileError, HeaderDataError, zlib.error)
_MOST_RATIO = 1032
"""By which gzip can shrink anything."""
_SPACE_UNIT = 0b111
"""The bits of NIfTI's units that are those of space; the others are of time."""
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""By NIfTI's code: unknown, metre, mm, micron."""
_BLOCK = 2**20
_SAME_PLACE = 0.1
"""Of the shortest edge of a voxel: where sform and qform place one no further apart, they agree."""


def list_nifti(study_id: str, file: Path, allow_no_orientation: bool, folder: str = "") -> list[FoundSeries]:
    """Read a file's header.

    Args:
        study_id: What messages call the study.
        file: Of NIfTI-1 or NIfTI-2, gzipped or not.
        folder: What tells its folder from those of the study's other files, with `/`; empty where they have one.
        allow_no_orientation: Whether to take the axes of a file without orientation for left to right, posterior to
            anterior, inferior to superior.

    Raises:
        StudyError: `unreadable`, `too_large` or `no_access`.
    """
    header = _read_header(study_id, file)
    shape = _shape(study_id, file, header)
    _refuse_prepared(study_id, file, header)
    name = f"{folder}/{stem(file.name)}" if folder else stem(file.name)
    names = [f"{name}#{index}" for index in range(shape[3])] if len(shape) == 4 else [name]
    read = partial(_read, study_id, file, allow_no_orientation)
    return [FoundSeries(name, "nifti", str(file), partial(read, index)) for index, name in enumerate(names)]


def _read_header(study_id: str, file: Path, mended: bool = True) -> Any:
    """Read a header; unless `mended`, with lengths of 0 as they are stored."""
    with _damage(study_id, file), unpacked(file) as opened:
        head = opened.read(540)
        kind: Any = nib.Nifti2Header if int.from_bytes(head[:4], "little") in (540, 0x1C020000) else nib.Nifti1Header
        size = kind.template_dtype.itemsize
        if len(head) < size:
            raise EOFError(f"{len(head)} bytes, a header has {size}")
        return kind.from_fileobj(BytesIO(head[:size]), check=mended)


def _shape(study_id: str, file: Path, header: Any) -> tuple[int, ...]:
    """Return three or four extents; further ones are 1."""
    shape = tuple(int(extent) for extent in header.get_data_shape())
    kind = header.get_data_dtype()
    if kind.fields or kind.kind not in "iuf":
        what = "colour (RGB)" if kind.fields else f"{kind} values"
        raise StudyError(Cause.UNREADABLE, f"{study_id}: {file} holds {what}; give a file of real grey values")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise StudyError(
            Cause.UNREADABLE,
            f"{study_id}: {file} has the extents {shape}; expected three, or four where it holds several series",
        )
    check_voxels(shape[:3], f"{study_id}: {file}")
    check_stored(shape[:3], kind.itemsize, f"{study_id}: {file}")
    check_count(shape[3] if len(shape) == 4 else 1, MOST_SERIES, "series", f"{study_id}: {file}")
    return shape


def _refuse_prepared(study_id: str, file: Path, header: Any) -> None:
    """Keep volumes that were prepared before from being prepared again, which would change their values in silence."""
    if header.get_data_dtype() != np.uint8:
        return
    with suppress(ImageError):  # no volume of histo's
        if read_volume_header(file)[1]:
            raise StudyError(
                Cause.UNREADABLE,
                f"{study_id}: {file} is a volume that histo prepared; give the study that it was made of, or measure a "
                "bundle on it with `histo evaluate --data`",
            )


def _read(study_id: str, file: Path, allow_no_orientation: bool, index: int, where: str) -> Series:
    header = _read_header(study_id, file)
    shape = _shape(study_id, file, header)[:3]
    affine, notes = _affine(header, shape, allow_no_orientation, f"{where} ({file})")
    if int(header["sform_code"]) <= 0:
        notes += _without_length(_read_header(study_id, file, mended=False)["pixdim"][1:4])
    with _damage(study_id, file):
        stored = _read_voxels(file, header, shape, index)
        slope, intercept = header.get_slope_inter()
    return Series(_scaled(stored, slope, intercept), affine, notes)


def _read_voxels(file: Path, header: Any, shape: tuple[int, ...], index: int) -> npt.NDArray[Any]:
    """Return one volume as stored, `(k, j, i)`, and read the file to its end."""
    kind, count = header.get_data_dtype(), prod(header.get_data_shape()[3:])
    size = prod(shape) * kind.itemsize
    offset = int(header.get_data_offset())
    if offset > MOST_HEADER_BYTES:
        raise EOFError(f"a header of {offset} bytes")
    _require_bytes(file, offset + (index + 1) * size)
    with unpacked(file) as opened:
        opened.seek(offset + index * size)
        content = opened.read(size)
        if len(content) < size:
            raise EOFError(f"{len(content)} of {size} bytes of voxels")
        rest = (count - index - 1) * size + MOST_HEADER_BYTES  # others write notes behind the voxels
        while block := opened.read(_BLOCK):
            rest -= len(block)
            if rest < 0:
                raise EOFError("it does not end behind its voxels")
    return np.frombuffer(content, kind).reshape(shape[::-1])


def _require_bytes(file: Path, needed: int) -> None:
    """Refuse a file that cannot hold what it declares, before memory is taken for it."""
    with open_regular(file) as raw:
        packed, size = raw.read(2) == GZIP, os.fstat(raw.fileno()).st_size
    if size * (_MOST_RATIO if packed else 1) < needed:
        raise EOFError(f"{size} bytes cannot hold {needed} of header and voxels")


def _scaled(stored_DHW: npt.NDArray[Any], slope: float | None, intercept: float | None) -> Values:
    """Scale in float64, slice by slice, and keep float32."""
    values = np.empty(stored_DHW.shape, np.float32)
    for target, source in zip(values, stored_DHW, strict=True):
        target[...] = source.astype(np.float64) * (slope or 1.0) + (intercept or 0.0)
    return values


def _affine(
    header: Any, shape: tuple[int, ...], allow_no_orientation: bool, where: str
) -> tuple[Affine, tuple[str, ...]]:
    """Take the sform, else the qform; metres and microns become mm."""
    unit = int(header["xyzt_units"]) & _SPACE_UNIT
    if unit not in _MM_PER_UNIT:
        raise StudyError(Cause.BAD_GEOMETRY, f"{where}: lengths in an unknown unit (code {unit}); repair the header")
    scale, notes = _MM_PER_UNIT[unit], list[str]()
    if int(header["sform_code"]) > 0:
        affine = np.asarray(header.get_sform(), np.float64)
        notes += _disagreement(header, affine, shape, scale)
    elif int(header["qform_code"]) > 0:
        affine = _qform(header, where)
    elif allow_no_orientation:
        affine = np.diag([*np.abs(header["pixdim"][1:4].astype(np.float64)), 1.0])
        notes += ["the file gives no orientation; its axes were taken for left to right, posterior to anterior, up"]
    else:
        what = f"{where}: neither sform nor qform, so left and right are not known; repair the header"
        raise StudyError(
            Cause.NO_ORIENTATION,
            f"{what}, or give --preparation.allow-no-orientation where you know its axes to be those of RAS",
            what,
        )
    return np.diag([scale, scale, scale, 1.0]) @ affine, tuple(notes)


def _disagreement(header: Any, sform: Affine, shape: tuple[int, ...], mm_per_unit: float) -> list[str]:
    """Say that the qform places corners elsewhere than the sform, which is used."""
    if int(header["qform_code"]) <= 0:
        return []
    try:
        qform = np.asarray(header.get_qform(), np.float64)
    except (ValueError, HeaderDataError):
        return ["the qform is not valid; the sform was used"]
    corners = np.array([*product(*((0, extent - 1) for extent in shape))])
    apart = np.linalg.norm(corners @ (sform - qform)[:3, :3].T + (sform - qform)[:3, 3], axis=1).max()
    if apart <= _SAME_PLACE * np.linalg.norm(sform[:3, :3], axis=0).min():
        return []
    return [f"sform and qform place voxels up to {apart * mm_per_unit:.3g} mm apart; the sform was used"]


def _without_length(lengths: Sequence[float]) -> tuple[str, ...]:
    """Say along which axes voxels have no length, where no sform gives it."""
    axes = [name for name, length in zip("ijk", lengths, strict=True) if length == 0]
    return (f"voxels have the length 0 along {', '.join(axes)} (pixdim); taken for 1",) if axes else ()


def _qform(header: Any, where: str) -> Affine:
    try:
        affine: Affine = header.get_qform()
    except (ValueError, HeaderDataError) as error:
        raise StudyError(
            Cause.BAD_GEOMETRY, f"{where}: no valid qform ({' '.join(str(error).split())}); repair the header"
        ) from None
    return affine


@contextmanager
def _damage(study_id: str, file: Path) -> Iterator[None]:
    """Turn what damage does to the readers into an error of the study."""
    try:
        with accessible(study_id, file):
            yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StudyError(
            Cause.UNREADABLE, f"{study_id}: {file} is not a readable NIfTI file ({reason}); copy it again"
        ) from error
