"""A small training run."""

from pathlib import Path

import pytest
from helpers.inline_ray import inline

from histo.cli import main


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
