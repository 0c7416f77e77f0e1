"""The settings of a label job, as a person writes them."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from histo.learn.network.spec import InferencePrecision
from histo.run.placement import Device
from histo.slides.spec import ReaderChoice, TilingSpec, TissueSpec
from histo.spec.base import AbsolutePath, Place, Spec, StoredPath, changed_names
from histo.spec.cache import CacheSpec

_OF_STUDIES = ("study_is",)
_OF_SLIDES = (
    *("tiling", "tissue", "reader", "readers", "verify", "quality", "pictures", "batch_size", "max_failed_fraction"),
    *("mpp_if_missing", "mpp_override", "cache"),
)


class LabelSpec(Spec):
    """Write the class probabilities of every tile of every slide in a folder, or of every study, to Parquet tables."""

    COMMON: ClassVar[frozenset[str]] = frozenset(
        (
            *("slides", "studies", "workers", "device", "mpp_if_missing", "mpp_override", "precision"),
            *("retry_failed", "overwrite", "pictures", "quality", "tiling.mpp", "tiling.stride_px"),
            *("tissue.min_fraction", "tissue.mask"),
        )
    )

    slides: Place | None = None
    """Folder of slides, searched in depth; one slide; a pattern ("/data/**/*.svs"); or a list (.csv or .parquet: uri,
    and where known slide_id and mpp). On a disk that all nodes see, or s3://, gs://, https://."""
    studies: AbsolutePath | None = None
    """In the place of slides: folder of MRI or CT studies, searched in depth, or a manifest (.csv or .parquet)."""
    study_is: Literal["folder", "file"] = "folder"
    """Unit that is a study: a folder that holds images, or every NIfTI file."""
    model: StoredPath
    """Model bundle (a folder), or a training run, of which the best bundle is taken."""
    out: StoredPath
    """Folder of the results; what is finished there is not done again."""
    workers: int | None = Field(default=None, ge=1)
    """Workers that read and classify; default: up to four for each GPU, or one for each CPU without GPUs."""
    readers: int | None = Field(default=None, ge=0)
    """Processes that only read, of one CPU each, on any node, while the workers classify; 0: the workers read, too;
    default: chosen by what the cluster has."""
    device: Device = "auto"
    """Device to compute on; auto takes GPUs where there are some."""
    mpp_if_missing: float | None = Field(default=None, ge=0.05, le=20)
    """Resolution of level 0 (µm/px) for slides that name none."""
    mpp_override: float | None = Field(default=None, ge=0.05, le=20)
    """Resolution of level 0 (µm/px) of every slide, whatever it names."""
    max_failed_fraction: float = Field(default=0.1, ge=0, le=1)
    """Share of unreadable tiles (0 to 1) above which a slide is failed, not partial."""
    reader: ReaderChoice = "auto"
    """Decoder of the slides: OpenSlide, the direct reader of tiled TIFF, or (auto) the latter where both agree."""
    precision: InferencePrecision = "float32"
    """Arithmetic of the network; bf16 is faster, and needs a bundle for which `histo convert` found it good enough."""
    batch_size: int | None = Field(default=None, ge=1)
    """Tiles per forward pass; default: 8 on a CPU, what is fastest on a GPU."""
    read_timeout_s: float = Field(default=300.0, gt=0, le=86_400)
    """Seconds in which nothing is read (not one block of up to 64 tiles), after which a worker is ended, and what it
    read is tried alone."""
    retry_failed: bool = False
    """Label failed and partial slides again, also where that was the slide's own fault."""
    overwrite: bool = False
    """Remove all results in the output folder first, also those of a bundle with other classes."""
    pictures: bool = False
    """Draw every slide when all are labelled, as `histo report` does."""
    quality: bool = False
    """Measure how sharp each tile is, and how much ink is on it: two more columns, which tables that are finished get
    without being labelled again."""
    verify: bool = False
    """Hash whole slide files, also where size and time say that they are unchanged."""
    tiling: TilingSpec = TilingSpec()
    tissue: TissueSpec = TissueSpec()
    cache: CacheSpec = CacheSpec()

    @property
    def processes(self) -> int | None:
        """Processes that were asked for; None if that is left to the cluster."""
        return (self.workers or 1) + (self.readers or 0) if self.workers or self.readers else None

    @model_validator(mode="after")
    def _one_collection(self) -> Self:
        if self.slides is None and self.studies is None:
            raise ValueError("--slides is missing (or --studies, for a bundle that classifies studies)")
        if self.slides is not None and self.studies is not None:
            raise ValueError("--slides and --studies are two kinds of input; give one of them")
        ignored = _OF_SLIDES if self.studies is not None else _OF_STUDIES
        kind, given = ("slides", "--studies") if self.studies is not None else ("studies", "--slides")
        for name in changed_names(self, ignored):
            raise ValueError(f"--{name.replace('_', '-')} is a setting of {kind}; leave it out with {given}")
        return self
