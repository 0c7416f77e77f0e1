"""A label job on a cluster of three nodes whose workers, a node and the driver are killed at random times.

Whatever happens, the same command, given until it ends by itself, makes the tables of a run that was left alone, and
blames no slide. A seed decides what is killed, and when. CI runs two schedules, `make chaos` twelve.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from label_loop import label_folder, make_job
from label_process import FAULTY, assert_same_tables, end, ledger, run, start, write_slide
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]

N_SLIDES, N_NODES = 20, 3
WORKERS_KILLED = 3
MEAN_STARTS = 3
"""Mean time between two kills, in times that a worker takes to start."""
SLOW_S = "0.1"

START = """
import sys, time
begin = time.perf_counter()
from pathlib import Path
import histo.pipelines.region
histo.pipelines.region.load_predictor(Path(sys.argv[1]))
print(time.perf_counter() - begin)
"""


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty slides of two to four regions, whose tiles take their time."""
    folder = tmp_path_factory.mktemp("slides")
    for number in range(N_SLIDES):
        write_slide(
            folder / f"slow-tiles {number:02d}.tif", 3840 + 3072 * (number % 3 == 0), 768, seed=number, lossless=True
        )
    return folder


@pytest.fixture(scope="module")
def undisturbed(slides: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label_folder(make_job(tiny_bundle, tmp_path_factory.mktemp("undisturbed")), slides)


@pytest.fixture(scope="module")
def start_s(tiny_bundle: Path) -> float:
    """Seconds that a worker takes from nothing to being ready, when one starts on each node."""
    command = [sys.executable, "-c", START, str(tiny_bundle)]
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(N_NODES)]
    return max(float(start.communicate()[0]) for start in starts)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Three nodes of one CPU each, whose workers read slowly; the first one is the head."""
    monkeypatch.setenv("PYTHONPATH", FAULTY)
    monkeypatch.setenv("SLOW_S", SLOW_S)
    nodes = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=nodes | {"include_dashboard": False})
    for _ in range(N_NODES - 1):
        cluster.add_node(**nodes)
    yield cluster
    cluster.shutdown()


@dataclass
class Schedule:
    """What is killed, and how long after the kill before.

    Attributes:
        seed: It follows from.
        mean_s: Mean of the times between kills.
        log: What was done.
    """

    seed: int
    mean_s: float
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def wait(self) -> None:
        time.sleep(self._random.expovariate(1 / self.mean_s))

    def kill_worker(self, cluster: Cluster) -> None:
        """Kill a process that labels or plans, of any node."""
        deadline = time.monotonic() + 60
        while not (workers := [pid for pid in descendants(raylets(cluster)) if is_worker(pid)]):
            assert time.monotonic() < deadline, "no worker starts"
            time.sleep(0.1)
        pid = self._random.choice(sorted(workers))
        self.log.append(name_of(pid))
        os.kill(pid, signal.SIGKILL)

    def kill_node(self, cluster: Cluster) -> None:
        """Take away a node, and all that runs there; not the head."""
        nodes = sorted(cluster.worker_nodes, key=lambda node: str(node.node_id))
        cluster.remove_node(self._random.choice(nodes), allow_graceful=False)
        self.log.append("node")


def raylets(cluster: Cluster) -> list[int]:
    return [node.all_processes["raylet"][0].process.pid for node in [cluster.head_node, *cluster.worker_nodes]]


def descendants(parents: list[int]) -> list[int]:
    """Return the processes below some processes."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, parent = int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(pid)
    found, waiting = [], list(parents)
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_worker(pid: int) -> bool:
    return name_of(pid).startswith(("ray::RegionLabeler", "ray::Map(plan_row)"))


@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(3, 13))])
def test_the_tables_are_those_of_an_undisturbed_run(
    seed: int, cluster: Cluster, slides: Path, undisturbed: Path, tiny_bundle: Path, start_s: float, tmp_path: Path
) -> None:
    schedule = Schedule(seed, MEAN_STARTS * start_s)
    driver = start(slides, tiny_bundle, tmp_path, RAY_ADDRESS=cluster.address)

    for _ in range(WORKERS_KILLED):
        schedule.wait()
        schedule.kill_worker(cluster)
    schedule.wait()
    schedule.kill_node(cluster)
    schedule.wait()
    still_running = driver.poll() is None
    driver.kill()
    _, log = end(driver)
    code, log = run(slides, tiny_bundle, tmp_path, RAY_ADDRESS=cluster.address)

    assert still_running, f"the kills came too late: {schedule.log}\n{log}"
    assert code == 0, f"{schedule.log}\n{log}"
    assert {row["status"] for row in ledger(tmp_path).values()} == {"ok"}
    assert_same_tables(tmp_path, undisturbed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "slides.parquet", "tiles"]
    print(f"seed {seed}: a worker starts in {start_s:.1f} s; killed {', '.join(schedule.log)}")
