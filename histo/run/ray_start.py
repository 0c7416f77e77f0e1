"""Start a private Ray or join one, with its failures in one line, in time.

Ray itself tries an address that does not answer for ten minutes, gives a Ray of its own 30 s to start, and is silent
meanwhile.
"""

import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

import ray

from histo.errors import HistoError, UsageError
from histo.own_path import HOME
from histo.run.bare_ray import bare_ray
from histo.run.say import say

PATIENCE_S = 120.0
"""For a private Ray to start; an overloaded machine takes long to start processes."""
_SAY_AFTER_S = 15.0
_ANSWER_S = 10.0
"""For an address to answer."""
_GRACE_S = 5.0
"""For the main thread to come to an end of its own; after some 12 s Ray ends the process."""
_LAST_WORD = (
    "histo: the process was ended from outside, or because its Ray was, most likely for want of memory; give the "
    "command again to go on (train and crossval with --resume)"
)
_WATCH_S, _LOOK_S = 0.05, 0.5
"""Between looks at Ray's process, and for what may be its end to be seen."""
_LONGEST_SOCKET = 107 if sys.platform.startswith("linux") else 103
"""Bytes of the path of a Unix socket."""
_SOCKET = "ray/session_2000-01-01_00-00-00_000000_{pid}/sockets/plasma_store"
"""What Ray appends to its folder, at its longest."""
_HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
"""How a client of gRPC begins: HTTP/2's preface (RFC 9113, 3.4), and empty settings."""
_SETTINGS_FRAME = 4
_OWN_LINE = b"Set ray log level from environment variable"


def join(address: str, **settings: Any) -> None:
    """Join the cluster at an address.

    Raises:
        UsageError: If there is none.
    """
    say(f"joining the Ray cluster at {address}")
    try:
        if address != "auto":
            _check_answer(address)
        _init(address=address, **settings)
    except Exception as error:
        raise UsageError(
            f"RAY_ADDRESS={address}: no Ray cluster can be joined there ({_one_line(error)}); correct it, or "
            "unset it to have a Ray of this machine"
        ) from error


def start_private(**settings: Any) -> None:
    """Start a Ray on this machine, and wait for it longer than Ray does.

    Raises:
        UsageError: If the temporary folder does not do.
        HistoError: If it does not start.
    """
    _check_folder()
    _give_token()
    say("starting Ray on this machine")
    late = threading.Timer(_SAY_AFTER_S, _say_late)
    late.daemon = True
    late.start()
    began = time.monotonic()
    try:
        while True:
            try:
                with bare_ray():
                    return _init(address="local", **settings)
            except Exception as error:
                ray.shutdown()
                if time.monotonic() - began > PATIENCE_S or not _is_late(error):
                    way_out = "it may be too busy; give" if _is_late(error) else "mend that, and give"
                    raise HistoError(
                        f"Ray cannot be started on this machine ({_one_line(error)}); {way_out} the same command again"
                    ) from error
    finally:
        late.cancel()


