"""Work that ends its process: counted on disk, proven alone. The processes are real, the work is a stand-in."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import openvino as ov
import pytest
import torch
from helpers.isolated import end, fail, fall_short, pid
from helpers.label_loop import found, plan
from helpers.label_process import WITHIN_S
from helpers.mutated_slides import tissue

from histo.demo.fabricate import write_pyramid
from histo.errors import Cause, InputError, SlideError
from histo.pipelines.labelling import plan_worker
from histo.pipelines.labelling.tasks import LabelJob
from histo.run.failure import describe_failure
from histo.run.isolation import Watchdog, guarded

pytestmark = pytest.mark.alone


@pytest.fixture
def job(label_job: LabelJob) -> LabelJob:
    return replace(label_job, read_timeout_s=1)


def mark(job: LabelJob, lost: int) -> Path:
    """Leave the mark of workers that were lost."""
    path = job.out / "staging" / "attempts" / "s.svs" / "r0"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"." * lost)
    return path


def test_work_is_done_here_as_long_as_no_worker_was_lost_twice(job: LabelJob) -> None:
    path = mark(job, lost=1)

    assert guarded(job, "s.svs", "r0", os.getpid, pid) == os.getpid()
    assert not path.exists()


def test_work_that_took_two_workers_is_done_in_a_process_of_its_own(job: LabelJob) -> None:
    path = mark(job, lost=2)

    assert guarded(job, "s.svs", "r0", os.getpid, pid) not in (os.getpid(), 0)
    assert not path.exists(), "it came back"


@pytest.mark.parametrize(
    ("how", "cause", "words"),
    [
        ("SIGSEGV", Cause.CRASH, "reading it ends the process (SIGSEGV), also in 3 attempts alone"),
        ("SIGABRT", Cause.CRASH, "(SIGABRT)"),
        ("SIGKILL", Cause.OUT_OF_MEMORY, "most likely for want of memory"),
        ("hang", Cause.TIMEOUT, "nothing could be read for 1 s"),
    ],
)
def test_what_dies_three_times_alone_is_blamed(
    job: LabelJob, tmp_path: Path, how: str, cause: Cause, words: str
) -> None:
    mark(job, lost=2)
    log = tmp_path / "log"

    with pytest.raises(InputError) as caught:
        guarded(job, "s.svs", "r0", os.getpid, end, how, str(log))

    assert caught.value.cause is cause
    assert str(caught.value).startswith("s.svs (r0): ")
    assert words in str(caught.value)
    assert log.read_text().splitlines() == [str(os.getpid())] * 3


def short(*_: object) -> int:
    raise MemoryError


def test_work_that_is_short_of_memory_is_done_again_alone(job: LabelJob, tmp_path: Path) -> None:
    log = tmp_path / "log"

    answer = guarded(job, "s.svs", "r0", short, fall_short, str(log), 1)

    assert [*map(int, log.read_text().split())][-1] == answer
    assert len(log.read_text().split()) == 2
    assert not (job.out / "staging" / "attempts" / "s.svs" / "r0").exists()


def test_work_that_is_short_of_memory_alone_too_is_not_tried_for_ever(job: LabelJob, tmp_path: Path) -> None:
    log = tmp_path / "log"

    with pytest.raises(
        InputError, match=r"s\.svs \(r0\): needs more memory than there is, also in 3 attempts"
    ) as caught:
        guarded(job, "s.svs", "r0", short, fall_short, str(log), 99)

    assert caught.value.cause is Cause.TOO_LARGE
    assert not caught.value.cause.transient
    assert len(log.read_text().split()) == 3


def test_a_plan_that_is_short_of_memory_is_made_alone(
    job: LabelJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pyramid(tmp_path / "s.svs", tissue(1024, 768), 0.25, (1, 4))
    monkeypatch.setattr(plan_worker, "look_for_tiles", short)

    planned = plan(replace(job, read_timeout_s=60), found(tmp_path / "s.svs"))

    assert "error_code" not in planned.columns
    assert len(planned.regions) > 0


@pytest.mark.parametrize(
    "ask", [lambda: bytearray(2**60), lambda: torch.empty(2**50), lambda: ov.Tensor(ov.Type.u8, ov.Shape([2**50]))]
)
def test_memory_that_is_short_is_no_internal_error_whoever_asks_for_it(ask: Callable[[], object]) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        ask()

    failure = describe_failure(caught.value, "s.svs")

    assert failure["error_code"] == "out_of_memory"
    assert failure["error"].startswith("s.svs: memory is short; use fewer --workers")


@pytest.mark.parametrize("error", [ValueError("odd"), SlideError(Cause.NO_MPP, "s.svs: no"), OSError(28, "full")])
def test_what_isolated_work_raises_is_raised_here(job: LabelJob, error: Exception) -> None:
    mark(job, lost=2)

    with pytest.raises(type(error)) as caught:
        guarded(job, "s.svs", "r0", os.getpid, fail, error)

    assert str(caught.value) == str(error)
    assert getattr(caught.value, "cause", None) == getattr(error, "cause", None)


def test_a_process_that_dies_in_different_ways_is_tried_again_by_the_next_run(job: LabelJob, tmp_path: Path) -> None:
    mark(job, lost=2)

    with pytest.raises(InputError) as caught:
        guarded(job, "s.svs", "r0", os.getpid, end, "SIGSEGV SIGKILL SIGSEGV", str(tmp_path / "log"))

    assert caught.value.cause is Cause.OUT_OF_MEMORY


def test_work_that_is_lost_again_and_again_is_left_to_the_next_run(job: LabelJob) -> None:
    mark(job, lost=12)

    with pytest.raises(InputError, match="12 workers were lost") as caught:
        guarded(job, "s.svs", "r0", os.getpid, pid)

    assert caught.value.cause.transient


def test_an_isolated_process_ends_with_its_worker(tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from helpers.isolated import wait
from histo.pipelines.labelling import plan_worker
from histo.run.isolation import _disposable_process
_disposable_process((wait, {str(child)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", code]) as worker:
        deadline = time.monotonic() + WITHIN_S
        while not child.exists() or not child.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        worker.kill()
    isolated = int(child.read_text())

    while Path(f"/proc/{isolated}").exists() and "Z" not in Path(f"/proc/{isolated}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.05)


def test_a_watchdog_notices_a_thread_that_hangs_while_others_come_in_time() -> None:
    code = """
import threading, time
from histo.pipelines.labelling import plan_worker
from histo.run.isolation import Watchdog
dog = Watchdog(1)
def hang():
    with dog.guard():
        time.sleep(60)
threading.Thread(target=hang, daemon=True).start()
for _ in range(5):
    with dog.guard():
        time.sleep(0.1)
time.sleep(30)
"""
    start = time.monotonic()

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert "Timeout (" in ended.stderr
    assert time.monotonic() - start < 20


def test_a_watchdog_lets_pass_what_comes_in_time() -> None:
    dog = Watchdog(0.5)

    for item in dog.each(iter(range(3))):
        assert item in range(3)
        time.sleep(0.3)  # only the making of an item is watched

    time.sleep(0.6)
