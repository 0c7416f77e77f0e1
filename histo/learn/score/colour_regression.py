"""Score a logistic regression on mean colours, beside the network.

A set whose classes differ in colour is learned without any look at tissue; the difference to this baseline is what the
network adds.

Axes: N cases, F features, K classes, H height, W width.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from histo.learn.data.images import Images
from histo.resample import Pixels

Features = npt.NDArray[np.float64]

_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_BINS = 8


def mean_rgb(image: Pixels) -> Features:
    """Return the mean of red, green and blue, `(3,)`, 0 to 255."""
    return np.asarray(image.reshape(-1, 3).mean(axis=0), np.float64)


def colour_histogram(image: Pixels) -> Features:
    """Return the square roots of the shares of 8 x 8 x 8 colours, `(512,)`.

    The source is Swain and Ballard 1991 (doi 10.1007/BF00130487); the square root makes distances those of Hellinger.

    Examples:
        >>> image = np.zeros((2, 2, 3), np.uint8)
        >>> image[0] = 255
        >>> np.flatnonzero(colour_histogram(image)).tolist(), round(float(colour_histogram(image)[0] ** 2), 6)
        ([0, 511], 0.5)
    """
    level = (image.reshape(-1, 3) // (256 // _BINS)).astype(np.int64)
    place = (level[:, 0] * _BINS + level[:, 1]) * _BINS + level[:, 2]
    return np.asarray(np.sqrt(np.bincount(place, minlength=_BINS**3) / len(place)))


COLOURS: dict[str, Callable[[Pixels], Features]] = {"mean_rgb": mean_rgb, "colour_histogram": colour_histogram}
"""What is taken of an image, by the name that results carry."""


def colour_features(images: Images, members: Sequence[int]) -> dict[str, Features]:
    """Return each kind of feature of some images, `(N, F)`."""

    def look(index: int) -> list[Features]:
        image = images.load(index)
        return [features(image) for features in COLOURS.values()]

    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(look, members))
    return {name: np.stack([row[place] for row in rows]) for place, name in enumerate(COLOURS)}


def fit_regression(
    train_NF: Features, train_labels_N: npt.NDArray[np.int64], val_NF: Features, val_labels_N: npt.NDArray[np.int64]
) -> Pipeline:
    """Fit a logistic regression on standardised features; validation cases choose how strongly it is regularised.

    Args:
        train_NF: Features of the training cases.
        train_labels_N: Their class indices; every class occurs.
        val_NF: Features of the validation cases.
        val_labels_N: Their class indices.
    """
    models = []
    for strength in _STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
        models.append(model.fit(train_NF, train_labels_N))
    classes = models[0].classes_
    losses = [log_loss(val_labels_N, model.predict_proba(val_NF), labels=classes) for model in models]
    return models[int(np.argmin(losses))]
