"""What all tests share: where real data lie, and a small bundle that is trained once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from histo.learn.bundle import Architecture, Bundle, TileInput
from histo.learn.checkpoint import Position, extract_bundle, write_checkpoint
from histo.learn.model import Network, Normalisation, create_backbone, pretrained_network

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what reads real data where there are none, as someone who clones the project has none."""
    if not SHARED.is_dir():
        left_out = [item for item in items if item.get_closest_marker("realdata")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data."""
    return SHARED


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default network with three classes, 224 px at 0.5 µm/px, and a random head of visible contrast."""
    torch.manual_seed(0)
    network = pretrained_network(Architecture(backbone="tf_efficientnet_lite0"), 3)
    return write_bundle(tmp_path_factory.mktemp("bundle"), network, "tf_efficientnet_lite0", size_px=224)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of a third of a megabyte with random weights, for tests where the labels do not matter."""
    torch.manual_seed(0)
    normalisation = Normalisation((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
    network = Network(create_backbone("test_efficientnet"), normalisation, classes=3, dropout=0.2)
    return write_bundle(tmp_path_factory.mktemp("tiny"), network, "test_efficientnet", size_px=96)


def write_bundle(root: Path, network: Network, backbone: str, size_px: int) -> Path:
    """Write a network with a random head as a bundle of the classes MUS, STR and TUM at 0.5 µm/px."""
    torch.nn.init.normal_(network.eval().head.linear.weight, std=0.1)
    normalisation = network.normalisation
    description = Bundle(
        architecture=Architecture(backbone=backbone),
        classes=("MUS", "STR", "TUM"),
        input=TileInput(size_px=size_px, mpp=0.5, mean=normalisation.mean, std=normalisation.std),
        origin={},
        weights_sha256="",
    )
    optimizer = torch.optim.SGD(network.head.parameters())
    position = Position("head", epoch=1, step=1, seed=0)
    write_checkpoint(root / "checkpoint", network, description, optimizer, position, np.zeros((1, 3)))
    extract_bundle(root / "checkpoint", root / "model")
    return root / "model"


@pytest.fixture(scope="session")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three separable classes of twelve 32-px tiles each, in one npz file: dark, middle, bright."""
    random = np.random.default_rng(0)
    levels = np.repeat([60, 128, 200], 12)
    images = np.clip(levels[:, None, None, None] + random.normal(0, 12, (36, 32, 32, 3)), 0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("tiles") / "tiles.npz"
    np.savez(path, images=images, labels=np.repeat([0, 1, 2], 12))
    return path
