"""Settings of slides: tiling, tissue mask, reader. Imports nothing heavy."""

from typing import Any, Literal

from pydantic import Field

from histo.spec.base import Spec

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

    def settings(self) -> dict[str, Any]:
        """Return what the fingerprint of a result names; `any_image` only where it is set."""
        return self.model_dump(mode="json", exclude=None if self.any_image else {"any_image"})
