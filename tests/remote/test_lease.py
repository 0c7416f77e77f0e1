"""The lock of a folder in object storage."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import fsspec
import pytest
from helpers.s3_server import BUCKET, have_bucket, s3_server, use_server
from upath import UPath

from histo.errors import HistoError, UsageError
from histo.remote import lease, objects
from histo.run.lock import sole_run


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with s3_server() as port, pytest.MonkeyPatch.context() as patch:
        use_server(patch, port)
        have_bucket()
        yield


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"BEAT_S": 0.1, "DEAD_S": 1.5, "_LOOK_S": 0.05, "_SETTLE_S": 0.3}.items():
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture
def out(request: pytest.FixtureRequest) -> UPath:
    return UPath(f"s3://{BUCKET}") / request.node.name


def test_a_second_run_is_refused_while_the_first_one_lives(out: UPath) -> None:
    with (
        sole_run(out),
        pytest.raises(UsageError, match=r"another run writes there \(process \d+ on .+\)"),
        sole_run(out),
    ):
        pass

    assert not objects.is_there(f"{out}/.lock"), "it is given back"
    with sole_run(out):
        pass


def test_the_lock_of_a_dead_run_is_taken_away(out: UPath, capsys: pytest.CaptureFixture[str]) -> None:
    objects.put(f"{out}/.lock", lease.Lease(f"{out}/.lock", "process 7 on elsewhere", "x").content(3))

    with sole_run(out):
        assert b"process 7 " not in objects.read(f"{out}/.lock")

    assert "the lock of another run is there (process 7 on elsewhere)" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"[1]", b"no json", b'{"token": 5}'])
def test_what_is_no_lock_is_taken_for_that_of_a_dead_run(out: UPath, content: bytes) -> None:
    out = out.parent / f"no_lock_{len(content)}"
    objects.put(f"{out}/.lock", content)

    with sole_run(out):
        pass


def test_of_many_that_start_at_once_one_has_the_lock(out: UPath) -> None:
    held, refused = [], []
    begin, end = threading.Barrier(8), threading.Event()

    def run(number: int) -> None:
        begin.wait()
        try:
            with lease.held(f"{out}/.lock", f"run {number}", lambda _: None, bool):
                held.append(number)
                end.wait(30)
        except lease.HeldError:
            refused.append(number)
            if len(refused) == 7:
                end.set()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(held), len(refused)) == (1, 7)


def test_a_run_whose_lock_another_one_has_taken_ends(out: UPath) -> None:
    def work() -> None:
        with sole_run(out):
            objects.put(f"{out}/.lock", b'{"token": "of another"}')
            threading.Event().wait(20)

    with pytest.raises(HistoError, match="another run has taken its lock"):
        work()
    assert objects.read(f"{out}/.lock") == b'{"token": "of another"}', "it is the other one's"


def test_a_storage_that_is_gone_for_a_while_loses_no_lock(out: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Semaphore(0)
    put = objects.put

    def fails(uri: str, content: bytes) -> None:
        tried.release()
        raise OSError

    with sole_run(out):
        monkeypatch.setattr(objects, "put", fails)
        assert all(tried.acquire(timeout=20) for _ in range(3))
        monkeypatch.setattr(objects, "put", put)

    assert not objects.is_there(f"{out}/.lock")


@pytest.mark.parametrize(("refuses", "said"), [(True, 0), (False, 1)])
def test_a_storage_without_conditional_writes_is_said(
    out: UPath, monkeypatch: pytest.MonkeyPatch, refuses: bool, said: int
) -> None:
    uri, lines = f"{out.parent}/conditional_{refuses}/.lock", list[str]()
    real: Callable[[str, bytes], None] = objects.create
    monkeypatch.setattr(objects, "create", real if refuses else objects.put)

    with ExitStack() as stack:
        stack.enter_context(lease.held(uri, "me", lines.append, bool))

    assert sum("has no conditional writes" in line for line in lines) == said


def test_an_answer_that_was_lost_is_no_other_run(out: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    real = objects.create

    def created_but_refused(uri: str, content: bytes) -> None:
        real(uri, content)
        raise FileExistsError

    monkeypatch.setattr(objects, "create", created_but_refused)
    with lease.held(f"{out}/.lock", "me", lambda _: None, bool):
        assert objects.is_there(f"{out}/.lock")


def test_the_storage_in_memory_is_one_of_those_that_create(out: UPath) -> None:
    fsspec.filesystem("memory").pipe_file("/locks/.keep", b"")
    with (
        lease.held("memory://locks/.lock", "me", lambda _: None, bool),
        pytest.raises(lease.HeldError),
        lease.held("memory://locks/.lock", "you", lambda _: None, bool),
    ):
        pass
