"""Read the examination and patient of files from their headers.

Only slices of a patient say it (`left_out`): a directory of a disc, a report or a mask may lie anywhere.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydicom.dataset import Dataset

from histo.dicom_head import read_elements
from histo.volumes.files import NIFTI_EXTENSIONS, kind_of
from histo.volumes.left_out import KEYWORDS, left_out

Kind = Literal["slice", "nifti", "object", "unreadable", "other"]
"""A DICOM slice; a NIfTI file; another DICOM object; what cannot be read, and may be an image; anything else."""

_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "PatientID")
_LOOKS = 16
"""Files that are looked at once; on a network file system each look is a wait."""


@dataclass(frozen=True)
class Look:
    """What a file's beginning says; empty where it says nothing.

    Attributes:
        file: Where it is.
        kind: What it is.
        study_uid: Its examination (StudyInstanceUID).
        series_uid: Its series.
        patient: Its patient (PatientID).
    """

    file: Path
    kind: Kind
    study_uid: str = ""
    series_uid: str = ""
    patient: str = ""


def look_at(files: Sequence[Path]) -> list[Look]:
    """Look at the beginnings of files, of each a bounded number of bytes."""
    with ThreadPoolExecutor(_LOOKS) as threads:
        return list(threads.map(look, files, chunksize=1))


def look(file: Path) -> Look:
    """Look at the beginning of a file; what cannot be read may be an image, and its study will say what is wrong."""
    if file.name.lower().endswith(NIFTI_EXTENSIONS):
        return Look(file, "nifti")
    try:
        if not file.is_file() or kind_of(file) != "dicom":
            return Look(file, "other")
    except OSError:
        return Look(file, "unreadable")
    header = read_elements(file, (*KEYWORDS, *_IDENTITY))
    if header is None:  # what comes before the size of the image is large, or damaged
        return _named(file, "slice", read_elements(file, _IDENTITY) or Dataset())
    return _named(file, _dicom_kind(file, header), header)


def _dicom_kind(file: Path, header: Dataset) -> Kind:
    try:
        return "object" if left_out(file, header) else "slice"
    except (EOFError, ValueError, TypeError):  # as above
        return "slice"


def _named(file: Path, kind: Kind, header: Dataset) -> Look:
    return Look(file, kind, *(str(header.get(keyword) or "").strip() for keyword in _IDENTITY))


def patients_of(looks: Iterable[Look]) -> tuple[str, ...]:
    """Return the patients that slices name, sorted."""
    return tuple(sorted({look.patient for look in looks if look.kind == "slice" and look.patient}))
