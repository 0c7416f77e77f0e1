import random
from pathlib import Path

import pytest
from helpers.study_trees import DICOM, Exam, write_dicom, write_nifti

from histo.cli import main
from histo.errors import UsageError
from histo.volumes.finding.patients import Named, check_patients, describe_patients, group_studies
from histo.volumes.finding.studies import find_studies


def write_cohort(root: Path, layout: str, patient_ids: list[str]) -> Path:
    for number, patient in enumerate(patient_ids):
        exam = Exam(("mts", "norma")[number % 2], f"p{number}", number, 0)
        write_dicom(root, exam, DICOM[layout], 0, random.Random(number), patient)
    return root


def refused(root: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    code = main(["prepare", "volumes", "--studies", str(root), "--out", str(root.parent / "out"), *flags])
    assert code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("layout", ["a folder of series", "a disc", "archive"])
def test_one_patient_id_for_all_is_refused_with_the_way_out(
    tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(write_cohort(tmp_path / "in", layout, ["ANONYMOUS"] * 5), capsys)

    assert "PatientID 'ANONYMOUS' is that of all 5 DICOM studies, in 5 folders" in said
    assert "give --patient-is folder where the folders are patients, or a manifest with the column group" in said


def test_of_one_patient_id_for_all_the_folders_are_the_patients_where_that_is_said(tmp_path: Path) -> None:
    root = write_cohort(tmp_path / "in", "a disc", ["ANONYMOUS"] * 3)

    found = find_studies(root, patient_is="folder")

    groups = [study.group or "" for study in found.studies]
    assert groups == ["PA000000", "PA000002", "PA000001"]
    check_patients("--studies x", found.named, groups, "folder")
    assert describe_patients(found.named, groups, "folder") == "3 patients (studies named 3 by folder)"


def test_two_examinations_of_one_patient_in_two_folders_are_one_group(tmp_path: Path) -> None:
    root = write_cohort(tmp_path / "in", "a folder of series", ["A", "B", "A"])

    found = find_studies(root)

    assert {study.study_id.split("/")[1]: study.group for study in found.studies} == {"p0": "A", "p1": "B", "p2": "A"}
    check_patients("--studies x", found.named, [study.group or "" for study in found.studies], "files")


def test_a_patient_that_is_written_in_two_ways_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_cohort(tmp_path / "in", "a folder of series", ["Ab", "aB"])

    assert "groups 'Ab' and 'aB' differ only in blanks or case" in refused(root, capsys)


def test_what_named_the_patients_is_one_line(tmp_path: Path) -> None:
    root = write_cohort(tmp_path / "in", "a disc", ["A", "B", "A"])
    write_nifti(root, Exam("mts", "p9", 9, 0), lambda e, _: f"{e.label}/{e.patient}/s1", 0)

    found = find_studies(root)

    line = describe_patients(found.named, [study.group or "" for study in found.studies], "files")
    assert line == "3 patients (studies named 3 by PatientID, 1 by folder)"


def test_a_manifest_wins_over_files_and_its_patients_are_those_of_the_others() -> None:
    given = Named("a", ("ANON",), None, "a", given="7")

    assert group_studies([given, Named("b", ("ANON",), None, "b")], "files") == ["7", "ANON"]
    check_patients("--studies x", [given, Named("b", ("ANON",), "p2", "b")], ["7", "ANON"], "files")


def test_a_study_without_patient_id_is_no_way_around_the_refusal() -> None:
    named = [Named("a", ("X",), "p1", "a"), Named("b", ("X",), "p2", "b"), Named("c", (), "p3", "c")]

    with pytest.raises(UsageError, match="tells no patients apart"):
        check_patients("--studies x", named, group_studies(named, "files"), "files")


def test_folders_whose_studies_name_several_patients_are_said(tmp_path: Path) -> None:
    for exam, patient in enumerate(("A", "B")):
        write_dicom(tmp_path, Exam("mts", "p1", 1, exam), DICOM["a folder of series"], 0, random.Random(exam), patient)
    write_cohort(tmp_path, "a disc", ["C", "D"])

    found = find_studies(tmp_path)

    line = describe_patients(found.named, [study.group or "" for study in found.studies], "files")
    assert line == (
        "4 patients (studies named 4 by PatientID); PatientIDs differ within mts/p1 (A, B), and are taken for several"
        " patients"
    )
