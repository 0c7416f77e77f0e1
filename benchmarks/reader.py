"""Read tiles of 224 px at 0.5 µm/px from a fabricated JPEG slide: OpenSlide with PIL, OpenSlide with histo, direct.

    python benchmarks/reader.py --edge 8000 --rounds 5

Tiles per CPU-second of one thread, the median of interleaved rounds; the largest difference to OpenSlide's pixels,
averaged by the same kernel.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from histo.demo.fabricate import CLASSES, paint, write_pyramid
from histo.resample import Pixels
from histo.slides.grid import Grid, Indices
from histo.slides.resolution import choose_sampling
from histo.slides.slide import Slide, open_slide
from histo.slides.spec import ReaderChoice
from histo.slides.tiles import cut_blocks, read_tiles

TILE_PX, MPP = 224, 0.5
PATCH_PX = 2000
"""Level-0 pixels of tissue of one class."""
Way = Callable[[], Pixels]


def fabricate(path: Path, edge: int, mpp: float) -> None:
    """Write a slide of patches of all classes, JPEG with quality 80."""
    rng = np.random.default_rng(0)
    image = np.full((edge, edge, 3), 255, np.uint8)
    for number, (y, x) in enumerate(np.ndindex(-(-edge // PATCH_PX), -(-edge // PATCH_PX))):
        part = image[y * PATCH_PX : (y + 1) * PATCH_PX, x * PATCH_PX : (x + 1) * PATCH_PX]
        part[:] = paint(CLASSES[number % len(CLASSES)], part.shape[0], part.shape[1], rng)
    write_pyramid(path, image, mpp, quality=80)


def plain(path: Path, grid: Grid, tiles: Indices) -> Pixels:
    """Do what a user would write: a region of level 0, to RGB, to the tile's size by PIL."""
    slide, read = openslide.OpenSlide(path), []
    x, y = grid.places(tiles)
    for place in zip(grid.x(x).tolist(), grid.y(y).tolist(), strict=True):
        region = slide.read_region(place, 0, (grid.width, grid.height)).convert("RGB")
        read.append(np.asarray(region.resize((grid.size_px, grid.size_px), Image.Resampling.BILINEAR)))
    slide.close()
    return np.stack(read)


def ours(path: Path, name: ReaderChoice, size_px: int, tiles: Indices) -> Pixels:
    """Read tiles block by block, through a reader of ours."""
    slide, reader = open_slide(str(path), reader=name)
    sampling = choose_sampling(slide, MPP)
    grid = lay(slide, size_px)
    out = np.empty((len(tiles), size_px, size_px, 3), np.uint8)
    for part in cut_blocks(grid, tiles):
        out[part], _ = read_tiles(reader, slide, sampling, grid, tiles[part])
    reader.close()
    return out


def lay(slide: Slide, size_px: int) -> Grid:
    """Lay the grid."""
    sampling = choose_sampling(slide, MPP)
    return Grid(slide.width, slide.height, size_px, size_px, sampling.scale_x, sampling.scale_y)


def compare(path: Path, rounds: int, most: int) -> None:
    """Time all ways in turns, and print a table."""
    slide, reader = open_slide(str(path))
    reader.close()
    grid = lay(slide, TILE_PX)
    across = min(most, grid.columns, grid.rows)
    tiles = np.concatenate([np.arange(across) + row * grid.columns for row in range(across)])
    ways: dict[str, Way] = {
        "OpenSlide, PIL bilinear": lambda: plain(path, grid, tiles),
        "OpenSlide, box": lambda: ours(path, "openslide", TILE_PX, tiles),
        "direct, box": lambda: ours(path, "direct", TILE_PX, tiles),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    pixels = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            pixels[name] = way()
            seconds[name].append(time.process_time() - start)
    box, direct = pixels["OpenSlide, box"], pixels["direct, box"]
    print(f"\n{slide.mpp_x:.4f} µm/px, ratio {grid.scale_x:g}, {len(tiles)} tiles\n")
    print("| way | tiles per CPU-second | ratio |\n|---|---|---|")
    for name, times in seconds.items():
        gain = statistics.median(a / b for a, b in zip(seconds["OpenSlide, PIL bilinear"], times, strict=True))
        print(f"| {name} | {len(tiles) / statistics.median(times):.0f} | {gain:.2f} |")
    print(f"\nlargest difference of direct to OpenSlide: {np.abs(box.astype(np.int16) - direct).max()} grey levels")


def main() -> None:
    """Measure at a whole ratio and at another one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=8000, help="edge of the slide (level-0 px)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--tiles", type=int, default=16, help="edge of the square of tiles that is read")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for mpp in (0.25, 0.2343):
            path = Path(folder) / f"{mpp}.tif"
            fabricate(path, options.edge, mpp)
            compare(path, options.rounds, options.tiles)


if __name__ == "__main__":
    main()
