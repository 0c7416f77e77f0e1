"""Gather folders of images to studies.

Slices are of the examination that they name (StudyInstanceUID), however deep its series lie below the patient. Images
that name none are of one study where their folders are called so (`layouts`); else a folder is a study. Whatever else
lies in a folder goes with the images there.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from histo.folders import Folder
from histo.volumes.finding.identity import Look, patients_of
from histo.volumes.finding.layouts import is_session, study_depth
from histo.volumes.finding.manifest import SPLITS

_IMAGES = ("slice", "nifti", "unreadable")
_MASK = re.compile(r"(?<![a-z])(mask|seg|segmentation|labels?|roi|lesions?|contours?|annotations?)(?![a-z])")
_BARE_SPLITS = [(split,) for split in SPLITS]
_Key = tuple[str, ...]


@dataclass
class Gathered:
    """One study.

    Attributes:
        folders: Those that its files lie in, in the order of walking.
        looks: Its files.
        uid: Its StudyInstanceUID; empty where it has none.
        named: Its folder, where the names of folders say it.
    """

    uid: str = ""
    named: Path | None = None
    folders: list[Path] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    @property
    def place(self) -> Path:
        """The folder that holds all of it."""
        if self.named is not None and not self.uid:
            return self.named
        return Path(os.path.commonpath(self.folders))

    @property
    def spreads(self) -> bool:
        """Whether it has folders below its own."""
        return self.named is not None or self.folders != [self.place]

    @property
    def is_lone(self) -> bool:
        """Whether it is one folder of images that name no examination."""
        return not self.uid and not self.spreads

    @property
    def is_mask(self) -> bool:
        """Whether its images are called masks, all of them, or their folder is."""
        names = [look.file.name for look in self.looks if look.kind in _IMAGES]
        return bool(_MASK.search(self.place.name.lower())) or all(_MASK.search(name.lower()) for name in names)

    def take(self, other: "Gathered") -> None:
        """Add another's folders and files."""
        self.folders += other.folders
        self.looks += other.looks


@dataclass(frozen=True)
class Tree:
    """The folders below a collection's, and what their files are.

    Attributes:
        root: The collection's folder.
        folders: All of them, in the order of walking.
        looks: What lies directly in each.
        series: Names of series, which folders may have.
    """

    root: Path
    folders: Sequence[Folder]
    looks: Mapping[Path, Sequence[Look]]
    series: Sequence[str] = ()

    def parts(self, path: Path) -> tuple[str, ...]:
        """Return the parts of a path below the root."""
        return path.relative_to(self.root).parts

    def depth(self, path: Path) -> int:
        """Return how far a path is below the root, or below the folder of a split: 1 may be a class, 2 a patient."""
        parts = self.parts(path)
        return len(parts) - (parts[:1] != () and parts[0] in SPLITS)


def gather(tree: Tree) -> tuple[list[Gathered], list[Folder]]:
    """Put the images of a tree together to studies.

    Returns:
        The studies, and the folders whose files belong to none.
    """
    by_key: dict[_Key, Gathered] = {}
    without = [folder for folder in tree.folders if not _add_images(tree, folder.path, by_key)]
    studies = _join_lone(tree, _join_nested(list(by_key.values())))
    return studies, [folder for folder in without if not _add_objects(tree, folder.path, studies)]


def _add_images(tree: Tree, path: Path, by_key: dict[_Key, Gathered]) -> bool:
    """Add the files of a folder to the studies that they are of; returns whether it has images."""
    if not any(look.kind in _IMAGES for look in tree.looks[path]):
        return False
    named = _named_by_folders(tree, path)
    for uid, looks in _by_examination(tree.looks[path]).items():
        key = _key(tree, path, uid, looks) if uid else ("folder", str(named or path))
        study = by_key.setdefault(key, Gathered(uid, named))
        study.folders.append(path)
        study.looks += looks
    return True


def _by_examination(looks: Sequence[Look]) -> dict[str, list[Look]]:
    """Divide a folder's files by examination; a series is never divided, and what names none goes with the first."""
    of_series: dict[str, str] = {}
    for look in looks:
        if look.kind == "slice" and look.study_uid:
            of_series.setdefault(look.series_uid or look.study_uid, look.study_uid)
    divided: dict[str, list[Look]] = {uid: [] for uid in of_series.values()} or {"": []}
    first = next(iter(divided))
    for look in looks:
        uid = of_series.get(look.series_uid or look.study_uid, look.study_uid)
        divided[uid if uid in divided else first].append(look)
    return divided


