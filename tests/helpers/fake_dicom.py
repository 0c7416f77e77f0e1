"""DICOM and NIfTI files whose voxels say where they are: a wrong axis, flip, order or scale cannot hide.

Patients lie within 0 to 31 mm of each RAS axis, on whole millimetres, and the value at `(x, y, z)` is
`x + 32 y + 1024 z`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gdcm
import nibabel as nib
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

AXIAL = (1, 0, 0, 0, 1, 0)
PRONE = (-1, 0, 0, 0, -1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)
CORONAL = (1, 0, 0, 0, 0, -1)
SHAPE = (5, 6, 7)
"""Slices, rows, columns."""
SPACING_MM = (3, 2, 1)
Array = npt.NDArray[Any]


def code(x: Array, y: Array, z: Array) -> Array:
    values: Array = x + 32 * y + 1024 * z
    return values


def grid(shape: Sequence[int], spacing_mm: Sequence[float]) -> Array:
    """The values of a patient in the order `(k, j, i)` of RAS, whose corner is at 0."""
    z, y, x = (np.arange(count) * step for count, step in zip(shape, spacing_mm, strict=True))
    return code(x[None, None, :], y[None, :, None], z[:, None, None])


def planes(
    orientation: Sequence[int] = AXIAL,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
) -> list[Dataset]:
    """The planes of a patient whose lowest RAS coordinates are 0, along the normal."""
    across, down = np.array(orientation).reshape(2, 3)
    steps = np.array([np.cross(across, down), down, across]) * np.array(spacing_mm)[:, None]  # LPS, per array axis
    indices = np.moveaxis(np.indices(shape), 0, -1)
    places_lps = indices @ steps
    places = places_lps * (-1, -1, 1)
    lowest = places.reshape(-1, 3).min(axis=0)
    values = code(*np.moveaxis(places - lowest, -1, 0))
    origin = -lowest * (-1, -1, 1)
    return [
        plane(values[index], origin + places_lps[index, 0, 0], orientation, spacing_mm[1:], number=index + 1)
        for index in range(shape[0])
    ]


def plane(
    values: Array, position: Sequence[float], orientation: Sequence[float], spacing_mm: Sequence[float], number: int
) -> Dataset:
    """One CT slice; positions are LPS."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.1", "1.2.1.1"
    dataset.PatientID = "P1"
    dataset.Modality, dataset.SeriesDescription, dataset.SeriesNumber = "CT", "Thorax", 2
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.InstanceNumber = number
    dataset.ImagePositionPatient = [float(value) for value in position]
    dataset.ImageOrientationPatient = [float(value) for value in orientation]
    dataset.PixelSpacing = [float(value) for value in spacing_mm]
    set_values(dataset, values)
    return dataset


def set_values(dataset: Dataset, values: Array, bits: int = 16, signed: bool = False) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = values.astype("<i2" if signed else "<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def enhanced(slices: Sequence[Dataset]) -> Dataset:
    """The planes as the frames of one file; geometry and scale in its functional groups."""
    whole = Dataset()
    whole.update({element.tag: element for element in slices[0] if element.tag.group != 0x7FE0})
    whole.file_meta = slices[0].file_meta
    whole.SOPClassUID = EnhancedMRImageStorage
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del whole[name]
    whole.NumberOfFrames = len(slices)
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=slices[0].PixelSpacing)]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=slices[0].ImageOrientationPatient)]
    whole.SharedFunctionalGroupsSequence = [shared]
    whole.PerFrameFunctionalGroupsSequence = [_frame(one) for one in slices]
    whole.PixelData = b"".join(one.PixelData for one in slices)
    whole["PixelData"].VR = "OW"
    return whole


def _frame(one: Dataset) -> Dataset:
    slope, intercept = one.get("RescaleSlope", 1), one.get("RescaleIntercept", 0)
    return _item(
        PlanePositionSequence=[_item(ImagePositionPatient=one.ImagePositionPatient)],
        PixelValueTransformationSequence=[_item(RescaleSlope=slope, RescaleIntercept=intercept)],
    )


def _item(**elements: Any) -> Dataset:
    item = Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return item


def save(folder: Path, slices: Sequence[Dataset], names: Sequence[str] | None = None) -> list[Path]:
    """Write each to a file; unless named, in an order that is not that of the positions."""
    folder.mkdir(parents=True, exist_ok=True)
    names = names or [f"{(7 * index) % 11:02d}" for index in range(len(slices))]
    paths = [folder / name for name in names]
    for dataset, path in zip(slices, paths, strict=True):
        dataset.save_as(path, enforce_file_format=True)
    return sorted(paths)


def compress_with_gdcm(path: Path, syntax: int) -> None:
    """Compress a file in a way that pydicom cannot, such as `gdcm.TransferSyntax.JPEGLosslessProcess14_1`."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def write_nifti(path: Path, values_DHW: Array, affine: Array, dtype: Any = np.int16) -> Path:
    """Write `(k, j, i)` values in the order of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values_DHW.astype(dtype).transpose(), affine)  # type: ignore[no-untyped-call] # nibabel's
    image.to_filename(path)
    return path


def ras(spacing_mm: Sequence[float] = SPACING_MM) -> Array:
    """The affine of a patient whose corner is at 0."""
    return np.diag([*spacing_mm[::-1], 1.0])
