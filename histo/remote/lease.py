"""Hold a folder of object storage for one run, by a lock that is kept alive.

A storage has no process to hold a lock for. So a lock is a small object, made where none is, which says something else
every few seconds. One that stays as it is for longer is that of a dead run, and is taken away. Clocks are not compared.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from histo.remote import objects

BEAT_S = 10.0
"""Between two writes of a lock."""
DEAD_S = 45.0
"""A lock that stays as it is for so long is that of a dead run."""
_LOOK_S = 2.0
_SETTLE_S = 4.0
"""After a lock was taken away: others may have done so as well, and the last one has it."""


class HeldError(Exception):
    """Another run holds a lock; the message says which."""


@dataclass(frozen=True)
class Lease:
    """A lock that is held.

    Attributes:
        uri: Of the lock.
        holder: Who holds it, for those that want it.
        token: Tells it from the locks of others.
    """

    uri: str
    holder: str
    token: str

    def content(self, beat: int) -> bytes:
        """Return what the lock says."""
        return json.dumps({"holder": self.holder, "token": self.token, "beat": beat}).encode()

    def is_mine(self) -> bool:
        """Whether the lock that is there is this one."""
        return _said(_content(self.uri)).get("token") == self.token


@contextmanager
def held(uri: str, holder: str, say: Callable[[str], None], lost: Callable[[], None]) -> Iterator[None]:
    """Hold a lock for as long as the block lasts.

    Args:
        uri: Of the lock.
        holder: Says who holds it.
        say: Prints a line.
        lost: Called, in a thread, if another run has taken the lock away, because this one was silent for too long.

    Raises:
        HeldError: If another run holds it.
        OSError: If the storage cannot be asked.
    """
    lease = Lease(uri, holder, uuid4().hex)
    _acquire(lease, say)
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(lease, ended, lost), name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        with suppress(OSError):
            if lease.is_mine():
                objects.delete(uri)


def _acquire(lease: Lease, say: Callable[[str], None]) -> None:
    while not _created(lease):
        before = _content(lease.uri)
        if before is not None and _stays(lease.uri, before, say):
            objects.delete(lease.uri)
            if _created(lease):
                time.sleep(_SETTLE_S)
                if lease.is_mine():
                    return
    if not _is_refused(lease):
        say(f"note: {lease.uri}: its storage has no conditional writes; start no second run there")


def _created(lease: Lease) -> bool:
    try:
        objects.create(lease.uri, lease.content(0))
    except FileExistsError:
        return lease.is_mine()  # by an attempt whose answer was lost
    return True


def _is_refused(lease: Lease) -> bool:
    """Whether the storage keeps what is there when it is asked to create it."""
    try:
        objects.create(lease.uri, lease.content(0))
    except FileExistsError:
        return True
    return False


def _stays(uri: str, before: bytes, say: Callable[[str], None]) -> bool:
    """Whether a lock stays as it is for so long that its run is dead.

    Raises:
        HeldError: If it changes.
    """
    holder = _said(before).get("holder", "unknown")
    say(f"{uri}: the lock of another run is there ({holder}); looking for {DEAD_S:.0f} s whether it is alive")
    start = time.monotonic()
    while time.monotonic() - start < DEAD_S:
        time.sleep(_LOOK_S)
        now = _content(uri)
        if now is None:
            return False
        if now != before:
            raise HeldError(str(_said(now).get("holder", "unknown")))
    return True


def _keep(lease: Lease, ended: threading.Event, lost: Callable[[], None]) -> None:
    """Write the lock anew until the end, or until it is another's."""
    beat = 0
    while not ended.wait(BEAT_S):
        beat += 1
        with suppress(OSError):  # the storage may be back soon
            if not lease.is_mine():
                lost()
                return
            objects.put(lease.uri, lease.content(beat))


def _content(uri: str) -> bytes | None:
    try:
        return objects.read(uri)
    except FileNotFoundError:
        return None


def _said(content: bytes | None) -> dict[str, Any]:
    try:
        said = json.loads(content or b"")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
