"""The settings of a job that plans a label run, as a person writes them."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from histo.run.placement import Device
from histo.slides.spec import ReaderChoice, TilingSpec, TissueSpec
from histo.spec.base import Place, Spec, StoredPath
from histo.spec.cache import CacheSpec


class PlanSpec(Spec):
    """Look at slides before they are labelled: formats, resolutions, tiles, copies, failures, disk and time."""

    COMMON: ClassVar[frozenset[str]] = frozenset(
        (
            *("slides", "model", "out", "exact", "workers", "device", "mpp_if_missing", "mpp_override"),
            *("size_px", "tiling.mpp", "tiling.stride_px", "tissue.min_fraction", "tissue.mask"),
        )
    )

    slides: Place
    """Slides, as for a label job: a folder, one slide, a pattern, or a list (.csv or .parquet); on a disk or remote."""
    model: StoredPath | None = None
    """Model bundle, or a training run: its tiles are counted, and the time is measured on a few of them."""
    out: StoredPath = Field(default=Path(), validate_default=True)
    """Folder of `plan.parquet`; that of the label run, which then need not find the tiles again; default: this one."""
    exact: bool = False
    """Find the tissue of every slide, and its tiles; default: headers alone, and the tiles of whole grids."""
    size_px: int | None = Field(default=None, ge=16, le=4096)
    """Edge of a tile (px at the requested resolution), without a model; default: 224."""
    workers: int | None = Field(default=None, ge=1)
    """Workers of the label run whose time is estimated; default: as many as it would take."""
    device: Device = "auto"
    """Device that it computes on; auto takes GPUs where there are some."""
    mpp_if_missing: float | None = Field(default=None, ge=0.05, le=20)
    """Resolution of level 0 (µm/px) for slides that name none."""
    mpp_override: float | None = Field(default=None, ge=0.05, le=20)
    """Resolution of level 0 (µm/px) of every slide, whatever it names."""
    reader: ReaderChoice = "auto"
    """Decoder of the slides, as for a label job."""
    read_timeout_s: float = Field(default=300.0, gt=0, le=86_400)
    """Seconds in which nothing is read, after which a worker is ended, and the slide is tried alone."""
    tiling: TilingSpec = TilingSpec()
    tissue: TissueSpec = TissueSpec()
    cache: CacheSpec = CacheSpec()
