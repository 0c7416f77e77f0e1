"""The direct reader shows what OpenSlide shows, whatever the file's coding."""

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.coded_slides import FORMATS, RGB, YCBCR, Format, jpeg, lossless_jpeg, scenery, write_coded
from hypothesis import given, settings
from hypothesis import strategies as st

from histo.errors import ReadError
from histo.resample import Pixels
from histo.slides.readers.base import Reader
from histo.slides.readers.tiff import DirectReader
from histo.slides.slide import Slide, open_slide

laws = settings(max_examples=60)
Opened = tuple[Slide, Reader, Reader]
LEVELS = [scenery(332, 276), scenery(166, 138, step=2), scenery(83, 69, step=4)]


def opened(path: str) -> Opened:
    slide, reference = open_slide(path, mpp_if_missing=0.5)
    _, direct = open_slide(path, mpp_if_missing=0.5, reader="direct")
    return slide, direct, reference


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """A slide of three levels whose blocks do not fill it, read directly and by OpenSlide."""
    slide, direct, reference = opened(write_coded(tmp_path_factory.mktemp("slides") / "a.tif", LEVELS))
    yield slide, direct, reference
    direct.close()
    reference.close()


@pytest.mark.parametrize("name", FORMATS)
def test_each_coding_gives_openslides_pixels(tmp_path: Path, name: str) -> None:
    slide, direct, reference = opened(write_coded(tmp_path / "a.tif", LEVELS[:1], FORMATS[name]))

    ours, theirs = (reader.read(slide.levels[0], -9, -7, 350, 300).astype(int) for reader in (direct, reference))

    direct.close()
    assert np.array_equal(ours, theirs)
    assert np.abs(ours[7:283, 9:341] - LEVELS[0]).mean() < 4


@pytest.mark.slow
@pytest.mark.realdata
def test_every_pixel_of_a_real_jpeg_2000_slide_is_openslides(shared: Path) -> None:
    slide, direct, reference = opened(str(shared / "slides" / "tcga-cr-7395-01a-01-ts1.svs"))

    for level in slide.levels:
        ours, theirs = (reader.read(level, 0, 0, level.width, level.height) for reader in (direct, reference))
        assert np.array_equal(ours, theirs)

    direct.close()
    reference.close()


@pytest.mark.parametrize("colours", [RGB, YCBCR])
@pytest.mark.parametrize("adobe_rgb", [True, False])
def test_markers_behind_fill_bytes_do_not_change_colours(tmp_path: Path, colours: int, adobe_rgb: bool) -> None:
    jfif = b"\xff\xff\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"

    def encode(block: Pixels) -> bytes:
        data = jpeg(adobe_rgb=adobe_rgb)(block)
        return data[:2] + b"\xff\xff\xfe\x00\x03." + jfif + b"\xff" + data[2:]

    slide, direct, reference = opened(write_coded(tmp_path / "a.tif", LEVELS[:1], Format(encode, colours)))

    ours, theirs = (reader.read(slide.levels[0], 0, 0, 332, 276) for reader in (direct, reference))

    assert np.array_equal(ours, theirs)


@laws
@given(st.integers(0, 2), st.integers(-80, 340), st.integers(-80, 300), st.integers(1, 200), st.integers(1, 200))
def test_any_rectangle_is_openslides(pyramid: Opened, level: int, x: int, y: int, width: int, height: int) -> None:
    slide, direct, reference = pyramid

    ours, theirs = (reader.read(slide.levels[level], x, y, width, height) for reader in (direct, reference))

    assert ours.shape == (height, width, 3)
    assert np.array_equal(ours, theirs)


def with_one_lossless_block(path: Path, levels: list[Pixels]) -> str:
    """Write a slide with a flat block in each level that no probe looks at, coded as OpenSlide alone reads it."""

    def encode(block: Pixels) -> bytes:
        return lossless_jpeg(block) if np.ptp(block) == 0 else jpeg(adobe_rgb=True)(block)

    return write_coded(path, [with_flat_block(level) for level in levels], Format(encode, RGB))


def with_flat_block(level: Pixels) -> Pixels:
    level = level.copy()
    level[64:128, 64:128] = 77
    return level


def test_a_single_block_of_another_coding_is_read_by_openslide(tmp_path: Path) -> None:
    slide, direct, reference = opened(with_one_lossless_block(tmp_path / "a.tif", LEVELS[:1]))

    ours, theirs = (reader.read(slide.levels[0], -5, -5, 350, 300) for reader in (direct, reference))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: direct.read(slide.levels[0], x, 60, 60, 60), range(0, 200, 5)))

    assert direct.name == "direct"
    assert np.array_equal(ours, theirs)
    assert all(
        np.array_equal(pixels, ours[65:125, x + 5 : x + 65])
        for x, pixels in zip(range(0, 200, 5), together, strict=True)
    )
    direct.close()


def test_such_a_block_cannot_be_read_on_a_level_that_openslide_interpolates(tmp_path: Path) -> None:
    levels = [scenery(1003, 803), scenery(501, 401, step=2)]
    slide, direct, _ = opened(with_one_lossless_block(tmp_path / "a.tif", levels))

    with pytest.raises(ReadError, match=r"level 1 at \(64, 64\): the block is JPEG of process 3 .*; use --reader open"):
        direct.read(slide.levels[1], 70, 70, 5, 5)

    assert direct.read(slide.levels[1], 0, 0, 64, 64).any()


def test_threads_share_a_reader(pyramid: Opened) -> None:
    slide, direct, _ = pyramid
    places = [(x, y) for x in range(0, 330, 30) for y in range(0, 270, 30)] * 3

    def read(place: tuple[int, int]) -> bytes:
        return direct.read(slide.levels[0], *place, 60, 60).tobytes()

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(read, places))

    assert together == [read(place) for place in places]


def test_a_reader_does_not_travel_to_another_process(pyramid: Opened) -> None:
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(pyramid[1])


def test_a_worker_opens_the_recorded_levels_without_openslide(pyramid: Opened) -> None:
    slide, direct, _ = pyramid

    again = DirectReader(slide.path, slide.levels)

    assert np.array_equal(again.read(slide.levels[1], 5, 6, 70, 80), direct.read(slide.levels[1], 5, 6, 70, 80))
    again.close()


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "tcga-cr-7395-01a-01-ts1.svs"])
def test_real_slides_have_openslides_pixels(shared: Path, name: str) -> None:
    path = str(shared / "slides" / name)
    slide, reference = open_slide(path, mpp_if_missing=0.25)
    _, direct = open_slide(path, mpp_if_missing=0.25, reader="direct")

    most = 0
    for y in range(-100, slide.height, 900):
        ours, theirs = (r.read(slide.levels[0], -50, y, slide.width + 100, 700) for r in (direct, reference))
        most = max(most, int(np.abs(ours.astype(np.int16) - theirs).max()))

    direct.close()
    reference.close()
    assert most <= 2
