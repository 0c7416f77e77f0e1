"""Classes of the names in annotations."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from histo.slides.annotations.shapes import DROPPED


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

        In QuPath, names that end with an asterisk are no classes, such as `Ignore*` and `Region*`.

        Examples:
            >>> Naming({"Tumor": "TUM"}, frozenset({"Ignore*"})).class_of("Tumor")
            'TUM'
        """
        if name is None:
            return None
        if name in self.drop:
            return DROPPED
        if name.endswith("*") and name not in self.names:
            return DROPPED
        own = self.names.get(name, name)
        return own if self.classes is None or own in self.classes else DROPPED

    def unknown(self, names: Iterable[str]) -> list[str]:
        """Return those of some names of which these settings do not say whether they are a class."""
        known = {*self.names, *self.drop, *(self.classes or ())}
        return sorted({*names} - known)
