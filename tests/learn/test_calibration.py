import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from histo.learn.fit.calibration import LEAST_CASES, fit_temperature, uncalibrated
from histo.learn.score.metrics import calibration_error


def draw(temperature: float, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large, and labels drawn from what they should say."""
    random = np.random.default_rng(0)
    honest = random.normal(0, 2, (n, 4))
    truth = (softmax(honest, axis=1).cumsum(axis=1) > random.random((n, 1))).argmax(axis=1)
    return honest * temperature, truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_applied_is_found_again(temperature: float) -> None:
    assert fit_temperature(*draw(temperature)) == pytest.approx(temperature, rel=0.05)


def test_scaling_makes_too_sure_probabilities_honest() -> None:
    logits, truth = draw(3.0)
    half = len(truth) // 2

    temperature = fit_temperature(logits[:half], truth[:half])

    before = calibration_error(truth[half:], softmax(logits[half:], axis=1))
    after = calibration_error(truth[half:], softmax(logits[half:] / temperature, axis=1))
    assert before > 0.15
    assert after < 0.03


@pytest.mark.parametrize("n", [LEAST_CASES, 300])
def test_a_few_cases_that_all_are_right_do_not_make_certain(n: int) -> None:
    logits = np.tile([9.0, 0.0, 0.0], (n, 1))

    temperature = fit_temperature(logits, np.zeros(n, np.int64))

    assert softmax(logits / temperature, axis=1)[0, 0] == pytest.approx((n + 0.5) / (n + 1), abs=0.01)


@pytest.mark.parametrize("temperature", [0.2, 5.0])
def test_few_cases_fit_no_temperature(temperature: float) -> None:
    assert fit_temperature(*draw(temperature, LEAST_CASES - 1)) == 1


def test_a_network_is_made_surer_only_where_resampling_agrees() -> None:
    fitted = [fit_temperature(*draw(0.9, n)) for n in (LEAST_CASES, 40_000)]

    assert fitted == [1, pytest.approx(0.9, rel=0.05)]


@given(temperature=st.floats(0.2, 20), seed=st.integers(0, 1000))
def test_taking_the_temperature_away_gives_back_the_probabilities(temperature: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, (5, 3))

    scaled = softmax(logits / temperature, axis=1).astype(np.float32)

    np.testing.assert_allclose(uncalibrated(scaled, temperature), softmax(logits, axis=1), atol=1e-4)


def test_a_probability_of_zero_stays_zero() -> None:
    scaled = np.array([[1.0, 0.0]], np.float32)

    assert uncalibrated(scaled, 2.0).tolist() == [[1.0, 0.0]]
