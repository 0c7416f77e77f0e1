"""Predict labelled cases in Ray tasks, each a share of them."""

import numpy as np
import ray
import ray.exceptions

from histo.errors import HistoError
from histo.learn.bundle import check_layout, read_bundle
from histo.learn.data.source import Source, class_numbers
from histo.learn.network.spec import InferencePrecision
from histo.learn.score.predictions import Predictions
from histo.pipelines.training.predict_share import predict_share
from histo.remote.cache import held
from histo.remote.location import AnyPath
from histo.run.cluster import root_cause
from histo.run.placement import Placement


def predict_cases(
    model: AnyPath, source: Source, placement: Placement, batch_size: int, precision: InferencePrecision = "float32"
) -> Predictions:
    """Classify all cases of a source, each worker its share.

    Args:
        model: The bundle.
        source: Usable cases, at least one.
        placement: Workers, and what each of them gets.
        batch_size: Images per forward pass.
        precision: See `load_predictor`.

    Raises:
        UsageError: If a case is of a class that the bundle does not know.
        HistoError: If a task fails.
    """
    bundle = read_bundle(held(model))
    truth_N = class_numbers(source, bundle.classes)
    check_layout(bundle, source.images.layout, f"--model {model}")
    task = ray.remote(num_cpus=placement.cpus, num_gpus=placement.gpus, max_retries=1)(predict_share)
    shares = [share for share in np.array_split(np.arange(len(truth_N)), placement.workers) if len(share)]
    everything = ray.put(source)
    try:
        parts = ray.get([task.remote(model, everything, share, placement, batch_size, precision) for share in shares])
    except ray.exceptions.RayError as error:
        raise HistoError(f"{model}: evaluation failed: {root_cause(error)}") from error
    return Predictions(
        cases=source.cases,
        classes=bundle.classes,
        truth_N=truth_N,
        probabilities_NK=np.concatenate(parts),
        temperatures_N=np.full(len(truth_N), bundle.temperature),
    )
