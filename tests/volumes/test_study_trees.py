"""One study for each examination and one group for each patient, however a tree of studies is laid out."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pydicom
import pytest
from helpers.made_cases import survey_of
from helpers.study_trees import DICOM, KINDS, NIFTI, ONE_EXAM, Beside, Exam, write_dicom, write_directory, write_nifti
from hypothesis import given, settings
from hypothesis import strategies as st

from histo.learn.data.images import ArrayImages
from histo.learn.data.source import Case, Source
from histo.learn.data.spec import SplitSpec
from histo.learn.data.split import assign_folds, assign_splits
from histo.volumes.finding.studies import FoundStudy, find_studies
from histo.volumes.preparation import prepare
from histo.volumes.spec import PreparationSpec

LABELS = ("mts", "norma")
SMALL = PreparationSpec(slices=2, size_px=8)

besides = st.builds(
    Beside,
    directory=st.sampled_from(("", "DIRFILE", "DICOMDIR", "0", "zzz")),
    mask=st.sampled_from(("", "mask.nii.gz", "0_seg.nii")),
    others=st.lists(st.sampled_from((".hidden", "._0.dcm", "notes.txt", "Thumbs.db")), unique=True, max_size=2),
)
layouts = st.sampled_from([("dicom", name) for name in DICOM] + [("nifti", name) for name in NIFTI])


def exams_of(patients: int, exams: int, rng: random.Random) -> list[Exam]:
    names = [f"{rng.choice('abcxyz')}{number}" for number in range(patients)]
    return [Exam(LABELS[n % 2], name, n, e) for n, name in enumerate(names) for e in range(exams)]


def plant(
    root: Path, way: tuple[str, str], exams: list[Exam], series: int, beside: Beside, seed: int
) -> dict[Exam, set[Path]]:
    """Write a tree; returns the images of each examination."""
    (form, layout), rng, images = way, random.Random(seed), dict[Exam, set[Path]]()
    for exam in exams:
        for number in range(series):
            if form == "dicom":
                files = write_dicom(root, exam, DICOM[layout], number, rng, f"ID{exam.number}")
            else:
                files = write_nifti(root, exam, NIFTI[layout], number)
            images.setdefault(exam, set()).update(files)
            beside.put(files[0].parent)
        if beside.directory and seed % 2:
            write_directory(files[0].parents[1] / beside.directory)
    return images


def found(root: Path, **options: Any) -> list[FoundStudy]:
    return list(find_studies(root, **options).studies)


def studies_of(studies: list[FoundStudy], images: dict[Exam, set[Path]]) -> dict[Exam, FoundStudy]:
    """The one study that has the images of each examination."""
    whole = {}
    for exam, files in images.items():
        (whole[exam],) = [study for study in studies if set(study.files) & files]
        assert files <= set(whole[exam].files)
    return whole


def sides(studies: list[FoundStudy], labels: list[str]) -> list[list[Any]]:
    """On which side of several splits, and in which fold, each study is."""
    cases = [Case(s.study_id, LABELS.index(label), None, s.group) for s, label in zip(studies, labels, strict=True)]
    source = Source(LABELS, tuple(cases), ArrayImages(()))
    survey = survey_of(source)
    drawn = [list(assign_splits(source, survey, SplitSpec(val_fraction=0.3), seed)) for seed in range(3)]
    return [*drawn, list(assign_folds(source, survey, 2, 0))]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(layouts, st.integers(4, 5), st.integers(1, 2), st.integers(1, 3), besides, st.integers(0, 999))
def test_any_tree_has_one_study_an_examination_and_one_group_a_patient(
    way: tuple[str, str], patients: int, exams: int, series: int, beside: Beside, seed: int
) -> None:
    planned = exams_of(patients, 1 if way[1] in ONE_EXAM else exams, random.Random(seed))
    with TemporaryDirectory() as place:
        images = plant(Path(place), way, planned, series, beside, seed)

        studies = found(Path(place))

    of_exams = studies_of(studies, images)
    assert len(studies) == len(planned) == len({study.study_id for study in of_exams.values()})
    groups = {(exam.patient, study.group) for exam, study in of_exams.items()}
    assert len(groups) == patients == len({group for _, group in groups})
    assert all(study.label == exam.label for exam, study in of_exams.items())
    for dealt in sides(list(of_exams.values()), [exam.label for exam in of_exams]):
        assert len({(exam.patient, side) for exam, side in zip(of_exams, dealt, strict=True)}) == patients


@pytest.mark.slow
@pytest.mark.parametrize("way", [("nifti", "kinds of a patient"), ("dicom", "a disc"), ("dicom", "archive")], ids=str)
def test_of_55_patients_of_three_series_each_is_one_study_that_can_be_prepared(
    tmp_path: Path, way: tuple[str, str]
) -> None:
    form, planned = way[0], exams_of(55, 1, random.Random(1))
    images = plant(tmp_path, way, planned, len(KINDS), Beside("DIRFILE" if form == "dicom" else ""), seed=1)

    studies = found(tmp_path)

    of_exams = studies_of(studies, images)
    assert len(studies) == 55
    assert {exam.number: study.group for exam, study in of_exams.items()} == {
        exam.number: f"ID{exam.number}" if form == "dicom" else exam.patient for exam in planned
    }
    for study in studies[::18]:
        assert prepare(study.study_id, study.files, SMALL).columns["n_series"] == 3


def test_identity_is_that_of_images_and_never_of_a_directory_or_a_mask(tmp_path: Path) -> None:
    for number, name in enumerate(("DIRFILE", "0", "mask.nii.gz")):
        exam = Exam("mts", f"p{number}", number, 0)
        for series in range(3):
            (first, *_) = write_dicom(
                tmp_path, exam, DICOM["a folder of series"], series, random.Random(series), "ID-1"
            )
            Beside(*(("", name) if name.endswith(".gz") else (name,))).put(first.parent)

    studies = found(tmp_path)

    assert [study.study_id for study in studies] == ["mts/p0/E0", "mts/p1/E0", "mts/p2/E0"]
    assert {study.group for study in studies} == {"ID-1"}


def test_nifti_beside_dicom_of_one_patient_has_his_group(tmp_path: Path) -> None:
    exam = Exam("mts", "p1", 1, 0)
    write_dicom(tmp_path, exam, DICOM["a folder of series"], 0, random.Random(0), "ID-1")
    write_nifti(tmp_path, exam, lambda e, _: f"{e.label}/{e.patient}/later", 0)

    assert [(study.study_id, study.group) for study in found(tmp_path)] == [
        ("mts/p1/E0/SE0", "ID-1"),
        ("mts/p1/later", "ID-1"),
    ]


def test_a_mask_without_a_folder_of_its_own_is_no_study(tmp_path: Path) -> None:
    exam = Exam("mts", "p1", 1, 0)
    for series in range(2):
        write_dicom(tmp_path, exam, DICOM["a folder of series"], series, random.Random(series), "ID-1")
    Beside(mask="mask.nii.gz").put(tmp_path / "mts" / "p1" / "E0")
    Beside(mask="x.nii.gz").put(tmp_path / "mts" / "p1" / "E0" / "segmentation")

    (study,) = found(tmp_path)

    assert (study.study_id, len(study.files)) == ("mts/p1/E0", 6)


@pytest.mark.parametrize("names", [("001", "002", "003"), ("CT-001", "CT-002", "CT-003"), ("pat1", "pat2", "pat3")])
def test_patients_are_never_taken_for_the_series_of_one_study(tmp_path: Path, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names):
        write_nifti(tmp_path, Exam("mts", name, number, 0), lambda e, _: f"{e.label}/{e.patient}", 0)

    studies = found(tmp_path, series=["*flair*", "*t1*", "*t2*"])

    assert [(study.study_id, study.label) for study in studies] == [(f"mts/{name}", "mts") for name in names]


def test_folders_of_kinds_that_hold_all_patients_are_not_one_study(tmp_path: Path) -> None:
    for kind in KINDS:
        for name in ("p1.nii.gz", "p2.nii.gz"):
            Beside(mask=name).put(tmp_path / "mts" / kind)

    assert [study.study_id for study in found(tmp_path)] == ["mts/FLAIR", "mts/T1", "mts/T2"]


def test_series_that_are_asked_for_name_folders_of_one_study(tmp_path: Path) -> None:
    for kind in ("nativ0", "arteriell", "venös"):
        Beside(mask="x.nii.gz").put(tmp_path / "mts" / "p1" / kind)

    assert len(found(tmp_path)) == 3
    assert [study.study_id for study in found(tmp_path, series=["Nativ0", "*arteriell*", "venös"])] == ["mts/p1"]


def test_two_examinations_in_one_folder_are_two_studies_named_by_their_uid(tmp_path: Path) -> None:
    for exam in (Exam("mts", "p1", 0, 0), Exam("mts", "p1", 0, 1)):
        write_dicom(tmp_path, exam, DICOM["all of a patient in one folder"], 0, random.Random(exam.exam), "")

    assert {study.study_id: study.group for study in found(tmp_path)} == {
        "mts/p1/1.2.1000.1": "p1",
        "mts/p1/1.2.1000.2": "p1",
    }


def test_sessions_of_an_archive_and_subjects_are_patients_and_no_classes(tmp_path: Path) -> None:
    write_nifti(tmp_path, Exam("", "p1", 0, 0), lambda e, _: f"{e.patient}/S0/SCANS/1-T1/resources/NIFTI/files", 0)
    write_nifti(tmp_path, Exam("", "p2", 0, 0), lambda e, _: f"sub-{e.patient}/ses-1/anat", 0)
    write_nifti(tmp_path, Exam("", "p3", 0, 0), lambda e, _: f"sub-{e.patient}/anat", 0)

    assert [(study.study_id, study.label, study.group) for study in found(tmp_path)] == [
        ("p1/S0", None, "p1"),
        ("sub-p2/ses-1", None, "sub-p2"),
        ("sub-p3", None, "sub-p3"),
    ]


def test_an_object_that_is_no_image_goes_with_its_examination(tmp_path: Path) -> None:
    exam = Exam("mts", "p1", 0, 0)
    for series in range(2):
        write_dicom(tmp_path, exam, DICOM["a folder of series"], series, random.Random(series), "ID")
    for path in write_dicom(tmp_path, exam, lambda *_: "mts/p1/E0/mask", 2, random.Random(2), "MASKS"):
        mask = pydicom.dcmread(path)
        mask.SOPClassUID = pydicom.uid.SegmentationStorage
        mask.save_as(path)

    (study,) = found(tmp_path)

    assert (study.study_id, study.group, len(study.files)) == ("mts/p1/E0", "ID", 6)


@pytest.mark.parametrize(
    ("folder", "form", "study", "said"),
    [
        ("train/mts/PATIENT/{kind}", "nifti", "train/mts/PATIENT", ("mts", "PATIENT", "train")),
        ("mts/PATIENT/STUDY", "nifti", "mts/PATIENT/STUDY", ("mts", "PATIENT", None)),
        ("mts/PATIENT/STUDY/{kind}", "dicom", "mts/PATIENT/STUDY", ("mts", "PATIENT", None)),
        ("mts/DICOM/PA000000/ST000000/SE{n:06d}", "dicom", "mts/DICOM/PA000000/ST000000", ("mts", "PA000000", None)),
        ("DICOM/PA000000/ST000000/SE{n:06d}", "dicom", "DICOM/PA000000/ST000000", (None, "PA000000", None)),
        ("mts/P/SESSION/SCANS/{n}-{kind}/resources/NIFTI/files", "nifti", "mts/P/SESSION", ("mts", "P", None)),
        ("P/SESSION/scans/{n}-{kind}/DICOM", "dicom", "P/SESSION", (None, "P", None)),
        ("mts/sub-01/ses-01/anat", "nifti", "mts/sub-01/ses-01", ("mts", "sub-01", None)),
        ("test/sub-01/anat", "nifti", "test/sub-01", (None, "sub-01", "test")),
        ("PATIENT/{kind}", "nifti", "PATIENT", (None, "PATIENT", None)),
        ("{kind}", "nifti", "in", (None, "in", None)),
    ],
)
@pytest.mark.parametrize("series", [1, 3])
def test_the_trees_of_the_manual_are_read_as_it_says(
    tmp_path: Path, folder: str, form: str, study: str, said: tuple[str | None, ...], series: int
) -> None:
    exam = Exam("", "", 0, 0)

    def place(_: Exam, number: int) -> str:
        return folder.format(kind=KINDS[number], n=number)

    for number in range(series):
        if form == "dicom":
            write_dicom(tmp_path / "in", exam, place, number, random.Random(number), "")
        else:
            write_nifti(tmp_path / "in", exam, place, number)

    (only,) = found(tmp_path / "in")

    assert (only.label, only.group, only.split) == said
    assert only.study_id == study or (series == 1 and form == "dicom" and only.study_id.startswith(f"{study}/"))


def test_a_folder_is_a_class_only_if_the_classes_name_it_in_archives_too(tmp_path: Path) -> None:
    write_nifti(tmp_path, Exam("", "", 0, 0), lambda *_: "mts/S1/SCANS/1-T1/resources/NIFTI/files", 0)
    write_nifti(tmp_path, Exam("", "", 0, 0), lambda *_: "other/p1/S1/SCANS/1-T1/resources/NIFTI/files", 0)

    studies = found(tmp_path, classes=["mts", "norma"])

    assert [(study.study_id, study.label, study.group) for study in studies] == [
        ("mts/S1", "mts", "S1"),
        ("other/p1/S1", None, "p1"),
    ]
