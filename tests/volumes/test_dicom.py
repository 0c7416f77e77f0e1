import re
import subprocess
from pathlib import Path

import dcm2niix
import gdcm
import nibabel as nib
import numpy as np
import pydicom
import pytest
from helpers import fake_dicom as fake
from pydicom.uid import JPEG2000Lossless, RLELossless

from histo.errors import Cause, StudyError
from histo.volumes.formats.dicom import DicomListing, list_dicom
from histo.volumes.geometry.axes import Oriented, orient
from histo.volumes.series import Series

GDCM = gdcm.TransferSyntax


def listing(files: list[Path]) -> DicomListing:
    return list_dicom("s1", files, spacing_tolerance=0.05)


def read(files: list[Path]) -> Series:
    (found,) = listing(files).series
    return found.read("s1: series Thorax")


def oriented(files: list[Path]) -> Oriented:
    series = read(files)
    return orient(series.values_DHW, series.affine, "s1")


@pytest.mark.parametrize(
    ("orientation", "axes"),
    [
        (fake.AXIAL, (0, 1, 2)),
        (fake.PRONE, (0, 1, 2)),
        ((1, 0, 0, 0, -1, 0), (0, 1, 2)),
        ((0, 1, 0, 1, 0, 0), (0, 2, 1)),
        (fake.SAGITTAL, (1, 2, 0)),
        ((0, -1, 0, 0, 0, 1), (1, 2, 0)),
        (fake.CORONAL, (1, 0, 2)),
        ((-1, 0, 0, 0, 0, 1), (1, 0, 2)),
    ],
)
@pytest.mark.parametrize("frames", ["files", "enhanced"])
def test_every_voxel_comes_to_its_place_in_the_patient(
    tmp_path: Path, orientation: tuple[int, ...], axes: tuple[int, ...], frames: str
) -> None:
    slices = fake.planes(orientation)
    files = fake.save(tmp_path, slices if frames == "files" else [fake.enhanced(slices[::-1])])

    found = oriented(files)

    shape = [fake.SHAPE[axis] for axis in axes]
    spacing = tuple(float(fake.SPACING_MM[axis]) for axis in axes)
    assert found.spacing_mm == spacing
    assert np.array_equal(found.values_DHW, fake.grid(shape, spacing))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("frames", ["files", "enhanced"])
def test_compressed_pixels_are_those_that_were_compressed(tmp_path: Path, syntax: pydicom.uid.UID, frames: str) -> None:
    slices = fake.planes(shape=(5, 32, 32), spacing_mm=(3, 1, 1))
    slices = slices if frames == "files" else [fake.enhanced(slices)]
    for one in slices:
        one.compress(syntax)

    found = oriented(fake.save(tmp_path, slices))

    assert np.array_equal(found.values_DHW, fake.grid((5, 32, 32), (3, 1, 1)))


@pytest.mark.parametrize("syntax", [GDCM.JPEGLosslessProcess14_1, GDCM.JPEGLosslessProcess14, GDCM.JPEGLSLossless])
def test_lossless_jpeg_is_decoded(tmp_path: Path, syntax: int) -> None:
    files = fake.save(tmp_path, fake.planes())
    for file in files:
        fake.compress_with_gdcm(file, syntax)

    found = oriented(files)

    assert np.array_equal(found.values_DHW, fake.grid(fake.SHAPE, fake.SPACING_MM))


@pytest.mark.parametrize("signed", [False, True])
def test_values_are_stored_ones_times_slope_plus_intercept_of_their_own_slice(tmp_path: Path, signed: bool) -> None:
    slices = fake.planes()
    stored = np.arange(5 * 42).reshape(fake.SHAPE) - (100 if signed else 0)
    for index, one in enumerate(slices):
        fake.set_values(one, stored[index], bits=12, signed=signed)
        one.RescaleSlope, one.RescaleIntercept = 1 + index / 8, -1024 + index

    values = read(fake.save(tmp_path, slices)).values_DHW

    scale, shift = 1 + np.arange(5)[:, None, None] / 8, np.arange(5)[:, None, None] - 1024
    assert np.array_equal(values, stored * scale + shift)


