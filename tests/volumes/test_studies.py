import csv
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import fake_dicom as fake
from helpers.trees import There, links, plant, tie, trees
from hypothesis import given, settings

from histo.errors import UsageError
from histo.volumes.finding.studies import FoundStudy, find_studies


def nifti(*paths: Path) -> None:
    """Files that are NIfTI by their name; nothing here reads them."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"voxels")


def dicom(folder: Path, study: str = "1.2.1", series: str = "1.2.1.1", patient: str = "P1") -> list[Path]:
    slices = fake.planes()
    for dataset in slices:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.PatientID = study, series, patient
    return fake.save(folder, slices)


def found(root: Path, **options: Any) -> dict[str, FoundStudy]:
    return {study.study_id: study for study in find_studies(root, **options).studies}


def said(study: FoundStudy) -> tuple[str | None, str | None, str | None]:
    return study.label, study.group, study.split


@pytest.mark.parametrize(
    ("place", "label", "group", "split"),
    [
        ("s1", None, "s1", None),
        ("mts/s1", "mts", "s1", None),
        ("mts/p1/s1", "mts", "p1", None),
        ("mts/p1/2020/s1", "mts", "p1", None),
        ("train/s1", None, "s1", "train"),
        ("train/mts/s1", "mts", "s1", "train"),
        ("val/norma/p1/s1", "norma", "p1", "val"),
        ("test/norma/p1/s1", "norma", "p1", "test"),
        ("mts/train/s1", "mts", "train", None),
    ],
)
def test_the_path_says_split_class_and_patient(
    tmp_path: Path, place: str, label: str | None, group: str, split: str | None
) -> None:
    nifti(tmp_path / place / "flair.nii.gz", tmp_path / "other" / "x" / "y" / "flair.nii")

    assert said(found(tmp_path)[place]) == (label, group, split)


def test_a_folder_is_a_class_only_if_the_classes_name_it(tmp_path: Path) -> None:
    nifti(tmp_path / "mts" / "p1" / "s1" / "a.nii", tmp_path / "p2" / "s2" / "a.nii")

    studies = found(tmp_path, classes=["mts", "norma"])

    assert {name: said(study) for name, study in studies.items()} == {
        "mts/p1/s1": ("mts", "p1", None),
        "p2/s2": (None, "p2", None),
    }


def test_dicom_names_the_patient_whatever_the_path_says(tmp_path: Path) -> None:
    dicom(tmp_path / "mts" / "s1", patient="ANON-7")
    dicom(tmp_path / "mts" / "p2" / "s2", study="1.2.2", patient="ANON-8")
    dicom(tmp_path / "mts" / "s3", study="1.2.3", patient="")

    groups = {name: study.group for name, study in found(tmp_path).items()}

    assert groups == {"mts/s1": "ANON-7", "mts/p2/s2": "ANON-8", "mts/s3": "s3"}


def test_sibling_folders_of_one_examination_are_one_study(tmp_path: Path) -> None:
    files = dicom(tmp_path / "mts" / "p1" / "t1", series="1.2.1.1") + dicom(
        tmp_path / "mts" / "p1" / "t2", series="1.2.1.2"
    )
    dicom(tmp_path / "mts" / "p2" / "t1", study="1.2.2", patient="P2")

    studies = found(tmp_path)

    assert sorted(studies) == ["mts/p1", "mts/p2/t1"]
    assert studies["mts/p1"].files == tuple(files)


def test_two_examinations_of_one_patient_are_two_studies(tmp_path: Path) -> None:
    for study in ("1", "2"):
        for series in ("1", "2"):
            dicom(tmp_path / "mts" / "p1" / f"{study}-{series}", study=f"1.2.{study}", series=f"1.2.{study}.{series}")

    studies = found(tmp_path)

    assert sorted(studies) == ["mts/p1/1-1", "mts/p1/2-1"]
    assert [len(study.files) for study in studies.values()] == [10, 10]
    assert [study.group for study in studies.values()] == ["P1", "P1"]


def test_a_folder_of_other_files_is_a_study_that_will_fail(tmp_path: Path) -> None:
    nifti(tmp_path / "mts" / "s1" / "a.nii")
    (tmp_path / "mts" / "s2").mkdir()
    (tmp_path / "mts" / "s2" / "report.pdf").write_bytes(b"%PDF")
    (tmp_path / "mts" / "s3").mkdir()

    studies = found(tmp_path)

    assert {name: len(study.files) for name, study in studies.items()} == {"mts/s1": 1, "mts/s2": 1, "mts/s3": 0}


def test_files_outside_of_studies_are_counted(tmp_path: Path) -> None:
    nifti(tmp_path / "mts" / "s1" / "a.nii")
    for name in ("labels.csv", "notes.TXT", "more.txt", "LICENSE", ".hidden"):
        (tmp_path / name).write_text("x")

    assert find_studies(tmp_path).others == {".csv": 1, ".txt": 2, "hidden": 1, "no extension": 1}


def test_hidden_things_are_left_alone_and_linked_folders_followed(tmp_path: Path) -> None:
    root = tmp_path / "studies"
    nifti(
        root / "s1" / "a.nii",
        root / "s1" / "._a.nii",
        root / ".cache" / "s0" / "a.nii",
        root / "__MACOSX" / "s1" / "a.nii",
        tmp_path / "far" / "s9" / "a.nii",
    )
    (root / "again").symlink_to(root / "s1", target_is_directory=True)
    (root / "link").symlink_to(tmp_path / "far" / "s9", target_is_directory=True)

    result = find_studies(root)

    assert {study.study_id: study.files for study in result.studies} == {
        "link": (root / "link" / "a.nii",),
        "s1": (root / "s1" / "a.nii",),
    }
    assert (result.linked, result.others) == (1, {"__MACOSX": 1, "hidden": 2, "linked folder met before": 1})


def test_labels_of_a_manifest_are_written_in_one_way_and_whole_numbers_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("study,label\ns1,TUM\ns2,tum\n")
    (tmp_path / "b.csv").write_text("study,label\ns1,0.0\ns2,1.0\ns3,\n")
    pq.write_table(pa.table({"study": ["s1", "s2"], "label": [0.0, 1.0]}), tmp_path / "c.parquet")

    with pytest.raises(UsageError, match="'TUM' and 'tum' differ only in blanks or case"):
        found(tmp_path / "a.csv")
    labels = [[study.label for study in found(tmp_path / name).values()] for name in ("b.csv", "c.parquet")]

    assert labels == [["0", "1", None], ["0", "1"]]


def test_patients_of_a_manifest_are_written_in_one_way_and_whole_numbers_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("study,group\ns1,p1\ns2,p1 \n")
    (tmp_path / "b.csv").write_text("study,group\ns1,7.0\ns2,\n")
    pq.write_table(pa.table({"study": ["s1", "s2"], "group": [7.0, None]}), tmp_path / "c.parquet")

    with pytest.raises(UsageError, match="groups 'p1' and 'p1 ' differ only in blanks or case"):
        found(tmp_path / "a.csv")
    groups = [[study.group for study in found(tmp_path / name).values()] for name in ("b.csv", "c.parquet")]

    assert groups[0][0] == groups[1][0] == "7"


def test_a_manifest_of_studies_with_semicolons_is_one_line_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("study;label\ns1;TUM\n")

    with pytest.raises(UsageError, match="its columns are separated by semicolons; separate them by commas"):
        found(tmp_path / "a.csv")


def test_class_folders_of_studies_are_written_in_one_way(tmp_path: Path) -> None:
    nifti(tmp_path / "MTS" / "s1" / "a.nii", tmp_path / "mts" / "s2" / "a.nii")

    with pytest.raises(UsageError, match="'MTS' and 'mts' differ only in blanks or case"):
        found(tmp_path)


@settings(max_examples=50)
@given(trees, trees, links)
def test_of_any_tree_every_file_is_in_one_study_or_counted(
    tree: dict[str, Any], beside: dict[str, Any], wanted: list[tuple[int, str, int]]
) -> None:
    with TemporaryDirectory() as place:
        root = Path(place) / "root"
        plant(root, tree | {"always": {"a.nii": None}})
        plant(Path(place) / "beside", beside)
        tie(Path(place), wanted)

        result, there = find_studies(root), There().look(str(root))

        taken = [file for study in result.studies for file in study.files]
        doors = there.doors - (len(there.folders) - 1)
        assert len({os.path.realpath(file) for file in taken}) == len(taken)
        assert len(taken) + sum(result.others.values()) == len(there.files) + there.passed_over + doors


def test_every_nifti_file_may_be_a_study(tmp_path: Path) -> None:
    nifti(tmp_path / "mts" / "a.nii.gz", tmp_path / "mts" / "b.nii", tmp_path / "norma" / "p2" / "c.nii.gz")
    dicom(tmp_path / "mts" / "d")

    result = find_studies(tmp_path, study_is="file")

    assert {study.study_id: said(study) for study in result.studies} == {
        "mts/a.nii.gz": ("mts", "a", None),
        "mts/b.nii": ("mts", "b", None),
        "norma/p2/c.nii.gz": ("norma", "p2", None),
    }
    assert sum(result.others.values()) == len(fake.planes())


def test_one_file_is_one_study(tmp_path: Path) -> None:
    nifti(tmp_path / "flair.nii.gz")

    (study,) = find_studies(tmp_path / "flair.nii.gz").studies

    assert (study.study_id, study.files, study.group) == ("flair.nii.gz", (tmp_path / "flair.nii.gz",), "flair")


def test_a_root_that_is_itself_a_study_is_called_by_its_name(tmp_path: Path) -> None:
    nifti(tmp_path / "patient 7" / "flair.nii.gz")

    assert list(found(tmp_path / "patient 7")) == ["patient 7"]


def test_names_that_are_not_text_become_text(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/mts/caf\xe9"))
    nifti(folder / "a.nii")

    (study,) = find_studies(tmp_path).studies

    assert study.study_id == "mts/caf%E9"
    assert study.files == (folder / "a.nii",)
    study.uri.encode("utf-8")


def write_manifest(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_manifest_lists_folders_and_files(tmp_path: Path, ending: str) -> None:
    nifti(tmp_path / "scans" / "007" / "deep" / "a.nii", tmp_path / "scans" / "b.nii.gz")
    dicom(tmp_path / "scans" / "c", patient="ANON-9")
    rows = [
        {"study": "scans/007", "study_id": "first", "label": "mts", "group": "p1", "split": "train"},
        {"study": "scans/b.nii.gz", "study_id": "", "label": "norma", "group": "", "split": ""},
        {"study": "scans/c", "study_id": "", "label": "", "group": "", "split": "test"},
        {"study": "scans/gone", "study_id": "", "label": "mts", "group": "p4", "split": ""},
    ]

    studies = found(write_manifest(tmp_path / f"list.{ending}", rows))

    assert {name: said(study) for name, study in studies.items()} == {
        "first": ("mts", "p1", "train"),
        "scans/b.nii.gz": ("norma", "scans/b.nii.gz", None),
        "scans/c": (None, "ANON-9", "test"),
        "scans/gone": ("mts", "p4", None),
    }
    assert studies["first"].files == (tmp_path / "scans" / "007" / "deep" / "a.nii",)
    assert studies["scans/gone"].files == (tmp_path / "scans" / "gone",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"path": "a"}], "no column study (a folder or a file); its columns: path"),
        ([{"Study": "a"}], "column 'Study'; name it study"),
        ([{"study": "a", "split": "training"}], "row 1 has split 'training'; expected train, val, test, or nothing"),
        ([{"study": "a", "label": "x"}, {"study": "", "label": "y"}], "row 2 names no study"),
        ([{"study": "a"}, {"study": "b"}, {"study": "a"}], "rows 1 and 3 are the same study, a"),
    ],
)
def test_a_wrong_manifest_says_where(tmp_path: Path, rows: list[dict[str, str]], message: str) -> None:
    with pytest.raises(UsageError, match=r"^--studies ") as caught:
        find_studies(write_manifest(tmp_path / "list.csv", rows))

    assert message in str(caught.value)


def test_a_class_that_a_manifest_should_not_have_is_an_error(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "list.csv", [{"study": "a", "label": "metastasis"}])

    with pytest.raises(UsageError, match="study a has label 'metastasis'; expected one of mts, norma"):
        find_studies(manifest, classes=["mts", "norma"])


def test_without_studies_it_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")

    with pytest.raises(UsageError, match=r"no studies in it; it holds 1 \.txt$"):
        find_studies(tmp_path)
    dicom(tmp_path / "s1")
    with pytest.raises(UsageError, match=r"give --study-is folder$"):
        find_studies(tmp_path, study_is="file")
    with pytest.raises(UsageError, match="no such file or folder"):
        find_studies(tmp_path / "missing")
