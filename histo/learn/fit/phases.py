"""Phases of training: the head alone, then the backbone, or a part of it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from histo.learn.network.spec import Precision
from histo.spec.base import Spec

EpochRule = Literal["best", "last"]
PhaseName = Literal["head", "tune"]
_LONG_EPOCH = 1000
"""Steps from which an epoch is validated in its middle, too."""


class HeadSpec(Spec):
    """The first phase: the head learns, the backbone is frozen."""

    epochs: int = Field(default=3, ge=0)
    """Most passes over the training images."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate after the warm-up."""
    augment: bool = True
    """Change the images; without it (or with the preset `none`) the backbone's features are computed once."""


class TuneSpec(Spec):
    """The second phase: the backbone learns, too."""

    epochs: int = Field(default=10, ge=0)
    """Most passes over the training images."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Learning rate of the head after the warm-up."""
    layer_decay: float = Field(default=0.8, gt=0, le=1)
    """The learning rate of each layer is that of the layer above times this."""
    layers: int | None = Field(default=None, ge=1)
    """Number of the backbone's last layers (timm's groups) that learn; default: all."""
    exact_statistics: bool = False
    """At the end of an epoch, compute the statistics of the head's normalisation anew, over all training images: where
    an epoch has few steps, running ones lag behind the weights. A third more time."""


class FitSpec(Spec):
    """How the network is trained."""

    batch_size: int = Field(default=32, ge=2)
    """Images per step, over all workers."""
    head: HeadSpec = HeadSpec()
    tune: TuneSpec = TuneSpec()
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), or SGD with Nesterov momentum."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Weight decay of matrices and kernels; biases and normalisations have none."""
    warmup_epochs: float = Field(default=0.5, ge=0)
    """Epochs of each phase over which the learning rate rises from near 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: falls to 0 along half a cosine (Loshchilov and Hutter 2017, arXiv
    1608.03983)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes (Szegedy et al. 2016, doi 10.1109/CVPR.2016.308)."""
    balance: Literal["none", "weights", "sampling"] = "none"
    """Unequal classes: weight the losses, or draw all classes equally often."""
    precision: Precision = "float32"
    """bf16: the backbone's layers run under autocast. float64: slow, and rounding does not tell worker counts apart."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Greatest norm of the gradient; default: unlimited."""
    checkpointing: bool = False
    """Compute values within the backbone again in the backward pass: less memory, and a third more time."""
    bundle_epoch: EpochRule = "best"
    """Epoch that becomes the bundle: that of the least validation loss; or the last one, where validation images are so
    few that the least loss is a matter of luck."""
    patience: int | None = Field(default=None, ge=1)
    """End a phase after so many epochs without a smaller validation loss; default: never."""

    validation_steps: int | None = Field(default=None, ge=1)
    """Steps after which the validation images are scored within an epoch, too, for its curves; default: half of an
    epoch of 1,000 steps or more."""

    @model_validator(mode="after")
    def _something_is_trained(self) -> "FitSpec":
        if not self.head.epochs + self.tune.epochs:
            raise ValueError("no epochs: give head.epochs or tune.epochs")
        return self


@dataclass(frozen=True)
class Phase:
    """A run of epochs in which the same parameters learn.

    Attributes:
        name: Which of the two.
        spec: The settings of training.
        begin: Number of its first epoch.
    """

    name: PhaseName
    spec: FitSpec
    begin: int = 1

    @property
    def settings(self) -> HeadSpec | TuneSpec:
        """The settings of this phase."""
        return self.spec.head if self.name == "head" else self.spec.tune

    @property
    def end(self) -> int:
        """Number of its last epoch, unless it stops early."""
        return self.begin + self.settings.epochs - 1

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of the head.

        Args:
            step: 0 at the start of the phase.
            steps_per_epoch: Global batches in an epoch.

        Examples:
            >>> phase = Phase("head", FitSpec(warmup_epochs=1, head={"epochs": 3, "learning_rate": 1.0}))
            >>> [round(phase.learning_rate(step, 2), 3) for step in range(6)]
            [0.333, 0.667, 1.0, 0.854, 0.5, 0.146]
        """
        warmup = round(self.spec.warmup_epochs * steps_per_epoch)
        rate = self.settings.learning_rate
        if step < warmup:
            return rate * (step + 1) / (warmup + 1)
        if self.spec.schedule == "constant":
            return rate
        total = self.settings.epochs * steps_per_epoch
        return rate * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2

    def validation_steps(self, steps_per_epoch: int) -> int:
        """Return after how many steps the validation cases are scored within an epoch; all its steps for never.

        Examples:
            >>> [Phase("tune", FitSpec()).validation_steps(steps) for steps in (999, 1001)]
            [999, 501]
        """
        default = math.ceil(steps_per_epoch / 2) if steps_per_epoch >= _LONG_EPOCH else steps_per_epoch
        return self.spec.validation_steps or default


def is_stalled(val_losses: Sequence[float | None], patience: int | None) -> bool:
    """Say whether the best of a phase's validation losses lies `patience` epochs back; never without validation.

    Examples:
        >>> is_stalled([0.9, 0.5, 0.6], patience=2), is_stalled([0.9, 0.5, 0.6, 0.5], patience=2)
        (False, True)
    """
    losses = [loss for loss in val_losses if loss is not None]
    if patience is None or not losses:
        return False
    return len(losses) - 1 - losses.index(min(losses)) >= patience


def phases_left(spec: FitSpec, past: list[dict[str, Any]]) -> Iterator[Phase]:
    """Yield the phases that are not finished, in order; a caller who trains one adds its epochs to `past`.

    Args:
        spec: The settings of training.
        past: A row per finished epoch, with `phase` and `val_loss`.
    """
    for name, settings in (("head", spec.head), ("tune", spec.tune)):
        own = [line for line in past if line["phase"] == name]
        if len(own) < settings.epochs and not is_stalled([line["val_loss"] for line in own], spec.patience):
            yield Phase("head" if name == "head" else "tune", spec, begin=len(past) - len(own) + 1)
