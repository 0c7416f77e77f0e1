"""Copies of remote files on this node, within a bound.

All processes of a user share them. A copy is read under a shared lock of the system's, and is made or removed under an
exclusive one: none is removed while it is read, and a process that dies leaves no lock. What was used longest ago goes
first. What was fetched ahead, for others to read soon, goes last.
"""

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TextIO

from histo.errors import Cause, HistoError, InputError, UsageError
from histo.remote.location import AnyPath, canonical, scheme, shown, steps
from histo.remote.objects import RemoteState, fetch, is_file, list_files, state

_SHARE = 0.5
"""Of what is free on the disk, where no size is given."""
_LOOK_S = 0.2
_AHEAD_S = 30.0
"""Seconds that what was fetched ahead is spared, when another file needs its room."""
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Copies:
    """Files as they can be opened on this node.

    Attributes:
        files: Their paths.
        states: What each remote file is.
        ahead: File that marks copies which others are to read soon; None if they are no copies.
    """

    files: tuple[str, ...]
    states: tuple[RemoteState, ...] = ()
    ahead: Path | None = None

    @property
    def are_copies(self) -> bool:
        """Whether they are copies of remote files."""
        return self.ahead is not None

    def mark(self, ahead: bool) -> None:
        """Say whether others on this node are to read them soon."""
        if self.ahead is not None:
            with suppress(OSError):
                self.ahead.touch() if ahead else self.ahead.unlink(missing_ok=True)


