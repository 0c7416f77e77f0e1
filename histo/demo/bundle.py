"""A bundle in a moment, whose labels mean nothing: for tests and benchmarks of what happens around the network."""

from pathlib import Path

import numpy as np
import torch

from histo.learn.bundle import Architecture, Bundle, TileInput
from histo.learn.checkpoint import Position, extract_bundle, write_checkpoint
from histo.learn.model import DEFAULT_BACKBONE, Network, Normalisation, create_backbone, pretrained_network

CLASSES = ("MUS", "STR", "TUM")


def random_bundle(folder: Path, backbone: str, size_px: int) -> Path:
    """Write a bundle of three classes at 0.5 µm/px with a random head, always the same one.

    Args:
        folder: Where to.
        backbone: timm's name of it; the default one has its ImageNet weights, any other random ones.
        size_px: Edge of its tiles.

    Returns:
        The bundle's folder.
    """
    torch.manual_seed(0)
    network = _network(backbone).eval()
    torch.nn.init.normal_(network.head.linear.weight, std=0.1)
    description = Bundle(
        architecture=Architecture(backbone=backbone),
        classes=CLASSES,
        input=TileInput(size_px=size_px, mpp=0.5, mean=network.normalisation.mean, std=network.normalisation.std),
        origin={},
        weights_sha256="",
    )
    optimizer = torch.optim.SGD(network.head.parameters())
    position = Position("head", epoch=1, step=1, seed=0)
    write_checkpoint(folder / "checkpoint", network, description, optimizer, position, np.zeros((1, 3)))
    extract_bundle(folder / "checkpoint", folder / "model")
    return folder / "model"


def _network(backbone: str) -> Network:
    if backbone == DEFAULT_BACKBONE:
        return pretrained_network(Architecture(backbone=backbone), len(CLASSES))
    normalisation = Normalisation((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
    return Network(create_backbone(backbone), normalisation, len(CLASSES), dropout=0.2)
