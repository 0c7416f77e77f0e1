"""A small backbone in the place of the default one, for tests whose subject is not its accuracy."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from histo.demo.bundle import settled_backbone

BACKBONE = "test_efficientnet"


def write_weights(path: Path) -> Path:
    """Write weights that stand for pretrained ones."""
    torch.manual_seed(0)
    save_file(settled_backbone(BACKBONE, 64).state_dict(), path)
    return path
