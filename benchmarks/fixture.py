"""What the benchmarks of speed measure on: slides, and two bundles of nine classes that are ready for a CPU."""

import sys
from pathlib import Path

import numpy as np
from cost import measure
from job import ROOT
from slide import write_slide

from histo.demo.bundle import random_bundle
from histo.demo.fabricate import fabricate_tiles
from histo.demo.textures import CLASSES
from histo.slides.plan import plan_slide
from histo.slides.slide import open_slide
from histo.slides.spec import TilingSpec, TissueSpec

TILE_PX, MPP = 224, 0.5
LITE0, RESNET18 = "tf_efficientnet_lite0", "resnet18"
_TILES_PER_CLASS = 24
_TRAIN = ("--mpp", str(MPP), "--fit.head.epochs", "20", "--no-fit.head.augment", "--fit.tune.epochs", "0")


def make_bundle(folder: Path, backbone: str) -> Path:
    """Make a bundle, and convert it for CPUs in both precisions.

    EfficientNet-lite0 has its ImageNet weights and a head that was trained on fabricated tiles: bfloat16 is offered
    only where it agrees with float32, and an untrained head is too unsure. ResNet-18 has random weights.
    """
    fabricate_tiles(folder / "tiles", _TILES_PER_CLASS, seed=0)
    if backbone == LITE0:
        run = folder / "run"
        histo("train", "--data", folder / "tiles", "--out", run, *_TRAIN)
        bundle = run / "model"
    else:
        bundle = random_bundle(folder, backbone, TILE_PX, CLASSES)
    histo("convert", "--model", bundle, "--data", folder / "tiles")
    return bundle


def histo(job: str, *flags: str | Path) -> None:
    """Run a histo job to its end."""
    program = f"import sys; from histo.cli import main; sys.exit(main({[job, *map(str, flags)]!r}))"
    measure([sys.executable, "-c", program], {"PYTHONPATH": str(ROOT)})


def make_slide(folder: Path, edge_px: int) -> tuple[Path, np.ndarray]:
    """Write a slide into a folder of its own; returns it and the corners `(x, y)` of its tiles, level-0 pixels."""
    path = write_slide(folder / "slide.svs", edge_px)
    plan = plan_slide(*open_slide(str(path)), TILE_PX, MPP, TilingSpec(), TissueSpec())
    grid_x, grid_y = plan.grid.places(plan.tile_index)
    return path, np.stack([plan.grid.x(grid_x), plan.grid.y(grid_y)], axis=1)
