from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from helpers import fake_dicom as fake
from hypothesis import given, settings
from hypothesis import strategies as st

from histo.errors import Cause, StudyError
from histo.volumes.geometry.axes import orient

ORIENTATIONS = [(order, flips) for order in permutations(range(3)) for flips in product((False, True), repeat=3)]


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_a_patient_stored_in_any_of_48_ways_comes_out_the_same(order: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    expected = fake.grid(fake.SHAPE, fake.SPACING_MM).astype(np.float32)
    turned = np.array([[axis, -1 if flip else 1] for axis, flip in zip(order, flips, strict=True)], float)
    stored = nib.apply_orientation(expected.transpose(), turned).transpose()
    affine = fake.ras() @ nib.orientations.inv_ornt_aff(turned, fake.SHAPE[::-1])

    found = orient(stored, affine, "s1")

    assert found.spacing_mm == fake.SPACING_MM
    assert np.array_equal(found.values_DHW, expected)


@settings(max_examples=50)
@given(st.lists(st.floats(-3.1, 3.1), min_size=3, max_size=3), st.lists(st.floats(0.1, 9), min_size=3, max_size=3))
def test_an_oblique_series_is_oriented_as_nibabel_does(angles: list[float], spacing: list[float]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(*angles) @ np.diag(spacing)
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    closest = nib.as_closest_canonical(nib.Nifti1Image(values.transpose(), affine))

    found = orient(values, affine, "s1")

    assert np.array_equal(found.values_DHW, closest.get_fdata().transpose())
    assert found.spacing_mm == pytest.approx(closest.header.get_zooms()[::-1], rel=1e-5)


def test_slices_that_are_sheared_are_a_tilted_gantry() -> None:
    affine = fake.ras()
    affine[1, 2] = 3 * np.tan(np.deg2rad(0.6))

    with pytest.raises(StudyError, match=r"^s1: slices are sheared by 0\.6 degrees \(a tilted gantry") as raised:
        orient(np.zeros((2, 2, 2), np.float32), affine, "s1")

    assert raised.value.cause == Cause.GANTRY_TILT


def test_shear_within_rounding_is_none() -> None:
    affine = fake.ras()
    affine[1, 2] = 3 * np.tan(np.deg2rad(0.4))

    assert orient(np.zeros((2, 2, 2), np.float32), affine, "s1").spacing_mm[1:] == (2, 1)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0])
def test_an_affine_that_places_nothing_is_bad_geometry(broken: float) -> None:
    affine = fake.ras()
    affine[2, 2] = broken

    with pytest.raises(StudyError, match=r"^s1: the affine .* places no voxels; repair the header") as raised:
        orient(np.zeros((2, 2, 2), np.float32), affine, "s1")

    assert raised.value.cause == Cause.BAD_GEOMETRY
