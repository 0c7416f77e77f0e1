"""Slides of a collection, and the other files that lie among them."""

from dataclasses import dataclass, field
from typing import Any

from histo.input_files import file_state, readable_file
from histo.remote.location import scheme, shown
from histo.remote.objects import RemoteState, state, total_state


@dataclass(frozen=True)
class FoundSlide:
    """A file, or a set of files, that could be a slide.

    Attributes:
        slide_id: Path below the collection's folder, `/` between components; or its name in a list.
        path: The file to open, or its URI.
        files: Every file of the slide, `path` first.
        mask: The file of its tissue mask; empty if there is none.
        mpp: µm per level-0 pixel, if a list says so.
        columns: What a list says of it beside, by column.
        states: Of remote files, if a list of the storage told them.
    """

    slide_id: str
    path: str
    files: tuple[str, ...]
    mask: str = ""
    mpp: float | None = None
    columns: dict[str, Any] = field(default_factory=dict, hash=False)
    states: tuple[RemoteState, ...] = ()

    def state(self) -> tuple[int, int]:
        """Return the size of its files in bytes, and the time of their latest change, ns since 1970.

        Raises:
            InputError: If one is not there, or may not be looked at.
        """
        if scheme(self.path) is None:
            return file_state(self.files)
        with readable_file(shown(self.path)):
            return total_state(self.states or [state(uri) for uri in self.files])


@dataclass(frozen=True)
class Collection:
    """What was found.

    Attributes:
        slides: The slides, by `slide_id`.
        others: Number of other files, by extension.
        linked: Number of links to folders that were followed.
        columns: Columns of a list that are carried on, with their Arrow types.
    """

    slides: tuple[FoundSlide, ...]
    others: dict[str, int]
    linked: int = 0
    columns: dict[str, Any] = field(default_factory=dict, hash=False)
