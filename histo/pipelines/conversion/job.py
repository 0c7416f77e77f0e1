"""Convert a bundle, and measure the agreement of bfloat16 on tiles."""

from pathlib import Path

from histo.errors import UsageError
from histo.learn.bundle import find_bundle, read_bundle
from histo.learn.data.sampling import load_evenly
from histo.learn.data.source import Source, read_sources
from histo.learn.openvino.record import FOLDER
from histo.pipelines.conversion.spec import ConvertSpec
from histo.pipelines.training.finished_run import find_run
from histo.resample import Pixels
from histo.run.placement import usable_cpus
from histo.run.say import say


def convert_run(spec: ConvertSpec) -> int:
    """Convert a bundle, or that of a training run; returns the exit code.

    Raises:
        HistoError: If the bundle or the data are bad, the network cannot be converted, or the bundle not be written.
    """
    model = find_bundle(spec.model, spec.epoch)
    seen = read_bundle(model).input
    source = _source(spec, model)
    tiles = None if source is None else _load(source, seen.size_px, spec.tiles)
    from histo.learn.conversion import convert as convert_bundle  # noqa: PLC0415 -- it loads torch and OpenVINO
    from histo.learn.openvino.core import has_bf16  # noqa: PLC0415 -- likewise

    if tiles is None:
        say(f"no {seen.layout.noun} to measure bf16 on: give --data, or the training run of {model}")
    elif not has_bf16():
        say("this CPU has no bfloat16: how well it agrees can be measured on another machine only")
    try:
        conversion = convert_bundle(model, tiles=tiles, threads=spec.workers or usable_cpus())
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


def _load(source: Source, size_px: int, most: int) -> Pixels:
    tiles, broken = load_evenly(source, size_px, most)
    for error in broken:
        say(f"left out: {error}")
    return tiles
