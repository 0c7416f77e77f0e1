"""Labelled cases and their images, read from one or several sources.

A source is a folder of class folders (`class_folders.py`), an `.npz` file (`npz.py`), a `.csv` or `.parquet` manifest,
a folder with a `manifest.csv`, or a folder of Parquet files, a tile table (`manifest.py`). A case is a tile, or a
prepared volume.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from histo.class_names import check_groups, check_names
from histo.errors import UsageError
from histo.folders import beside, kind_name, passed_over
from histo.learn.data.class_folders import list_folder
from histo.learn.data.images import Images, SelectedImages, join_images
from histo.learn.data.listing import OTHER_CLASS, Listing, Split
from histo.learn.data.manifest import list_manifest
from histo.learn.data.npz import list_npz
from histo.learn.data.tile_table import INDEX
from histo.remote.cache import held
from histo.remote.location import AnyPath, steps

MANIFEST = "manifest.csv"
"""In a folder, it lists the folder's images."""
_MOST_CLASSES = 1000


@dataclass(frozen=True)
class Case:
    """One labelled image.

    Attributes:
        case_id: Path below the source, `FILE#ROW` of a table, or `FILE.npz#KEY/ROW`; of several sources, with the
            source's name and a slash before it.
        label: Index into the source's classes.
        split: What the source itself says; None where it says nothing.
        group: Unit that is never split (a patient); None where unknown. One name is one group, in all sources.
        source: Name of the source that it is from.
    """

    case_id: str
    label: int
    split: Split | None = None
    group: str | None = None
    source: str = ""


@dataclass(frozen=True)
class Source:
    """Labelled cases and their images, in one order.

    Attributes:
        classes: Names of the classes.
        cases: The cases.
        images: Their pixels, in the order of the cases.
        names: Names of the sources that were read, in the order they were given in.
        others: Number of files, or of what else the sources hold, that are no cases, by kind.
        linked: Number of links to folders that were followed.
        mpps: Resolution of the images of each of the sources that says so (µm/px), None of the others.
        places: Where the sources are; the images of remote ones are those of their copies, see `remote.cache.held`.
    """

    classes: tuple[str, ...]
    cases: tuple[Case, ...]
    images: Images
    names: tuple[str, ...] = ("",)
    others: Mapping[str, int] = field(default_factory=dict)
    linked: int = 0
    mpps: tuple[float | None, ...] = (None,)
    places: tuple[AnyPath, ...] = ()

    @property
    def noun(self) -> str:
        """What messages call several cases."""
        return self.images.layout.noun

    def describe(self) -> str:
        """Say how many cases there are, and what is beside them."""
        return f"{len(self.cases)} {self.noun} of {len(self.classes)} classes{beside(self.linked, self.others)}"

    def facts(self) -> dict[str, Any]:
        """Return what a record says of what is beside the cases."""
        return {"other_files": dict(self.others), "linked_folders": self.linked}

    def labels(self) -> npt.NDArray[np.int64]:
        """Return the class index of every case."""
        return np.array([case.label for case in self.cases], np.int64)

    def select(self, members: Sequence[int]) -> "Source":
        """Return a source of some of the cases, in the given order."""
        cases = tuple(self.cases[i] for i in members)
        return replace(self, cases=cases, images=SelectedImages(self.images, tuple(members)))


def read_sources(
    paths: Sequence[AnyPath],
    classes: Sequence[str] | None = None,
    flag: str = "--data",
    numbers: Sequence[str] | None = None,
) -> Source:
    """Read the lists of cases of one or several sources into one; pixels are loaded later.

    Args:
        paths: The sources.
        classes: Names of numbered labels 0, 1, ...; of folders and named labels the classes to use, others being left
            out. None takes every class: of one source in its own order, of several in alphabetical order.
        flag: What messages call the sources.
        numbers: Names of numbered labels where `classes` is None.

    Raises:
        UsageError: If there is no such source, it is not of a known form, or a class has no images.
    """
    source, numbered = _read(paths, classes, flag, numbers)
    counts = np.bincount(source.labels(), minlength=len(source.classes))
    empty = [name for name, count in zip(source.classes, counts, strict=True) if not count]
    if classes and empty and not numbered:
        raise UsageError(f"{flag} {_listed(paths)}: no {source.noun} for class {empty[0]}")
    return source


def read_test(paths: Sequence[AnyPath], source: Source, classes: Sequence[str] | None = None) -> Source:
    """Read a test set that is kept apart from the training source; it may lack some of its classes.

    Args:
        paths: The sources of the test set.
        source: The training source; its classes name numbered labels.
        classes: As the training source was read with.

    Raises:
        UsageError: As `read_sources`, or if it has another class.
    """
    test, _ = _read(paths, classes, "--test", numbers=source.classes)
    unknown = {test.classes[case.label] for case in test.cases} - set(source.classes)
    if unknown:
        raise UsageError(
            f"--test {_listed(paths)}: class {min(unknown)} is not one of the training classes: "
            f"{', '.join(source.classes)}"
        )
    return test


