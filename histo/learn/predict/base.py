"""Classify a batch of tiles or volumes, whatever runs the network. Loads no torch."""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from histo.learn.bundle import Bundle
from histo.learn.network.spec import InferencePrecision
from histo.learn.predict.in_flight import in_flight
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
            exact = _softmax(logits.astype(np.float64) / self.bundle.temperature)
        if not np.isfinite(exact).all():
            raise FloatingPointError("the model gives probabilities that are not finite; train it again")
        return exact.astype(np.float32)

    @abstractmethod
    def submit(self, tiles: Pixels) -> Any:
        """Begin with at least one tile and at most `batch_size`; returns what `collect` takes."""

    @abstractmethod
    def collect(self, ticket: Any) -> npt.NDArray[np.float32]:
        """Wait for what was begun; returns logits, `(n, classes)`."""


def _softmax(logits_BK: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the same as `scipy.special.softmax` along the classes, which takes long to load in every worker."""
    odds_BK = np.exp(logits_BK - logits_BK.max(axis=1, keepdims=True))
    return np.asarray(odds_BK / odds_BK.sum(axis=1, keepdims=True), np.float64)


def batch_on_cpu(bundle: Bundle) -> int:
    """Return how many arrays go through a bundle's network at a time on a CPU, where nothing else is asked for."""
    return max(1, min(BATCH_ON_CPU, _VALUES_ON_CPU // math.prod(bundle.array_shape)))
