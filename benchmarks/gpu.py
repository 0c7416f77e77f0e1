"""`python benchmarks/gpu.py`: tiles per second of a network on a GPU, in float32 and bfloat16, and what overlap gains.

The default backbone with a random head, 224 px, tiles of noise in memory that is not pinned, as a reader gives them.
Rounds are interleaved, medians are shown. Part of `make check-gpu`.
"""

import argparse
import statistics
import tempfile
import time
from itertools import repeat
from pathlib import Path

import numpy as np
import torch

from histo.demo.bundle import random_bundle
from histo.learn.network.spec import DEFAULT_BACKBONE
from histo.learn.predict.torch_predictor import TorchPredictor
from histo.resample import Pixels

SIZE = 224


def rate(predict: TorchPredictor, tiles: Pixels, batches: int) -> float:
    """Return tiles per second over several batches."""
    start = time.perf_counter()
    for _ in predict.over(repeat(tiles, batches)):
        pass
    return batches * len(tiles) / (time.perf_counter() - start)


def copy_rate(tiles: Pixels, batches: int) -> float:
    """Return tiles per second that are only copied, from pinned memory to the device."""
    pinned = torch.from_numpy(tiles).pin_memory()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(batches):
        pinned.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    return batches * len(tiles) / (time.perf_counter() - start)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=[DEFAULT_BACKBONE])
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {SIZE} px")
    print("| network | precision | batch found | tiles/s | without overlap | overlap gains | copy alone |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for backbone in options.backbones:
            bundle = random_bundle(Path(folder) / backbone, backbone, SIZE)
            for precision in ("float32", "bf16"):
                both = TorchPredictor(bundle, "cuda", None, precision)
                one = TorchPredictor(bundle, "cuda", both.batch_size, precision)
                one.depth = 1
                tiles = np.random.default_rng(0).integers(0, 256, (both.batch_size, SIZE, SIZE, 3), np.uint8)
                pairs = [tuple(rate(p, tiles, options.batches) for p in (both, one)) for _ in range(options.rounds + 1)]
                two, alone = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
                copied = copy_rate(tiles, options.batches)
                rates = f"{two:.0f} | {alone:.0f} | {two / alone:.2f} | {copied:.0f}"
                print(f"| {backbone} | {precision} | {both.batch_size} | {rates} |", flush=True)


if __name__ == "__main__":
    main()
