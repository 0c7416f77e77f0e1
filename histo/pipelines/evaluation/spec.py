"""The settings of an evaluation."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from histo.learn.data.spec import Subset
from histo.learn.network.spec import InferencePrecision
from histo.learn.score.spec import RESAMPLES
from histo.pipelines.training.spec import Resolutions, check_count
from histo.run.placement import Device
from histo.spec.base import Spec, StoredPath, StoredPaths


class EvaluateSpec(Spec):
    """Measure a bundle on labelled tiles, with pictures and intervals. Nothing is trained."""

    COMMON: ClassVar[frozenset[str]] = frozenset(
        ("data", "part", "epoch", "mpp", "subset", "workers", "device", "colour_baseline")
    )

    model: StoredPath
    """Model bundle (a folder), or a training run, of which the best bundle is taken."""
    epoch: int | None = Field(default=None, ge=1)
    """Epoch of the training run in --model; default: its best."""
    data: StoredPaths = Field(default=[])
    """Labelled tiles: folders of class folders, .npz files, .csv or .parquet manifests, tile tables; one or several.
    Of a source with several parts, the test part. Default: what the training run held out, see --part."""
    mpp: Resolutions | None = None
    """Resolution of the images in --data (µm/px), one for all sources or one for each; they must show a field of the
    size that the bundle was trained on, to whose pixels they are resampled."""
    subset: Subset = "full"
    """Part of --data to measure on: full, tiny (100 a class), small (800), a share such as 0.1, or a count."""
    part: Literal["test", "val"] = "test"
    """Without --data: part of the training run's own images to measure on."""
    out: StoredPath
    """Folder of the results; must not hold a run yet."""
    workers: int | None = Field(default=None, ge=1)
    """Workers that share the images; default: one for each GPU, or 1 without GPUs."""
    device: Device = "auto"
    """Device to compute on; auto takes a GPU where there is one."""
    batch_size: int = Field(default=32, ge=1)
    """Images per forward pass."""
    precision: InferencePrecision = "float32"
    """`bf16` is faster, and refused where its agreement with float32 is too low or unmeasured (`histo convert`)."""
    max_broken: float = Field(default=0.01, ge=0, le=1)
    """Share of images (0 to 1) that may be unusable; they are left out and listed."""
    resamples: int = Field(default=RESAMPLES, ge=0)
    """Draws of the bootstrap behind the 95 % intervals; 0 for none. Images that chose the epoch get none."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Fixes these draws, and the subset."""
    colour_baseline: bool = False
    """Fit logistic regressions on the mean colour and on a colour histogram of the run's training images, and score
    them beside the bundle: how much of the accuracy colour alone gives."""

    @model_validator(mode="after")
    def _one_source_of_cases(self) -> Self:
        if self.data and self.part != "test":
            raise ValueError("--part names a part of the training run's own images; leave it out, or --data")
        if self.mpp and not self.data:
            raise ValueError("--mpp is of the images in --data, and the training run knows its own; leave it out")
        if self.subset != "full" and not self.data:
            raise ValueError("--subset is of the images in --data; leave it out, or give --data")
        check_count("--mpp", self.mpp, self.data, "--data")
        return self
