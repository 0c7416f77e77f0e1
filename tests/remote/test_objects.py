import errno
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from helpers.s3_server import serving

from histo.remote import objects
from histo.remote.objects import RemoteState, fetch, glob_files, list_files, patiently, read, state


class AnswerError(Exception):
    """What a library raises for an answer of a server."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@pytest.fixture(autouse=True)
def memory() -> Iterator[MemoryFileSystem]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that passes without being waited for."""
    slept: list[float] = []
    monkeypatch.setattr(objects.time, "sleep", slept.append)
    monkeypatch.setattr(objects.time, "monotonic", lambda: sum(slept))
    return slept


@pytest.mark.parametrize("error", [*map(AnswerError, (503, 500, 429)), ConnectionResetError(), TimeoutError()])
def test_what_may_pass_is_tried_again(waits: list[float], error: Exception) -> None:
    answers = iter([error, error, error])

    def ask() -> str:
        if (trouble := next(answers, None)) is not None:
            raise trouble
        return "here"

    assert patiently(ask, "s3://b/a") == "here"
    assert len(waits) == 3
    assert sorted(waits) == waits or max(waits) < 1, "each wait is longer than the one before, give or take"


@pytest.mark.parametrize("error", [FileNotFoundError(), PermissionError(), *map(AnswerError, (404, 403, 400))])
def test_what_is_final_is_not_tried_again(waits: list[float], error: Exception) -> None:
    with pytest.raises(OSError, match="s3://b/a") as raised:
        patiently(partial(_raise, error), "s3://b/a")

    assert not waits
    assert raised.value.filename == "s3://b/a"


def test_patience_ends_and_the_reason_is_one_line(waits: list[float]) -> None:
    with pytest.raises(OSError, match="https://h/a") as raised:
        patiently(partial(_raise, ConnectionError("no route\nto host")), "https://me:secret@h/a?sig=1", patience_s=100)

    assert 50 < sum(waits) <= 100
    assert raised.value.strerror == f"no route to host, for {sum(waits):.0f} s"
    assert raised.value.filename == "https://h/a"


def _raise(error: Exception) -> None:
    raise error


def test_files_are_listed_by_their_uris(memory: MemoryFileSystem) -> None:
    memory.pipe({"/b/x/1.svs": b"1", "/b/x/y/2.svs": b"22", "/b/z/3.txt": b"333"})

    listed = list_files("memory://b/x")

    assert [uri.rpartition("/b/")[2] for uri in listed] == ["x/1.svs", "x/y/2.svs"]
    assert [one.size_bytes for one in listed.values()] == [1, 2]
    assert all(state(uri) == one for uri, one in listed.items()), "a list tells the same as a request for one file"
    assert list_files("memory://b/gone") == {}


def test_a_pattern_chooses_files_and_folders(memory: MemoryFileSystem) -> None:
    memory.pipe({"/b/x1/1.svs": b"1", "/b/x2/2.svs": b"22", "/b/x3.svs": b"333"})

    files, folders = glob_files("memory://b/x*")

    assert [uri.rpartition("/")[2] for uri in files] == ["x3.svs"]
    assert [uri.rpartition("/")[2] for uri in folders] == ["x1", "x2"]


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 10_500])
def test_a_copy_is_whole_and_as_old_as_its_file(
    memory: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(objects, "_PIECE", 1000)
    content = bytes(i * i % 251 for i in range(size))
    memory.pipe("/b/a.svs", content)
    expected = state("memory://b/a.svs")

    fetch("memory://b/a.svs", tmp_path / "a.svs", expected)

    assert (tmp_path / "a.svs").read_bytes() == content
    assert (tmp_path / "a.svs").stat().st_mtime_ns == expected.changed_ns


def test_a_piece_that_came_short_is_fetched_again(
    memory: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    monkeypatch.setattr(objects, "_PIECE", 1000)
    memory.pipe("/b/a.svs", bytes(3500))
    whole, asked = MemoryFileSystem.cat_file, list[int]()

    def short(self: MemoryFileSystem, path: str, start: int | None = None, end: int | None = None) -> bytes:
        asked.append(start or 0)
        content: bytes = whole(self, path, start, end)
        return content[:-1] if asked.count(start or 0) == 1 else content

    monkeypatch.setattr(MemoryFileSystem, "cat_file", short)

    fetch("memory://b/a.svs", tmp_path / "a.svs", state("memory://b/a.svs"))

    assert (tmp_path / "a.svs").read_bytes() == bytes(3500)
    assert sorted(asked) == [0, 0, 1000, 1000, 2000, 2000, 3000, 3000], "each piece twice, none a third time"


def test_a_file_that_changes_while_it_is_fetched_is_an_error(memory: MemoryFileSystem, tmp_path: Path) -> None:
    memory.pipe("/b/a.svs", bytes(10))
    before = state("memory://b/a.svs")._replace(changed_ns=0)

    with pytest.raises(OSError, match="changed while it was fetched") as raised:
        fetch("memory://b/a.svs", tmp_path / "a.svs", before)

    assert raised.value.errno == errno.ESTALE


def test_a_web_server_without_ranges_sends_files_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_PIECE", 1000)
    (tmp_path / "web").mkdir()
    content = bytes(i % 253 for i in range(2500))
    (tmp_path / "web" / "a b.svs").write_bytes(content)
    handler = partial(_Quiet, directory=str(tmp_path / "web"))
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        uri = f"http://127.0.0.1:{server.server_address[1]}/a%20b.svs"
        expected = state(uri)

        fetch(uri, tmp_path / "copy", expected)

        assert expected.size_bytes == 2500
        assert (tmp_path / "copy").read_bytes() == content
        assert read(uri, 10, 20) == content[10:20]
        with pytest.raises(FileNotFoundError):
            state(f"http://127.0.0.1:{server.server_address[1]}/gone.svs")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_times_below_a_second_do_not_count() -> None:
    info = {"size": 1, "LastModified": "2026-01-01T00:00:00.250Z"}

    assert objects._state(info) == objects._state(info | {"LastModified": "2026-01-01T00:00:00+00:00"})
    assert objects._state(info).changed_ns == 1767225600 * 10**9


def test_an_etag_stands_for_a_time_that_is_not_told() -> None:
    one, other = (objects._state({"size": 1, "ETag": tag}) for tag in ('"a"', '"b"'))

    assert one != other
    assert one == objects._state({"size": 1, "ETag": '"a"'})
    assert objects._state({"size": 1}) == RemoteState(1, 0)
    assert one.changed_ns > 0
