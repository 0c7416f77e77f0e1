"""A folder of class folders: `SOURCE/CLASS/NAME.png` (or jpg, tif), or prepared volumes, `SOURCE/CLASS/NAME.nii.gz`."""

from collections.abc import Sequence
from pathlib import Path

from histo.errors import UsageError
from histo.learn.listing import Listing
from histo.learn.volume_images import images_of, is_volume

IMAGE_EXTENSIONS = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff"))


def list_folder(root: Path, classes: Sequence[str] | None, flag: str) -> Listing:
    """List the images of class folders; the classes are the folders' names in alphabetical order.

    Args:
        root: The folder.
        classes: Folders to look into, of which some may be missing; None for all that are not hidden.
        flag: What messages call the source.

    Raises:
        UsageError: If it has no class folders, or one without images.
    """
    names = classes or sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    folders = [root / name for name in names if (root / name).is_dir()]
    if not folders:
        wanted = f"none of the class folders {', '.join(classes)}" if classes else "no class folders"
        raise UsageError(f"{flag} {root}: {wanted} in it; expected {root.name}/CLASS/IMAGE.png")
    found = {folder: _image_files(folder) for folder in folders}
    for folder, paths in found.items():
        if not paths:
            raise UsageError(f"{flag} {root}: no images for class {folder.name} (png, jpg, tif or nii.gz in {folder})")
    paths = [path for files in found.values() for path in files]
    return Listing(
        case_ids=[path.relative_to(root).as_posix() for path in paths],
        labels=[path.parent.name for path in paths],
        images=images_of(paths, f"{flag} {root}"),
        classes=tuple(folder.name for folder in folders),
        splits=[None] * len(paths),
        groups=[None] * len(paths),
    )


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if (path.suffix.lower() in IMAGE_EXTENSIONS or is_volume(path)) and path.is_file()
    )
