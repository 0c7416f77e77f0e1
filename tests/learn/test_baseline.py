import numpy as np
import pytest

from histo.learn.data.images import ArrayImages
from histo.learn.score.colour_regression import colour_features, colour_histogram, fit_regression, mean_rgb


def paint(colours: list[list[int]], size: int = 8) -> np.ndarray:
    """Images that alternate between colours of their own and grey noise."""
    random = np.random.default_rng(0)
    images = random.integers(100, 130, (len(colours), size, size, 3))
    images[:, ::2] = np.array(colours)[:, None, None]
    return images.astype(np.uint8)


def test_the_mean_colour_is_the_mean_of_each_channel() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0] = (200, 100, 50)

    assert mean_rgb(image).tolist() == [100, 50, 25]


def test_a_histogram_does_not_know_where_a_colour_is_nor_how_large_the_image() -> None:
    image = paint([[250, 10, 10]])[0]

    assert np.square(colour_histogram(image)).sum() == pytest.approx(1)
    np.testing.assert_array_equal(colour_histogram(image), colour_histogram(image[::-1].swapaxes(0, 1)))
    np.testing.assert_allclose(colour_histogram(image), colour_histogram(image.repeat(3, axis=0)))


def test_features_are_those_of_the_images_that_were_asked_for() -> None:
    images = paint([[250, 10, 10], [10, 250, 10], [10, 10, 250]])

    found = colour_features(ArrayImages((images,)), [2, 0])

    np.testing.assert_allclose(found["mean_rgb"], [mean_rgb(images[2]), mean_rgb(images[0])])
    assert found["colour_histogram"].shape == (2, 512)


def test_classes_that_differ_in_colour_are_learned_from_it_and_others_are_not() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    told = labels[:, None] * 5.0 + random.normal(size=(80, 2))
    untold = random.normal(size=(80, 2))
    train, val = np.arange(80) % 2 == 0, np.arange(80) % 2 == 1

    def accuracy(features: np.ndarray) -> float:
        model = fit_regression(features[train], labels[train], features[val], labels[val])
        return float(model.score(features[val], labels[val]))

    assert accuracy(told) > 0.95
    assert accuracy(untold) < 0.7