def with_test(source: Source, test: Source) -> Source:
    """Put a test set behind a source: its cases get the split `test`, and `test:` before their names.

    Raises:
        UsageError: If a group of one is written otherwise in the other.
    """
    check_groups("--data and --test", [case.group for case in source.cases + test.cases])
    places = {name: place for place, name in enumerate(source.classes)}
    cases = tuple(
        replace(
            case,
            case_id=f"test:{case.case_id}",
            label=places[test.classes[case.label]],
            split="test",
            source=f"test:{case.source}",
        )
        for case in test.cases
    )
    return Source(
        classes=source.classes,
        cases=source.cases + cases,
        images=join_images([source.images, test.images], [len(source.cases), len(cases)]),
        names=source.names + tuple(f"test:{name}" for name in test.names),
        others=Counter(source.others) + Counter(test.others),
        linked=source.linked + test.linked,
        mpps=source.mpps + test.mpps,
        places=source.places + test.places,
    )


def _read(
    paths: Sequence[AnyPath], classes: Sequence[str] | None, flag: str, numbers: Sequence[str] | None
) -> tuple[Source, bool]:
    """Read all sources; returns also whether all of them have numbered labels."""
    repeated = [name for name, count in Counter(classes or ()).items() if count > 1]
    if repeated:
        raise UsageError(f"--classes: {repeated[0]} is named twice")
    check_names("--classes", classes or ())
    listings = [_list(path, classes, flag) for path in paths]
    named = [
        _name_numbers(path, listing, classes or numbers, flag) if listing.classes is None else listing
        for path, listing in zip(paths, listings, strict=True)
    ]
    for path, listing in zip(paths, named, strict=True):
        check_names(f"{flag} {path}", [*(listing.classes or ()), *(classes or ())])
    check_names(f"{flag} {_listed(paths)}", [name for listing in named for name in listing.classes or ()])
    check_groups(f"{flag} {_listed(paths)}", [group for listing in listings for group in listing.groups])
    numbered = all(listing.classes is None for listing in listings)
    chosen = tuple(classes) if classes else _join_classes(paths, named, numbered, flag)
    return replace(_join(named, source_names(paths, flag), chosen), places=tuple(paths)), numbered


def _list(place: AnyPath, classes: Sequence[str] | None, flag: str) -> Listing:
    """List a source; errors name the place of a remote one, not its copy."""
    path = held(place)
    try:
        return _list_here(path, classes, flag)
    except UsageError as error:
        raise UsageError(str(error).replace(str(path), str(place))) from error


def _list_here(path: Path, classes: Sequence[str] | None, flag: str) -> Listing:
    if not path.exists():
        raise UsageError(f"{flag} {path}: no such file or folder")
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return list_manifest(path / MANIFEST, [path / MANIFEST], flag)
        parts = sorted(part for part in path.glob("*.parquet") if not passed_over(part.name))
        if not parts:
            return list_folder(path, classes, flag)
        return replace(list_manifest(path, parts, flag), others=_beside_parts(path))
    match path.suffix.lower():
        case ".npz":
            return list_npz(path, flag)
        case ".csv" | ".parquet":
            return list_manifest(path, [path], flag)
        case _:
            raise UsageError(
                f"{flag} {path}: expected a folder of class folders, an .npz file, a .csv or .parquet manifest, or a "
                "tile table"
            )


def _beside_parts(folder: Path) -> Counter[str]:
    """Count what a folder of Parquet files holds beside them, and beside the record of the job that wrote them."""
    kinds = {path: passed_over(path.name) for path in folder.iterdir()}
    own = {"run.json", INDEX, *(["sheets"] if (folder / INDEX).exists() else [])}
    rest = [path for path, kind in kinds.items() if kind or (path.suffix != ".parquet" and path.name not in own)]
    return Counter(kinds[path] or ("folder" if path.is_dir() else kind_name(path.name)) for path in rest)


def _name_numbers(path: AnyPath, listing: Listing, names: Sequence[str] | None, flag: str) -> Listing:
    """Give numbered labels their names, or else call each by its number."""
    numbers = [int(label) for label in listing.labels]
    needed = max(numbers) + 1
    if needed > _MOST_CLASSES:
        raise UsageError(f"{flag} {path}: label {needed - 1}: numbered labels count the classes from 0")
    given = tuple(names) if names else tuple(str(number) for number in range(needed))
    if needed > len(given):
        raise UsageError(
            f"{flag} {path}: label {needed - 1} needs {needed} class names, there are {len(given)}; give --classes"
        )
    return replace(listing, classes=given, labels=[given[number] for number in numbers])


