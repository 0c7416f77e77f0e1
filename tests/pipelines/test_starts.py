"""Attempts at starting of workers, counted on disk, and a graph that Ray Data gives up; no Ray."""

import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.data.exceptions import ExecutionTimeoutError

from histo.errors import HistoError
from histo.run.placement import Placement
from histo.run.stream import drive
from histo.run.stream.worker import WORKERS, Starts, admit_workers


@dataclass(frozen=True)
class Told:
    """An answer."""

    error_code: str | None


@pytest.fixture
def starts(tmp_path: Path) -> Starts:
    admit_workers(tmp_path)
    return Starts(tmp_path, "Reader")


def fail_often(starts: Starts, worker: str) -> None:
    for _ in range(3):
        starts.begin(worker)
        starts.fail(worker, f"{worker} has no card")


def test_a_run_is_hopeless_when_every_worker_that_tried_has_failed_several_times(starts: Starts) -> None:
    assert starts.hopeless() is None
    fail_often(starts, "a")
    assert starts.hopeless() == ("a has no card", 1)
    starts.begin("b")
    assert starts.hopeless() is None


def test_one_worker_that_was_ready_is_hope(starts: Starts) -> None:
    starts.begin("b")
    starts.succeed("b")
    fail_often(starts, "a")

    assert starts.hopeless() is None


def test_a_mark_that_goes_while_it_is_read_is_no_error(starts: Starts, tmp_path: Path) -> None:
    fail_often(starts, "a")
    (tmp_path / WORKERS / "Reader" / "b").symlink_to(tmp_path / "gone")

    assert starts.hopeless() is None


def test_a_process_that_dies_while_it_starts_leaves_its_mark(starts: Starts) -> None:
    for _ in range(3):
        starts.begin("a")

    assert starts.count("a") == 3
    assert starts.hopeless() == ("the process died while it started", 1)


def test_a_worker_that_starts_when_the_run_is_over_leaves_nothing(starts: Starts, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "staging")

    with pytest.raises(FileNotFoundError):
        starts.begin("a")

    assert list(tmp_path.iterdir()) == []


def test_a_run_is_hopeless_when_the_workers_of_one_stage_cannot_start(starts: Starts, tmp_path: Path) -> None:
    starts.begin("a")
    starts.succeed("a")
    fail_often(Starts(tmp_path, "Network"), "b")

    with pytest.raises(HistoError, match="no worker can start: b has no card"):
        attempt(tmp_path, 1)._take(Silent(99))  # type: ignore[arg-type]


def test_workers_that_are_late_may_still_start_where_all_others_cannot(
    starts: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_often(starts, "a")
    fail_often(starts, "b")

    monkeypatch.setattr(drive, "_LOOK_S", 0)
    late = attempt(tmp_path, 3)
    late._take(Silent(3))  # type: ignore[arg-type]
    monkeypatch.setattr(drive, "_LATE_S", 0)
    with pytest.raises(HistoError, match=r"no worker can start: [ab] has no card"):
        late._take(Silent(3))  # type: ignore[arg-type]


def attempt(out: Path, workers: int) -> drive._Attempt:
    """A graph whose driver is asked to look after its workers."""

    class Run:
        def between(self) -> None:
            pass

    run = Run()
    run.out = out  # type: ignore[attr-defined]
    return drive._Attempt(run, [Placement(workers, 0, 1)], is_first=False)  # type: ignore[arg-type]


class Silent:
    """Answers that do not come, and end after so many looks."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

    @property
    def has_more(self) -> bool:
        self._looks -= 1
        return self._looks >= 0

    def next(self, wait_s: float) -> None:
        assert wait_s < 1


@pytest.mark.parametrize(
    ("rows", "useless"),
    [
        ([("Network/a", False), ("Network/b", True)], ("Network/a",)),
        ([("Reader/a Network/b", True), ("Reader/c", False)], ("Reader/c",)),
        ([("Reader/a Network/b", False), ("Reader/a", True)], ()),
        ([("Reader/a", False), ("Reader/c Network/a", True)], ("Reader/a",)),
        ([("Reader/a", False), ("Reader/a Network/a", True)], ()),
    ],
    ids=["fused", "apart", "the only network fails, and a reader found what was done before", "two on a node", "once"],
)
def test_a_worker_is_left_out_if_it_only_fails_where_others_of_its_stage_do_not(
    rows: list[tuple[str, bool]], useless: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Run:
        out = tmp_path

        def is_open(self, unit: str) -> bool:
            return unit == "another"

    monkeypatch.setattr(drive, "_nodes", list)
    attempt = drive._Attempt(Run(), [Placement(1, 0, 1)], is_first=True)  # type: ignore[arg-type]
    for stages, is_well in rows:
        answer = Told(error_code=None if is_well else "internal")
        attempt._enter({"unit": "s", "where": stages, "fatal": "", "answer": pickle.dumps(answer)})

    assert attempt.useless() == useless


def test_a_graph_without_progress_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        has_more = True

        def __init__(self, *_: Any) -> None:
            pass

        def __enter__(self) -> "Stuck":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def next(self, wait_s: float) -> None:
            raise ExecutionTimeoutError(f"nothing for {wait_s} s")

    class Work:
        out, graphs = tmp_path, 0

        def graph(self, _: tuple[str, ...]) -> object | None:
            self.graphs += 1
            return object() if self.graphs < 3 else None

    monkeypatch.setattr(drive, "Answers", Stuck)
    monkeypatch.setattr(drive, "_nodes", list)
    work = Work()

    drive.drive(work, Placement(1, 0, 1))  # type: ignore[arg-type]

    assert work.graphs == 3
