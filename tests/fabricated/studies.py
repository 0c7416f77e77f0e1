"""Fabricate studies of heads, with and without lesions, of which it is known what is where.

Nothing here is real: all of it is drawn from a seed. Every study has three series of the same head, T1, T2 and FLAIR,
each with slices, spacing, orientation and brightness of its own; half of the studies are NIfTI, half DICOM. The two
classes, `mts` and `norma`, differ in nothing but the lesions: all else is drawn without a look at the class.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt

from fabricated.dicom_series import SeriesHeader, write_series
from fabricated.heads import (
    BIAS_MM,
    SERIES,
    Field,
    Grid,
    Head,
    Lesion,
    Matrix,
    Waves,
    Weighting,
    draw_head,
    draw_lesions,
    rotation,
)

__all__ = [
    "CLASSES",
    "SERIES",
    "Form",
    "StudyPlan",
    "StudyTruth",
    "fabricate_studies",
    "fabricate_study",
    "plan_studies",
]

CLASSES = ("mts", "norma")
"""With lesions (metastases), and without."""
Form = Literal["nifti", "dicom"]

_HEAD, _LESIONS, _FILES, _SERIES = range(4)
"""What a stream of chance is for."""


@dataclass(frozen=True)
class StudyPlan:
    """A study to be fabricated.

    Attributes:
        patient: Name of its patient.
        label: Its class.
        form: The kind of its files.
        key: Where all of its chance starts; the class is no part of it.
    """

    patient: str
    label: str
    form: Form
    key: tuple[int, ...]

    @property
    def study_id(self) -> str:
        """The study's folder in the folder of all studies."""
        return f"{self.label}/{self.patient}"

    def rng(self, *purpose: int) -> np.random.Generator:
        """Return the source of chance for one purpose; what one draws does not move the others."""
        return np.random.default_rng((*self.key, *purpose))


@dataclass(frozen=True)
class StudyTruth:
    """What is where in a fabricated study.

    Attributes:
        study_id: Its folder in the folder of all studies.
        label: Its class.
        form: The kind of its files.
        lesions: Its lesions; none in class `norma`.
    """

    study_id: str
    label: str
    form: Form
    lesions: tuple[Lesion, ...]


@dataclass(frozen=True)
class Acquisition:
    """How one series is taken.

    Attributes:
        grid: Where its voxels are.
        thickness_mm: Thickness of a slice, without the gap to the next.
        bias: What the coil sees less well.
        noise: Deviation of the noise of both parts of the signal.
        unit: Real value of brightness 1: magnetic resonance has no unit.
        slopes: For each slice: a real value is the stored one times this, plus `intercept`. A NIfTI file has one for
            all, the first.
        intercept: See `slopes`.
        rescaled: Whether it is so; else stored values are the real ones, all slopes 1 and the intercept 0.
        order: The order of the axes i, j, k of the array in a NIfTI file.
    """

    grid: Grid
    thickness_mm: float
    bias: Waves
    noise: float
    unit: float
    slopes: Matrix
    intercept: float
    rescaled: bool
    order: tuple[int, int, int]


def fabricate_studies(
    folder: Path, studies: int, seed: int = 0, in_plane_px: int = 96, lesion_contrast: float = 1.0
) -> tuple[StudyTruth, ...]:
    """Write studies as `folder/CLASS/PATIENT/...`: half of them with lesions, half as DICOM, one per patient.

    Args:
        folder: Where to.
        studies: How many; the first ones of a seed are the same for any number.
        seed: Fixes all.
        in_plane_px: Voxels along the longer side of a slice of 220 to 250 mm.
        lesion_contrast: How far lesions differ from the tissue around them; at 0 nobody can see them.

    Returns:
        What is where, in the order of the patients.
    """
    plans = plan_studies(studies, seed)
    return tuple(fabricate_study(folder, plan, in_plane_px, lesion_contrast) for plan in plans)


def plan_studies(studies: int, seed: int = 0) -> tuple[StudyPlan, ...]:
    """Plan studies; of each two, one has lesions and one is DICOM, and of each four, both kinds of both.

    Examples:
        >>> sorted((plan.label, plan.form) for plan in plan_studies(4))
        [('mts', 'dicom'), ('mts', 'nifti'), ('norma', 'dicom'), ('norma', 'nifti')]
    """
    plans: list[StudyPlan] = []
    forms: tuple[Form, Form] = ("nifti", "dicom")
    for four in range(0, studies, 4):
        rng = np.random.default_rng((seed, four))
        turn = int(rng.integers(2))
        for pair in range(2):
            labels = rng.permutation(2).tolist()
            for place, label in enumerate(labels):
                number = four + 2 * pair + place
                form = forms[(label + pair + turn) % 2]
                plans.append(StudyPlan(f"P{number + 1:03d}", CLASSES[label], form, (seed, number)))
    return tuple(plans[:studies])


