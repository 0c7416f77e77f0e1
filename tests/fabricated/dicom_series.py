"""Write a series of slices as DICOM files, one for each slice, as scanners do.

Places and directions come in as RAS, in mm; DICOM wants LPS: x to the left, y to the back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class SeriesHeader:
    """What the files of a series have in common.

    Attributes:
        patient_id: The patient.
        study_key: What the study's UID is made of.
        number: The series' number in the study.
        description: What it is called.
        thickness_mm: Thickness of its slices, without the gaps between them.
        rescaled: Whether its files say how stored values become real ones.
    """

    patient_id: str
    study_key: str
    number: int
    description: str
    thickness_mm: float
    rescaled: bool

    @property
    def study_uid(self) -> str:
        """The same for all series of a study."""
        return generate_uid(entropy_srcs=["histo", self.study_key])

    @property
    def series_uid(self) -> str:
        """The series' own."""
        return generate_uid(entropy_srcs=["histo", self.study_key, self.description])

    def instance_uid(self, slice_: int) -> str:
        """The slice's own."""
        return generate_uid(entropy_srcs=["histo", self.study_key, self.description, str(slice_)])


def write_series(
    files: Sequence[Path],
    stored: npt.NDArray[np.int16],
    affine: npt.NDArray[np.float64],
    header: SeriesHeader,
    slopes: Sequence[float],
    intercept: float,
) -> None:
    """Write one file for each slice.

    Args:
        files: Where to, in the order of the slices.
        stored: `(k, j, i)`, one slice for each k.
        affine: `(4, 4)`: what turns `(i, j, k, 1)` into a place in mm, RAS.
        header: What all files say.
        slopes: For each slice: a real value is the stored one times this, plus `intercept`.
        intercept: See `slopes`.
    """
    common = _common(header, affine)
    count = len(stored)
    interleaved = [*range(0, count, 2), *range(1, count, 2)]
    for acquired, k in enumerate(interleaved, start=1):
        dataset = _file(header.instance_uid(k))
        dataset.update(common)
        dataset.InstanceNumber = acquired
        dataset.ImagePositionPatient = _decimals(RAS_TO_LPS * (affine @ (0, 0, k, 1))[:3])
        dataset.Rows, dataset.Columns = stored.shape[1:]
        if header.rescaled:
            dataset.RescaleSlope, dataset.RescaleIntercept = _decimals((slopes[k], intercept))
            dataset.RescaleType = "US"
        dataset.PixelData = stored[k].astype("<i2").tobytes()
        dataset.save_as(files[k], enforce_file_format=True)


def _file(instance_uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = UID(instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = instance_uid
    return dataset


def _common(header: SeriesHeader, affine: npt.NDArray[np.float64]) -> Dataset:
    """Return what all slices say."""
    columns, rows, slices = affine[:3, :3].T
    spacing = [float(np.linalg.norm(step)) for step in (rows, columns)]
    values: dict[str, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "SE"],
        "StudyDate": "20200101",
        "StudyTime": "120000",
        "AccessionNumber": "",
        "Modality": "MR",
        "Manufacturer": "histo.demo",
        "ReferringPhysicianName": "",
        "SeriesDescription": header.description,
        "PatientName": "Fabricated^Head",
        "PatientID": header.patient_id,
        "PatientBirthDate": "",
        "PatientSex": "",
        "ScanningSequence": "SE",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "SliceThickness": _decimals([header.thickness_mm])[0],
        "SpacingBetweenSlices": _decimals([float(np.linalg.norm(slices))])[0],
        "RepetitionTime": "",
        "EchoTime": "",
        "EchoTrainLength": "",
        "StudyInstanceUID": header.study_uid,
        "SeriesInstanceUID": header.series_uid,
        "StudyID": "1",
        "SeriesNumber": header.number,
        "ImageOrientationPatient": _decimals(
            [*RAS_TO_LPS * columns / spacing[1], *RAS_TO_LPS * rows / spacing[0]],
        ),
        "FrameOfReferenceUID": generate_uid(entropy_srcs=["histo", header.study_key, "frame of reference"]),
        "PositionReferenceIndicator": "",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelSpacing": _decimals(spacing),
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
    }
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _decimals(values: Sequence[float] | npt.NDArray[np.float64]) -> list[str]:
    """Write numbers as DICOM does: at most 16 characters each."""
    return [f"{value:.8f}" for value in values]
