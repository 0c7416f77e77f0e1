import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from histo.dicom_head import MOST_BYTES, read_head

SERIES = "1.2.826.0.1.3680043.8.498.1"


def write(path: Path, syntax: str, body: bytes = b"", **values: str) -> Path:
    """Write a DICOM file of some values, sorted, and then a body as it is."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.file_meta.MediaStorageSOPClassUID = header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    for name, value in values.items():
        setattr(header, name, value)
    header.save_as(path, enforce_file_format=True)
    if body:
        with path.open("ab") as file:
            file.write(body)
    return path


def deflated(path: Path, data: bytes) -> Path:
    """Write a deflated DICOM file whose data set is these bytes."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    head = write(path, DeflatedExplicitVRLittleEndian).read_bytes()
    nothing = zlib.compress(b"", wbits=-zlib.MAX_WBITS)
    assert head.endswith(nothing)
    path.write_bytes(head.removesuffix(nothing) + deflate.compress(data) + deflate.flush())
    return path


def element(group: int, number: int, vr: bytes, length: int, value: bytes = b"") -> bytes:
    size = struct.pack("<2xL", length) if vr in {b"OB", b"SQ", b"UN"} else struct.pack("<H", length)
    return struct.pack("<HH", group, number) + vr + size + value


def series_element() -> bytes:
    value = SERIES.encode() + b"\0" * (len(SERIES) % 2)
    return element(0x20, 0xE, b"UI", len(value), value)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian], ids=["i", "e", "d"]
)
def test_values_are_read_however_a_file_is_stored(tmp_path: Path, syntax: str) -> None:
    path = write(tmp_path / "a", syntax, PatientID="P 1", SeriesInstanceUID=SERIES, BodyPartExamined="BREAST")

    assert read_head(path, ["SeriesInstanceUID", "PatientID", "StudyInstanceUID"]) == (SERIES, "P 1", "")


@pytest.mark.slow
def test_of_a_deflated_file_no_more_is_inflated_than_the_bound(tmp_path: Path) -> None:
    path = deflated(tmp_path / "bomb.dcm", element(8, 5, b"OB", 2**28, bytes(2**28)))

    tracemalloc.start()
    found = read_head(path, ["SeriesInstanceUID"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found == ("",)
    assert peak < 8 * MOST_BYTES


def test_a_deflated_file_of_any_size_is_known_by_its_beginning(tmp_path: Path) -> None:
    path = deflated(tmp_path / "a.dcm", series_element() + element(0x7FE0, 0x10, b"OB", 2**24, bytes(2**24)))

    assert read_head(path, ["SeriesInstanceUID"]) == (SERIES,)


def test_a_large_value_that_is_not_asked_for_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", ExplicitVRLittleEndian, element(9, 0x1001, b"OB", 2**28))
    with path.open("r+b") as file:
        file.seek(2**28, 2)
        file.write(series_element())

    assert read_head(path, ["SeriesInstanceUID"]) == (SERIES,)


def test_a_value_that_claims_more_than_the_bound_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", ExplicitVRLittleEndian, element(0x20, 0xE, b"UN", 2**31))
    with path.open("r+b") as file:
        file.truncate(2**32)

    tracemalloc.start()
    found = read_head(path, ["SeriesInstanceUID"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found == ("",)
    assert peak < 8 * MOST_BYTES


def test_what_comes_after_the_values_is_not_looked_at(tmp_path: Path) -> None:
    endless = element(0x5200, 0x9230, b"SQ", 0xFFFFFFFF, b"\xfe\xff\x00\xe0\0\0\0\0" * 500_000)
    path = write(tmp_path / "a.dcm", ExplicitVRLittleEndian, endless, SeriesInstanceUID=SERIES)

    assert read_head(path, ["SeriesInstanceUID"]) == (SERIES,)


def test_a_file_that_is_gone_says_nothing(tmp_path: Path) -> None:
    assert read_head(tmp_path / "gone", ["SeriesInstanceUID", "PatientID"]) == ("", "")
