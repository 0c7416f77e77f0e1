"""Group studies by patient, so that no split tears a patient apart.

What the files say (PatientID) wins over what folders are called. Where files say nothing, as in NIfTI, the patient is
that of the DICOM studies in the same patient's folder, else that folder, else the study itself.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from histo.class_names import check_groups
from histo.errors import UsageError
from histo.volumes.spec import PatientIs

_MOST_NAMED = 3


@dataclass(frozen=True)
class Named:
    """What is known of a study's patient.

    Attributes:
        study_id: The study.
        files: What its files call the patient (PatientID); several where they disagree.
        folder: The folder that is called by the patient; None where there is none.
        own: What the study itself is called.
        given: What a manifest calls the patient, which wins over all; None where it says nothing.
    """

    study_id: str
    files: tuple[str, ...]
    folder: str | None
    own: str
    given: str | None = None

    @property
    def by_folder(self) -> str:
        """The patient as folders name it."""
        return self.folder or self.own

    def way(self, patient_is: PatientIs) -> str:
        """Say what names the patient."""
        if self.given is not None:
            return "the manifest"
        return "PatientID" if self.files and patient_is == "files" else "folder"


def group_studies(named: Sequence[Named], patient_is: PatientIs) -> list[str]:
    """Return the patient of each study."""
    in_folder: dict[str, set[str]] = defaultdict(set)
    for one in named:
        in_folder[one.by_folder].update(one.files if one.given is None else (one.given,))
    return [_group(one, patient_is, in_folder[one.by_folder]) for one in named]


def _group(one: Named, patient_is: PatientIs, in_folder: set[str]) -> str:
    if one.given is not None:
        return one.given
    if patient_is == "folder":
        return one.by_folder
    if one.files:
        return one.files[0]
    return next(iter(in_folder)) if len(in_folder) == 1 else one.by_folder


def check_patients(where: str, named: Sequence[Named], groups: Sequence[str], patient_is: PatientIs) -> None:
    """Refuse a PatientID that tells no patients apart, and patients that are written in two ways.

    Raises:
        UsageError: If there are such; `where` begins its message.
    """
    check_groups(where, groups)
    said = [one for one in named if one.files and one.given is None]
    folders = sorted({one.folder for one in said if one.folder is not None})
    patients = {patient for one in said for patient in one.files}
    if patient_is == "files" and len(patients) == 1 and len(folders) > 1:
        shown = ", ".join(folders[:_MOST_NAMED]) + (", ..." if len(folders) > _MOST_NAMED else "")
        raise UsageError(
            f"{where}: PatientID {patients.pop()!r} is that of all {len(said)} DICOM studies, in {len(folders)} folders"
            f" ({shown}), so that it tells no patients apart; give --patient-is folder where the folders are patients,"
            " or a manifest with the column group"
        )


def describe_patients(named: Sequence[Named], groups: Sequence[str], patient_is: PatientIs) -> str:
    """Say in one line how many patients there are, and what named them.

    Examples:
        >>> describe_patients([Named("a", ("P1",), None, "a"), Named("b", (), "p2", "b")], ["P1", "p2"], "files")
        '2 patients (studies named 1 by PatientID, 1 by folder)'
    """
    ways = Counter(one.way(patient_is) for one in named)
    words = [f"{number} by {way}" for way, number in ways.most_common()]
    count = len(set(groups))
    mixed = _mixed_folders(named) if patient_is == "files" else []
    more = f" and {len(mixed) - 1} more folders" if len(mixed) > 1 else ""
    doubt = f"; PatientIDs differ within {mixed[0]}{more}, and are taken for several patients" if mixed else ""
    return f"{count} patient{'' if count == 1 else 's'} (studies named {', '.join(words)}){doubt}"


def _mixed_folders(named: Sequence[Named]) -> list[str]:
    """Return the folders of patients whose studies name several, with these."""
    of_folder: dict[str, set[str]] = defaultdict(set)
    for one in named:
        if one.folder is not None and one.given is None:
            above, _, _ = f"/{one.study_id}".partition(f"/{one.folder}/")
            of_folder[f"{above}/{one.folder}"].update(one.files)
    return [f"{path[1:]} ({', '.join(sorted(ids))})" for path, ids in sorted(of_folder.items()) if len(ids) > 1]
