"""Networks for volumes that timm lacks: 3-D ones, and plain early ones.

`r3d_18` and `r2plus1d_18` are torchvision's residual networks for video (Tran et al. 2018, arXiv 1711.11248), with
weights of Kinetics-400 where they can be had. The others are to be trained from nothing, and have group normalisation
(Wu and He 2018, arXiv 1803.08494), since batch normalisation learns no statistics here (decision 7): `resnet3d_18`, a
residual network of three dimensions (He et al. 2016, arXiv 1603.05027); `lenet_3d`, like LeNet-5 (LeCun et al. 1998,
doi 10.1109/5.726791); and `alexnet_2d`, like AlexNet (Krizhevsky et al. 2012, doi 10.1145/3065386).

Axes: B batch, C channels, D slice, H row, W column.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn
from torch.nn.functional import relu
from torch.utils.checkpoint import checkpoint
from torchvision.models import video
from torchvision.models.video.resnet import BasicBlock

from histo.errors import UsageError

VIDEO: Mapping[str, video.R3D_18_Weights | video.R2Plus1D_18_Weights] = {
    "r3d_18": video.R3D_18_Weights.KINETICS400_V1,
    "r2plus1d_18": video.R2Plus1D_18_Weights.KINETICS400_V1,
}
"""The networks that have weights."""
FIRST_KERNEL = "stem.0.weight"
"""Of the networks for video, the tensor that sees the input's channels."""
_GROUPS = 8


class BlockNetwork(nn.Module):
    """Blocks, one after the other.

    Args:
        blocks: By name; the last one gives features, `(B, C)`.
        dimensions: Along how many axes it convolves: of `(B, C, H, W)` two, of `(B, C, D, H, W)` three.
        num_features: Length of the features.
    """

    def __init__(self, blocks: Mapping[str, nn.Module], dimensions: int, num_features: int) -> None:
        super().__init__()
        self.dimensions, self.num_features = dimensions, num_features
        self._checkpointing = False
        for name, block in blocks.items():
            self.add_module(name, block)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep no values within a block for the backward pass, but compute them again (Chen 2016, arXiv 1604.06174)."""
        self._checkpointing = enable

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return features, `(B, C)`."""
        again = self._checkpointing and torch.is_grad_enabled()
        for unit in self._units():
            values = checkpoint(unit, values, use_reentrant=False) if again else unit(values)
        return values

    def _units(self) -> Iterator[nn.Module]:
        """Yield what keeps nothing but its input: a block, or of several residual ones each."""
        for block in self.children():
            residual = [child for child in block.children() if isinstance(child, BasicBlock | ResidualBlock)]
            yield from residual or [block]


