"""The graph of Ray Data: workers that cannot start, fail, die or hang beside healthy ones, and a node that is lost.

Each is a small program of `helpers.graph_scenarios`. Ray Data itself ends a graph whose actor raises while it starts,
and restarts for ever one that dies there.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.graph_scenarios import FAILS, LATE, NEVER, NOT_AGAIN, ONE_NEVER, SLOW_NETWORK, SLOW_READER, TASKS
from helpers.label_process import WITHIN_S

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("graph")]


def run(main: str) -> dict[str, dict[str, Any]]:
    """Run scenarios in a process of their own; what came of each, by its fault."""
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    ran = subprocess.run(
        [sys.executable, "-c", f"from helpers.graph_scenarios import {main}; {main}()"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        cwd=ROOT,
        timeout=WITHIN_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return {line["fault"]: line for line in found}


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    return run("main")


@pytest.mark.parametrize("fault", [ONE_NEVER, NOT_AGAIN, FAILS, LATE])
def test_every_task_is_done_once_and_none_is_blamed(results: dict[str, dict[str, Any]], fault: str) -> None:
    result = results[fault]

    assert result["error"] is None
    assert result["numbers"] == list(range(TASKS))
    assert result["blamed"] == result["left_behind"] == []


def test_a_worker_that_only_fails_is_left_out_of_the_second_graph(results: dict[str, dict[str, Any]]) -> None:
    assert results[FAILS]["graphs"] == 2
    assert len(results[FAILS]["left_out"]) == 1


def test_what_a_worker_had_that_cannot_start_again_is_done_by_a_second_graph(
    results: dict[str, dict[str, Any]],
) -> None:
    assert results[NOT_AGAIN]["graphs"] == 2


@pytest.mark.parametrize("fault", [ONE_NEVER, LATE])
def test_one_graph_is_enough_where_workers_are_late_or_lost(results: dict[str, dict[str, Any]], fault: str) -> None:
    assert results[fault]["graphs"] == 1


def test_a_run_ends_with_the_reason_where_no_worker_can_start(results: dict[str, dict[str, Any]]) -> None:
    assert results[NEVER]["error"] == "no worker can start: RuntimeError: no card"


@pytest.mark.chaos
def test_what_one_stage_hands_to_another_fits_into_memory_whichever_is_slow() -> None:
    results = run("main_apart")

    assert set(results) == {SLOW_NETWORK, SLOW_READER}
    for result in results.values():
        assert (result["error"], result["blamed"], result["graphs"]) == (None, [], 1)
        assert result["numbers"] == list(range(TASKS))
        assert result["most_spilled"] == 0
