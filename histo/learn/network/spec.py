"""Settings of the network: backbone, weights, precision."""

from typing import Literal

from pydantic import Field

from histo.spec.base import AbsolutePath, Spec

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
Initial = Literal["pretrained", "random"]
Precision = Literal["float32", "bf16", "float64"]


class NetworkSpec(Spec):
    """Which network is fine-tuned."""

    backbone: str = DEFAULT_BACKBONE
    """timm's name of an ImageNet-pretrained backbone; for volumes also r3d_18, r2plus1d_18 (weights from Kinetics),
    resnet3d_18, lenet_3d and alexnet_2d (from nothing)."""
    weights: AbsolutePath | None = None
    """File (safetensors, or torch's) with the backbone's weights; default: the installed package, or a hub's cache."""
    initial: Initial = "pretrained"
    """Weights that the backbone starts with; `random` is for networks without batch normalisation, which learn all."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of features that is dropped before the last layer in training (0 to 1)."""


InferencePrecision = Literal["float32", "bf16"]
