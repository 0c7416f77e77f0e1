"""Predict a share of the cases: a Ray task of an evaluation.

It loads nothing that scores or trains; a converted bundle runs without torch.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from histo.learn.bundle import read_bundle
from histo.learn.data.source import Source
from histo.learn.network.spec import InferencePrecision
from histo.learn.predict.base import batch_on_cpu
from histo.learn.predict.load import load_predictor
from histo.remote.cache import held
from histo.remote.location import AnyPath
from histo.resample import Pixels
from histo.run.placement import Placement


def predict_share(
    model: AnyPath,
    source: Source,
    share: npt.NDArray[np.int64],
    placement: Placement,
    batch_size: int,
    precision: InferencePrecision,
) -> npt.NDArray[np.float32]:
    """Classify some of a source's images; probabilities `(n, classes)`."""
    device, copy = placement.torch_device, held(model)
    for place in source.places:  # the paths of its images are those of its copies
        held(place)
    batch_size = min(batch_size, batch_on_cpu(read_bundle(copy))) if device == "cpu" else batch_size
    predict = load_predictor(copy, device, placement.cpus, batch_size, precision)
    return np.concatenate(list(predict.over(_batches(source, share, predict.bundle.input.size_px, batch_size))))


def _batches(source: Source, share: npt.NDArray[np.int64], size_px: int, batch_size: int) -> Iterator[Pixels]:
    layout = source.images.layout
    for start in range(0, len(share), batch_size):
        yield np.stack([layout.fit(source.images.load(int(i)), size_px) for i in share[start : start + batch_size]])
