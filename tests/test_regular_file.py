import os
import socket
from pathlib import Path

import pytest

from histo.regular_file import open_regular, read_regular, require_regular


def test_a_regular_file_is_read_whole_through_links(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"whole")
    (tmp_path / "link").symlink_to("a.txt")

    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"whole"
    assert read_regular(tmp_path / "a.txt", most_bytes=5) == b"whole"


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(OSError, match="is a named pipe, not a regular file"):
        require_regular(tmp_path / "pipe")


def test_a_socket_a_device_and_a_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path, what in ((Path("socket"), "a socket"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
            with pytest.raises(OSError, match=f"is {what}, not a"):
                read_regular(path)


def test_a_file_that_is_too_large_is_refused_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)

    with pytest.raises(OSError, match="is larger than 64 MiB"):
        read_regular(tmp_path / "sparse")


def test_a_file_that_hides_its_size_is_bounded_as_well() -> None:
    with pytest.raises(OSError, match="is larger than"):
        read_regular(Path("/proc/self/maps"), most_bytes=10)


def test_the_reason_is_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        open_regular(tmp_path / "missing")

    assert caught.value.strerror == "No such file or directory"
