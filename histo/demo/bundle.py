"""Make a bundle with random weights in a moment, for tests and benchmarks.

Its labels mean nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from histo.learn.array_layout import VolumeLayout
from histo.learn.bundle import Architecture, Bundle, TileInput, VolumeInput
from histo.learn.fit.checkpoint import Position, extract_bundle, write_checkpoint
from histo.learn.network.backbones import RANDOM_START, create_backbone
from histo.learn.network.model import Network, pretrained_network, random_network
from histo.learn.network.spec import DEFAULT_BACKBONE

CLASSES = ("MUS", "STR", "TUM")
STUDY_CLASSES = ("mts", "norma")


def random_bundle(folder: Path, backbone: str, size_px: int, classes: Sequence[str] = CLASSES) -> Path:
    """Write a bundle at 0.5 µm/px with a random head, always the same one.

    Args:
        folder: Where to.
        backbone: timm's name of it; the default one has its ImageNet weights, any other random ones.
        size_px: Edge of its tiles.
        classes: Names of its outputs.

    Returns:
        The bundle's folder.
    """
    torch.manual_seed(0)
    network = _network(backbone, len(classes), size_px).eval()
    normalisation = network.normalisation
    seen = TileInput(size_px=size_px, mpp=0.5, mean=normalisation.mean, std=normalisation.std)
    return _write(folder, network, Architecture(backbone=backbone), classes, seen)


def random_volume_bundle(
    folder: Path,
    layout: VolumeLayout,
    size_px: int,
    backbone: str = "lenet_3d",
    classes: Sequence[str] = STUDY_CLASSES,
) -> Path:
    """Write a bundle that classifies studies, with random weights, always the same ones.

    Args:
        folder: Where to.
        layout: Of the volumes.
        size_px: Edge of a slice.
        backbone: One that can be trained from random weights.
        classes: Names of its outputs.

    Returns:
        The bundle's folder.
    """
    torch.manual_seed(0)
    architecture = Architecture(backbone=backbone, input_channels=layout.series)
    network = random_network(architecture, len(classes), layout).eval()
    seen = VolumeInput(
        series=layout.series,
        slices=layout.slices,
        size_px=size_px,
        mean=network.normalisation.mean,
        std=network.normalisation.std,
        preparation=layout.preparation,
    )
    return _write(folder, network, architecture, classes, seen)


def _write(
    folder: Path, network: Network, architecture: Architecture, classes: Sequence[str], seen: TileInput | VolumeInput
) -> Path:
    torch.nn.init.normal_(network.head.linear.weight, std=0.1)
    description = Bundle(
        task=seen.layout.task,
        architecture=architecture,
        classes=tuple(classes),
        input=seen,
        origin={},
        weights_sha256="",
    )
    optimizer = torch.optim.SGD(network.head.parameters())
    position = Position("head", epoch=1, step=1, seed=0)
    write_checkpoint(folder / "checkpoint", network, description, optimizer, position, np.zeros((1, len(classes))))
    extract_bundle(folder / "checkpoint", folder / "model")
    return folder / "model"


def _network(backbone: str, classes: int, size_px: int) -> Network:
    if backbone == DEFAULT_BACKBONE:
        return pretrained_network(Architecture(backbone=backbone), classes)
    return Network(settled_backbone(backbone, size_px), RANDOM_START, classes, dropout=0.2)


@torch.no_grad()
def settled_backbone(name: str, size_px: int) -> nn.Module:
    """Return a backbone with random weights whose batch normalisation has the moments of noise of many contrasts.

    Without them, values shrink from layer to layer until the features of all images are the same.
    """
    backbone = create_backbone(name).train()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    levels = torch.linspace(-1, 1, 16)[:, None, None, None]
    for contrast in (0.05, 0.2, 0.4, 0.6):
        backbone(levels + contrast * torch.randn(16, 3, size_px, size_px))
    return backbone
