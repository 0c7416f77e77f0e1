"""The parts of a label job in plain processes of one thread, without Ray: planning, reader, model, or the last two.

`python benchmarks/alone.py both --slide S --model BUNDLE --processes 2` prints, as JSON, the tiles per second of all
processes together and the CPU-seconds of one tile. The processes begin together and go over the slide's tiles until the
time is over; what they load before that does not count.
"""

import argparse
import json
import time
from collections.abc import Callable
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

from histo.learn.predict.load import load_predictor
from histo.resample import Pixels
from histo.slides.grid import Indices
from histo.slides.plan import SlidePlan, plan_slide
from histo.slides.readers.base import Reader
from histo.slides.slide import Slide, open_slide
from histo.slides.spec import TilingSpec, TissueSpec
from histo.slides.tiles import cut_blocks, read_tiles

TILE_PX, MPP = 224, 0.5
Work = Callable[[], int]
"""Does a block of neighbouring tiles, and says how many they were."""


def work(options: argparse.Namespace, number: int) -> Work:
    """Prepare one process's work; each begins at another block."""

    def opened() -> tuple[Slide, Reader, SlidePlan]:
        slide, reader = open_slide(str(options.slide), reader=options.reader)
        return slide, reader, plan_slide(slide, reader, TILE_PX, MPP, TilingSpec(), TissueSpec())

    if options.part == "plan":
        return lambda: len(opened()[2].tile_index)
    slide, reader, plan = opened()
    blocks = [plan.tile_index[positions] for positions in cut_blocks(plan.grid, plan.tile_index)]
    first = number * len(blocks) // options.processes
    ahead = cycle(blocks[first:] + blocks[:first])

    def read(block: Indices) -> Pixels:
        tiles, bad = read_tiles(reader, slide, plan.sampling, plan.grid, block)
        assert not bad.any(), "the slide is sound"
        return tiles

    if options.part == "reader":
        return lambda: len(read(next(ahead)))
    predict = load_predictor(options.model, threads=1, precision=options.precision)
    if options.part == "both":
        return lambda: len(predict(read(next(ahead))))
    tiles = read(max(blocks, key=len))
    return lambda: len(predict(tiles))


def run(options: argparse.Namespace, number: int, start: Barrier) -> tuple[int, float, float]:
    """Work for the time asked for; returns tiles, and seconds of the wall and of the CPU."""
    do = work(options, number)
    do()
    start.wait()
    wall_s, cpu_s, tiles = time.monotonic(), time.process_time(), 0
    while time.monotonic() - wall_s < options.seconds:
        tiles += do()
    return tiles, time.monotonic() - wall_s, time.process_time() - cpu_s


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["plan", "reader", "model", "both"])
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="for the last two")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--reader", default="auto")
    parser.add_argument("--seconds", type=float, default=6)
    options = parser.parse_args()
    context = get_context("spawn")
    with context.Manager() as manager, context.Pool(options.processes) as pool:
        start = manager.Barrier(options.processes)
        jobs = [(options, number, start) for number in range(options.processes)]
        results = pool.starmap(run, jobs, chunksize=1)
    rate = sum(tiles / wall_s for tiles, wall_s, _ in results)
    cpu_s = sum(cpu_s for *_, cpu_s in results) / sum(tiles for tiles, *_ in results)
    print(json.dumps({"tiles_per_s": rate, "cpu_s_per_tile": cpu_s}))


if __name__ == "__main__":
    main()
