"""Joining or starting Ray: what can go wrong is said in one line, in time. Ray itself is not started here."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from histo.cli import main
from histo.errors import HistoError, UsageError
from histo.run import ray_start
from histo.run.cluster import session
from histo.run.ray_start import Watch, join, start_private

LOG_LINE = (
    "[2026-11-28 23:22:06,1 I 7 7] logging.cc:303: Set ray log level from environment variable RAY_BACKEND_LOG_LEVEL"
)


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@contextmanager
def listener(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Something that accepts connections on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            connection, _ = server.accept()
            with connection:
                answer(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "address", ["nonsense", "host:", ":6379", "http://127.0.0.1:1", "127.0.0.1:1", "ray://127.0.0.1:1"]
)
def test_an_address_where_nothing_answers_is_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)

    refusal = f"^RAY_ADDRESS={address}: no Ray cluster can be joined there"

    with pytest.raises(UsageError, match=refusal) as caught, session(None):
        pass

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: time.sleep(1),
        lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        lambda _: None,
    ],
    ids=["silent", "a web server", "closes"],
)
def test_what_answers_and_is_no_ray_is_called_that(
    answer: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_start, "_ANSWER_S", 0.2)

    with listener(answer) as address, pytest.raises(UsageError, match="what answers is no Ray; its port is 6379"):
        join(address)


def test_what_speaks_as_ray_does_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[Any] = []
    monkeypatch.setattr("ray.init", lambda **settings: joined.append(settings))

    with listener(lambda connection: connection.sendall(b"\0\0\6\4\0\0\0\0\0" + b"\0" * 6)) as address:
        join(address, log_to_driver=True)

    assert joined == [{"address": address, "log_to_driver": True}]


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_with_too_long_a_name_is_named_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, "/tmp/" + "long/" * 13)

    with pytest.raises(
        UsageError, match=f"^{name}=/tmp/long/.*: is [0-9]+ characters too long .*; set RAY_TMPDIR to a"
    ):
        start_private()


def test_a_relative_temporary_folder_is_below_the_working_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("ray.init", lambda **_: seen.append(str(Path(os.environ["TMPDIR"]).resolve())))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "t")
    monkeypatch.chdir("/")

    start_private()

    assert seen == ["/t"]


@pytest.mark.parametrize(("home", "given"), [("there", False), ("not there", False), ("a file", True)])
def test_without_a_home_folder_a_ray_gets_its_token_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, given: bool
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "a file").touch()
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / home))
    monkeypatch.setattr("ray.init", lambda **_: None)

    start_private()

    assert ("RAY_AUTH_TOKEN" in os.environ) == given


def test_a_ray_that_is_late_is_waited_for_with_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attempts: list[int] = []

    def init(**_: Any) -> None:
        attempts.append(1)
        time.sleep(0.05)
        if len(attempts) < 3:
            raise Exception("The current node timed out during startup. This could happen\nbecause")  # noqa: TRY002

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr(ray_start, "_SAY_AFTER_S", 0.01)

    start_private()

    assert len(attempts) == 3
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "starting Ray on this machine"
    assert others == ["Ray is slow to start, as on a busy machine; it is given 120 s"]


@pytest.mark.parametrize("error", [RuntimeError("no\nroom"), Exception("timed out"), TimeoutError(), ValueError("x")])
def test_a_ray_that_cannot_be_started_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise error

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr(ray_start, "PATIENCE_S", 0.0)

    with pytest.raises(HistoError, match=r"^Ray cannot be started on this machine .*same command again$") as caught:
        start_private()

    assert "\n" not in str(caught.value)


def test_what_is_left_of_a_ray_that_was_left_joins_no_other_one() -> None:
    script = (
        "from histo.cli import main; assert main(['label', '--slides', 'nowhere']) == 2\n"
        "import ray\n"
        "try: ray.put(1)\n"
        "except Exception as error: print(type(error).__name__, ray.is_initialized())\n"
        "else: ray.shutdown()\n"
    )

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert ended.stdout == "RaySystemError False\n"


def test_sigterm_while_ray_starts_is_an_interruption_and_its_handling_stays_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def init(**_: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))  # as Ray does
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("ray.init", init)
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        start_private()

    assert signal.getsignal(signal.SIGTERM) is before


def test_rays_line_about_its_log_level_is_not_shown_and_all_others_are(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray.init", lambda **_: os.write(2, f"before\n{LOG_LINE} to 3\nafter\n".encode()))

    start_private()
    os.write(2, b"later\n")

    assert capfd.readouterr().err == "before\nafter\nlater\n"


def test_a_ray_that_is_gone_interrupts_the_run_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.nodes", list)
    monkeypatch.setattr(ray_start, "_raylet_poll", lambda: lambda: -9)

    with (
        pytest.raises(
            HistoError, match=r"^Ray was ended by signal 9, most likely for want of memory; give the command"
        ),
        session(None),
    ):
        time.sleep(30)


def test_what_fails_because_ray_is_gone_is_said_to_be_that(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = iter([None, -9])  # the connection breaks before the process has ended
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.nodes", list)
    monkeypatch.setattr(ray_start, "_raylet_poll", lambda: lambda: next(codes))

    with pytest.raises(HistoError, match=r"^Ray was ended by signal 9"), session(None):
        raise OSError("Broken pipe")


def test_what_fails_beside_a_ray_that_is_well_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.nodes", list)
    monkeypatch.setattr(ray_start, "_raylet_poll", lambda: lambda: None)

    with pytest.raises(OSError, match="Broken pipe"), session(None):
        raise OSError("Broken pipe")


def test_a_run_that_does_not_notice_is_ended_with_the_reason_as_its_last_line() -> None:
    program = """
from histo.run import ray_start
import signal
ray_start._raylet_poll, ray_start._GRACE_S = lambda: lambda: 1, 0.1
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
ray_start.Watch().begin()
import time
time.sleep(30)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stderr.startswith("histo: Ray was ended with code 1, most likely for want of memory;")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ("os._exit(1)", [ray_start._LAST_WORD]),
        ("os.kill(os.getpid(), 9)", [ray_start._LAST_WORD]),
        ("pass", []),
        ("raise SystemExit(1)", []),
    ],
)
def test_a_run_that_ends_without_a_word_is_given_one(ends: str, expected: list[str]) -> None:
    program = f"import os\nfrom histo.run.ray_start import last_word\nwith last_word():\n    {ends}\n"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert ended.stderr.splitlines() == expected


def test_without_a_ray_of_its_own_a_run_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_start, "_raylet_poll", lambda: None)
    before = threading.active_count()

    watch = Watch()
    watch.begin()

    assert threading.active_count() == before
    assert watch.reason is None


@pytest.mark.usefixtures("inline_ray")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_training_that_is_stopped_says_how_it_goes_on(
    how: signal.Signals, tiles: Any, tiny: list[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    never = threading.Event()

    def fit(_: object) -> None:
        threading.Timer(0.3, os.kill, (os.getpid(), how)).start()
        never.wait(60)

    monkeypatch.setattr("helpers.inline_ray.InlineTrainer.fit", fit)
    flags = ["--data", str(tiles), "--out", str(tmp_path / "run"), "--size-px", "64", "--mpp", "2", *tiny]

    code = main(["train", *flags])

    never.set()
    shown = capsys.readouterr()
    assert code == 1
    assert "stopping; --resume goes on after the last epoch that has ended\n" in shown.out
    assert shown.err == "histo train: interrupted\n"
