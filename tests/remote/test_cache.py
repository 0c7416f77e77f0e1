"""The copies of remote files: within their bound, never removed while they are read, fetched once."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from helpers.s3_server import BUCKET, s3_server, upload, use_server
from upath import UPath

from histo.errors import Cause, InputError, UsageError
from histo.remote import cache as module
from histo.remote.cache import Cache, held
from histo.remote.objects import state

SIZE = 1000


@pytest.fixture(autouse=True)
def memory() -> Iterator[MemoryFileSystem]:
    files = fsspec.filesystem("memory")
    files.pipe({f"/b/{number}.svs": bytes([number]) * SIZE for number in range(20)})
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are fetched."""
    names: list[str] = []
    fetch = module.fetch

    def counted(uri: str, *arguments: object) -> None:
        names.append(uri.rpartition("/")[2])
        fetch(uri, *arguments)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(module, "fetch", counted)
    return names


def uri(number: int) -> str:
    return f"memory://b/{number}.svs"


def used(root: Path) -> int:
    """Bytes of all copies, on the disk as it is."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names if "/files" in folder else ():
            with suppress(FileNotFoundError):  # removed meanwhile
                total += Path(folder, name).stat().st_size
    return total


def there(root: Path) -> set[int]:
    return {int(path.stem) for path in root.glob("*/files/*")}


def test_local_files_are_as_they_are(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache").local(["/data/a.svs", "/data/b"]) as copies:
        assert copies.files == ("/data/a.svs", "/data/b")
        assert not copies.are_copies
        copies.mark(ahead=True)

    assert not (tmp_path / "cache").exists()


def test_files_larger_than_the_cache_together_pass_through_it(tmp_path: Path, fetched: list[str]) -> None:
    cache, most = Cache(tmp_path, 3 * SIZE), 0
    for number in range(20):
        with cache.local([uri(number)]) as copies:
            assert Path(copies.files[0]).read_bytes() == bytes([number]) * SIZE
            most = max(most, used(tmp_path))

    assert most == 3 * SIZE
    assert there(tmp_path) == {17, 18, 19}
    assert fetched == [f"{number}.svs" for number in range(20)]
    assert len([*tmp_path.glob("?*.lock")]) == 3, "locks of removed copies are gone, too"


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, fetched: list[str]) -> None:
    cache = Cache(tmp_path, 3 * SIZE)
    for number in (0, 1, 2, 0, 3):
        with cache.local([uri(number)]):
            time.sleep(0.02)

    assert there(tmp_path) == {0, 2, 3}
    assert fetched == ["0.svs", "1.svs", "2.svs", "3.svs"]


def test_a_copy_that_is_read_stays_and_is_waited_for(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2 * SIZE)
    with ThreadPoolExecutor(1) as thread, cache.local([uri(1)]) as second:
        with cache.local([uri(0)]) as first:
            waiting = thread.submit(_read, cache, uri(2))
            time.sleep(0.5)
            assert not waiting.done(), "both copies are being read"
            assert Path(first.files[0]).read_bytes() == bytes(SIZE)
        assert waiting.result() == bytes([2]) * SIZE
        assert there(tmp_path) == {1, 2}
        assert Path(second.files[0]).exists()


def _read(cache: Cache, name: str) -> bytes:
    with cache.local([name]) as copies:
        return Path(copies.files[0]).read_bytes()


def test_patience_with_readers_ends(tmp_path: Path) -> None:
    cache = Cache(tmp_path, SIZE, patience_s=0.3)

    with (
        cache.local([uri(0)]),
        pytest.raises(InputError, match=r"memory://b/1.svs: no room.*raise --cache.gib") as raised,
    ):
        _read(cache, uri(1))

    assert raised.value.cause is Cause.NO_ACCESS, "the next run tries it again"


def test_a_file_larger_than_the_cache_is_an_error_at_once(tmp_path: Path, fetched: list[str]) -> None:
    with pytest.raises(InputError, match=r"no room for a copy.*9\.31e-07 GiB.*9\.3e-07 GiB; raise"):
        _read(Cache(tmp_path, SIZE - 1), uri(0))

    assert not fetched
    assert _read(Cache(tmp_path, SIZE), uri(0)) == bytes(SIZE)


def test_many_that_want_the_same_file_fetch_it_once(tmp_path: Path, fetched: list[str]) -> None:
    cache = Cache(tmp_path, 3 * SIZE)
    with ThreadPoolExecutor(8) as threads:
        contents = list(threads.map(lambda _: _read(cache, uri(7)), range(40)))

    assert set(contents) == {bytes([7]) * SIZE}
    assert fetched == ["7.svs"]


def test_many_threads_keep_within_the_bound(tmp_path: Path) -> None:
    cache, most = Cache(tmp_path, 4 * SIZE), list[int]()

    def read(number: int) -> bytes:
        with cache.local([uri(number)]) as copies:
            most.append(used(tmp_path))
            return Path(copies.files[0]).read_bytes()

    numbers = [number * 7 % 20 for number in range(120)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(read, numbers)) == [bytes([number]) * SIZE for number in numbers]
    assert max(most) <= 4 * SIZE


def test_what_was_fetched_ahead_is_spared_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AHEAD_S", 0.5)
    cache = Cache(tmp_path, 2 * SIZE)
    with cache.local([uri(0)]) as copies:
        copies.mark(ahead=True)
    _read(cache, uri(1))

    _read(cache, uri(2))
    assert there(tmp_path) == {0, 2}, "the older one was fetched ahead"
    with cache.local([uri(0)]) as copies:
        copies.mark(ahead=False)
    _read(cache, uri(3))
    _read(cache, uri(4))
    assert there(tmp_path) == {3, 4}, "it was read meanwhile"
    for number in (3, 4):
        with cache.local([uri(number)]) as copies:
            copies.mark(ahead=True)
    start = time.monotonic()
    _read(cache, uri(5))
    assert time.monotonic() - start >= 0.4, "it waits for others that may be read soon"
    assert there(tmp_path) == {4, 5}, "and then takes their room all the same"


def test_a_file_that_changes_has_another_copy(tmp_path: Path, memory: MemoryFileSystem) -> None:
    cache = Cache(tmp_path, 5 * SIZE)
    states = [state(uri(0))]
    _read(cache, uri(0))
    memory.pipe("/b/0.svs", b"new" * SIZE)

    assert _read(cache, uri(0)) == b"new" * SIZE
    with cache.local([uri(0)], states) as copies:
        assert Path(copies.files[0]).read_bytes() == bytes(SIZE), "the copy of what was planned is still there"


def test_a_file_that_is_not_any_more_what_was_planned_is_an_error(tmp_path: Path, memory: MemoryFileSystem) -> None:
    states = [state(uri(0))]
    memory.pipe("/b/0.svs", bytes(2 * SIZE))

    with (
        pytest.raises(InputError, match="it changed while it was fetched") as raised,
        Cache(tmp_path).local([uri(0)], states),
    ):
        pass

    assert raised.value.cause is Cause.CHANGED
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_fetch_that_was_killed_leaves_nothing_that_counts(tmp_path: Path, fetched: list[str]) -> None:
    cache = Cache(tmp_path, 2 * SIZE)
    process = multiprocessing.get_context("fork").Process(target=_killed, args=(cache,))
    process.start()
    process.join(30)
    assert process.exitcode == 7
    assert used(tmp_path) == SIZE, "half a copy is there"

    assert _read(cache, uri(1)) == bytes([1]) * SIZE
    assert _read(cache, uri(0)) == bytes(SIZE)
    assert _read(cache, uri(2)) == bytes([2]) * SIZE
    assert there(tmp_path) == {0, 2}


def _killed(cache: Cache) -> None:
    def fetch(_: str, target: Path, *__: object) -> None:
        target.write_bytes(b"?" * SIZE)
        os._exit(7)

    module.fetch = fetch  # type: ignore[assignment] # in a process of its own
    _read(cache, uri(0))


def test_a_file_that_cannot_be_had_is_an_error_of_its_slide(tmp_path: Path, memory: MemoryFileSystem) -> None:
    with pytest.raises(InputError, match=r"memory://b/gone[.]svs: no such file, or it may not be seen") as raised:
        _read(Cache(tmp_path), "memory://b/gone.svs")

    assert raised.value.cause is Cause.NO_ACCESS
    assert not [*tmp_path.glob("*/files/*")]


def test_a_cache_that_cannot_be_made_is_an_error_of_its_slide(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(InputError, match=f"{tmp_path}/file/cache: Not a directory"):
        _read(Cache(tmp_path / "file" / "cache"), uri(0))


def test_files_of_a_slide_lie_to_each_other_as_they_do(tmp_path: Path, memory: MemoryFileSystem) -> None:
    memory.pipe({"/b/f/m.mrxs": b"m", "/b/f/m/Slidedat.ini": b"s", "/b/f/m/Data0000.dat": b"d"})
    uris = [f"memory://b/f/{name}" for name in ("m.mrxs", "m/Slidedat.ini", "m/Data0000.dat")]

    with Cache(tmp_path).local(uris) as copies:
        main = Path(copies.files[0])
        assert [Path(file).relative_to(main.parent).as_posix() for file in copies.files] == [
            *("m.mrxs", "m/Slidedat.ini", "m/Data0000.dat")
        ]
        assert (main.parent / "m" / "Data0000.dat").read_bytes() == b"d"


@pytest.mark.parametrize("name", ["..", "../../x.svs", "a/../../../x.svs", "x" * 300 + ".svs", "./x.svs"])
def test_no_name_leads_out_of_the_cache(tmp_path: Path, name: str) -> None:
    (copy,) = module._names([f"s3://bucket/{name}"])

    path = (tmp_path / copy).resolve()

    assert path.is_relative_to(tmp_path)
    assert path != tmp_path
    assert all(len(part) <= 255 for part in path.parts)
    assert name == ".." or path.suffix == ".svs"


def test_messages_name_the_file_not_its_copy(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.local([uri(0)]) as copies:
        text = cache.named(f"{copies.files[0]}: bad", [uri(0)], copies.states)

    assert text == "memory://b/0.svs: bad"
    assert cache.named("/data/a.svs: bad", ["/data/a.svs"], ()) == "/data/a.svs: bad"


def test_half_of_the_disk_is_the_bound_where_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = module.shutil.disk_usage(tmp_path)._replace(free=3 * SIZE)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: disk._replace(free=4 * SIZE - used(tmp_path)))

    for number in range(5):
        _read(Cache(tmp_path), uri(number))

    assert there(tmp_path) == {3, 4}


def test_places_are_held_as_they_are_read(tmp_path: Path) -> None:
    with s3_server() as port, pytest.MonkeyPatch.context() as patch:
        use_server(patch, port)
        patch.setattr(tempfile, "tempdir", str(tmp_path / "here"))
        (tmp_path / "here").mkdir()
        for name in ("data/a.npz", "data/TUM/1.png", "listed/list.csv", "listed/below/1.png", "one class/TUM/1.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(name.encode())
        for name in ("data", "listed", "one class"):
            upload(tmp_path / name, f"held/{name}")
        top = UPath(f"s3://{BUCKET}/held")

        assert held(tmp_path) == tmp_path
        assert held(top / "data" / "a.npz").read_bytes() == b"data/a.npz"
        assert held(top / "data" / "a.npz").name == "a.npz"
        assert (held(top / "data") / "TUM" / "1.png").read_bytes() == b"data/TUM/1.png"
        assert (held(top / "one class") / "TUM" / "1.png").exists(), "also where all files are in one folder"
        listed = held(top / "listed" / "list.csv")
        assert (listed.parent / "below" / "1.png").exists(), "a list is read with what it names"
        assert held(top / "data") == held(top / "data"), "the same copy"
        for nothing in ("nothing", "nothing.npz", "nothing/list.csv"):
            with pytest.raises(UsageError, match=f"s3://{BUCKET}/held/nothing"):
                held(top / nothing)
