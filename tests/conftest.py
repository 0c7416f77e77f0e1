"""What all tests share: real data, small networks, a Ray for each test process, and the groups that tests run in."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from inline_ray import call_inline
from label_process import OWN_MOUNTS
from ray.cluster_utils import Cluster
from small_network import BACKBONE, write_weights

from histo.demo.bundle import random_bundle
from histo.learn.conversion import convert

collect_ignore = ["faulty"]
"""What it does to OpenSlide it does where it is imported; only processes that tests start may do so."""
settings.register_profile("any machine", deadline=None)  # a busy one takes its time
settings.load_profile("any machine")
LONGEST = ("pipelines/test_recipe", "finished", "pipelines/test_job_submit", "pipelines/test_mutations")
"""Groups that are begun first."""
HEAD = {"num_cpus": 2, "object_store_memory": 200 * 2**20, "include_dashboard": False}
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure() -> None:
    """Compute in one thread, as there are as many test processes as cores, of which Ray's workers get their share."""
    for name, value in (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("RAY_worker_niceness", "0")):
        os.environ.setdefault(name, value)
    torch.set_num_threads(1)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Name the group of a test: one process runs it, one test after the other.

    The tests of a file are a group, and so are those that use the run `finished`: what they share is made once.
    """
    fixtures = getattr(item, "fixturenames", ())
    if "ray_address" in fixtures:
        item.add_marker("ray")
    if item.get_closest_marker("xdist_group") is None:
        file = item.path.relative_to(Path(__file__).parent).with_suffix("").as_posix()
        item.add_marker(pytest.mark.xdist_group("finished" if "finished" in fixtures else file))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run here, and begin with the slow groups.

    One that came last would keep one process busy while the others have nothing to do.
    """
    impossible = [name for name, possible in (("realdata", SHARED.is_dir), ("mounts", may_mount)) if not possible()]
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in impossible)]
    config.hook.pytest_deselected(items=left_out)
    slow = {group_of(item) for item in items if item.get_closest_marker("slow")} - set(LONGEST)
    order = [*LONGEST, *sorted(slow)]
    items[:] = sorted(
        (item for item in items if item not in left_out),
        key=lambda item: order.index(group_of(item)) if group_of(item) in order else len(order),
    )


def group_of(item: pytest.Item) -> str:
    """See `pytest_itemcollected`."""
    marker = item.get_closest_marker("xdist_group")
    assert marker is not None
    return str(marker.args[0])


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
def ray_address() -> Iterator[str]:
    """A Ray of two CPUs on ports of its own, for all tests of this process that need one; where to join it."""
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def joined_ray(ray_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs join the Ray of this test process, in place of starting one."""
    monkeypatch.setenv("RAY_ADDRESS", ray_address)


@pytest.fixture
def inline_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs call at once, in this process, what they would have Ray call elsewhere."""
    call_inline(monkeypatch)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags for a backbone of a third of a megabyte; its weights stand for pretrained ones."""
    path = write_weights(tmp_path_factory.mktemp("tiny") / "weights.safetensors")
    return ["--network.backbone", BACKBONE, "--network.weights", str(path)]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with three classes, 224 px at 0.5 µm/px, a random head of visible contrast; converted."""
    folder = random_bundle(tmp_path_factory.mktemp("bundle"), BACKBONE, size_px=224)
    convert(folder)
    return folder


@pytest.fixture(scope="session")
def bare_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of a third of a megabyte with random weights, without a converted form; to be copied before use."""
    return random_bundle(tmp_path_factory.mktemp("bare"), BACKBONE, size_px=96)


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