def stored_12_bits(tmp_path: Path, signed: bool, bits: int, *elements: tuple[int, int]) -> Series:
    """Slices of 12 bits, of which those beyond are set as a mask says, with an overlay declared in each place."""
    slices = fake.planes()
    for one in slices:
        values = np.arange(42).reshape(6, 7) - (21 if signed else 0)
        fake.set_values(one, (values & 0xFFF) | np.where(values % 3 == 0, bits, 0), bits=12, signed=signed)
        for group, place in elements:
            one.add_new((group, 0x0100), "US", 16)
            one.add_new((group, 0x0102), "US", place)
    return read(fake.save(tmp_path, slices))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("bits", "elements"),
    [(1 << 12, [(0x6000, 12)]), (0xB000, [(0x6000, 12), (0x6002, 13), (0x601E, 15)]), (0, [(0x6000, 14)])],
)
def test_overlays_in_bits_beyond_the_values_are_no_part_of_them(
    tmp_path: Path, signed: bool, bits: int, elements: list[tuple[int, int]]
) -> None:
    values = stored_12_bits(tmp_path, signed, bits, *elements).values_DHW

    assert np.array_equal(values[0], np.arange(42).reshape(6, 7) - (21 if signed else 0))


def test_a_sign_that_is_not_extended_is_read_as_pydicom_reads_it(tmp_path: Path) -> None:
    values = stored_12_bits(tmp_path, True, 0).values_DHW

    one = pydicom.dcmread(min(tmp_path.iterdir()))
    assert np.array_equal(values[0], one.pixel_array)
    assert values.min() == -21


def test_a_slope_of_0_is_read_as_1_as_dcm2niix_does_and_noted(tmp_path: Path) -> None:
    slices = fake.planes(shape=(5, 32, 32), spacing_mm=(3, 1, 1))
    for one in slices:
        one.RescaleSlope, one.RescaleIntercept = 0, 0
    files = fake.save(tmp_path / "in", slices)

    series = read(files)

    command = [dcm2niix.bin, "-z", "n", "-f", "made", "-o", tmp_path, tmp_path / "in"]
    subprocess.run(command, check=True, capture_output=True)
    assert np.array_equal(np.unique(series.values_DHW), np.unique(nib.load(tmp_path / "made.nii").get_fdata()))
    assert series.notes == ("RescaleSlope is 0 in 5 of 5 slices; taken for 1",)


def test_enhanced_frames_have_slopes_of_their_own(tmp_path: Path) -> None:
    slices = fake.planes()
    for index, one in enumerate(slices):
        one.RescaleSlope, one.RescaleIntercept = 1 + index / 4, 10 * index

    values = read(fake.save(tmp_path, [fake.enhanced(slices)])).values_DHW

    place = np.arange(5)[:, None, None]
    expected = np.stack([one.pixel_array for one in slices]) * (1 + place / 4) + 10 * place
    assert np.array_equal(values, expected)


def test_slices_without_preamble_are_read(tmp_path: Path) -> None:
    slices = fake.planes()
    for index, one in enumerate(slices):
        del one.file_meta
        one.save_as(tmp_path / str(index), implicit_vr=True, little_endian=True)

    found = oriented(sorted(tmp_path.iterdir()))

    assert np.array_equal(found.values_DHW, fake.grid(fake.SHAPE, fake.SPACING_MM))


def test_low_values_that_are_shown_bright_stay_low(tmp_path: Path) -> None:
    slices = fake.planes()
    for one in slices:
        one.PhotometricInterpretation = "MONOCHROME1"

    series = read(fake.save(tmp_path, slices))

    assert series.values_DHW[0, -1, -1] == 0
    assert series.notes == ("low values are meant to be shown bright (MONOCHROME1); they are as stored",)


