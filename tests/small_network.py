"""A small backbone in the place of the default one, for tests whose subject is not its accuracy."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from histo.learn.backbones import create_backbone

BACKBONE = "test_efficientnet"


@torch.no_grad()
def write_weights(path: Path) -> Path:
    """Write weights that stand for pretrained ones: random, but their batch normalisation knows its inputs.

    Without that, values would shrink from layer to layer, and the features of all images would be the same.
    """
    torch.manual_seed(0)
    backbone = create_backbone(BACKBONE).train()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    levels = torch.linspace(-1, 1, 16)[:, None, None, None]
    contrasts = torch.linspace(0.05, 0.6, 4)
    for contrast in contrasts:
        backbone(levels + contrast * torch.randn(16, 3, 64, 64))
    save_file(backbone.state_dict(), path)
    return path
