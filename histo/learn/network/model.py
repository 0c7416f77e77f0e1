"""The network: a backbone and a new head.

Axes: B batch, C channels or features, S series, D slice, H height, W width, K classes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from histo.errors import UsageError
from histo.learn.array_layout import TILES, Layout, planes_shape
from histo.learn.bundle import MODEL_JSON, WEIGHTS, Architecture, Bundle, check_layout
from histo.learn.distributed import rank, sum_over_workers, world_size
from histo.learn.network.backbones import (
    RANDOM_START,
    check_random_start,
    create_backbone,
    feature_count,
    load_pretrained,
    load_tensors,
)
from histo.learn.network.spec import Precision
from histo.learn.network.weights import Normalisation, first_line


class Network(nn.Module):
    """Pixels to logits: normalisation, backbone, head.

    What comes in are tiles `(B, C, H, W)` or volumes `(B, S, D, H, W)`, uint8. A backbone that convolves along two axes
    sees the slices of a volume as channels, one that convolves along three sees its series as channels.

    Attributes:
        dimensions: Along how many axes the backbone convolves.
        stand_in: Computes the features in float32 where no gradient is asked for, as long as the backbone is frozen.
    """

    def __init__(self, backbone: nn.Module, normalisation: Normalisation, classes: int, dropout: float) -> None:
        super().__init__()
        self.normalisation = normalisation
        self.backbone = backbone
        self.stand_in: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.head = Head(feature_count(backbone), classes, dropout)
        self.dimensions = int(getattr(backbone, "dimensions", 2))
        for name, values in (("mean", normalisation.mean), ("std", normalisation.std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, *[1] * self.dimensions), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.head.linear.weight.device

    @property
    def memory_format(self) -> torch.memory_format:
        """The order of values in memory that convolutions are fastest in."""
        return torch.channels_last if self.dimensions == 2 else torch.channels_last_3d

    def set_checkpointing(self, enable: bool) -> None:
        """Compute the backbone's values again in the backward pass, or keep them, which takes more memory."""
        self.backbone.set_grad_checkpointing(enable)  # type: ignore[operator] # timm's networks have it, and our own

    def normalise(self, values: torch.Tensor) -> torch.Tensor:
        """Return what the backbone sees, `(B, C, H, W)` or `(B, C, D, H, W)`, of numbers from 0 to 255."""
        channels = values.flatten(1, -3) if self.dimensions == 2 else values
        return (channels - self.get_buffer("mean")) / self.get_buffer("std")

    def features(self, images: torch.Tensor, precision: Precision = "float32") -> torch.Tensor:
        """Return the backbone's features of uint8 images, pooled as the backbone does (CNNs: the average).

        Args:
            images: uint8; B may be 0.
            precision: `bf16` runs the backbone's layers under autocast; otherwise the network's own.

        Returns:
            Of the type of the network's weights, `(B, C)`.
        """
        dtype = self.get_buffer("mean").dtype
        if not len(images):  # a short last batch leaves some workers none; not every backbone takes an empty one
            nothing = images.new_zeros((0, self.head.linear.in_features), dtype=dtype)
            return nothing.requires_grad_(torch.is_grad_enabled())  # all workers sum gradients alike, or wait for ever
        if self.stand_in is not None and precision == "float32" and not torch.is_grad_enabled():
            return self.stand_in(images)
        normal = self.normalise(images.to(dtype)).contiguous(memory_format=self.memory_format)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
            features: torch.Tensor = self.backbone(normal)
        return features.to(dtype)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, `(B, K)`, of uint8 images."""
        return self.head(self.features(images))  # type: ignore[no-any-return]


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

    @torch.no_grad()
    def set_moments(self, count: int, sums: torch.Tensor, squares: torch.Tensor) -> None:
        """Replace the running moments by those of so many samples, of which it gets this worker's sums."""
        assert self.running_mean is not None, "statistics are tracked"
        assert self.running_var is not None, "statistics are tracked"
        mean, square = sum_over_workers(torch.stack([sums, squares])) / count
        self.running_mean.copy_(mean)
        self.running_var.copy_((square - mean.square()).clamp(min=0) * count / (count - 1))


@torch.inference_mode()
def check_size(network: Network, backbone: str, layout: Layout, size_px: int) -> None:
    """Make sure that a network can see images of this layout and size.

    Raises:
        UsageError: If it cannot.
    """
    try:
        network.eval()(torch.zeros((1, *planes_shape(layout, size_px)), dtype=torch.uint8))
    except Exception as error:
        raise UsageError(
            f"--network.backbone {backbone}: cannot classify images of {size_px} px ({first_line(error)}); give "
            "another --size-px or backbone"
        ) from error


def pretrained_network(
    architecture: Architecture, classes: int, weights: Path | None = None, layout: Layout = TILES
) -> Network:
    """Build a network with a pretrained backbone and a new, randomly initialised head.

    Raises:
        UsageError: If the weights cannot be had.
    """
    backbone = create_backbone(architecture.backbone, layout)
    normalisation = load_pretrained(backbone, architecture.backbone, weights).for_layout(layout)
    return Network(backbone, normalisation, classes, architecture.dropout)


def random_network(architecture: Architecture, classes: int, layout: Layout) -> Network:
    """Build a network that starts with random weights throughout, for those who ask for it.

    Raises:
        UsageError: If its backbone cannot be trained from them.
    """
    backbone = create_backbone(architecture.backbone, layout)
    check_random_start(backbone, architecture.backbone)
    return Network(backbone, RANDOM_START.for_layout(layout), classes, architecture.dropout)


def load_network(folder: Path, bundle: Bundle) -> Network:
    """Build a bundle's network on the CPU, in evaluation mode.

    Raises:
        UsageError: If there is no such network, or a tensor is missing, of another shape, or unknown; or if the
            weights are gone since the bundle was looked at, as a run that goes on removes checkpoints.
    """
    architecture = bundle.architecture
    where = f"{folder / MODEL_JSON}: architecture.backbone"
    backbone = create_backbone(architecture.backbone, bundle.input.layout, where)
    normalisation = Normalisation(bundle.input.mean, bundle.input.std)
    network = Network(backbone, normalisation, len(bundle.classes), architecture.dropout)
    path = folder / WEIGHTS
    try:
        tensors = load_file(path)
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror or 'No such file or directory'}; a run that goes on may have removed this "
            "checkpoint: give the command again, or another --epoch"
        ) from None
    load_tensors(network, tensors, str(path))
    return network.eval()


def trained_network(
    folder: Path, bundle: Bundle, classes: Sequence[str], architecture: Architecture, layout: Layout
) -> Network:
    """Build a network that starts with a bundle's weights; for other classes, with its backbone and a new head.

    Args:
        folder: The bundle's folder.
        bundle: Its description.
        classes: Names of the classes that are to be learned.
        architecture: The network that is asked for.
        layout: What it is to see.

    Raises:
        UsageError: If the bundle has another backbone, or sees something else.
    """
    check_layout(bundle, layout, f"--start-from {folder}")
    found = bundle.architecture.backbone
    if found != architecture.backbone:
        raise UsageError(
            f"--start-from {folder}: its backbone is {found}, not {architecture.backbone}; give --network.backbone "
            f"{found}"
        )
    trained = load_network(folder, bundle)
    network = Network(trained.backbone, trained.normalisation, len(classes), architecture.dropout)
    if bundle.classes == tuple(classes):
        network.head.load_state_dict(trained.head.state_dict())
    return network
