"""Order the planes of a DICOM series, and check that they are one volume.

They are sorted by position along the normal of their orientation: neither file names nor instance numbers say where a
slice lies.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, degrees

import numpy as np
import numpy.typing as npt

from histo.errors import Cause, StudyError
from histo.volumes.geometry.axes import MOST_SHEAR_DEGREES, Affine, tilted
from histo.volumes.geometry.planes import Plane

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_MM = 0.001
_SAME_COSINE = 1e-3
_Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stack:
    """The planes of a series, each at an equal distance above the one before.

    Attributes:
        planes: In the order of the array's first axis.
        affine: From `(column, row, plane)` to RAS, mm.
    """

    planes: tuple[Plane, ...]
    affine: Affine


def stack_planes(planes: Sequence[Plane], tolerance: float, where: str) -> Stack:
    """Sort planes along their normal, and check that they are evenly spaced slices of one block.

    Args:
        planes: Of one series, in any order.
        tolerance: Greatest deviation of a gap from the median gap, as a share of it.
        where: What messages call the series.

    Raises:
        StudyError: `no_orientation`, `bad_geometry`, `mixed_sizes`, `one_slice`, `mixed_slices`, `gantry_tilt` or
            `uneven_spacing`.
    """
    _check_alike(planes, where)
    if len(planes) == 1:
        raise StudyError(Cause.ONE_SLICE, f"{where}: one slice, {planes[0]}; leave out scouts and single images")
    across, down = _directions(planes[0], where)
    normal = np.cross(across, down)
    places = np.array([plane.position_mm for plane in planes])
    order = np.argsort(places @ normal, kind="stable")
    planes, places = tuple(planes[index] for index in order), places[order]
    heights = places @ normal
    _check_distinct(planes, heights, where)
    step = (places[-1] - places[0]) / (len(planes) - 1)
    _check_straight(planes, places, step, normal, where)
    _check_even(planes, heights, tolerance, where)
    rows_mm, columns_mm = planes[0].spacing_mm or (0.0, 0.0)
    affine = np.eye(4)
    affine[:3] = np.column_stack([across * columns_mm, down * rows_mm, step, places[0]])
    return Stack(planes, _LPS_TO_RAS @ affine)


def _check_alike(planes: Sequence[Plane], where: str) -> None:
    """Refuse planes that have no place, or not the same size, orientation and spacing."""
    for plane in planes:
        missing = [
            name
            for name, value in (
                ("ImagePositionPatient", plane.position_mm),
                ("ImageOrientationPatient", plane.orientation),
                ("PixelSpacing", plane.spacing_mm),
            )
            if value is None
        ]
        if missing:
            raise StudyError(
                Cause.NO_ORIENTATION,
                f"{where}: {plane} has no {' and no '.join(missing)}; export the series again, or leave it out",
            )
    for name, values, tolerance in (
        ("rows and columns", [plane.shape for plane in planes], 0.0),
        ("orientation", [plane.orientation for plane in planes], _SAME_COSINE),
        ("pixel spacing (mm)", [plane.spacing_mm for plane in planes], _SAME_MM),
    ):
        table = np.array(values, np.float64)
        other = np.abs(table - table[0]).max(axis=1) > tolerance
        if not np.isfinite(table).all() or other.any():
            index = int(np.argmax(other))
            raise StudyError(
                Cause.MIXED_SIZES,
                f"{where}: slices differ in {name}: {planes[0]} {_short(values[0])}, {planes[index]}"
                f" {_short(values[index])} ({int(other.sum())} of {len(planes)} differ); keep one kind of them",
            )


def _short(values: Sequence[float] | None) -> str:
    return str([round(value, 4) for value in values or ()])


def _directions(plane: Plane, where: str) -> tuple[_Vector, _Vector]:
    """Return unit vectors along a row and along a column, LPS."""
    across, down = np.array(plane.orientation, np.float64).reshape(2, 3)
    lengths = np.linalg.norm(across), np.linalg.norm(down)
    spacing = plane.spacing_mm or (0.0,)
    right = min(lengths) > 0.5 and abs(across @ down) / (lengths[0] * lengths[1]) < np.sin(
        np.deg2rad(MOST_SHEAR_DEGREES)
    )
    if not (right and min(spacing) > 0 and np.isfinite(spacing).all()):
        raise StudyError(
            Cause.BAD_GEOMETRY,
            f"{where}: {plane} has the orientation {_short(plane.orientation)} and the pixel spacing {_short(spacing)};"
            " export the series again",
        )
    return across / lengths[0], down / lengths[1]


def _check_distinct(planes: Sequence[Plane], heights: _Vector, where: str) -> None:
    """Refuse several planes at one position: echoes, time points, or a file that is there twice."""
    if not np.isfinite(heights).all():
        raise StudyError(Cause.BAD_GEOMETRY, f"{where}: a position is not a number; export the series again")
    again = np.diff(heights) < _SAME_MM
    if again.any():
        first = int(np.argmax(again))
        times = Counter(np.concatenate([[0], np.cumsum(~again)]).tolist())
        least, most = min(times.values()), max(times.values())
        many = str(most) if least == most else f"{least} to {most}"
        raise StudyError(
            Cause.MIXED_SLICES,
            f"{where}: {many} slices at each of {len(times)} positions, such as {planes[first]} and"
            f" {planes[first + 1]}; divide the series by echo or time, or remove copies",
        )


def _check_straight(
    planes: Sequence[Plane], places: npt.NDArray[np.float64], step: _Vector, normal: _Vector, where: str
) -> None:
    """Refuse planes that do not lie straight above each other: all shifted alike (a tilt), or one aside."""
    sideways = float(np.linalg.norm(step - (step @ normal) * normal))
    angle = degrees(atan2(sideways, float(step @ normal)))
    if angle > MOST_SHEAR_DEGREES:
        raise StudyError(Cause.GANTRY_TILT, f"{where}: {tilted(angle)}")
    shifts = places - places[0] - np.outer((places - places[0]) @ normal / (step @ normal), step)
    aside = np.linalg.norm(shifts, axis=1)
    worst = int(np.argmax(aside))
    if aside[worst] > max(planes[0].spacing_mm or ()) / 2:
        raise StudyError(
            Cause.BAD_GEOMETRY,
            f"{where}: {planes[worst]} lies {aside[worst]:.2f} mm beside the others; divide the series, or remove it",
        )


def _check_even(planes: Sequence[Plane], heights: _Vector, tolerance: float, where: str) -> None:
    gaps = np.diff(heights)
    median = float(np.median(gaps))
    deviation = np.abs(gaps - median) / median
    worst = int(np.argmax(deviation))
    if deviation[worst] > tolerance:
        missing = round(float(gaps[worst]) / median) - 1
        likely = f" ({missing} missing in between?)" if missing > 0 else ""
        what = f"{gaps[worst]:.4g} mm from {planes[worst]} to {planes[worst + 1]}, elsewhere {median:.4g} mm{likely}"
        raise StudyError(
            Cause.UNEVEN_SPACING,
            f"{where}: {what}; find the missing files, or raise --preparation.spacing-tolerance ({tolerance:g})",
            f"{where}: {what}; find the missing files, or leave the study out",
        )
