"""`python benchmarks/runtimes.py`: what runs a network fastest on a CPU, and how its probabilities differ from torch's.

ImageNet weights where they are at hand (the default backbone), random ones otherwise; a random head of three classes;
64 fabricated tiles of 224 px. Each way has a process of its own, since they change how memory is given out; rounds are
interleaved, medians are shown. Eager is torch as a plain script has it (NCHW, float32). On a shared machine,
CPU time with one thread is the figure to look at. ONNX Runtime takes part where it and onnx are installed.
"""

import argparse
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from importlib.util import find_spec
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from histo.demo.bundle import random_bundle
from histo.demo.textures import paint
from histo.learn.bundle import read_bundle
from histo.learn.conversion import convert
from histo.learn.network.model import Network, load_network
from histo.learn.network.spec import InferencePrecision
from histo.learn.openvino.core import has_bf16
from histo.learn.openvino.record import FOLDER
from histo.learn.predict.load import load_predictor
from histo.learn.predict.openvino_predictor import OpenVinoPredictor
from histo.resample import Pixels

Run = Callable[[Pixels], npt.NDArray[Any]]
SIZE, TILES = 224, 64
EAGER, CHANNELS_LAST, ONNX = "torch eager float32", "torch channels-last float32", "ONNX Runtime float32"
FLOAT32, BF16 = "OpenVINO float32", "OpenVINO bf16"


class Plain(nn.Module):
    """The network as a plain script has it: `(n, size, size, 3)` to probabilities, in torch's default memory format."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, tiles_BHWC: torch.Tensor) -> torch.Tensor:
        """Return probabilities, `(n, classes)`."""
        pixels_BCHW = tiles_BHWC.permute(0, 3, 1, 2).float().contiguous()
        normal_BCHW = (pixels_BCHW - self.network.get_buffer("mean")) / self.network.get_buffer("std")
        return self.network.head(self.network.backbone(normal_BCHW), 1).softmax(dim=1)  # type: ignore[no-any-return]


def eager(bundle: Path) -> Run:
    """Run torch as it is."""
    plain = Plain(load_network(bundle, read_bundle(bundle))).eval()

    @torch.inference_mode()
    def run(tiles: Pixels) -> npt.NDArray[Any]:
        return plain(torch.from_numpy(tiles)).numpy()  # type: ignore[no-any-return]

    return run


def onnx_runtime(bundle: Path, threads: int, batch: int) -> Run:
    """Run ONNX Runtime in float32."""
    import onnxruntime  # noqa: PLC0415 -- not a dependency

    plain = Plain(load_network(bundle, read_bundle(bundle))).eval()
    example = torch.zeros((batch, SIZE, SIZE, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(plain, (example,), str(bundle / "model.onnx"), dynamo=False, opset_version=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tiles: session.run(None, {name: tiles})[0]


def openvino(bundle: Path, threads: int, batch: int, precision: InferencePrecision) -> Run:
    """Run the converted form, also where its agreement was not measured."""
    return OpenVinoPredictor(read_bundle(bundle), bundle / FOLDER, threads, batch, precision)


def make(name: str, bundle: Path, threads: int, batch: int) -> Run:
    """Return one of the ways that are compared."""
    torch.set_num_threads(threads)
    if name == EAGER:
        return eager(bundle)
    if name == CHANNELS_LAST:
        return load_predictor(bundle, threads=threads, batch_size=batch, openvino=bundle / "none")
    if name == ONNX:
        return onnx_runtime(bundle, threads, batch)
    return openvino(bundle, threads, batch, "bf16" if name == BF16 else "float32")


_RUNS: list[Run] = []
"""What the process of one way runs."""


def begin(name: str, bundle: Path, threads: int, batch: int) -> None:
    """Make a way ready, in its process."""
    _RUNS.append(make(name, bundle, threads, batch))


def once(tiles: Pixels, batch: int) -> tuple[npt.NDArray[Any], float, float]:
    """Run all tiles in its process; probabilities, seconds, and CPU seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    parts = [_RUNS[0](tiles[start : start + batch]) for start in range(0, len(tiles), batch)]
    return np.concatenate(parts), time.perf_counter() - wall, time.process_time() - cpu


def compare(bundle: Path, threads: int, batch: int, rounds: int) -> None:
    """Print one row for each way."""
    random = np.random.default_rng(0)
    tiles = np.stack([paint(name, SIZE, SIZE, random) for name in ("TUM", "STR", "MUS", "LYM") * (TILES // 4)])
    possible = {ONNX: find_spec("onnxruntime") and find_spec("onnx"), BF16: has_bf16()}
    names = [name for name in (EAGER, CHANNELS_LAST, ONNX, FLOAT32, BF16) if possible.get(name, True)]
    pools = {name: ProcessPoolExecutor(1, get_context("spawn")) for name in names}
    for name, pool in pools.items():
        pool.submit(begin, name, bundle, threads, batch).result()
    expected = {name: pool.submit(once, tiles, batch).result()[0] for name, pool in pools.items()}
    timed = [
        {name: pool.submit(once, tiles, batch).result()[1:] for name, pool in pools.items()} for _ in range(rounds)
    ]
    for name, pool in pools.items():
        wall, cpu = (statistics.median(r[name][i] for r in timed) for i in (0, 1))
        faster, cheaper = (statistics.median(r[EAGER][i] / r[name][i] for r in timed) for i in (0, 1))
        difference = np.abs(expected[name] - expected[EAGER]).max()
        print(
            f"| {bundle.parent.name} | {threads} | {batch} | {name} | {TILES / wall:.0f} | {faster:.1f} | "
            f"{1000 * cpu / TILES:.1f} | {cheaper:.1f} | {difference:.1g} |",
            flush=True,
        )
        pool.shutdown()


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=["tf_efficientnet_lite0", "resnet18"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 16, 32])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    packages = [name for name in ("torch", "openvino", "onnxruntime") if find_spec(name)]
    print(f"{platform.machine()}, {', '.join(f'{name} {metadata.version(name)}' for name in packages)}")
    print(
        "| network | threads | batch | runtime | tiles/s | times eager | CPU ms a tile | eager's / its | difference |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for backbone in options.backbones:
            bundle = random_bundle(Path(folder) / backbone, backbone, SIZE)
            convert(bundle)
            for threads, batch in product(options.threads, options.batches):
                compare(bundle, threads, batch, options.rounds)


if __name__ == "__main__":
    main()
