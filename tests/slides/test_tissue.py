"""The mask finds what a pathologist calls tissue, and `fraction` measures it exactly."""

from collections.abc import Iterator
from itertools import product
from math import ceil

import numpy as np
import numpy.typing as npt
import pytest
from helpers.fake_slides import FakeReader, array_slide, fake_slide
from hypothesis import given, settings
from hypothesis import strategies as st

from histo.errors import Cause, SlideError
from histo.resample import Pixels
from histo.slides.slide import Level
from histo.slides.tissue import WINDOW_PX, Mask, TissueMask, _windows, find_tissue, glass_colour, read_thumbnail

laws = settings(max_examples=50)
edges = st.integers(0, 100)
Colour = tuple[int, int, int]

EOSIN = (225, 150, 190)
HAEMATOXYLIN = (110, 70, 150)
GLASS: dict[str, Colour] = {
    "white": (255, 255, 255),
    "usual": (245, 244, 246),
    "grey": (200, 200, 200),
    "tinted": (240, 236, 228),
}
PENS: dict[str, Colour] = {"blue": (30, 60, 160), "green": (40, 140, 70), "red": (200, 40, 30), "black": (25, 25, 28)}

glasses = pytest.mark.parametrize("glass", GLASS.values(), ids=GLASS)
pens = pytest.mark.parametrize("ink", PENS.values(), ids=PENS)


def empty(glass: Colour = GLASS["usual"], cells: tuple[int, int] = (120, 160)) -> Pixels:
    """Glass of `(height, width)` pixels, which the tests take as 8 µm each, the cells of the mask."""
    return np.full((*cells, 3), glass, np.uint8)


def tissue_of(pixels: Pixels, mpp: float = 8.0, exclude_ink: bool = True) -> Mask:
    slide, reader = array_slide(pixels, mpp)
    return find_tissue(reader, slide, exclude_ink=exclude_ink).mask


def stroke(pixels: Pixels, ink: Colour, width: float) -> Pixels:
    """Draw a slanted line across, with soft edges."""
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    distance = np.abs((y - pixels.shape[0] / 2) - 0.6 * (x - pixels.shape[1] / 2)) / np.hypot(1, 0.6)
    share = np.clip(width / 2 - distance, 0, 1)[..., None]
    return np.round(pixels * (1 - share) + np.array(ink) * share).astype(np.uint8)


@st.composite
def masks(draw: st.DrawFn) -> TissueMask:
    """A small mask, whose cells are quarters of level-0 pixels."""
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    cells = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).random((height, width)) < 0.5
    return TissueMask(cells, draw(st.integers(1, 12)) / 4, draw(st.integers(1, 12)) / 4)


def quarter_pixels(mask: TissueMask) -> npt.NDArray[np.float64]:
    """The mask on a canvas of quarters of level-0 pixels, with glass far beyond it."""
    canvas = np.zeros((200, 200))
    fine = np.kron(mask.mask, np.ones((round(4 * mask.cell_height), round(4 * mask.cell_width))))
    canvas[: fine.shape[0], : fine.shape[1]] = fine
    return canvas


@laws
@given(masks(), st.lists(edges, min_size=1, max_size=5), edges, st.integers(1, 99), st.integers(1, 99))
def test_the_fraction_is_what_counting_gives(
    mask: TissueMask, lefts: list[int], top: int, width: int, height: int
) -> None:
    canvas = quarter_pixels(mask)
    counted = [canvas[top : top + height, left : left + width].mean() for left in lefts]

    fraction = mask.fraction(np.array(lefts) / 4, top / 4, width / 4, height / 4)

    assert np.allclose(fraction, counted, atol=1e-9)


def test_what_hangs_over_the_slide_counts_as_glass() -> None:
    mask = TissueMask(np.ones((4, 4), np.bool_), 10, 10)

    fraction = mask.fraction(np.array([0.0, 20, 30, 40]), 0, 20, 20)

    assert fraction.tolist() == [1, 1, 0.5, 0]
    assert mask.fraction(np.array([30.0]), 30, 20, 20) == 0.25


def test_the_area_is_that_of_the_cells() -> None:
    mask = TissueMask(np.array([[True, False], [True, True]]), cell_width=16, cell_height=32)

    assert mask.area_um2(0.5, 0.25) == 3 * (16 * 0.5) * (32 * 0.25)


