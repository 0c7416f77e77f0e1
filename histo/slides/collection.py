"""Find the slides of a folder, their files and their names.

Rule: a file is a candidate if its extension is one of `SLIDE_EXTENSIONS`, or if it is DICOM by its magic number.
`.mrxs` and `.vms` stand for their companion files. DICOM files of one series in one folder are one slide. Every other
file is counted by extension, and so are the class maps of a label run. What else is passed over, and how links are
followed, is the rule of `histo.folders`.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from dataclasses import dataclass
from pathlib import Path

from histo.errors import UsageError
from histo.folders import Folder, Walk, count_kinds, counted, walk
from histo.input_files import readable
from histo.slides.readers.foreign import ways_out

SLIDE_EXTENSIONS = frozenset(
    ".svs .tif .tiff .ndpi .mrxs .vms .vmu .scn .bif .svslide .czi .dcm".split()  # noqa: SIM905 -- reads as a list
)
CLASS_MAPS = "class_maps"
"""Folder of a label run's pictures for QuPath, below its output folder."""
_LONGEST_INDEX = 2**20


@dataclass(frozen=True)
class FoundSlide:
    """A file, or a set of files, that could be a slide.

    Attributes:
        slide_id: Path below the collection's folder, `/` between components.
        path: The file to open.
        files: Every file of the slide, `path` first.
        mask: The file of its tissue mask; empty if there is none.
    """

    slide_id: str
    path: str
    files: tuple[str, ...]
    mask: str = ""


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
    made = 0
    for folder in walked.folders:
        if _is_class_map(folder.path, base):
            made += len(folder.files)
            continue
        found, other = _group(base, folder.files)
        slides += found
        rest += other
    companions = {file for slide in slides for file in slide.files}
    others = walked.others + count_kinds(path for path in rest if str(path) not in companions)
    others += Counter({CLASS_MAPS: made} if made else {})
    if not slides:
        raise UsageError(f"--slides {root}: no slides in it; it holds {counted(others) or 'nothing'}{ways_out(others)}")
    by_name = sorted(slides, key=lambda slide: slide.slide_id)
    return Collection(tuple(by_name), dict(sorted(others.items())), walked.linked)


def _is_class_map(folder: Path, base: Path) -> bool:
    """Whether a folder holds class maps that histo made, which are no slides: results may lie among the slides."""
    between = [folder, *folder.parents][: len(folder.parts) - len(base.parts)]
    return any(path.name == CLASS_MAPS and (path.parent / "slides.parquet").exists() for path in between)


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
