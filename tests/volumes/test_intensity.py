import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from histo.errors import Cause, StudyError
from histo.volumes.intensity import IntensityWindow, check_values, percentile_window, zscore_window

numbers = st.one_of(st.integers(-2000, 2000), st.floats(-(2.0**99), 2.0**99, width=32))
volumes = arrays(np.float32, (3, 4, 5), elements=numbers)
laws = settings(max_examples=60)


def foreground(values: np.ndarray) -> np.ndarray:
    return values[values > values.min()].astype(np.float64)


@laws
@given(volumes, st.floats(0, 100), st.floats(0, 100))
@example(np.array([[[-0.0, 0.0, 0.0, 1.0, -1.0]]], np.float32), 0, 100)
def test_percentiles_are_those_of_numpy_over_the_foreground(values: np.ndarray, low: float, high: float) -> None:
    window = percentile_window(values, low, high)

    if foreground(values).size:
        expected = np.percentile(foreground(values), [low, high])
        scale = float(np.abs(values).max()) * 1e-12
        assert (window.low, window.high) == pytest.approx(tuple(expected), rel=1e-9, abs=scale)


@laws
@given(arrays(np.float32, (3, 4, 5), elements=st.integers(-2000, 2000)))
def test_zscore_spans_standard_deviations_around_the_mean_of_the_foreground(values: np.ndarray) -> None:
    window = zscore_window(values, span=4.0)

    inside = foreground(values)
    if inside.size:
        expected = inside.mean() - 4 * inside.std(), inside.mean() + 4 * inside.std()
        assert (window.low, window.high) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (2, 1, 0)])
def test_a_window_does_not_depend_on_the_order_in_memory(axes: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(100, 30, (12, 13, 14)).astype(np.float32)
    other = np.ascontiguousarray(values.transpose(axes)).transpose(np.argsort(axes))

    assert percentile_window(other, 0.5, 99.5) == percentile_window(values, 0.5, 99.5)
    assert zscore_window(other, 4) == zscore_window(values, 4)


@pytest.mark.parametrize("values", [np.full((2, 3, 4), 7), np.arange(24).reshape(2, 3, 4) > 12])
@pytest.mark.parametrize(
    "rule", [lambda values: percentile_window(values, 1, 99), lambda values: zscore_window(values, 4)]
)
def test_a_foreground_of_one_value_or_none_is_black(values: np.ndarray, rule: object) -> None:
    window = rule(values.astype(np.float32) / 10)  # type: ignore[operator]

    assert window.empty
    assert not window.grey(values.astype(np.float32)).any()


@laws
@given(volumes, st.floats(-1e3, 1e3), st.floats(0.01, 1e3))
def test_grey_is_the_share_of_the_window_rounded_half_up(values: np.ndarray, low: float, width: float) -> None:
    grey = IntensityWindow(low, low + width).grey(values)

    share = np.clip((values.astype(np.float64) - low) / ((low + width) - low), 0, 1) * 255
    assert np.abs(grey - share).max() <= 0.5 + 1e-6


def test_values_that_are_not_finite_are_counted() -> None:
    values = np.zeros((2, 3, 4), np.float32)
    values[1, 0, 0], values[0, 2, 1] = np.nan, np.inf

    with pytest.raises(StudyError, match=r"^s1: 2 values are NaN or infinite; replace them by") as raised:
        check_values(values, "s1", hounsfield=False)

    assert raised.value.cause == Cause.NOT_FINITE


@pytest.mark.parametrize(("value", "shown"), [(40000, "from 0 to 40000"), (-33000, "from -33000 to 0")])
def test_hounsfield_units_beyond_16_bits_have_wrapped_around(value: float, shown: str) -> None:
    values = np.zeros((2, 3, 4), np.float32)
    values[0, 0, 0] = value

    with pytest.raises(StudyError, match=f"^s1: values {shown}; Hounsfield units lie within") as raised:
        check_values(values, "s1", hounsfield=True)

    assert raised.value.cause == Cause.OVERFLOW
    check_values(values, "s1", hounsfield=False)
