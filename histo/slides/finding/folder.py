"""Find the slides of a folder, or those of a pattern, local and remote ones.

Files that are no slides are counted by extension, and so are the class maps of a label run. What else is passed over,
and how links are followed, is the rule of `histo.folders`.
"""

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from histo.errors import UsageError
from histo.folders import Folder, Walk, counted, kind_name, passed_over, walk
from histo.input_files import readable
from histo.remote.location import WEB, canonical, scheme, shown
from histo.remote.objects import RemoteState, glob_files, list_files, state
from histo.slides.finding.collection import Collection, FoundSlide
from histo.slides.finding.grouping import Files, LocalFiles, RemoteFiles, group
from histo.slides.readers.foreign import ways_out

CLASS_MAPS = "class_maps"
"""Folder of a label run's pictures for QuPath, below its output folder."""
_TABLES = "slides.parquet"
_WILD = "*?["


@dataclass
class _Found:
    """Files that were found, by their folders; paths or URIs.

    Attributes:
        base: The folder from which slides are named.
        folders: The files of each folder.
        others: What was passed over, by what it is.
        linked: Number of links to folders that were followed.
    """

    base: str
    folders: dict[str, list[str]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    linked: int = 0


def is_pattern(where: str) -> bool:
    """Whether this is a pattern of paths or URIs, not a path that is there."""
    if scheme(where) in WEB or not any(letter in where for letter in _WILD):
        return False
    return scheme(where) is not None or not os.path.lexists(where)


def find_in_folder(where: str) -> Collection:
    """List the slides below a folder (or the one that is named), sorted by `slide_id`.

    Raises:
        UsageError: If the folder is missing or holds no slide.
    """
    kind = scheme(where)
    if kind is None:
        return _collect(where, _found_below(Path(where)), LocalFiles())
    if kind in WEB and where.endswith("/"):
        raise UsageError(
            f"--slides {shown(where)}: a web server's folder cannot be listed; give a list of URIs (.csv or .parquet)"
        )
    try:
        root = canonical(where)
        states = {root: state(root)} if kind in WEB else list_files(root)
    except OSError as error:
        raise _cannot_list(where, error) from None
    if not states:
        raise UsageError(f"--slides {shown(where)}: no such file or folder")
    return _collect(where, _found_remote(root, states), RemoteFiles(states), states)


def find_by_pattern(pattern: str) -> Collection:
    """List the slides that a pattern chooses, and those below the folders that it chooses, sorted by `slide_id`.

    `*` stands for any part of a name, `**` for folders at any depth. Slides are named from the last folder before.

    Raises:
        UsageError: If it chooses no slide.
    """
    if scheme(pattern) is None:
        found = _Found(fixed_part(pattern))
        for path in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 -- of pathlib's, none takes a whole pattern
            _add(found, _found_below(Path(path)))
        return _collect(pattern, found, LocalFiles())
    try:
        base = fixed_part(canonical(pattern))
        states, folders = glob_files(pattern)
        for uri in folders:
            states |= list_files(uri)
    except OSError as error:
        raise _cannot_list(pattern, error) from None
    found = _found_remote(base, states)
    return _collect(pattern, found, RemoteFiles(states), states)


def fixed_part(pattern: str) -> str:
    """Return the folder of a pattern that comes before what varies."""
    start = next(place for place, letter in enumerate(pattern) if letter in _WILD)
    return pattern[:start].rpartition("/")[0] or "/"


def _cannot_list(where: str, error: OSError) -> UsageError:
    return UsageError(f"--slides {shown(where)}: {error.strerror or error}")


def _found_below(root: Path) -> _Found:
    if not root.exists():
        raise UsageError(f"--slides {root}: no such file or folder")
    base = root if root.is_dir() else root.parent
    walked = Walk((Folder(base, (root,), leaf=True),), 0, Counter(), ()) if root.is_file() else walk(root)
    folders = {str(folder.path): [str(file) for file in folder.files] for folder in walked.folders}
    return _Found(str(base), folders, Counter(walked.others), walked.linked)


def _found_remote(root: str, states: Mapping[str, RemoteState]) -> _Found:
    """Sort the files of a list of object storage into folders, by the rule of `histo.folders`."""
    base = root.rpartition("/")[0] if root in states else root.rstrip("/")
    found, passed = _Found(base), dict[str, str]()
    for uri in states:
        folder, _, _ = uri.rpartition("/")
        names = uri.removeprefix(f"{base}/").split("/")
        over = next((place for place, name in enumerate(names) if passed_over(name)), None)
        if over is None or uri == root:
            found.folders.setdefault(folder, []).append(uri)
        else:
            passed["/".join(names[: over + 1])] = passed_over(names[over]) or ""
    found.others.update(passed.values())
    return found


def _add(found: _Found, more: _Found) -> None:
    """Add files, each once."""
    for folder, files in more.folders.items():
        known = found.folders.setdefault(folder, [])
        known += [file for file in files if file not in {*known}]
    found.others.update(more.others)
    found.linked += more.linked


def _collect(where: str, found: _Found, files: Files, states: Mapping[str, RemoteState] | None = None) -> Collection:
    slides: list[FoundSlide] = []
    rest: list[str] = []
    made = 0
    for folder, paths in found.folders.items():
        if _is_class_map(folder, found.base, files):
            made += len(paths)
            continue
        grouped, other = group(paths, files)
        slides += [_slide(found.base, each, states or {}) for each in grouped]
        rest += other
    companions = {file for slide in slides for file in slide.files}
    others = found.others + Counter(kind_name(path.rpartition("/")[2]) for path in rest if path not in companions)
    others += Counter({CLASS_MAPS: made} if made else {})
    if not slides:
        holds = f"it holds {counted(others) or 'nothing'}{ways_out(others)}"
        raise UsageError(f"--slides {shown(where)}: no slides in it; {holds}")
    by_name = sorted(slides, key=lambda slide: slide.slide_id)
    return Collection(tuple(by_name), dict(sorted(others.items())), found.linked)


def _is_class_map(folder: str, base: str, files: Files) -> bool:
    """Whether a folder holds class maps that histo made, which are no slides: results may lie among the slides."""
    while len(folder) > len(base):
        if folder.endswith(f"/{CLASS_MAPS}") and files.beside(folder, [_TABLES]):
            return True
        folder = folder.rpartition("/")[0]
    return False


def _slide(base: str, paths: tuple[str, ...], states: Mapping[str, RemoteState]) -> FoundSlide:
    known = tuple(states[path] for path in paths if path in states)
    return FoundSlide(
        _slide_id(paths[0].removeprefix(base).lstrip("/")),
        paths[0],
        paths,
        states=known if len(known) == len(paths) else (),
    )


def _slide_id(path: str) -> str:
    """Name a slide by its path; one that is not UTF-8 is made readable, and told from others by a hash."""
    name = readable(path)
    return name if name == path else f"{name}~{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
