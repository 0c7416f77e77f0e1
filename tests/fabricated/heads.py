"""Draw heads as magnetic resonance shows them: shells of tissue around ventricles, sampled on any grid of points.

A head is a function of the place in the patient, in mm, RAS (x to the right, y to the front, z up), so that every grid
samples the same head. Axes of an array of points: k slice, j row, i column. Brightness has no unit: 1 is about the
brightest tissue. Nothing of it is real anatomy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating[Any]]
"""Of float32, to be fast; numpy's annotations cannot follow that through arithmetic."""
Matrix = npt.NDArray[np.float64]
Weighting = Literal["t1", "t2", "flair"]

SERIES: tuple[Weighting, ...] = ("t1", "t2", "flair")
SEMI_AXES_MM = (76.0, 95.0, 88.0)
"""Of an average head: to the side, to the front, and up."""
DEPTH_MM = 84.0
"""What a relative radius of 1 is taken for, to turn it into a depth under the skin."""
EDGE_MM = 1.5
"""Width over which one tissue becomes the next."""
BRIGHTNESS: dict[Weighting, dict[str, float]] = {
    "t1": {
        "fat": 0.90,
        "bone": 0.06,
        "fluid": 0.16,
        "grey": 0.46,
        "white": 0.66,
        "swelling": 0.50,
        "lesion": 0.26,
        "rim": 1.00,
    },
    "t2": {
        "fat": 0.80,
        "bone": 0.05,
        "fluid": 1.00,
        "grey": 0.58,
        "white": 0.42,
        "swelling": 0.78,
        "lesion": 0.95,
        "rim": 0.80,
    },
    "flair": {
        "fat": 0.90,
        "bone": 0.05,
        "fluid": 0.10,
        "grey": 0.56,
        "white": 0.45,
        "swelling": 0.88,
        "lesion": 1.15,
        "rim": 1.05,
    },
}
FOLDS_MM = (11.0, 26.0)
"""Wavelengths of the folds of the cortex."""
TEXTURE_MM = (14.0, 70.0)
"""Wavelengths of the unevenness of every tissue."""
BIAS_MM = (250.0, 500.0)
"""Wavelengths of what the coil sees less well."""


@dataclass(frozen=True)
class Grid:
    """Points in space, as a scanner places them.

    Attributes:
        affine: `(4, 4)`: what turns `(i, j, k, 1)` into the place of a voxel's centre, in mm, RAS.
        shape: Number of voxels along k, j, i.
    """

    affine: Matrix
    shape: tuple[int, int, int]

    def places(self, linear: Matrix, offset: Matrix) -> tuple[Field, Field, Field]:
        """Return the coordinates of all points after `linear @ (place - offset)`, each `(k, j, i)`."""
        steps, start = linear @ self.affine[:3, :3], linear @ (self.affine[:3, 3] - offset)
        columns, rows, slices = (np.arange(count, dtype=np.float32) for count in self.shape[::-1])
        x, y, z = (
            (np.float32(first) + np.float32(c) * slices)[:, None, None]
            + (np.float32(b) * rows[:, None] + np.float32(a) * columns)
            for first, (a, b, c) in zip(start, steps, strict=True)
        )
        return x, y, z

    def holds(self, place_mm: Matrix, margin_mm: float) -> bool:
        """Whether a ball of this radius lies in the box of all voxels."""
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        index = np.linalg.solve(self.affine[:3, :3], place_mm - self.affine[:3, 3])
        inward = np.minimum(index, np.array(self.shape[::-1]) - 1 - index) + 0.5
        return bool((inward * spacing >= margin_mm).all())

    def shifted(self, slices: float) -> "Grid":
        """Return the grid moved by a part of a slice along k."""
        affine = self.affine.copy()
        affine[:3, 3] += slices * affine[:3, 2]
        return Grid(affine, self.shape)


