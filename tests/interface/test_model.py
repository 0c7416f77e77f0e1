"""`histo.load_model`: a bundle as a function of images."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import histo
from histo.demo.bundle import random_volume_bundle
from histo.errors import ImageError, UsageError
from histo.learn.array_layout import VolumeLayout
from histo.learn.predict.load import load_predictor


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> histo.Model:
    return histo.load_model(str(tiny_bundle), device="cpu", batch_size=4)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 96, 96, 3), np.uint8)


def test_a_model_says_its_classes_and_the_tiles_that_it_sees(model: histo.Model, tiny_bundle: Path) -> None:
    assert (model.classes, model.mpp, model.size_px) == (("MUS", "STR", "TUM"), 0.5, 96)
    assert model.path == tiny_bundle
    assert "3 classes, 96 px at 0.5 µm/px" in repr(model)


def test_arrays_lists_and_generators_give_what_the_predictor_of_a_label_run_gives(
    model: histo.Model, images: np.ndarray, tiny_bundle: Path
) -> None:
    expected = load_predictor(tiny_bundle)(images)

    for given in (images, list(images), (image for image in images), [Image.fromarray(image) for image in images]):
        found = model(given)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.ptp(expected, axis=0).max() > 1e-3, "the images must differ, or equality says nothing"


def test_one_image_gives_one_row(model: histo.Model, images: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "tile.png"
    Image.fromarray(images[0]).save(path)

    with Image.open(path) as opened:
        for given in (images[0], Image.fromarray(images[0]), path, str(path), opened):
            found = model(given)
            assert found.shape == (3,)
            np.testing.assert_allclose(found, model(images[:1])[0], atol=1e-6)
            assert found.sum() == pytest.approx(1, abs=1e-6)


def test_of_a_generator_a_batch_at_a_time_is_held(model: histo.Model, images: np.ndarray) -> None:
    asked: list[int] = []

    def counted() -> object:
        for number, image in enumerate(images):
            asked.append(number)
            yield image

    batches = model._batches(counted())  # type: ignore[arg-type]
    next(batches)

    assert len(asked) == 4


@pytest.mark.parametrize("nothing", [[], np.empty((0, 96, 96, 3), np.uint8)])
def test_no_images_give_no_rows(model: histo.Model, nothing: object) -> None:
    assert model(nothing).shape == (0, 3)  # type: ignore[arg-type]


def test_grey_and_transparent_images_are_seen_as_training_sees_them(model: histo.Model, images: np.ndarray) -> None:
    grey = Image.fromarray(images[0, ..., 0])
    clear = Image.fromarray(np.dstack([images[0], np.zeros((96, 96), np.uint8)]))

    np.testing.assert_array_equal(model(grey), model(np.repeat(images[0, ..., :1], 3, axis=2)))
    np.testing.assert_array_equal(model(clear), model(np.full((96, 96, 3), 255, np.uint8)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((95, 96, 3), np.uint8),
            r"uint8 \(95, 96, 3\), and the model sees uint8 \(96, 96, 3\) at 0.5 µm/px; nothing is",
        ),
        (np.zeros((96, 96, 3), np.float32), "float32 .*; give values from 0 to 255"),
        (np.zeros((96, 96, 4), np.uint8), r"its axes are \(height, width, RGB\)"),
        (np.zeros((96, 96), np.uint8), r"the image is uint8 \(96, 96\), .*; its axes are"),
        (np.zeros((3, 96, 96), np.uint8), r"its axes are \(height, width, RGB\)"),
        (Image.new("RGB", (64, 96)), r"\(96, 64, 3\)"),
    ],
)
def test_an_image_that_the_model_does_not_see_is_refused(model: histo.Model, image: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(image)  # type: ignore[arg-type]


def test_what_is_no_image_is_refused(model: histo.Model) -> None:
    with pytest.raises(TypeError, match="float is no image"):
        model([0.5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="device: 'gpus'"):
        histo.load_model(model.path, device="gpus")  # type: ignore[arg-type]


def test_images_that_cannot_be_read_are_said(model: histo.Model, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")

    with pytest.raises(ImageError, match=r"broken\.png: not a readable image"):
        model(tmp_path / "broken.png")
    with pytest.raises(ImageError, match=r"missing\.png: not readable"):
        model([tmp_path / "missing.png"])
    with pytest.raises(ImageError, match="mode I;16"):
        model(Image.fromarray(np.zeros((96, 96), np.uint16)))
    (tmp_path / "cut.png").write_bytes(_png()[:-400])
    with Image.open(tmp_path / "cut.png") as cut, pytest.raises(ImageError, match=r"cut\.png: not a readable image"):
        model(cut)


def _png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_what_is_no_bundle_is_refused_by_name(tmp_path: Path, tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"model .*nothing: no such folder"):
        histo.load_model(tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"model\.json: is a file; give its folder, or that of the run"):
        histo.load_model(tiny_bundle / "model.json")
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(UsageError, match="the bundle is damaged"):
        histo.load_model(copy)


def test_without_a_gpu_one_that_is_asked_for_is_an_error(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    with pytest.raises(UsageError, match="there is no GPU"):
        histo.load_model(tiny_bundle, device="gpu")
    assert histo.load_model(tiny_bundle)(np.zeros((96, 96, 3), np.uint8)).shape == (3,)


def test_a_model_of_studies_sees_volumes(tmp_path: Path) -> None:
    model = histo.load_model(random_volume_bundle(tmp_path, VolumeLayout(2, 4, None), 32))
    volume = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32), np.uint8)

    assert model.mpp is None
    assert model(volume).shape == (2,)
    np.testing.assert_allclose(model(volume[None])[0], model(volume), atol=1e-6)
