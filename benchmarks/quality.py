"""`python benchmarks/quality.py`: the cost of `histo label --quality`, in CPU-seconds per tile, and its share of a run.

Whole label runs of a fabricated slide with EfficientNet-lite0, with the flag and without, interleaved; figures are
medians. Linux only.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

import machine
from fixture import LITE0, make_bundle, make_slide
from job import label


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge-px", type=int, default=28_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="float32")
    given = parser.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide, places = make_slide(folder / "slide", given.edge_px)
        bundle = make_bundle(folder / "bundle", LITE0)
        costs: dict[str, list[float]] = {"without": [], "with": []}
        for _ in range(given.rounds):
            for kind, flags in (("without", []), ("with", ["--quality"])):
                flags += ["--precision", given.precision]
                costs[kind].append(label(slide, bundle, folder, *flags, tiles=len(places)).cpu_s / len(places))
    plain, measured = (median(values) for values in costs.values())
    print(f"{len(places)} tiles, {given.rounds} rounds, medians")
    print(
        f"CPU-s per tile: without {plain:.5f}, with {measured:.5f}; share of the run {(measured - plain) / plain:.1%}"
    )


if __name__ == "__main__":
    main()
