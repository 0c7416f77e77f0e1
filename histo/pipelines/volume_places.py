"""Where prepared volumes and their contact sheets stand, and the manifest of those volumes that have a class.

`volumes/` has a folder for each class, as readers of class folders expect it, and nothing else but the manifest.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from histo import store
from histo.pipelines.work import Row
from histo.printable import printable
from histo.slides.collection import safe_path
from histo.volume_file import EXTENSIONS

VOLUMES, UNLABELLED, SHEETS = FOLDERS = ("volumes", "unlabelled", "sheets")
MANIFEST = "manifest.csv"


def volume_place(study_id: str, label: str | None) -> str:
    """Say where the volume of a study belongs, relative to the output folder.

    Examples:
        >>> volume_place("TUM/p1/s1", "TUM"), volume_place("p1/s1", None)
        ('volumes/TUM/TUM__p1__s1.nii.gz', 'unlabelled/p1__s1.nii.gz')
    """
    folder = UNLABELLED if label is None else f"{VOLUMES}/{file_name(label)}"
    return f"{folder}/{file_name(study_id)}{EXTENSIONS[0]}"


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
    told_apart = flat.replace("__", "/") == name and shown == flat
    return safe if told_apart else f"{safe}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"


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
