"""Listing of a source: its cases as its files name them, before numbering."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from histo.learn.data.images import Images

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
OTHER_CLASS = "images of other classes"


@dataclass(frozen=True)
class Listing:
    """The cases of one source, every sequence in the same order.

    Attributes:
        case_ids: Distinct names of the cases.
        labels: Names of their classes, or numbers into the names that the user gives.
        images: Their pixels.
        classes: Names of the classes in the source's own order; None where labels are numbers.
        splits: What the source says; None where it says nothing.
        groups: What must not be split, such as a patient; None where unknown.
        origins: Names of the sources that a table was made of; empty for all other forms.
        others: Number of files, or of what else there is, that are no cases, by kind.
        linked: Number of links to folders that were followed.
        mpp: Resolution of the images, if the source says so (µm/px).
    """

    case_ids: Sequence[str]
    labels: Sequence[str] | Sequence[int]
    images: Images
    classes: tuple[str, ...] | None
    splits: Sequence[Split | None]
    groups: Sequence[str | None]
    origins: Sequence[str] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    linked: int = 0
    mpp: float | None = None
