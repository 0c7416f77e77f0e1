"""Read from DICOM headers the series and position of each frame.

A single-frame file is one plane; a multi-frame (enhanced) one is as many as it has frames, placed by its functional
groups. What is no slice is left out, with a word that says why (`histo.volumes.left_out`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from histo.errors import Cause, StudyError
from histo.regular_file import open_regular
from histo.volumes.files import accessible
from histo.volumes.left_out import INVERTED, left_out, texts
from histo.volumes.limits import MOST_FRAMES, check_count, check_deflated, check_size, check_voxels

_TAGS = [
    *(
        "SOPClassUID",
        "StudyInstanceUID",
        "PatientID",
        "SeriesInstanceUID",
        "SeriesNumber",
        "SeriesDescription",
        "ProtocolName",
    ),
    *("Modality", "ImageType", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]


@dataclass(frozen=True)
class Plane:
    """One slice: where its pixels are, and where it lies in the patient.

    Attributes:
        file: Where it is stored.
        frame: Its place among the file's frames, from 0.
        shape: Its rows and columns.
        position_mm: Centre of its first pixel, LPS; None where the header does not say.
        orientation: Directions of growing columns and of growing rows, LPS; likewise.
        spacing_mm: Distance of rows, and of columns; likewise.
        slope: By which stored values are multiplied, as exactly as NIfTI stores it (float32); 0 stands for 1.
        intercept: What is added then, likewise.
    """

    file: Path
    frame: int
    shape: tuple[int, int]
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    slope: float
    intercept: float

    def __str__(self) -> str:
        return f"{self.file.name} frame {self.frame}" if self.frame else self.file.name


@dataclass(frozen=True)
class PlanesOfFile:
    """One DICOM image.

    Attributes:
        series: What its series is told by: the SeriesInstanceUID; its folder where there is none.
        study_uid: StudyInstanceUID; empty if there is none.
        patient: PatientID, likewise.
        name: The series' description, else its protocol, else its folder.
        mark: The series' number, else its UID.
        modality: CT, MR, ...
        mosaic: Whether each picture is many slices side by side, as Siemens stores them.
        inverted: Whether low values are to be shown bright (MONOCHROME1); values are as stored all the same.
        planes: Its frames.
    """

    series: str
    study_uid: str
    patient: str
    name: str
    mark: str
    modality: str
    mosaic: bool
    inverted: bool
    planes: tuple[Plane, ...]


def read_planes(study_id: str, file: Path) -> PlanesOfFile | str:
    """Read a header; a file that is left out is the word for its kind.

    Raises:
        StudyError: `unreadable`, `too_large` or `no_access`.
    """
    try:
        with accessible(study_id, file), open_regular(file) as opened:
            check_size(file, opened, study_id)
            check_deflated(opened, f"{study_id}: {file}")
            header = pydicom.dcmread(opened, stop_before_pixels=True, specific_tags=list(_TAGS), force=True)
        kind = left_out(file, header)
        if kind:
            return kind
        _check_extents(f"{study_id}: {file}", header)
        return _planes_of_file(file, header)
    except (StudyError, MemoryError):
        raise
    except Exception as error:  # pydicom raises what its parser runs into
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StudyError(
            Cause.UNREADABLE, f"{study_id}: {file} is not readable DICOM ({reason}); copy it again, or remove it"
        ) from error


def _check_extents(where: str, header: Any) -> None:
    """Refuse a size that cannot be, before there is a plane for each frame."""
    extents = int(header.get("NumberOfFrames") or 1), int(header.Rows), int(header.Columns)
    if min(extents) < 1:
        raise ValueError(f"{' x '.join(map(str, extents))} frames, rows and columns")
    check_count(extents[0], MOST_FRAMES, "frames", where)
    check_voxels(extents, where)


def _planes_of_file(file: Path, header: Any) -> PlanesOfFile:
    uid, number = _text(header, "SeriesInstanceUID"), _text(header, "SeriesNumber")
    return PlanesOfFile(
        series=uid or f"folder {file.parent}",
        study_uid=_text(header, "StudyInstanceUID"),
        patient=_text(header, "PatientID"),
        name=_text(header, "SeriesDescription") or _text(header, "ProtocolName") or file.parent.name,
        mark=number or uid,
        modality=_text(header, "Modality"),
        mosaic="MOSAIC" in texts(header.get("ImageType")),
        inverted=_text(header, "PhotometricInterpretation") == INVERTED,
        planes=tuple(_planes(file, header)),
    )


def _planes(file: Path, header: Any) -> Iterator[Plane]:
    shape = int(header.Rows), int(header.Columns)
    shared = [*(header.get("SharedFunctionalGroupsSequence") or []), header]
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    count = int(header.get("NumberOfFrames") or 1)
    if groups and len(groups) != count:
        raise ValueError(f"{count} frames, but the places of {len(groups)}")
    for frame in range(count):
        sources = [groups[frame], *shared] if groups else shared if count == 1 else []
        slope = _first(sources, "PixelValueTransformationSequence", "RescaleSlope", 1)
        intercept = _first(sources, "PixelValueTransformationSequence", "RescaleIntercept", 1)
        yield Plane(
            file=file,
            frame=frame,
            shape=shape,
            position_mm=_first(sources, "PlanePositionSequence", "ImagePositionPatient", 3),
            orientation=_first(sources, "PlaneOrientationSequence", "ImageOrientationPatient", 6),
            spacing_mm=_first(sources, "PixelMeasuresSequence", "PixelSpacing", 2),
            slope=float(np.float32(slope[0])) if slope else 1.0,
            intercept=float(np.float32(intercept[0])) if intercept else 0.0,
        )


def _first(sources: list[Any], group: str, name: str, count: int) -> tuple[float, ...] | None:
    """Return the numbers of an element: of the frame's own groups, of the shared ones, or of the file."""
    for source in sources:
        items = source.get(group) or []
        value = (items[0] if items else source).get(name)
        if value is not None and value != "":
            numbers = tuple(float(number) for number in (value if count > 1 else [value]))
            if len(numbers) != count:
                raise ValueError(f"{name} has {len(numbers)} values, expected {count}")
            return numbers
    return None


def _text(header: Any, name: str) -> str:
    value = header.get(name)
    return "" if value is None else str(value).strip()
