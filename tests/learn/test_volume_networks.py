from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from histo.demo.bundle import random_volume_bundle
from histo.errors import UsageError
from histo.learn.array_layout import TILES, VolumeLayout
from histo.learn.bundle import Architecture, check_layout, read_bundle
from histo.learn.conversion import convert
from histo.learn.fit.augment import augment
from histo.learn.fit.augment_spec import AugmentSpec, check_augmentation
from histo.learn.fit.optimizer import layers_of
from histo.learn.network.backbones import create_backbone, load_pretrained
from histo.learn.network.model import Network, check_size, load_network, pretrained_network, random_network
from histo.learn.network.spec import DEFAULT_BACKBONE
from histo.learn.network.volume_networks import NETWORKS, adapt_first_kernel
from histo.learn.predict.base import batch_on_cpu
from histo.learn.predict.load import load_predictor
from histo.learn.predict.torch_predictor import TorchPredictor

LAYOUT = VolumeLayout(3, 4, {"slices": 4})
FROM_NOTHING = ("lenet_3d", "alexnet_2d", "resnet3d_18")


def volumes(count: int, size_px: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 4, size_px, size_px), dtype=torch.uint8, generator=generator)


def from_nothing(name: str) -> Network:
    torch.manual_seed(0)
    return random_network(Architecture(backbone=name), 2, LAYOUT)


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_NOTHING)
def test_a_network_learns_to_tell_two_volumes_apart_from_random_weights(name: str) -> None:
    network, images, labels = from_nothing(name), volumes(4), torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(4 if name == "resnet3d_18" else 6):
        loss = nn.functional.cross_entropy(network.head(network.features(images), 4), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.backbone.parameters() if p.ndim > 1)


@pytest.mark.parametrize("name", [*FROM_NOTHING, DEFAULT_BACKBONE])
def test_checkpointing_changes_no_gradient(name: str) -> None:
    images = volumes(2)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        architecture = Architecture(backbone=name)
        pretrained = name == DEFAULT_BACKBONE
        network = pretrained_network(architecture, 2, None, LAYOUT) if pretrained else from_nothing(name)
        network.eval().set_checkpointing(checkpointing)
        network.features(images).square().sum().backward()
        gradients.append([p.grad for p in network.backbone.parameters() if p.grad is not None])

    for before, after in zip(*gradients, strict=True):
        torch.testing.assert_close(before, after)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_network_has_layers_to_be_trained_one_below_the_other(name: str) -> None:
    backbone = create_backbone(name, LAYOUT)

    assert 3 <= len(layers_of(backbone)) <= 8
    assert sum(p.numel() for layer in layers_of(backbone) for p in layer) == sum(
        p.numel() for p in backbone.parameters()
    )


def test_the_order_of_axes_is_that_of_the_layout() -> None:
    network = from_nothing("alexnet_2d")
    images = volumes(1)

    seen = network.normalise(images.float())

    assert seen.shape == (1, 12, 32, 32)
    torch.testing.assert_close(seen[0, 4 + 3], (images[0, 1, 3].float() - 127) / 128)
    assert from_nothing("lenet_3d").normalise(images.float()).shape == (1, 3, 4, 32, 32)


def test_imagenet_weights_are_adapted_to_the_channels() -> None:
    plain = pretrained_network(Architecture(backbone=DEFAULT_BACKBONE), 2).eval()
    network = pretrained_network(Architecture(backbone=DEFAULT_BACKBONE), 2, None, LAYOUT).eval()
    grey = volumes(2)[:, :1, :1]

    with torch.inference_mode():
        on_all = network.features(grey.expand(-1, 3, 4, -1, -1))
        as_grey = plain.features(grey[:, 0].expand(-1, 3, -1, -1))

    torch.testing.assert_close(on_all, as_grey, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3, 4, 60])
def test_an_adapted_kernel_sums_to_what_it_did(channels: int) -> None:
    kernel = torch.rand(5, 1, 3, 3).expand(-1, 3, -1, -1)

    adapted = adapt_first_kernel(kernel, channels)

    assert adapted.shape == (5, channels, 3, 3)
    torch.testing.assert_close(adapted.sum(dim=1), kernel.sum(dim=1))


@pytest.mark.slow
def test_a_file_of_torchvision_gives_a_video_network_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = create_backbone("r3d_18", VolumeLayout(3, 4)).state_dict() | {"fc.weight": torch.rand(400, 512)}
    torch.save(trained, tmp_path / "r3d_18.pth")
    backbone = create_backbone("r3d_18", VolumeLayout(2, 4))

    load_pretrained(backbone, "r3d_18", tmp_path / "r3d_18.pth")

    found = backbone.state_dict()
    torch.testing.assert_close(found["layer4.1.conv2.0.weight"], trained["layer4.1.conv2.0.weight"])
    torch.testing.assert_close(found["stem.0.weight"], trained["stem.0.weight"][:, :2] * 1.5)


