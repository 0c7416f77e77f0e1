"""Walk a folder by one rule for slides, studies and class folders.

Whatever begins with a dot, and the folders in which systems keep copies and what was deleted (`BINS`), is passed over
and counted. Symbolic links to folders are followed, each real folder once: folders that are really there come first,
then what links lead to, in the order in which the links are met. A path is the one that was walked.
"""

import os
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from histo.input_files import readable

HIDDEN = "hidden"
UNREADABLE_FOLDER = "unreadable folder"
MET_BEFORE = "linked folder met before"
BINS = {
    name.casefold(): name
    for name in (
        "__MACOSX",
        "@eaDir",
        "@Recycle",
        "@Recently-Snapshot",
        "#recycle",
        "#snapshot",
        "~snapshot",
        "$RECYCLE.BIN",
        "RECYCLER",
        "lost+found",
        "System Volume Information",
    )
}
"""Names, in any case, of what macOS, Windows, Linux and storage systems put into folders of their own accord."""


@dataclass(frozen=True)
class Folder:
    """One folder.

    Attributes:
        path: Where it is, as it was walked.
        files: What it directly holds and is no folder, sorted by name; what is passed over is left out.
        leaf: Whether it has no folders that were walked.
    """

    path: Path
    files: tuple[Path, ...]
    leaf: bool


@dataclass(frozen=True)
class Walk:
    """What lies below a folder.

    Attributes:
        folders: The folder and those below it, in the order of walking.
        linked: Number of links to folders that were followed.
        others: Number of entries that were passed over, by what they are.
        unreadable: The folders that cannot be listed.
    """

    folders: tuple[Folder, ...]
    linked: int
    others: Counter[str]
    unreadable: tuple[Path, ...]


def walk(root: Path) -> Walk:
    """Visit a folder and those below it; `root` itself is visited whatever it is called."""
    walker = _Walker()
    walker.visit(root, os.path.realpath(root))
    while walker.links:
        link = walker.links.popleft()
        real = os.path.realpath(link)
        if real in walker.seen:
            walker.others[MET_BEFORE] += 1
        else:
            walker.followed.append(link)
            walker.visit(link, real)
    parents = {folder.parent for folder in [*walker.files, *walker.unreadable] if folder != root}
    folders = tuple(Folder(path, files, path not in parents) for path, files in walker.files.items())
    return Walk(folders, len(walker.followed), walker.others, tuple(walker.unreadable))


@dataclass
class _Walker:
    """A walk that goes on.

    Attributes:
        seen: The real paths of the folders that were visited.
        files: The files of each folder, by its path as walked.
        links: Links to folders that are still to be followed.
        followed: Those that were.
        others: See `Walk.others`.
        unreadable: See `Walk.unreadable`.
    """

    seen: set[str] = field(default_factory=set)
    files: dict[Path, tuple[Path, ...]] = field(default_factory=dict)
    links: deque[Path] = field(default_factory=deque)
    followed: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unreadable: list[Path] = field(default_factory=list)

    def visit(self, top: Path, real: str) -> None:
        """Visit a folder and the real ones below it, and note the links."""
        waiting = [(top, real)]
        while waiting:
            path, real = waiting.pop()
            self.seen.add(real)
            try:
                with os.scandir(path) as listed:
                    entries = sorted(listed, key=lambda entry: entry.name)
            except OSError:
                self.unreadable.append(path)
                self.others[UNREADABLE_FOLDER] += 1
                continue
            shown = [entry for entry in entries if self._is_shown(entry.name)]
            folders = [entry for entry in shown if _is_folder(entry)]
            names = {entry.name for entry in folders}
            self.files[path] = tuple(path / entry.name for entry in shown if entry.name not in names)
            self.links += [path / entry.name for entry in folders if entry.is_symlink()]
            below = [(path / entry.name, f"{real}/{entry.name}") for entry in folders if not entry.is_symlink()]
            waiting += [pair for pair in reversed(below) if self._is_new(pair[1])]

    def _is_new(self, real: str) -> bool:
        if real in self.seen:
            self.others[MET_BEFORE] += 1
        return real not in self.seen

    def _is_shown(self, name: str) -> bool:
        kind = passed_over(name)
        if kind is not None:
            self.others[kind] += 1
        return kind is None


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in circles, or one to where nothing may be looked at; opening it says what is wrong
        return False


def passed_over(name: str) -> str | None:
    """Say what an entry of a folder is that is passed over, by its name; None for one that is not.

    Examples:
        >>> passed_over("._slide.svs"), passed_over("$Recycle.Bin"), passed_over("slide.svs")
        ('hidden', '$RECYCLE.BIN', None)
    """
    return HIDDEN if name.startswith(".") else BINS.get(name.casefold())


def kind_name(name: str) -> str:
    """Say what extension a file has.

    Examples:
        >>> kind_name("Notes.TXT"), kind_name("README")
        ('.txt', 'no extension')
    """
    return readable(Path(name).suffix.lower()) or "no extension"


def count_kinds(files: Iterable[Path]) -> Counter[str]:
    """Count files by their extension."""
    return Counter(kind_name(file.name) for file in files)


def counted(counts: Mapping[str, int]) -> str:
    """Put counts in words.

    Examples:
        >>> counted({".txt": 2, ".json": 1})
        '1 .json, 2 .txt'
    """
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()) if number > 0)


def beside(linked: int, others: Mapping[str, int]) -> str:
    """Say in brackets what was met beside what was taken; nothing if there is nothing to say.

    Examples:
        >>> beside(2, {".txt": 3, "hidden": 1})
        ' (and other files: 3 .txt, 1 hidden; 2 linked folders followed)'
        >>> beside(1, {})
        ' (1 linked folder followed)'
        >>> beside(0, {})
        ''
    """
    words = counted(others)
    remarks = [f"and other files: {words}"] if words else []
    remarks += [f"{linked} linked folder{'s' if linked > 1 else ''} followed"] if linked else []
    return f" ({'; '.join(remarks)})" if remarks else ""
