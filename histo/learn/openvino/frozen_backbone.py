"""Compute the features of a frozen backbone by OpenVINO on a CPU.

It is several times as fast as torch there.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from histo.learn.array_layout import Layout, batch_axes, planes_shape
from histo.learn.network.model import Network
from histo.learn.openvino.compile_check import compiles
from histo.learn.openvino.core import infer_request, ov
from histo.learn.openvino.record import CONSTANTS, GRAPH
from histo.learn.openvino.trace import NotConvertibleError, plain_features, probes, save_graph, trace

MOST_DIFFERENCE = 1e-3
"""Of a feature, in standard deviations of all features of the probes, between OpenVINO and torch."""
_BATCH = 8
"""Images per forward pass; the last pass is filled up, so that a feature does not depend on the images beside it."""


class FrozenBackbone:
    """Gives the features that a network's backbone gives now, in float32; it does not follow what is learned later.

    Args:
        network: In float32, on the CPU.
        layout: How the images are laid out.
        size_px: Their edge.
        threads: That may be used.

    Raises:
        NotConvertibleError: If OpenVINO does not know the backbone, cannot compile it, or gives other features.
    """

    def __init__(self, network: Network, layout: Layout, size_px: int, threads: int) -> None:
        shape = planes_shape(layout, size_px)
        model = trace(_Features(network), shape)
        _check_compiles(model, (_BATCH, *shape))
        model.reshape([_BATCH, *shape])
        self._request = infer_request(model, threads, "float32")
        self._filled = np.zeros((_BATCH, *shape), np.uint8)
        self._compare(network, torch.from_numpy(probes(layout, size_px)).permute(batch_axes(layout)).contiguous())

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return features, float32, `(B, C)`, of at least one uint8 image."""
        parts = []
        for piece in torch.split(images, _BATCH):
            self._filled[: len(piece)] = piece.numpy()
            outputs = self._request.infer([self._filled], share_inputs=True)
            parts.append(torch.from_numpy(outputs[0][: len(piece)].copy()))
        return torch.cat(parts)

    @torch.no_grad()
    def _compare(self, network: Network, images: torch.Tensor) -> None:
        expected = plain_features(network, images)
        difference = float((self(images) - expected).abs().max() / expected.std())
        if not difference <= MOST_DIFFERENCE:
            raise NotConvertibleError(f"gives other features in OpenVINO than in torch (by {difference:.2g})")


def _check_compiles(model: ov.Model, shape: Sequence[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_graph(model, Path(folder) / GRAPH)
        if not compiles(Path(folder) / GRAPH, Path(folder) / CONSTANTS, shape):
            raise NotConvertibleError("fails to compile in OpenVINO")


class _Features(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return plain_features(self.network, images)
