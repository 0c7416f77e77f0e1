"""Classes of the names in annotations."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from histo.slides.annotations.shapes import DROPPED, bad


@dataclass(frozen=True)
class Naming:
    """The classes of names.

    Attributes:
        names: Classes of those names that are not their own class.
        drop: Names that are no class.
        classes: The classes that are used, others being dropped; None for all.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()
    classes: tuple[str, ...] | None = None

    def class_of(self, name: str | None) -> str | None:
        """Return the class of a name; `DROPPED` if it is no class, None if there is no name.

        Examples:
            >>> Naming({"Tumor": "TUM"}, frozenset({"Ignore*"})).class_of("Tumor")
            'TUM'
        """
        if name is None:
            return None
        if name in self.drop:
            return DROPPED
        own = self.names.get(name, name)
        return own if self.classes is None or own in self.classes else DROPPED


def check_known(path: str, found: Iterable[str], classes: Iterable[str]) -> None:
    """Refuse what is no class: a value of a label map that has no name.

    Raises:
        SlideError: If there is one.
    """
    unknown = {*found} - {*classes, DROPPED}
    if unknown:
        first = min(unknown)
        raise bad(path, f"{first} is no class; give --names {first}=CLASS, or --drop {first}")
