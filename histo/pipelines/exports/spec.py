"""The settings of jobs that export the results of a label run."""

from typing import ClassVar

from pydantic import Field

from histo.spec.base import Spec, StoredPath


class ExportGeojsonSpec(Spec):
    """Write the tiles of every labelled slide, or regions of one class, to GeoJSON that QuPath imports."""

    POSITIONAL: ClassVar[str | None] = "out"

    out: StoredPath
    """Folder of a label run; files go to `geojson` in it, and tables of regions to `regions`."""
    regions: bool = False
    """Merge neighbouring tiles of one class into regions: annotations, in the place of a tile object for each tile."""
    smooth: int = Field(default=0, ge=0, le=20)
    """Times that each tile first gets the class that most of the nine tiles around and in it have; with --regions."""
    classes: list[str] | None = None
    """Classes that are exported; default: all."""
    least_certain: int | None = Field(default=None, ge=1)
    """Number of tiles of each slide that are exported: those of least confidence; default: all."""
    bounds: bool = True
    """Count places from the scanned part of a slide that names it, as QuPath shows it; or from the corner of level
    0."""
    colours: dict[str, str] | None = None
    """Colours of classes, as TUM=#AA0000; default: those of `histo report`."""
    max_mb: float = Field(default=500.0, gt=0)
    """Greatest size of a file (MB); a slide with a larger one is merged into regions."""
    workers: int | None = Field(default=None, ge=1)
    """Slides that are exported at the same time; default: one for each CPU."""


class ExportGeoparquetSpec(Spec):
    """Write the tile table of every labelled slide as GeoParquet: its columns, and the outline of each tile."""

    POSITIONAL: ClassVar[str | None] = "out"

    out: StoredPath
    """Folder of a label run; files go to `geoparquet` in it."""
    workers: int | None = Field(default=None, ge=1)
    """Slides that are exported at the same time; default: one for each CPU."""


class ExportWsinferSpec(Spec):
    """Write the labels of every slide as WSInfer does: CSV files and a record of the run."""

    POSITIONAL: ClassVar[str | None] = "out"

    out: StoredPath
    """Folder of a label run; files go to `wsinfer` in it."""
    workers: int | None = Field(default=None, ge=1)
    """Slides that are exported at the same time; default: one for each CPU."""
