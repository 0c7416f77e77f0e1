"""Find the slides of a folder: which files are slides, which belong together, and what each is called.

Rule: a file is a candidate if its extension is one of `SLIDE_EXTENSIONS`, or if it is DICOM by its magic number.
`.mrxs` and `.vms` stand for their companion files. DICOM files of one series in one folder are one slide. Every other
file is counted by extension. What is passed over, and how links are followed, is the rule of `histo.folders`.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from dataclasses import dataclass
from pathlib import Path

from histo.errors import UsageError
from histo.folders import Folder, Walk, count_kinds, counted, readable, walk
from histo.slides.files import readable_file
from histo.slides.foreign import ways_out

SLIDE_EXTENSIONS = frozenset(
    ".svs .tif .tiff .ndpi .mrxs .vms .vmu .scn .bif .svslide .czi .dcm".split()  # noqa: SIM905 -- reads as a list
)
_LONGEST_INDEX = 2**20
_BLOCK = 64 * 1024
_SAMPLES = 64
_LONGEST_NAME = 200


@dataclass(frozen=True)
class FoundSlide:
    """A file, or a set of files, that could be a slide.

    Attributes:
        slide_id: Path below the collection's folder, `/` between components.
        path: The file to open.
        files: Every file of the slide, `path` first.
    """

    slide_id: str
    path: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Collection:
    """What a folder holds: slides by `slide_id`, the number of other files by extension, and of links followed."""

    slides: tuple[FoundSlide, ...]
    others: dict[str, int]
    linked: int = 0


def find_slides(root: Path) -> Collection:
    """List the slides below a folder (or the one that `root` names), sorted by `slide_id`.

    Raises:
        UsageError: If the folder is missing or holds no slide.
    """
    if not root.exists():
        raise UsageError(f"--slides {root}: no such file or folder")
    base = root if root.is_dir() else root.parent
    walked = Walk((Folder(base, (root,), leaf=True),), 0, Counter(), ()) if root.is_file() else walk(root)
    slides: list[FoundSlide] = []
    rest: list[Path] = []
    for folder in walked.folders:
        found, other = _group(base, folder.files)
        slides += found
        rest += other
    companions = {file for slide in slides for file in slide.files}
    others = walked.others + count_kinds(path for path in rest if str(path) not in companions)
    if not slides:
        raise UsageError(f"--slides {root}: no slides in it; it holds {counted(others) or 'nothing'}{ways_out(others)}")
    by_name = sorted(slides, key=lambda slide: slide.slide_id)
    return Collection(tuple(by_name), dict(sorted(others.items())), walked.linked)


def _group(base: Path, files: Iterable[Path]) -> tuple[list[FoundSlide], list[Path]]:
    """Split the files of one folder into slides and others."""
    series: dict[str, list[Path]] = {}
    rest: list[Path] = []
    for path in files:
        if _is_special(path):
            rest.append(path)
        elif is_dicom(path):
            series.setdefault(_series(path), []).append(path)
        elif path.suffix.lower() in SLIDE_EXTENSIONS:
            series[f"file {path.name}"] = [path, *_companions(path)]
        else:
            rest.append(path)
    slides = [
        FoundSlide(_slide_id(paths[0].relative_to(base).as_posix()), str(paths[0]), tuple(map(str, paths)))
        for paths in series.values()
    ]
    return slides, rest


def _is_special(path: Path) -> bool:
    """Tell a pipe or a device, which could keep a reader waiting for ever."""
    try:
        return path.exists() and not path.is_file()
    except OSError:  # in a folder that may be listed and not entered; opening it says what is wrong
        return False


def is_dicom(path: Path) -> bool:
    """Tell by the magic number (`DICM` behind a preamble of 128 bytes); a file that cannot be read is not."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _series(path: Path) -> str:
    """Name the series of a DICOM file; one that does not name it near its beginning stands alone."""
    from histo.dicom_head import read_head  # noqa: PLC0415 -- pydicom loads decoders that other slides do without

    (series,) = read_head(path, ["SeriesInstanceUID"])
    return f"series {series}" if series else f"file {path.name}"


def _companions(path: Path) -> list[Path]:
    """List the files that a MIRAX or Hamamatsu VMS slide needs beside its own."""
    match path.suffix.lower():
        case ".mrxs":
            return sorted(other for other in path.with_suffix("").glob("*") if other.is_file())
        case ".vms" | ".vmu":
            return sorted(path.parent / name for name in _named_values(path) if _is_name_of_file(path.parent, name))
        case _:
            return []


def _is_name_of_file(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):  # too long for a name, or with a character that no name has
        return False


def _named_values(path: Path) -> set[str]:
    """Return all values of an ini file; a VMS slide names its images and maps there."""
    parser = ConfigParser(strict=False, interpolation=None)
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            parser.read_string(file.read(_LONGEST_INDEX))
    except (OSError, ConfigParserError):
        return set()
    return {value for section in parser.values() for value in section.values() if value} - {path.name, ".", ".."}


def _slide_id(path: str) -> str:
    """Name a slide by its path; one that is not UTF-8 is made readable, and told from others by a hash."""
    name = readable(path)
    return name if name == path else f"{name}~{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


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
    """Turn a `slide_id` into a path that any file system and any Parquet reader takes; different ids stay different."""
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
    """Return the size of a slide's files in bytes, and the latest time at which one was changed, ns since 1970.

    Raises:
        SlideError: If one is not there, or may not be looked at.
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
        SlideError: If a file cannot be read.
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
        SlideError: If a file cannot be read.
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