def fabricate_study(folder: Path, plan: StudyPlan, in_plane_px: int = 96, lesion_contrast: float = 1.0) -> StudyTruth:
    """Write one study to `folder/CLASS/PATIENT`, and return what is where in it."""
    head = draw_head(plan.rng(_HEAD))
    taken = {name: _draw_acquisition(plan.rng(_SERIES, n), head, in_plane_px) for n, name in enumerate(SERIES)}
    grids = [acquisition.grid for acquisition in taken.values()]
    lesions = draw_lesions(plan.rng(_LESIONS), head, grids) if plan.label == "mts" else ()
    place = folder / plan.study_id
    place.mkdir(parents=True, exist_ok=True)
    files = _dicom_files(place, plan, taken) if plan.form == "dicom" else {}
    for number, (name, acquisition) in enumerate(taken.items()):
        image = _scan(head, name, acquisition, lesions, lesion_contrast)
        slopes = acquisition.slopes if plan.form == "dicom" else acquisition.slopes[:1]
        stored = _store(image, acquisition, slopes, plan.rng(_SERIES, number, 1))
        if plan.form == "nifti":
            _write_nifti(place / f"{name}.nii.gz", stored, acquisition)
            continue
        header = SeriesHeader(
            plan.patient, f"{plan.key}", number + 1, name.upper(), acquisition.thickness_mm, acquisition.rescaled
        )
        write_series(
            files[name], stored, acquisition.grid.affine, header, acquisition.slopes.tolist(), acquisition.intercept
        )
    return StudyTruth(plan.study_id, plan.label, plan.form, lesions)


def _draw_acquisition(rng: np.random.Generator, head: Head, in_plane_px: int) -> Acquisition:
    """Draw how a series is taken: mostly 18 to 32 slices 4 to 6 mm apart, now and then 40 to 50 slices of 3 mm."""
    thin = rng.random() < 0.15
    distance = 3.0 if thin else rng.uniform(4.4, 6.0)
    count = round(rng.uniform(120, 148) / distance)
    grid = _draw_grid(rng, head, in_plane_px, (distance, count))
    rescaled = bool(rng.random() < 0.5)
    slopes = rng.uniform(0.3, 3) * rng.uniform(0.8, 1.2, count) if rescaled else np.ones(count)
    first, second, third = rng.permutation(3).tolist()
    return Acquisition(
        grid=grid,
        thickness_mm=distance if thin else distance / rng.uniform(1.0, 1.2),
        bias=Waves.drawn(rng, BIAS_MM, 6),
        noise=rng.uniform(0.015, 0.035),
        unit=float(10 ** rng.uniform(2.3, 3.6)),
        slopes=slopes.round(6),
        intercept=-float(rng.integers(0, 50)) if rescaled else 0.0,
        rescaled=rescaled,
        order=(first, second, third),
    )


def _draw_grid(rng: np.random.Generator, head: Head, in_plane_px: int, slices: tuple[float, int]) -> Grid:
    """Place slices around a head: some of them oblique, in any of the 16 orders of rows, columns and slices."""
    distance, count = slices
    pixel = rng.uniform(220, 250) / in_plane_px
    shorter = round(in_plane_px * rng.choice((0.8, 0.9, 1.0)))
    counts = np.array([shorter, in_plane_px, count])
    axes = rotation(*np.radians(rng.normal(0, (4, 1.5, 1.5)))) if rng.random() < 0.4 else np.eye(3)
    axes = axes * rng.choice((-1.0, 1.0), 3) * (pixel, pixel, distance)
    if rng.random() < 0.5:
        axes, counts = axes[:, [1, 0, 2]], counts[[1, 0, 2]]
    affine = np.eye(4)
    affine[:3, :3] = axes
    middle = head.centre_mm + rng.normal((0, 0, 8), 2)
    affine[:3, 3] = middle - axes @ ((counts - 1) / 2)
    columns, rows, planes = counts.tolist()
    return Grid(affine, (planes, rows, columns))


def _scan(head: Head, name: Weighting, taken: Acquisition, lesions: tuple[Lesion, ...], contrast: float) -> Field:
    """Return the signal without noise, `(k, j, i)`: a slice is the mean of two planes in it."""
    part = 0.25 * taken.thickness_mm / float(np.linalg.norm(taken.grid.affine[:3, 2]))
    planes = [head.draw(taken.grid.shifted(shift), name, lesions, contrast) for shift in (-part, part)]
    signal: Field = np.float32(0.5) * (planes[0] + planes[1]) * np.exp(np.float32(0.12) * taken.bias.on(taken.grid))
    return signal


def _store(image: Field, taken: Acquisition, slopes: Matrix, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Return what is stored of a signal with Rician noise (doi.org/10.1002/mrm.1910340618), `(k, j, i)`."""
    noise = rng.standard_normal((2, *image.shape), np.float32) * np.float32(taken.noise)
    real = np.float32(taken.unit) * np.hypot(image + noise[0], noise[1])
    values = np.rint((real - np.float32(taken.intercept)) / slopes[:, None, None].astype(np.float32))
    assert values.max() < 2**15, "units and slopes are drawn so that 16 bits are enough"
    stored: npt.NDArray[np.int16] = values.astype(np.int16)
    return stored


def _write_nifti(path: Path, stored: npt.NDArray[np.int16], taken: Acquisition) -> None:
    """Write an array with its axes in an order of its own, with a slope where the series has them."""
    order = list(taken.order)
    affine = taken.grid.affine[:, [*order, 3]]
    voxels = stored.transpose().transpose(order)
    image: Any = nib.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call] # nibabel's own
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(float(taken.slopes[0]), taken.intercept)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _dicom_files(folder: Path, plan: StudyPlan, taken: dict[Weighting, Acquisition]) -> dict[Weighting, list[Path]]:
    """Name the files of all slices: in one folder or in one for each series, in an order that means nothing."""
    rng = plan.rng(_FILES)
    total = sum(len(acquisition.slopes) for acquisition in taken.values())
    numbers = iter(rng.permutation(total).tolist())
    together = rng.random() < 0.5
    ending = ".dcm" if rng.random() < 0.5 else ""
    files = {}
    for name, acquisition in taken.items():
        place = folder if together else folder / f"{rng.integers(10**8, 10**9)}"
        place.mkdir(exist_ok=True)
        files[name] = [place / f"I{next(numbers):05d}{ending}" for _ in acquisition.slopes]
    return files
