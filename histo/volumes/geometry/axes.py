"""Axes of a series in the patient: orientation, spacing, contradictions.

Patient coordinates are RAS, mm: x from the patient's left to the right, y from posterior to anterior, z from inferior
to superior. Arrays are `(D, H, W)`, indexed `[k, j, i]`; an affine maps `(i, j, k)` to RAS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import degrees
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel import orientations

from histo.errors import Cause, StudyError
from histo.volumes.intensity import Values

Affine = npt.NDArray[np.float64]
"""`(4, 4)`, from voxel indices `(i, j, k)` to RAS, mm."""

MOST_SHEAR_DEGREES = 0.5
"""From a right angle between two axes; what is more is a tilted gantry, and no permutation of axes straightens it."""


LEAST_SPACING_MM, MOST_SPACING_MM = 0.01, 100.0
"""Between neighbouring voxels."""


@dataclass(frozen=True)
class Oriented:
    """Voxels in the order of the patient's axes.

    Attributes:
        values_DHW: k inferior to superior, j posterior to anterior, i left to right.
        spacing_mm: Distance of neighbouring voxels along k, j and i, to six digits.
    """

    values_DHW: Values
    spacing_mm: tuple[float, float, float]


def orient(values_DHW: Values, affine: Affine, where: str) -> Oriented:
    """Permute and flip axes to the closest to RAS; nothing is interpolated, and nothing is copied.

    Raises:
        StudyError: If the affine is singular (`bad_geometry`) or sheared (`gantry_tilt`).
    """
    check_affine(affine, where)
    tools: Any = orientations
    orientation = tools.io_orientation(affine)
    values = tools.apply_orientation(values_DHW.transpose(), orientation).transpose()
    turned = affine @ tools.inv_ornt_aff(orientation, values_DHW.shape[::-1])
    x, y, z = (six_digits(length) for length in np.linalg.norm(turned[:3, :3], axis=0))
    return Oriented(values, (z, y, x))


def check_affine(affine: Affine, where: str) -> None:
    """Refuse an affine that does not say where voxels are, or whose axes are not at right angles.

    Raises:
        StudyError: `bad_geometry` or `gantry_tilt`.
    """
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0) if np.isfinite(affine).all() else np.zeros(3)
    if not (lengths > 0).all() or abs(np.linalg.det(axes / lengths)) < 0.01:
        raise StudyError(
            Cause.BAD_GEOMETRY,
            f"{where}: the affine {np.round(affine[:3], 4).tolist()} places no voxels; repair the header, or export it"
            " again",
        )
    for one, other in combinations((axes / lengths).T, 2):
        shear = degrees(np.arcsin(min(1.0, abs(float(one @ other)))))
        if shear > MOST_SHEAR_DEGREES:
            raise StudyError(Cause.GANTRY_TILT, f"{where}: {tilted(shear)}")


def check_spacing(spacing_mm: Sequence[float], where: str) -> None:
    """Refuse distances of voxels that no scanner of patients has: a wrong unit, or a header of nobody.

    Args:
        spacing_mm: Distance of neighbouring voxels along each axis.
        where: What messages call the series.

    Raises:
        StudyError: `bad_geometry`.
    """
    if not all(LEAST_SPACING_MM <= length <= MOST_SPACING_MM for length in spacing_mm):
        raise StudyError(
            Cause.BAD_GEOMETRY,
            f"{where}: voxels {' x '.join(f'{length:g}' for length in spacing_mm)} mm apart; expected"
            f" {LEAST_SPACING_MM:g} to {MOST_SPACING_MM:g} mm; correct the spacing, or its unit, in the header",
        )


def tilted(angle_degrees: float) -> str:
    """Say what a tilt is, and the way out of it."""
    return (
        f"slices are sheared by {angle_degrees:.1f} degrees (a tilted gantry; at most {MOST_SHEAR_DEGREES});"
        " resample the series to right angles first, or leave the study out"
    )


def six_digits(length: float) -> float:
    """Round a length to six significant digits: what DICOM's decimals and NIfTI's float32 agree on.

    Examples:
        >>> six_digits(0.7246090173721313)
        0.724609
    """
    return float(f"{length:.6g}")