@dataclass(frozen=True)
class Waves:
    """Smooth noise of mean 0 and deviation 1, as a sum of plane waves of chance.

    Attributes:
        vectors: `(waves, 3)`, radians per mm.
        phases: `(waves,)`.
    """

    vectors: Matrix
    phases: Matrix

    @classmethod
    def drawn(cls, rng: np.random.Generator, wavelengths_mm: tuple[float, float], count: int) -> "Waves":
        """Draw waves of any direction; their wavelengths lie in a range."""
        directions = rng.standard_normal((count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = rng.uniform(*wavelengths_mm, (count, 1))
        return cls(2 * np.pi * directions / lengths, rng.uniform(0, 2 * np.pi, count))

    def on(self, grid: Grid) -> Field:
        """Return the noise at all points, `(k, j, i)`: a plane wave is a product of one wave along each axis."""
        along = self.vectors @ grid.affine[:3, :3]
        start = self.phases + self.vectors @ grid.affine[:3, 3]
        columns, rows, slices = (
            np.exp(1j * along[:, axis, None] * np.arange(count)).astype(np.complex64)
            for axis, count in enumerate(grid.shape[::-1])
        )
        slices *= (np.sqrt(2 / len(start)) * np.exp(1j * start))[:, None].astype(np.complex64)
        planes = (slices[:, :, None] * rows[:, None, :]).reshape(len(start), -1)
        field: Field = planes.real.T @ columns.real - planes.imag.T @ columns.imag
        return field.reshape(grid.shape)


@dataclass(frozen=True)
class Lesion:
    """A tumour in the brain, an ellipsoid, and the swelling around it.

    Attributes:
        centre_mm: Where it is in the patient, in mm, RAS.
        radii_mm: Its semi-axes.
        swelling_mm: How far the brain around it is swollen.
        turn: `(3, 3)`, a rotation: its axes, as columns.
        strength: How far it differs from the tissue around it, as a share.
        ring: Whether it has a bright rim in T1.
    """

    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    swelling_mm: float
    turn: Matrix
    strength: float
    ring: bool


@dataclass(frozen=True)
class Head:
    """A head of its own size, place and posture.

    Attributes:
        centre_mm: Its middle, in mm, RAS.
        turn: `(3, 3)`, a rotation: the head's axes in the patient's space, as columns.
        scale: Its size along its own axes, relative to the average.
        ventricles: Size of its ventricles, relative to the average.
        folds: How its cortex is folded.
        texture: How uneven its tissues are.
    """

    centre_mm: Matrix
    turn: Matrix
    scale: Matrix
    ventricles: float
    folds: Waves
    texture: Waves

    def to_head(self, grid: Grid) -> tuple[Field, Field, Field]:
        """Return the place of all points in an average head, in mm from its middle."""
        return grid.places(np.diag(1 / self.scale) @ self.turn.T, self.centre_mm)

    def from_head(self, place: Matrix) -> Matrix:
        """Return where in the patient a place of the average head is."""
        moved: Matrix = self.turn @ (self.scale * place) + self.centre_mm
        return moved

    def draw(self, grid: Grid, weighting: Weighting, lesions: Sequence[Lesion] = (), contrast: float = 1.0) -> Field:
        """Return the brightness at all points, `(k, j, i)`.

        Args:
            grid: The points.
            weighting: The kind of series.
            lesions: What is in the brain and does not belong there.
            contrast: How far all lesions differ from the tissue around them, relative to their own strength.
        """
        bright = BRIGHTNESS[weighting]
        x, y, z = self.to_head(grid)
        depth, folds = _depth(x, y, z), self.folds.on(grid)
        image = np.zeros(grid.shape, np.float32)
        sulci = 13.0 + 1.8 * folds
        brain = _within(sulci - depth)
        for share, tissue in (
            (_within(-depth), "fat"),
            (_within(5.0 - depth), "bone"),
            (_within(10.5 - depth), "fluid"),
            (brain, "grey"),
            (_within(sulci + 4.5 + 1.2 * folds - depth), "white"),
            (_ellipsoid(abs(x) - 20, y - 4, z, (8, 17, 10)), "grey"),
            *((contrast * lesion.strength * brain * _swelling(grid, lesion), "swelling") for lesion in lesions),
            (_within(abs(x) - 0.2 + np.maximum(depth - 30, 0)) * (depth > 10.5), "fluid"),
            (_ellipsoid(abs(x) - 9, y + 2, z - 12, tuple(self.ventricles * r for r in (5.5, 30, 9))), "fluid"),
            (_ellipsoid(abs(x) - 30, y - 66, z + 34, (12, 12, 12)), "fluid"),
        ):
            image += share * (np.float32(bright[tissue]) - image)
        for lesion in lesions:
            _add_lesion(image, grid, lesion, bright, contrast)
        image *= 1 + np.float32(0.05) * self.texture.on(grid)
        return image


def _swelling(grid: Grid, lesion: Lesion) -> Field:
    places = grid.places(lesion.turn.T, np.array(lesion.centre_mm))
    return _ellipsoid(*places, [radius + lesion.swelling_mm for radius in lesion.radii_mm])


def _add_lesion(image: Field, grid: Grid, lesion: Lesion, bright: dict[str, float], contrast: float) -> None:
    places = grid.places(lesion.turn.T, np.array(lesion.centre_mm))
    core = [max(0.6 * radius, radius - 3.5) if lesion.ring else 2 * radius for radius in lesion.radii_mm]
    rim, inside = np.float32(bright["rim"]), np.float32(bright["lesion"])
    target = rim + _ellipsoid(*places, core) * (inside - rim)
    share = np.float32(contrast * lesion.strength) * _ellipsoid(*places, lesion.radii_mm)
    image += share * (target - image)


def draw_head(rng: np.random.Generator) -> Head:
    """Draw a head: its size strays by 6 %, its place by some mm, its posture by some degrees."""
    return Head(
        centre_mm=rng.normal(0, 4, 3),
        turn=rotation(*np.radians(rng.normal(0, 3, 3))),
        scale=rng.uniform(0.96, 1.04) * rng.uniform(0.97, 1.03, 3),
        ventricles=rng.uniform(0.75, 1.25),
        folds=Waves.drawn(rng, FOLDS_MM, 32),
        texture=Waves.drawn(rng, TEXTURE_MM, 32),
    )


def draw_lesions(rng: np.random.Generator, head: Head, grids: Sequence[Grid]) -> tuple[Lesion, ...]:
    """Draw 1 to 5 lesions of 6 to 20 mm, apart from each other, in the brain and wholly in every grid."""
    lesions: list[Lesion] = []
    wanted = int(rng.integers(1, 6))
    while len(lesions) < wanted:
        lesion = _draw_lesion(rng, head)
        place, reach = np.array(lesion.centre_mm), max(lesion.radii_mm)
        apart = all(np.linalg.norm(place - other.centre_mm) > reach + max(other.radii_mm) for other in lesions)
        if apart and all(grid.holds(place, reach) for grid in grids):
            lesions.append(lesion)
    return tuple(lesions)


def _draw_lesion(rng: np.random.Generator, head: Head) -> Lesion:
    """Draw a lesion between the cortex and the ventricles."""
    while True:
        x, y, z = place = rng.uniform(-1, 1, 3) * (55, 70, 45) + (0, 0, 10)
        clear = ((abs(x) - 9) / 14) ** 2 + ((y + 2) / 40) ** 2 + ((z - 12) / 18) ** 2 > 1
        if clear and abs(x) > 10 and _depth(x, y, z) > 22:
            break
    radius = rng.uniform(3, 10)
    shape = np.exp(rng.uniform(-0.2, 0.2, 3)) if rng.random() < 0.5 else np.ones(3)
    right, front, up = head.from_head(place).tolist()
    along, across, deep = np.clip(radius * shape, 3, 10).tolist()
    return Lesion(
        centre_mm=(right, front, up),
        radii_mm=(along, across, deep),
        turn=rotation(*rng.uniform(-np.pi, np.pi, 3)),
        swelling_mm=rng.uniform(4, 14),
        strength=rng.uniform(0.6, 1.0),
        ring=bool(rng.random() < 0.4),
    )


def rotation(about_x: float, about_y: float, about_z: float) -> Matrix:
    """Return the rotation about x, then y, then z, `(3, 3)`; angles in radians, anticlockwise seen from the tip.

    Examples:
        >>> rotation(0, 0, np.pi / 2).round() @ (1, 0, 0)
        array([0., 1., 0.])
    """
    turn = np.eye(3)
    for axis, angle in enumerate((about_x, about_y, about_z)):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[a, a], step[a, b], step[b, a], step[b, b] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turn = step @ turn
    return turn


def _depth(x: Field, y: Field, z: Field) -> Field:
    """Return how deep a place of the average head lies under its skin, in mm, nearly; negative outside."""
    a, b, c = SEMI_AXES_MM
    depth: Field = DEPTH_MM * (1 - np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2))
    return depth


def _within(outward_mm: Field) -> Field:
    """Return 1 where a distance outward is negative and 0 where it is positive, with a soft edge."""
    share: Field = outward_mm * np.float32(-1 / EDGE_MM)
    share += np.float32(0.5)
    return np.clip(share, 0, 1, out=share)


def _ellipsoid(x: Field, y: Field, z: Field, radii_mm: Sequence[float]) -> Field:
    """Return 1 in an ellipsoid around the origin and 0 outside, with a soft edge."""
    a, b, c = (np.float32(1 / radius) for radius in radii_mm)
    relative = np.sqrt((x * a) ** 2 + (y * b) ** 2 + (z * c) ** 2)
    return _within((relative - 1) * np.float32(np.mean(radii_mm)))
