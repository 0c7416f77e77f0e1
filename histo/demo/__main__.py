"""`python -m histo.demo`: fabricate tiles and slides, fine-tune, label, and compare with the truth."""

import shlex
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from histo.cli import main as histo
from histo.demo.fabricate import CLASSES, MPP, SlideTruth, fabricate_slides, fabricate_tiles
from histo.errors import HistoError, UsageError
from histo.pipelines.say import complain
from histo.report.overlay import draw_overlay
from histo.spec import AbsolutePath, Spec, read_spec

PROMISE = 0.95
"""Share of the tiles wholly in one class that must be labelled right."""


class DemoSpec(Spec):
    """Fabricate a tile set and three slides, fine-tune from ImageNet weights, label, and compare with the truth."""

    out: AbsolutePath
    """Folder of everything that the demo makes."""
    tiles_per_class: int = Field(40, ge=5)
    """Fabricated training tiles of each class."""
    epochs: int = Field(30, ge=1)
    """Passes over the training tiles; only the head learns, from features that are computed once."""
    seed: int = Field(0, ge=0)
    """Fixes what is fabricated."""


def demo(spec: DemoSpec) -> int:
    """Run the demonstration; returns 0 if it keeps its promise.

    Raises:
        HistoError: If the folder holds a demo already.
    """
    if (spec.out / "run").exists():
        raise UsageError(f"--out {spec.out}: already holds a demo; remove it, or give another folder")
    start = time.monotonic()
    print("fabricating tiles and slides (drawn from a seed, nothing of it is real tissue)", flush=True)
    fabricate_tiles(spec.out / "tiles", spec.tiles_per_class, spec.seed)
    truths = fabricate_slides(spec.out / "slides", spec.seed + 1)
    run, out = spec.out / "run", spec.out / "labels"
    phases = {"augment.preset": "none", "fit.head.epochs": spec.epochs, "fit.tune.epochs": 0}
    _histo("train", data=spec.out / "tiles", out=run, mpp=0.5, **phases)
    _histo("label", slides=spec.out / "slides", model=run / "model", out=out, **{"mpp-if-missing": MPP})
    right, total = 0, 0
    for truth in truths:
        tiles = pq.ParquetFile(out / "tiles" / f"{truth.path.name}.parquet").read()
        picture = spec.out / "pictures" / f"{truth.path.stem}.png"
        draw_overlay(truth.path, tiles, CLASSES, MPP, picture)
        pairs = _compare(truth, tiles)
        right, total = right + sum(a == b for a, b in pairs), total + len(pairs)
        print(f"\n{truth.path.name}: {tiles.num_rows} tiles; picture: {picture}\n{_table(pairs, tiles)}")
    print(f"\n{right} of {total} tiles that lie wholly in one class are right: {right / total:.1%}", end="; ")
    print(f"{time.monotonic() - start:.0f} s")
    return 0 if right >= PROMISE * total else 1


def _histo(job: str, **flags: object) -> None:
    """Show a histo command and run it."""
    command = [job, *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]
    print(f"\n$ histo {shlex.join(command)}", flush=True)
    code = histo(command)
    if code:
        raise HistoError(f"histo {job} ended with exit code {code}")


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


def main() -> int:
    """Read the command line and run the demonstration."""
    try:
        return demo(read_spec(DemoSpec, sys.argv[1:], "python -m histo.demo"))
    except HistoError as error:
        complain(f"histo.demo: {error}")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
