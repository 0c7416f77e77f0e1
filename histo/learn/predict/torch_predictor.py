"""Run a bundle by torch: on a GPU, or on a CPU without a converted form."""

import time
from collections import deque
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from histo.errors import HistoError
from histo.learn.array_layout import batch_axes
from histo.learn.bundle import read_bundle
from histo.learn.network.model import load_network
from histo.learn.network.spec import InferencePrecision
from histo.learn.predict.base import Predictor, batch_on_cpu
from histo.learn.predict.in_flight import filled_size, find_batch_size
from histo.resample import Pixels

_WARM_UP, _TIMED = 3, 8
"""Batches of each size that are tried: before the clock starts, and while it runs."""


class TorchPredictor(Predictor):
    """See `Predictor`.

    On a GPU, two batches are on their way at a time: while the network works on one, the next is copied, from pinned
    memory and on a stream of its own. Tiles cross as uint8 and are normalised there. Passes have few different
    sizes; one in between is filled up, and the filling dropped.

    Args:
        folder: The bundle.
        device: `cpu`, `cuda` or `cuda:0`.
        batch_size: Tiles per forward pass; None: 8 on a CPU, and on a GPU what is fastest there.
        precision: `bf16` runs the backbone's layers under autocast.

    Raises:
        UsageError: If the bundle cannot be used.
        HistoError: If the GPU has no memory for the network and one tile.
    """

    runtime = "torch"

    def __init__(
        self,
        folder: Path,
        device: str = "cpu",
        batch_size: int | None = 32,
        precision: InferencePrecision = "float32",
    ) -> None:
        bundle = read_bundle(folder)
        super().__init__(bundle, batch_size or batch_on_cpu(bundle), precision)
        self._device = torch.device(device)
        network = load_network(folder, self.bundle)
        self._network = network.to(self._device).to(memory_format=network.memory_format)
        self._axes = batch_axes(self.bundle.input.layout)
        if self._device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # float32 means float32, as on a CPU
            self.depth = 2
            self._copies = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call] # torch's own
            self._use(batch_size or self._fastest())

    def submit(self, tiles: Pixels) -> Any:
        """See `Predictor.submit`."""
        if self._device.type == "cuda":
            return self._submit_to_gpu(tiles)
        return self._logits(_as_tensor(tiles)).numpy()

    def collect(self, ticket: Any) -> npt.NDArray[np.float32]:
        """See `Predictor.collect`."""
        if self._device.type == "cuda":
            logits_BK, done, count = ticket
            done.synchronize()
            ticket = logits_BK[:count].numpy()
        logits: npt.NDArray[np.float32] = ticket
        return logits

    @torch.inference_mode()
    def _logits(self, tiles: torch.Tensor) -> torch.Tensor:
        """Return float32 logits, `(B, K)`, of uint8 tiles or volumes on the device."""
        features_BC = self._network.features(tiles.permute(self._axes), self.precision)
        return self._network.head(features_BC)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def _submit_to_gpu(self, tiles: Pixels) -> tuple[torch.Tensor, torch.cuda.Event, int]:
        lane = self._lanes[0]
        self._lanes.rotate(-1)
        lane.done.synchronize()  # nothing reads what it held before
        lane.pinned[: len(tiles)].copy_(_as_tensor(tiles))
        filled = filled_size(len(tiles), self.batch_size)
        with torch.cuda.stream(self._copies):
            lane.tiles[:filled].copy_(lane.pinned[:filled], non_blocking=True)
        compute = torch.cuda.current_stream(self._device)
        compute.wait_stream(self._copies)
        logits_BK = self._logits(lane.tiles[:filled])
        answer_BK = torch.empty(logits_BK.shape, dtype=logits_BK.dtype, pin_memory=True)
        answer_BK.copy_(logits_BK, non_blocking=True)
        lane.done.record(compute)
        return answer_BK, lane.done, len(tiles)

    def _use(self, batch_size: int) -> None:
        """Set memory aside for batches of this size."""
        self.batch_size = batch_size
        self._lanes = deque(_Lane((batch_size, *self.bundle.array_shape), self._device) for _ in range(self.depth))

    def _fastest(self) -> int:
        """Find the batch size that is fastest on this GPU."""
        found = find_batch_size(self._rate)
        torch.cuda.empty_cache()
        if found is None:
            raise HistoError(f"{self._device}: no memory left for the network and one tile; free some, or use the CPU")
        return found

    def _rate(self, batch_size: int) -> float | None:
        """Return the tiles per second of a batch size, or None if there is no memory for it."""
        tiles = np.zeros((batch_size, *self.bundle.array_shape), np.uint8)
        try:
            self._use(batch_size)
            for _ in self.over(repeat(tiles, _WARM_UP)):
                pass
            start = time.perf_counter()
            for _ in self.over(repeat(tiles, _TIMED)):
                pass
        except torch.cuda.OutOfMemoryError:
            self._lanes.clear()
            torch.cuda.empty_cache()
            return None
        return _TIMED * batch_size / (time.perf_counter() - start)


def _as_tensor(tiles: Pixels) -> torch.Tensor:
    """Share the memory of tiles with torch, or copy them where torch would warn: those in Ray's store are read-only."""
    return torch.from_numpy(np.require(tiles, requirements=["C", "W"]))


class _Lane:
    """What one batch on its way to a GPU needs."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.pinned = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        self.tiles = torch.empty(shape, dtype=torch.uint8, device=device)
        self.done = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch's own
