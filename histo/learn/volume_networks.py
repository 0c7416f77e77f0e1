"""Networks for volumes that timm does not have: 3-D ones, and the plain ones that studies were first classified with.

`r3d_18` and `r2plus1d_18` are torchvision's residual networks for video (Tran et al. 2018, arXiv 1711.11248), with
weights of Kinetics-400 where they can be had. `r3d_18_gn` is like the former with group normalisation (Wu and He 2018,
arXiv 1803.08494), to be trained from nothing: batch normalisation learns no statistics here, see decision 7.
`lenet_3d` is like LeNet-5 (LeCun et al. 1998, doi 10.1109/5.726791) and `alexnet_2d` like AlexNet (Krizhevsky et al.
2012, doi 10.1145/3065386), both with group normalisation.

Axes: B batch, C channels, D slice, H row, W column.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn
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
            residual = [child for child in block.children() if isinstance(child, BasicBlock)]
            yield from residual or [block]


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


def _r3d_18_gn(channels: int) -> BlockNetwork:
    """Put group normalisation in the place of batch normalisation, none into shortcuts, and let the stem go in fours.

    Video is small, 112 px, slices are not: the stem's stride of four, as that of 2-D residual networks with their
    pooling, quarters the memory. OpenVINO 2026.4 crashes where it compiles the sum of two normalised branches.
    """
    network = _video("r3d_18")(channels)
    for path, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm3d):
            norm = nn.Identity() if ".downsample." in path else nn.GroupNorm(_GROUPS, module.num_features)
            network.set_submodule(path, norm)
    first = network.get_submodule("stem.0")
    assert isinstance(first, nn.Conv3d), "a video network begins with a convolution"
    first.stride = (1, 4, 4)
    return network


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
    "r3d_18_gn": _r3d_18_gn,
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
            f"--network.backbone {name}: its weights cannot be had from torchvision's hub or its cache ({error}); give "
            "the file with --network.weights, or train r3d_18_gn with --network.initial random"
        ) from error
    return tensors
