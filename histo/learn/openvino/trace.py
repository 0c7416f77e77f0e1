"""Trace a module from torch to an OpenVINO graph of uint8 images."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from histo.errors import HistoError
from histo.learn.array_layout import Layout, planes_shape
from histo.learn.network.model import Network
from histo.learn.openvino.core import ov
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


def save_graph(graph: ov.Model, path: Path) -> None:
    """Write a graph, `.xml`, and its constants, `.bin` beside it.

    Raises:
        OSError: If it cannot be written.
    """
    try:
        ov.save_model(graph, path, compress_to_fp16=False)
    except RuntimeError as error:  # what OpenVINO makes of a full disk
        raise OSError(f"OpenVINO cannot write its model ({str(error).strip().splitlines()[-1]})") from error


def plain_features(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Return the features of a network in float32, `(B, C)`, by nothing but operations that a trace can follow."""
    return network.backbone(network.normalise(images.float()))  # type: ignore[no-any-return]


def probes(layout: Layout, size_px: int) -> Pixels:
    """Return arrays to compare networks on, always the same: black, white, slopes, noise, and noise at several scales.

    Returns:
        uint8, `(8, *layout.shape(size_px))`.
    """
    random = np.random.default_rng(0)
    before = planes_shape(layout, size_px)[:-2]
    slope = np.linspace(0, 255, size_px)
    planes = [np.zeros((size_px, size_px)), np.full((size_px, size_px), 255), np.tile(slope, (size_px, 1))]
    arrays = [np.broadcast_to(plane.astype(np.uint8), (*before, size_px, size_px)) for plane in planes]
    arrays.append(random.integers(0, 256, (*before, size_px, size_px), np.uint8))
    for cells in (2, 7, 20, 60):
        places = np.arange(size_px) * cells // size_px
        arrays.append(random.integers(40, 256, (*before, cells, cells), np.uint8)[..., places, :][..., places])
    back = np.argsort(layout.planes_first)
    return np.stack([array.transpose(back) for array in arrays])
