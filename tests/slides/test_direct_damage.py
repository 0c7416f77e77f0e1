"""Damage costs exactly the tiles whose pixels it holds, and nothing that comes after."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.coded_slides import FORMATS, CountingReader, block_at, overwrite, scenery, write_coded
from helpers.mutated_slides import KINDS, fabricated, mutated

from histo.errors import ReadError, SlideError
from histo.slides.grid import Grid
from histo.slides.readers.tiff import DirectReader
from histo.slides.resolution import Sampling
from histo.slides.slide import Slide, open_slide
from histo.slides.tiles import read_tiles

Damage = Callable[[str], None]
WIDTH, HEIGHT, EDGE = 384, 320, 64
BLOCK, COLUMN, ROW = 9, 3, 1
"""The damaged file block, of 6 in a row."""


def replace_part(path: str, start: float, stop: float, fill: Callable[[int], bytes]) -> None:
    """Replace a part of the block, from one share of its bytes to another."""
    offset, count = block_at(path, 0, BLOCK)
    first, last = int(start * count), int(stop * count)
    overwrite(path, offset + first, fill(last - first))


def edit_table(path: str, name: str, value: int) -> None:
    with tifffile.TiffFile(path, mode="r+b") as file:
        tag = file.pages[0].tags[name]
        tag.overwrite([value if block == BLOCK else old for block, old in enumerate(tag.value)], dtype="I")


def noise_bytes(count: int) -> bytes:
    return np.random.default_rng(0).bytes(count)


DAMAGES: dict[str, Damage] = {
    "zeros": lambda path: replace_part(path, 0, 1, bytes),
    "second half zeros": lambda path: replace_part(path, 0.5, 1, bytes),
    "noise": lambda path: replace_part(path, 0.7, 0.8, noise_bytes),
    "length 0": lambda path: edit_table(path, "TileByteCounts", 0),
    "length 1": lambda path: edit_table(path, "TileByteCounts", 1),
    "length absurd": lambda path: edit_table(path, "TileByteCounts", 2**32 - 1),
    "half of the length": lambda path: edit_table(path, "TileByteCounts", block_at(path, 0, BLOCK)[1] // 2),
    "offset beyond the end": lambda path: edit_table(path, "TileOffsets", 2**31),
    "another image": lambda path: replace_part(path, 0, 1, lambda n: FORMATS["jpeg 4:2:0"].encode(SMALL).ljust(n)),
}
SMALL = np.zeros((32, 32, 3), np.uint8)


def tiles_of(reader: DirectReader, slide: Slide, ratio: float) -> tuple[Grid, np.ndarray, np.ndarray]:
    grid = Grid(slide.width, slide.height, 20, 20, ratio, ratio)
    sampling = Sampling(0, ratio, ratio, ratio, ratio, ratio, ratio)
    return grid, *read_tiles(reader, slide, sampling, grid, np.arange(grid.columns * grid.rows))


@pytest.mark.parametrize("ratio", [2.0, 1.7])
@pytest.mark.parametrize("name", DAMAGES)
def test_damage_costs_the_tiles_over_the_block_and_no_others(tmp_path: Path, name: str, ratio: float) -> None:
    path = write_coded(tmp_path / "a.tif", [scenery(WIDTH, HEIGHT)])
    slide, reader = open_slide(path, reader="direct")
    _, whole, _ = tiles_of(reader, slide, ratio)
    reader.close()
    DAMAGES[name](path)
    reader = DirectReader(path, slide.levels)

    grid, tiles, bad = tiles_of(reader, slide, ratio)

    reader.close()
    x, y = grid.places(np.arange(len(tiles)))
    across, down = (
        (np.ceil((i + 1) * 20 * ratio) > block * EDGE) & (np.floor(i * 20 * ratio) < (block + 1) * EDGE)
        for i, block in ((x, COLUMN), (y, ROW))
    )
    assert np.array_equal(bad, across & down)
    assert np.array_equal(tiles[~bad], whole[~bad])
    assert (tiles[bad] == 0).all()


@pytest.mark.parametrize("damage", ["zeros", "second half zeros"])
def test_a_damaged_jpeg_2000_block_is_an_error(tmp_path: Path, damage: str) -> None:
    path = write_coded(tmp_path / "a.svs", [scenery(WIDTH, HEIGHT)], FORMATS["Aperio, JPEG 2000"])
    slide, reader = open_slide(path, reader="direct")
    DAMAGES[damage](path)

    with pytest.raises(ReadError, match=rf"level 0 at \({COLUMN * EDGE}, {ROW * EDGE}\): "):
        reader.read(slide.levels[0], COLUMN * EDGE + 5, ROW * EDGE + 5, 10, 10)

    assert reader.read(slide.levels[0], 0, 0, 10, 10).shape == (10, 10, 3)
    reader.close()


@pytest.mark.parametrize("field", [(12, (1).to_bytes(4, "big") * 2), (30, b"\x0b"), (33, b"\x0b")])
def test_a_jpeg_2000_block_that_contradicts_the_file_is_an_error_though_no_probe_saw_it(
    tmp_path: Path, field: tuple[int, bytes]
) -> None:
    path = write_coded(tmp_path / "a.svs", [scenery(WIDTH, HEIGHT)], FORMATS["Aperio, JPEG 2000"])
    slide, reader = open_slide(path, reader="direct")
    place, value = field
    overwrite(path, block_at(path, 0, BLOCK)[0] + 12 + place, value)

    with pytest.raises(ReadError, match=rf"level 0 at \({COLUMN * EDGE}, {ROW * EDGE}\): the block "):
        reader.read(slide.levels[0], COLUMN * EDGE + 5, ROW * EDGE + 5, 10, 10)

    reader.close()


def test_a_reader_goes_on_after_an_error(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [scenery(WIDTH, HEIGHT)])
    slide, reader = open_slide(path, reader="direct")
    before = reader.read(slide.levels[0], 0, 0, 100, 50)
    DAMAGES["zeros"](path)

    for _ in range(2):
        with pytest.raises(ReadError):
            reader.read(slide.levels[0], COLUMN * EDGE, ROW * EDGE, 5, 5)

    assert np.array_equal(reader.read(slide.levels[0], 0, 0, 100, 50), before)
    reader.close()


def test_a_file_that_is_cut_short_fails_where_it_is_missing(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [scenery(WIDTH, HEIGHT)])
    slide, reader = open_slide(path, reader="direct")
    offset, count = block_at(path, 0, BLOCK)
    with Path(path).open("r+b") as file:
        file.truncate(offset + count - 1)

    with pytest.raises(ReadError, match="the file ends 1 bytes before the block does"):
        reader.read(slide.levels[0], COLUMN * EDGE, ROW * EDGE, 5, 5)

    assert reader.read(slide.levels[0], 0, 0, 10, 10).any()
    reader.close()


def test_no_block_is_decoded_for_a_window_that_is_lost_already(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [scenery(WIDTH, HEIGHT)])
    slide, reader = open_slide(path, reader="direct")
    reader.close()
    edit_table(path, "TileByteCounts", 0)
    counting = CountingReader(path, slide.levels)

    with pytest.raises(ReadError, match="a length of 0 bytes"):
        counting.read(slide.levels[0], 0, 0, WIDTH, HEIGHT)

    counting.close()
    assert counting.decoded[-1] == (0, COLUMN, ROW)


@pytest.mark.slow
def test_no_kind_of_damage_shows_pixels_that_openslide_does_not(tmp_path: Path) -> None:
    sources = [path for path in fabricated(tmp_path / "sources") if "lossless" not in path.name]
    readers = []

    for path in mutated(sources, tmp_path / "copies", len(KINDS), seed=2):
        try:
            slide, reference = open_slide(str(path), 0.25)
            _, reader = open_slide(str(path), 0.25, "auto")
        except SlideError:
            continue
        readers.append(reader.name)
        grid = Grid(slide.width, slide.height, 128, 128, 2, 2)
        sampling, tiles = Sampling(0, 2, 2, 2, 2, 2, 2), np.arange(min(100, grid.columns * grid.rows))
        (ours, bad), (theirs, lost) = (read_tiles(r, slide, sampling, grid, tiles) for r in (reader, reference))

        assert not (lost & ~bad).any(), path.name
        assert np.array_equal(ours[~bad], theirs[~bad]), path.name
        reader.close()
        reference.close()

    assert readers.count("direct") > len(KINDS) / 4
