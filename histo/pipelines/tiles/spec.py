"""The settings of a job that writes a tile table."""

from pydantic import Field

from histo.spec.base import AbsolutePath, AbsolutePaths, Spec


class PrepareTilesSpec(Spec):
    """Write labelled tiles to one table of Parquet files, from which training reads them fast."""

    data: AbsolutePaths
    """Labelled tiles: folders of class folders, .npz files, .csv or .parquet manifests; one or several."""
    out: AbsolutePath
    """Folder of the table; must not hold one yet."""
    workers: int | None = Field(default=None, ge=1)
    """Tasks that decode at the same time; default: one for each CPU."""
    classes: list[str] | None = None
    """Class names: of labels 0, 1, ..., or the class folders and named labels to use; in this order."""
    max_broken: float = Field(default=0.01, ge=0, le=1)
    """Share of images (0 to 1) that may be unusable; they are left out and listed."""
