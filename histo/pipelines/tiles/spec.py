"""The settings of a job that writes tiles."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from histo.slides.spec import ReaderChoice, TilingSpec, TissueSpec
from histo.spec.base import AbsolutePath, AbsolutePaths, Place, Spec, changed_names
from histo.spec.cache import CacheSpec

_OF_DATA = ("max_broken",)
_OF_SLIDES = (
    *("annotations", "form", "size_px", "min_share", "names", "drop", "rest", "patients", "bounds", "sheets", "tiling"),
    *("tissue", "mpp_if_missing", "mpp_override", "reader", "read_timeout_s", "cache"),
)
_OF_ANNOTATIONS = ("min_share", "names", "drop", "rest", "classes")


class PrepareTilesSpec(Spec):
    """Write labelled tiles to one table of Parquet files, or cut tiles from slides, labelled by annotations."""

    COMMON: ClassVar[frozenset[str]] = frozenset(
        (
            *("data", "slides", "annotations", "workers", "classes", "names", "drop", "rest", "min_share", "form"),
            *("size_px", "tiling.mpp", "tissue.min_fraction", "patients"),
        )
    )

    data: AbsolutePaths | None = None
    """Labelled tiles: folders of class folders, .npz files, .csv or .parquet manifests; one or several."""
    slides: Place | None = None
    """In the place of data: slides of which tiles are cut, as those of a label job: a folder, searched in depth, a
    slide, a pattern or a list."""
    annotations: AbsolutePath | None = None
    """Folder of annotations, named as the slides: GeoJSON (QuPath), XML (ASAP), label maps (PNG, TIFF), tile tables;
    default: all tiles of tissue, without labels."""
    out: AbsolutePath
    """Folder of the table; must not hold one yet, unless the same command was stopped."""
    form: Literal["table", "images"] = "table"
    """Form of tiles cut from slides: a table of Parquet files, or PNG files with a manifest."""
    workers: int | None = Field(default=None, ge=1)
    """Tasks that decode at the same time; default: one for each CPU."""
    classes: list[str] | None = None
    """Class names: of labels 0, 1, ..., or the class folders, named labels and annotations to use; in this order."""
    names: dict[str, str] | None = None
    """Classes of names in annotations, or of values of label maps, as Tumor=TUM or 3=LYM; default: a name is its
    class."""
    drop: list[str] | None = None
    """Names in annotations that are no class; their area is cut out of what lies below them."""
    rest: str | None = None
    """Class of the tissue that no annotation touches; default: such tiles are left out."""
    min_share: float = Field(default=0.5, gt=0, le=1)
    """Least share of a tile that must lie in its class (0 to 1); of several such classes, it is the one with most."""
    size_px: int = Field(default=224, ge=8, le=4096)
    """Edge of a tile cut from a slide (px at the requested resolution)."""
    patients: AbsolutePath | None = None
    """CSV file with the columns slide and patient, so that no split tears a patient apart; default: a slide is a
    group."""
    bounds: bool = True
    """Take coordinates of GeoJSON, and label maps of that shape, for those of the scanned part of a slide that names
    it, as QuPath does."""
    sheets: bool = True
    """Draw a contact sheet of each slide: its tiles and their classes."""
    mpp_if_missing: float | None = Field(default=None, ge=0.05, le=20)
    """Resolution of level 0 (µm/px) for slides that name none."""
    mpp_override: float | None = Field(default=None, ge=0.05, le=20)
    """Resolution of level 0 (µm/px) of every slide, whatever it names."""
    reader: ReaderChoice = "auto"
    """Decoder of the slides: OpenSlide, the direct reader of tiled TIFF, or (auto) the latter where both agree."""
    read_timeout_s: float = Field(default=300.0, gt=0, le=86_400)
    """Seconds in which nothing is read, after which a worker is ended, and what it read is tried alone."""
    max_broken: float = Field(default=0.01, ge=0, le=1)
    """Share of images (0 to 1) that may be unusable; they are left out and listed."""
    tiling: TilingSpec = TilingSpec()
    tissue: TissueSpec = TissueSpec()
    cache: CacheSpec = CacheSpec()

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.data is None) == (self.slides is None):
            raise ValueError("give one of --data (labelled tiles) and --slides (to cut tiles from)")
        ignored, given = (_OF_SLIDES, "--data") if self.slides is None else (_OF_DATA, "--slides")
        for name in changed_names(self, ignored):
            raise ValueError(f"--{name.replace('_', '-')} has no meaning with {given}; leave it out")
        if self.slides is None:
            return self
        if self.tiling.mpp is None:
            raise ValueError("--tiling.mpp is missing: the resolution of the tiles (µm/px)")
        if self.annotations is None:
            for name in changed_names(self, _OF_ANNOTATIONS):
                raise ValueError(f"--{name.replace('_', '-')} is a setting of annotations; give --annotations, too")
        return self
