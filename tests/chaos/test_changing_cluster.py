"""A label job on clusters that change while it runs, and on nodes that are unlike.

Nodes go for good, nodes join, others fill the object store; one node of three has GPUs, which are only numbers here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.clusters import NODE, make_cluster
from helpers.label_process import FAULTY, assert_same_tables, end, ledger, start, wait_until, write_slide
from helpers.processes import descendants
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]

WORKER = "ray::MapWorker(Map(RegionLabeler))"
HOLD = """
import ray, time
ray.init(log_to_driver=False)
held = [ray.put(bytes(20 * 2**20)) for _ in range(10)]
print("full", flush=True)
time.sleep(10_000)
"""


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten slides of two regions, whose tiles take their time."""
    folder = tmp_path_factory.mktemp("slides")
    for number in range(10):
        write_slide(folder / f"slow-tiles {number:02d}.tif", 3840, 768, seed=number, lossless=True)
    return folder


@pytest.fixture(params=[{}])
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """One node, the head, of one CPU or another number, whose workers read slowly."""
    monkeypatch.setenv("PYTHONPATH", FAULTY)
    monkeypatch.setenv("SLOW_S", "0.1")
    cluster = make_cluster({**NODE, **request.param})
    yield cluster
    cluster.shutdown()


def some_are_done(out: Path) -> bool:
    return any(path.name != "slides.parquet" for path in out.rglob("*.parquet"))


def assert_as_undisturbed(driver: "subprocess.Popen[str]", out: Path, undisturbed: Path) -> None:
    code, log = end(driver)

    assert code == 0, log
    assert {row["status"] for row in ledger(out).values()} == {"ok"}
    assert_same_tables(out, undisturbed)


def test_nodes_that_go_for_good_cost_time_and_nothing_else(
    cluster: Cluster, slides: Path, undisturbed: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    gone = [cluster.add_node(**NODE) for _ in range(2)]
    driver = start(slides, tiny_bundle, tmp_path, RAY_ADDRESS=cluster.address)
    wait_until(lambda: some_are_done(tmp_path), driver)
    for node in gone:
        cluster.remove_node(node, allow_graceful=False)

    assert_as_undisturbed(driver, tmp_path, undisturbed)


def test_nodes_that_join_get_workers(
    cluster: Cluster, slides: Path, undisturbed: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    driver = start(slides, tiny_bundle, tmp_path, RAY_ADDRESS=cluster.address)
    wait_until(lambda: some_are_done(tmp_path), driver)
    joined = [cluster.add_node(**NODE) for _ in range(2)]
    raylets = [node.all_processes["raylet"][0].process.pid for node in joined]
    wait_until(lambda: any(descendants(raylet, WORKER) for raylet in raylets), driver)

    assert_as_undisturbed(driver, tmp_path, undisturbed)


def test_an_object_store_that_others_fill_is_no_trouble(
    cluster: Cluster, slides: Path, undisturbed: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    command, environment = [sys.executable, "-c", HOLD], os.environ | {"RAY_ADDRESS": cluster.address}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "full\n"
            driver = start(slides, tiny_bundle, tmp_path, RAY_ADDRESS=cluster.address)

            assert_as_undisturbed(driver, tmp_path, undisturbed)
        finally:
            holder.kill()


@pytest.mark.parametrize("cluster", [{"num_cpus": 0}], indirect=True)
def test_the_only_reader_comes_back_where_networks_hold_all_cpus_that_are_left(
    cluster: Cluster, slides: Path, undisturbed: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    nodes = [cluster.add_node(**NODE) for _ in range(3)]
    flags = ("--readers", "1", "--workers", "2")
    driver = start(slides, tiny_bundle, tmp_path, *flags, RAY_ADDRESS=cluster.address)
    wait_until(lambda: some_are_done(tmp_path), driver)
    reader = "ray::MapWorker(Map(RegionReader))"
    (gone,) = [node for node in nodes if descendants(node.all_processes["raylet"][0].process.pid, reader)]
    cluster.remove_node(gone, allow_graceful=False)

    assert_as_undisturbed(driver, tmp_path, undisturbed)


def test_readers_run_on_all_nodes_and_feed_the_gpus_of_one(
    cluster: Cluster,
    slides: Path,
    undisturbed: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOGICAL_GPUS", "1")
    more = NODE | {"num_cpus": 2}
    nodes = [cluster.add_node(**more), cluster.add_node(**more, num_gpus=2)]
    raylets = [node.all_processes["raylet"][0].process.pid for node in (cluster.head_node, *nodes)]
    driver = start(slides, tiny_bundle, tmp_path, RAY_ADDRESS=cluster.address, SLOW_S="0.1")
    readers, networks = set[int](), set[int]()

    def seen() -> bool:
        for place, raylet in enumerate(raylets):
            if descendants(raylet, "ray::MapWorker(Map(RegionReader))"):
                readers.add(place)
            if descendants(raylet, "ray::MapWorker(Map(TileClassifier))"):
                networks.add(place)
        return (readers, networks) == ({0, 1, 2}, {2})

    wait_until(seen, driver)

    code, log = end(driver)
    assert code == 0, log
    assert "4 readers, 1 CPU each; 2 workers that classify, a GPU each" in log
    assert_same_tables(tmp_path, undisturbed)
    assert json.loads((tmp_path / "run.json").read_text())["placement"]["readers"] == 4
