"""`make check-gpu`: train and label on a GPU, and compare with the CPU. Fails on a machine that has none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.plain_loop import rows_of

from histo.cli import main
from histo.demo.bundle import random_bundle
from histo.demo.fabricate import write_pyramid
from histo.demo.textures import paint
from histo.learn.conversion import convert
from histo.learn.network.spec import DEFAULT_BACKBONE
from histo.learn.predict.load import load_predictor
from histo.learn.predict.torch_predictor import TorchPredictor

pytestmark = [pytest.mark.gpu, pytest.mark.ray]

PROBABILITIES = ("prob_MUS", "prob_STR", "prob_TUM")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default network with its ImageNet weights and a random head, 224 px at 0.5 µm/px, converted."""
    folder = random_bundle(tmp_path_factory.mktemp("bundle"), DEFAULT_BACKBONE, size_px=224)
    convert(folder)
    return folder


@pytest.fixture(autouse=True)
def _a_gpu_is_there() -> None:
    assert torch.cuda.is_available(), "this machine has no GPU that torch can use; `make check-gpu` needs one"


def test_the_predictor_gives_the_probabilities_of_the_cpu(bundle: Path) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (40, 224, 224, 3), np.uint8)

    np.testing.assert_allclose(TorchPredictor(bundle, "cuda")(tiles), TorchPredictor(bundle, "cpu")(tiles), atol=1e-3)


def test_two_batches_in_flight_give_what_each_gives_alone(bundle: Path) -> None:
    predict = load_predictor(bundle, "cuda", batch_size=8)
    random = np.random.default_rng(0)
    batches = [random.integers(0, 256, (count, 224, 224, 3), np.uint8) for count in (8, 3, 0, 20, 1, 8)]

    together = list(predict.over(batches))

    assert (predict.runtime, predict.depth) == ("torch", 2)
    for found, batch in zip(together, batches, strict=True):
        np.testing.assert_array_equal(found, predict(batch))


def test_a_pass_that_is_given_up_leaves_nothing_behind(bundle: Path) -> None:
    predict = load_predictor(bundle, "cuda", batch_size=4)
    tiles = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8)
    expected = predict(tiles)

    for _ in range(3):
        next(predict.over([tiles, 255 - tiles, tiles]))

    np.testing.assert_array_equal(predict(tiles), expected)


def test_a_gpu_finds_its_batch_size(bundle: Path) -> None:
    predict = load_predictor(bundle, "cuda")

    assert predict.batch_size in {2**n for n in range(11)}
    assert predict(np.zeros((3, 224, 224, 3), np.uint8)).shape == (3, 3)


def test_bf16_on_the_gpu_is_near_float32(bundle: Path) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (40, 224, 224, 3), np.uint8)

    rough = TorchPredictor(bundle, "cuda", 16, "bf16")(tiles)

    difference = np.abs(rough - TorchPredictor(bundle, "cuda", 16)(tiles)).max()
    assert 0 < difference < 0.15, "an untrained head; decision 11 has 0.03 of it on a CPU"


def test_labelling_on_the_gpu_gives_the_tables_of_the_cpu(bundle: Path, tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    write_pyramid(slides / "a.tif", paint("TUM", 4000, 4000, np.random.default_rng(0)), mpp=0.25)
    for device in ("gpu", "cpu"):
        flags = ["--slides", str(slides), "--model", str(bundle), "--out", str(tmp_path / device), "--device", device]
        assert main(["label", *flags]) == 0
    gpu, cpu = (rows_of(tmp_path / device / "tiles" / "a.tif.parquet") for device in ("gpu", "cpu"))

    assert json.loads((tmp_path / "gpu" / "run.json").read_text())["placement"]["gpus"] == 1
    assert [row["tile_index"] for row in gpu] == [row["tile_index"] for row in cpu]
    for name in PROBABILITIES:
        np.testing.assert_allclose([row[name] for row in gpu], [row[name] for row in cpu], atol=1e-3)


def test_training_on_the_gpu_learns_as_on_the_cpu(tiles: Path, tmp_path: Path) -> None:
    for device in ("gpu", "cpu"):
        flags = ["--data", str(tiles), "--out", str(tmp_path / device), "--device", device, "--workers", "1"]
        flags += ["--size-px", "64", "--fit.head.epochs", "2", "--fit.tune.epochs", "1", "--network.dropout", "0"]
        assert main(["train", *flags]) == 0
    gpu, cpu = (
        [json.loads(line) for line in (tmp_path / device / "metrics.jsonl").read_text().splitlines()]
        for device in ("gpu", "cpu")
    )

    for on_gpu, on_cpu in zip(gpu, cpu, strict=True):
        assert on_gpu["train_loss"] == pytest.approx(on_cpu["train_loss"], rel=1e-2)
