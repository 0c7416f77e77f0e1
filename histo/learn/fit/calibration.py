"""Calibrate probabilities by temperature scaling.

Axes: N cases, K classes.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

LEAST_CASES = 100
"""Cases below which nothing is fitted: a temperature from fewer made held-out calibration worse as often as better."""
_RANGE = (0.1, 50.0)
_DRAWS, _DOUBT = 400, 0.025


def fit_temperature(logits_NK: npt.NDArray[np.floating], truth_N: npt.NDArray[np.int64]) -> float:
    """Return the temperature that gives the least cross-entropy (Guo et al. 2017, arXiv 1706.04599).

    It is 1 for fewer than `LEAST_CASES` cases. Below 1, which makes a network surer of itself, it is taken only if the
    cross-entropy falls by it in 97.5 % of the draws of a bootstrap over the cases.

    The true class counts for (N + 1/2) / (N + 1) and the others share the rest, as if half a case were wrong beside
    the N (Platt 1999 adds a whole one, for two classes; half a one is the estimate of Krichevsky and Trofimov 1981,
    doi 10.1109/TIT.1981.1056331): otherwise a few cases that all are right would have a temperature of 0, and
    probabilities of 1.

    Args:
        logits_NK: Of validation cases, whose labels the network has not learned from; N at least 1, K at least 2.
        truth_N: Class indices.

    Examples:
        >>> logits = np.array([[8.0, 0.0], [8.0, 0.0], [8.0, 0.0], [0.0, 8.0]] * 25)
        >>> round(fit_temperature(logits, np.array([0, 0, 1, 1] * 25)), 2)  # sure of itself, right three times of four
        7.37
    """
    if len(truth_N) < LEAST_CASES:
        return 1.0
    count, classes = logits_NK.shape
    target_NK = np.full((count, classes), 0.5 / (count + 1) / (classes - 1))
    target_NK[np.arange(count), truth_N] = (count + 0.5) / (count + 1)
    exact_NK = logits_NK.astype(np.float64)

    def losses_N(temperature: float) -> npt.NDArray[np.float64]:
        summed: npt.NDArray[np.float64] = -(target_NK * log_softmax(exact_NK / temperature, axis=1)).sum(axis=1)
        return summed

    def loss(exponent: float) -> float:
        return float(losses_N(math.exp(exponent)).mean())

    least, greatest = (math.log(bound) for bound in _RANGE)
    found = minimize_scalar(loss, bounds=(least, greatest), method="bounded")
    temperature = math.exp(found.x)
    return temperature if temperature >= 1 or _is_sure(losses_N(1) - losses_N(temperature)) else 1.0


def _is_sure(gains_N: npt.NDArray[np.float64]) -> bool:
    """Say whether the mean of what is gained is above 0 in nearly all draws of a bootstrap."""
    random = np.random.default_rng(0)
    means = [gains_N[random.integers(len(gains_N), size=len(gains_N))].mean() for _ in range(_DRAWS)]
    return float(np.quantile(means, _DOUBT)) > 0


def uncalibrated(
    probabilities_NK: npt.NDArray[np.floating], temperature: float | npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return what probabilities were before they were scaled with a temperature: one, or one for each case, `(N, 1)`.

    Examples:
        >>> logits = np.array([[2.0, 0.0, -1.0]])
        >>> np.allclose(uncalibrated(softmax(logits / 1.5, axis=1), 1.5), softmax(logits, axis=1))
        True
    """
    smallest = np.finfo(np.float64).tiny
    logits = np.log(np.maximum(probabilities_NK.astype(np.float64), smallest)) * temperature
    exact: npt.NDArray[np.float64] = softmax(logits, axis=1)
    return exact
