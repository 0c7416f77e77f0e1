import re
import threading
from pathlib import Path
from typing import Any

import pytest
import ray
from helpers.label_process import write_slide
from ray.util import placement_group, remove_placement_group

from histo.cli import main
from histo.errors import UsageError
from histo.pipelines.labelling.runtime import Runtime
from histo.pipelines.training import run
from histo.run.cluster import check_shared, cpus_here, place_waited_for, session
from histo.run.placement import Node, Placement, Resources, place
from histo.run.stream.graph import worker_resources

LAPTOP = Resources((Node(8, 0),), is_private=True)
GPU_NODE = Resources((Node(32, 4),), is_private=True)
MANY_GPUS = Resources((Node(4, 8),), is_private=True)
CLUSTER = Resources((Node(16, 0),) * 16, is_private=False)
GPU_CLUSTER = Resources((Node(56, 4),) * 4 + (Node(32, 0),), is_private=False)


@pytest.mark.parametrize(
    ("workers", "device", "resources", "expected"),
    [
        (None, "auto", LAPTOP, Placement(workers=8, gpus=0, cpus=1)),
        (1, "auto", LAPTOP, Placement(workers=1, gpus=0, cpus=8)),
        (3, "cpu", LAPTOP, Placement(workers=3, gpus=0, cpus=2)),
        (None, "auto", GPU_NODE, Placement(workers=4, gpus=1, cpus=8)),
        (None, "auto", MANY_GPUS, Placement(workers=4, gpus=1, cpus=1)),
        (2, "gpu", GPU_NODE, Placement(workers=2, gpus=1, cpus=16)),
        (6, "cpu", GPU_NODE, Placement(workers=6, gpus=0, cpus=5)),
        (100, "auto", CLUSTER, Placement(workers=100, gpus=0, cpus=1)),
        (None, "cpu", CLUSTER, Placement(workers=256, gpus=0, cpus=1, may_grow=True)),
        (None, "auto", GPU_CLUSTER, Placement(workers=16, gpus=1, cpus=12, may_grow=True)),
        (64, "cpu", GPU_CLUSTER, Placement(workers=64, gpus=0, cpus=1)),
    ],
)
def test_workers_take_gpus_where_there_are_some_and_share_the_cpus(
    workers: int | None, device: str, resources: Resources, expected: Placement
) -> None:
    assert place(workers, device, resources, cpu_workers=int(resources.cpus)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("workers", "device", "resources", "message"),
    [
        (None, "gpu", LAPTOP, "--device gpu: this cluster has no GPU"),
        (5, "auto", GPU_NODE, "--workers 5: this cluster has 4 GPUs"),
        (300, "auto", CLUSTER, "--workers 300: this cluster has 256 CPUs"),
    ],
)
def test_what_the_cluster_cannot_hold_is_refused_at_once(
    workers: int | None, device: str, resources: Resources, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        place(workers, device, resources, cpu_workers=1)  # type: ignore[arg-type]


def test_a_worker_on_a_gpu_calls_its_device_cuda() -> None:
    assert Placement(workers=1, gpus=1, cpus=4).torch_device == "cuda"
    assert Placement(workers=1, gpus=0, cpus=4).torch_device == "cpu"


@pytest.mark.alone  # starts a Ray in this process, which another one of the same process does not bear
def test_each_worker_gets_a_gpu_of_its_own() -> None:
    """The GPUs are numbers that Ray hands out; this checks the scheduling, on a machine that may have none."""

    class Worker:  # defined here, Ray passes it on by value: its processes cannot import this file
        def gpus(self) -> list[int]:
            return [int(number) for number in ray.get_gpu_ids()]

    ray.init(
        address="local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    try:
        placement = place(None, "auto", Resources((Node(4, 2),), is_private=True), cpu_workers=1)
        worker = ray.remote(**worker_resources(placement))(Worker)
        found = ray.get([w.gpus.remote() for w in [worker.remote() for _ in range(placement.workers)]])
    finally:
        ray.shutdown()

    assert sorted(found) == [[0], [1]]


def test_a_folder_that_a_node_does_not_see_is_refused_by_name(joined_ray: None, tmp_path: Path) -> None:
    with session(1):
        check_shared(tmp_path, tmp_path)
        with pytest.raises(UsageError, match=f"{tmp_path}/elsewhere: not visible on node"):
            check_shared(tmp_path, tmp_path / "elsewhere")

    assert list(tmp_path.iterdir()) == []


def test_more_workers_than_a_machine_can_ever_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))

    with pytest.raises(UsageError, match="--workers: 1000000 processes, more than 16 for each of the"), session(10**6):
        pass