def test_series_are_told_by_their_uid_and_named_by_their_description(tmp_path: Path) -> None:
    slices = fake.planes() + fake.planes()
    for one in slices[5:]:
        one.SeriesInstanceUID, one.SeriesDescription = "1.2.1.2", "Abdomen"

    found = listing(fake.save(tmp_path, slices, [f"{index}.dcm" for index in range(10)])).series

    assert [series.name for series in found] == ["Thorax", "Abdomen"]


def test_series_whose_identifiers_were_removed_are_told_by_their_folder(tmp_path: Path) -> None:
    files = []
    for folder in ("T1", "T2"):
        slices = fake.planes()
        for one in slices:
            one.SeriesInstanceUID = one.SeriesDescription = one.StudyInstanceUID = ""
        files += fake.save(tmp_path / folder, slices)

    found = listing(files).series

    assert [series.name for series in found] == ["T1", "T2"]


def test_what_is_no_slice_is_left_out_and_counted(tmp_path: Path) -> None:
    slices = fake.planes() + fake.planes()
    scout, colour, capture, report, mask = slices[5:]
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    colour.PhotometricInterpretation, colour.SamplesPerPixel = "RGB", 3
    capture.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    report.SOPClassUID, report.Modality = pydicom.uid.BasicTextSRStorage, "SR"
    del report.Rows, report.PixelData
    mask.SOPClassUID = pydicom.uid.SegmentationStorage

    found = listing(fake.save(tmp_path, slices, [f"{index}.dcm" for index in range(10)]))

    assert found.left_out == {
        "localizers": 1,
        "colour images": 1,
        "secondary captures": 1,
        "SR objects": 1,
        "masks (SEG)": 1,
    }
    assert np.array_equal(
        found.series[0].read("s1").values_DHW, read(fake.save(tmp_path / "only", slices[:5])).values_DHW
    )


def test_series_of_two_examinations_are_noted(tmp_path: Path) -> None:
    slices = fake.planes() + fake.planes()
    for one in slices[5:]:
        one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.2", "1.2.2.1"

    files = fake.save(tmp_path, slices, [f"{index}.dcm" for index in range(10)])

    assert listing(files).notes == ["files of 2 examinations (StudyInstanceUID)"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("StudyInstanceUID", "1.2.2", "is of examination '1.2.1', "),
        ("PatientID", "P2", "is of patient 'P1', "),
    ],
)
def test_a_series_that_names_two_patients_or_examinations_is_an_error_that_names_both(
    tmp_path: Path, name: str, value: str, said: str
) -> None:
    slices = fake.planes()
    setattr(slices[3], name, value)

    with pytest.raises(StudyError, match=re.escape(said)) as caught:
        listing(fake.save(tmp_path, slices))

    assert caught.value.cause is Cause.MIXED_IDENTITY
    assert f"of {value!r} ({name})" in str(caught.value)


def test_a_slice_that_names_no_patient_and_an_object_of_another_are_no_error(tmp_path: Path) -> None:
    slices = fake.planes() + fake.planes()[:1]
    slices[3].PatientID = ""
    slices[5].PatientID, slices[5].SOPClassUID = "MASK", pydicom.uid.SegmentationStorage

    found = listing(fake.save(tmp_path, slices, [f"{index}.dcm" for index in range(6)]))

    assert (len(found.series), found.left_out) == (1, {"masks (SEG)": 1})


def test_what_pydicom_warns_of_becomes_a_note(tmp_path: Path) -> None:
    slices = fake.planes()
    files = fake.save(tmp_path, slices)
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"1.2.1.1\0", b"1.2.1.x\0"))

    (note,) = listing(files).notes

    assert "Invalid value for VR UI: '1.2.1.x'" in note
    assert note.endswith("(5 times)")
