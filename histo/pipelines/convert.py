"""Convert: bundle -> its converted form, and how well bfloat16 agrees with float32 on tiles."""

import math
import os
from pathlib import Path

import numpy as np
from pydantic import Field

from histo.errors import ImageError, UsageError
from histo.learn.bundle import find_bundle, read_bundle
from histo.learn.converted import FOLDER
from histo.learn.source import Source, read_sources
from histo.learn.subset import evenly
from histo.pipelines.past_run import find_run
from histo.pipelines.say import say
from histo.resample import Pixels
from histo.spec import AbsolutePath, AbsolutePaths, Spec

_MOST_VALUES = 2**30


class ConvertSpec(Spec):
    """Convert a bundle for OpenVINO, and measure on tiles whether it may be run in bfloat16. Training does it too."""

    model: AbsolutePath
    """Model bundle (a folder), or a training run, of which the best bundle is taken."""
    epoch: int | None = Field(None, ge=1)
    """Which epoch of the training run in --model; default: its best."""
    data: AbsolutePaths = Field([])
    """Tiles like those that will be labelled: any source that training takes; their labels are not used.
    Default: the validation images of the training run, if it is still there."""
    tiles: int = Field(1000, ge=1)
    """At most so many tiles are measured, evenly taken."""
    workers: int | None = Field(None, ge=1)
    """Threads; default: one for each CPU."""


def convert(spec: ConvertSpec) -> int:
    """Run a conversion job; returns the exit code.

    Raises:
        HistoError: If the bundle or the data are bad, the network cannot be converted, or the bundle not be written.
    """
    model = find_bundle(spec.model, spec.epoch)
    seen = read_bundle(model).input
    source = _source(spec, model)
    tiles = None if source is None else load_evenly(source, seen.size_px, spec.tiles)
    from histo.learn.conversion import convert as convert_bundle  # noqa: PLC0415 -- it loads torch and OpenVINO
    from histo.learn.runtime import has_bf16  # noqa: PLC0415 -- likewise

    if tiles is None:
        say(f"no {seen.layout.noun} to measure bf16 on: give --data, or the training run of {model}")
    elif not has_bf16():
        say("this CPU has no bfloat16: how well it agrees can be measured on another machine only")
    try:
        conversion = convert_bundle(model, tiles=tiles, threads=spec.workers or cpu_count())
    except OSError as error:
        raise UsageError(
            f"--model {model}: cannot be written ({error.strerror or error}); copy the bundle and convert the copy"
        ) from error
    say(f"{model / FOLDER}: {conversion}")
    return 0


def _source(spec: ConvertSpec, model: Path) -> Source | None:
    """Return where tiles are to be had; None if nowhere."""
    bundle = read_bundle(model)
    if spec.data:
        return read_sources(spec.data, numbers=bundle.classes)
    run = find_run(spec.model, bundle)
    if run is None:
        return None
    try:
        return run.part("val")[0]
    except UsageError as error:
        say(error)
        return None


def load_evenly(source: Source, size_px: int, most: int) -> Pixels:
    """Load at most so many images of a source, and at most a gigabyte, evenly taken, those that are broken left out.

    Returns:
        uint8, `(n, *layout.shape(size_px))`.
    """
    layout = source.images.layout
    shape = layout.shape(size_px)
    tiles = []
    for case in evenly(np.arange(len(source.cases)), min(most, max(1, _MOST_VALUES // math.prod(shape)))).tolist():
        try:
            tiles.append(layout.fit(source.images.load(case), size_px))
        except ImageError as error:
            say(f"left out: {error}")
    return np.stack(tiles) if tiles else np.empty((0, *shape), np.uint8)


def cpu_count() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