def test_more_readers_than_a_machine_can_ever_run_are_refused_by_their_flag(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    slide = write_slide(tmp_path / "a.tif")
    flags = ["--slides", str(slide), "--model", str(tiny_bundle), "--out", str(tmp_path / "out"), "--readers", "100000"]

    assert main(["label", *flags]) == 2

    assert "--readers and --workers: 100001 processes, more than 16 for each of the" in capsys.readouterr().err


@pytest.mark.parametrize(("workers", "ahead"), [(None, True), (16, True), (8, True), (2, False)])
def test_where_few_workers_are_asked_for_no_process_is_started_ahead_for_each_cpu(
    workers: int | None, ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("histo.run.cluster.usable_cpus", lambda: 16)
    monkeypatch.setattr("ray.init", lambda **settings: seen.append(settings))
    monkeypatch.setattr("ray.nodes", list)

    with session(workers):
        pass

    assert seen[0]["num_cpus"] == 16
    assert seen[0]["_system_config"].get("prestart_worker_first_driver", True) == ahead


@pytest.mark.ray
def test_a_place_that_is_waited_for_is_named(joined_ray: None) -> None:
    with session(None) as resources:
        workers = int(resources.cpus) + 1
        group = placement_group([{"CPU": 1.0}] * workers)
        try:
            said = None
            while said is None and group.bundle_count:
                said = place_waited_for(Placement(workers, 0, 1))
            others = place_waited_for(Placement(workers, 0, 7))
        finally:
            remove_placement_group(group)

    assert re.fullmatch(
        rf"waiting for a place for {workers} workers of 1 CPU each; free are [\d.]+ of {workers - 1} CPUs", str(said)
    )
    assert others is None


def test_a_training_run_that_waits_says_so_until_it_has_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = ["waiting for a place", "waiting for a place", None]
    asked = threading.Event()

    def place_waited_for(_: Placement) -> str | None:
        answer = answers.pop(0) if answers else None
        if not answers:
            asked.set()
        return answer

    class Trainer:
        def fit(self) -> None:
            assert asked.wait(30)

    monkeypatch.setattr(run, "_FIRST_LOOK_S", 0.01)
    monkeypatch.setattr(run, "_LOOK_S", 0.01)
    monkeypatch.setattr(run, "place_waited_for", place_waited_for)
    run._fit(Trainer(), Placement(1, 0, 1))  # type: ignore[arg-type] # what it has of one is enough

    assert capsys.readouterr().out == "waiting for a place\nwaiting for a place\n"


@pytest.mark.parametrize(
    ("node", "gpus", "cpus", "expected"),
    [
        ({"CPU": 64.0, "GPU": 4.0}, 1.0, 6, 14),
        ({"CPU": 32.0, "GPU": 4.0}, 1.0, 6, 6),
        ({"CPU": 64.0, "GPU": 1.0}, 0.25, 4, 15),
        ({"CPU": 8.0}, 0.0, 1, 1),
        ({"CPU": 8.0}, 1.0, 2, 2),
    ],
)
def test_a_worker_uses_the_cpus_of_its_own_node(
    monkeypatch: pytest.MonkeyPatch, node: dict[str, float], gpus: float, cpus: int, expected: int
) -> None:
    class Context:
        def get_node_id(self) -> str:
            return "here"

    nodes = [{"NodeID": "here", "Resources": node}, {"NodeID": "there", "Resources": {"CPU": 256.0, "GPU": 1.0}}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "get_runtime_context", Context)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)

    assert cpus_here(gpus, cpus) == expected
    assert Runtime("cuda" if gpus else "cpu", cpus, gpus=gpus).on_this_node().threads == expected
