"""How training batches get to a worker: a DataLoader inside it, or Ray Data. `python benchmarks/batches.py`.

Fabricated tiles of 224 px (PNG) to batches of 32 uint8 images in an order that the seed gives, as training needs it;
nothing is done with them. Rates are those of the second pass and later, interleaved.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from histo.demo.fabricate import fabricate_tiles
from histo.learn.data.source import Source, read_sources
from histo.learn.fit.batch_order import BatchOrder
from histo.learn.fit.batches import ImageBatches

BATCH = 32
Pass = Callable[[int], Iterator[Any]]


def loader(source: Source, processes: int) -> Pass:
    """Return passes through the stream that training uses."""
    order = BatchOrder(tuple(range(len(source.cases))), BATCH)
    return ImageBatches(source, order, 224, loaders=processes).batches


def ray_data(source: Source) -> Pass:
    """Return passes through a Ray Data graph that loads the same images in the same order."""
    order = BatchOrder(tuple(range(len(source.cases))), BATCH)
    held = ray.put(source)

    def load(rows: dict[str, Any]) -> dict[str, Any]:
        known = ray.get(held)
        cases = rows["case"].tolist()
        images = np.stack([known.images.load(i) for i in cases])
        return {"image": images, "label": np.array([known.cases[i].label for i in cases])}

    def batches(epoch: int) -> Iterator[Any]:
        cases = [{"case": case} for batch in order.global_batches(epoch) for case, _ in batch]
        data = ray.data.from_items(cases, override_num_blocks=-(-len(cases) // BATCH))
        return iter(data.map_batches(load, batch_size=BATCH).iter_torch_batches(batch_size=BATCH))

    return batches


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--tiles-per-class", type=int, default=60)
    options = parser.parse_args()
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    ray.data.DataContext.get_current().enable_progress_bars = False
    rates: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        fabricate_tiles(Path(folder) / "tiles", options.tiles_per_class, seed=0)
        source = read_sources([Path(folder) / "tiles"])
        ways = {
            "DataLoader, in the worker": loader(source, 0),
            "DataLoader, 1 process": loader(source, 1),
            "DataLoader, 2 processes": loader(source, 2),
            "Ray Data, 2 CPUs": ray_data(source),
        }
        for number in range(options.passes):
            for name, batches in ways.items():
                start = time.perf_counter()
                steps = sum(1 for _ in batches(number))
                assert steps == -(-len(source.cases) // BATCH), "every image once"
                if number:
                    rates[name].append(len(source.cases) / (time.perf_counter() - start))
    ray.shutdown()
    print(f"{platform.machine()}, Python {platform.python_version()}, ray {ray.__version__}, torch {torch.__version__}")
    print("| way | images/s, median | min | max |\n|---|---|---|---|")
    for name, values in rates.items():
        print(f"| {name} | {statistics.median(values):.0f} | {min(values):.0f} | {max(values):.0f} |")


if __name__ == "__main__":
    main()
