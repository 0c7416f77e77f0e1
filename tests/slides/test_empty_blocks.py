"""An empty file block is white where a coarser level shows no tissue, and damage elsewhere, through any reader."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.coded_slides import APERIO, FORMATS, block_at, overwrite, write_coded
from helpers.fake_slides import omit_block, write_tiff
from hypothesis import given, settings
from hypothesis import strategies as st

from histo.errors import ReadError, SlideError
from histo.resample import Pixels, block_means
from histo.slides.empty_blocks import judge
from histo.slides.plan import SlidePlan, plan_slide
from histo.slides.readers.base import Level, pack_blocks
from histo.slides.slide import open_reader, open_slide
from histo.slides.spec import ReaderChoice, TilingSpec, TissueSpec
from histo.slides.tiles import read_tiles
from histo.slides.tissue import read_thumbnail

EDGE, ACROSS = 64, 16
"""Of a file block, pixels; file blocks of level 0 along each axis."""
GLASS, EOSIN = (245, 244, 246), (225, 150, 190)
IN_TISSUE, IN_GLASS, BESIDE_TISSUE = 5 * ACROSS + 5, 13 * ACROSS + 14, 8 * ACROSS + 5
"""Blocks of level 0: tissue is in the blocks 2 to 7 along each axis, to the last pixel."""
JPEG = FORMATS["jpeg 4:2:0"]
WRITERS: dict[str, Callable[[Path, Sequence[Pixels]], str]] = {
    "JPEG": lambda path, levels: write_coded(path, levels, JPEG),
    "Aperio, JPEG": lambda path, levels: write_coded(path, levels, replace(JPEG, extra=APERIO)),
    "Aperio, JPEG 2000": lambda path, levels: write_coded(path, levels, FORMATS["Aperio, JPEG 2000"]),
    "without loss": write_tiff,
}
CHOICES: list[ReaderChoice] = ["auto", "openslide"]
any_file = pytest.mark.parametrize("writer", WRITERS)
any_reader = pytest.mark.parametrize("choice", CHOICES)
tiles_of_a_block = TilingSpec(), TissueSpec(min_fraction=0.5)


def pyramid(*downsamples: int, last: int = 8 * EDGE) -> list[Pixels]:
    """Paint tissue from the blocks (2, 2) on up to a pixel of both axes."""
    full = np.full((ACROSS * EDGE, ACROSS * EDGE, 3), GLASS, np.uint8)
    full[2 * EDGE : last, 2 * EDGE : last] = EOSIN
    full[::9, ::7] -= 3
    return [full if d == 1 else block_means(full, d, d) for d in downsamples]


def keep_place(path: str, level: int, block: int) -> None:
    """Give a block the length 0, and leave its place."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        tag = file.pages[level].tags["TileByteCounts"]
        tag.overwrite([0 if number == block else count for number, count in enumerate(tag.value)])


def planned(path: str, choice: ReaderChoice) -> tuple[SlidePlan, list[int], Pixels]:
    """Plan tiles of the size of a file block, read all of the grid as a worker does, and list those that are lost."""
    slide, reader = open_slide(path, 0.25, choice)
    plan = plan_slide(slide, reader, EDGE, 0.25, *tiles_of_a_block)
    reader.close()
    worker = open_reader(plan.slide, plan.reader)
    tiles, bad = read_tiles(worker, plan.slide, plan.sampling, plan.grid, np.arange(ACROSS**2))
    worker.close()
    return plan, np.flatnonzero(bad).tolist(), tiles


def blank(plan: SlidePlan) -> list[int]:
    """List the blocks of the level that is read that were left out on purpose."""
    return np.flatnonzero(plan.slide.levels[plan.sampling.level].blank_blocks).tolist()


