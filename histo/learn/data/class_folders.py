"""List a folder of class folders: `SOURCE/CLASS/NAME.png`, at any depth.

Prepared volumes likewise: `SOURCE/CLASS/NAME.nii.gz`.

What torchvision's `ImageFolder` takes is taken; what is not is counted.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from histo.class_names import check_names
from histo.errors import UsageError
from histo.folders import count_kinds, counted, walk
from histo.learn.data.listing import OTHER_CLASS, Listing
from histo.learn.data.volume_images import are_raw, images_of, is_volume

IMAGE_EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
)
"""Those of torchvision's `ImageFolder`, and two more names of JPEG."""
_NO_FILE = "no regular file"
_SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))


def list_folder(root: Path, classes: Sequence[str] | None, flag: str) -> Listing:
    """List the images of class folders; the classes are the folders' names in alphabetical order.

    Args:
        root: The folder.
        classes: Folders to look into, of which some may be missing; None for all that are not passed over.
        flag: What messages call the source.

    Raises:
        UsageError: If it has no class folders, one without images, or splits in the place of classes.
    """
    walked = walk(root)
    volumes = [path for folder in walked.folders for path in folder.files if is_volume(path)]
    if are_raw(volumes):
        raise UsageError(
            f"{flag} {root}: holds studies ({volumes[0].relative_to(root)}) that are not prepared; prepare them with "
            f"histo prepare volumes --studies {root} --out VOLUMES, and give {flag} VOLUMES"
        )
    tops = sorted(path.name for path in (*(f.path for f in walked.folders), *walked.unreadable) if path.parent == root)
    check_names(f"{flag} {root}", [*tops, *(classes or ())])
    names = [name for name in classes if name in tops] if classes else tops
    _check_names(root, names, classes, flag)
    found: dict[str, list[Path]] = {name: [] for name in names}
    others = walked.others.copy()
    for path in (path for folder in walked.folders for path in folder.files):
        top, *below = path.relative_to(root).parts
        kind = _kind(path) if below else next(iter(count_kinds([path])))
        if kind is None and top in found:
            found[top].append(path)
        else:
            others[kind or OTHER_CLASS] += 1
    _check_images(root, found, others, flag)
    paths = [path for files in found.values() for path in sorted(files)]
    return Listing(
        case_ids=[path.relative_to(root).as_posix() for path in paths],
        labels=[path.relative_to(root).parts[0] for path in paths],
        images=images_of(paths, f"{flag} {root}"),
        classes=tuple(names),
        splits=[None] * len(paths),
        groups=[None] * len(paths),
        others=others,
        linked=walked.linked,
    )


def _kind(path: Path) -> str | None:
    """Say what a file in a class folder is that is not taken; None for an image."""
    if path.suffix.lower() not in IMAGE_EXTENSIONS and not is_volume(path):
        return next(iter(count_kinds([path])))
    return None if path.is_file() else _NO_FILE


def _check_names(root: Path, names: Sequence[str], classes: Sequence[str] | None, flag: str) -> None:
    if not names:
        wanted = f"none of the class folders {', '.join(classes)}" if classes else "no class folders"
        raise UsageError(f"{flag} {root}: {wanted} in it; expected {root.name}/CLASS/IMAGE.png")
    if not classes and {name.lower() for name in names} <= _SPLIT_NAMES:
        learned = next((name for name in names if name.lower().startswith("train")), names[-1])
        raise UsageError(
            f"{flag} {root}: its folders are splits ({', '.join(names)}), not classes; give {flag} {root / learned}, "
            "and another one as --test"
        )


def _check_images(root: Path, found: dict[str, list[Path]], others: Counter[str], flag: str) -> None:
    for name, paths in found.items():
        if not paths:
            held = f"; beside images the source holds {counted(others)}" if others else ""
            raise UsageError(
                f"{flag} {root}: no images for class {name} (jpg, png, tif, bmp, ppm, webp or nii.gz in {root / name})"
                f"{held}"
            )
