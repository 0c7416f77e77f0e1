"""A backbone while it is frozen: on a CPU, OpenVINO computes its features several times as fast as torch."""

import numpy as np
import torch
from torch import nn

from histo.learn.model import Network
from histo.learn.runtime import infer_request
from histo.learn.tracing import NotConvertibleError, plain_features, probes, trace

MOST_DIFFERENCE = 1e-3
"""Of a feature, in standard deviations of all features of the probes, between OpenVINO and torch."""
_BATCH = 8
"""Images per forward pass; the last pass is filled up, so that a feature does not depend on the images beside it."""


class FrozenBackbone:
    """Gives the features that a network's backbone gives now, in float32; it does not follow what is learned later.

    Args:
        network: In float32, on the CPU.
        size_px: Edge of the images.
        threads: That may be used.

    Raises:
        NotConvertibleError: If OpenVINO does not know the backbone, or gives other features.
    """

    def __init__(self, network: Network, size_px: int, threads: int) -> None:
        model = trace(_Features(network), (3, size_px, size_px))
        model.reshape([_BATCH, 3, size_px, size_px])
        self._request = infer_request(model, threads, "float32")
        self._filled = np.zeros((_BATCH, 3, size_px, size_px), np.uint8)
        self._compare(network, size_px)

    def __call__(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return features, float32, `(B, C)`, of at least one uint8 image."""
        parts = []
        for piece in torch.split(images_BCHW, _BATCH):
            self._filled[: len(piece)] = piece.numpy()
            outputs = self._request.infer([self._filled], share_inputs=True)
            parts.append(torch.from_numpy(outputs[0][: len(piece)].copy()))
        return torch.cat(parts)

    @torch.no_grad()
    def _compare(self, network: Network, size_px: int) -> None:
        images_BCHW = torch.from_numpy(probes(size_px)).permute(0, 3, 1, 2).contiguous()
        expected = plain_features(network, images_BCHW)
        difference = float((self(images_BCHW) - expected).abs().max() / expected.std())
        if not difference <= MOST_DIFFERENCE:
            raise NotConvertibleError(f"gives other features in OpenVINO than in torch (by {difference:.2g})")


class _Features(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return plain_features(self.network, images_BCHW)
