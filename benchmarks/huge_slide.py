"""`python benchmarks/huge_slide.py`: seconds and memory that planning takes on slides of up to 200,000 x 200,000 px.

The slides are fabricated: JPEG of quality 90, 0.25 µm/px, 60 blocks of tissue on glass. Each is planned in a process of
its own, for tiles of 224 px at 0.5 µm/px; memory is the peak above what the imports take. Linux only.
"""

import platform
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from from_tests import write_huge

from histo.slides.plan import plan_slide
from histo.slides.slide import open_slide
from histo.slides.spec import TilingSpec, TissueSpec

PYRAMID = (1, 4, 16, 64)
SLIDES = ((25_000, (1,)), (100_000, (1,)), (100_000, PYRAMID), (200_000, PYRAMID))


def peak_mb() -> float:
    """Return the greatest memory that this process has held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) / 1024


def measure(path: str) -> tuple[float, float]:
    """Plan a slide; return seconds and MB."""
    before, start = peak_mb(), time.perf_counter()
    plan_slide(*open_slide(path, reader="auto"), 224, 0.5, TilingSpec(), TissueSpec())
    return time.perf_counter() - start, peak_mb() - before


def main() -> None:
    """Print one table, row by row."""
    print(f"{platform.machine()}, Python {platform.python_version()}")
    print("| slide, px | levels | file, MB | seconds | peak, MB |\n|---|---|---|---|---|")
    for edge, downsamples in SLIDES:
        tissue = [(edge // 256 * x // 10, edge // 256 * y // 6) for x in range(10) for y in range(6)]
        with (
            tempfile.TemporaryDirectory() as folder,
            ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
        ):
            path = write_huge(Path(folder) / "huge.tif", edge, edge, tissue, downsamples)
            seconds, mb = process.submit(measure, str(path)).result()
            size = path.stat().st_size / 1e6
        print(f"| {edge} x {edge} | {len(downsamples)} | {size:.1f} | {seconds:.1f} | {mb:.0f} |", flush=True)


if __name__ == "__main__":
    main()
