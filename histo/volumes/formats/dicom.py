"""Read DICOM series: all headers first, then the pixels of one series."""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from histo.errors import Cause, StudyError
from histo.volumes.formats.pixels import read_pixels
from histo.volumes.geometry.planes import Plane, PlanesOfFile, read_planes
from histo.volumes.geometry.stack import stack_planes
from histo.volumes.intensity import check_values
from histo.volumes.series import FoundSeries, Series

_MOST_WARNINGS = 3


@dataclass(frozen=True)
class DicomListing:
    """What the headers of a study's DICOM files say.

    Attributes:
        series: Its series.
        left_out: Number of files that are no slices, by what they are.
        notes: What a person should know.
    """

    series: list[FoundSeries]
    left_out: Counter[str]
    notes: list[str]


def list_dicom(study_id: str, files: Sequence[Path], spacing_tolerance: float) -> DicomListing:
    """Read the headers of DICOM files, and sort them into series.

    Raises:
        StudyError: `unreadable`, `no_access` or `mixed_identity`.
    """
    by_series: dict[str, list[PlanesOfFile]] = {}
    left_out: Counter[str] = Counter()
    with _warnings_noted() as notes:
        for file in files:
            header = read_planes(study_id, file)
            if isinstance(header, str):
                left_out[header] += 1
            else:
                by_series.setdefault(header.series, []).append(header)
    _check_identity(study_id, by_series)
    studies = {header.study_uid for headers in by_series.values() for header in headers}
    if len(studies) > 1:
        notes.append(f"files of {len(studies)} examinations (StudyInstanceUID)")
    series = [_found(headers, spacing_tolerance) for headers in by_series.values()]
    return DicomListing(series, left_out, notes)


def _check_identity(study_id: str, by_series: Mapping[str, Sequence[PlanesOfFile]]) -> None:
    """Refuse files of two patients, and a series of two examinations: nobody can tell whose it is."""
    everything = [header for headers in by_series.values() for header in headers]
    _check_one(study_id, {header.patient: header for header in everything}, "patient", "PatientID")
    for headers in by_series.values():
        where = f"{study_id}: series {headers[0].name}"
        _check_one(where, {header.study_uid: header for header in headers}, "examination", "StudyInstanceUID")


def _check_one(where: str, by_name: Mapping[str, PlanesOfFile], what: str, element: str) -> None:
    named = sorted((name, header.planes[0].file) for name, header in by_name.items() if name)
    if len(named) > 1:
        (one, file), (other, another) = named[:2]
        raise StudyError(
            Cause.MIXED_IDENTITY,
            f"{where}: {file} is of {what} {one!r}, {another} of {other!r} ({element}); divide the files, or correct"
            " their headers",
        )


def _found(headers: Sequence[PlanesOfFile], spacing_tolerance: float) -> FoundSeries:
    first = headers[0]
    if any(header.mosaic for header in headers):
        return FoundSeries(first.name, "dicom", first.mark, partial(_refuse_mosaic, len(headers)))
    planes = tuple(plane for header in headers for plane in header.planes)
    read = partial(_read, planes, spacing_tolerance, first.modality, any(header.inverted for header in headers))
    return FoundSeries(first.name, "dicom", first.mark, read)


def _refuse_mosaic(count: int, where: str) -> Series:
    raise StudyError(
        Cause.MIXED_SLICES,
        f"{where}: {count} mosaics (Siemens), each of many slices side by side in one picture; convert the series to"
        " NIfTI, as dcm2niix does, or leave it out",
    )


def _read(planes: Sequence[Plane], spacing_tolerance: float, modality: str, inverted: bool, where: str) -> Series:
    stack = stack_planes(planes, spacing_tolerance, where)
    with _warnings_noted() as notes:
        values = read_pixels(stack.planes, where)
    if inverted:
        notes.append("low values are meant to be shown bright (MONOCHROME1); they are as stored")
    without = sum(plane.slope == 0 for plane in stack.planes)
    if without:
        notes.append(f"RescaleSlope is 0 in {without} of {len(stack.planes)} slices; taken for 1")
    if modality == "CT":
        check_values(values, where, hounsfield=True)
    return Series(values, stack.affine, tuple(notes))


@contextmanager
def _warnings_noted() -> Iterator[list[str]]:
    """Collect what pydicom and the decoders warn of, each kind once."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    kinds = Counter(" ".join(str(warning.message).split()) for warning in caught)
    notes += [f"{text} ({count} times)" if count > 1 else text for text, count in kinds.most_common(_MOST_WARNINGS)]
    if len(kinds) > _MOST_WARNINGS:
        notes.append(f"{len(kinds) - _MOST_WARNINGS} other warnings")
