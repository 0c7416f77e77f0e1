"""A bundle's converted form, run by OpenVINO on a CPU. Loads no torch."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from histo.errors import HistoError
from histo.learn.bundle import Bundle
from histo.learn.network.spec import InferencePrecision
from histo.learn.openvino.core import core, has_bf16, infer_request
from histo.learn.openvino.record import CONSTANTS, GRAPH
from histo.learn.predict.base import Predictor
from histo.resample import Pixels


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
