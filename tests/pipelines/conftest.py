"""Fabricated slides, and a small training run."""

from pathlib import Path

import numpy as np
import pytest
from helpers.inline_ray import inline
from helpers.label_loop import make_job

from histo.cli import main
from histo.demo.fabricate import write_pyramid
from histo.demo.textures import paint
from histo.pipelines.labelling.tasks import LabelJob


@pytest.fixture(scope="session")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one lossless slide of 9000 x 3000 px at 0.25 µm/px: two textures on glass, two regions of tiles."""
    random = np.random.default_rng(0)
    image = np.full((3000, 9000, 3), 244, np.uint8)
    image[300:2700, 400:3000] = paint("TUM", 2400, 2600, random)
    image[500:2500, 6500:8900] = paint("MUS", 2000, 2400, random)
    folder = tmp_path_factory.mktemp("pyramid")
    write_pyramid(folder / "two textures.tif", image, mpp=0.25, quality=None)
    return folder


@pytest.fixture
def label_job(tiny_bundle: Path, tmp_path: Path) -> LabelJob:
    """A label run with a network that takes no time."""
    return make_job(tiny_bundle, tmp_path / "out")


@pytest.fixture(scope="session")
def finished(tiles: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two phases with a test split, of which two checkpoints are kept; trained in this process.

    Tests that use it are of one group, so that it is made once.
    """
    run = tmp_path_factory.mktemp("finished") / "run"
    flags = ["--data", str(tiles), "--out", str(run), "--fit.head.epochs", "2", "--fit.tune.epochs", "2", *tiny]
    flags += ["--no-fit.head.augment", "--size-px", "64", "--mpp", "2", "--classes", "MUS,STR,TUM"]
    flags += ["--split.test-fraction", "0.25", "--keep-checkpoints", "2"]
    with inline():
        assert main(["train", *flags, "--device", "gpu", "--workers", "999"]) == 2
        assert main(["train", *flags]) == 0
    return run
