"""`python benchmarks/label_scaling.py [slides] [workers]`: ten slides against one, and two workers against one.

`slides`: CPU-seconds per tile after the start, of one slide and of ten such. `workers`: tiles per second after the
start, of one worker on one core and of two on two, beside plain processes that read and classify without Ray (see
`alone.py`), placed likewise. EfficientNet-lite0; rounds are interleaved, and figures are medians. Linux only.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import machine
from cost import measure
from fixture import LITE0, make_bundle, make_slide
from job import HEADER, ROOT, Job, label

FEW_PX = 2048
SLIDES = 10
PIN = ("taskset", "--cpu-list")
CORES = {1: "0", 2: "0,1"}
"""Where so many workers, or processes, run."""


def many_slides(folder: Path, bundle: Path, edge_px: int, rounds: int, flags: list[str]) -> None:
    """Label one slide, and a folder of ten copies that differ in a byte."""
    (few, few_places), (slide, places) = make_slide(folder / "few", FEW_PX), make_slide(folder / "one", edge_px)
    ten = folder / "ten"
    ten.mkdir()
    for number in range(SLIDES):
        (ten / f"{number}.svs").write_bytes(slide.read_bytes() + bytes([number]))
    sets = {"1 slide": (slide, len(places)), f"{SLIDES} slides": (ten, SLIDES * len(places))}
    jobs = {name: Job(name, len(few_places), tiles) for name, (_, tiles) in sets.items()}
    for _ in range(rounds):
        start = label(few, bundle, folder, *flags, tiles=len(few_places))
        for name, (slides, tiles) in sets.items():
            jobs[name].few.append(start)
            jobs[name].many.append(label(slides, bundle, folder, *flags, tiles=tiles))
    print(HEADER)
    for job in jobs.values():
        print(job.row())
    one, several = (job.steady_cpu_s for job in jobs.values())
    print(f"\n{SLIDES} slides against 1, CPU-seconds per tile after the start: {several / one:.3f}\n")


def workers(folder: Path, bundle: Path, edge_px: int, rounds: int, flags: list[str]) -> None:
    """Label a slide with one worker and with two, and with as many plain processes."""
    (few, few_places), (slide, places) = (
        make_slide(folder / kind, edge) for kind, edge in (("few", FEW_PX), ("slide", edge_px))
    )
    jobs = {count: Job(f"workers: {count}", len(few_places), len(places)) for count in CORES}
    plain: dict[int, list[float]] = {count: [] for count in CORES}
    alone: list[str | Path] = [
        sys.executable,
        ROOT / "benchmarks" / "alone.py",
        "both",
        "--slide",
        slide,
        "--model",
        bundle,
    ]
    for _ in range(rounds):
        for count, cores in CORES.items():
            job, pin, more = jobs[count], (*PIN, cores), (*flags, "--workers", str(count))
            job.few.append(label(few, bundle, folder, *more, tiles=job.few_tiles, prefix=pin))
            job.many.append(label(slide, bundle, folder, *more, tiles=job.tiles, prefix=pin))
            command = [*pin, *alone, *flags, "--processes", str(count), "--seconds", "15"]
            output = measure(command, {"PYTHONPATH": str(ROOT)}).output
            plain[count].append(json.loads(output.splitlines()[-1])["tiles_per_s"])
    print(HEADER)
    for job in jobs.values():
        print(job.row())
    for count, rates in plain.items():
        print(f"| plain processes: {count} | | | {median(rates):.1f} | | | | |")
    gain, plain_gain = jobs[1].steady_s / jobs[2].steady_s, median(plain[2]) / median(plain[1])
    print(f"\n2 workers against 1: {gain:.2f}; plain processes: {plain_gain:.2f}; ratio {gain / plain_gain:.2f}\n")


def main() -> None:
    """Measure what is asked for, or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["slides", "workers", []])
    parser.add_argument("--edge-px", type=int, default=28_000, help="of each slide")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    print(f"{machine.describe()}\n- medians of {options.rounds} rounds\n")
    measures = {"slides": many_slides, "workers": workers}
    for part in options.parts or measures:
        with tempfile.TemporaryDirectory() as name:
            bundle = make_bundle(Path(name) / "bundle", LITE0)
            flags = ["--precision", options.precision]
            measures[part](Path(name), bundle, options.edge_px, options.rounds, flags)


if __name__ == "__main__":
    main()
