"""What all tests share: where real data lie, and a small bundle that is trained once."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from label_process import OWN_MOUNTS

from histo.demo.bundle import random_bundle
from histo.learn.conversion import convert

collect_ignore = ["faulty"]
"""What it does to OpenSlide it does where it is imported; only processes that tests start may do so."""
settings.register_profile("any machine", deadline=None)  # a busy one takes its time
settings.load_profile("any machine")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what reads real data where there are none, and what mounts file systems where that is not allowed."""
    impossible = [name for name, possible in (("realdata", SHARED.is_dir), ("mounts", may_mount)) if not possible()]
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in impossible)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def may_mount() -> bool:
    """Whether processes may have mounts of their own, as in few containers and on most other machines."""
    try:
        return subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data."""
    return SHARED


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default network with three classes, 224 px at 0.5 µm/px, a random head of visible contrast; converted."""
    folder = random_bundle(tmp_path_factory.mktemp("bundle"), "tf_efficientnet_lite0", size_px=224)
    convert(folder)
    return folder


@pytest.fixture(scope="session")
def bare_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of a third of a megabyte with random weights, without a converted form; to be copied before use."""
    return random_bundle(tmp_path_factory.mktemp("bare"), "test_efficientnet", size_px=96)


@pytest.fixture(scope="session")
def tiny_bundle(bare_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, converted, bf16 unmeasured; for tests where the labels do not matter."""
    copy = Path(shutil.copytree(bare_bundle, tmp_path_factory.mktemp("tiny") / "model"))
    convert(copy)
    return copy


@pytest.fixture(scope="session")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three separable classes of twelve 32-px tiles each, in one npz file: dark, middle, bright."""
    random = np.random.default_rng(0)
    levels = np.repeat([60, 128, 200], 12)
    images = np.clip(levels[:, None, None, None] + random.normal(0, 12, (36, 32, 32, 3)), 0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("tiles") / "tiles.npz"
    np.savez(path, images=images, labels=np.repeat([0, 1, 2], 12))
    return path
