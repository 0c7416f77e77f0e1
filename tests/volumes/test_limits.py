"""Files of a few bytes that declare, or unpack to, more than any machine has: refused before anything is decoded."""

import gzip
import os
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gdcm
import nibabel as nib
import numpy as np
import pytest
from helpers import fake_dicom as fake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from histo.errors import Cause, ImageError, StudyError
from histo.pipelines.studies.worker import file_columns
from histo.volume_file import read_header, read_volume
from histo.volumes import limits
from histo.volumes.formats.nifti import list_nifti
from histo.volumes.preparation import prepare
from histo.volumes.spec import PreparationSpec

SPEC = PreparationSpec(series_count=1, slices=3, size_px=16)
MEGABYTE = 2**20


@pytest.fixture(autouse=True)
def memory_is_bounded() -> Iterator[None]:
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * MEGABYTE


def fault(files: list[Path]) -> StudyError:
    with pytest.raises(StudyError) as caught:
        prepare("A/s1", files, SPEC)
    assert "\n" not in str(caught.value)
    return caught.value


def edited(tmp_path: Path, **changes: Any) -> list[Path]:
    slices = fake.planes()
    for name, value in changes.items():
        setattr(slices[1], name, value)
    return fake.save(tmp_path, slices, [f"{index}.dcm" for index in range(len(slices))])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"NumberOfFrames": 2**31 - 1}, "1.dcm: 2,147,483,647 frames, more than 65,536"),
        ({"NumberOfFrames": 60_000, "Rows": 60_000, "Columns": 60_000}, "60000 x 60000 x 60000 voxels, more than"),
        ({"Rows": 65_535, "Columns": 65_535}, "1 x 65535 x 65535 voxels, more than 1,073,741,824"),
    ],
)
def test_dicom_of_absurd_dimensions_is_too_large(tmp_path: Path, changes: dict[str, int], words: str) -> None:
    error = fault(edited(tmp_path, **changes))

    assert error.cause is Cause.TOO_LARGE
    assert not error.cause.transient
    assert words in str(error)


def test_dicom_of_no_frames_is_unreadable(tmp_path: Path) -> None:
    assert fault(edited(tmp_path, NumberOfFrames=-5)).cause is Cause.UNREADABLE


def test_a_series_of_too_many_planes_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_VOXELS", 6 * 7 * 4)

    error = fault(fake.save(tmp_path, fake.planes()))

    assert error.cause is Cause.TOO_LARGE
    assert "series Thorax: 5 x 6 x 7 voxels" in str(error)


def deflated(one: Dataset, values: int) -> Dataset:
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    one.add_new(0x00091010, "OB", bytes(values))
    return one


def test_a_deflated_file_within_the_limit_is_read(tmp_path: Path) -> None:
    plain = prepare("s", fake.save(tmp_path / "a", fake.planes()), SPEC)

    packed = prepare("s", fake.save(tmp_path / "b", [deflated(one, 100) for one in fake.planes()]), SPEC)

    assert np.array_equal(packed.volume_SDHW, plain.volume_SDHW)


@pytest.mark.slow
def test_a_deflated_bomb_is_too_large_and_never_unpacked_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = fake.planes()
    files = fake.save(tmp_path, [deflated(slices[0], 150 * MEGABYTE), *slices[1:]])
    tracemalloc.clear_traces()  # writing it took more
    monkeypatch.setattr(limits, "MOST_DEFLATED_BYTES", 100 * MEGABYTE)

    error = fault(files)

    assert error.cause is Cause.TOO_LARGE
    assert "unpacks to more than 100 MiB" in str(error)
    assert tracemalloc.get_traced_memory()[1] < 50 * MEGABYTE
    tracemalloc.reset_peak()


def test_a_dicom_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    files = fake.save(tmp_path, fake.planes())
    with files[0].open("r+b") as file:
        file.truncate(2**40)

    assert fault(files).cause is Cause.TOO_LARGE


