"""The folders below a root, and what the first image of each says: no more of it is read before a study's turn."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from histo.volumes.files import NIFTI_EXTENSIONS, kind_of


@dataclass(frozen=True)
class Folder:
    """One folder, hidden things left out.

    Attributes:
        path: Where it is.
        files: What it directly holds, sorted.
        leaf: Whether it has no folders.
    """

    path: Path
    files: tuple[Path, ...]
    leaf: bool


@dataclass(frozen=True)
class FirstImage:
    """What the first image of a study says of it; empty where it says nothing, as NIfTI does."""

    study_uid: str = ""
    patient: str = ""


def walk(root: Path, unreadable: Callable[[OSError], None]) -> Iterator[Folder]:
    """Visit a folder and those below it, in order; symbolic links to folders are not followed.

    Args:
        root: A folder.
        unreadable: Is told of each folder that cannot be listed.
    """
    for place, folders, names in os.walk(root, onerror=unreadable):
        path = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not (path / name).is_symlink())
        shown = sorted(name for name in names if not name.startswith("."))
        yield Folder(path, tuple(path / name for name in shown), not folders)


def first_image(files: Sequence[Path]) -> FirstImage | None:
    """Look for an image among files, NIfTI first; None if there is none."""
    if any(file.name.lower().endswith(NIFTI_EXTENSIONS) for file in files):
        return FirstImage()
    return next((_read_identity(file) for file in files if _may_be_dicom(file)), None)


def _may_be_dicom(file: Path) -> bool:
    """Tell DICOM by its magic; what cannot be read may be an image, and reading the study says what is wrong."""
    try:
        return file.name.upper() != "DICOMDIR" and file.is_file() and kind_of(file) == "dicom"
    except OSError:
        return True


def _read_identity(file: Path) -> FirstImage:
    wanted = ["StudyInstanceUID", "PatientID"]
    try:
        with warnings.catch_warnings(action="ignore"):  # reading the study records what pydicom warns of
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=wanted, force=True)
            return FirstImage(*(str(header.get(name) or "").strip() for name in wanted))
    except Exception:  # noqa: BLE001 -- pydicom raises what its parser runs into; reading the study says what is wrong
        return FirstImage()
