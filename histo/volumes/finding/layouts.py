"""Read split, class, patient and study from the names of folders.

Two layouts say it by names of their own: BIDS (`sub-01/ses-01/anat`) and XNAT's (`PATIENT/SESSION/SCANS/4-T1/...`). In
any other, folders that are called by a kind of image (`FLAIR`, `T1`, `T2`) hold the series of one study, that of the
folder above them. Names that exports give (`DICOM`, `files`) say nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from histo.volumes.finding.manifest import SPLITS, Split

_SUBJECT = re.compile(r"sub-[0-9A-Za-z]+")
_SESSION = re.compile(r"ses-[0-9A-Za-z]+")
_BIDS_KINDS = frozenset(("anat", "func", "dwi", "fmap", "perf", "pet"))
_XNAT_SCAN = re.compile(r"[0-9]+-.+")
_MEANINGLESS = frozenset(("dicom", "dicoms", "dcm", "nifti", "nii", "files", "resources", "images", "image"))
_WORDS = re.compile(r"[A-Za-z0-9]+")
_KINDS = frozenset(
    (
        *("flair", "t1", "t1w", "t1c", "t1ce", "t1gd", "t1km", "t1n", "t1post", "t1pre", "t2", "t2w", "t2f", "t2star"),
        *("t2flair", "pd", "pdw", "dwi", "adc", "swi", "swan", "mprage", "mp2rage", "space", "stir", "tirm", "tof"),
        *("dti", "asl", "gre", "ct", "cta", "mr", "mri", "mra", "pet"),
    )
)
"""Words of which a folder's name has one or more, where it holds one series of a study."""
_QUALIFIERS = frozenset(
    (
        *("ax", "axial", "tra", "sag", "sagittal", "cor", "coronal", "2d", "3d", "post", "pre", "gd", "km", "ce", "fs"),
        *("contrast", "native", "nativ", "tse", "fse", "se", "fl2d", "fl3d", "spair", "dixon", "w", "weighted"),
        *("image", "images", "scan", "series", "nii", "nifti", "dicom", "iso", "fatsat", "star", "dark", "fluid", "c"),
        *("b0", "b500", "b800", "b1000"),
    )
)
"""Further words that such a name may have, and none else: `CT-001` is a patient."""


@dataclass(frozen=True)
class Place:
    """What a path says of the study at its end; None where it says nothing."""

    split: Split | None
    label: str | None
    patient: str | None


def study_depth(parts: Sequence[str], series: Sequence[str] = ()) -> int | None:
    """Say how many parts of the path of a folder of images are its study; None where its names do not say.

    Args:
        parts: Of the path below the collection's folder.
        series: Further names of series, as `--preparation.series` has them.

    Examples:
        >>> study_depth(["mts", "p1", "FLAIR"]), study_depth(["sub-01", "ses-01", "anat"]), study_depth(["mts", "p1"])
        (2, 2, None)
        >>> study_depth(["mts", "p1", "s1", "SCANS", "4-T1", "resources", "NIFTI", "files"])
        3
    """
    session = _session_depth(parts)
    if session is not None:
        return session
    own = list(parts)
    while own and own[-1].casefold() in _MEANINGLESS:
        own.pop()
    return len(own) - 1 if own and _is_series(own[-1], series) else None


def _session_depth(parts: Sequence[str]) -> int | None:
    """Say how many parts are the study, where the layout is that of BIDS or of XNAT."""
    for index, part in enumerate(parts[:-1]):
        following = parts[index + 1]
        if index and part.casefold() == "scans" and _XNAT_SCAN.fullmatch(following):
            return index
        if _SUBJECT.fullmatch(part):
            if _SESSION.fullmatch(following):
                return index + 2
            if following in _BIDS_KINDS:
                return index + 1
    return None


def _is_series(name: str, series: Sequence[str]) -> bool:
    if name.casefold() in {pattern.strip("*").casefold() for pattern in series}:
        return True
    words = {word.casefold() for word in _WORDS.findall(name)}
    return bool(words & _KINDS) and words <= _KINDS | _QUALIFIERS


def is_session(parts: Sequence[str], depth: int) -> bool:
    """Whether it is by the layout of BIDS or of XNAT that so many parts of a path are a study."""
    return _session_depth(parts) == depth


def read_place(parts: Sequence[str], classes: Sequence[str] | None, session: bool = False) -> Place:
    """Read the path of a study.

    Args:
        parts: Of the path below the collection's folder, the study's own name last.
        classes: Names of all classes; a folder of another name is no class. None: any name is one.
        session: Whether the study is a session, so that the part before it is a patient, never a class.

    Examples:
        >>> read_place(["train", "mts", "p1", "s1"], None)
        Place(split='train', label='mts', patient='p1')
        >>> read_place(["mts", "DICOM", "PA000000", "ST000000"], None).patient
        'PA000000'
        >>> read_place(["sub-01", "ses-01"], None)
        Place(split=None, label=None, patient='sub-01')
    """
    above = list(parts[:-1])
    split: Split | None = None
    if above and above[0] in SPLITS:
        split = SPLITS[SPLITS.index(above.pop(0))]
    patient = _patient_index([*above, parts[-1]], session)
    named = None if patient is None else [*above, parts[-1]][patient]
    if patient is not None:
        above = above[:patient]
    elif above and above[0].casefold() in _MEANINGLESS and classes is None:
        return Place(split, None, next((part for part in above if part.casefold() not in _MEANINGLESS), None))
    if named is not None and classes is not None and named in classes and not above:
        return Place(split, named, None)
    label = above.pop(0) if above and (classes is None or above[0] in classes) else None
    return Place(split, label, named or next((part for part in above if part.casefold() not in _MEANINGLESS), None))


def _patient_index(parts: Sequence[str], session: bool) -> int | None:
    """Find the part that the layout says to be the patient."""
    subject = next((index for index, part in enumerate(parts) if _SUBJECT.fullmatch(part)), None)
    if subject is not None:
        return subject
    return len(parts) - 2 if session and len(parts) > 1 else None