def test_a_file_of_timm_is_adapted_too(tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = timm.create_model("resnet18", num_classes=0).state_dict()
    save_file(trained, tmp_path / "w.safetensors")
    backbone = create_backbone("resnet18", LAYOUT)

    load_pretrained(backbone, "resnet18", tmp_path / "w.safetensors")

    torch.testing.assert_close(backbone.state_dict()["conv1.weight"][:, 3:6], trained["conv1.weight"] / 4)


def test_a_file_that_holds_code_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(1, 1), tmp_path / "w.pth")

    with pytest.raises(UsageError, match=r"--network.weights .*w\.pth"):
        load_pretrained(create_backbone("r3d_18", LAYOUT), "r3d_18", tmp_path / "w.pth")


@pytest.mark.parametrize("name", FROM_NOTHING)
def test_a_network_without_pretrained_weights_is_never_random_in_silence(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: has no pretrained weights; give --network.initial random"):
        pretrained_network(Architecture(backbone=name), 2, None, LAYOUT)


@pytest.mark.parametrize("name", ["r3d_18", "resnet18"])
def test_batch_normalisation_is_not_trained_from_random_weights(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} has batch normalisation"):
        random_network(Architecture(backbone=name), 2, LAYOUT)


def test_a_network_of_three_dimensions_refuses_tiles() -> None:
    with pytest.raises(UsageError, match="lenet_3d: convolves along three axes, tiles have two"):
        create_backbone("lenet_3d", TILES)


@pytest.mark.parametrize("name", FROM_NOTHING)
def test_small_volumes_can_be_seen(name: str) -> None:
    check_size(from_nothing(name), name, LAYOUT, 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_NOTHING)
def test_the_converted_form_gives_the_probabilities_of_torch(tmp_path: Path, name: str) -> None:
    folder = random_volume_bundle(tmp_path, LAYOUT, 32, name)

    conversion = convert(folder)
    predict = load_predictor(folder)

    assert conversion.float32_difference < 1e-4
    assert predict.runtime == "openvino"
    arrays = volumes(9).numpy()
    np.testing.assert_allclose(predict(arrays), TorchPredictor(folder)(arrays), atol=1e-4)


def test_a_bundle_of_volumes_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = random_volume_bundle(tmp_path, LAYOUT, 32)

    bundle = read_bundle(folder)

    assert bundle.task == "volumes"
    assert bundle.input.layout == LAYOUT
    assert bundle.array_shape == (3, 4, 32, 32)
    assert load_network(folder, bundle).dimensions == 3


def test_a_bundle_says_what_it_does_not_see(tmp_path: Path, bare_bundle: Path) -> None:
    studies, tiles = read_bundle(random_volume_bundle(tmp_path, LAYOUT, 32)), read_bundle(bare_bundle)

    with pytest.raises(UsageError, match="X: sees tiles, and the data are volumes of 3 series of 4 slices"):
        check_layout(tiles, LAYOUT, "X")
    with pytest.raises(UsageError, match="of 4 slices, and the data are volumes of 3 series of 9"):
        check_layout(studies, VolumeLayout(3, 9, LAYOUT.preparation), "X")
    with pytest.raises(UsageError, match="prepared in another way"):
        check_layout(studies, VolumeLayout(3, 4, {"slices": 4, "fill": "pad"}), "X")
    check_layout(studies, LAYOUT, "X")


def test_large_volumes_go_through_a_cpu_one_by_one(tmp_path: Path) -> None:
    bundle = read_bundle(random_volume_bundle(tmp_path, LAYOUT, 32))
    large = bundle.model_copy(update={"input": bundle.input.model_copy(update={"slices": 20, "size_px": 512})})

    assert batch_on_cpu(bundle) == 8
    assert batch_on_cpu(large) == 1


def test_volumes_are_flipped_and_turned_as_one() -> None:
    plane = volumes(1, 32)[:, :1, :1]
    spec = AugmentSpec(preset="volume", noise=0)

    changed = augment(plane.expand(-1, 3, 4, -1, -1), spec, [(0, 1, 5, 0)])

    assert changed.shape == (1, 3, 4, 32, 32)
    assert not torch.equal(changed[0, 0, 0], plane[0, 0, 0])
    assert all(torch.equal(changed[0, s, d], changed[0, 0, 0]) for s in range(3) for d in range(4))


def test_noise_is_drawn_for_every_voxel_from_the_key_alone() -> None:
    flat = torch.full((3, 3, 4, 32, 32), 100, dtype=torch.uint8)
    spec = AugmentSpec(preset="none", noise=0.1)
    keys = [(0, 1, case, 0) for case in range(3)]

    changed = augment(flat, spec, keys)

    alone = augment(flat[:1], spec, keys[1:2])
    assert torch.equal(changed[1], alone[0])
    spread = changed.float().std(dim=(1, 2, 3, 4))
    assert all(0 < value <= 26 for value in spread.tolist())
    assert len(set(spread.tolist())) == 3
    assert abs(float(changed.float().mean()) - 100) < 0.5


@pytest.mark.parametrize("preset", ["stain"])
def test_colours_of_volumes_cannot_be_changed(preset: str) -> None:
    with pytest.raises(UsageError, match=r"--augment\.stain-scale: changes colours, which volumes of 3 series"):
        check_augmentation(AugmentSpec(preset=preset), LAYOUT)
    with pytest.raises(ValueError, match="stain_scale needs red, green and blue, not 12 channels"):
        augment(volumes(1), AugmentSpec(preset=preset), [(0,)])
