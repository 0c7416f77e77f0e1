"""A private Ray without the processes of clusters and dashboards, and a graph without its helpers."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray._private.node
import ray._private.services
import ray._private.state
from ray.data._internal import stats

from histo.run import bare_ray
from histo.run.bare_ray import replaced
from histo.run.ray_start import join, start_private
from histo.run.stream import one_node

ROOT = Path(__file__).resolve().parents[2]
CLUSTERS_OWN = ("monitor.py", "dashboard.py", "log_monitor.py", "StatsActor", "AutoscalingCoordinator", "Tracker")


def test_only_a_private_ray_leaves_processes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    node, seen = ray._private.node.Node, []
    methods = [getattr(node, name) for name in bare_ray._LEFT_OUT]

    def init(**_: Any) -> None:
        seen.append(
            [getattr(node, name) is not method for name, method in zip(bare_ray._LEFT_OUT, methods, strict=True)]
        )
        try:
            importlib.import_module(bare_ray._FOR_DASHBOARDS)
        except ImportError:
            seen[-1].append(True)
        else:
            seen[-1].append(False)

    monkeypatch.setattr("ray.init", init)
    monkeypatch.delitem(sys.modules, bare_ray._FOR_DASHBOARDS, raising=False)

    start_private()
    join("auto")

    assert seen == [[True] * 4, [False] * 4]
    assert [getattr(node, name) for name in bare_ray._LEFT_OUT] == methods


@pytest.mark.parametrize("missing", ["_get_gcs_client_options", "get_node"])
def test_another_ray_waits_for_its_node_in_its_own_way(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    services = ray._private.services
    monkeypatch.setattr(services, "get_node", lambda *asked: asked)
    monkeypatch.delattr(services, missing)

    with bare_ray.bare_ray():
        assert hasattr(services, "get_node") == (missing != "get_node")
        if missing != "get_node":
            assert services.get_node("address", "node") == ("address", "node")


def test_a_node_is_asked_for_again_and_again_until_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    services, asked = ray._private.services, []

    class State:
        def _initialize_global_state(self, _: object) -> None:
            pass

        def node_table(self) -> list[dict[str, str]]:
            asked.append("table")
            return [{"NodeID": "other"}, {"NodeID": "mine"}][: len(asked)]

    monkeypatch.setattr(services, "get_node", lambda *_: asked.append("node"))
    monkeypatch.setattr(services, "_get_gcs_client_options", bool)
    monkeypatch.setattr(ray._private.state, "GlobalState", State)

    with bare_ray.bare_ray():
        services.get_node("address", "mine")

    assert asked == ["table", "table", "node"]


def test_what_another_library_does_not_have_is_not_made() -> None:
    with replaced(stats, "get_or_create_stats_actor_of_2030", None):
        assert not hasattr(stats, "get_or_create_stats_actor_of_2030")


def test_without_a_ray_of_its_own_a_graph_has_its_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_node, "is_private", lambda: False)
    before = stats.get_or_create_stats_actor

    with one_node.without_helpers():
        assert stats.get_or_create_stats_actor is before


@pytest.mark.ray
@pytest.mark.slow
def test_a_graph_on_a_private_ray_starts_nothing_but_workers() -> None:
    program = """
import json, psutil
from helpers.graph_scenarios import result
from histo.run.cluster import session
from ray.data._internal import stats

seen, before = set(), stats.get_or_create_stats_actor
def look(_):
    seen.update(" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True))

with session(3):
    found = result("none", "", look)
print(json.dumps(found | {"seen": sorted(seen), "restored": stats.get_or_create_stats_actor is before}))
"""
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"PYTHONPATH": path}

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )

    assert ran.returncode == 0, ran.stderr[-3000:]
    said, found = ran.stdout.splitlines()
    result = json.loads(found)
    assert said == "starting Ray on this machine"
    assert result["numbers"] == list(range(30))
    assert result["graphs"] == 1
    assert any("MapWorker" in process for process in result["seen"])
    assert [process for process in result["seen"] if any(name in process for name in CLUSTERS_OWN)] == []
    assert result["restored"]
