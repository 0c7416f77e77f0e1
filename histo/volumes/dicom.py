"""DICOM files: headers first, one after the other; the pixels of a series when it is its turn."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from histo.volumes.intensity import check_values
from histo.volumes.pixels import read_pixels
from histo.volumes.planes import Plane, PlanesOfFile, read_planes
from histo.volumes.series import FoundSeries, Series
from histo.volumes.stack import stack_planes

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
        StudyError: `unreadable` or `no_access`.
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
    studies = {header.study_uid for headers in by_series.values() for header in headers}
    if len(studies) > 1:
        notes.append(f"files of {len(studies)} examinations (StudyInstanceUID)")
    series = [_found(headers, spacing_tolerance) for headers in by_series.values()]
    return DicomListing(series, left_out, notes)


def _found(headers: Sequence[PlanesOfFile], spacing_tolerance: float) -> FoundSeries:
    first = headers[0]
    planes = tuple(plane for header in headers for plane in header.planes)
    read = partial(_read, planes, spacing_tolerance, first.modality, any(header.inverted for header in headers))
    return FoundSeries(first.name, "dicom", first.mark, read)


def _read(planes: Sequence[Plane], spacing_tolerance: float, modality: str, inverted: bool, where: str) -> Series:
    stack = stack_planes(planes, spacing_tolerance, where)
    with _warnings_noted() as notes:
        values = read_pixels(stack.planes, where)
    if inverted:
        notes.append("low values are meant to be shown bright (MONOCHROME1); they are as stored")
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