@dataclass(frozen=True)
class Cache:
    """Where the copies of remote files are on each node.

    Attributes:
        folder: Their folder; None for one in the system's folder of temporary files.
        most_bytes: That they may have in all; None for half of what is free there.
        patience_s: Seconds for which a file that cannot be had, or has no room, is tried again.
    """

    folder: Path | None = None
    most_bytes: int | None = None
    patience_s: float = 300.0

    @contextmanager
    def local(
        self, files: Sequence[str], states: Sequence[RemoteState] = (), folder: Sequence[str] | None = None
    ) -> Iterator[Copies]:
        """Have files on this node for as long as the block lasts; local ones are as they are.

        Args:
            files: Paths, or URIs, whose copies lie to each other as they do themselves.
            states: What remote files must be; of none, they are asked for.
            folder: Steps of the folder that the copies lie below; None for the deepest one of all files.

        Raises:
            InputError: If one cannot be had.
        """
        uris = tuple(files)
        if scheme(uris[0]) is None:
            yield Copies(uris)
            return
        try:
            states = states or [state(uri, self.patience_s) for uri in uris]
        except OSError as error:
            raise _no_access(error) from error
        entry = _Entry(self._root() / _key(uris, states))
        paths = tuple(entry.folder / "files" / name for name in _names(uris, folder))
        with self._held(entry, uris, states, paths):
            os.utime(entry.lock)
            yield Copies(tuple(map(str, paths)), tuple(states), entry.ahead)

    @contextmanager
    def local_folder(self, place: AnyPath) -> Iterator[Path]:
        """Have a folder on this node for as long as the block lasts; a local one is as it is.

        Errors that name the copy name the folder in its place.

        Raises:
            UsageError: If there is no such folder, or it cannot be had.
        """
        if isinstance(place, Path):
            yield place
            return
        uri = canonical(str(place))
        try:
            listed = list_files(uri, self.patience_s)
        except FileNotFoundError:
            listed = {}
        except OSError as error:
            raise UsageError(f"{shown(uri)}: cannot be read ({error.strerror or error})") from None
        if not listed:
            raise UsageError(f"{shown(uri)}: no such folder")
        with self.local([*listed], [*listed.values()], steps(uri)) as copies:
            here = Path(copies.files[0]).parents[len(steps(next(iter(listed)))) - len(steps(uri)) - 1]
            try:
                yield here
            except HistoError as error:
                raise type(error)(str(error).replace(str(here), shown(uri))) from error

    def named(self, text: str, files: Sequence[str], states: Sequence[RemoteState]) -> str:
        """Name remote files in a text that names their copies here."""
        if not states:
            return text
        folder = _Entry(self._root() / _key(files, states)).folder / "files"
        for name, uri in zip(_names(files), files, strict=True):
            text = text.replace(str(folder / name), shown(uri))
        return text

    def _root(self) -> Path:
        root = self.folder or Path(tempfile.gettempdir(), f"histo-cache-{os.getuid()}")
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _no_access(error) from error
        return root

    def _held(
        self, entry: "_Entry", uris: Sequence[str], states: Sequence[RemoteState], paths: Sequence[Path]
    ) -> TextIO:
        """Return the shared lock of copies that are whole; what is not is fetched."""
        while True:
            lock = _locked(entry.lock, fcntl.LOCK_SH)
            if entry.is_whole:
                return lock
            lock.close()
            with _locked(entry.lock, fcntl.LOCK_EX):
                if not entry.is_whole:
                    self._fetch(entry, uris, states, paths)

    def _fetch(
        self, entry: "_Entry", uris: Sequence[str], states: Sequence[RemoteState], paths: Sequence[Path]
    ) -> None:
        entry.clear()
        self._make_room(entry, sum(one.size_bytes for one in states), uris[0])
        try:
            for uri, expected, path in zip(uris, states, paths, strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                fetch(uri, path, expected, self.patience_s)
            entry.whole.touch()
        except OSError as error:
            entry.remove()
            raise _no_access(error) from error

    def _make_room(self, entry: "_Entry", size_bytes: int, uri: str) -> None:
        """Remove copies until this one has room, and reserve it; what is being read is waited for."""
        root, start = entry.folder.parent, time.monotonic()
        while True:
            waited_s = time.monotonic() - start
            with _locked(root / ".lock", fcntl.LOCK_EX):
                others = [other for other in _entries(root) if other != entry]
                most = self._most(root, others)
                if size_bytes <= most and _remove_oldest(others, most - size_bytes, spare=waited_s < _AHEAD_S):
                    entry.reserve(size_bytes)
                    return
            if size_bytes > most:
                reason = f"it has {_gib(size_bytes)}, and all copies may have {_gib(most)}; raise --cache.gib"
                raise InputError(Cause.NO_ACCESS, f"{shown(uri)}: no room for a copy in {root}: {reason}")
            if waited_s > self.patience_s:
                reason = f"all that is there was read for {waited_s:.0f} s; raise --cache.gib, or use fewer --workers"
                raise InputError(Cause.NO_ACCESS, f"{shown(uri)}: no room for a copy in {root}: {reason}")
            time.sleep(_LOOK_S)

    def _most(self, root: Path, others: Sequence["_Entry"]) -> int:
        if self.most_bytes is not None:
            return self.most_bytes
        return int(_SHARE * (shutil.disk_usage(root).free + sum(other.size_bytes for other in others)))


_HELD = ExitStack()


def held(place: AnyPath) -> Path:
    """Return a file or folder as it can be opened on this node; a copy stays until this process ends.

    Of a list of files (`.csv`), the folder that it lies in is copied, too.

    Raises:
        UsageError: If there is no such thing, or it cannot be had.
    """
    if isinstance(place, Path):
        return place
    cache, suffix = Cache(), place.suffix.lower()
    if suffix == ".csv":
        return _HELD.enter_context(cache.local_folder(place.parent)) / place.name
    try:
        if suffix in (".npz", ".parquet") and is_file(str(place)):
            return Path(_HELD.enter_context(cache.local([canonical(str(place))])).files[0])
    except (OSError, InputError) as error:
        raise UsageError(f"{shown(str(place))}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return _HELD.enter_context(cache.local_folder(place))


@dataclass(frozen=True)
class _Entry:
    """The copies of the files of one slide; its lock stands beside its folder."""

    folder: Path

    @property
    def lock(self) -> Path:
        return self.folder.with_suffix(".lock")

    @property
    def ahead(self) -> Path:
        return self.folder / "ahead"

    @property
    def whole(self) -> Path:
        return self.folder / "whole"

    @property
    def is_whole(self) -> bool:
        return self.whole.exists()

    @property
    def size_bytes(self) -> int:
        """What is reserved for it."""
        try:
            return int((self.folder / "size").read_text())
        except (OSError, ValueError):
            return 0

    def reserve(self, size_bytes: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "size").write_text(str(size_bytes))

    def clear(self) -> None:
        """Remove what is there; its lock is held."""
        self.whole.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove(self) -> None:
        """Remove all of it; its lock is held."""
        self.clear()
        self.lock.unlink(missing_ok=True)

    def used(self) -> float:
        """Return when it was used last, seconds since 1970."""
        try:
            return self.lock.stat().st_mtime
        except OSError:
            return 0.0


def _entries(root: Path) -> list[_Entry]:
    return [_Entry(path) for path in root.iterdir() if path.is_dir() and not path.suffix]


def _remove_oldest(entries: Sequence[_Entry], most_bytes: int, spare: bool) -> bool:
    """Remove those that nobody reads, the oldest first, until the rest has so many bytes; false if that is not enough.

    Args:
        entries: All of them.
        most_bytes: That they may have.
        spare: Whether those that were fetched ahead stay.
    """
    sizes = {entry: entry.size_bytes for entry in entries}
    total = sum(sizes.values())
    for entry in sorted(entries, key=lambda entry: (entry.ahead.exists(), entry.used())):
        if total <= most_bytes:
            break
        if spare and entry.ahead.exists():
            continue
        with suppress(BlockingIOError), _locked(entry.lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            entry.remove()
            total -= sizes[entry]
    return total <= most_bytes


def _locked(path: Path, how: int) -> TextIO:
    """Open a file under a lock of the system's; closing it gives the lock back.

    Raises:
        BlockingIOError: If another has it, and it is not to be waited for.
    """
    while True:
        file = path.open("a", encoding="utf-8")
        try:
            fcntl.flock(file, how)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:  # removed since it was opened, as one is whose copies are
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def _key(uris: Sequence[str], states: Sequence[RemoteState]) -> str:
    """Name the copies of files as they are now: a file that changes has another copy."""
    return sha256(repr([*zip(uris, states, strict=True)]).encode(errors="surrogateescape")).hexdigest()[:32]


def _names(uris: Sequence[str], folder: Sequence[str] | None = None) -> Iterator[str]:
    """Yield the paths of copies below a folder, or the one that all of them share."""
    paths = [steps(uri) for uri in uris]
    shared = (
        len(folder)
        if folder is not None
        else next(n for n in range(len(paths[0]), -1, -1) if {path[:-1][:n] for path in paths} == {paths[0][:n]})
    )
    return ("/".join(map(_component, path[shared:])) for path in paths)


def _component(name: str) -> str:
    """Make a file's name of a component that may be any text."""
    if name in (".", ".."):
        return "%"
    if len(name.encode(errors="surrogateescape")) <= _LONGEST_NAME and not {"/", chr(0)} & {*name}:
        return name
    digest = sha256(name.encode(errors="surrogateescape")).hexdigest()[:32]
    return f"{digest}{Path(name.replace('/', '_').replace(chr(0), '_')).suffix[:16]}"


def _no_access(error: OSError) -> InputError:
    cause = Cause.CHANGED if error.errno == errno.ESTALE else Cause.NO_ACCESS
    reason = error.strerror or str(error)
    return InputError(cause, f"{error.filename}: {reason}; make the file readable and run it again, or remove it")


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.3g} GiB"
