"""A bundle's network as anybody would build it: timm and torch, no histo. All tools are measured with it."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import nn


class PlainNetwork(nn.Module):
    """Normalised images `(B, 3, H, W)` to logits: backbone, batch normalisation, linear."""

    def __init__(self, bundle: Path) -> None:
        super().__init__()
        description = describe(bundle)
        self.backbone = timm.create_model(description["architecture"]["backbone"], num_classes=0)
        features: int = self.backbone.num_features  # type: ignore[assignment] # timm's networks have it
        self.norm = nn.BatchNorm1d(features)
        self.linear = nn.Linear(features, len(description["classes"]))
        weights = load_file(bundle / "model.safetensors")
        self.load_state_dict({name.removeprefix("head."): tensor for name, tensor in weights.items()})
        self.eval()

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return logits, `(B, classes)`."""
        logits: torch.Tensor = self.linear(self.norm(self.backbone(images_BCHW)))
        return logits


def describe(bundle: Path) -> dict[str, Any]:
    """Return the content of a bundle's `model.json`."""
    description: dict[str, Any] = json.loads((bundle / "model.json").read_text())
    return description


def normalisation(bundle: Path) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, of pixels from 0 to 1."""
    described = describe(bundle)["input"]
    return [value / 255 for value in described["mean"]], [value / 255 for value in described["std"]]
