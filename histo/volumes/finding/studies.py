"""Find the studies of a folder or a manifest: names, files, classes.

What is one study says `gathering`: an examination of DICOM, or a folder of images. A folder that holds
nothing else becomes a study whose reading fails, never one that is left out in silence. What is passed over, and how
links are followed, is the rule of `histo.folders`; what the path above a study says, that of `layouts`;
who is one patient, that of `patients`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from histo.class_names import check_names
from histo.errors import UsageError
from histo.folders import Folder, Walk, count_kinds, counted, kind_name, walk
from histo.input_files import readable
from histo.volumes.files import NIFTI_EXTENSIONS, stem
from histo.volumes.finding.gathering import Gathered, Tree, gather, name_studies
from histo.volumes.finding.identity import Look, look_at, patients_of
from histo.volumes.finding.layouts import is_session, read_place
from histo.volumes.finding.manifest import MANIFEST_EXTENSIONS, ManifestRow, read_manifest
from histo.volumes.finding.patients import Named, group_studies
from histo.volumes.spec import PatientIs

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
    """What there is.

    Attributes:
        studies: By `study_id`.
        others: Number of files outside of any by extension.
        linked: Number of links that were followed.
        named: What is known of the patient of each study.
    """

    studies: tuple[FoundStudy, ...]
    others: dict[str, int]
    linked: int = 0
    named: tuple[Named, ...] = ()


@dataclass(frozen=True)
class _Place:
    """A study before its place is read.

    Attributes:
        path: Its folder or file.
        files: Its files.
        patients: What the files call its patient.
        uid: Its StudyInstanceUID, where another study has the same folder.
        session: Whether the layout says that it is a session of the folder above.
    """

    path: Path
    files: tuple[Path, ...]
    patients: tuple[str, ...] = ()
    uid: str = ""
    session: bool = False


def find_studies(
    root: Path,
    study_is: StudyIs = "folder",
    classes: Sequence[str] | None = None,
    flag: str = "--studies",
    series: Sequence[str] = (),
    patient_is: PatientIs = "files",
) -> Studies:
    """List the studies below a folder, or of a manifest, or the one that a file is, sorted by `study_id`.

    Args:
        root: A folder; a manifest, `.csv` or `.parquet`; or an image file.
        study_is: Whether a folder is a study, or each NIfTI file.
        classes: Names of all classes; a folder of another name is no class. None: any name is one.
        flag: What messages call the root.
        series: Names of series: folders that are called so are those of one study.
        patient_is: Whether files say who is one patient, or folders alone.

    Raises:
        UsageError: If the root is missing, holds no study, or is a wrong manifest.
    """
    if not root.exists():
        raise UsageError(f"{flag} {root}: no such file or folder")
    if root.is_file() and root.suffix.lower() in MANIFEST_EXTENSIONS:
        rows = read_manifest(root, flag)
        if not rows:
            raise UsageError(f"{flag} {root}: lists no studies")
        return _grouped([_listed(f"{flag} {root}", row, classes) for row in rows], patient_is, Counter(), 0)
    base = root if root.is_dir() else root.parent
    walked = walk(root) if root.is_dir() else Walk((Folder(base, (root,), leaf=True),), 0, Counter(), ())
    others = walked.others.copy()
    places = _places(root, walked.folders, study_is, others, series)
    located = [_located(base, place, classes) for place in places]
    check_names(f"{flag} {root}", [study.label for study, _ in located if study.label is not None])
    if not located:
        held = counted(others) or "nothing"
        way_out = "; give --study-is folder" if study_is == "file" else ""
        raise UsageError(f"{flag} {root}: no studies in it; it holds {held}{way_out}")
    return _grouped(located, patient_is, others, walked.linked)


def _grouped(
    located: Iterable[tuple[FoundStudy, Named]], patient_is: PatientIs, others: Counter[str], linked: int
) -> Studies:
    """Give each study its patient, and put them in order."""
    pairs = sorted(located, key=lambda pair: pair[0].study_id)
    named = tuple(one for _, one in pairs)
    groups = group_studies(named, patient_is)
    studies = tuple(replace(study, group=group) for (study, _), group in zip(pairs, groups, strict=True))
    return Studies(studies, dict(sorted(others.items())), linked, named)


def _places(
    root: Path, folders: Sequence[Folder], study_is: StudyIs, others: Counter[str], series: Sequence[str]
) -> Iterator[_Place]:
    """Yield the studies of a folder, or of one file, and count the other files."""
    if root.is_file():
        yield _Place(root, (root,), patients_of(look_at((root,))))
    elif study_is == "file":
        for file in (file for folder in folders for file in folder.files):
            if file.name.lower().endswith(NIFTI_EXTENSIONS):
                yield _Place(file, (file,))
            else:
                others[kind_name(file.name)] += 1
    else:
        yield from _folder_places(_tree(root, folders, series), others)


def _tree(root: Path, folders: Sequence[Folder], series: Sequence[str]) -> Tree:
    looks = iter(look_at([file for folder in folders for file in folder.files]))
    by_folder: dict[Path, list[Look]] = {folder.path: [next(looks) for _ in folder.files] for folder in folders}
    return Tree(root, folders, by_folder, series)


def _folder_places(tree: Tree, others: Counter[str]) -> Iterator[_Place]:
    studies, without = gather(tree)
    for study, path, uid in name_studies(tree, studies):
        yield _gathered_place(tree, study, path, uid)
    around = {study.place for study in studies if study.spreads}
    for folder in without:
        if folder.leaf and folder.path != tree.root and not around.intersection(folder.path.parents):
            yield _Place(folder.path, folder.files)
        else:
            others.update(count_kinds(folder.files))


def _gathered_place(tree: Tree, study: Gathered, path: Path, uid: str) -> _Place:
    files = tuple(sorted(look.file for look in study.looks))
    session = is_session(tree.parts(study.folders[0]), len(tree.parts(path)))
    return _Place(path, files, patients_of(study.looks), uid, session)


def _located(base: Path, place: _Place, classes: Sequence[str] | None) -> tuple[FoundStudy, Named]:
    name = place.path.relative_to(base).as_posix() if place.path != base else base.absolute().name
    if place.uid:
        name = place.uid if place.path == base else f"{name}/{place.uid}"
    study_id = readable(name)
    parts = study_id.split("/")
    read = read_place(parts, classes, place.session)
    own = stem(parts[-1]) if place.path.is_file() else parts[-1]
    named = Named(study_id, place.patients, read.patient, own)
    return FoundStudy(study_id, place.files, read.label, None, read.split, readable(str(place.path))), named


def _listed(where: str, row: ManifestRow, classes: Sequence[str] | None) -> tuple[FoundStudy, Named]:
    """Make a study of a manifest's row; one whose files are missing is one whose reading fails."""
    if row.label is not None and classes is not None and row.label not in classes:
        raise UsageError(f"{where}: study {row.study_id} has label {row.label!r}; expected one of {', '.join(classes)}")
    files = tuple(_files_below(row.path))
    patients = patients_of(look_at(files)) if row.group is None else ()
    study_id = readable(row.study_id)
    named = Named(study_id, patients, None, row.study_id, row.group)
    return FoundStudy(study_id, files, row.label, None, row.split, readable(str(row.path))), named


def _files_below(path: Path) -> Iterator[Path]:
    """Yield the file, or the files of a folder and those below it; what cannot be listed is yielded itself."""
    if not path.is_dir():
        yield path
        return
    walked = walk(path)
    for folder in walked.folders:
        yield from folder.files
    yield from walked.unreadable
