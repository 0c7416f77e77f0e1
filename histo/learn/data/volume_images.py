"""Prepared volumes in files of their own, as the images of a source."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from histo.errors import ImageError, UsageError
from histo.learn.array_layout import VolumeLayout
from histo.learn.data.images import Content, FileImages, Images
from histo.resample import Pixels
from histo.volume_file import EXTENSIONS, read_header, read_volume

_LOOKED_AT = 8


@dataclass(frozen=True)
class VolumeImages:
    """Volumes of one shape, prepared in one way: those of the first file that can be read."""

    paths: tuple[Path, ...]

    @cached_property
    def layout(self) -> VolumeLayout:
        """What they have in common.

        Raises:
            UsageError: If no file can be read.
        """
        trouble: ImageError | None = None
        for path in self.paths:
            try:
                (series, slices, _, _), facts = read_header(path)
            except ImageError as error:
                trouble = trouble or error
            else:
                return VolumeLayout(series, slices, facts.get("preparation"))
        raise UsageError(f"no volume can be used; the first: {trouble}")

    def load(self, index: int) -> Pixels:
        """Return one volume, `(S, D, H, W)`.

        Raises:
            ImageError: If it cannot be used, has another shape than the others, or was prepared in another way.
        """
        path, layout = self.paths[index], self.layout
        volume_SDHW, facts = read_volume(path)
        series, slices = volume_SDHW.shape[:2]
        if (series, slices) != (layout.series, layout.slices):
            raise ImageError(
                f"{path}: {series} series of {slices} slices, the others have {layout.series} of {layout.slices}; "
                "prepare all studies in one way"
            )
        if facts.get("preparation") != layout.preparation:
            raise ImageError(f"{path}: prepared in another way than the others; prepare all studies in one way")
        return volume_SDHW

    def encoded(self, index: int) -> bytes:
        """Return the file's bytes."""
        return FileImages(self.paths).encoded(index)

    def recorded_content(self, index: int) -> Content | None:  # noqa: ARG002 -- nothing is known of any file
        """Return None: a file has to be read."""
        return None


def is_volume(path: Path) -> bool:
    """Whether a file's name is that of a volume.

    Examples:
        >>> is_volume(Path("a.NII.gz")), is_volume(Path("a.png"))
        (True, False)
    """
    return path.name.lower().endswith(EXTENSIONS)


def are_raw(paths: Sequence[Path]) -> bool:
    """Whether the first of some volumes look like studies that are not prepared: none is histo's, most are unusable."""
    unusable = 0
    for path in paths[:_LOOKED_AT]:
        try:
            facts = read_header(path)[1]
        except ImageError:
            unusable += 1
        else:
            if facts:
                return False
    return 2 * unusable > len(paths[:_LOOKED_AT])


def images_of(paths: Sequence[Path], where: str) -> Images:
    """Return the images that files hold.

    Args:
        paths: Files of pictures, or of volumes.
        where: What messages call the source.

    Raises:
        UsageError: If they are of both kinds.
    """
    volumes = [path for path in paths if is_volume(path)]
    if not volumes:
        return FileImages(tuple(paths))
    if len(volumes) < len(paths):
        other: Any = next(path for path in paths if not is_volume(path))
        raise UsageError(f"{where}: holds volumes ({volumes[0].name}) and pictures ({other.name}); give one of the two")
    return VolumeImages(tuple(paths))
