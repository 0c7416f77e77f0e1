"""A file that threads share, on a drive that fails for a moment, or for good."""

import errno
import os
from pathlib import Path

import psutil
import pytest

from histo.errors import Cause, InputError
from histo.slides.files import SharedFile


@pytest.fixture
def file(tmp_path: Path) -> SharedFile:
    (tmp_path / "f").write_bytes(bytes(range(100)))
    return SharedFile(str(tmp_path / "f"))


def failing(times: int) -> object:
    """Stand in for `os.pread`, and fail so many times."""
    read, left = os.pread, [times]

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(descriptor, count, offset)

    return pread


def test_a_handle_that_was_lost_is_opened_anew(file: SharedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pread", failing(1))

    assert file.read(10, 5) == bytes(range(10, 15))
    assert file.read(98, 5) == bytes((98, 99))


def test_a_file_that_cannot_be_read_is_an_error_that_may_pass(
    file: SharedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pread", failing(2))

    with pytest.raises(InputError, match="Stale file handle; make the file readable") as caught:
        file.read(0, 1)

    assert caught.value.cause is Cause.NO_ACCESS


def test_every_descriptor_is_closed(file: SharedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pread", failing(1))
    file.read(0, 1)
    before = descriptors(tmp_path / "f")

    file.close()

    assert (before, descriptors(tmp_path / "f")) == (2, 0)


def descriptors(path: Path) -> int:
    """Count those of this process that are of a file."""
    own = psutil.Process().open_files()
    return sum(opened.path == str(path.resolve()) for opened in own)
