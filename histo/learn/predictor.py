"""A batch of tiles or volumes in, a batch of probabilities out: the one way in, whatever runs the network. No torch.

On a CPU a bundle's converted form runs in OpenVINO; without one, and on a GPU, torch runs the bundle itself.
"""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from histo.learn.bundle import Bundle, read_bundle
from histo.learn.converted import FOLDER, InferencePrecision, read_conversion, require_precision
from histo.learn.in_flight import in_flight
from histo.resample import Pixels

BATCH_ON_CPU = 8
"""Tiles per forward pass on a CPU, where nothing else is asked for; more gains nothing there."""
_VALUES_ON_CPU = 2**24
"""Values of the arrays of one forward pass: of large ones fewer than eight, or memory is short."""
Runtime = Literal["openvino", "torch"]


class Predictor(ABC):
    """A plain callable around a bundle; a loop, a test or a Ray actor calls it, from several threads if it likes.

    Attributes:
        bundle: What it was made from.
        batch_size: Tiles per forward pass.
        runtime: What runs the network.
        precision: In which the backbone is computed.
    """

    runtime: Runtime
    depth: int = 1
    """Batches that are handed to the device before the result of the first one is waited for."""

    def __init__(self, bundle: Bundle, batch_size: int, precision: InferencePrecision) -> None:
        self.bundle = bundle
        self.batch_size = batch_size
        self.precision = precision
        self._lock = threading.Lock()

    def __call__(self, tiles: Pixels) -> npt.NDArray[np.float32]:
        """Classify tiles, or volumes.

        Args:
            tiles: uint8, `(n, *array_shape)` of the bundle; any n.

        Returns:
            Probabilities after temperature, `(n, classes)`, each row summing to 1.

        Raises:
            ValueError: If the arrays are not of the bundle's shape.
            FloatingPointError: If the network gives no finite probabilities.
        """
        return next(self.over([tiles]))

    def over(self, batches: Iterable[Pixels]) -> Iterator[npt.NDArray[np.float32]]:
        """Classify batches of tiles, in order, as many of them at a time as the device likes.

        A batch may be asked for before the result of the one before it is given. Arguments, results and errors of each
        batch are those of a call.
        """
        parts: list[npt.NDArray[np.float32]] = []
        for logits, is_last in in_flight(self._pieces(batches), self._start, self._finish, self.depth):
            parts.append(logits)
            if is_last:
                yield self._probabilities(np.concatenate(parts))
                parts = []

    def _pieces(self, batches: Iterable[Pixels]) -> Iterator[tuple[Pixels, bool]]:
        """Cut batches to the size of a forward pass, and say of each piece whether it is the last of its batch."""
        shape, step = self.bundle.array_shape, self.batch_size
        for tiles in batches:
            if tiles.shape[1:] != shape or tiles.dtype != np.uint8:
                wanted = f"{self.bundle.task} (n, {', '.join(map(str, shape))})"
                raise ValueError(f"expected uint8 {wanted}, got {tiles.dtype} {tiles.shape}")
            for start in range(0, max(1, len(tiles)), step):
                yield tiles[start : start + step], start + step >= len(tiles)

    def _start(self, piece: tuple[Pixels, bool]) -> tuple[Any, bool]:
        tiles, is_last = piece
        with self._lock:
            return self.submit(tiles) if len(tiles) else None, is_last

    def _finish(self, started: tuple[Any, bool]) -> tuple[npt.NDArray[np.float32], bool]:
        ticket, is_last = started
        nothing = np.empty((0, len(self.bundle.classes)), np.float32)
        return nothing if ticket is None else self.collect(ticket), is_last

    def _probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with np.errstate(invalid="ignore"):  # told apart below
            exact = softmax(logits.astype(np.float64) / self.bundle.temperature, axis=1)
        if not np.isfinite(exact).all():
            raise FloatingPointError("the model gives probabilities that are not finite; train it again")
        return exact.astype(np.float32)

    @abstractmethod
    def submit(self, tiles: Pixels) -> Any:
        """Begin with at least one tile and at most `batch_size`; returns what `collect` takes."""

    @abstractmethod
    def collect(self, ticket: Any) -> npt.NDArray[np.float32]:
        """Wait for what was begun; returns logits, `(n, classes)`."""


def batch_on_cpu(bundle: Bundle) -> int:
    """Return how many arrays go through a bundle's network at a time on a CPU, where nothing else is asked for."""
    return max(1, min(BATCH_ON_CPU, _VALUES_ON_CPU // math.prod(bundle.array_shape)))


def load_predictor(
    folder: Path,
    device: str = "cpu",
    threads: int = 1,
    batch_size: int | None = None,
    precision: InferencePrecision = "float32",
    converted: Path | None = None,
) -> Predictor:
    """Make a bundle ready to classify.

    Args:
        folder: The bundle.
        device: `cpu`, `cuda` or `cuda:0`.
        threads: Of a CPU, for the network.
        batch_size: Tiles or volumes per forward pass; None: 8 on a CPU, of large volumes fewer; a GPU finds it itself.
        precision: `bf16` only where its agreement with float32 was measured and is high enough.
        converted: Where the bundle's converted form is; None: in the bundle.

    Raises:
        UsageError: If the bundle cannot be used, or not in this precision.
        HistoError: If this CPU has no bfloat16, or this GPU no memory.
    """
    bundle = read_bundle(folder)
    form = converted or folder / FOLDER
    conversion = read_conversion(form, folder)
    require_precision(precision, conversion, folder)
    if device == "cpu" and conversion is not None:
        from histo.learn.runtime import OpenVinoPredictor  # noqa: PLC0415 -- what is not used is not loaded

        return OpenVinoPredictor(bundle, form, threads, batch_size or batch_on_cpu(bundle), precision)
    import torch  # noqa: PLC0415 -- likewise

    from histo.learn.predict import TorchPredictor  # noqa: PLC0415 -- likewise

    torch.set_num_threads(threads)
    return TorchPredictor(folder, device, batch_size, precision)
