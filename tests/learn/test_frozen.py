"""A frozen backbone in OpenVINO stands in for torch, and only as long as it is frozen."""

import pytest
import torch
from torch import nn

from histo.learn.array_layout import TILES
from histo.learn.bundle import Architecture
from histo.learn.network.backbones import Normalisation
from histo.learn.network.model import Network, pretrained_network
from histo.learn.network.spec import DEFAULT_BACKBONE
from histo.learn.openvino.frozen_backbone import FrozenBackbone
from histo.learn.openvino.trace import NotConvertibleError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network() -> Network:
    return pretrained_network(Architecture(backbone=DEFAULT_BACKBONE), classes=3).eval()


@pytest.fixture(scope="module")
def frozen(network: Network) -> FrozenBackbone:
    return FrozenBackbone(network, TILES, size_px=64, threads=1)


@pytest.mark.parametrize("count", [1, 8, 19])
def test_the_features_are_those_of_torch(network: Network, frozen: FrozenBackbone, count: int) -> None:
    images_BCHW = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8)

    with torch.no_grad():
        expected = network.features(images_BCHW)

    assert expected.std() > 0.1
    torch.testing.assert_close(frozen(images_BCHW), expected, atol=1e-4, rtol=1e-4)


def test_a_feature_does_not_depend_on_the_images_beside_it(frozen: FrozenBackbone) -> None:
    images_BCHW = torch.randint(0, 256, (11, 3, 64, 64), dtype=torch.uint8)

    one_by_one = torch.cat([frozen(image[None]) for image in images_BCHW])

    assert torch.equal(frozen(images_BCHW), one_by_one)


def test_a_network_uses_it_where_no_gradient_is_asked_for_and_in_float32(network: Network) -> None:
    images_BCHW = torch.zeros((2, 3, 64, 64), dtype=torch.uint8)
    network.stand_in = lambda images: torch.full((len(images), 1280), 7.0)
    try:
        with torch.no_grad():
            stood_in, rough, none = (
                network.features(images_BCHW),
                network.features(images_BCHW, "bf16"),
                network.features(images_BCHW[:0]),
            )
        learning = network.features(images_BCHW)
    finally:
        network.stand_in = None

    assert (stood_in == 7).all()
    assert not (rough == 7).any()
    assert len(none) == 0
    assert learning.requires_grad
    assert not (learning == 7).any()


def test_a_backbone_that_gives_other_features_is_refused() -> None:
    class Moody(nn.Module):
        num_features = 3

        def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            noise = 0.0 if torch.jit.is_tracing() else 1.0
            return images_BCHW.mean(dim=(2, 3)) + noise

    network = Network(Moody(), Normalisation((127.0,) * 3, (64.0,) * 3), classes=2, dropout=0)

    with pytest.raises(NotConvertibleError, match="gives other features in OpenVINO than in torch"):
        FrozenBackbone(network, TILES, size_px=32, threads=1)
