"""Sort the files of a study by magic number, NIfTI by extension."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from histo.errors import Cause, StudyError
from histo.folders import count_kinds
from histo.regular_file import open_regular

Kind = Literal["nifti", "dicom", "other"]
NIFTI_EXTENSIONS = (".nii", ".nii.gz")
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
"""Groups that a DICOM file without a preamble begins with, little endian."""
_HEAD = 132


@dataclass(frozen=True)
class SortedFiles:
    """The files of a study by what they are.

    Attributes:
        nifti: NIfTI files.
        dicom: DICOM files of any content.
        others: Number of other files by extension.
    """

    nifti: tuple[Path, ...]
    dicom: tuple[Path, ...]
    others: Counter[str]


def sort_files(study_id: str, files: Sequence[Path]) -> SortedFiles:
    """Look at each file's beginning.

    Raises:
        StudyError: `no_access` if one cannot be opened; `unreadable` if one that may be an image is empty.
    """
    by_kind: dict[Kind, list[Path]] = {"nifti": [], "dicom": [], "other": []}
    for file in files:
        by_kind[_checked_kind(study_id, file)].append(file)
    return SortedFiles(tuple(by_kind["nifti"]), tuple(by_kind["dicom"]), count_kinds(by_kind["other"]))


def _checked_kind(study_id: str, file: Path) -> Kind:
    with accessible(study_id, file):
        state = file.stat()
        if not S_ISREG(state.st_mode):
            what = "is a folder" if file.is_dir() else "is not a file"
            raise StudyError(Cause.UNREADABLE, f"{study_id}: {file} {what}; give a file")
        if state.st_size == 0 and _may_be_image(file.name):
            raise StudyError(Cause.UNREADABLE, f"{study_id}: {file} is empty; copy it again, or remove it")
        return kind_of(file)


def _may_be_image(name: str) -> bool:
    """Tell by its name what an empty file may have been: DICOM often has no ending, or a number for one."""
    ending = Path(name).suffix.lower()
    return ending in {"", ".dcm", ".dicom", ".ima"} or ending[1:].isdigit() or name.lower().endswith(NIFTI_EXTENSIONS)


def kind_of(file: Path) -> Kind:
    """Tell what a file is.

    Raises:
        OSError: If it cannot be read.
    """
    if file.name.lower().endswith(NIFTI_EXTENSIONS):
        return "nifti"
    with open_regular(file) as opened:
        head = opened.read(_HEAD)
    return "dicom" if head[128:] == b"DICM" or _begins_without_preamble(head) else "other"


def _begins_without_preamble(head: bytes) -> bool:
    """Tell a DICOM data set that was written without the file's preamble: a first element of group 2 or 8."""
    if len(head) < _HEAD or head[:2] not in _FIRST_GROUPS:
        return False
    element, explicit = int.from_bytes(head[2:4], "little"), head[4:6].isalpha() and head[4:6].isupper()
    length = int.from_bytes(head[6:8] if explicit else head[4:8], "little")
    return element <= 0x18 and length <= 64


@contextmanager
def accessible(study_id: str, file: Path) -> Iterator[None]:
    """Turn what the system says about a file into an error of the study, one that may pass."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a library's own, such as gzip's of a damaged file
            raise
        raise StudyError(
            Cause.NO_ACCESS,
            f"{study_id}: {file}: {error.strerror or error}; make the file readable, or remove it from the study",
        ) from error


def folders_apart(files: Sequence[Path]) -> list[str]:
    """Return for each file what tells its folder from those of the others, with `/`; empty where all have one.

    Examples:
        >>> folders_apart([Path("p1/T1/nifti/x.nii"), Path("p1/T2/nifti/x.nii")])
        ['T1/nifti', 'T2/nifti']
    """
    above = os.path.commonpath([file.parent for file in files]) if files else ""
    names = [file.parent.relative_to(above).as_posix() for file in files]
    return ["" if name == "." else name for name in names]


def stem(name: str) -> str:
    """Leave out the extension of a file's name; `.nii.gz` is one.

    Examples:
        >>> stem("T1.w.nii.gz")
        'T1.w'
    """
    ending = next((end for end in (".nii.gz", ".nii") if name.lower().endswith(end)), Path(name).suffix)
    return name[: len(name) - len(ending)] or name
