"""Damaged and hostile npz files: one line each."""

import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from histo.errors import UsageError
from histo.learn.data.npz import list_npz

IMAGES, LABELS = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 0, 1])


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def of_shape(shape: str) -> bytes:
    """An array whose header declares this shape."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(100)


def written(path: Path, compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name if "." in name else f"{name}.npy", content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(UsageError, match=r"^--data .*\.npz: ") as caught:
        list_npz(path, "--data")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_members_that_are_no_arrays_are_left(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz", **{"data": npy(IMAGES), "labels": npy(LABELS), "read.me": b"no array"})

    assert len(list_npz(path, "--data").case_ids) == 4


def test_arrays_that_are_not_asked_for_are_named_and_not_read(tmp_path: Path) -> None:
    people = io.BytesIO()
    np.save(people, np.array([{"name": "A"}], object), allow_pickle=True)
    others = {"people": people.getvalue(), "huge": of_shape("(2_000_000_000_000,)"), "torn": b"no array"}

    listing = list_npz(written(tmp_path / "a.npz", data=npy(IMAGES), labels=npy(LABELS), **others), "--data")

    assert listing.others == {"array huge": 1, "array people": 1, "array torn": 1}


def test_labels_are_names_also_as_bytes(tmp_path: Path) -> None:
    labels = np.array(["Tumör", "STR", "STR", "Tumör"])
    as_bytes, other = np.char.encode(labels, "utf-8"), np.char.encode(labels, "latin-1")

    listing = list_npz(written(tmp_path / "a.npz", data=npy(IMAGES), labels=npy(as_bytes)), "--data")

    assert (listing.labels, listing.classes) == (labels.tolist(), ("STR", "Tumör"))
    assert "bytes that are not UTF-8" in refused(written(tmp_path / "b.npz", data=npy(IMAGES), labels=npy(other)))


def test_a_file_of_0_bytes_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.npz").touch()

    assert "not a readable npz file" in refused(tmp_path / "a.npz")


def test_an_array_alone_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npy(IMAGES))

    assert "not a readable npz file" in refused(tmp_path / "a.npz")


def test_an_encrypted_member_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz", data=npy(IMAGES), labels=npy(LABELS))
    content = bytearray(path.read_bytes())
    for head, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(head)
        content[place + flags] |= 1
    path.write_bytes(content)

    assert "encrypted" in refused(path)


def test_an_unknown_compression_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz", data=npy(IMAGES), labels=npy(LABELS))
    content = bytearray(path.read_bytes())
    for head, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.find(head) + method] = 99
    path.write_bytes(content)

    assert "compression" in refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"no array",
        b"",
        of_shape("(1000000000000, 224, 224, 3)"),
        of_shape("(-1, 8, 8, 3)"),
        of_shape("(4, 8)"),
        of_shape("(" * 3000),
        npy(np.array([{}, {}], object)),
    ],
    ids=["text", "nothing", "absurd", "negative", "other", "nested", "objects"],
)
def test_a_member_that_is_no_array_or_of_absurd_shape_is_one_line(tmp_path: Path, content: bytes) -> None:
    refused(written(tmp_path / "a.npz", data=content, labels=npy(LABELS)))


@pytest.mark.parametrize("shape", [(2, 0, 0, 3), (2, 0, 8), (2, 8, 0, 3)])
def test_images_without_pixels_are_one_line(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = written(tmp_path / "a.npz", data=npy(np.zeros(shape, np.uint8)), labels=npy(LABELS[:2]))

    assert "expected uint8 (n, height, width, 3)" in refused(path)


def test_a_pipe_and_a_device_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    (tmp_path / "b.npz").symlink_to("/dev/zero")

    assert "is a named pipe, not a regular file" in refused(tmp_path / "a.npz")
    assert "is a device, not a regular file" in refused(tmp_path / "b.npz")


def test_a_file_that_unpacks_to_too_much_is_refused_by_its_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histo.learn.data.npz.MOST_BYTES", 500)

    assert "more than half of this machine's memory, 500; save it as" in refused(
        written(tmp_path / "a.npz", data=npy(IMAGES), labels=npy(LABELS))
    )


@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), kept=st.floats(0.1, 1))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_damaged_file_is_read_or_one_line(tmp_path: Path, place: float, value: int, kept: float) -> None:
    path = written(tmp_path / "a.npz", data=npy(IMAGES), labels=npy(LABELS))
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] = value
    path.write_bytes(content[: int(kept * len(content))])

    try:
        list_npz(path, "--data")
    except UsageError as error:
        message = str(error)
        assert "\n" not in message


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_arrays_of_one_name_none_is_left_out_in_silence(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz", data=npy(IMAGES), labels=npy(LABELS))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("data.npy", npy(IMAGES + 1))

    assert "two arrays have one name" in refused(path)
