"""What the first image of a folder says of its study: no more of it is read before the study's turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from histo.dicom_head import read_head
from histo.volumes.files import NIFTI_EXTENSIONS, kind_of


@dataclass(frozen=True)
class FirstImage:
    """What the first image of a study says of it; empty where it says nothing, as NIfTI does."""

    study_uid: str = ""
    patient: str = ""


def first_image(files: Sequence[Path]) -> FirstImage | None:
    """Look for an image among files, NIfTI first; None if there is none."""
    if any(file.name.lower().endswith(NIFTI_EXTENSIONS) for file in files):
        return FirstImage()
    dicom = next((file for file in files if _may_be_dicom(file)), None)
    return None if dicom is None else FirstImage(*read_head(dicom, ["StudyInstanceUID", "PatientID"]))


def _may_be_dicom(file: Path) -> bool:
    """Tell DICOM by its magic; what cannot be read may be an image, and reading the study says what is wrong."""
    try:
        return file.name.upper() != "DICOMDIR" and file.is_file() and kind_of(file) == "dicom"
    except OSError:
        return True
