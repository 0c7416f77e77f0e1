"""Settings of slides: tiling, tissue mask, reader. Imports nothing heavy."""

from typing import Any, Literal

from pydantic import Field

from histo.spec.base import AbsolutePath, Spec

ReaderChoice = Literal["auto", "openslide", "direct"]
"""`auto` is `direct` where the file is suited and both agree on its pixels, else `openslide`."""


class TilingSpec(Spec):
    """Where tiles lie and at which resolution they are read."""

    mpp: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Requested resolution (µm/px); default: the bundle's, and none where tiles are only cut."""
    stride_px: int | None = Field(default=None, gt=0)
    """Distance of neighbouring tile origins (px at the requested resolution); default: the tile's size, no overlap."""
    tolerance: float = Field(default=0.02, ge=0, lt=0.5)
    """Relative deviation from an integer reduction that is accepted and recorded instead of resampled."""
    allow_upsample: bool = False
    """Accept slides that are coarser than the requested resolution, and enlarge them."""


class TissueSpec(Spec):
    """What counts as tissue."""

    min_fraction: float = Field(default=0.25, ge=0, le=1)
    """Least share of a tile that must be tissue (0 to 1)."""
    mpp: float = Field(default=8.0, gt=0, le=100)
    """Resolution of the tissue mask (µm/px)."""
    exclude_ink: bool = True
    """Leave out pen marks; use the no- form for stains other than haematoxylin and eosin."""
    any_image: bool = False
    """Label slides that are no brightfield in colour (fluorescence, grey) all the same, all of each as tissue."""

    mask: AbsolutePath | None = None
    """Folder of masks, named as the slides (GeoJSON, ASAP's XML, PNG, TIFF, or tables of another label run), or one
    file of one slide."""
    mask_classes: list[str] | None = None
    """Names in these files that count as tissue, other names being none; default: all areas, all values but 0."""
    mask_use: Literal["restrict", "replace"] = "restrict"
    """Whether a mask restricts the tissue that is found, or replaces it."""
    mask_bounds: bool = True
    """Take coordinates of GeoJSON, and images of that shape, for those of the scanned part of a slide that names it, as
    QuPath does."""

    def settings(self) -> dict[str, Any]:
        """Return what the fingerprint of a result names; later settings only where they are set.

        The place of masks is none of it: a slide's mask is one of its files.
        """
        later = {"mask"} | (set() if self.any_image else {"any_image"})
        later |= set() if self.mask else {"mask_classes", "mask_use", "mask_bounds"}
        return self.model_dump(mode="json", exclude=later)
