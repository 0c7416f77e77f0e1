"""`make bench`: tiles per second of the reader alone and of the network alone, one thread each, interleaved, medians.

The slide is fabricated: 4,480 x 4,480 px at 0.25 µm/px, JPEG of quality 90; tiles of 224 px at 0.5 µm/px.
"""

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from histo.demo.fabricate import write_pyramid
from histo.demo.textures import paint
from histo.learn.bundle import Architecture
from histo.learn.model import DEFAULT_BACKBONE, pretrained_network
from histo.slides.grid import Grid
from histo.slides.resolution import choose_sampling
from histo.slides.slide import open_slide
from histo.slides.tiles import read_tile

ROUNDS = 5
TILES = 50


def reader(folder: Path) -> Callable[[], None]:
    """Read 50 tiles through OpenSlide, as a label run does."""
    path = folder / "slide.tif"
    write_pyramid(path, paint("TUM", 4480, 4480, np.random.default_rng(0)), mpp=0.25)
    slide, pixels = open_slide(str(path))
    sampling = choose_sampling(slide, 0.5)
    grid = Grid(slide.width, slide.height, 224, 224, sampling.scale_x, sampling.scale_y)

    def read() -> None:
        for index in range(TILES):
            read_tile(pixels, slide, sampling, grid, index % grid.columns, index // grid.columns)

    return read


def model() -> Callable[[], None]:
    """Classify 50 tiles with the default network, float32, batches of 10."""
    network = pretrained_network(Architecture(backbone=DEFAULT_BACKBONE), classes=9).eval()
    network.to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (10, 3, 224, 224), dtype=torch.uint8)

    @torch.inference_mode()
    def classify() -> None:
        for _ in range(TILES // 10):
            network(images)

    return classify


def main() -> None:
    """Print one table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        parts = {"reader (OpenSlide, box 2x2)": reader(Path(folder)), f"model ({DEFAULT_BACKBONE}, float32)": model()}
        seconds: dict[str, list[float]] = {name: [] for name in parts}
        for _ in range(ROUNDS):
            for name, part in parts.items():
                start = time.perf_counter()
                part()
                seconds[name].append(time.perf_counter() - start)
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, 1 thread")
    print("| part | tiles/s, median | min | max |\n|---|---|---|---|")
    for name, times in seconds.items():
        rates = sorted(TILES / value for value in times)
        print(f"| {name} | {statistics.median(rates):.0f} | {rates[0]:.0f} | {rates[-1]:.0f} |")


if __name__ == "__main__":
    main()