def _give_token() -> None:
    """Give a private Ray a token where there is no home folder that keeps one, as in many containers."""
    if any(name in os.environ for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    try:
        token = Path.home() / ".ray" / "auth_token"
        token.parent.mkdir(parents=True, exist_ok=True)
        kept = os.access(token if token.exists() else token.parent, os.R_OK if token.exists() else os.W_OK)
    except (OSError, RuntimeError):  # the latter where nobody knows the user
        kept = False
    if not kept:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex()


def _say_late() -> None:
    say(f"Ray is slow to start, as on a busy machine; it is given {PATIENCE_S:g} s")


def _is_late(error: Exception) -> bool:
    """Whether Ray gave up waiting; its processes may be there the next time, which finds their files in memory."""
    return "timed out" in str(error).lower() or isinstance(error, TimeoutError)


def _init(**settings: Any) -> None:
    """Call `ray.init`, without the line that Ray prints about its own log level, and keep the handling of SIGTERM.

    Its workers import from the folder that is the working one at this moment.
    """
    with _own_signals(), _without_own_line(), chdir(HOME):
        try:
            ray.init(**settings)
        except SystemExit:  # what Ray makes of SIGTERM
            raise KeyboardInterrupt from None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Take SIGTERM back from Ray."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _without_own_line() -> Iterator[None]:
    """Have a thread pass on what is written to standard error meanwhile, but Ray's line about its own log level."""
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    terminal = os.dup(2)
    os.dup2(write_end, 2)
    os.close(write_end)
    passing = threading.Thread(target=_pass_on, args=(read_end, terminal), daemon=True)
    passing.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        passing.join(timeout=1)  # it goes on as long as a process of Ray's has the pipe


def _pass_on(read_end: int, terminal: int) -> None:
    with os.fdopen(read_end, "rb") as lines, os.fdopen(terminal, "wb", buffering=0) as out:
        for line in lines:
            if _OWN_LINE not in line:
                out.write(line)


def _check_folder() -> None:
    """Refuse a temporary folder in which the paths of Ray's sockets are too long; a relative one is written out."""
    for known in {"RAY_TMPDIR", "TMPDIR"} & set(os.environ):
        os.environ[known] = os.path.abspath(os.environ[known])  # noqa: PTH100 -- links stay as they are
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.environ.get(name, "/tmp")  # noqa: S108 -- where Ray puts its files
    longest = os.path.join(folder, _SOCKET.format(pid=os.getpid()))  # noqa: PTH118 -- as Ray does
    excess = len(os.fsencode(longest)) - _LONGEST_SOCKET
    if excess > 0:
        raise UsageError(
            f"{name}={folder}: is {excess} characters too long for the sockets that Ray makes below it; set RAY_TMPDIR "
            "to a folder with a short name"
        )


def _check_answer(address: str) -> None:
    """Make sure that something at an address speaks as Ray does.

    Raises:
        OSError: If nothing answers.
        ValueError: If it is no address, or something else answers.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("expected HOST:PORT")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S) as connection:
        connection.sendall(_HTTP_2)
        answer = b""
        with suppress(OSError):
            answer = connection.recv(9)
    if answer[3:4] != bytes([_SETTINGS_FRAME]):
        raise ValueError("what answers is no Ray; its port is 6379 as a rule, that of its dashboard another one")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


@contextmanager
def last_word() -> Iterator[None]:
    """Have another process say so if this one ends without a word within.

    It does where it is killed, and where Ray's own library ends it at once because Ray is gone.
    """
    listener = ["/bin/sh", "-c", 'read -r end || echo "$0" >&2', _LAST_WORD]
    with Popen(listener, stdin=PIPE, stdout=DEVNULL, start_new_session=True) as process:  # noqa: S603 -- our own words
        try:
            yield
        finally:
            assert process.stdin is not None, "as asked for"
            with suppress(OSError):
                process.stdin.write(b"end\n")
                process.stdin.flush()


class Watch:
    """Notices when the private Ray of this process is gone, and ends the process, as Ray does, though with a word.

    The main thread is interrupted first. Where it waits for Ray, it does not notice.

    Attributes:
        reason: Why Ray is gone; None as long as it is not.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._watching: threading.Thread | None = None
        self._ended = threading.Event()

    def begin(self) -> None:
        """Watch, if this process has a Ray of its own."""
        raylet = _raylet_poll()
        if raylet is not None:
            self._watching = threading.Thread(target=self._watch, args=(raylet,), daemon=True)
            self._watching.start()

    def look(self) -> None:
        """Look once more, since what went wrong may come of it: a connection breaks before its process has ended.

        Raises:
            KeyboardInterrupt: If Ray is gone.
        """
        if self._watching is not None:
            self._watching.join(_LOOK_S)

    def _watch(self, poll: Callable[[], int | None]) -> None:
        while (code := poll()) is None:
            if self._ended.wait(_WATCH_S):
                return
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        self.reason = (
            f"Ray was ended {how}, most likely for want of memory; give the command again to go on (train and crossval "
            "with --resume)"
        )
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if not self._ended.wait(_GRACE_S):
            os.write(2, f"histo: {self.reason}\n".encode())
            os._exit(1)

    def end(self) -> None:
        """Watch no longer."""
        self._ended.set()


def is_private() -> bool:
    """Whether this process has a Ray of its own."""
    return _raylet_poll() is not None


def _raylet_poll() -> Callable[[], int | None] | None:
    """Return what tells the exit code of the private Ray's main process; Ray has no public way to it."""
    node = getattr(getattr(ray._private, "worker", None), "_global_node", None)  # noqa: SLF001
    found = getattr(node, "all_processes", {}).get("raylet", [])
    return found[0].process.poll if found else None
