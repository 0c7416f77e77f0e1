"""Fabricate a slide to measure on: an Aperio-like pyramid, JPEG of quality 80 with 4:2:0 colour, 0.25 µm/px.

`python benchmarks/slide.py OUT.svs [--edge-px 40000] [--share 0.4]`. Tissue of six textures lies in a few large areas
on glass. Each texture is painted once, as 8 x 8 blocks of 256 px, and the slide is a mosaic of these patches; the bytes
of every block are stored at a place of its own, so that the file is as large as a real slide's, and read as such.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from histo.demo.textures import paint
from histo.resample import Pixels, Window, resample

MPP = 0.25
QUALITY = 80
BLOCK_PX = 256
PATCH = 8
"""Blocks along an edge of a painted patch."""
TEXTURES = ("BACK", "TUM", "STR", "LYM", "NORM", "DEB", "MUS")
"""The first is glass."""
STEPS = (1, 4, 16)
"""Level-0 pixels per pixel of each level."""
AREAS = 4
"""Areas of tissue; some touch."""


def write_slide(path: Path, edge_px: int, share: float = 0.4, seed: int = 0) -> Path:
    """Write a square slide.

    Args:
        path: The file; slides are known by `.svs`.
        edge_px: Width and height of level 0, a multiple of the last of `STEPS`.
        share: How much of the slide is tissue (0 to 1).
        seed: Of its shape and its textures.

    Returns:
        The path.
    """
    if edge_px % STEPS[-1]:
        raise ValueError(f"{edge_px} px is not a multiple of {STEPS[-1]}")
    rng = np.random.default_rng(seed)
    patches = [paint(name, PATCH * BLOCK_PX, PATCH * BLOCK_PX, rng, MPP) for name in TEXTURES]
    mosaic = lay_mosaic(-(-edge_px // BLOCK_PX), share, rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        _write_level(file, edge_px, 1, _mosaic_blocks(mosaic, patches))
        level = _reduce_mosaic(mosaic, patches, STEPS[1])[: edge_px // STEPS[1], : edge_px // STEPS[1]]
        for step, coarser in zip(STEPS[1:], (*STEPS[2:], None), strict=True):
            _write_level(file, edge_px, step, map(_compress, _cut(level)))
            if coarser:
                level = _box(level, coarser // step)
    return path


def lay_mosaic(blocks: int, share: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Choose the texture of every block, `(blocks, blocks)`: an index into `TEXTURES`.

    Blocks are ranked by how near they are to the middle of an area, and the nearest are tissue, exactly as many as
    asked for. Patches of tissue differ from their neighbours by chance.
    """
    centres, places = rng.uniform(0.2, 0.8, (AREAS, 2)), (np.arange(blocks) + 0.5) / blocks
    down, across = (places[:, None] - centres[:, axis] for axis in (0, 1))
    distance = np.hypot(down[:, None], across[None]).min(axis=-1)
    tissue = np.argsort(np.argsort(distance, axis=None)).reshape(distance.shape) < round(share * blocks**2)
    patches = rng.integers(1, len(TEXTURES), 2 * [-(-blocks // PATCH)])
    textures = np.kron(patches, np.ones((PATCH, PATCH), np.int64))[:blocks, :blocks]
    return np.where(tissue, textures, 0)


def _mosaic_blocks(mosaic: npt.NDArray[np.int64], patches: list[Pixels]) -> Iterator[bytes]:
    """Yield the compressed blocks of level 0, row by row; each block of a patch is compressed once."""
    coded = [list(map(_compress, _cut(patch))) for patch in patches]
    for (row, column), texture in np.ndenumerate(mosaic):
        yield coded[texture][row % PATCH * PATCH + column % PATCH]


def _reduce_mosaic(mosaic: npt.NDArray[np.int64], patches: list[Pixels], step: int) -> Pixels:
    """Return the box average of level 0."""
    edge, reduced = BLOCK_PX // step, [_box(patch, step) for patch in patches]
    image = np.empty((len(mosaic) * edge, len(mosaic) * edge, 3), np.uint8)
    for (row, column), texture in np.ndenumerate(mosaic):
        top, left = row % PATCH * edge, column % PATCH * edge
        block = reduced[texture][top : top + edge, left : left + edge]
        image[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge] = block
    return image


def _write_level(file: tifffile.TiffWriter, edge_px: int, step: int, blocks: Iterator[bytes]) -> None:
    size = edge_px // step
    file.write(
        blocks,
        shape=(size, size, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(BLOCK_PX, BLOCK_PX),
        compression="jpeg",
        subsampling=(2, 2),
        description=f"Aperio Image Library v12.0.0\n{size}x{size} JPEG/RGB Q={QUALITY}|AppMag = 40|MPP = {MPP}",
        metadata=None,
    )


def _cut(level: Pixels) -> Iterator[Pixels]:
    """Cut a level into blocks; its edge is repeated, so that JPEG does not bleed black into it."""
    height, width = level.shape[:2]
    whole = np.pad(level, [(0, -height % BLOCK_PX), (0, -width % BLOCK_PX), (0, 0)], mode="edge")
    for top in range(0, height, BLOCK_PX):
        for left in range(0, width, BLOCK_PX):
            yield whole[top : top + BLOCK_PX, left : left + BLOCK_PX]


def _box(image: Pixels, step: int) -> Pixels:
    rows, columns = (Window(0, length // step, step) for length in image.shape[:2])
    return resample(image, columns, rows)


def _compress(block: Pixels) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(block), level=QUALITY, subsampling=(2, 2)))


def main() -> None:
    """Write one slide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--edge-px", type=int, default=40_000)
    parser.add_argument("--share", type=float, default=0.4)
    options = parser.parse_args()
    print(write_slide(options.out, options.edge_px, options.share))


if __name__ == "__main__":
    main()
