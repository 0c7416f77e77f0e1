"""Fabricated studies: one head in three series, in either kind of file; nothing but lesions tells the classes apart."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from scipy.ndimage import map_coordinates

from fabricated.heads import SERIES, Grid, Waves, rotation
from fabricated.studies import StudyPlan, StudyTruth, fabricate_studies, fabricate_study, plan_studies

Array = npt.NDArray[np.float64]
SMALL_PX = 48
PLAN = StudyPlan("P001", "mts", "nifti", (7, 0))


@dataclass(frozen=True)
class Read:
    """A series as a file reader that is not ours places it: values `(i, j, k)`, and the affine to mm, RAS."""

    values: Array
    affine: Array

    def at(self, places: Array) -> Array:
        """Return the values at places in mm, RAS, `(n, 3)`, between voxels linearly."""
        index = np.linalg.solve(self.affine[:3, :3], (places - self.affine[:3, 3]).T)
        values: Array = map_coordinates(self.values, index, order=1, mode="constant", cval=np.nan)
        return values


def read_nifti(folder: Path) -> dict[str, Read]:
    images = {path.name.removesuffix(".nii.gz"): nib.load(path) for path in folder.glob("*.nii.gz")}
    return {name: Read(image.get_fdata(), image.affine) for name, image in images.items()}


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def read_dicom(folder: Path) -> dict[str, Read]:
    series: dict[str, list[pydicom.Dataset]] = {}
    for path in files_of(folder):
        dataset = pydicom.dcmread(path)
        series.setdefault(dataset.SeriesDescription.lower(), []).append(dataset)
    return {name: assemble(slices) for name, slices in series.items()}


def assemble(slices: list[pydicom.Dataset]) -> Read:
    right, down = np.reshape(slices[0].ImageOrientationPatient, (2, 3)).astype(float)
    normal = np.cross(right, down)
    slices = sorted(slices, key=lambda dataset: float(normal @ np.array(dataset.ImagePositionPatient)))
    first, last = (np.array(dataset.ImagePositionPatient, float) for dataset in (slices[0], slices[-1]))
    row_mm, column_mm = slices[0].PixelSpacing
    affine = np.eye(4)
    affine[:3] = np.stack([right * column_mm, down * row_mm, (last - first) / (len(slices) - 1), first], axis=1)
    values = [s.pixel_array * float(s.get("RescaleSlope", 1)) + float(s.get("RescaleIntercept", 0)) for s in slices]
    return Read(np.stack(values).astype(float).transpose(), np.diag([-1, -1, 1, 1]) @ affine)


def read(folder: Path, truth: StudyTruth) -> dict[str, Read]:
    place = folder / truth.study_id
    return read_dicom(place) if truth.form == "dicom" else read_nifti(place)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_of(folder)}


def in_ball(radius_mm: float, count: int = 200) -> Array:
    points = np.random.default_rng(0).standard_normal((count, 3))
    return radius_mm * points / np.linalg.norm(points, axis=1, keepdims=True)


def test_a_wave_on_an_oblique_grid_is_the_wave_at_the_grids_places() -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation(0.2, -0.4, 1.1) * (2, -3, 5)
    affine[:3, 3] = (7, -20, 4)
    waves = Waves.drawn(np.random.default_rng(0), (20, 60), 5)

    field = waves.on(Grid(affine, (4, 6, 3)))

    k, j, i = 3, 5, 2
    place = (affine @ (i, j, k, 1))[:3]
    assert field[k, j, i] == pytest.approx(
        np.sqrt(2 / 5) * np.cos(waves.vectors @ place + waves.phases).sum(), abs=1e-4
    )


@pytest.mark.slow
def test_a_seed_fixes_every_byte_and_more_studies_leave_the_first_as_they_are(tmp_path: Path) -> None:
    for name, count, seed in (("few", 2, 3), ("more", 3, 3), ("other", 2, 4)):
        fabricate_studies(tmp_path / name, count, seed, SMALL_PX)

    few, more, other = (contents(tmp_path / name) for name in ("few", "more", "other"))
    assert few == {name: content for name, content in more.items() if "P003" not in name}
    assert set(few.values()).isdisjoint(other.values())


def test_classes_and_kinds_of_files_are_balanced_together() -> None:
    plans = plan_studies(64, seed=1)

    for label, form in (("mts", "nifti"), ("mts", "dicom"), ("norma", "nifti"), ("norma", "dicom")):
        assert sum(plan.label == label and plan.form == form for plan in plans) == 16
    assert len({plan.label for plan in plans[::2]}) == 2
    assert len({(a.label, b.label) for a, b in pairwise(plans)}) == 4


@pytest.mark.parametrize("form", ["nifti", "dicom"])
def test_only_lesions_tell_the_classes_apart(form: str, tmp_path: Path) -> None:
    plan = replace(PLAN, form=form)

    fabricate_study(tmp_path / "none", replace(plan, label="norma"), SMALL_PX)
    fabricate_study(tmp_path / "unseen", plan, SMALL_PX, lesion_contrast=0)

    assert contents(tmp_path / "none" / "norma") == contents(tmp_path / "unseen" / "mts")


@pytest.mark.parametrize("number", range(2))
def test_a_study_is_the_same_in_both_kinds_of_files(number: int, tmp_path: Path) -> None:
    plan = replace(PLAN, key=(11, number))

    nifti = read(tmp_path / "a", fabricate_study(tmp_path / "a", plan, SMALL_PX))
    dicom = read(tmp_path / "b", fabricate_study(tmp_path / "b", replace(plan, form="dicom"), SMALL_PX))

    places = np.random.default_rng(0).uniform(-50, 50, (500, 3))
    for name in SERIES:
        one, other = nifti[name].at(places), dicom[name].at(places)
        assert np.array_equal(np.isnan(one), np.isnan(other))
        assert np.nanmax(abs(one - other)) < 4  # values are rounded to whole steps of at most 3.6
        assert np.nanstd(one) > 20


@pytest.mark.parametrize("number", range(2))
def test_series_show_the_same_head(number: int, tmp_path: Path) -> None:
    truth = fabricate_study(tmp_path, replace(PLAN, label="norma", key=(12, number)), SMALL_PX)

    series = read(tmp_path, truth)
    places = np.random.default_rng(0).uniform((-80, -100, -30), (80, 100, 45), (4000, 3))
    t1, t2, flair = (is_tissue(series[name].at(places)) for name in ("t1", "t2", "flair"))
    turned = is_tissue(series["flair"].at(places[:, [1, 0, 2]]))
    assert shared(t1, t2) > 0.9
    assert shared(t2, flair) > 0.9
    assert shared(t2, turned) < shared(t2, flair) - 0.05


def is_tissue(values: Array) -> npt.NDArray[np.bool_]:
    return values > 0.2 * np.nanpercentile(values, 95)


def shared(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("form", ["nifti", "dicom"])
@pytest.mark.parametrize("number", range(2))
def test_lesions_lie_where_the_truth_says(number: int, form: str, tmp_path: Path) -> None:
    plan = replace(PLAN, form=form, key=(13, number))
    truth = fabricate_study(tmp_path / "seen", plan)
    without = fabricate_study(tmp_path / "unseen", plan, lesion_contrast=0)

    seen, unseen = read(tmp_path / "seen", truth), read(tmp_path / "unseen", without)
    assert 1 <= len(truth.lesions) <= 5
    for lesion in truth.lesions:
        assert all(3 <= radius <= 10 for radius in lesion.radii_mm)
        centre = np.array([lesion.centre_mm])
        for name in ("t2", "flair"):
            assert seen[name].at(centre) > 1.15 * unseen[name].at(centre)
    index = np.stack(
        np.unravel_index(np.argsort(-difference(seen["flair"], unseen["flair"]), axis=None), seen["flair"].values.shape)
    )
    brightest = (seen["flair"].affine[:3, :3] @ index[:, :30] + seen["flair"].affine[:3, 3:]).T
    for place in brightest:
        assert any(
            np.linalg.norm(place - lesion.centre_mm) < max(lesion.radii_mm) + lesion.swelling_mm + 4
            for lesion in truth.lesions
        )


def difference(one: Read, other: Read) -> Array:
    return one.values - other.values


def test_a_class_without_lesions_has_none(tmp_path: Path) -> None:
    truths = fabricate_studies(tmp_path, 4, in_plane_px=24)

    assert all(bool(truth.lesions) == (truth.label == "mts") for truth in truths)


def test_files_of_a_dicom_study_say_one_patient_one_study_and_three_series(tmp_path: Path) -> None:
    truth = fabricate_study(tmp_path, replace(PLAN, form="dicom"), in_plane_px=24)

    datasets = [pydicom.dcmread(path) for path in files_of(tmp_path / truth.study_id)]

    assert {dataset.PatientID for dataset in datasets} == {"P001"}
    assert len({dataset.StudyInstanceUID for dataset in datasets}) == 1
    assert len({dataset.SeriesInstanceUID for dataset in datasets}) == 3
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == len(datasets)
    assert {dataset.SeriesDescription for dataset in datasets} == {"T1", "T2", "FLAIR"}


@pytest.mark.slow
def test_series_are_taken_in_many_ways(tmp_path: Path) -> None:
    truths = fabricate_studies(tmp_path, 16, in_plane_px=24)

    found = [series for truth in truths for series in read(tmp_path, truth).values()]
    codes = {"".join(nib.aff2axcodes(series.affine)) for series in found}
    counts = {count for series in found for count in series.values.shape if count != 24}
    oblique = [abs(series.affine[:3, :3]) / np.linalg.norm(series.affine[:3, :3], axis=0) for series in found]
    assert len(codes) > 12
    assert len(counts) > 8
    assert 0.1 < np.mean([(matrix.max(axis=0) < 0.9999).any() for matrix in oblique]) < 0.8