@glasses
@pytest.mark.parametrize("stain", [EOSIN, HAEMATOXYLIN], ids=["eosin", "haematoxylin"])
def test_stained_tissue_is_found_on_any_glass(glass: Colour, stain: Colour) -> None:
    pixels = empty(glass)
    pixels[30:90, 40:110] = np.array(stain) * (np.array(glass) / 255)

    mask = tissue_of(pixels)

    assert mask[32:88, 42:108].all()
    assert mask.sum() == pytest.approx(60 * 70, rel=0.03)
    assert not mask[:28].any()
    assert not mask[:, :38].any()


def test_pale_tissue_is_found() -> None:
    pixels = empty((245, 245, 245))
    pixels[30:90, 40:110] = (235, 215, 228)

    mask = tissue_of(pixels)

    assert mask.sum() == pytest.approx(60 * 70, rel=0.03)


@glasses
def test_noisy_glass_holds_no_tissue(glass: Colour) -> None:
    random = np.random.default_rng(3)
    pixels = np.clip(empty(glass) + random.normal(0, 4, (120, 160, 3)), 0, 255).astype(np.uint8)

    assert not tissue_of(pixels).any()


@glasses
def test_the_colour_of_glass_is_measured(glass: Colour) -> None:
    pixels = empty(glass)
    pixels[:100] = EOSIN

    assert tuple(glass_colour(pixels)) == glass


def test_without_glass_it_is_taken_as_white() -> None:
    assert tuple(glass_colour(empty(EOSIN))) == (255, 255, 255)


@pytest.mark.parametrize("stain", [EOSIN, HAEMATOXYLIN], ids=["eosin", "haematoxylin"])
def test_a_slide_may_be_tissue_all_over(stain: Colour) -> None:
    random = np.random.default_rng(5)
    pixels = (np.array(stain) + random.normal(0, 6, (120, 160, 3))).astype(np.uint8)

    assert tissue_of(pixels).all()


@glasses
def test_a_black_border_of_the_scanner_is_not_tissue(glass: Colour) -> None:
    pixels = empty(glass)
    pixels[:, :20] = pixels[-15:] = 0

    assert not tissue_of(pixels).any()


def test_a_large_black_border_does_not_hide_the_tissue() -> None:
    pixels = np.zeros((200, 200, 3), np.uint8)
    pixels[60:140, 60:140] = GLASS["grey"]
    pixels[80:120, 80:120] = np.array(EOSIN) * (200 / 255)

    mask = tissue_of(pixels)

    assert mask.sum() == pytest.approx(40 * 40, rel=0.03)
    assert mask[82:118, 82:118].all()


@glasses
@pens
def test_the_stroke_of_a_pen_is_not_tissue(glass: Colour, ink: Colour) -> None:
    pixels = stroke(empty(glass, cells=(480, 640)), ink, width=120)

    assert not tissue_of(pixels, mpp=2.0).any()


@pens
def test_tissue_beside_the_stroke_of_a_pen_is_kept(ink: Colour) -> None:
    pixels = empty(cells=(480, 640))
    pixels[40:440, 40:600] = EOSIN

    mask = tissue_of(stroke(pixels, ink, width=120), mpp=2.0)

    assert mask[85:105, 15:60].all()
    assert not mask[55:65, 75:85].any()


def test_a_stain_that_looks_like_ink_is_kept_where_ink_is_not_excluded() -> None:
    pixels = empty()
    pixels[30:90, 40:110] = (120, 70, 40)

    with_ink, without_ink = (tissue_of(pixels, exclude_ink=exclude) for exclude in (False, True))

    assert with_ink.sum() == pytest.approx(60 * 70, rel=0.03)
    assert not without_ink.any()


def test_fat_is_tissue_though_its_cells_are_empty() -> None:
    y, x = np.mgrid[:480, :640]
    membrane = (x % 34 < 4) | (y % 34 < 4)  # holes of 60 µm, walls of 8 µm, at 2 µm per pixel
    inside = (x >= 3 * 34) & (x < 16 * 34 + 4) & (y >= 2 * 34) & (y < 12 * 34 + 4)
    pixels = np.where((membrane & inside)[..., None], EOSIN, GLASS["usual"]).astype(np.uint8)

    mask = tissue_of(pixels, mpp=2.0)

    assert mask[20:100, 30:134].all()
    assert mask.sum() == pytest.approx(inside.sum() / 16, rel=0.05)


def test_dust_and_fibres_are_not_tissue() -> None:
    pixels = empty()
    pixels[20:80:25, 20:150:25] = HAEMATOXYLIN
    pixels[100:103, 10:150] = HAEMATOXYLIN  # 24 µm wide

    assert not tissue_of(pixels).any()