def _join_classes(paths: Sequence[AnyPath], listings: Sequence[Listing], numbered: bool, flag: str) -> tuple[str, ...]:
    """Return the classes of all sources together.

    Raises:
        UsageError: If a source shares no class with the others, as numbers share none with names.
    """
    own = [listing.classes or () for listing in listings]
    if len(own) == 1:
        return own[0]
    for i, path in enumerate(paths):
        others = {name for j, names in enumerate(own) if j != i for name in names}
        if not others & set(own[i]):
            raise UsageError(
                f"{flag} {path}: shares no class with the other sources ({', '.join(own[i][:3])} beside "
                f"{', '.join(sorted(others)[:3])}); give --classes, which names numbered labels in their order"
            )
    return max(own, key=len) if numbered else tuple(sorted({name for names in own for name in names}))


def _join(listings: Sequence[Listing], names: Sequence[str], classes: Sequence[str]) -> Source:
    """Put sources one after the other, and leave out the cases of other classes."""
    numbers = {name: number for number, name in enumerate(classes)}
    parts = [
        _number(listing, name, numbers, alone=len(names) == 1) for listing, name in zip(listings, names, strict=True)
    ]
    cases = tuple(case for part in parts for case in part.cases)
    repeated = [case_id for case_id, count in Counter(case.case_id for case in cases).items() if count > 1]
    if repeated:
        raise UsageError(f"{repeated[0]}: two cases have this name; rename one of the sources")
    images = join_images([part.images for part in parts], [len(part.cases) for part in parts])
    others = sum((Counter(part.others) for part in parts), Counter[str]())
    all_names = tuple(name for part in parts for name in part.names)
    mpps = tuple(listing.mpp for listing, part in zip(listings, parts, strict=True) for _ in part.names)
    return Source(tuple(classes), cases, images, all_names, others, sum(part.linked for part in parts), mpps)


def _number(listing: Listing, name: str, numbers: dict[str, int], alone: bool) -> Source:
    """Number the classes of one source; one of several puts its name before its cases'."""
    members = [i for i, label in enumerate(listing.labels) if label in numbers]
    prefix = "" if alone else f"{name}/"
    inner = tuple(dict.fromkeys(listing.origins))
    names = tuple(prefix + origin for origin in inner) if alone or len(inner) > 1 else ()
    cases = tuple(
        Case(
            case_id=prefix + listing.case_ids[i],
            label=numbers[str(listing.labels[i])],
            split=listing.splits[i],
            group=listing.groups[i],
            source=prefix + listing.origins[i] if names else name,
        )
        for i in members
    )
    left_out = len(listing.labels) - len(members)
    images = SelectedImages(listing.images, tuple(members)) if left_out else listing.images
    others = Counter(listing.others) + Counter({OTHER_CLASS: left_out})
    return Source(tuple(numbers), cases, images, names or (name,), others, listing.linked)


def source_names(paths: Sequence[AnyPath], flag: str) -> list[str]:
    """Return a short distinct name of each source: its own, with as much of its parents' as makes it differ.

    Raises:
        UsageError: If one is given twice.

    Examples:
        >>> source_names([Path("/a/x/tiles"), Path("/a/y/tiles"), Path("/b.npz")], "--data")
        ['x/tiles', 'y/tiles', 'b.npz']
    """
    places = [path.resolve() if isinstance(path, Path) else path for path in paths]
    repeated = [str(path) for path, place in zip(paths, places, strict=True) if places.count(place) > 1]
    if repeated:
        raise UsageError(f"{flag} {repeated[0]}: given twice")
    parts = [Path(os.path.normpath(path)).parts if isinstance(path, Path) else steps(str(path)) for path in paths]
    names = [own[-1] for own in parts]
    for depth in range(2, 1 + max(len(own) for own in parts)):
        counts = Counter(names)
        names = ["/".join(own[-depth:]) if counts[name] > 1 else name for own, name in zip(parts, names, strict=True)]
    return names


def _listed(paths: Sequence[AnyPath]) -> str:
    return ", ".join(str(path) for path in paths)


def class_numbers(source: Source, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the labels of a source as indices into a bundle's classes.

    Raises:
        UsageError: If a case is of another class.
    """
    unknown = sorted({source.classes[case.label] for case in source.cases} - set(classes))
    if unknown:
        raise UsageError(
            f"{', '.join(source.names)}: class {unknown[0]} is not one of the bundle's classes: {', '.join(classes)}"
        )
    return np.array([classes.index(source.classes[case.label]) for case in source.cases], np.int64)
