"""Slides are read from real files, written here, of which every pixel is known."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.fake_slides import damage_block, noise, omit_block, write_tiff
from hypothesis import given, settings
from hypothesis import strategies as st

from histo.errors import Cause, ReadError, SlideError
from histo.resample import Pixels
from histo.slides.readers.openslide import OpenSlideReader, on_white
from histo.slides.slide import Slide, _levels, open_slide

laws = settings(max_examples=40)
WIDTH, HEIGHT, MARGIN = 480, 320, 60
FULL, HALF = noise(WIDTH, HEIGHT, seed=1), noise(WIDTH // 2, HEIGHT // 2, seed=2)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Slide, OpenSlideReader]:
    """An open slide of two levels, `FULL` and `HALF`."""
    return open_slide(write_tiff(tmp_path_factory.mktemp("slides") / "pyramid.tif", [FULL, HALF]))


def framed(pixels: Pixels) -> Pixels:
    """Put a white margin around an array."""
    return np.pad(pixels, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=255)


def failure(path: str | Path, mpp_if_missing: float | None = None) -> SlideError:
    with pytest.raises(SlideError) as caught:
        open_slide(str(path), mpp_if_missing)
    return caught.value


def test_a_slide_describes_its_levels(pyramid: tuple[Slide, OpenSlideReader]) -> None:
    slide, _ = pyramid

    assert (slide.width, slide.height) == (WIDTH, HEIGHT)
    assert [(level.width, level.height, level.downsample) for level in slide.levels] == [(480, 320, 1), (240, 160, 2)]
    assert slide.vendor == "generic-tiff"
    assert slide.quickhash


def test_a_level_knows_the_size_of_its_file_blocks(pyramid: tuple[Slide, OpenSlideReader]) -> None:
    slide, _ = pyramid

    assert [(level.block_width, level.block_height) for level in slide.levels] == [(64, 64), (64, 64)]


def test_the_resolution_is_that_of_the_metadata(pyramid: tuple[Slide, OpenSlideReader]) -> None:
    slide, _ = pyramid

    assert (slide.mpp_x, slide.mpp_y) == pytest.approx((0.25, 0.25))
    assert slide.mpp_source == "metadata"


@laws
@given(st.integers(0, 1), st.integers(-60, 250), st.integers(-60, 170), st.integers(1, 50), st.integers(1, 50))
def test_each_pixel_is_the_one_that_was_written_and_white_beyond_the_edge(
    pyramid: tuple[Slide, OpenSlideReader], level: int, x: int, y: int, width: int, height: int
) -> None:
    slide, reader = pyramid
    expected = framed((FULL, HALF)[level])[y + MARGIN : y + MARGIN + height, x + MARGIN : x + MARGIN + width]

    pixels = reader.read(slide.levels[level], x, y, width, height)

    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize(("x", "y"), [(-100, 0), (0, -100), (WIDTH, 0), (0, HEIGHT), (10**6, 10**6)])
def test_what_lies_wholly_outside_is_white(pyramid: tuple[Slide, OpenSlideReader], x: int, y: int) -> None:
    slide, reader = pyramid

    pixels = reader.read(slide.levels[0], x, y, 30, 20)

    assert pixels.shape == (20, 30, 3)
    assert (pixels == 255).all()


def test_a_block_that_was_never_written_is_an_error_where_nothing_shows_that_it_is_glass(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "sparse.tif", [FULL])
    omit_block(path, level=0, block=0)
    slide, reader = open_slide(path)

    with pytest.raises(ReadError, match=r"level 0 at \(63, 10\): the file has no data for a block"):
        reader.read(slide.levels[0], 63, 10, 5, 5)

    assert np.array_equal(reader.read(slide.levels[0], 64, 0, 64, 64), FULL[:64, 64:128])


def test_transparency_is_laid_on_white() -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 200, 51]]], np.uint8)

    assert on_white(rgba).tolist() == [[[10, 20, 30], [255, 255, 255], [204, 224, 244]]]


def test_a_damaged_block_fails_and_all_others_are_read(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "damaged.tif", [FULL])
    damage_block(path, level=0, block=9)  # of 8 x 5 blocks of 64 pixels: column 1, row 1
    slide, reader = open_slide(path)

    outcomes = {}
    for x, y in [(0, 0), (64, 64), (128, 64), (100, 100), (64, 128), (0, 64), (64, 0)]:
        try:
            outcomes[x, y] = np.array_equal(reader.read(slide.levels[0], x, y, 40, 40), FULL[y : y + 40, x : x + 40])
        except ReadError:
            outcomes[x, y] = False

    assert [place for place, read in outcomes.items() if not read] == [(64, 64), (100, 100)]


def test_a_damaged_block_is_named_by_level_and_place(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "damaged.tif", [FULL, HALF])
    damage_block(path, level=1, block=0)
    slide, reader = open_slide(path)

    with pytest.raises(ReadError, match=r"level 1 at \(7, 5\): "):
        reader.read(slide.levels[1], 7, 5, 20, 20)

    assert np.array_equal(reader.read(slide.levels[0], 7, 5, 20, 20), FULL[5:25, 7:27])


@pytest.mark.realdata
def test_an_unreadable_slide_opens_and_fails_at_every_read(shared: Path) -> None:
    reader = OpenSlideReader(str(shared / "slides" / "bad" / "unreadable.svs"))
    level = _levels(((16, 16),), (1.0,))[0]

    with pytest.raises(ReadError) as first:
        reader.read(level, 0, 0, 16, 16)
    with pytest.raises(ReadError) as second:
        reader.read(level, 0, 0, 16, 16)

    assert str(first.value) == str(second.value)


@pytest.mark.parametrize(
    ("sizes", "downsamples", "snapped"),
    [
        (((4443, 3567), (2221, 1783)), (1.0, 2.000506), [1, 2]),
        (((46000, 32914), (11500, 8228), (2875, 2057)), (1.0, 4.000122, 16.000486), [1, 4, 16]),
        (((1000, 1000), (1000, 1000)), (1.0, 1.0), [1, 1]),
    ],
)
def test_a_downsample_that_rounding_has_blurred_is_put_back_to_its_integer(
    sizes: tuple[tuple[int, int], ...], downsamples: tuple[float, ...], snapped: list[int]
) -> None:
    assert [level.downsample for level in _levels(sizes, downsamples)] == snapped


@pytest.mark.parametrize(
    ("sizes", "downsamples"),
    [
        (((3000, 3000), (2000, 2000), (1490, 1490)), (1.0, 1.5, 2.0134228)),
        (((4000, 3000), (2000, 1400)), (1.0, 2.0714286)),
        (((4000, 3000), (1900, 1500)), (1.0, 2.0526316)),
    ],
)
def test_a_downsample_that_is_no_integer_along_both_axes_stays_as_it_is(
    sizes: tuple[tuple[int, int], ...], downsamples: tuple[float, ...]
) -> None:
    assert tuple(level.downsample for level in _levels(sizes, downsamples)) == downsamples


def test_a_pyramid_of_odd_sizes_has_an_integer_downsample(tmp_path: Path) -> None:
    slide, _ = open_slide(write_tiff(tmp_path / "odd.tif", [noise(443, 357), noise(221, 178)]))

    assert [level.downsample for level in slide.levels] == [1, 2]


def test_a_slide_without_resolution_says_how_to_give_one(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "s.tif", [FULL], mpp=None)

    error = failure(path)

    assert error.cause is Cause.NO_MPP
    assert str(error).startswith(f"{path}: ")
    assert "--mpp-if-missing" in str(error)


def test_a_missing_resolution_is_filled_in(tmp_path: Path) -> None:
    slide, _ = open_slide(write_tiff(tmp_path / "s.tif", [FULL], mpp=None), mpp_if_missing=0.3)

    assert (slide.mpp_x, slide.mpp_y, slide.mpp_source) == (0.3, 0.3, "if_missing")


def test_a_known_resolution_is_not_replaced(tmp_path: Path) -> None:
    slide, _ = open_slide(write_tiff(tmp_path / "s.tif", [FULL], mpp=0.5), mpp_if_missing=0.3)

    assert (slide.mpp_x, slide.mpp_source) == (pytest.approx(0.5), "metadata")


@pytest.mark.parametrize("named", [0.5, 352.8, None])
def test_a_resolution_that_is_given_for_every_slide_is_its_own(tmp_path: Path, named: float | None) -> None:
    path = write_tiff(tmp_path / "s.tif", [FULL], mpp=named)

    slide, _ = open_slide(path, mpp_if_missing=0.3, mpp_override=0.26)

    assert (slide.mpp_x, slide.mpp_y, slide.mpp_source) == (0.26, 0.26, "override")


@pytest.mark.parametrize(
    ("size", "mpp_x"),
    [
        ('PhysicalSizeX="0.26" PhysicalSizeY="0.27"', 0.26),
        ('PhysicalSizeX="0.26" PhysicalSizeXUnit="µm" PhysicalSizeY="0.27" PhysicalSizeYUnit="&#181;m"', 0.26),
        ('PhysicalSizeX="260" PhysicalSizeXUnit="nm" PhysicalSizeY="2.7e-4" PhysicalSizeYUnit="mm"', 0.26),
        ('PhysicalSizeX="0.26" PhysicalSizeXUnit="pixel" PhysicalSizeY="0.27"', 0.5),
        ('PhysicalSizeX="0.26"', 0.5),
        ('PhysicalSizeX="0" PhysicalSizeY="0"', 0.5),
    ],
)
def test_the_physical_size_of_a_pixel_of_an_ome_tiff_counts_before_its_tags(
    tmp_path: Path, size: str, mpp_x: float
) -> None:
    text = f'<?xml version="1.0"?><OME><Image ID="0"><Pixels SizeX="8" {size} SizeY="8"/></Image></OME>'
    path = write_tiff(tmp_path / "s.ome.tif", [FULL], mpp=0.5, description=text.encode())

    slide, _ = open_slide(path)

    assert slide.mpp_x == pytest.approx(mpp_x)
    assert slide.mpp_y == pytest.approx(0.27 if mpp_x == 0.26 else 0.5)


@pytest.mark.parametrize("mpp", [0.01, 25.4, 352.8])
def test_a_resolution_that_no_scanner_has_is_refused(tmp_path: Path, mpp: float) -> None:
    error = failure(write_tiff(tmp_path / "s.tif", [FULL], mpp=mpp))

    assert error.cause is Cause.IMPLAUSIBLE_MPP
    assert f"{mpp:g} x {mpp:g} µm/px (metadata)" in str(error)
    assert "--mpp-override" in str(error)


def test_a_resolution_that_no_scanner_has_is_refused_as_an_override(tmp_path: Path) -> None:
    error = failure(write_tiff(tmp_path / "s.tif", [FULL], mpp=None), mpp_if_missing=250)

    assert error.cause is Cause.IMPLAUSIBLE_MPP


@pytest.mark.parametrize("content", [b"", b"this is text", b"II*\x00" + bytes(100)])
def test_a_file_that_is_no_slide_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.svs"
    path.write_bytes(content)

    error = failure(path)

    assert error.cause is Cause.NOT_A_SLIDE
    assert str(error).startswith(f"{path}: ")


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    assert failure(tmp_path / "gone.svs").cause is Cause.NOT_A_SLIDE


def test_an_error_of_a_slide_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(SlideError(Cause.NO_MPP, "s.svs: no resolution")))

    assert (error.cause, str(error)) == (Cause.NO_MPP, "s.svs: no resolution")


def test_a_level_that_openslide_interpolates_is_not_exact(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", [noise(1003, 803), noise(501, 401)])

    slide, reader = open_slide(path)

    reader.close()
    assert [(level.downsample, level.exact) for level in slide.levels] == [(1.0, True), (2.0, False)]


def test_an_implausible_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    assert "correct --mpp-if-missing" in str(failure(write_tiff(tmp_path / "a.tif", [noise(64, 64)], mpp=None), 250))
