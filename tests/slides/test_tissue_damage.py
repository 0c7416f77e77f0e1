"""What cannot be decoded under the thumbnail counts as tissue, and costs a bounded number of reads."""

from math import ceil

import numpy as np
import pytest
from helpers.fake_slides import DamagedReader, array_slide, fake_slide
from hypothesis import given, settings
from hypothesis import strategies as st

from histo.errors import ReadError
from histo.resample import Pixels, Window
from histo.slides.tissue import LEAF_PX, MOST_FAILURES, Thumbnail, _split, find_tissue, read_thumbnail, stained

laws = settings(max_examples=50)
GLASS, EOSIN, PEN = (245, 244, 246), (225, 150, 190), (30, 60, 160)
Damage = list[tuple[int, int, int, int]]
damages = st.lists(
    st.tuples(st.integers(0, 600), st.integers(0, 400), st.integers(1, 150), st.integers(1, 100)), max_size=3
)


def blotches(seed: int) -> Pixels:
    """Blotches of tissue and ink on glass, of 48 px each, `(480, 720, 3)`."""
    kinds = np.random.default_rng(seed).choice(3, (10, 15), p=[0.6, 0.3, 0.1])
    kinds[0] = 0
    return np.array([GLASS, EOSIN, PEN], np.uint8)[kinds].repeat(48, axis=0).repeat(48, axis=1)


@pytest.mark.slow
@laws
@given(st.integers(0, 1000), damages, st.booleans())
def test_damage_never_makes_the_mask_smaller(seed: int, damage: Damage, exclude_ink: bool) -> None:
    pixels = blotches(seed)

    whole, damaged = (
        find_tissue(reader, slide, exclude_ink=exclude_ink).mask
        for slide, reader in (array_slide(pixels, 2.0), array_slide(pixels, 2.0, damage))
    )

    assert (damaged >= whole).all()


@pytest.mark.slow
@laws
@given(st.integers(0, 1000), damages)
def test_what_is_unknown_holds_the_damage_and_at_most_a_leaf_around_it(seed: int, damage: Damage) -> None:
    pixels = blotches(seed)
    slide, reader = array_slide(pixels, 2.0, damage)
    near, touched = np.zeros((2, *pixels.shape[:2]), np.bool_)
    for left, top, width, height in damage:
        touched[top : top + height, left : left + width] = True
        near[max(0, top - LEAF_PX) : top + height + LEAF_PX, max(0, left - LEAF_PX) : left + width + LEAF_PX] = True

    thumbnail = read_thumbnail(reader, slide, 8.0)

    unknown = thumbnail.unknown.repeat(4, axis=0).repeat(4, axis=1)
    known = ~thumbnail.unknown
    assert (unknown >= touched).all()
    assert (unknown <= near).all()
    assert np.array_equal(thumbnail.pixels[known], read_thumbnail(*array_slide(pixels, 2.0)[::-1], 8.0).pixels[known])


@laws
@given(st.integers(0, 9999), st.integers(1, 200), st.integers(1, 200), st.integers(1, 300), st.integers(1, 300))
def test_the_parts_of_a_window_hold_each_cell_once_and_a_leaf_has_none(
    start: int, across: int, down: int, ratio_x: int, ratio_y: int
) -> None:
    columns, rows = Window(start, across, ratio_x), Window(start, down, ratio_y)
    cells = np.zeros((down, across), np.int64)

    parts = _split(columns, rows)

    for x, y in parts:
        cells[y.start - start : y.start - start + y.count, x.start - start : x.start - start + x.count] += 1
    is_leaf = all(window.count == 1 or window.count * window.ratio <= LEAF_PX for window in (columns, rows))
    assert (cells == (0 if is_leaf else 1)).all()
    assert len(parts) in (0, 2, 4)


@pytest.mark.slow
def test_a_damaged_block_costs_few_reads() -> None:
    slide = fake_slide(20_000, 20_000)
    reader = DamagedReader(lambda *_: np.full((1, 1, 3), 245), [(10_240, 10_240, 256, 256)])

    thumbnail = read_thumbnail(reader, slide, 8.0)

    assert thumbnail.unknown.sum() == (256 // 32) ** 2
    assert reader.failures == 4 + 4  # windows of 2048, 1024, 512 and 256 px, then four leaves


def test_unknown_places_are_tissue_even_under_the_stroke_of_a_pen() -> None:
    pixels = np.full((480, 640, 3), GLASS, np.uint8)
    pixels[200:320] = PEN
    slide, reader = array_slide(pixels, 2.0, [(300, 240, 20, 20)])

    mask = find_tissue(reader, slide).mask

    assert mask[60:65, 75:80].all()
    assert mask.sum() <= ceil(LEAF_PX / 4) ** 2


def test_unknown_places_take_no_part_in_the_colour_of_the_glass() -> None:
    pixels = np.full((40, 40, 3), (200, 200, 200), np.uint8)
    pixels[:10] = np.array(EOSIN) * (200 / 255)
    pixels[20:] = 255
    unknown = np.zeros((40, 40), np.bool_)
    unknown[20:] = True

    (tissue, ink), (open_tissue, _) = (stained(Thumbnail(pixels[:stop], unknown[:stop], 1, 1)) for stop in (None, 20))

    assert np.array_equal(tissue[:20], open_tissue)
    assert tissue[:10].all()
    assert not tissue[10:].any()
    assert not ink.any()


def test_a_slide_of_which_nothing_can_be_decoded_is_an_error() -> None:
    slide, reader = array_slide(blotches(0), 2.0, [(0, 0, 720, 480)])

    with pytest.raises(ReadError, match="damaged"):
        find_tissue(reader, slide)


def test_the_number_of_failed_reads_is_bounded() -> None:
    slide = fake_slide(40_000, 40_000)
    reader = DamagedReader(lambda *_: np.full((1, 1, 3), 245), [(0, 2048, 40_000, 40_000)])

    with pytest.raises(ReadError, match="damaged"):
        find_tissue(reader, slide)

    assert reader.failures == MOST_FAILURES + 1