def _key(tree: Tree, path: Path, uid: str, looks: Sequence[Look]) -> _Key:
    """Tell an examination: by its UID below a patient's folder, and above such folders within one folder."""
    depth = tree.depth(path)
    if depth > 2:
        return (uid, str(path.parents[depth - 3]))
    return (uid, str(path.parent), *patients_of(looks))


def _named_by_folders(tree: Tree, path: Path) -> Path | None:
    """Return the folder of the study, where the names of folders say it.

    Folders `FLAIR`, `T1`, `T2` right below a class may also hold the images of all patients: then each has several.
    """
    parts = tree.parts(path)
    count = study_depth(parts, tree.series)
    if count is None or (count == 1 and parts[0] in SPLITS):
        return None
    place = tree.root.joinpath(*parts[:count])
    several = sum(look.kind == "nifti" for look in tree.looks[path]) > 1
    return None if several and tree.depth(place) <= 1 and not is_session(parts, count) else place


def _join_nested(studies: Sequence[Gathered]) -> list[Gathered]:
    """Join what is of one examination where one part lies in the folder of another."""
    kept: dict[str, list[Gathered]] = defaultdict(list)
    for study in sorted(studies, key=lambda study: len(study.place.parts)):
        hosts = kept[study.uid] if study.uid else []
        host = next((other for other in hosts if study.place.is_relative_to(other.place)), None)
        if host is None:
            kept[study.uid].append(study)
        else:
            host.take(study)
    held = {id(study) for group in kept.values() for study in group}
    return [study for study in studies if id(study) in held]


def _join_lone(tree: Tree, studies: Sequence[Gathered]) -> list[Gathered]:
    """Join images that name no examination, such as masks, to the one study among whose folders they lie."""
    hosts: dict[Path, list[Gathered]] = defaultdict(list)
    for study in studies:
        if not study.is_lone:
            for folder in (study.place, *study.place.parents):
                hosts[folder].append(study)
    kept = []
    for study in studies:
        host = _host(tree, study, hosts) if study.is_lone else None
        if host is None:
            kept.append(study)
        else:
            host.take(study)
    return kept


def _host(tree: Tree, lone: Gathered, hosts: Mapping[Path, Sequence[Gathered]]) -> Gathered | None:
    """Return the study that a folder of such images belongs to: the only one in, or around, the nearest folder."""
    place = lone.place
    folder = next((folder for folder in (place, *place.parents) if hosts.get(folder) or folder == tree.root), place)
    near = hosts.get(folder, ())
    if len(near) != 1 or (folder == tree.root and folder != place):
        return None
    around = folder in (place, near[0].place) and tree.depth(folder) >= 2
    return near[0] if around or place == near[0].place or lone.is_mask else None


def _add_objects(tree: Tree, path: Path, studies: Sequence[Gathered]) -> bool:
    """Add a folder of DICOM objects that are no slices to the study whose examination they name, if there is one."""
    uids = {look.study_uid for look in tree.looks[path] if look.kind == "object" and look.study_uid}
    near = [study for study in studies if study.uid in uids and _is_near(tree, study.place, path)] if uids else []
    if len(near) != 1:
        return False
    near[0].folders.append(path)
    near[0].looks += tree.looks[path]
    return True


def _is_near(tree: Tree, place: Path, path: Path) -> bool:
    """Whether a folder lies where the series of a study may: in its folder, or beside it."""
    return path.is_relative_to(place) or (place != tree.root and path.is_relative_to(place.parent))


def name_studies(tree: Tree, studies: Sequence[Gathered]) -> Iterator[tuple[Gathered, Path, str]]:
    """Yield each study with its folder, and with its UID where that folder has other studies.

    The folder is the one that holds all of the study, or where that holds images of others, the study's first one.
    """
    wholes = [_whole(tree, study) for study in studies]
    claims = Counter(wholes) + Counter(
        folder for study, whole in zip(studies, wholes, strict=True) for folder in study.folders if folder != whole
    )
    places = [
        study.folders[0] if claims[whole] > 1 or tree.parts(whole) in _BARE_SPLITS else whole
        for study, whole in zip(studies, wholes, strict=True)
    ]
    times = Counter(places)
    for study, place in zip(studies, places, strict=True):
        yield study, place, study.uid if times[place] > 1 else ""


def _whole(tree: Tree, study: Gathered) -> Path:
    """Return the folder that holds all of a study; of a session, its own, however deep its images lie."""
    session = study.named
    if session is not None and is_session(tree.parts(study.folders[0]), len(tree.parts(session))):
        return session if study.place.is_relative_to(session) else study.place
    return study.place
