"""Read tiles of 224 px at 0.5 µm/px from a fabricated JPEG slide: OpenSlide with PIL, OpenSlide with histo, direct.

    python benchmarks/reader.py --edge 8000 --rounds 5 [--peers]

With `--peers` cuCIM, on the CPU, and libvips read the same tiles, in environments of their own, made where there are
none (4 GB). Tiles per CPU-second, opening included, the median of interleaved rounds; the largest difference to
OpenSlide's pixels, averaged by the same kernel.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import openslide
from peer_environment import ENVS, make_environment
from PIL import Image

from histo.demo.fabricate import CLASSES, paint, write_pyramid
from histo.resample import Pixels
from histo.slides.grid import Grid, Indices
from histo.slides.resolution import choose_sampling
from histo.slides.slide import Slide, open_slide
from histo.slides.spec import ReaderChoice
from histo.slides.tiles import cut_blocks, read_tiles

ROOT = Path(__file__).resolve().parents[1]
TILE_PX, MPP = 224, 0.5
PATCH_PX = 2000
"""Level-0 pixels of tissue of one class."""
REFERENCE = "OpenSlide, box"
KERNEL = ("numpy", "scipy", "opencv-python-headless")
"""What `histo.resample` needs."""
PEERS = {
    "cucim": ("cuCIM 26.10.0, box", ("cucim-cu12==26.10.0", *KERNEL)),
    "vips": ("libvips 8.18.7, box", ("pyvips==3.2.0", "pyvips-binary==8.18.7", *KERNEL)),
}
"""Names and packages of other readers."""
Way = Callable[[], tuple[Pixels, float]]
"""Reads the tiles; returns them, and the CPU-seconds that it took."""


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


def timed(read: Callable[[], Pixels]) -> tuple[Pixels, float]:
    """Read in this process."""
    start = time.process_time()
    return read(), time.process_time() - start


def by_peer(python: Path, name: str, path: Path, places: Path) -> tuple[Pixels, float]:
    """Read in another environment."""
    script, out = ROOT / "benchmarks" / "peers" / "read_tiles.py", places.with_suffix(".npy")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "VIPS_CONCURRENCY": "1"}
    command: list[str | Path] = [python, script, name, path, places, out]
    ran = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE)  # noqa: S603
    return np.load(out), float(ran.stdout.split()[-1])


def compare(path: Path, rounds: int, most: int, peers: dict[str, Path]) -> None:
    """Time all ways in turns, and print a table."""
    slide, reader = open_slide(str(path))
    reader.close()
    grid = lay(slide, TILE_PX)
    across = min(most, grid.columns, grid.rows)
    tiles = np.concatenate([np.arange(across) + row * grid.columns for row in range(across)])
    places = path.with_suffix(".npz")
    np.savez(places, origins=np.stack(grid.places(tiles), axis=1) * TILE_PX, size_px=TILE_PX, ratio=grid.scale_x)
    ways: dict[str, Way] = {
        "OpenSlide, PIL bilinear": partial(timed, lambda: plain(path, grid, tiles)),
        REFERENCE: partial(timed, lambda: ours(path, "openslide", TILE_PX, tiles)),
        "direct, box": partial(timed, lambda: ours(path, "direct", TILE_PX, tiles)),
        **{PEERS[name][0]: partial(by_peer, python, name, path, places) for name, python in peers.items()},
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    pixels: dict[str, Pixels] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            pixels[name], took = way()
            seconds[name].append(took)
    print(f"\n{slide.mpp_x:.4f} µm/px, ratio {grid.scale_x:g}, {len(tiles)} tiles\n")
    print("| way | tiles per CPU-second | ratio | largest difference to OpenSlide, box |\n|---|---|---|---|")
    for name, times in seconds.items():
        gain = statistics.median(a / b for a, b in zip(seconds["OpenSlide, PIL bilinear"], times, strict=True))
        difference = np.abs(pixels[name].astype(np.int16) - pixels[REFERENCE]).max()
        print(f"| {name} | {len(tiles) / statistics.median(times):.0f} | {gain:.2f} | {difference} |")


def main() -> None:
    """Measure at a whole ratio and at another one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=8000, help="edge of the slide (level-0 px)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--tiles", type=int, default=16, help="edge of the square of tiles that is read")
    parser.add_argument("--peers", action="store_true", help="also cuCIM and libvips")
    parser.add_argument("--envs", type=Path, default=ENVS, help="where their environments are")
    options = parser.parse_args()
    named = PEERS if options.peers else {}
    peers = {name: make_environment(options.envs / name, packages) for name, (_, packages) in named.items()}
    with tempfile.TemporaryDirectory() as folder:
        for mpp in (0.25, 0.2343):
            path = Path(folder) / f"{mpp}.tif"
            fabricate(path, options.edge, mpp)
            compare(path, options.rounds, options.tiles, peers)


if __name__ == "__main__":
    main()
