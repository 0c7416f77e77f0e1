import io
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from histo.errors import ImageError
from histo.learn.images import ArrayImages, FileImages, SelectedImages, decode, join_images


def levels(*values: int) -> ArrayImages:
    """Images whose grey level is their own number."""
    return ArrayImages((np.array(values, np.uint8)[:, None, None, None] * np.ones((2, 2, 3), np.uint8),))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_joined_images_are_the_parts_one_after_the_other(counts: list[int]) -> None:
    numbers = iter(range(99))
    parts = [levels(*[next(numbers) for _ in range(count)]) for count in counts]

    joined = join_images(parts, counts)

    assert [int(joined.load(i)[0, 0, 0]) for i in range(sum(counts))] == list(range(sum(counts)))


def test_selected_images_are_in_the_order_of_the_selection() -> None:
    selected = SelectedImages(levels(10, 20, 30), (2, 0))

    assert [int(selected.load(i)[0, 0, 0]) for i in (0, 1)] == [30, 10]


@pytest.mark.parametrize("shape", [(2, 5, 5, 3), (2, 5, 5)])
def test_an_encoded_array_decodes_to_its_own_pixels(shape: tuple[int, ...]) -> None:
    images = ArrayImages((np.random.default_rng(0).integers(0, 256, shape, np.uint8),))

    np.testing.assert_array_equal(decode("x", images.encoded(1)), images.load(1))


def test_an_encoded_file_is_the_file(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "a.jpg")

    assert FileImages((tmp_path / "a.jpg",)).encoded(0) == (tmp_path / "a.jpg").read_bytes()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_absurd_size_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)

    with pytest.raises(ImageError, match=r"a\.png: not a readable image"):
        FileImages((tmp_path / "a.png",)).load(0)


@pytest.mark.filterwarnings("ignore")
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "TIFF"]))
def test_a_damaged_file_is_an_image_or_an_image_error(data: st.DataObject, kind: str) -> None:
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, kind)
    damaged = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    with suppress(ImageError):
        assert decode("x", bytes(damaged[: data.draw(st.integers(0, len(damaged)))])).dtype == np.uint8


def test_an_image_error_survives_pickling() -> None:
    assert str(pickle.loads(pickle.dumps(ImageError("a.png: broken")))) == "a.png: broken"
