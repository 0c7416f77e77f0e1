"""Find the studies of a folder or a manifest: what each is called, its files, and what its place says of it.

A folder that directly holds images is a study, and so is one that holds nothing else: it becomes a study whose reading
fails, never one that is left out in silence. Sibling folders whose DICOM files bear one StudyInstanceUID are one study,
named by their parent. What is passed over, and how links are followed, is the rule of `histo.folders`.

Of the path above a study, `train`, `val` or `test` in the first place is its split; the next part is its class; the
next, if there is one, its group (a patient). Where there is none, DICOM's PatientID is the group, else the study's own
name.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from histo.class_names import check_names
from histo.errors import UsageError
from histo.folders import Folder, Walk, count_kinds, counted, kind_name, readable, walk
from histo.volumes.files import NIFTI_EXTENSIONS, stem
from histo.volumes.first_image import FirstImage, first_image
from histo.volumes.manifest import MANIFEST_EXTENSIONS, SPLITS, ManifestRow, Split, read_manifest

StudyIs = Literal["folder", "file"]


@dataclass(frozen=True)
class FoundStudy:
    """One examination.

    Attributes:
        study_id: Its path below the root, `/` between parts, or what the manifest calls it.
        files: All of its files, images or not, sorted.
        label: Name of its class; None where unknown.
        group: What must not be split, a patient.
        split: What the place or the manifest says.
        uri: Where it is: its folder or its file.
    """

    study_id: str
    files: tuple[Path, ...]
    label: str | None
    group: str | None
    split: Literal["train", "val", "test"] | None
    uri: str


@dataclass(frozen=True)
class Studies:
    """What there is: studies by `study_id`, the number of files outside of any by extension, and of links followed."""

    studies: tuple[FoundStudy, ...]
    others: dict[str, int]
    linked: int = 0


@dataclass(frozen=True)
class _Place:
    """A study before its place is read: its folder or file, its files, and what the first image says."""

    path: Path
    files: tuple[Path, ...]
    first: FirstImage


def find_studies(
    root: Path,
    study_is: Literal["folder", "file"] = "folder",
    classes: Sequence[str] | None = None,
    flag: str = "--studies",
) -> Studies:
    """List the studies below a folder, or of a manifest, or the one that a file is, sorted by `study_id`.

    Args:
        root: A folder; a manifest, `.csv` or `.parquet`; or an image file.
        study_is: Whether a folder is a study, or each NIfTI file.
        classes: Names of all classes; a folder of another name is no class. None: any name is one.
        flag: What messages call the root.

    Raises:
        UsageError: If the root is missing, holds no study, or is a wrong manifest.
    """
    if not root.exists():
        raise UsageError(f"{flag} {root}: no such file or folder")
    if root.is_file() and root.suffix.lower() in MANIFEST_EXTENSIONS:
        rows = read_manifest(root, flag)
        if not rows:
            raise UsageError(f"{flag} {root}: lists no studies")
        return _sorted([_listed(f"{flag} {root}", row, classes) for row in rows], Counter(), 0)
    base = root if root.is_dir() else root.parent
    walked = walk(root) if root.is_dir() else Walk((Folder(base, (root,), leaf=True),), 0, Counter(), ())
    others = walked.others.copy()
    studies = [_located(base, place, classes) for place in _places(root, walked.folders, study_is, others)]
    check_names(f"{flag} {root}", [study.label for study in studies if study.label is not None])
    if not studies:
        held = counted(others) or "nothing"
        way_out = "; give --study-is folder" if study_is == "file" else ""
        raise UsageError(f"{flag} {root}: no studies in it; it holds {held}{way_out}")
    return _sorted(studies, others, walked.linked)


def _sorted(studies: Iterable[FoundStudy], others: Counter[str], linked: int) -> Studies:
    return Studies(tuple(sorted(studies, key=lambda study: study.study_id)), dict(sorted(others.items())), linked)


def _places(root: Path, folders: Sequence[Folder], study_is: StudyIs, others: Counter[str]) -> Iterator[_Place]:
    """Yield the studies of a folder, or of one file, and count the other files."""
    if root.is_file():
        yield _Place(root, (root,), first_image((root,)) or FirstImage())
        return
    if study_is == "file":
        for file in (file for folder in folders for file in folder.files):
            if file.name.lower().endswith(NIFTI_EXTENSIONS):
                yield _Place(file, (file,), FirstImage())
            else:
                others[kind_name(file.name)] += 1
        return
    yield from _folder_places(root, folders, others)


def _folder_places(root: Path, folders: Sequence[Folder], others: Counter[str]) -> Iterator[_Place]:
    images = {folder.path: first for folder in folders if (first := first_image(folder.files)) is not None}
    by_path = {folder.path: folder for folder in folders}
    merged = dict(_merged(images))
    series = {path for paths in merged.values() for path in paths}
    for study, paths in merged.items():
        yield _Place(study, tuple(file for path in paths for file in by_path[path].files), images[paths[0]])
    for folder in folders:
        if folder.path in images and folder.path not in series:
            yield _Place(folder.path, folder.files, images[folder.path])
        elif folder.path not in images and folder.leaf and folder.path != root and folder.path.parent not in merged:
            yield _Place(folder.path, folder.files, FirstImage())
        elif folder.path not in images:
            others.update(count_kinds(folder.files))


def _merged(images: dict[Path, FirstImage]) -> Iterator[tuple[Path, list[Path]]]:
    """Yield the studies whose series have folders of their own: where a study is, and its folders.

    It is at the folders' parent, or where that has several such studies or images of its own, at its first folder.
    """
    siblings: dict[Path, dict[str, list[Path]]] = {}
    for path, first in images.items():
        if first.study_uid:
            siblings.setdefault(path.parent, {}).setdefault(first.study_uid, []).append(path)
    for parent, by_uid in siblings.items():
        several = [sorted(paths) for paths in by_uid.values() if len(paths) > 1]
        for paths in several:
            yield (parent if len(several) == 1 and parent not in images else paths[0]), paths


def _located(base: Path, place: _Place, classes: Sequence[str] | None) -> FoundStudy:
    name = place.path.relative_to(base).as_posix() if place.path != base else base.absolute().name
    study_id = readable(name)
    *above, own = study_id.split("/")
    split: Split | None = None
    if above and above[0] in SPLITS:
        split = SPLITS[SPLITS.index(above.pop(0))]
    label = above.pop(0) if above and (classes is None or above[0] in classes) else None
    group = above[0] if above else place.first.patient or (stem(own) if place.path.is_file() else own)
    return FoundStudy(study_id, place.files, label, group, split, readable(str(place.path)))


def _listed(where: str, row: ManifestRow, classes: Sequence[str] | None) -> FoundStudy:
    """Make a study of a manifest's row; one whose files are missing is one whose reading fails."""
    if row.label is not None and classes is not None and row.label not in classes:
        raise UsageError(f"{where}: study {row.study_id} has label {row.label!r}; expected one of {', '.join(classes)}")
    files = tuple(_files_below(row.path))
    group = row.group
    if group is None:
        first = first_image(files) or FirstImage()
        group = first.patient or row.study_id
    return FoundStudy(readable(row.study_id), files, row.label, group, row.split, readable(str(row.path)))


def _files_below(path: Path) -> Iterator[Path]:
    """Yield the file, or the files of a folder and those below it; what cannot be listed is yielded itself."""
    if not path.is_dir():
        yield path
        return
    walked = walk(path)
    for folder in walked.folders:
        yield from folder.files
    yield from walked.unreadable
