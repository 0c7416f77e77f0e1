"""Group the files of one folder into slides.

Rule: a file is a candidate if its extension is one of `SLIDE_EXTENSIONS`, or if it is DICOM by its magic number.
`.mrxs` and `.vms` stand for their companion files. DICOM files of one series in one folder are one slide.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from histo.remote.objects import RemoteState, list_files, read

SLIDE_EXTENSIONS = frozenset(
    ".svs .tif .tiff .ndpi .mrxs .vms .vmu .scn .bif .svslide .czi .dcm".split()  # noqa: SIM905 -- reads as a list
)
_MAY_BE_DICOM = (".dcm", ".dicom", "")
"""Extensions of remote files whose beginning is looked at; that of each would take a request for each."""
_LONGEST_INDEX = 2**20
_DICOM_HEAD, _MAGIC = 2**18, 132
_AT_ONCE = 16


class Files(ABC):
    """Files of a storage, as grouping has to know them; they are named by their paths, or by their URIs."""

    @abstractmethod
    def is_special(self, path: str) -> bool:
        """Whether this is a pipe or a device, which could keep a reader waiting for ever."""

    @abstractmethod
    def heads(self, paths: Iterable[str]) -> Iterator[BinaryIO | None]:
        """Open files that may be DICOM at their beginning; None for one that is not."""

    @abstractmethod
    def text(self, path: str) -> str:
        """Return the beginning of a text file; empty if it cannot be read."""

    @abstractmethod
    def beside(self, path: str, names: Iterable[str]) -> list[str]:
        """Return the files of these names that lie beside a file, sorted."""

    @abstractmethod
    def within(self, folder: str) -> list[str]:
        """Return the files that lie in a folder, sorted."""


def group(paths: Iterable[str], files: Files) -> tuple[list[tuple[str, ...]], list[str]]:
    """Split the files of one folder into slides, each with the file to open first, and others."""
    slides: dict[str, list[str]] = {}
    regular: list[str] = []
    rest: list[str] = []
    for path in paths:
        (rest if files.is_special(path) else regular).append(path)
    for path, head in zip(regular, files.heads(regular), strict=True):
        suffix = PurePosixPath(path).suffix.lower()
        if head is not None:
            with head:
                slides.setdefault(_series(path, head), []).append(path)
        elif suffix in SLIDE_EXTENSIONS:
            slides[f"file {path}"] = [path, *_companions(path, suffix, files)]
        else:
            rest.append(path)
    return [tuple(slide) for slide in slides.values()], rest


def _series(path: str, head: BinaryIO) -> str:
    """Name the series of a DICOM file; one that does not name it near its beginning stands alone."""
    from histo.dicom_head import parse_head  # noqa: PLC0415 -- pydicom loads decoders that other slides do without

    (series,) = parse_head(head, ["SeriesInstanceUID"])
    return f"series {series}" if series else f"file {path}"


def _companions(path: str, suffix: str, files: Files) -> list[str]:
    """List the files that a MIRAX or Hamamatsu VMS slide needs beside its own."""
    match suffix:
        case ".mrxs":
            return files.within(path[: -len(suffix)])
        case ".vms" | ".vmu":
            return files.beside(path, _named_values(files.text(path)) - {PurePosixPath(path).name, ".", ".."})
        case _:
            return []


def _named_values(text: str) -> set[str]:
    """Return all values of an ini file; a VMS slide names its images and maps there."""
    parser = ConfigParser(strict=False, interpolation=None)
    try:
        parser.read_string(text)
    except ConfigParserError:
        return set()
    return {value for section in parser.values() for value in section.values() if value}


class LocalFiles(Files):
    """Files that this machine has, or sees."""

    def is_special(self, path: str) -> bool:
        """See `Files.is_special`."""
        try:
            return Path(path).exists() and not Path(path).is_file()
        except OSError:  # in a folder that may be listed and not entered; opening it says what is wrong
            return False

    def heads(self, paths: Iterable[str]) -> Iterator[BinaryIO | None]:
        """See `Files.heads`; a file that cannot be read is no DICOM."""
        return map(self._head, paths)

    def _head(self, path: str) -> BinaryIO | None:
        try:
            return _at_start(Path(path).open("rb"))
        except OSError:
            return None

    def text(self, path: str) -> str:
        """See `Files.text`."""
        try:
            with Path(path).open(encoding="utf-8", errors="replace") as file:
                return file.read(_LONGEST_INDEX)
        except OSError:
            return ""

    def beside(self, path: str, names: Iterable[str]) -> list[str]:
        """See `Files.beside`."""
        folder = Path(path).parent
        return [str(file) for file in sorted(folder / name for name in names if _is_name_of_file(folder, name))]

    def within(self, folder: str) -> list[str]:
        """See `Files.within`."""
        return [str(other) for other in sorted(Path(folder).glob("*")) if other.is_file()]


class RemoteFiles(Files):
    """Files of object storage.

    Args:
        states: Those that are known, by their URIs; others are asked for.
    """

    def __init__(self, states: Mapping[str, RemoteState]) -> None:
        self._states = dict(states)
        self._listed: set[str] = set()

    def state(self, uri: str) -> RemoteState | None:
        """Return what is known of a file."""
        return self._states.get(uri)

    def is_special(self, path: str) -> bool:  # noqa: ARG002 -- there are none
        """See `Files.is_special`."""
        return False

    def heads(self, paths: Iterable[str]) -> Iterator[BinaryIO | None]:
        """See `Files.heads`; only the names of DICOM files, and names without an extension, are looked into."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="heads") as threads:
            yield from threads.map(self._head, paths)

    def _head(self, uri: str) -> BinaryIO | None:
        if PurePosixPath(uri).suffix.lower() not in _MAY_BE_DICOM:
            return None
        try:
            return _at_start(io.BytesIO(read(uri, 0, _DICOM_HEAD)))
        except OSError:
            return None

    def text(self, path: str) -> str:
        """See `Files.text`."""
        try:
            return read(path, 0, _LONGEST_INDEX).decode(errors="replace")
        except OSError:
            return ""

    def beside(self, path: str, names: Iterable[str]) -> list[str]:
        """See `Files.beside`."""
        folder = path.rpartition("/")[0]
        listed = {*self.within(folder)}
        return sorted(file for name in names if (file := f"{folder}/{name}") in listed)

    def within(self, folder: str) -> list[str]:
        """See `Files.within`."""
        if folder not in self._listed and not any(uri.startswith(f"{folder}/") for uri in self._states):
            self._states |= list_files(f"{folder}/")
        self._listed.add(folder)
        return sorted(uri for uri in self._states if uri.rpartition("/")[0] == folder)


def _at_start(file: BinaryIO) -> BinaryIO | None:
    """Return a file if it is DICOM by its magic number, `DICM` behind a preamble of 128 bytes; else close it."""
    try:
        is_dicom = file.read(_MAGIC)[128:] == b"DICM"
        file.seek(0)
    except OSError:
        is_dicom = False
    if not is_dicom:
        file.close()
    return file if is_dicom else None


def _is_name_of_file(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):  # too long for a name, or with a character that no name has
        return False
