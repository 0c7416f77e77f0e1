"""Trees of folders for laws about what is taken of them: files, folders, links, hidden names; and what is there."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

PASSED_OVER = (".a", "._x.tif", ".ipynb_checkpoints", ".Trash-1000", "__MACOSX", "$Recycle.Bin", "lost+found", "@eaDir")
SHOWN = ("a", "b", "c", "d.tif", "e.nii", "lost+found.txt")
FILES = ("x.tif", "y.PNG", "z.jpe", "notes.txt", "README", "v.nii.gz", "w.svs", ".x.png", "._w.svs")

folder_names = st.sampled_from(SHOWN + PASSED_OVER)
files = st.dictionaries(st.sampled_from(FILES), st.none(), max_size=4)
trees: st.SearchStrategy[dict[str, Any]] = st.recursive(
    files,
    lambda below: st.tuples(files, st.dictionaries(folder_names, below, max_size=3)).map(lambda p: p[1] | p[0]),
    max_leaves=8,
)
links = st.lists(
    st.tuples(st.integers(0, 99), st.sampled_from(("link", "0", "zz", ".l")), st.integers(0, 99)), max_size=5
)


def plant(place: Path, tree: dict[str, Any]) -> None:
    """Write a tree of files; every file holds its own path."""
    place.mkdir(parents=True, exist_ok=True)
    for name, below in tree.items():
        if below is None:
            (place / name).write_text(str(place / name))
        else:
            plant(place / name, below)


def tie(place: Path, wanted: list[tuple[int, str, int]]) -> None:
    """Put links to folders into folders, both by number."""
    folders = [Path(folder) for folder, _, _ in sorted(os.walk(place))]
    for where, name, to in wanted:
        link = folders[where % len(folders)] / name
        if not os.path.lexists(link):
            link.symlink_to(folders[to % len(folders)], target_is_directory=True)


@dataclass
class There:
    """What can be reached from a folder: an independent look.

    Attributes:
        files: Real paths of the files.
        passed_over: Entries that are hidden, or bins.
        doors: Entries that are folders, or links to such.
        folders: Real paths of the folders.
    """

    files: set[str] = field(default_factory=set)
    passed_over: int = 0
    doors: int = 0
    folders: set[str] = field(default_factory=set)

    def look(self, place: str) -> "There":
        real = os.path.realpath(place)
        if real in self.folders:
            return self
        self.folders.add(real)
        for path in Path(real).iterdir():
            if path.name.startswith(".") or path.name.lower() in {"__macosx", "$recycle.bin", "lost+found", "@eadir"}:
                self.passed_over += 1
            elif path.is_dir():
                self.doors += 1
                self.look(str(path))
            else:
                self.files.add(str(path))
        return self
