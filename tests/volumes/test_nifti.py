import gzip
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from helpers import fake_dicom as fake

from histo.errors import Cause, StudyError
from histo.volumes.formats.nifti import list_nifti
from histo.volumes.geometry.axes import Oriented, orient

VALUES = fake.grid(fake.SHAPE, fake.SPACING_MM)
"""`(k, j, i)` of RAS."""


def read(path: Path, index: int = 0, allow_no_orientation: bool = False) -> Oriented:
    series = list_nifti("s1", path, allow_no_orientation)[index].read("s1: series t1")
    return orient(series.values_DHW, series.affine, "s1")


def fault(path: Path) -> StudyError:
    with pytest.raises(StudyError) as caught:
        read(path)
    return caught.value


def save(path: Path, image: Any) -> Path:
    image.to_filename(path)
    return path


def image(kind: Any = nib.Nifti1Image, dtype: Any = np.int16, affine: Any = None, **of_header: Any) -> Any:
    return kind(VALUES.transpose().astype(dtype), fake.ras() if affine is None else affine, **of_header)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_both_versions_both_byte_orders_and_gzip_are_read(tmp_path: Path, kind: Any, order: str, ending: str) -> None:
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))

    found = read(save(tmp_path / f"t1{ending}", image(kind, header=header)))

    assert found.spacing_mm == fake.SPACING_MM
    assert np.array_equal(found.values_DHW, VALUES)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.float32, np.float64])
def test_every_type_of_real_numbers_is_read(tmp_path: Path, dtype: Any) -> None:
    values = VALUES % 100

    found = read(save(tmp_path / "t1.nii", nib.Nifti1Image(values.transpose().astype(dtype), fake.ras())))

    assert np.array_equal(found.values_DHW, values)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product([False, True], repeat=3)))
def test_a_file_stored_in_any_of_48_ways_is_what_nibabel_makes_of_it(
    tmp_path: Path, order: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    stored = nib.Nifti1Image(VALUES.transpose().astype(np.int16), fake.ras())
    turned = stored.as_reoriented([(axis, -1 if flip else 1) for axis, flip in zip(order, flips, strict=True)])
    path = save(tmp_path / "t1.nii", turned)
    canonical = nib.as_closest_canonical(nib.load(path))

    found = read(path)

    assert np.array_equal(found.values_DHW, canonical.get_fdata().transpose())
    assert np.array_equal(found.values_DHW, VALUES)
    assert found.spacing_mm == fake.SPACING_MM


def test_values_are_stored_ones_times_slope_plus_intercept(tmp_path: Path) -> None:
    stored = image()
    stored.header.set_slope_inter(0.5, -1024)
    path = tmp_path / "t1.nii"
    path.write_bytes(stored.to_bytes())
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([0.5, -1024], "<f4").tobytes()
    raw[352:] = VALUES.astype("<i2").tobytes()
    path.write_bytes(raw)

    assert np.array_equal(read(path).values_DHW, VALUES * 0.5 - 1024)


def test_the_sform_wins_over_the_qform(tmp_path: Path) -> None:
    both = image()
    both.set_qform(np.diag([-9.0, -9.0, 9.0, 1.0]), code=1)
    both.set_sform(fake.ras(), code=2)

    assert np.array_equal(read(save(tmp_path / "t1.nii", both)).values_DHW, VALUES)

    both.set_sform(None, code=0)
    turned = read(save(tmp_path / "q.nii", both))
    assert turned.spacing_mm == (9, 9, 9)
    assert np.array_equal(turned.values_DHW, VALUES[:, ::-1, ::-1])


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1), ("unknown", 1), ("meter", 1000), ("micron", 0.001)])
def test_units_become_mm(tmp_path: Path, unit: str, mm: float) -> None:
    stored = image()
    stored.header.set_xyzt_units(unit)

    found = read(save(tmp_path / "t1.nii", stored))

    assert found.spacing_mm == pytest.approx([length * mm for length in fake.SPACING_MM], rel=1e-6)


def notes(path: Path, allow_no_orientation: bool = False) -> tuple[str, ...]:
    return list_nifti("s1", path, allow_no_orientation)[0].read("s1: series t1").notes


