"""What tests share: a Ray for each test process, small networks and bundles, a few tiles, and a slide.

`conftest.py` loads it where tests run; the process that only deals them out does without torch and Ray.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from helpers.clusters import make_cluster
from helpers.inline_ray import call_inline
from helpers.label_loop import make_job
from helpers.small_network import BACKBONE, write_weights
from histo.demo.bundle import random_bundle
from histo.demo.fabricate import write_pyramid
from histo.demo.textures import paint
from histo.learn.conversion import convert
from histo.pipelines.labelling.tasks import LabelJob

HEAD = {"num_cpus": 2, "object_store_memory": 200 * 2**20}

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_ray(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to start a Ray in a test process: once it had another one, the shared one takes its driver for dead."""
    if request.node.get_closest_marker("alone"):
        return
    join = ray.init

    def init(address: str | None = None, **settings: Any) -> Any:
        assert address not in (None, "local"), "the fixture joined_ray joins one, inline_ray does without"
        return join(address, **settings)

    monkeypatch.setattr(ray, "init", init)


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """A Ray of two CPUs on ports of its own, for all tests of this process that need one; where to join it."""
    cluster = make_cluster(HEAD)
    yield cluster.address
    cluster.shutdown()  # type: ignore[no-untyped-call] # Ray's


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