@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEGLSLossless", "JPEGLosslessProcess14_1"])
def test_a_frame_that_is_larger_than_its_header_is_not_decoded(tmp_path: Path, syntax: str) -> None:
    files = fake.save(tmp_path, fake.planes(shape=(5, 32, 32), spacing_mm=(3, 1, 1)))
    for file in files:
        fake.compress_with_gdcm(file, getattr(gdcm.TransferSyntax, syntax))
    prepare("s", files, SPEC)
    for file in files:
        dataset = dcmread(file)
        dataset.Rows = dataset.Columns = 16
        dataset.save_as(file)

    error = fault(files)

    assert error.cause is Cause.UNREADABLE
    assert "a frame of 32 x 32 pixels, and a header of 16 x 16" in str(error)


def test_what_looks_like_a_frame_in_other_streams_is_left_alone(tmp_path: Path) -> None:
    slices = fake.planes(shape=(5, 32, 32), spacing_mm=(3, 1, 1))
    for one in slices:
        values = np.frombuffer(one.PixelData, "<u2").reshape(32, 32).copy()
        values[0, :6] = np.frombuffer(b"\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x00\x00", "<u2") & 0x0FFF
        fake.set_values(one, values)
        one.compress(RLELossless)

    assert prepare("s", fake.save(tmp_path, slices), SPEC).volume_SDHW.shape == (1, 3, 16, 16)


def nifti(path: Path, *, dim: tuple[int, ...] = (), offset: float | None = None, version: int = 1) -> Path:
    """A small file whose header was edited."""
    kind: Any = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    image = kind(np.ones((6, 7, 5), np.int16), fake.ras())
    content = bytearray(image.to_bytes())
    if dim and version == 1:
        struct.pack_into(f"<{1 + len(dim)}h", content, 40, len(dim), *dim)
    elif dim:
        struct.pack_into(f"<{1 + len(dim)}q", content, 16, len(dim), *dim)
    if offset is not None:
        struct.pack_into("<f", content, 108, offset)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("dim", "version", "words"),
    [
        ((32767, 32767, 32767), 1, "32767 x 32767 x 32767 voxels, more than 1,073,741,824"),
        ((2**40, 2, 2), 2, "1099511627776 x 2 x 2 voxels"),
        ((6, 7, 5, 2**40), 2, "1,099,511,627,776 series, more than 10,000"),
    ],
)
def test_nifti_of_absurd_dimensions_is_too_large(
    tmp_path: Path, ending: str, dim: tuple[int, ...], version: int, words: str
) -> None:
    error = fault([nifti(tmp_path / f"t{ending}", dim=dim, version=version)])

    assert error.cause is Cause.TOO_LARGE
    assert words in str(error)


def test_a_nifti_file_that_unpacks_to_gigabytes_is_too_large_and_never_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    content = bytearray(nib.Nifti1Image(np.ones((6, 7, 5), np.float64), fake.ras()).to_bytes())
    struct.pack_into("<4h", content, 40, 3, 1000, 1000, 1000)
    block = gzip.compress(bytes(64 * MEGABYTE), 1)
    path.write_bytes(gzip.compress(content) + block * 125)
    tracemalloc.reset_peak()

    error = fault([path])

    assert error.cause is Cause.TOO_LARGE
    assert "8,000,000,000 bytes of voxels, more than 4,294,967,296; crop or divide it" in str(error)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_nifti_file_that_cannot_hold_what_it_declares_takes_no_memory(tmp_path: Path, ending: str) -> None:
    error = fault([nifti(tmp_path / f"t{ending}", dim=(1000, 1000, 1000))])

    assert error.cause is Cause.UNREADABLE
    assert "bytes cannot hold" in str(error)


@pytest.mark.parametrize("offset", [1e30, 3e9, float("nan"), float("inf"), -1e9])
def test_a_nifti_header_of_absurd_length_is_unreadable(tmp_path: Path, offset: float) -> None:
    assert fault([nifti(tmp_path / "t.nii.gz", offset=offset)]).cause is Cause.UNREADABLE


def test_a_nifti_file_that_goes_on_and_on_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = nifti(tmp_path / "t.nii.gz")
    with gzip.open(path, "ab", compresslevel=1) as file:
        for _ in range(65):
            file.write(bytes(MEGABYTE))

    error = fault([path])

    assert error.cause is Cause.UNREADABLE
    assert "does not end behind its voxels" in str(error)


def volume(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content))
    return path


