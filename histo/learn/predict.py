"""A batch of tiles in, a batch of probabilities out."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from histo.learn.bundle import Bundle, read_bundle
from histo.learn.model import load_network


class Predictor:
    """A plain callable around a bundle; a loop, a test or a Ray actor calls it.

    Args:
        folder: The bundle.
        device: `cpu`, `cuda` or `cuda:0`.
        batch_size: Tiles per forward pass.

    Raises:
        UsageError: If the bundle cannot be used.
    """

    def __init__(self, folder: Path, device: str = "cpu", batch_size: int = 32) -> None:
        self.bundle: Bundle = read_bundle(folder)
        self.batch_size = batch_size
        self._device = torch.device(device)
        if self._device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # float32 means float32, as on a CPU
        self._network = load_network(folder, self.bundle).to(self._device).to(memory_format=torch.channels_last)

    def __call__(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Classify tiles.

        Args:
            tiles: RGB, `(n, size_px, size_px, 3)`.

        Returns:
            Probabilities after temperature, `(n, classes)`, each row summing to 1.

        Raises:
            ValueError: If the tiles are not of the bundle's size.
            FloatingPointError: If the network gives no finite probabilities.
        """
        size = self.bundle.input.size_px
        if tiles.shape[1:] != (size, size, 3) or tiles.dtype != np.uint8:
            raise ValueError(f"expected uint8 tiles (n, {size}, {size}, 3), got {tiles.dtype} {tiles.shape}")
        parts = [self._forward(tiles[i : i + self.batch_size]) for i in range(0, len(tiles), self.batch_size)]
        probabilities = np.concatenate(parts) if parts else np.empty((0, len(self.bundle.classes)), np.float32)
        if not np.isfinite(probabilities).all():
            raise FloatingPointError("the model gives probabilities that are not finite; train it again")
        return probabilities

    @torch.inference_mode()
    def _forward(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        images = torch.from_numpy(np.ascontiguousarray(tiles)).to(self._device).permute(0, 3, 1, 2)
        logits = self._network(images).double() / self.bundle.temperature
        probabilities: npt.NDArray[np.float32] = logits.softmax(dim=1).float().cpu().numpy()
        return probabilities
