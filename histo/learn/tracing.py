"""From torch to OpenVINO: what a module does to uint8 images, as a graph."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from histo.errors import HistoError
from histo.learn.engine import ov
from histo.learn.model import Network
from histo.resample import Pixels


class NotConvertibleError(HistoError):
    """The network cannot be converted, or its converted form gives other values."""


def trace(module: nn.Module, shape: tuple[int, ...]) -> ov.Model:
    """Turn a module into a graph that does the same in evaluation mode, to batches of any size.

    Args:
        module: Takes one tensor, uint8, `(n, *shape)`, and gives one.
        shape: Of one image.

    Raises:
        NotConvertibleError: If one of its operations is not known; the message goes on from the network's name.
    """
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: PLC0415 -- after histo's engine

    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing is deprecated: docs/decisions/0011-cpu-runtime.md
            example = torch.zeros((2, *shape), dtype=torch.uint8)
            traced: Any = torch.jit.freeze(torch.jit.trace(module.eval(), example, check_trace=False))  # type: ignore[no-untyped-call]
            decoder = TorchScriptPythonDecoder(traced, skip_freeze=True, shared_memory=False)  # it outlives torch's
            frontend = ov.frontend.FrontEndManager().load_by_framework("pytorch")
            model = frontend.convert(frontend.load(decoder))
        model.inputs[0].get_node().set_element_type(ov.Type.u8)
        model.reshape([-1, *shape])
    except Exception as error:  # both raise many kinds
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise NotConvertibleError(f"cannot be converted for OpenVINO ({reason})") from error
    return model


def plain_features(network: Network, images_BCHW: torch.Tensor) -> torch.Tensor:
    """Return the features of a network in float32, `(B, C)`, by nothing but operations that a trace can follow."""
    normal_BCHW = (images_BCHW.float() - network.get_buffer("mean")) / network.get_buffer("std")
    return network.backbone(normal_BCHW)  # type: ignore[no-any-return]


def probes(size_px: int) -> Pixels:
    """Return images to compare networks on, always the same: black, white, noise, slopes, and noise at several scales.

    Returns:
        uint8, `(8, size_px, size_px, 3)`.
    """
    random = np.random.default_rng(0)
    slope = np.linspace(0, 255, size_px)
    images = [np.zeros((size_px, size_px)), np.full((size_px, size_px), 255), slope[None] + 0 * slope[:, None]]
    coloured = [np.repeat(image[..., None], 3, axis=2) for image in images]
    coloured += [random.integers(0, 256, (size_px, size_px, 3))]
    for cells in (2, 7, 20, 60):
        places = np.arange(size_px) * cells // size_px
        coloured.append(random.integers(40, 256, (cells, cells, 3))[places][:, places])
    return np.stack(coloured).astype(np.uint8)