class ResidualBlock(nn.Module):
    """Two convolutions, each behind its normalisation and ReLU, and a shortcut around them.

    Args:
        before: Channels that come in.
        width: Channels that go out.
        stride: Along all three axes.
    """

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(_GROUPS, before), nn.Conv3d(before, width, 3, stride, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(_GROUPS, width), nn.Conv3d(width, width, 3, padding=1)
        same = stride == 1 and before == width
        self.shortcut = nn.Identity() if same else nn.Conv3d(before, width, 1, stride)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return `(B, width, D, H, W)`, the last three divided by the stride."""
        inner = self.conv1(relu(self.norm1(values)))
        inner = self.conv2(relu(self.norm2(inner)))
        return self.shortcut(values) + inner  # type: ignore[no-any-return]


class MeanAndMaximum(nn.Module):
    """What a volume is like as a whole, and at its most striking place: a lesion is small."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return `(B, 2 C)` of `(B, C, D, H, W)`."""
        return torch.cat([values.mean(dim=(2, 3, 4)), values.amax(dim=(2, 3, 4))], dim=1)


def create_volume_network(name: str, channels: int) -> BlockNetwork:
    """Build one of `NETWORKS`, its weights random.

    Args:
        name: Its name.
        channels: That its input has.
    """
    return NETWORKS[name](channels)


def _video(name: str) -> Callable[[int], BlockNetwork]:
    def build(channels: int) -> BlockNetwork:
        made = video.__dict__[name](weights=None)
        first = made.stem[0]
        made.stem[0] = nn.Conv3d(
            channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=first.bias is not None
        )
        nn.init.kaiming_normal_(made.stem[0].weight, mode="fan_out", nonlinearity="relu")
        blocks = {part: getattr(made, part) for part in ("stem", "layer1", "layer2", "layer3", "layer4")}
        return BlockNetwork(blocks | {"pool": _pooled(nn.AdaptiveAvgPool3d(1))}, 3, made.fc.in_features)

    return build


def _resnet3d_18(channels: int) -> BlockNetwork:
    """Eight residual blocks at half the width of ResNet-18, and a stem that goes in fours, as slices are large."""
    widths = (32, 64, 128, 256)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    blocks["stem"] = nn.Conv3d(channels, widths[0], (3, 7, 7), stride=(1, 4, 4), padding=(1, 3, 3))
    before = widths[0]
    for number, width in enumerate(widths, start=1):
        first = ResidualBlock(before, width, stride=1 if number == 1 else 2)
        blocks[f"layer{number}"] = nn.Sequential(first, ResidualBlock(width, width, stride=1))
        before = width
    blocks["pool"] = nn.Sequential(nn.GroupNorm(_GROUPS, before), nn.ReLU(), MeanAndMaximum())
    return BlockNetwork(blocks, 3, 2 * before)


def _lenet_3d(channels: int) -> BlockNetwork:
    """Two convolutions, each pooled, and three full layers, of which the head is the last."""
    blocks = OrderedDict(
        conv1=nn.Sequential(
            nn.Conv3d(channels, 16, (3, 5, 5), stride=(1, 2, 2), padding=(1, 2, 2)),
            nn.GroupNorm(_GROUPS, 16),
            nn.ReLU(),
            nn.MaxPool3d((1, 2, 2), ceil_mode=True),
        ),
        conv2=nn.Sequential(
            nn.Conv3d(16, 32, (3, 5, 5), padding=(1, 2, 2)),
            nn.GroupNorm(_GROUPS, 32),
            nn.ReLU(),
            nn.MaxPool3d(2, ceil_mode=True),
        ),
        fc=nn.Sequential(
            _pooled(nn.AdaptiveMaxPool3d((2, 4, 4))), nn.Linear(32 * 32, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()
        ),
    )
    return BlockNetwork(blocks, 3, 84)


def _alexnet_2d(channels: int) -> BlockNetwork:
    """Five convolutions, three of them pooled, and three full layers, of which the head is the last."""
    widths = (channels, 64, 192, 384, 256, 256)
    kernels = (11, 5, 3, 3, 3)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for number, kernel in enumerate(kernels):
        layers: list[nn.Module] = [
            nn.Conv2d(widths[number], widths[number + 1], kernel, stride=1 if number else 4, padding=kernel // 2),
            nn.GroupNorm(_GROUPS, widths[number + 1]),
            nn.ReLU(),
        ]
        pool: list[nn.Module] = [nn.MaxPool2d(3, stride=2, padding=1)] if number in (0, 1, 4) else []
        blocks[f"conv{number + 1}"] = nn.Sequential(*layers, *pool)
    blocks["fc6"] = nn.Sequential(_pooled(nn.AdaptiveMaxPool2d(6)), nn.Linear(256 * 36, 1024), nn.ReLU())
    blocks["fc7"] = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU())
    return BlockNetwork(blocks, 2, 1024)


def _pooled(pool: nn.Module) -> nn.Sequential:
    return nn.Sequential(pool, nn.Flatten())


NETWORKS: Mapping[str, Callable[[int], BlockNetwork]] = {
    "r3d_18": _video("r3d_18"),
    "r2plus1d_18": _video("r2plus1d_18"),
    "resnet3d_18": _resnet3d_18,
    "lenet_3d": _lenet_3d,
    "alexnet_2d": _alexnet_2d,
}
"""How each is built for a number of channels."""


def adapt_first_kernel(kernel: torch.Tensor, channels: int) -> torch.Tensor:
    """Make a kernel for red, green and blue one for other channels: repeated, and scaled to keep the sum's size.

    An image that is grey, and repeated on all channels, gives the same values before and after if the channels are a
    multiple of three, or one.

    Args:
        kernel: `(out, 3, ...)`.
        channels: That are wanted.

    Returns:
        `(out, channels, ...)`.
    """
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    repeats = math.ceil(channels / 3)
    return torch.cat([kernel] * repeats, dim=1)[:, :channels] * (3 / channels)


def fetch_video_weights(name: str) -> dict[str, torch.Tensor]:
    """Return torchvision's weights of a network for video, from its cache or the hub.

    Raises:
        UsageError: If they cannot be had.
    """
    try:
        tensors: dict[str, torch.Tensor] = VIDEO[name].get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # the hub raises many kinds
        raise UsageError(
            f"--network.backbone {name}: its weights cannot be had from torchvision's hub or its cache "
            f"({' '.join(str(error).split())}); give the file with --network.weights, or train resnet3d_18 with "
            "--network.initial random"
        ) from error
    return tensors