def test_a_prepared_volume_of_absurd_dimensions_is_refused_by_its_header(tmp_path: Path) -> None:
    content = bytearray(nib.Nifti1Image(np.ones((6, 7, 5), np.uint8), np.eye(4)).to_bytes())
    struct.pack_into("<4h", content, 40, 3, 32767, 32767, 32767)
    path = volume(tmp_path / "v.nii.gz", bytes(content))

    for read in (read_header, read_volume):
        with pytest.raises(ImageError, match=r"v\.nii\.gz: 32767 x 32767 x 32767 voxels, more than 1,073,741,824"):
            read(path)


def test_a_prepared_volume_without_voxels_is_refused(tmp_path: Path) -> None:
    content = bytearray(nib.Nifti1Image(np.ones((6, 7, 5), np.uint8), np.eye(4)).to_bytes())
    struct.pack_into("<4h", content, 40, 3, 6, 0, 5)

    with pytest.raises(ImageError):
        read_volume(volume(tmp_path / "v.nii.gz", bytes(content)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("length", [2**31 - 16, -16, 0])
def test_an_extension_of_absurd_length_is_not_read(tmp_path: Path, length: int) -> None:
    content = bytearray(nib.Nifti1Image(np.ones((6, 7, 5), np.uint8), np.eye(4)).to_bytes())
    struct.pack_into("<f", content, 108, 384.0)
    content[348:352] = struct.pack("<i", 1)
    content[352:352] = struct.pack("<ii", length, 6) + bytes(24)
    path = tmp_path / "v.nii.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(content)
        for _ in range(300):
            file.write(bytes(MEGABYTE))

    with suppress(ImageError):
        read_header(path)


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.nii.gz")
    (tmp_path / "d.nii").symlink_to("/dev/zero")

    for name in ("v.nii.gz", "d.nii"):
        with pytest.raises(ImageError, match=r"is a (named pipe|device), not a regular file"):
            read_volume(tmp_path / name)
        with pytest.raises(StudyError, match="is a pipe, a socket or a device"):
            file_columns([tmp_path / name])
        assert fault([tmp_path / name]).cause is Cause.UNREADABLE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@given(
    dim=st.lists(st.integers(-(2**62), 2**62 - 1), min_size=0, max_size=7),
    offset=st.floats(width=32),
    kind=st.integers(-(2**15), 2**15 - 1),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_header_is_an_error_of_its_study_or_a_list_of_series(
    tmp_path: Path, dim: list[int], offset: float, kind: int
) -> None:
    content = bytearray(nib.Nifti2Image(np.ones((6, 7, 5), np.int16), fake.ras()).to_bytes())
    struct.pack_into("<8q", content, 16, len(dim), *dim, *[1] * (7 - len(dim)))
    struct.pack_into("<h", content, 12, kind)
    struct.pack_into("<q", content, 168, int(np.clip(np.nan_to_num(offset), -(2**62), 2**62)))
    path = tmp_path / "t.nii"
    path.write_bytes(content)

    with suppress(StudyError):
        assert len(list_nifti("s", path, allow_no_orientation=True)) <= limits.MOST_SERIES


@pytest.mark.parametrize("text", ["[" * 100_000, '{"histo": [1]}', '{"histo": null}', "[]", "\xff"])
def test_an_extension_of_another_shape_says_nothing(tmp_path: Path, text: str) -> None:
    image = nib.Nifti1Image(np.ones((6, 7, 5), np.uint8), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, text.encode("latin-1")))

    assert read_header(volume(tmp_path / "v.nii.gz", image.to_bytes()))[1] == {}


@pytest.mark.parametrize(("units", "cause"), [(7, Cause.BAD_GEOMETRY), (2 | 96, None), (2 | 255 & ~7, None)])
def test_unknown_units_of_space_are_an_error_and_those_of_time_say_nothing(
    tmp_path: Path, units: int, cause: Cause | None
) -> None:
    path = nifti(tmp_path / "t.nii")
    content = bytearray(path.read_bytes())
    content[123] = units
    path.write_bytes(content)

    if cause is None:
        assert prepare("s", [path], SPEC).spacing_mm
    else:
        assert fault([path]).cause is cause
