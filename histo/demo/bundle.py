"""A bundle in a moment, whose labels mean nothing: for tests and benchmarks of what happens around the network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from histo.learn.bundle import Architecture, Bundle, TileInput
from histo.learn.checkpoint import Position, extract_bundle, write_checkpoint
from histo.learn.model import DEFAULT_BACKBONE, Network, Normalisation, create_backbone, pretrained_network

CLASSES = ("MUS", "STR", "TUM")


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
    network = _network(backbone, len(classes)).eval()
    torch.nn.init.normal_(network.head.linear.weight, std=0.1)
    description = Bundle(
        architecture=Architecture(backbone=backbone),
        classes=tuple(classes),
        input=TileInput(size_px=size_px, mpp=0.5, mean=network.normalisation.mean, std=network.normalisation.std),
        origin={},
        weights_sha256="",
    )
    optimizer = torch.optim.SGD(network.head.parameters())
    position = Position("head", epoch=1, step=1, seed=0)
    write_checkpoint(folder / "checkpoint", network, description, optimizer, position, np.zeros((1, len(classes))))
    extract_bundle(folder / "checkpoint", folder / "model")
    return folder / "model"


def _network(backbone: str, classes: int) -> Network:
    if backbone == DEFAULT_BACKBONE:
        return pretrained_network(Architecture(backbone=backbone), classes)
    normalisation = Normalisation((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
    return Network(create_backbone(backbone), normalisation, classes, dropout=0.2)
