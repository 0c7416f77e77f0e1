"""The fabricated slides of other vendors are what they claim to be, and are read as OpenSlide shows them."""

from pathlib import Path

import numpy as np
import openslide
import pytest
from helpers.vendor_slides import WRITERS, picture, write_ndpi

from histo.resample import Pixels
from histo.slides.slide import open_reader, open_slide


@pytest.fixture(scope="module")
def image(shared: Path) -> Pixels:
    return picture(shared)


@pytest.mark.parametrize("name", WRITERS)
def test_a_fabricated_slide_is_of_its_vendor_and_shows_the_picture(tmp_path: Path, image: Pixels, name: str) -> None:
    vendor, write = WRITERS[name]
    path = write(tmp_path, image, 0.5)

    with openslide.OpenSlide(path) as slide:
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions)).astype(int)
        named = slide.properties[openslide.PROPERTY_NAME_VENDOR], slide.properties[openslide.PROPERTY_NAME_MPP_X]

    areas = [((0, 0), image)]
    if name == "Leica SCN":
        areas = [((640, 512), image[:, :640]), ((1664, 768), image[:, 640:])]
    assert named == (vendor, "0.5")
    assert all(differs(pixels[y:, x:], area) < 6 for (x, y), area in areas)


def differs(shown: np.ndarray, area: Pixels) -> float:
    """Return by how much pixels differ on average where they are opaque and belong to the picture."""
    height, width = (min(extents) for extents in zip(shown.shape[:2], area.shape[:2], strict=True))
    shown, area = shown[:height, :width], area[:height, :width]
    opaque = shown[..., 3] == 255
    assert opaque.mean() > 0.4
    return float(np.abs(shown[..., :3] - area)[opaque].mean())


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_no_plain_tiled_tiff_is_read_by_openslide(tmp_path: Path, image: Pixels, name: str) -> None:
    path = WRITERS[name][1](tmp_path, image, 0.5)

    slide, reader = open_slide(str(path), reader="auto")
    again = open_reader(slide, reader.name)

    shown = again.read(slide.levels[0], 300, 200, 200, 100)
    reader.close()
    again.close()
    with openslide.OpenSlide(path) as opened:
        rgba = np.asarray(opened.read_region((300, 200), 0, (200, 100)))
    assert np.array_equal(shown, np.where(rgba[..., 3:] == 255, rgba[..., :3], 255))


def test_an_ndpi_file_without_restart_markers_is_no_damaged_tiff(tmp_path: Path, image: Pixels) -> None:
    path = write_ndpi(tmp_path, image, 0.5, restarts=False)

    slide, reader = open_slide(str(path), reader="auto")

    reader.close()
    assert (reader.name, slide.width) == ("openslide", 1280)


def test_an_ndpi_file_that_is_wider_than_a_jpeg_header_can_say_is_no_damaged_tiff(
    tmp_path: Path, image: Pixels
) -> None:
    wide = np.tile(image[:64, :1024], (1, 64, 1))
    wide[:, ::3] //= 2
    path = write_ndpi(tmp_path, wide, 0.5)

    slide, reader = open_slide(str(path), reader="auto")

    shown = reader.read(slide.levels[0], 65_000, 0, 536, 64)
    reader.close()
    assert (reader.name, slide.width) == ("openslide", 65_536)
    assert np.abs(shown.astype(int) - wide[:, 65_000:]).mean() < 6
