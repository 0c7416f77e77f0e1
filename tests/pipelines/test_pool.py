"""The pool of workers: workers that cannot start, and that are lost."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from helpers.label_loop import found, tasks
from helpers.label_process import write_slide

from histo.errors import HistoError
from histo.pipelines.labelling.region_worker import RegionLabeler
from histo.pipelines.labelling.tasks import LabelJob, RegionTask, Summary
from histo.run.cluster import session
from histo.run.placement import Placement
from histo.run.pool import Pool


def collect(pool: Pool[RegionTask, Summary], count: int) -> tuple[list[tuple[RegionTask, Summary]], list[RegionTask]]:
    """Wait until so many regions are done or lost."""
    done, lost, deadline = [], [], time.monotonic() + 120
    while len(done) + len(lost) < count:
        assert time.monotonic() < deadline
        more, gone = pool.collect(1)
        done += more
        lost += gone
    return done, lost


def wait_for_room(pool: Pool[RegionTask, Summary]) -> None:
    deadline = time.monotonic() + 120
    while not pool.has_room():
        assert time.monotonic() < deadline
        pool.collect(1)


def test_a_worker_that_cannot_start_ends_the_run_with_its_reason(
    label_job: LabelJob, joined_ray: None, tmp_path: Path
) -> None:
    job, one = replace(label_job, model=tmp_path / "nowhere"), Placement(workers=1, gpus=0, cpus=1)
    reason = pytest.raises(HistoError, match=r"no worker can start: .*nowhere: no such folder")

    with session(1), Pool(RegionLabeler, (job,), one) as pool, reason:
        wait_for_room(pool)


def test_the_regions_of_one_slide_spread_over_all_workers(
    label_job: LabelJob, joined_ray: None, tmp_path: Path
) -> None:
    regions = tasks(label_job, found(write_slide(tmp_path / "slides" / "s.tif", 3840, 576)))
    with session(2), Pool(RegionLabeler, (label_job,), Placement(workers=2, gpus=0, cpus=1)) as pool:
        while len(pool._in_hand) < 2:
            pool.collect(1)
        for task in regions:
            pool.submit(task)
        in_hand = list(pool._in_hand.values())
        done, _ = collect(pool, 2)

    assert in_hand == [1, 1]
    assert len(done) == 2


@pytest.mark.ray
@pytest.mark.alone
def test_what_a_lost_worker_had_in_hand_comes_back_and_another_one_does_it(label_job: LabelJob, tmp_path: Path) -> None:
    regions = tasks(label_job, found(write_slide(tmp_path / "slides" / "s.tif", 3840, 576)))
    with session(1), Pool(RegionLabeler, (label_job,), Placement(workers=1, gpus=0, cpus=1)) as pool:
        wait_for_room(pool)
        (worker,) = pool._in_hand
        pid = ray.get(worker.__ray_call__.remote(lambda _: os.getpid()))
        os.kill(pid, signal.SIGSTOP)  # so that it has both in hand
        for task in regions:
            pool.submit(task)
        has_room = pool.has_room()
        os.kill(pid, signal.SIGKILL)
        none_done, lost = collect(pool, 2)
        wait_for_room(pool)
        for task in lost:
            pool.submit(task)
        done, none_lost = collect(pool, 2)

    assert not has_room
    assert (none_done, none_lost) == ([], [])
    assert {task.region.name for task in lost} == {task.region.name for task, _ in done} == {"r0000_0000", "r0000_0001"}
    assert all(summary.counts and summary.counts.n_failed == 0 for _, summary in done)
