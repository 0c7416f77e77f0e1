"""A random bundle tells tiles apart, whatever its network is made of."""

from pathlib import Path

import numpy as np
import pytest

from histo.demo.bundle import random_bundle
from histo.learn.predict.torch_predictor import TorchPredictor


@pytest.mark.parametrize(("backbone", "size_px"), [("test_efficientnet", 96), ("resnet18", 64), ("test_vit", 160)])
def test_a_random_bundle_tells_bright_from_dark(backbone: str, size_px: int, tmp_path: Path) -> None:
    tiles = np.stack([np.full((size_px, size_px, 3), level, np.uint8) for level in (40, 120, 220)])

    found = TorchPredictor(random_bundle(tmp_path, backbone, size_px))(tiles)

    assert np.ptp(found, axis=0).max() > 0.01
