from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from helpers import fake_dicom as fake
from pydantic import ValidationError

from histo.errors import Cause, StudyError
from histo.volumes.preparation import ALGORITHM, prepare
from histo.volumes.spec import PreparationSpec

SHAPE = (6, 16, 16)
SPEC = PreparationSpec(slices=4, size_px=16)
SERIES = ("adc", "flair", "t1")


def write(folder: Path, series: str, values_DHW: np.ndarray | None = None, affine: Any = None) -> Path:
    values = fake.grid(SHAPE, (3, 2, 2)).astype(np.int32) if values_DHW is None else values_DHW
    return fake.write_nifti(
        folder / f"{series}.nii.gz", values, fake.ras((3, 2, 2)) if affine is None else affine, values.dtype
    )


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three series, told apart by their values; each a ramp from its own corner."""
    folder = tmp_path / "p1"
    ramp = fake.grid(SHAPE, (3, 2, 2)).astype(np.int32)
    for series, values in zip(SERIES, (ramp, ramp.max() - ramp, ramp % 997), strict=True):
        write(folder, series, values)
    return folder


def made(folder: Path, spec: PreparationSpec = SPEC, **changes: Any) -> Any:
    files = sorted(folder.iterdir())
    return prepare("p1", files, spec.model_copy(update=changes))


def fault(folder: Path, spec: PreparationSpec = SPEC, **changes: Any) -> StudyError:
    with pytest.raises(StudyError) as caught:
        made(folder, spec, **changes)
    return caught.value


def test_a_study_is_one_array_and_says_what_it_was_made_of(study: Path) -> None:
    prepared = made(study)

    assert (prepared.volume_SDHW.shape, prepared.volume_SDHW.dtype) == ((3, 4, 16, 16), np.uint8)
    assert prepared.spacing_mm == (4.5, 2, 2)
    assert prepared.facts["series"] == list(SERIES)
    assert prepared.facts["preparation"] == SPEC.model_dump(mode="json") | {"algorithm": ALGORITHM}
    assert prepared.columns == {
        "format": "nifti",
        "n_series": 3,
        "series": list(SERIES),
        "n_slices": [6, 6, 6],
        "spacing_mm": [[3, 2, 2]] * 3,
        "notes": None,
    }


def test_series_come_in_the_order_that_is_asked_for(study: Path) -> None:
    by_name = dict(zip(SERIES, made(study).volume_SDHW, strict=True))

    prepared = made(study, series=["T1", "fl*", "adc"])

    assert prepared.columns["series"] == ["t1", "flair", "adc"]
    assert np.array_equal(prepared.volume_SDHW, np.stack([by_name[name] for name in ("t1", "flair", "adc")]))


def test_few_of_many_series_are_taken_by_name(study: Path) -> None:
    prepared = made(study, series=["flair"])

    assert prepared.volume_SDHW.shape == (1, 4, 16, 16)
    assert np.array_equal(prepared.volume_SDHW[0], made(study).volume_SDHW[1])


def test_the_slices_are_those_of_the_rule(study: Path) -> None:
    whole = made(study, slices=6, intensity="hounsfield", hounsfield_centre=5000, hounsfield_width=10000).volume_SDHW

    some = made(study, slices=4, intensity="hounsfield", hounsfield_centre=5000, hounsfield_width=10000).volume_SDHW
    more = made(study, slices=9, fill="pad", intensity="hounsfield", hounsfield_centre=5000, hounsfield_width=10000)

    assert np.array_equal(some, whole[:, [0, 2, 3, 5]])
    assert np.array_equal(more.volume_SDHW[:, 1:7], whole)
    assert not more.volume_SDHW[:, [0, 7, 8]].any()


def test_a_study_is_the_same_as_dicom_and_as_nifti(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"series_count": 1})
    fake.save(tmp_path / "dicom", fake.planes(fake.SAGITTAL))
    shape, spacing = (fake.SHAPE[1], fake.SHAPE[2], fake.SHAPE[0]), (2, 1, 3)
    fake.write_nifti(tmp_path / "nifti" / "Thorax.nii", fake.grid(shape, spacing), fake.ras(spacing))

    one, other = made(tmp_path / "dicom", spec), made(tmp_path / "nifti", spec)

    assert np.array_equal(one.volume_SDHW, other.volume_SDHW)
    assert one.volume_SDHW.any()
    assert (one.spacing_mm, one.facts) == (other.spacing_mm, other.facts)
    assert (one.columns["format"], other.columns["format"]) == ("dicom", "nifti")


def test_dicom_and_nifti_in_one_study_are_mixed(tmp_path: Path) -> None:
    fake.save(tmp_path / "p1", fake.planes())
    write(tmp_path / "p1", "flair")

    prepared = made(tmp_path / "p1", series_count=2)

    assert prepared.columns["format"] == "mixed"
    assert prepared.columns["series"] == ["Thorax", "flair"]


def test_a_file_of_four_dimensions_gives_its_series(tmp_path: Path) -> None:
    values = np.stack([fake.grid(SHAPE, (3, 2, 2)) % number for number in (100, 37, 61)]).astype(np.int16)
    (tmp_path / "p1").mkdir()
    nib.Nifti1Image(values.transpose(), fake.ras((3, 2, 2))).to_filename(tmp_path / "p1" / "mr.nii.gz")
    for number, series in enumerate(values):
        write(tmp_path / "apart", f"mr{number}", series)

    assert made(tmp_path / "p1").columns["series"] == ["mr#0", "mr#1", "mr#2"]
    assert np.array_equal(made(tmp_path / "p1").volume_SDHW, made(tmp_path / "apart").volume_SDHW)


def test_series_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        write(tmp_path / "p1" / folder, "flair")
    files = sorted((tmp_path / "p1").rglob("*.nii.gz"))

    names = prepare("p1", files, SPEC).columns["series"]

    assert names == ["a/flair", "b/flair", "c/flair"]


NOTHING = fake.grid(SHAPE, (3, 2, 2)) * 0.0
SHEARED = np.array([[2.0, 0, 0.5, 0], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("values", "affine", "changes", "cause", "said"),
    [
        (NOTHING + np.nan, None, {}, Cause.NOT_FINITE, "series t1: 1536 values are NaN or infinite"),
        (NOTHING + 70000, None, {"intensity": "hounsfield"}, Cause.OVERFLOW, "16 bits have wrapped around"),
        (NOTHING, SHEARED, {}, Cause.GANTRY_TILT, "sheared by 9.5 degrees"),
        (NOTHING[:1], None, {}, Cause.ONE_SLICE, "one slice (1 x 16 x 16)"),
        (None, None, {"series": ["t1", "t2"]}, Cause.MISSING_SERIES, "no series 't2' among 3 series"),
        (None, None, {"series": ["*a*"]}, Cause.AMBIGUOUS_SERIES, "matches 2 series ('adc', 'flair')"),
        (None, None, {"series": ["fl*", "flair"]}, Cause.AMBIGUOUS_SERIES, "mean 'flair'; make them narrower"),
        (None, None, {"series_count": 4}, Cause.MISSING_SERIES, "expected 4; name those to use"),
        (None, None, {"series_count": 2}, Cause.AMBIGUOUS_SERIES, "--study-is file"),
    ],
)
def test_a_fault_has_its_cause_and_says_what_and_where(
    study: Path, values: Any, affine: Any, changes: dict[str, Any], cause: Cause, said: str
) -> None:
    if values is not None:
        write(study, "t1", values.astype(np.float32), affine)

    error = fault(study, **changes)

    assert error.cause is cause
    assert str(error).startswith("p1: ")
    assert said in str(error)


def test_a_fault_of_a_series_that_is_not_asked_for_is_none(study: Path) -> None:
    write(study, "t1", (NOTHING + np.nan).astype(np.float32))

    prepared = made(study, series=["adc", "flair"])

    assert prepared.volume_SDHW.shape == (2, 4, 16, 16)
    assert prepared.columns["notes"] == "series not asked for: t1"


def test_what_is_odd_and_can_be_used_is_noted(study: Path) -> None:
    write(study, "adc", NOTHING.astype(np.float32))
    write(study, "flair", affine=np.diag([8.0, 2, 3, 1]))
    (study / "report.txt").write_text("x")

    notes = made(study).columns["notes"].split("; ")

    assert notes[:2] == ["left out: 1 .txt files", "adc: constant: all black"]
    assert notes[2].startswith("flair: coarse left-right (8 mm")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"percentile_low": 60, "percentile_high": 40}, "percentile_low 60.0 is not below percentile_high 40.0"),
        ({"choice": "outer-middle", "slices": 3}, "choice outer-middle needs 4 slices or more, not 3"),
        ({"slices": 0}, "greater than or equal to 1"),
        ({"series": [""]}, "at least 1 character"),
        ({"slcies": 3}, "slcies"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PreparationSpec(**changes)

    assert said in str(caught.value)
