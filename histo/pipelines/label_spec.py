"""The settings of a label job, as a person writes them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from histo.learn.converted import InferencePrecision
from histo.pipelines.placement import Device
from histo.slides.plan import TilingSpec, TissueSpec
from histo.slides.slide import ReaderChoice
from histo.spec import AbsolutePath, Spec


class LabelSpec(Spec):
    """Write the class probabilities of every tile of every slide in a folder, or of every study, to Parquet tables."""

    slides: AbsolutePath | None = None
    """Folder of slides, searched in depth; or one slide."""
    studies: AbsolutePath | None = None
    """In the place of slides: folder of MRI or CT studies, searched in depth, or a manifest (.csv or .parquet)."""
    study_is: Literal["folder", "file"] = "folder"
    """What a study is: a folder that holds images, or every NIfTI file."""
    model: AbsolutePath
    """Model bundle (a folder), or a training run, of which the best bundle is taken."""
    out: AbsolutePath
    """Folder of the results; what is finished there is not done again."""
    workers: int | None = Field(None, ge=1)
    """Workers that read and classify; default: one for each GPU, or for each CPU without GPUs."""
    device: Device = "auto"
    """Where to compute; auto takes GPUs where there are some."""
    mpp_if_missing: float | None = Field(None, ge=0.05, le=20)
    """Resolution of level 0 (µm/px) for slides that name none."""
    mpp_override: float | None = Field(None, ge=0.05, le=20)
    """Resolution of level 0 (µm/px) of every slide, whatever it names."""
    max_failed_fraction: float = Field(0.1, ge=0, le=1)
    """Share of unreadable tiles (0 to 1) above which a slide is failed, not partial."""
    reader: ReaderChoice = "auto"
    """What decodes the slides: OpenSlide, the direct reader of tiled TIFF, or the latter where both agree."""
    precision: InferencePrecision = "float32"
    """Arithmetic of the network; bf16 is faster, and needs a bundle for which `histo convert` found it good enough."""
    batch_size: int | None = Field(None, ge=1)
    """Tiles per forward pass; default: 8 on a CPU, what is fastest on a GPU."""
    read_timeout_s: float = Field(300.0, gt=0, le=86_400)
    """Seconds in which nothing is read (not one block of up to 64 tiles), after which a worker is ended, and what it
    read is tried alone."""
    retry_failed: bool = False
    """Label failed and partial slides again, also where that was the slide's own fault."""
    overwrite: bool = False
    """Remove all results in the output folder first, also those of a bundle with other classes."""
    verify: bool = False
    """Hash whole slide files, also where size and time say that they are unchanged."""
    tiling: TilingSpec = TilingSpec()
    tissue: TissueSpec = TissueSpec()

    @model_validator(mode="after")
    def _one_collection(self) -> Self:
        if self.slides is None and self.studies is None:
            raise ValueError("--slides is missing (or --studies, for a bundle that classifies studies)")
        if self.slides is not None and self.studies is not None:
            raise ValueError("--slides and --studies are two kinds of input; give one of them")
        return self
