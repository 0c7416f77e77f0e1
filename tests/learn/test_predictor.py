"""What every predictor keeps, whatever runs the network."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import softmax

from histo.learn.bundle import Bundle, read_bundle
from histo.learn.openvino.core import core, ov
from histo.learn.openvino.record import FOLDER
from histo.learn.predict.base import BATCH_ON_CPU, Predictor, _softmax
from histo.learn.predict.in_flight import GREATEST_SIZE, find_batch_size
from histo.learn.predict.load import load_predictor
from histo.learn.predict.openvino_predictor import OpenVinoPredictor
from histo.resample import Pixels


@pytest.fixture(params=["openvino", "torch"])
def predict(request: pytest.FixtureRequest, tiny_bundle: Path) -> Predictor:
    elsewhere = tiny_bundle / "none" if request.param == "torch" else None
    found = load_predictor(tiny_bundle, batch_size=4, openvino=elsewhere)
    assert found.runtime == request.param
    return found


def noise(count: int) -> Pixels:
    return np.random.default_rng(2).integers(0, 256, (count, 96, 96, 3), np.uint8)


class Slow(Predictor):
    """A device that answers late, and says what was asked of it; the logits of a tile are its first pixel."""

    runtime = "torch"
    depth = 2

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, batch_size=2, precision="float32")
        self.steps: list[tuple[str, int]] = []

    def submit(self, tiles: Pixels) -> Any:
        self.steps.append(("submit", int(tiles[0, 0, 0, 0])))
        return tiles[:, 0, 0].astype(np.float32)

    def collect(self, ticket: Any) -> npt.NDArray[np.float32]:
        self.steps.append(("collect", int(ticket[0, 0])))
        logits: npt.NDArray[np.float32] = ticket
        return logits


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_a_batch_of_any_size_gives_what_its_tiles_give_alone(predict: Predictor, count: int) -> None:
    tiles = noise(count)

    together = predict(tiles)

    assert together.shape == (count, 3)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(together, np.concatenate([predict(tiles[i : i + 1]) for i in range(count)]), atol=1e-6)


def test_batches_in_a_row_give_what_each_gives_alone(predict: Predictor) -> None:
    batches = [noise(5), noise(0), noise(4)[::-1], noise(1)]

    for found, batch in zip(predict.over(iter(batches)), batches, strict=True):
        np.testing.assert_array_equal(found, predict(batch))


@pytest.mark.filterwarnings("error")
def test_tiles_that_nobody_may_write_to_are_classified_without_a_word(predict: Predictor) -> None:
    tiles = noise(5)
    expected = predict(tiles)
    tiles.setflags(write=False)

    np.testing.assert_array_equal(predict(tiles), expected)


def test_two_batches_are_in_flight_where_the_device_likes_it(tiny_bundle: Path) -> None:
    predict = Slow(read_bundle(tiny_bundle))
    tiles = np.zeros((5, 96, 96, 3), np.uint8)
    tiles[:, :, :, 0] = np.arange(5)[:, None, None]

    found = list(predict.over([tiles[:3], tiles[:0], tiles[3:]]))

    assert predict.steps == [
        ("submit", 0), ("submit", 2), ("collect", 0), ("collect", 2), ("submit", 3), ("collect", 3)
    ]  # fmt: skip
    assert [len(part) for part in found] == [3, 0, 2]
    assert (np.diff(np.concatenate(found)[:, 0]) > 0).all()


def test_no_more_batches_are_read_than_are_in_flight(tiny_bundle: Path) -> None:
    read: list[int] = []

    def batches() -> Iterator[Pixels]:
        for number in range(4):
            read.append(number)
            yield np.zeros((2, 96, 96, 3), np.uint8)

    next(Slow(read_bundle(tiny_bundle)).over(batches()))

    assert read == [0, 1]


@pytest.mark.parametrize("scale", [0.01, 1, 1000])
def test_probabilities_are_those_of_scipy_bit_for_bit(scale: float) -> None:
    logits = np.random.default_rng(0).normal(scale=scale, size=(1000, 9))

    np.testing.assert_array_equal(_softmax(logits), softmax(logits, axis=1))
    assert _softmax(np.empty((0, 9))).shape == (0, 9)


def test_tiles_of_another_kind_are_a_callers_mistake(predict: Predictor) -> None:
    for tiles in (np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 96, 96, 3), np.float32)):
        with pytest.raises(ValueError, match=r"expected uint8 tiles \(n, 96, 96, 3\)"):
            predict(tiles)  # type: ignore[arg-type]


def test_a_cpu_has_small_batches_where_none_are_asked_for(tiny_bundle: Path) -> None:
    assert load_predictor(tiny_bundle).batch_size == BATCH_ON_CPU
    assert load_predictor(tiny_bundle, openvino=tiny_bundle / "none").batch_size == BATCH_ON_CPU


def test_a_converted_form_that_gives_no_finite_numbers_is_an_error(tiny_bundle: Path, tmp_path: Path) -> None:
    model = core().read_model(tiny_bundle / FOLDER / "model.xml")
    logits = model.outputs[0].get_node().input_value(0)
    broken = ov.Model([ov.opset13.divide(logits, ov.opset13.constant(np.float32(0)))], model.get_parameters(), "broken")
    ov.save_model(broken, tmp_path / "model.xml", compress_to_fp16=False)
    predict = OpenVinoPredictor(read_bundle(tiny_bundle), tmp_path, 1, 2, "float32")

    with pytest.raises(FloatingPointError, match="not finite"):
        predict(noise(2))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_converted_form_uses_as_many_threads_as_it_may(tiny_bundle: Path, threads: int) -> None:
    predict = OpenVinoPredictor(read_bundle(tiny_bundle), tiny_bundle / FOLDER, threads, 2, "float32")

    compiled = predict._request.get_compiled_model()

    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.f32


USE_AND_DROP = """
import faulthandler, gc, os, signal, sys
from pathlib import Path
from histo.learn.predict.load import load_predictor

faulthandler.enable()  # as pytest and Ray do: it handles signals on a stack of its own
handled = []
signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
first, second = load_predictor(Path(sys.argv[1])), load_predictor(Path(sys.argv[1]))
for predictor in (first, second):
    assert predictor.runtime == "openvino"
del predictor, first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
assert handled
"""


def test_a_process_can_handle_signals_after_its_predictors_are_gone(tiny_bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", USE_AND_DROP, str(tiny_bundle)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_a_batch_grows_as_long_as_it_is_faster() -> None:
    tried: list[int] = []

    def rate(size: int) -> float:
        tried.append(size)
        return min(size, 100.0)

    assert find_batch_size(rate) == 128
    assert tried == [32, 64, 128, 256]


def test_a_batch_has_an_upper_bound() -> None:
    assert find_batch_size(float) == GREATEST_SIZE


def test_a_batch_stays_where_memory_ends() -> None:
    assert find_batch_size(lambda size: float(size) if size <= 64 else None) == 64


def test_a_batch_shrinks_where_even_the_first_has_no_memory() -> None:
    assert find_batch_size(lambda size: float(size) if size <= 3 else None) == 2
    assert find_batch_size({}.get) is None
