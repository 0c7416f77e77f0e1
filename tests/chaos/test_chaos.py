"""A label job on a cluster of three nodes whose workers, a node and the driver are killed at random times.

Whatever happens, the same command, given until it ends by itself, makes the tables of a run that was left alone, and
blames no slide. A seed decides what is killed, and how much is labelled between two kills; where it is even, the reader
is apart from the workers that classify. CI runs two schedules, `make chaos` twelve.
"""

import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from helpers.clusters import NODE, make_cluster
from helpers.label_process import FAULTY, assert_same_tables, end, ledger, run, start, wait_until, write_slide
from helpers.processes import descendants
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

N_SLIDES, N_NODES = 15, 3
WORKERS_KILLED = 3
WORKERS = (
    "ray::FlatMap(plan)",
    *(f"ray::MapWorker(Map({name}))" for name in ("RegionLabeler", "RegionReader", "TileClassifier")),
)
APART = ("--readers", "1")
MOST_PARTS, MOST_S = 3, 3.0
"""A kill comes when up to so many regions more are done, and up to so many seconds later: in a region, or a start."""
SLOW_S = "0.05"


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen slides of two or three regions, whose tiles take their time."""
    folder = tmp_path_factory.mktemp("slides")
    for number in range(N_SLIDES):
        write_slide(
            folder / f"slow-tiles {number:02d}.tif", 3840 + 3072 * (number % 3 == 0), 768, seed=number, lossless=True
        )
    return folder


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Three nodes of one CPU each, whose workers read slowly; the first one is the head."""
    monkeypatch.setenv("PYTHONPATH", FAULTY)
    monkeypatch.setenv("SLOW_S", SLOW_S)
    cluster = make_cluster(*[NODE] * N_NODES)
    yield cluster
    cluster.shutdown()


@dataclass
class Schedule:
    """What is killed, and when.

    Attributes:
        seed: It follows from.
        out: Where the run writes.
        log: What was done.
    """

    seed: int
    out: Path
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def wait(self, driver: subprocess.Popen[str]) -> None:
        before, more = finished(self.out), self._random.randint(1, MOST_PARTS)
        wait_until(lambda: len(finished(self.out) - before) >= more, driver)
        time.sleep(self._random.uniform(0, MOST_S))

    def kill_worker(self, cluster: Cluster) -> None:
        """Kill a process that labels or plans, of any node."""
        deadline = time.monotonic() + 300
        while not (workers := set().union(*(descendants(raylet, *WORKERS) for raylet in raylets(cluster)))):
            assert time.monotonic() < deadline, "no worker starts"
            time.sleep(0.1)
        worker = psutil.Process(self._random.choice(sorted(workers)))
        self.log.append(worker.cmdline()[0])
        worker.kill()

    def kill_node(self, cluster: Cluster) -> None:
        """Take away a node, and all that runs there; not the head."""
        nodes = sorted(cluster.worker_nodes, key=lambda node: str(node.node_id))
        cluster.remove_node(self._random.choice(nodes), allow_graceful=False)
        self.log.append("node")


def finished(out: Path) -> set[str]:
    """Return the names of tables, and of parts of tables, that a run has written."""
    return {path.name for path in out.rglob("*.parquet")}


def raylets(cluster: Cluster) -> list[int]:
    return [node.all_processes["raylet"][0].process.pid for node in [cluster.head_node, *cluster.worker_nodes]]


@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(3, 13))])
def test_the_tables_are_those_of_an_undisturbed_run(
    seed: int, cluster: Cluster, slides: Path, undisturbed: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    schedule = Schedule(seed, tmp_path)
    flags = APART if seed % 2 == 0 else ()
    driver = start(slides, tiny_bundle, tmp_path, *flags, RAY_ADDRESS=cluster.address)

    for _ in range(WORKERS_KILLED):
        schedule.wait(driver)
        schedule.kill_worker(cluster)
    schedule.wait(driver)
    schedule.kill_node(cluster)
    schedule.wait(driver)
    still_running = driver.poll() is None
    driver.kill()
    _, log = end(driver)
    code, log = run(slides, tiny_bundle, tmp_path, *flags, RAY_ADDRESS=cluster.address)

    assert still_running, f"the kills came too late: {schedule.log}\n{log}"
    assert code == 0, f"{schedule.log}\n{log}"
    assert {row["status"] for row in ledger(tmp_path).values()} == {"ok"}
    assert_same_tables(tmp_path, undisturbed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "slides.parquet", "tiles"]
    print(f"seed {seed}: killed {', '.join(schedule.log)}")
