"""The settings of a conversion."""

from pydantic import Field

from histo.spec.base import AbsolutePath, AbsolutePaths, Spec


class ConvertSpec(Spec):
    """Convert a bundle for OpenVINO, and measure on tiles whether it may be run in bfloat16. Training does it too."""

    model: AbsolutePath
    """Model bundle (a folder), or a training run, of which the best bundle is taken."""
    epoch: int | None = Field(default=None, ge=1)
    """Epoch of the training run in --model; default: its best."""
    data: AbsolutePaths = Field(default=[])
    """Tiles like those that will be labelled: any source that training takes; their labels are not used.
    Default: the validation images of the training run, if it is still there."""
    tiles: int = Field(default=1000, ge=1)
    """At most so many tiles are measured, evenly taken."""
    workers: int | None = Field(default=None, ge=1)
    """Threads; default: one for each CPU."""
