"""Trees of studies as hospitals and archives hand them over, of which it is known what is one examination."""

import gzip
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from helpers import fake_dicom as fake

KINDS = ("FLAIR", "T1", "T2")
SHAPE = (2, 4, 4)
DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Exam:
    """One examination of a patient, and its numbers: of the patient among all, and of the examination among his."""

    label: str
    patient: str
    number: int
    exam: int

    @property
    def uid(self) -> str:
        return f"1.2.{1000 + self.number}.{self.exam + 1}"


Layout = Callable[[Exam, int], str]
"""The folder of a series, by its number, below the collection's folder."""

DICOM: dict[str, Layout] = {
    "a folder of series": lambda e, s: f"{e.label}/{e.patient}/E{e.exam}/SE{s}",
    "series below the patient": lambda e, s: f"{e.label}/{e.patient}/{e.exam}{s}",
    "all in one folder": lambda e, _: f"{e.label}/{e.patient}/E{e.exam}",
    "all of a patient in one folder": lambda e, _: f"{e.label}/{e.patient}",
    "one level deeper": lambda e, s: f"{e.label}/{e.patient}/E{e.exam}/SE{s}/part",
    "a disc": lambda e, s: f"{e.label}/DICOM/PA{e.number:06d}/ST{e.exam:06d}/SE{s:06d}",
    "a disc for each patient": lambda e, s: f"{e.label}/{e.patient}/DICOM/ST{e.exam:06d}/SE{s:06d}",
    "archive": lambda e, s: f"{e.label}/{e.patient}/S{e.exam}/SCANS/{s + 1}-{KINDS[s]}/DICOM",
    "archive with resources": lambda e, s: (
        f"{e.label}/{e.patient}/S{e.exam}/SCANS/{s + 1}-{KINDS[s]}/resources/DICOM/files"
    ),
    "kinds": lambda e, s: f"{e.label}/{e.patient}/{e.exam}/{KINDS[s]}",
    "split": lambda e, s: f"train/{e.label}/{e.patient}/E{e.exam}/SE{s}",
}
NIFTI: dict[str, Layout] = {
    "kinds of a patient": lambda e, s: f"train/{e.label}/{e.patient}/{KINDS[s]}",
    "kinds of a visit": lambda e, s: f"{e.label}/{e.patient}/V{e.exam}/{KINDS[s]}",
    "kinds with files below": lambda e, s: f"{e.label}/{e.patient}/V{e.exam}/{KINDS[s]}/NIFTI",
    "all in one folder": lambda e, _: f"{e.label}/{e.patient}/V{e.exam}",
    "archive": lambda e, s: f"{e.label}/{e.patient}/S{e.exam}/SCANS/{s + 1}-{KINDS[s]}/resources/NIFTI/files",
    "BIDS": lambda e, s: f"{e.label}/sub-{e.patient}/ses-{e.exam}/{('anat', 'anat', 'dwi')[s]}",
    "BIDS without sessions": lambda e, s: f"{e.label}/sub-{e.patient}/{('anat', 'anat', 'dwi')[s]}",
}
ONE_EXAM = ("kinds of a patient", "BIDS without sessions")
"""Layouts in which a patient has one examination."""


@dataclass
class Beside:
    """What lies beside the images of every series.

    Attributes:
        directory: Name of a directory of a disc; none if empty.
        mask: Name of a NIfTI mask, likewise.
        others: Names of files that are no images.
    """

    directory: str = ""
    mask: str = ""
    others: Sequence[str] = field(default_factory=tuple)

    def put(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self.directory:
            write_directory(folder / self.directory)
        if self.mask:
            (folder / self.mask).write_bytes(b"voxels")
        for name in self.others:
            (folder / name).write_bytes(b"nothing")


def write_directory(path: Path) -> None:
    """Write a DICOMDIR, which names no examination."""
    path.write_bytes(directory())


@cache
def directory() -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UID(DIRECTORY)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.9")
    dataset.FileSetID = "DISC"
    dataset.DirectoryRecordSequence = []
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


@cache
def slices_of_nobody() -> tuple[bytes, ...]:
    """The files of a series, with words of one length in the place of what tells series apart."""
    slices = fake.planes(shape=SHAPE, spacing_mm=(3, 1, 1))
    for one in slices:
        one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.8888.8", "1.2.8888.8.8"
        one.PatientID, one.SeriesDescription = "PATIENT-88", "KIND-8"
    with TemporaryDirectory() as place:
        return tuple(path.read_bytes() for path in fake.save(Path(place), slices))


def write_dicom(
    root: Path, exam: Exam, layout: Layout, series: int, shuffled: random.Random, patient: str
) -> list[Path]:
    """Write a series of two slices, under names that say nothing."""
    folder = root / layout(exam, series)
    folder.mkdir(parents=True, exist_ok=True)
    words = [
        (b"1.2.8888.8.8", f"{exam.uid}.{series + 1}".encode()),
        (b"1.2.8888.8", exam.uid.encode()),
        (b"PATIENT-88", patient.ljust(10).encode()),
        (b"KIND-8", KINDS[series].ljust(6).encode()),
    ]
    files = []
    for content in slices_of_nobody():
        files.append(folder / f"{shuffled.getrandbits(40):010x}")
        files[-1].write_bytes(reduce(lambda text, word: text.replace(*word), words, content))
    return files


def write_nifti(root: Path, exam: Exam, layout: Layout, series: int) -> list[Path]:
    """Write a series as one file."""
    folder = root / layout(exam, series)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"sub-{exam.patient}_{KINDS[series]}w" if "sub-" in str(folder) else KINDS[series].lower()
    values = fake.grid(SHAPE, (3, 1, 1)).transpose().astype(np.int16) + series
    path = folder / f"{name}.nii.gz"
    image = nib.Nifti1Image(values, fake.ras((3, 1, 1)))  # type: ignore[no-untyped-call] # nibabel's
    path.write_bytes(gzip.compress(image.to_bytes(), 1))
    return [path]