@any_reader
@any_file
def test_a_block_of_glass_that_is_left_out_is_white_and_counted(
    tmp_path: Path, writer: str, choice: ReaderChoice
) -> None:
    path = WRITERS[writer](tmp_path / "a.tif", pyramid(1, 4, 16))
    whole, _, _ = planned(path, choice)
    for block in (IN_GLASS, BESIDE_TISSUE):
        omit_block(path, 0, block)

    plan, lost, tiles = planned(path, choice)

    assert (blank(plan), lost) == ([BESIDE_TISSUE, IN_GLASS], [])
    assert (tiles[[BESIDE_TISSUE, IN_GLASS]] == 255).all()
    assert plan.reader == whole.reader
    assert np.array_equal(plan.tile_index, whole.tile_index)


@any_reader
@any_file
def test_a_block_of_tissue_that_is_left_out_is_lost(tmp_path: Path, writer: str, choice: ReaderChoice) -> None:
    path = WRITERS[writer](tmp_path / "a.tif", pyramid(1, 4, 16))
    whole, _, _ = planned(path, choice)
    for block in (IN_TISSUE, IN_GLASS):
        omit_block(path, 0, block)

    plan, lost, _ = planned(path, choice)

    assert (blank(plan), lost) == ([IN_GLASS], [IN_TISSUE])
    assert set(whole.tile_index) <= set(plan.tile_index)


@any_reader
@any_file
def test_without_a_coarser_level_every_empty_block_is_lost(tmp_path: Path, writer: str, choice: ReaderChoice) -> None:
    path = WRITERS[writer](tmp_path / "a.tif", pyramid(1))
    for block in (IN_TISSUE, IN_GLASS):
        omit_block(path, 0, block)

    plan, lost, _ = planned(path, choice)

    assert (blank(plan), lost) == ([], [IN_TISSUE, IN_GLASS])
    assert set(plan.tile_index) >= {IN_TISSUE, IN_GLASS}, "what is unknown counts as tissue"


@any_reader
@any_file
def test_a_block_whose_place_is_kept_is_lost_wherever_it_is(tmp_path: Path, writer: str, choice: ReaderChoice) -> None:
    path = WRITERS[writer](tmp_path / "a.tif", pyramid(1, 4))
    keep_place(path, 0, IN_GLASS)

    plan, lost, _ = planned(path, choice)

    assert (blank(plan), lost) == ([], [IN_GLASS])


@any_reader
@any_file
def test_an_empty_block_under_the_mask_never_makes_it_smaller(
    tmp_path: Path, writer: str, choice: ReaderChoice
) -> None:
    path = WRITERS[writer](tmp_path / "a.tif", pyramid(1, 4))
    whole, _, _ = planned(path, choice)
    for block in (5, 15):  # of 4 x 4: in the tissue, and in the last corner
        omit_block(path, 1, block)

    plan, lost, _ = planned(path, choice)

    under = {
        row * ACROSS + column
        for first in (4, 12)
        for row in range(first, first + 4)
        for column in range(first, first + 4)
    }
    assert set(plan.tile_index) == set(whole.tile_index) | under
    assert lost == []


@any_reader
def test_another_level_serves_for_the_mask_where_its_own_is_empty(tmp_path: Path, choice: ReaderChoice) -> None:
    path = WRITERS["JPEG"](tmp_path / "a.tif", pyramid(1, 4, 16))
    whole, _, _ = planned(path, choice)
    omit_block(path, 2, 0)

    plan, lost, _ = planned(path, choice)

    assert np.array_equal(plan.tile_index, whole.tile_index)
    assert lost == []


def empty_level_0(path: str) -> None:
    for block in range(ACROSS**2):
        omit_block(path, 0, block)


@any_reader
@pytest.mark.parametrize("writer", ["JPEG", "without loss"])
def test_a_slide_of_which_level_0_is_empty_has_its_tiles_and_all_of_tissue_are_lost(
    tmp_path: Path, writer: str, choice: ReaderChoice
) -> None:
    path = WRITERS[writer](tmp_path / "a.tif", pyramid(1, 4))
    whole, _, _ = planned(path, choice)
    empty_level_0(path)

    plan, lost, _ = planned(path, choice)

    assert np.array_equal(plan.tile_index, whole.tile_index)
    assert lost == [row * ACROSS + column for row in range(2, 8) for column in range(2, 8)]


