"""A bundle's converted form, run by OpenVINO on a CPU. Loads no torch."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from histo.errors import HistoError
from histo.learn.bundle import Bundle
from histo.learn.converted import CONSTANTS, GRAPH, InferencePrecision
from histo.learn.engine import core, ov
from histo.learn.predictor import Predictor
from histo.resample import Pixels

_HINTS = {"float32": "f32", "bf16": "bf16"}


class OpenVinoPredictor(Predictor):
    """See `Predictor`. All passes have the same number of tiles; a short one is filled up, and the filling dropped.

    Args:
        bundle: The description of the bundle.
        form: Its converted form.
        threads: That the network may use.
        batch_size: Tiles per forward pass.
        precision: In which convolutions are computed.

    Raises:
        HistoError: If this CPU has no bfloat16, where it is asked for.
    """

    runtime = "openvino"

    def __init__(
        self, bundle: Bundle, form: Path, threads: int, batch_size: int, precision: InferencePrecision
    ) -> None:
        super().__init__(bundle, batch_size, precision)
        if precision == "bf16" and not has_bf16():
            raise HistoError("--precision bf16: this CPU has no bfloat16 arithmetic; use float32")
        model = core().read_model(form / GRAPH, form / CONSTANTS)
        shape = [batch_size, *bundle.array_shape]
        model.reshape(shape)
        self._request = infer_request(model, threads, precision)
        self._filled = np.zeros(shape, np.uint8)

    def submit(self, tiles: Pixels) -> npt.NDArray[np.float32]:
        """See `Predictor.submit`."""
        count = len(tiles)
        if count < self.batch_size:
            self._filled[:count] = tiles
            tiles = self._filled
        outputs = self._request.infer([np.ascontiguousarray(tiles)], share_inputs=True)
        logits: npt.NDArray[np.float32] = outputs[0][:count].copy()
        return logits

    def collect(self, ticket: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See `Predictor.collect`."""
        return ticket


def infer_request(model: ov.Model, threads: int, precision: InferencePrecision) -> Any:
    """Compile a graph for this CPU; returns OpenVINO's `InferRequest`, for one thread of ours at a time."""
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],  # left to itself, a CPU that has bfloat16 uses it
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # or all processes of a node pin their threads to the same cores
    }
    return core().compile_model(model, "CPU", settings).create_infer_request()


def has_bf16() -> bool:
    """Whether this CPU computes in bfloat16."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
