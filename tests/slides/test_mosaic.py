"""Tiles read together are the tiles read one by one, and each file block under them is decoded once."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.coded_slides import FORMATS, CountingReader, scenery, write_coded
from helpers.fake_slides import FakeReader, array_slide, fake_slide, noise
from hypothesis import given, settings
from hypothesis import strategies as st

from histo.resample import Window
from histo.slides.grid import Grid, Indices
from histo.slides.readers import kept_blocks
from histo.slides.readers.base import Reader
from histo.slides.readers.kept_blocks import KeptBlocks
from histo.slides.resolution import Sampling
from histo.slides.slide import Slide, open_slide
from histo.slides.tiles import BLOCK_PX, BLOCK_TILES, cut_blocks, read_tile, read_tiles
from histo.slides.tissue import read_thumbnail
from histo.slides.window import read_window

laws = settings(max_examples=50)
ratios = st.sampled_from([1.0, 2.0, 4.0, 3.0, 8.0, 1.5, 0.5]) | st.floats(0.4, 6)
EDGE = 64
"""Of a file block, level-0 pixels."""


@pytest.fixture(scope="module")
def slide_and_readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Slide, Reader, CountingReader]]:
    """A slide, read by OpenSlide and directly."""
    path = write_coded(tmp_path_factory.mktemp("slides") / "a.tif", [scenery(332, 276)], FORMATS["jpeg 4:4:4"])
    slide, reference = open_slide(path)
    direct = CountingReader(path, slide.levels)
    yield slide, reference, direct
    reference.close()
    direct.close()


def lay(slide: Slide, ratio_x: float, ratio_y: float, size_px: int, stride_px: int) -> tuple[Sampling, Grid]:
    sampling = Sampling(0, ratio_x, ratio_y, ratio_x, ratio_y, ratio_x, ratio_y)
    return sampling, Grid(slide.width, slide.height, size_px, stride_px, ratio_x, ratio_y)


@laws
@given(st.data(), ratios, ratios, st.integers(1, 60), st.integers(8, 80))
def test_tiles_together_are_tiles_one_by_one_through_either_reader(
    slide_and_readers: tuple[Slide, Reader, Reader],
    data: st.DataObject,
    ratio_x: float,
    ratio_y: float,
    size_px: int,
    stride_px: int,
) -> None:
    slide, *readers = slide_and_readers
    sampling, grid = lay(slide, ratio_x, ratio_y, size_px, stride_px)
    tiles = np.array(data.draw(st.lists(st.integers(0, grid.columns * grid.rows - 1), max_size=8)), np.int64)

    together = [read_tiles(reader, slide, sampling, grid, tiles) for reader in readers]

    for position, tile in enumerate(tiles.tolist()):
        y, x = divmod(tile, grid.columns)
        alone = [read_tile(reader, slide, sampling, grid, x, y) for reader in readers]
        assert all(np.array_equal(pixels[position], alone[0]) for pixels, _ in together)
        assert np.array_equal(alone[0], alone[1])
    for pixels, bad in together:
        assert pixels.shape == (len(tiles), size_px, size_px, 3)
        assert pixels.flags.c_contiguous
        assert not bad.any()


@laws
@given(ratios, ratios, st.integers(0, 300), st.integers(0, 300), st.integers(1, 90), st.integers(1, 90))
def test_a_window_is_the_same_through_either_reader(
    slide_and_readers: tuple[Slide, Reader, Reader], ratio_x: float, ratio_y: float, x: int, y: int, w: int, h: int
) -> None:
    slide, *readers = slide_and_readers

    first, second = (read_window(r, slide, 0, Window(x, w, ratio_x), Window(y, h, ratio_y)) for r in readers)

    assert np.array_equal(first, second)


@laws
@given(st.data(), ratios, st.integers(1, 60), st.integers(8, 80))
def test_each_block_under_a_tile_is_decoded_once_and_no_other(
    slide_and_readers: tuple[Slide, Reader, CountingReader],
    data: st.DataObject,
    ratio: float,
    size_px: int,
    stride_px: int,
) -> None:
    slide, _, direct = slide_and_readers
    sampling, grid = lay(slide, ratio, ratio, size_px, stride_px)
    tiles = np.array(data.draw(st.lists(st.integers(0, grid.columns * grid.rows - 1), max_size=8)), np.int64)
    direct.decoded.clear()
    direct.kept = KeptBlocks()

    read_tiles(direct, slide, sampling, grid, tiles)

    under = set()
    for x, y in np.stack(grid.places(tiles), axis=1).tolist():
        (left, right), (top, bottom) = (Window(i * stride_px, size_px, ratio).source_span() for i in (x, y))
        columns = {i // EDGE for i in range(max(0, left), min(slide.width, right))}
        rows = {i // EDGE for i in range(max(0, top), min(slide.height, bottom))}
        under |= {(0, column, row) for column in columns for row in rows}
    assert Counter(direct.decoded) == Counter(under)


@settings(max_examples=25)
@given(st.sampled_from([1.0, 2.0, 3.0, 1.5]) | st.floats(1, 6), st.integers(8, 30))
def test_squares_of_tiles_beside_each_other_decode_each_block_once(
    slide_and_readers: tuple[Slide, Reader, CountingReader], ratio: float, size_px: int
) -> None:
    slide, _, direct = slide_and_readers
    sampling, grid = lay(slide, ratio, ratio, size_px, size_px)
    tiles = np.arange(grid.columns * grid.rows)
    direct.decoded.clear()
    direct.kept = KeptBlocks()

    for positions in cut_blocks(grid, tiles):
        read_tiles(direct, slide, sampling, grid, tiles[positions])

    assert set(Counter(direct.decoded).values()) == {1}


def test_threads_that_read_beside_each_other_read_the_same_pixels(
    slide_and_readers: tuple[Slide, Reader, CountingReader],
) -> None:
    slide, reference, direct = slide_and_readers
    sampling, grid = lay(slide, 1.3, 1.3, 11, 11)
    tiles = np.arange(grid.columns * grid.rows)
    squares = [tiles[positions] for positions in cut_blocks(grid, tiles)]
    direct.kept = KeptBlocks()

    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda square: read_tiles(direct, slide, sampling, grid, square)[0], squares * 4))

    for square, pixels in zip(squares * 4, read, strict=True):
        assert np.array_equal(pixels, read_tiles(reference, slide, sampling, grid, square)[0])


def test_blocks_that_are_kept_are_bounded_and_cannot_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_blocks, "MOST_BYTES", 5 * 48)
    kept = KeptBlocks()

    for number in [*range(7), 6]:
        kept.put((0, 0, number, 1, 1), np.full((4, 4, 3), number, np.uint8))

    found = [kept.get((0, 0, number, 1, 1)) for number in range(7)]
    assert [None if pixels is None else int(pixels.max()) for pixels in found] == [None, None, 2, 3, 4, 5, 6]
    assert not any(pixels.flags.writeable for pixels in found if pixels is not None)


def test_tiles_of_any_reader_are_read() -> None:
    slide, reader = fake_slide(100, 80), FakeReader(lambda _, x, y: np.stack(np.broadcast_arrays(x, y, 0 * x), -1))
    sampling, grid = lay(slide, 1, 1, 10, 10)

    tiles, bad = read_tiles(reader, slide, sampling, grid, np.array([23, 7]))

    assert tiles[:, 0, 0, :2].tolist() == [[30, 20], [70, 0]]
    assert bad.tolist() == [False, False]


def test_a_tile_that_a_reader_cannot_read_costs_no_other() -> None:
    slide, reader = array_slide(noise(100, 80), damage=[(35, 25, 2, 2)])
    sampling, grid = lay(slide, 1, 1, 10, 10)

    tiles, bad = read_tiles(reader, slide, sampling, grid, np.array([22, 23, 24]))

    assert bad.tolist() == [False, True, False]
    assert (tiles[1] == 0).all()
    assert np.array_equal(tiles[2], read_tile(reader, slide, sampling, grid, 4, 2))


@laws
@given(st.integers(1, 5000), st.integers(1, 5000), st.data())
def test_blocks_hold_each_tile_once_and_only_neighbours(size_px: int, stride_px: int, data: st.DataObject) -> None:
    grid = Grid(40 * stride_px, 23 * stride_px, size_px, stride_px, 1, 1)
    tiles: Indices = np.array(sorted(data.draw(st.sets(st.integers(0, 40 * 23 - 1), min_size=1))), np.int64)

    blocks = list(cut_blocks(grid, tiles))

    assert np.sort(np.concatenate(blocks)).tolist() == list(range(len(tiles)))
    for block in blocks:
        x, y = grid.places(tiles[block])
        assert len(block) == 1 or len(block) * size_px**2 <= BLOCK_PX**2
        assert max(np.ptp(x), np.ptp(y)) < BLOCK_TILES


def test_no_tile_at_all_is_read_as_none(slide_and_readers: tuple[Slide, Reader, Reader]) -> None:
    slide, *readers = slide_and_readers
    sampling, grid = lay(slide, 2, 2, 16, 16)

    for reader in readers:
        tiles, bad = read_tiles(reader, slide, sampling, grid, np.array([], np.int64))

        assert (tiles.shape, bad.shape) == ((0, 16, 16, 3), (0,))


def test_a_thumbnail_decodes_each_block_once(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [noise(3000, 300)], FORMATS["jpeg, blocks of 48 x 80 px"])
    slide, reference = open_slide(path)
    reference.close()
    direct = CountingReader(path, slide.levels)

    read_thumbnail(direct, slide, mpp=4.0)

    direct.close()
    assert len(direct.decoded) == len(set(direct.decoded)) == -(-3000 // 48) * -(-300 // 80)