@any_reader
@pytest.mark.parametrize(("writer", "downsamples"), [("JPEG", (1,)), ("Aperio, JPEG", (1,)), ("Aperio, JPEG", (1, 4))])
def test_a_slide_of_which_nothing_can_be_shown_is_unreadable_and_not_empty(
    tmp_path: Path, writer: str, downsamples: tuple[int, ...], choice: ReaderChoice
) -> None:
    path = WRITERS[writer](tmp_path / "a.tif", pyramid(*downsamples))
    empty_level_0(path)

    with pytest.raises(SlideError, match=r"the file has no data for its blocks\); the file is damaged, copy or export"):
        planned(path, choice)


def test_a_level_that_is_damaged_or_empty_shows_nothing_and_the_next_one_is_asked(tmp_path: Path) -> None:
    path = WRITERS["JPEG"](tmp_path / "a.tif", pyramid(1, 4, 16, 32))
    for block in (IN_TISSUE, IN_GLASS):
        omit_block(path, 0, block)
    omit_block(path, 3, 0)
    offset, count = block_at(path, 2, 0)
    overwrite(path, offset, bytes(count))

    slide, reader = open_slide(path)

    judged = judge(slide, reader)

    assert np.flatnonzero(judged.levels[0].blank_blocks).tolist() == [IN_GLASS], "level 1 is the only one that is read"
    assert np.flatnonzero(judged.levels[0].lost_blocks).tolist() == [IN_TISSUE]


def test_a_level_of_coarser_pixels_than_a_block_shows_nothing(tmp_path: Path) -> None:
    path = WRITERS["JPEG"](tmp_path / "a.tif", pyramid(1, 128))
    omit_block(path, 0, IN_GLASS)

    plan, lost, _ = planned(path, "auto")

    assert (blank(plan), lost) == ([], [IN_GLASS])


def test_blocks_that_a_short_table_lacks_are_lost(tmp_path: Path) -> None:
    path = WRITERS["JPEG"](tmp_path / "a.tif", pyramid(1, 4))
    with tifffile.TiffFile(path, mode="r+b") as file:
        tag = file.pages[0].tags["TileByteCounts"]
        tag.overwrite(tag.value[:-3])

    _, lost, _ = planned(path, "openslide")

    assert lost == list(range(ACROSS**2 - 3, ACROSS**2))


@pytest.mark.slow
@settings(max_examples=12)
@given(st.sets(st.integers(0, ACROSS**2 - 1), max_size=40), st.sets(st.integers(0, 15), max_size=3), st.data())
def test_any_empty_blocks_are_white_glass_or_lost_and_no_tile_changes(
    tmp_path_factory: pytest.TempPathFactory, fine: set[int], coarse: set[int], data: st.DataObject
) -> None:
    writer = data.draw(st.sampled_from(sorted(WRITERS)))
    path = WRITERS[writer](tmp_path_factory.mktemp("a") / "a.tif", pyramid(1, 4, 16))
    whole, _, before = planned(path, "auto")
    for level, blocks in enumerate((fine, coarse)):
        for block in blocks:
            omit_block(path, level, block)

    for choice in CHOICES:
        plan, lost, tiles = planned(path, choice)

        tissue = {block for block in fine if {*divmod(block, ACROSS)} <= set(range(2, 8))}
        assert set(lost) | set(blank(plan)) == fine
        assert set(lost) == tissue
        assert set(whole.tile_index) <= set(plan.tile_index)
        kept = [block for block in range(ACROSS**2) if block not in fine]
        assert np.abs(tiles[kept].astype(int) - before[kept]).max() <= 2


@given(st.integers(1, 400), st.integers(1, 300), st.integers(1, 70), st.integers(1, 70), st.floats(0, 1))
def test_any_blocks_of_a_level_are_packed_and_unpacked(
    width: int, height: int, block_width: int, block_height: int, share: float
) -> None:
    level = Level(0, width, height, 1, block_width=block_width, block_height=block_height)
    blocks = np.random.default_rng(0).random((level.down, level.across)) < share

    assert np.array_equal(level.unpack(pack_blocks(blocks)), blocks)


