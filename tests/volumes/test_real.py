"""Real studies, beside what nibabel, pydicom and dcm2niix say of them."""

import subprocess
import tarfile
from pathlib import Path

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom
import pytest
from scipy import ndimage

from histo.volumes.finding.studies import find_studies
from histo.volumes.preparation import list_series, prepare
from histo.volumes.series import Series
from histo.volumes.spec import PreparationSpec

pytestmark = [pytest.mark.realdata, pytest.mark.slow]
SPEC = PreparationSpec(series_count=1, size_px=128, intensity="hounsfield")
NIFTI = ("ct_cropped", "example_ct", "example_ct_sm")
DICOM = ("CRLM-CT-1004", "CRLM-CT-1006", "dicom-series")


@pytest.fixture(scope="session")
def dicom(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the DICOM studies, two of them unpacked."""
    root = tmp_path_factory.mktemp("crlm")
    for archive in (shared / "volumes" / "crlm-ct").iterdir():
        with tarfile.open(archive) as file:
            file.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 or newer has it
            file.extractall(root)
    unpacked = {name: root / name / "image" for name in DICOM[:2]}
    return unpacked | {"dicom-series": shared / "volumes" / "dicom-series"}


def read(folder: Path) -> Series:
    (found,), _ = list_series("study", sorted(folder.iterdir()), SPEC)
    return found.read("study")


@pytest.mark.parametrize("name", NIFTI)
def test_every_voxel_of_a_nifti_file_lies_where_nibabel_places_it(shared: Path, name: str) -> None:
    path = shared / "volumes" / "nifti" / f"{name}.nii.gz"
    canonical = nib.as_closest_canonical(nib.load(path))
    values_DHW = canonical.get_fdata().transpose()  # slices upwards, rows forwards, columns rightwards
    spacing = canonical.header.get_zooms()[::-1]
    spec = PreparationSpec(
        series_count=1,
        slices=len(values_DHW),
        size_px=128,
        intensity="hounsfield",
        hounsfield_centre=0,
        hounsfield_width=2000,
    )

    prepared = prepare(name, [path], spec)

    assert prepared.columns["spacing_mm"] == [pytest.approx(spacing, rel=1e-5)]
    assert prepared.spacing_mm[0] == pytest.approx(spacing[0], rel=1e-5)
    for plane, source in zip(prepared.volume_SDHW[0], values_DHW, strict=True):
        grey = np.clip((framed(source, 128) + 1000) * 255 / 2000, 0, 255)
        assert np.abs(plane - grey).max() <= 0.51


def framed(plane: np.ndarray, edge: int) -> np.ndarray:
    """Grow a slice of square pixels to an edge, linearly, and centre it on a square of air."""
    height, width = (round(edge * extent / max(plane.shape)) for extent in plane.shape)
    factors = height / plane.shape[0], width / plane.shape[1]
    grown = ndimage.zoom(plane, factors, order=1, mode="nearest", grid_mode=True)
    above, left = (edge - height) // 2, (edge - width) // 2
    return np.pad(grown, ((above, edge - height - above), (left, edge - width - left)), constant_values=-1000)


@pytest.mark.parametrize("name", DICOM)
def test_dicom_slices_have_the_values_and_places_that_pydicom_gives(dicom: dict[str, Path], name: str) -> None:
    series = read(dicom[name])

    slices = [pydicom.dcmread(path) for path in dicom[name].iterdir()]
    assert len(slices) == len(series.values_DHW)
    to_mm = series.affine
    for number in (0, 7, len(slices) - 1):
        first = to_mm @ (0, 0, number, 1)
        (same,) = [s for s in slices if np.allclose(ras(s.ImagePositionPatient), first[:3], atol=1e-3)]
        np.testing.assert_array_equal(
            series.values_DHW[number], same.pixel_array * float(same.RescaleSlope) + float(same.RescaleIntercept)
        )
    right, down = np.reshape(slices[0].ImageOrientationPatient, (2, 3)).astype(float)
    row_mm, column_mm = map(float, slices[0].PixelSpacing)
    np.testing.assert_allclose(to_mm[:3, 0], ras(right * column_mm), atol=1e-6)
    np.testing.assert_allclose(to_mm[:3, 1], ras(down * row_mm), atol=1e-6)


def ras(lps: np.ndarray) -> np.ndarray:
    return np.array(lps, float) * (-1, -1, 1)


@pytest.mark.parametrize("name", DICOM)
def test_dicom_and_the_nifti_that_dcm2niix_makes_of_it_give_equal_volumes(
    dicom: dict[str, Path], name: str, tmp_path: Path
) -> None:
    subprocess.run(
        [dcm2niix.bin, "-z", "n", "-f", "made", "-o", tmp_path, dicom[name]], check=True, capture_output=True
    )

    from_dicom = prepare("a", sorted(dicom[name].iterdir()), SPEC)
    from_nifti = prepare("b", [tmp_path / "made.nii"], SPEC)

    np.testing.assert_array_equal(from_dicom.volume_SDHW, from_nifti.volume_SDHW)
    assert from_dicom.volume_SDHW.std() > 20
    np.testing.assert_allclose(from_dicom.spacing_mm, from_nifti.spacing_mm, rtol=1e-5)


@pytest.mark.parametrize("intensity", ["percentile", "zscore", "hounsfield"])
def test_every_study_is_prepared_by_every_rule(dicom: dict[str, Path], shared: Path, intensity: str) -> None:
    spec = PreparationSpec(series_count=1, size_px=64, slices=8, intensity=intensity)
    folders = [study for root in dicom.values() for study in find_studies(root).studies]
    files = find_studies(shared / "volumes" / "nifti", study_is="file").studies

    prepared = [prepare(study.study_id, study.files, spec) for study in (*folders, *files)]

    assert len(prepared) == len(DICOM) + len(NIFTI)
    for one in prepared:
        assert one.volume_SDHW.shape == (1, 8, 64, 64)
        assert one.volume_SDHW.std(axis=(2, 3)).min() > 10, "every slice shows something"
