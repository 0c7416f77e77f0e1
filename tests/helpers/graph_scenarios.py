"""Faulty workers in a graph on three nodes of one CPU each: `main` prints a JSON line for each.

Each scenario has 30 tasks. A fault is of the worker on one node, the sick one, or of two, or of all.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import ray.data
import ray.exceptions

from helpers.clusters import NODE, make_cluster
from histo.errors import HistoError
from histo.run.cluster import session
from histo.run.isolation import Watchdog
from histo.run.placement import Placement
from histo.run.stream.drive import Work, drive
from histo.run.stream.graph import split, task_row, tasks_in_blocks, work
from histo.run.stream.worker import Crew, Handed, is_started_again
from histo.tables import Row

TASKS, WORKERS = 30, 3
TASK_S, SLOW_S = 0.2, 0.5
HANDED_BYTES = 10 * 2**20
LATE = "starts late, dies with a task, hangs, and a node is lost"
ONE_NEVER = "one never starts, another dies while it starts"
FAILS = "fails at every task"
NOT_AGAIN = "dies with a task, and whenever it starts again"
NEVER = "none ever starts"
SLOW_NETWORK, SLOW_READER = "two stages, the second one slow", "two stages, the first one slow"


@dataclass(frozen=True)
class Done:
    """The answer to a task: the task itself, or an error code."""

    unit: str
    number: int
    error_code: str | None = None


class Fake:
    """Answers with the task, unless its fault says otherwise."""

    def __init__(self, out: str, fault: str, sick_nodes: str) -> None:
        self._out, self._fault = Path(out), fault
        here, (sick, _, sicker) = ray.get_runtime_context().get_node_id(), sick_nodes.partition(" ")
        self._is_sick = sick in ("", here)
        if fault == LATE and is_first(self._out, "start"):
            raise RuntimeError("not yet")
        if self._is_sick and fault in (NEVER, ONE_NEVER):
            raise RuntimeError("no card")
        if (here == sicker and fault == ONE_NEVER) or (fault == NOT_AGAIN and is_started_again()):
            os.kill(os.getpid(), signal.SIGSEGV)

    def __call__(self, number: int) -> Done:
        """Answer."""
        time.sleep(TASK_S)
        if self._is_sick and self._fault == FAILS:
            return Done(str(number), number, "internal")
        if self._fault == NOT_AGAIN and is_first(self._out, "died"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._fault == LATE and number == 7 and (is_first(self._out, "one") or is_first(self._out, "two")):
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._fault == LATE and number == 11 and is_first(self._out, "hung"):
            with Watchdog(1).guard():
                time.sleep(10_000)
        return Done(str(number), number)


def is_first(out: Path, name: str) -> bool:
    """Whether nothing of that name has happened before in a run."""
    try:
        (out / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class Reader:
    """Hands each task over, with as many bytes as a node can hold a few of."""

    def __init__(self, task_s: float) -> None:
        self._task_s = task_s

    def __call__(self, number: int) -> Handed:
        """Hand a task over."""
        time.sleep(self._task_s)
        return Handed((number,), np.full(HANDED_BYTES, number, np.uint8))


class Network:
    """Looks at what it is handed, and answers."""

    def __init__(self, task_s: float) -> None:
        self._task_s = task_s

    def __call__(self, array: npt.NDArray[np.uint8], number: int) -> Done:
        """Answer."""
        time.sleep(self._task_s)
        return Done(str(number), number, None if bool((array == number).all()) else "other bytes")


class Run(Work[Done]):
    """A run whose answers are kept in memory."""

    def __init__(self, out: Path, fault: str, sick_nodes: str, meanwhile: Callable[[int], object]) -> None:
        self._out, self._meanwhile, self._fault = out, meanwhile, fault
        self._made_of = (str(out), fault, sick_nodes)
        self._open = {str(number): number for number in range(TASKS)}
        self.answers: list[Done] = []
        self.graphs = 0
        self.left_out: tuple[str, ...] = ()

    @property
    def out(self) -> Path:
        """See `Work.out`."""
        return self._out

    def is_open(self, unit: str) -> bool:
        """See `Work.is_open`."""
        return unit in self._open

    def graph(self, left_out: tuple[str, ...]) -> ray.data.Dataset | None:
        """See `Work.graph`."""
        if not self._open:
            return None
        self.graphs += 1
        self.left_out = left_out
        tasks = split(
            tasks_in_blocks([(unit, (number,)) for unit, number in self._open.items()]), as_it_is, (), self._out
        )
        if self._fault not in (SLOW_NETWORK, SLOW_READER):
            return work(tasks, Crew(Fake, self._made_of, self._out, left_out), Placement(WORKERS, 0, 1))
        read_s, network_s = (SLOW_S, 0) if self._fault == SLOW_READER else (0, SLOW_S)
        read = work(tasks, Crew(Reader, (read_s,), self._out, left_out, hands_over=True), Placement(1, 0, 1))
        return work(read, Crew(Network, (network_s,), self._out, left_out), Placement(2, 0, 1), at_least=1)

    def enter(self, answer: Done) -> None:
        """See `Work.enter`."""
        del self._open[answer.unit]
        self.answers.append(answer)

    def between(self) -> None:
        """See `Work.between`."""
        self._meanwhile(len(self.answers))

    def say(self, text: str) -> None:
        """See `Work.say`."""
        print(text, file=sys.stderr)


def as_it_is(number: int) -> list[Row]:
    """Split a task into itself."""
    return [task_row(str(number), (number,))]


def result(fault: str, sick_nodes: str, meanwhile: Callable[[int], object] = bool) -> dict[str, Any]:
    """Run a scenario; returns what came of it."""
    with tempfile.TemporaryDirectory() as out:
        run, error = Run(Path(out), fault, sick_nodes, meanwhile), None
        try:
            drive(run, Placement(WORKERS, 0, 1))
        except HistoError as raised:
            error = str(raised)
        left = [str(path.relative_to(out)) for path in Path(out, "staging").rglob("*") if path.is_file()]
    return {
        "fault": fault,
        "numbers": sorted(answer.number for answer in run.answers),
        "blamed": [answer.number for answer in run.answers if answer.error_code],
        "graphs": run.graphs,
        "left_out": run.left_out,
        "error": error,
        "left_behind": left,
    }


def main() -> None:
    """Run all scenarios of one stage, and print what came of each."""
    with three_nodes() as (_, sick, lost):

        def lose(count: int, done: list[bool] = [False]) -> None:  # noqa: B006 -- kept from call to call
            if count >= TASKS // 4 and not done[0]:
                done[0] = True
                lost.all_processes["raylet"][0].process.kill()

        both = f"{sick.node_id} {lost.node_id}"
        for fault, nodes in [(NEVER, ""), (ONE_NEVER, both), (NOT_AGAIN, ""), (FAILS, sick.node_id)]:
            print(json.dumps(result(fault, nodes)), flush=True)
        print(json.dumps(result(LATE, "", lose)), flush=True)


def main_apart() -> None:
    """Run the scenarios of two stages, of which one takes no time, and print what came of each."""
    with three_nodes() as (head, *_):
        for fault in (SLOW_NETWORK, SLOW_READER):
            most_spilled = [0]

            def watch(_: int, most: list[int] = most_spilled) -> None:
                spilled = Path(head.get_session_dir_path()).glob("ray_spilled*/*")
                most[0] = max(most[0], len([path for path in spilled if path.is_file()]))

            print(json.dumps(result(fault, "", watch) | {"most_spilled": most_spilled[0]}), flush=True)


@contextmanager
def three_nodes() -> Iterator[tuple[Any, Any, Any]]:
    """Have a cluster of three nodes, and join it; yields the head and the others."""
    cluster = make_cluster(NODE, NODE, NODE)
    os.environ["RAY_ADDRESS"] = cluster.address
    with session(None):
        yield cluster.head_node, *cluster.worker_nodes
    with suppress(ray.exceptions.RpcError):  # a busy machine
        cluster.shutdown()  # type: ignore[no-untyped-call] # Ray's own