@pytest.mark.parametrize(
    ("qform", "said"),
    [
        (np.diag([-1.0, 2.0, 3.0, 1.0]), "sform and qform place voxels up to 12 mm apart; the sform was used"),
        (fake.ras((3, 2, 1.5)), "sform and qform place voxels up to 3 mm apart; the sform was used"),
        (fake.ras() + np.eye(4, k=3) * 0.5, "sform and qform place voxels up to 0.5 mm apart; the sform was used"),
        (fake.ras() + np.eye(4, k=3) * 0.01, None),
        (fake.ras(), None),
    ],
)
def test_forms_that_disagree_are_noted_with_the_one_that_was_used(tmp_path: Path, qform: Any, said: str | None) -> None:
    both = image()
    both.set_qform(qform, code=1)
    both.set_sform(fake.ras(), code=2)
    path = save(tmp_path / "t1.nii", both)

    assert notes(path) == ((said,) if said else ())
    assert read(path).spacing_mm == fake.SPACING_MM


@pytest.mark.parametrize("oriented", [True, False])
def test_a_length_of_0_is_taken_for_1_and_noted(tmp_path: Path, oriented: bool) -> None:
    bare = image()
    bare.set_sform(None, code=0)
    bare.set_qform(fake.ras() if oriented else None, code=int(oriented))
    content = bytearray(bare.to_bytes())
    content[88:92] = np.array(0, "<f4").tobytes()
    path = tmp_path / "t1.nii"
    path.write_bytes(content)

    assert read(path, allow_no_orientation=True).spacing_mm == (1, 2, 1)
    assert notes(path, allow_no_orientation=True)[-1] == "voxels have the length 0 along k (pixdim); taken for 1"


def test_a_file_without_orientation_needs_leave(tmp_path: Path) -> None:
    bare = image()
    bare.set_sform(None, code=0)
    bare.set_qform(None, code=0)
    path = save(tmp_path / "t1.nii", bare)

    assert fault(path).cause is Cause.NO_ORIENTATION
    assert "--preparation.allow-no-orientation" in str(fault(path))
    assert read(path, allow_no_orientation=True).spacing_mm == fake.SPACING_MM
    (series,) = list_nifti("s1", path, allow_no_orientation=True)
    assert "no orientation" in series.read("s1").notes[0]


def test_a_file_of_four_dimensions_is_several_series(tmp_path: Path) -> None:
    values = np.stack([VALUES, VALUES + 1, VALUES + 2], axis=0)
    path = save(tmp_path / "multi.nii.gz", nib.Nifti1Image(values.transpose().astype(np.int16), fake.ras()))

    names = [series.name for series in list_nifti("s1", path, allow_no_orientation=False)]

    assert names == ["multi#0", "multi#1", "multi#2"]
    assert [np.array_equal(read(path, index).values_DHW, VALUES + index) for index in range(3)] == [True] * 3


def test_extents_of_one_behind_the_third_are_none(tmp_path: Path) -> None:
    values = VALUES.transpose().astype(np.int16)[..., None, None]

    found = list_nifti("s1", save(tmp_path / "t1.nii", nib.Nifti1Image(values, fake.ras())), allow_no_orientation=False)

    assert [series.name for series in found] == ["t1"]


COLOUR = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((4, 4, 4, 2, 2), np.int16), "has the extents (4, 4, 4, 2, 2); expected three, or four"),
        (np.zeros((4, 4), np.int16), "has the extents (4, 4)"),
        (np.zeros((4, 4, 4), np.complex64), "complex64 values; give a file of real grey values"),
        (np.zeros((4, 4, 4), COLOUR), "colour (RGB); give a file of real grey values"),
    ],
)
def test_what_is_no_series_is_unreadable(tmp_path: Path, values: Any, said: str) -> None:
    error = fault(save(tmp_path / "t1.nii", nib.Nifti1Image(values, fake.ras())))

    assert error.cause is Cause.UNREADABLE
    assert said in str(error)


@pytest.mark.parametrize("kept", [0, 3, 100, 347, 352, 500, 700])
@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_file_is_unreadable(tmp_path: Path, kept: int, packed: bool) -> None:
    content = image().to_bytes()[:kept]
    path = tmp_path / "t1.nii"
    path.write_bytes(gzip.compress(content) if packed else content)

    assert len(image().to_bytes()) > 700
    assert fault(path).cause is Cause.UNREADABLE


@pytest.mark.parametrize("place", [-1, -5, -8])
def test_damage_behind_the_last_voxel_of_a_gzipped_file_is_noticed(tmp_path: Path, place: int) -> None:
    content = bytearray(gzip.compress(image().to_bytes() + bytes(100_000)))
    content[place] ^= 0xFF
    path = tmp_path / "t1.nii.gz"
    path.write_bytes(content)

    assert fault(path).cause is Cause.UNREADABLE


def test_a_text_of_that_name_is_unreadable_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "t1.nii.gz"
    path.write_text("not an image " * 100)

    error = fault(path)

    assert error.cause is Cause.UNREADABLE
    assert "is not a readable NIfTI file" in str(error)
