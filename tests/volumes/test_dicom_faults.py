"""Each fault of a DICOM study: its cause, and a message that says where, what, and the way out."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import fake_dicom as fake
from pydicom.dataset import Dataset
from pydicom.uid import MPEG2MPML, JPEG2000Lossless, RLELossless

from histo.errors import Cause, StudyError
from histo.volumes.preparation import Prepared, prepare
from histo.volumes.spec import PreparationSpec

SPEC = PreparationSpec(series_count=1, slices=3, size_px=16)
Slices = list[Dataset]


def prepare_slices(tmp_path: Path, slices: Slices) -> Prepared:
    return prepare("A/s1", fake.save(tmp_path, slices, [f"{index}.dcm" for index in range(len(slices))]), SPEC)


def mosaic(slices: Slices) -> Slices:
    for one in slices:
        one.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
        one.ImagePositionPatient = [0.0, 0.0, 0.0]
    return slices


def one_slice(slices: Slices) -> Slices:
    return slices[:1]


def missing_slice(slices: Slices) -> Slices:
    return [*slices[:2], *slices[3:]]


def tilt(slices: Slices) -> Slices:
    for index, one in enumerate(slices):
        one.ImagePositionPatient[1] += index
    return slices


def shift(slices: Slices) -> Slices:
    slices[2].ImagePositionPatient[0] += 5
    return slices


def another_size(slices: Slices) -> Slices:
    fake.set_values(slices[3], np.zeros((4, 7)))
    return slices


def another_orientation(slices: Slices) -> Slices:
    slices[3].ImageOrientationPatient = list(fake.SAGITTAL)
    return slices


def another_spacing(slices: Slices) -> Slices:
    slices[3].PixelSpacing = [2.0, 1.1]
    return slices


def two_echoes(slices: Slices) -> Slices:
    return slices + fake.planes()


def a_copy(slices: Slices) -> Slices:
    return [*slices, fake.planes()[1]]


def no_position(slices: Slices) -> Slices:
    slices[1].ImagePositionPatient = None
    return slices


def no_spacing(slices: Slices) -> Slices:
    for one in slices:
        del one.PixelSpacing
    return slices


def zero_orientation(slices: Slices) -> Slices:
    for one in slices:
        one.ImageOrientationPatient = [0, 0, 0, 0, 0, 0]
    return slices


def zero_spacing(slices: Slices) -> Slices:
    for one in slices:
        one.PixelSpacing = [0, 0]
    return slices


def too_many_bits(slices: Slices) -> Slices:
    slices[4].BitsStored = 12
    return slices


def absurd_spacing(slices: Slices) -> Slices:
    for one in slices:
        one.PixelSpacing = [2000.0, 1000.0]
    return slices


def bit_without_overlay(slices: Slices) -> Slices:
    overlay(slices[2], bit=13)
    slices[2].BitsStored = 12
    return slices


def signs_of_two_kinds(slices: Slices) -> Slices:
    fake.set_values(slices[4], np.full((6, 7), -5), signed=True)
    slices[4].PixelData = slices[4].PixelData[:-2] + (3000).to_bytes(2, "little")
    slices[4].BitsStored, slices[4].HighBit = 12, 11
    return slices


def overlay(one: Dataset, bit: int) -> None:
    """Draw a line of graphics into one bit of the pixels, and declare it for another in the place of it."""
    pixels = np.frombuffer(one.PixelData, "<u2").copy()
    pixels[:3] |= 1 << 15
    one.PixelData = pixels.tobytes()
    one.add_new((0x6000, 0x0100), "US", 16)
    one.add_new((0x6000, 0x0102), "US", bit)


def wrapped_hounsfield(slices: Slices) -> Slices:
    fake.set_values(slices[2], np.full((6, 7), 65000))
    slices[2].RescaleIntercept = -1024
    return slices


def infinite(slices: Slices) -> Slices:
    slices[2].RescaleSlope = 1e38
    return slices


def modality_table(slices: Slices) -> Slices:
    slices[2].ModalityLUTSequence = [Dataset()]
    return slices


def unknown_compression(slices: Slices) -> Slices:
    slices[2].compress(RLELossless)
    slices[2].file_meta.TransferSyntaxUID = MPEG2MPML
    return slices


@pytest.mark.parametrize(
    ("fault", "cause", "message"),
    [
        (mosaic, Cause.MIXED_SLICES, "5 mosaics (Siemens), each of many slices side by side in one picture; convert"),
        (one_slice, Cause.ONE_SLICE, "one slice, 0.dcm; leave out scouts"),
        (missing_slice, Cause.UNEVEN_SPACING, "6 mm from 1.dcm to 2.dcm, elsewhere 3 mm (1 missing in between?); find"),
        (tilt, Cause.GANTRY_TILT, "slices are sheared by 18.4 degrees (a tilted gantry; at most 0.5); resample"),
        (shift, Cause.BAD_GEOMETRY, "2.dcm lies 5.00 mm beside the others"),
        (another_size, Cause.MIXED_SIZES, "rows and columns: 0.dcm [6, 7], 3.dcm [4, 7] (1 of 5 differ); keep"),
        (another_orientation, Cause.MIXED_SIZES, "orientation: 0.dcm [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], 3.dcm [0.0, 1.0"),
        (another_spacing, Cause.MIXED_SIZES, "pixel spacing (mm): 0.dcm [2.0, 1.0], 3.dcm [2.0, 1.1] (1 of 5 differ)"),
        (two_echoes, Cause.MIXED_SLICES, "2 slices at each of 5 positions, such as 0.dcm and 5.dcm; divide"),
        (a_copy, Cause.MIXED_SLICES, "1 to 2 slices at each of 5 positions, such as 1.dcm and 5.dcm; divide"),
        (no_position, Cause.NO_ORIENTATION, "1.dcm has no ImagePositionPatient; export"),
        (no_spacing, Cause.NO_ORIENTATION, "0.dcm has no PixelSpacing; export"),
        (
            zero_orientation,
            Cause.BAD_GEOMETRY,
            "0.dcm has the orientation [0.0, 0.0, 0.0, 0.0, 0.0, 0.0] and the pixel",
        ),
        (zero_spacing, Cause.BAD_GEOMETRY, "and the pixel spacing [0.0, 0.0]; export the series again"),
        (
            too_many_bits,
            Cause.OVERFLOW,
            "4.dcm stores values from 12288 to 12614; its 12 bits hold 0 to 4095: they have",
        ),
        (bit_without_overlay, Cause.OVERFLOW, "2.dcm stores values from 6144 to 39238; its 12 bits hold 0 to 4095"),
        (signs_of_two_kinds, Cause.OVERFLOW, "4.dcm stores values from -5 to 3000; its 12 bits hold -2048 to 2047"),
        (absurd_spacing, Cause.BAD_GEOMETRY, "voxels 3 x 2000 x 1000 mm apart; expected 0.01 to 100 mm; correct"),
        (
            wrapped_hounsfield,
            Cause.OVERFLOW,
            "values from 0 to 63976; Hounsfield units lie within -32768 and 32767: 16",
        ),
        (infinite, Cause.NOT_FINITE, "42 values are NaN or infinite; replace them"),
        (modality_table, Cause.UNREADABLE, "2.dcm scales its values by a table (Modality LUT), which is not supported"),
        (
            unknown_compression,
            Cause.NO_DECODER,
            "is compressed as MPEG2 Main Profile / Main Level, which nothing here decodes; decompress it",
        ),
    ],
)
def test_a_fault_of_a_series_is_told(
    tmp_path: Path, fault: Callable[[Slices], Slices], cause: Cause, message: str
) -> None:
    with pytest.raises(StudyError, match=f"^A/s1: series Thorax: .*{re.escape(message)}") as raised:
        prepare_slices(tmp_path, fault(fake.planes()))

    assert raised.value.cause == cause
    assert "\n" not in str(raised.value)


def test_a_fault_of_a_series_that_is_not_wanted_does_not_matter(tmp_path: Path) -> None:
    others = tilt(fake.planes())
    for one in others:
        one.SeriesInstanceUID, one.SeriesDescription = "1.2.1.2", "Tilted"
    files = fake.save(tmp_path / "a", fake.planes()) + fake.save(tmp_path / "b", others)

    prepared = prepare("s1", files, PreparationSpec(series=["thorax"], slices=3, size_px=16))

    assert prepared.columns["series"] == ["Thorax"]


@pytest.mark.parametrize("kept", [0.3, 0.97])
def test_a_truncated_file_is_unreadable(tmp_path: Path, kept: float) -> None:
    files = fake.save(tmp_path, fake.planes())
    files[2].write_bytes(files[2].read_bytes()[: int(files[2].stat().st_size * kept)])

    with pytest.raises(StudyError, match=rf"A/s1: .*{files[2]}.*copy it again") as raised:
        prepare("A/s1", files, SPEC)

    assert raised.value.cause == Cause.UNREADABLE


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.98])
def test_a_truncated_jpeg_2000_is_unreadable(tmp_path: Path, kept: float) -> None:
    slices = fake.planes(shape=(5, 32, 32), spacing_mm=(3, 1, 1))
    for one in slices:
        one.compress(JPEG2000Lossless)
    files = fake.save(tmp_path, slices)
    files[2].write_bytes(files[2].read_bytes()[: int(files[2].stat().st_size * kept)])

    with pytest.raises(StudyError, match=str(files[2])) as raised:
        prepare("A/s1", files, SPEC)

    assert raised.value.cause == Cause.UNREADABLE


@pytest.mark.parametrize("size", range(133, 700, 37))
def test_no_truncation_of_a_header_leaves_a_slice_out_in_silence(tmp_path: Path, size: int) -> None:
    files = fake.save(tmp_path, fake.planes())
    files[-1].write_bytes(files[-1].read_bytes()[:size])

    with pytest.raises(StudyError):
        prepare("A/s1", files, SPEC)


def test_an_empty_file_is_unreadable(tmp_path: Path) -> None:
    files = fake.save(tmp_path, fake.planes())
    files[2].write_bytes(b"")

    with pytest.raises(StudyError, match=rf"^A/s1: {files[2]} is empty; copy it again, or remove it$") as raised:
        prepare("A/s1", files, SPEC)

    assert raised.value.cause == Cause.UNREADABLE


def test_a_missing_file_may_be_there_the_next_time(tmp_path: Path) -> None:
    files = fake.save(tmp_path, fake.planes())
    files[2].unlink()

    with pytest.raises(StudyError, match=rf"^A/s1: {files[2]}: No such file or directory; make") as raised:
        prepare("A/s1", files, SPEC)

    assert raised.value.cause == Cause.NO_ACCESS
    assert raised.value.cause.transient


def test_files_of_other_kinds_are_left_out_with_a_note(tmp_path: Path) -> None:
    files = fake.save(tmp_path, fake.planes())
    for name in ("notes.txt", "Thumbs.db", "a.txt"):
        (tmp_path / name).write_text("no image, whatever its name may be" * 9)

    prepared = prepare("A/s1", sorted(tmp_path.iterdir()), SPEC)

    assert prepared.columns["notes"] == "left out: 1 .db files, 2 .txt files"
    assert np.array_equal(prepared.volume_SDHW, prepare("A/s1", files, SPEC).volume_SDHW)


def test_a_study_of_other_files_has_no_images(tmp_path: Path) -> None:
    (tmp_path / "notes.dcm").write_text("no image")

    with pytest.raises(StudyError, match=r"^A/s1: no MRI or CT series in it, but 1 \.dcm files; give NIfTI") as raised:
        prepare("A/s1", [tmp_path / "notes.dcm"], SPEC)

    assert raised.value.cause == Cause.NO_IMAGES


def test_a_study_without_files_has_no_images() -> None:
    with pytest.raises(StudyError, match=r"^A/s1: no files in it; give NIfTI") as raised:
        prepare("A/s1", [], SPEC)

    assert raised.value.cause == Cause.NO_IMAGES


def test_frames_without_places_have_no_orientation(tmp_path: Path) -> None:
    whole = fake.enhanced(fake.planes())
    del whole.PerFrameFunctionalGroupsSequence

    with pytest.raises(StudyError, match=r"0\.dcm has no ImagePositionPatient") as raised:
        prepare_slices(tmp_path, [whole])

    assert raised.value.cause == Cause.NO_ORIENTATION


def test_a_multi_frame_file_that_is_short_of_a_frame_is_unreadable(tmp_path: Path) -> None:
    whole = fake.enhanced(fake.planes())
    whole.PixelData = whole.PixelData[:-84]

    with pytest.raises(StudyError, match="cannot be decoded") as raised:
        prepare_slices(tmp_path, [whole])

    assert raised.value.cause == Cause.UNREADABLE
