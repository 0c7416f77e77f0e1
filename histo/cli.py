"""Command `histo`: the same jobs as in `jobs/`, and `histo demo`.

Exit codes: 0 all done; 2 wrong usage or configuration; 3 finished, but some slides or studies are `failed` or
`partial`; 1 anything else.
"""

import atexit
import difflib
import gc
import io
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import histo
from histo.errors import HistoError
from histo.job_environment import job_environment
from histo.run.say import complain, say
from histo.spec.base import Spec
from histo.spec.command_line import read_spec

_MOST_SAID = 500
"""Letters of a foreign error's own words in a line."""


class _Job(NamedTuple):
    """A job, whose modules are imported only where it is asked for."""

    function: str
    """Module and name of the function that runs it."""
    spec: str
    """Module and name of its settings' class; the module loads nothing heavy."""
    meaning: str


_JOBS = {
    "train": _Job(
        "histo.pipelines.train:train",
        "histo.pipelines.training.spec:TrainSpec",
        "fine-tune a pretrained network on labelled tiles",
    ),
    "crossval": _Job(
        "histo.pipelines.crossval:crossval",
        "histo.pipelines.training.spec:CrossvalSpec",
        "train once for each fold, and predict each with the run that did not see it",
    ),
    "plan": _Job(
        "histo.pipelines.plan:plan",
        "histo.pipelines.planning.spec:PlanSpec",
        "look at slides before they are labelled: tiles, failures, disk, time",
    ),
    "label": _Job(
        "histo.pipelines.label:label",
        "histo.pipelines.labelling.spec:LabelSpec",
        "write class probabilities for every tile of every slide",
    ),
    "evaluate": _Job(
        "histo.pipelines.evaluate:evaluate",
        "histo.pipelines.evaluation.spec:EvaluateSpec",
        "measure a bundle on labelled tiles, with pictures",
    ),
    "report": _Job(
        "histo.pipelines.report:report",
        "histo.pipelines.pictures.spec:ReportSpec",
        "draw every slide of a label run, and its class map for QuPath",
    ),
    "export geojson": _Job(
        "histo.pipelines.export_geojson:export_geojson",
        "histo.pipelines.exports.spec:ExportGeojsonSpec",
        "write tiles or regions of a label run for QuPath",
    ),
    "export geoparquet": _Job(
        "histo.pipelines.export_tables:export_geoparquet",
        "histo.pipelines.exports.spec:ExportGeoparquetSpec",
        "write tile tables with outlines for geopandas, DuckDB and QGIS",
    ),
    "export wsinfer": _Job(
        "histo.pipelines.export_tables:export_wsinfer",
        "histo.pipelines.exports.spec:ExportWsinferSpec",
        "write labels in the layout of WSInfer's results",
    ),
    "convert": _Job(
        "histo.pipelines.convert:convert",
        "histo.pipelines.conversion.spec:ConvertSpec",
        "make a bundle ready for CPUs, and measure whether bfloat16 may be used",
    ),
    "prepare tiles": _Job(
        "histo.pipelines.prepare_tiles:prepare_tiles",
        "histo.pipelines.tiles.spec:PrepareTilesSpec",
        "gather labelled tiles in one table, or cut them from annotated slides",
    ),
    "prepare volumes": _Job(
        "histo.pipelines.prepare_volumes:prepare_volumes",
        "histo.pipelines.studies.prepare_spec:PrepareVolumesSpec",
        "make volumes of one shape of MRI or CT studies",
    ),
    "demo": _Job(
        "histo.demo.run:demo",
        "histo.demo.spec:DemoSpec",
        "train and label on fabricated tiles and slides, and compare with the truth",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `histo JOB ...`; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for words in (1, 2):
        job = " ".join(arguments[:words])
        if job in _JOBS:
            return run_job(job, arguments[words:], prog=f"histo {job}")
    if arguments == ["--version"]:
        say(f"histo {histo.__version__}")
        return 0
    jobs = "\n".join(f"  histo {name:18}{job.meaning}" for name, job in _JOBS.items())
    usage = f"usage: histo JOB [--help] [--config FILE.yaml] [--any.field value ...]\n\n{jobs}"
    if arguments and arguments[-1] in ("-h", "--help"):
        of = [line for line in jobs.splitlines() if line.split()[1] == arguments[0]]
        if len(arguments) == 1 or of:
            say(
                "\n".join(["usage: histo JOB [--help] [--config FILE.yaml] [--any.field value ...]", "", *of])
                if of
                else usage
            )
            return 0
    trouble = f"unknown job {' '.join(arguments[:2])!r}{_nearest(arguments)}" if arguments else "which job?"
    complain(f"histo: {trouble}\n{usage}")
    return 2


def _nearest(arguments: Sequence[str]) -> str:
    """Say which job may be meant: one like the words that were typed, or those that begin with the first of them."""
    likely = difflib.get_close_matches(" ".join(arguments[:2]), _JOBS, n=1, cutoff=0.8) if len(arguments) > 1 else []
    begun = [job for job in _JOBS if job.split()[0] == arguments[0]]
    near = likely or begun or difflib.get_close_matches(arguments[0], _JOBS, n=1)
    return f"; did you mean {' or '.join(f'histo {job}' for job in near)}?" if near else ""


def run_job(name: str, argv: Sequence[str], prog: str) -> int:
    """Read the settings of one job and run it; whatever ends it early becomes one line and an exit code.

    SIGTERM, which `ray job stop` and batch systems send, does what Ctrl-C does. An error that no person can act on is a
    mistake of histo's: its traceback goes to a file.
    """
    _collect_garbage_rarely()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # where there is no µ, it is an escape
    try:
        with _stopped_by_sigterm(), job_environment():
            spec = read_spec(_spec_of(name), argv, prog, _specs)
            return int(_named(_JOBS[name].function)(spec))
    except HistoError as error:
        complain(f"{prog}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        complain(f"{prog}: interrupted")
        return 1
    except MemoryError:
        complain(f"{prog}: there is not enough memory; give it more, or less to do at a time")
        return 1
    except Exception as error:  # noqa: BLE001 -- the boundary: what comes here is told in one line as well
        complain(f"{prog}: {_mistake(error)}")
        return 1


def _collect_garbage_rarely() -> None:
    """Spare imports and the end of the process the search for cycles of objects: 0.6 of the 3.5 CPU-seconds of a start.

    Loading Ray Data alone makes some hundred thousand objects that stay.
    """
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)


def _mistake(error: Exception) -> str:
    """Write the traceback of a mistake of histo's to a file, and say where it is."""
    said = " ".join(str(error).split())
    what = f"{type(error).__name__}: {said[:_MOST_SAID]}" if said else type(error).__name__
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="histo-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            traceback.print_exception(error, file=file)
    except OSError:
        traceback.print_exception(error)
        return f"{what}; this is a mistake of histo's, please report it with the lines above"
    return f"{what}; this is a mistake of histo's, please report it with {file.name}"


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _named(place: str) -> Any:
    """Import a module, and return what has the name behind the colon."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _spec_of(name: str) -> type[Spec]:
    spec: type[Spec] = _named(_JOBS[name].spec)
    return spec


def _specs() -> Mapping[str, type[Spec]]:
    return {f"histo {name}": _spec_of(name) for name in _JOBS}
