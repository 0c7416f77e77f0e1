"""Input files: readable names, safe paths, state, and sha256 of their bytes."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from histo.errors import Cause, InputError

_BLOCK = 64 * 1024
_SAMPLES = 64
_LONGEST_NAME = 200


def readable(path: str) -> str:
    """Make a path valid UTF-8: bytes that are not become `%XX`.

    Examples:
        >>> readable(bytes([0x63, 0xE9]).decode(errors="surrogateescape"))
        'c%E9'
    """
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in path)


@contextmanager
def readable_file(name: str) -> Iterator[None]:
    """Turn what the system says about a file into an error of the slide or study, one that may pass."""
    try:
        yield
    except OSError as error:
        raise InputError(
            Cause.NO_ACCESS, f"{name}: {error.strerror or error}; make the file readable and run it again, or remove it"
        ) from error


def table_path(slide_id: str) -> str:
    """Name the tile table of a slide below `tiles/`: its id and `.parquet`, made safe for every reader.

    A leading `_` or `.` hides a file from Parquet readers and is escaped; a component that is too long for a file
    system is shortened and made unique with a hash.

    Examples:
        >>> table_path("a/s1.svs")
        'a/s1.svs.parquet'
        >>> table_path("_old/.s1.svs")
        '%5Fold/%2Es1.svs.parquet'
    """
    return f"{safe_path(slide_id)}.parquet"


def safe_path(slide_id: str) -> str:
    """Turn the id of a slide or study into a path that any file system and Parquet reader takes; ids stay different."""
    *folders, name = slide_id.split("/")
    return "/".join([*(_safe_folder(folder) for folder in folders), _safe_component(name)])


def _safe_folder(part: str) -> str:
    """A folder must not be called as the table of a slide beside it is."""
    safe = _safe_component(part)
    return safe.removesuffix(".parquet") + "%2Eparquet" if safe.endswith(".parquet") else safe


def _safe_component(part: str) -> str:
    if not part:
        return "%"
    safe = part.replace("%", "%25").replace("~", "%7E")
    if safe[0] in "_.":
        safe = f"%{ord(safe[0]):02X}{safe[1:]}"
    encoded = safe.encode()
    if len(encoded) <= _LONGEST_NAME:
        return safe
    digest = hashlib.sha256(part.encode()).hexdigest()[:16]
    return f"{encoded[: _LONGEST_NAME - 20].decode(errors='ignore')}~{digest}"


def file_state(files: Iterable[str]) -> tuple[int, int]:
    """Return the size of files in bytes, and the latest time at which one was changed, ns since 1970.

    Raises:
        InputError: If one is not there, or may not be looked at.
    """
    stats = []
    for name in files:
        with readable_file(name):
            stats.append(Path(name).stat())
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def digest(blocks: Iterable[bytes]) -> str:
    """Return the sha256 of blocks."""
    total = hashlib.sha256()
    for block in blocks:
        total.update(block)
    return total.hexdigest()


def sampled_blocks(files: Iterable[str]) -> Iterator[bytes]:
    """Yield each file's size and 64 sampled blocks of 64 KiB, the first and the last among them.

    Their `digest` is the `content_id`: it identifies what a slide's files hold, without reading all of it.

    Raises:
        InputError: If a file cannot be read.
    """
    for name in files:
        with readable_file(name), Path(name).open("rb") as file:
            size = Path(name).stat().st_size
            yield size.to_bytes(8, "big")
            for offset in _sample_offsets(size):
                file.seek(offset)
                yield file.read(_BLOCK)


def all_blocks(files: Iterable[str]) -> Iterator[bytes]:
    """Yield all bytes of all files, in blocks.

    Raises:
        InputError: If a file cannot be read.
    """
    for name in files:
        with readable_file(name), Path(name).open("rb") as file:
            while block := file.read(_SAMPLES * _BLOCK):
                yield block


def _sample_offsets(size: int) -> list[int]:
    """Spread 64 blocks over a file; a small one is covered whole."""
    last = max(0, size - _BLOCK)
    if size <= _SAMPLES * _BLOCK:
        return list(range(0, size, _BLOCK))
    return [last * sample // (_SAMPLES - 1) for sample in range(_SAMPLES)]
