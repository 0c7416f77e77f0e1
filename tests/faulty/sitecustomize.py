"""Makes readers do to their process what a native decoder may do. Python imports it where this folder is on PYTHONPATH.

The name of a slide, or of the folder of a study or of a class, says what happens: `WHAT-WHERE...`. WHERE is `tiles` or
`mask`, or `study` or `class` for a worker that opens a file in such a folder. WHAT is `crash` (segmentation fault),
`hang`, `killed` (as by a system without memory), `once` (killed the first time only) or `slow` (each read takes
`SLOW_S` seconds). With `LOGICAL_GPUS` what is placed on a GPU computes on a CPU.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import openslide

TILE_PX = (192, 192)
"""What a tile of 96 px at 0.5 µm per pixel is at 0.25."""

_read_region = openslide.OpenSlide.read_region


def read_region(slide: Any, location: tuple[int, int], level: int, size: tuple[int, int]) -> Any:
    what, _, where = Path(slide._filename).name.partition("-")
    if where.startswith("tiles" if size == TILE_PX else "mask"):
        misbehave(what, Path(slide._filename))
    return _read_region(slide, location, level, size)


def misbehave(what: str, path: Path) -> None:
    match what:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(10_000)
        case "slow":
            time.sleep(float(os.environ["SLOW_S"]))
        case "once":
            mark = Path(os.environ["FAULTS"]) / path.name
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)


openslide.OpenSlide.read_region = read_region  # type: ignore[method-assign, assignment] # on purpose

if "LOGICAL_GPUS" in os.environ:
    from histo.run.placement import Placement

    Placement.torch_device = "cpu"  # type: ignore[method-assign, assignment] # GPUs that Ray alone believes in


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and arguments[0].endswith((".nii.gz", ".png")):
        folder = Path(arguments[0]).parent
        what, _, where = folder.name.partition("-")
        if where.startswith(("study", "class")):
            misbehave(what, folder)


if "jobs" not in Path(sys.argv[0]).parts:  # the driver lists files, and decodes none
    sys.addaudithook(watch)