def test_a_picture_of_a_slide_whose_empty_blocks_nobody_judged_shows_them_white(tmp_path: Path) -> None:
    path = WRITERS["without loss"](tmp_path / "a.tif", pyramid(1))
    omit_block(path, 0, IN_TISSUE)
    slide, reader = open_slide(path)

    thumbnail = read_thumbnail(reader, slide, 4.0)

    row, column = (4 * block for block in divmod(IN_TISSUE, ACROSS))
    assert (thumbnail.pixels[row : row + 4, column : column + 4] == 255).all()
    assert thumbnail.unknown.sum() == 16


def test_empty_blocks_that_touch_a_read_cost_it_and_no_other(tmp_path: Path) -> None:
    path = WRITERS["without loss"](tmp_path / "a.tif", pyramid(1))
    omit_block(path, 0, IN_TISSUE)
    slide, reader = open_slide(path)
    x, y = (EDGE * block for block in divmod(IN_TISSUE, ACROSS)[::-1])

    for left, top, width, height in [(x, y, 1, 1), (x - 1, y - 1, 2, 2), (0, 0, 2000, 2000), (x + 63, y + 63, 9, 9)]:
        with pytest.raises(ReadError, match="the file has no data for a block"):
            reader.read(slide.levels[0], left, top, width, height)

    for left, top, width, height in [(x - 9, y, 9, 64), (x, y + 64, 64, 9), (-9, -9, 9, 9), (1024, 1024, 5, 5)]:
        assert reader.read(slide.levels[0], left, top, width, height).shape == (height, width, 3)


def test_a_lost_block_costs_what_openslide_makes_of_it_on_coarser_levels_and_nothing_where_they_are_read_as_stored(
    tmp_path: Path,
) -> None:
    path = WRITERS["Aperio, JPEG"](tmp_path / "a.tif", pyramid(1, 4))
    omit_block(path, 0, IN_TISSUE)
    bad = {}
    for choice in CHOICES:
        slide, reader = open_slide(path, reader=choice)
        plan = plan_slide(slide, reader, EDGE, 1, *tiles_of_a_block)
        _, lost = read_tiles(reader, plan.slide, plan.sampling, plan.grid, np.arange(16))
        reader.close()
        assert plan.sampling.level == 1
        bad[reader.name] = np.flatnonzero(lost).tolist()

    assert bad == {"direct": [], "openslide": [5]}, "OpenSlide leaves the place white in the block above"


@any_reader
def test_colour_that_jpeg_carries_over_from_a_neighbour_is_no_tissue(tmp_path: Path, choice: ReaderChoice) -> None:
    levels = pyramid(1, 4, 16, last=7 * EDGE)  # ends within a group of pixels that share their colour on level 2
    path = WRITERS["JPEG"](tmp_path / "a.tif", levels)
    beside = [5 * ACROSS + 7, 7 * ACROSS + 4, 5 * ACROSS + 1]
    for block in beside:
        omit_block(path, 0, block)

    plan, lost, _ = planned(path, choice)

    assert (blank(plan), lost) == (sorted(beside), [])


@pytest.mark.parametrize(("reach", "is_lost"), [(8, False), (60, True)])
def test_tissue_counts_from_where_it_cannot_be_a_neighbours(tmp_path: Path, reach: int, is_lost: bool) -> None:
    form = replace(JPEG, block=(128, 128))
    path = write_coded(tmp_path / "a.tif", pyramid(1, 2, last=512 + reach), form)
    omit_block(path, 0, 2 * 8 + 4)  # of 8 x 8: from (512, 256) on, beside tissue that reaches into it

    slide, reader = open_slide(path)

    assert judge(slide, reader).levels[0].lost_blocks.sum() == is_lost


def test_a_slide_without_empty_blocks_is_not_judged(tmp_path: Path) -> None:
    slide, reader = open_slide(WRITERS["JPEG"](tmp_path / "a.tif", pyramid(1, 4)), reader="auto")

    assert judge(slide, reader) is slide
    reader.close()
