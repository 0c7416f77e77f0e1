"""`make bench-train`: images per second of training, histo beside a plain torchrun script, two workers, interleaved.

Fabricated tiles of 224 px, the same images and steps for both. Rates are those of the second epoch and later, so that
no start counts; each figure is the median over all of them. Also an epoch on cached features against one on images.
"""

import argparse
import csv
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import torch

from histo.cli import main as histo
from histo.demo.fabricate import fabricate_tiles

WORKERS = 2
PLAIN = Path(__file__).with_name("plain_train.py")


def plain(data: Path, out: Path, mode: str, epochs: int) -> list[float]:
    """Train with the plain script; returns images per second of every epoch."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(WORKERS)]
    command = [*torchrun, str(PLAIN), str(data), str(out), mode, str(epochs)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 -- our own script
    rates: list[float] = json.loads(out.read_text())
    return rates


def ours(data: Path, out: Path, mode: str, epochs: int, preset: str) -> list[float]:
    """Train with histo on the same images; returns images per second of every epoch."""
    other = "tune" if mode == "head" else "head"
    flags = {
        "data": data, "out": out, "workers": WORKERS,
        f"fit.{mode}.epochs": epochs, f"fit.{other}.epochs": 0, "augment.preset": preset,
    }  # fmt: skip
    code = histo(["train", *(word for name, value in flags.items() for word in (f"--{name}", str(value)))])
    if code:
        raise SystemExit(code)
    return [json.loads(line)["images_per_second"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def fabricate(folder: Path, tiles_per_class: int) -> tuple[Path, Path]:
    """Fabricate class folders of training tiles, and a manifest of these and of one validation tile of each class."""
    fabricate_tiles(folder / "train", tiles_per_class, seed=0)
    fabricate_tiles(folder / "val", 1, seed=1)
    manifest = folder / "tiles.csv"
    with manifest.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for path in sorted(folder.glob("*/*/*.png")):
            rows.writerow([path, path.parent.name, path.parent.parent.name])
    return folder / "train", manifest


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--tiles-per-class", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folders, manifest = fabricate(Path(folder) / "tiles", options.tiles_per_class)
        rates: dict[str, list[float]] = defaultdict(list)
        for number in range(options.rounds):
            for mode in ("head", "tune"):
                place = Path(folder) / f"{mode}{number}"
                rates[f"{mode}, plain"] += plain(folders, place.with_suffix(".json"), mode, options.epochs)[1:]
                rates[f"{mode}, histo"] += ours(manifest, place, mode, options.epochs, "original")[1:]
            cached = ours(manifest, Path(folder) / f"cached{number}", "head", options.epochs, "none")
            rates["head, histo, cached features"] += cached[1:]
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, {WORKERS} x 1 thread")
    print("| phase | images/s, median | min | max |\n|---|---|---|---|")
    for name, values in rates.items():
        print(f"| {name} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |")
    for mode in ("head", "tune"):
        ratio = statistics.median(rates[f"{mode}, histo"]) / statistics.median(rates[f"{mode}, plain"])
        print(f"{mode}: histo / plain = {ratio:.2f}")
    gain = statistics.median(rates["head, histo, cached features"]) / statistics.median(rates["head, plain"])
    print(f"an epoch on cached features is {gain:.0f} times as fast as the plain script's on images")


if __name__ == "__main__":
    main()
