import io
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers.volume_files import noise, write

from histo.errors import ImageError
from histo.volume_file import read_header, read_volume, write_volume


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", noise(1, (3, 5, 8, 6)), {"slices": 5})

    volume, facts = read_volume(path)

    np.testing.assert_array_equal(volume, noise(1, (3, 5, 8, 6)))
    assert facts == {"preparation": {"slices": 5}}
    assert read_header(path) == ((3, 5, 8, 6), facts)


def test_equal_volumes_give_equal_files() -> None:
    files = [io.BytesIO(), io.BytesIO()]

    for file in files:
        write_volume(file, noise(1), (5, 1, 1), {"a": 1})

    assert files[0].getvalue() == files[1].getvalue()


def test_nibabel_sees_ras_axes_and_the_spacing(tmp_path: Path) -> None:
    image = nib.load(write(tmp_path / "a.nii.gz", noise(1, (2, 4, 16, 8))))

    assert image.shape == (8, 16, 4, 2)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.header.get_zooms()[:3] == (1.0, 1.0, 5.0)
    np.testing.assert_array_equal(np.asarray(image.dataobj)[3, 2, 1], noise(1, (2, 4, 16, 8))[:, 1, 2, 3])


def test_a_file_of_others_with_one_series_is_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(noise(0, (6, 5, 4)), np.eye(4)), tmp_path / "a.nii")

    volume, facts = read_volume(tmp_path / "a.nii")

    np.testing.assert_array_equal(volume[0], noise(0, (6, 5, 4)).transpose())
    assert facts == {}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 4), np.float32), r"float32 \(4, 4, 4\); expected a prepared volume"),
        (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\); expected a prepared volume"),
        (np.zeros((4, 4, 4, 2, 2), np.uint8), r"uint8 \(4, 4, 4, 2, 2\); expected a prepared volume"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii.gz")

    with pytest.raises(ImageError, match=f"a.nii.gz: {message}"):
        read_volume(tmp_path / "a.nii.gz")


def test_scaled_values_are_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(noise(0, (4, 4, 4)), np.eye(4))
    image.header.set_slope_inter(2, 1)
    nib.save(image, tmp_path / "a.nii.gz")

    with pytest.raises(ImageError, match="scaled uint8"):
        read_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "text"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "a.nii.gz", noise(1))
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "header": data[:100], "text": b"no image"}[damage])

    with pytest.raises(ImageError, match=r"a\.nii\.gz: not "):
        read_volume(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_header(tmp_path / "a.nii.gz")
