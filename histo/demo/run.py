"""Fabricate tiles and slides, fine-tune, label, and compare with the truth."""

import shlex
import time
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from histo.demo.fabricate import CLASSES, MPP, SlideTruth, fabricate_slides, fabricate_tiles
from histo.demo.spec import DemoSpec
from histo.errors import HistoError, UsageError
from histo.pipelines.label import label
from histo.pipelines.labelling.spec import LabelSpec
from histo.pipelines.pictures.spec import ReportSpec
from histo.pipelines.report import report
from histo.pipelines.train import train
from histo.pipelines.training.spec import TrainSpec
from histo.spec.base import SpecType
from histo.spec.command_line import read_spec

PROMISE = 0.95
"""Share of the tiles wholly in one class that must be labelled right."""


def demo(spec: DemoSpec) -> int:
    """Run the demonstration; returns 0 if it keeps its promise.

    Raises:
        HistoError: If the folder holds a demo already, or one of the jobs cannot go on.
    """
    if (spec.out / "run").exists():
        raise UsageError(f"--out {spec.out}: already holds a demo; remove it, or give another folder")
    start = time.monotonic()
    print("fabricating tiles and slides (drawn from a seed, nothing of it is real tissue)", flush=True)
    fabricate_tiles(spec.out / "tiles", spec.tiles_per_class, spec.seed)
    truths = fabricate_slides(spec.out / "slides", spec.seed + 1)
    run, out = spec.out / "run", spec.out / "labels"
    phases = {"augment.preset": "none", "fit.head.epochs": spec.epochs, "fit.tune.epochs": 0}
    _show_and_run(train, TrainSpec, data=spec.out / "tiles", out=run, mpp=0.5, **phases)
    _show_and_run(label, LabelSpec, slides=spec.out / "slides", model=run / "model", out=out, **{"mpp-if-missing": MPP})
    _show_and_run(report, ReportSpec, out=out)
    right, total = 0, 0
    for truth in truths:
        tiles = pq.ParquetFile(out / "tiles" / f"{truth.path.name}.parquet").read()
        picture = out / "pictures" / f"{truth.path.name}.png"
        pairs = _compare(truth, tiles)
        right, total = right + sum(a == b for a, b in pairs), total + len(pairs)
        print(f"\n{truth.path.name}: {tiles.num_rows} tiles; picture: {picture}\n{_table(pairs, tiles)}")
    print(f"\n{right} of {total} tiles that lie wholly in one class are right: {right / total:.1%}", end="; ")
    print(f"{time.monotonic() - start:.0f} s")
    return 0 if right >= PROMISE * total else 1


def _show_and_run(job: Callable[[SpecType], int], spec: type[SpecType], **flags: object) -> None:
    """Show the command of a job, and run the job with the settings that the command has."""
    command = f"histo {job.__name__}"
    argv = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    print(f"\n$ {command} {shlex.join(argv)}", flush=True)
    try:
        code = job(read_spec(spec, argv, command))
    except HistoError as error:
        raise HistoError(f"{command}: {error}") from error
    if code:
        raise HistoError(f"{command} ended with exit code {code}")


def _compare(truth: SlideTruth, tiles: pa.Table) -> list[tuple[str, str]]:
    """Pair the true class of each tile that lies wholly in one with its label."""
    columns = (tiles[name].to_pylist() for name in ("x", "y", "width", "height", "label"))
    pairs = [(truth.pure_class(*place), label) for *place, label in zip(*columns, strict=True)]
    return [(pure, label) for pure, label in pairs if pure is not None]


def _table(pairs: list[tuple[str, str]], tiles: pa.Table) -> str:
    """A row per class: tiles wholly in it, how many of these are labelled so, and all tiles that are labelled so."""
    labels = tiles["label"].to_pylist()
    rows = ["class  wholly in it  labelled right  all tiles labelled so"]
    for name in CLASSES:
        here = [label for pure, label in pairs if pure == name]
        if here or name in labels:
            rows.append(f"{name:5}{len(here):14}{here.count(name):16}{labels.count(name):23}")
    return "\n".join(rows)
