"""Fabricate slides of any size in a moment: all blocks of a file point to the same few compressed ones.

Such a file is a few MB and reads like any tiled TIFF: every block has to be decoded, as if no other had the same bytes.
"""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt

from histo.demo.fabricate import QUALITY
from histo.demo.textures import paint
from histo.resample import Pixels, resize

Places = npt.NDArray[np.int64]
Table = npt.NDArray[np.uint32]
"""Of each block, `(rows, columns)`: where it begins in the file, or how many bytes it has."""

SHORT, LONG, RATIONAL = "H", "I", "2I"
_TYPES = {SHORT: 3, LONG: 4, RATIONAL: 5}
_TEXTURES = ("TUM", "STR")
_HEADER = b"II*\0"


def write_huge(
    path: Path,
    width: int,
    height: int,
    tissue: Sequence[tuple[int, int]],
    downsamples: Sequence[int] = (1,),
    mpp: float = 0.25,
    tile_px: int = 256,
) -> Path:
    """Write a tiled, pyramidal TIFF of glass, JPEG-compressed, with tissue in a few of its blocks.

    Args:
        path: The file.
        width: Level-0 pixels.
        height: Level-0 pixels.
        tissue: The blocks of level 0 that are tissue all over, `(column, row)`.
        downsamples: Level-0 pixels per pixel of each level; powers of two up to `tile_px`.
        mpp: µm per level-0 pixel, a multiple of 0.001.
        tile_px: Edge of the file's own blocks, a multiple of 16.

    Returns:
        The path.
    """
    rng = np.random.default_rng(0)
    glass = paint("BACK", tile_px, tile_px, rng, mpp)
    textures = [paint(name, tile_px, tile_px, rng, mpp) for name in _TEXTURES]
    places = np.array(tissue, np.int64).reshape(-1, 2)
    with path.open("wb") as file:
        file.write(_HEADER + bytes(4))

        def store(data: bytes) -> tuple[int, int]:
            file.write(bytes(file.tell() % 2))
            return file.tell(), file.write(data)

        link = len(_HEADER)
        for step in downsamples:
            size = max(1, width // step), max(1, height // step)
            offsets, counts = _blocks(store, size, step, places, glass, textures)
            tags = _tags(size, mpp * step, tile_px, offsets, counts, reduced=step > 1)
            directory, _ = store(_directory(store, tags))
            end = file.tell()
            file.seek(link)
            file.write(struct.pack("<I", directory))
            file.seek(end)
            link = end - 4
    return path


Store = Callable[[bytes], tuple[int, int]]
Tag = tuple[int, str, Sequence[int] | Table]


def _blocks(
    store: Store, size: tuple[int, int], step: int, places: Places, glass: Pixels, textures: Sequence[Pixels]
) -> tuple[Table, Table]:
    """Store the blocks of one level, and say where each of its places finds its own."""
    tile_px = len(glass)
    columns, rows = (-(-length // tile_px) for length in size)
    table = np.empty((2, rows, columns), np.uint32)
    table[:] = np.reshape(store(_compress(glass)), (2, 1, 1))
    for column, row in np.unique(places // step, axis=0):
        block, edge = glass.copy(), tile_px // step
        for number in np.flatnonzero((places // step == (column, row)).all(axis=1)).tolist():
            left, top = places[number] % step * edge
            block[top : top + edge, left : left + edge] = resize(textures[number % len(textures)], edge)
        table[:, row, column] = store(_compress(block))
    return table[0], table[1]


def _compress(block: Pixels) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(block, level=QUALITY, subsampling=(2, 2)))


def _tags(
    size: tuple[int, int], mpp: float, tile_px: int, offsets: Table, counts: Table, reduced: bool
) -> tuple[Tag, ...]:
    """Return the tags of one level, ascending: number, type, values (TIFF 6.0)."""
    per_cm = (10**7, round(1000 * mpp))
    return (
        (254, LONG, [int(reduced)]),
        (256, LONG, [size[0]]),
        (257, LONG, [size[1]]),
        (258, SHORT, [8, 8, 8]),
        (259, SHORT, [7]),  # JPEG
        (262, SHORT, [6]),  # YCbCr
        (277, SHORT, [3]),
        (282, RATIONAL, per_cm),
        (283, RATIONAL, per_cm),
        (284, SHORT, [1]),
        (296, SHORT, [3]),  # centimetres
        (322, LONG, [tile_px]),
        (323, LONG, [tile_px]),
        (324, LONG, offsets),
        (325, LONG, counts),
        (530, SHORT, [2, 2]),  # colour at half of the resolution
    )


def _directory(store: Store, tags: Sequence[Tag]) -> bytes:
    """Pack tags as a TIFF directory that is the last one; values of more than four bytes are stored elsewhere."""
    packed = struct.pack("<H", len(tags))
    for number, kind, values in tags:
        data = np.asarray(values, f"<u{2 if kind == SHORT else 4}").tobytes()
        count = len(data) // struct.calcsize(kind)
        value = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", store(data)[0])
        packed += struct.pack("<HHI", number, _TYPES[kind], count) + value
    return packed + bytes(4)