def test_the_mask_lies_where_the_tissue_is() -> None:
    pixels = empty(cells=(400, 700))
    pixels[96:256, 320:600] = EOSIN

    slide, reader = array_slide(pixels, mpp=1.0)
    mask = find_tissue(reader, slide)

    assert (mask.mask.shape, mask.cell_width, mask.cell_height) == ((50, 88), 8, 8)
    assert mask.fraction(np.array([320.0]), 96, 280, 160) > 0.98
    assert mask.fraction(np.array([0.0, 640]), 0, 60, 400).max() == 0


@pytest.mark.parametrize(("mpp", "shape"), [((0.5, 0.25), (38, 100)), ((0.25, 0.5), (75, 50))])
def test_cells_have_the_same_length_along_both_axes(mpp: tuple[float, float], shape: tuple[int, int]) -> None:
    slide, reader = array_slide(empty(cells=(1200, 1600)), mpp)

    thumbnail = read_thumbnail(reader, slide, 8.0)

    assert thumbnail.pixels.shape[:2] == shape
    assert (thumbnail.cell_width * mpp[0], thumbnail.cell_height * mpp[1]) == (8, 8)


def test_the_mask_is_read_from_the_coarsest_level_that_is_fine_enough() -> None:
    slide = fake_slide(6400, 4800, (1, 4, 16, 64), mpp=0.25)
    reader = FakeReader(lambda level, *_: np.full((1, 1, 3), 60 * level))

    thumbnail = read_thumbnail(reader, slide, 8.0)

    assert (thumbnail.pixels == 2 * 60).all()
    assert (thumbnail.pixels.shape, thumbnail.cell_width) == ((150, 200, 3), 32)


def test_memory_is_bounded_however_large_the_slide_is() -> None:
    slide, reader = fake_slide(5000, 4500), FakeReader(lambda *_: np.full((1, 1, 3), 245))

    mask = find_tissue(reader, slide)

    assert mask.mask.shape == (141, 157)
    assert max(reader.areas) <= WINDOW_PX**2
    assert sum(reader.areas) <= 1.02 * 5000 * 4500


def test_a_cell_is_never_larger_than_a_window() -> None:
    slide, reader = fake_slide(6000, 3000), FakeReader(lambda *_: np.full((1, 1, 3), 245))

    thumbnail = read_thumbnail(reader, slide, mpp=0.25 * 5000)

    assert (thumbnail.pixels.shape, thumbnail.cell_width) == ((2, 3, 3), WINDOW_PX)
    assert max(reader.areas) <= WINDOW_PX**2


@pytest.mark.parametrize(("width", "height"), [(2**18, 2**18 + 32), (2**26 * 32 + 1, 1)])
def test_a_mask_that_is_too_large_is_refused_before_anything_is_read(width: int, height: int) -> None:
    reader = FakeReader(lambda *_: np.full((1, 1, 3), 245))

    with pytest.raises(SlideError, match=rf"its {width} x {height} px need .* raise --tissue\.mpp") as caught:
        find_tissue(reader, fake_slide(width, height))

    assert caught.value.cause is Cause.MASK_TOO_LARGE
    assert reader.areas == []


def cells_of_windows(level: Level, ratio_x: int, ratio_y: int) -> Iterator[tuple[int, int]]:
    for columns, rows in _windows(level, ratio_x, ratio_y):
        yield from product(
            range(columns.start, columns.start + columns.count), range(rows.start, rows.start + rows.count)
        )


@laws
@given(st.integers(1, 40000), st.integers(1, 30000), st.integers(100, 1024), st.integers(100, 1024))
def test_windows_hold_each_cell_once(width: int, height: int, ratio_x: int, ratio_y: int) -> None:
    cells = list(cells_of_windows(Level(0, width, height, 1.0), ratio_x, ratio_y))

    assert sorted(cells) == list(product(range(ceil(width / ratio_x)), range(ceil(height / ratio_y))))


@laws
@given(st.integers(1, 200_000), st.integers(1, 200_000), st.integers(8, WINDOW_PX), st.integers(8, WINDOW_PX))
def test_no_window_reads_more_than_its_bound(width: int, height: int, ratio_x: int, ratio_y: int) -> None:
    for columns, rows in _windows(Level(0, width, height, 1.0), ratio_x, ratio_y):
        assert columns.count * ratio_x <= WINDOW_PX
        assert rows.count * ratio_y <= WINDOW_PX


@pytest.mark.parametrize("ink", [(200, 30, 40), (180, 40, 60), (150, 75, 85), (30, 40, 130), (20, 30, 90)])
@pytest.mark.parametrize("width", [3, 30])
def test_inks_that_resemble_a_stain_and_thin_strokes_are_not_tissue(ink: Colour, width: float) -> None:
    assert not tissue_of(stroke(empty(), ink, width)).any()
