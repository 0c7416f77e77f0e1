"""`python benchmarks/augment.py`: images per second of each preset, one thread, interleaved, medians.

Batches of 32 fabricated tiles of 224 px.
"""

import platform
import statistics
import time

import numpy as np
import torch

from histo.demo.textures import paint
from histo.learn.fit.augment import augment
from histo.learn.fit.augment_spec import PRESETS, AugmentSpec

WARM_UP = 3
ROUNDS = 15
BATCH = 32


def main() -> None:
    """Print one table."""
    torch.set_num_threads(1)
    tiles = [paint("TUM", 224, 224, np.random.default_rng(number)) for number in range(BATCH)]
    images = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).contiguous()
    specs = {preset: AugmentSpec.model_validate({"preset": preset}) for preset in PRESETS if preset != "none"}
    seconds: dict[str, list[float]] = {name: [] for name in specs}
    for epoch in range(WARM_UP + ROUNDS):
        keys = [(0, epoch, sample) for sample in range(BATCH)]
        for name, spec in specs.items():
            start = time.perf_counter()
            augment(images, spec, keys)
            if epoch >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, 1 thread")
    print("| preset | images/s, median | min | max |\n|---|---|---|---|")
    for name, times in seconds.items():
        rates = sorted(BATCH / value for value in times)
        print(f"| {name} | {statistics.median(rates):.0f} | {rates[0]:.0f} | {rates[-1]:.0f} |")


if __name__ == "__main__":
    main()
