"""Paths of prepared volumes and contact sheets, and their manifest.

`volumes/` has a folder for each class, as readers of class folders expect it, and nothing else but the manifest.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from histo import store
from histo.errors import UsageError
from histo.input_files import safe_path
from histo.printable import printable
from histo.tables import Row
from histo.volume_file import EXTENSIONS

VOLUMES, UNLABELLED, SHEETS = FOLDERS = ("volumes", "unlabelled", "sheets")
MANIFEST = "manifest.csv"
_MOST_CLASSES = 12
"""That are named in a line."""


def volume_place(study_id: str, label: str | None) -> str:
    """Say where the volume of a study belongs, relative to the output folder.

    Examples:
        >>> volume_place("TUM/p1/s1", "TUM"), volume_place("p1/ct.nii.gz", None)
        ('volumes/TUM/TUM__p1__s1.nii.gz', 'unlabelled/p1__ct.nii.gz')
    """
    folder = UNLABELLED if label is None else f"{VOLUMES}/{file_name(label)}"
    return f"{folder}/{file_name(study_id.removesuffix(EXTENSIONS[0]))}{EXTENSIONS[0]}"


def check_places(where: str, studies: Iterable[tuple[str, str | None]]) -> None:
    """Make sure that each study has a volume of its own: one `a` and one `a.nii.gz` would not.

    Args:
        where: Begins the message.
        studies: Their names, and their classes.

    Raises:
        UsageError: If two have the same.
    """
    owners: dict[str, str] = {}
    for study_id, label in studies:
        other = owners.setdefault(volume_place(study_id, label), study_id)
        if other != study_id:
            raise UsageError(f"{where}: studies {other} and {study_id} would have one volume; rename one of them")


def sheet_place(study_id: str) -> str:
    """Say where the contact sheet of a study belongs, relative to the output folder."""
    return f"{SHEETS}/{file_name(study_id)}.png"


def file_name(name: str) -> str:
    r"""Make one file's name of a path with `/`; different paths give different names.

    Examples:
        >>> file_name("a/b")
        'a__b'
        >>> file_name("a__b").startswith("a__b~"), file_name("a\x1bb").startswith("ax1bb~")
        (True, True)
    """
    flat = name.replace("/", "__")
    shown = printable(flat)  # the name stands in a manifest, which writes control characters as escapes
    safe = safe_path(flat if shown == flat else shown.replace("\\", ""))
    distinct = flat.replace("__", "/") == name and shown == flat
    return safe if distinct else f"{safe}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def arrange(out: Path, rows: Iterable[Row]) -> list[Row]:
    """Put every volume where it belongs, and remove what is there besides of the same studies.

    Args:
        out: Output folder.
        rows: Of the ledger.

    Returns:
        The rows that changed by it.
    """
    changed, places = [], {}
    for row in rows:
        path, place = row.get("volume_path"), volume_place(row["study_id"], row["label"])
        if path is None:
            store.remove(out / sheet_place(row["study_id"]))
        elif path != place and (out / path).exists():
            store.move(out / path, out / place)
            path = place
            changed.append(row | {"volume_path": path})
        places[Path(place).name] = path
    for folder in [out / UNLABELLED, *(out / VOLUMES).glob("*/")]:
        for path in list(folder.glob("*")):
            if path.name in places and places[path.name] != path.relative_to(out).as_posix():
                store.remove(path)
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
    return changed


def count_classes(rows: Sequence[Row]) -> str:
    """Say of how many patients the prepared studies of each class are, so that a patient that became a class is seen.

    Examples:
        >>> count_classes([{"status": "ok", "label": a, "group": b} for a, b in ("ax", "ay", "ay", "bz")])
        '2 classes: a 2 patients, b 1; 4 studies'
    """
    ready = [row for row in rows if row["status"] == "ok"]
    patients: dict[str, set[str | None]] = {}
    for row in ready:
        if row["label"] is not None:
            patients.setdefault(row["label"], set()).add(row["group"])
    counts = [(printable(label), len(groups)) for label, groups in sorted(patients.items())]
    shown = [f"{label} {number}" for label, number in counts[:_MOST_CLASSES]]
    shown[:1] = [f"{text} patient{'' if counts[0][1] == 1 else 's'}" for text in shown[:1]]
    more = [f"{len(counts) - _MOST_CLASSES} more"] if len(counts) > _MOST_CLASSES else []
    classes = f"{len(counts)} class{'' if len(counts) == 1 else 'es'}"
    named = f"{classes}: {', '.join(shown + more)}" if counts else "no classes"
    bare = sum(row["label"] is None for row in ready)
    return f"{named}; {len(ready)} studies{f', {bare} of them without a class' if bare else ''}{_doubt(counts)}"


def _doubt(counts: Sequence[tuple[str, int]]) -> str:
    alone = len(counts) > 2 and all(number == 1 for _, number in counts)
    return "; each class has one patient: where its folder is a patient, give --classes" if alone else ""


def write_manifest(out: Path, rows: Iterable[Row]) -> int:
    """List the volumes that have a class, and return their number; without any there is no manifest."""
    listed = sorted(
        (Path(row["volume_path"]).relative_to(VOLUMES).as_posix(), row["label"], row["group"], row["split"])
        for row in rows
        if row["status"] == "ok" and row["label"] is not None
    )
    if listed:
        store.put_csv(out / VOLUMES / MANIFEST, ("path", "label", "group", "split"), listed)
    else:
        store.remove(out / VOLUMES / MANIFEST)
    return len(listed)
