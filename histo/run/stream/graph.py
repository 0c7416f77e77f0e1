"""Build a graph of Ray Data: tasks in, answers out, a few tasks in a block."""

import os
import pickle
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any

from histo import store
from histo.remote.location import AnyPath
from histo.run.placement import Placement
from histo.run.stream.worker import Crew, Worker, file_name
from histo.tables import Row

os.environ.setdefault("RAY_DATA_DOWNSTREAM_CAPACITY_OBJECT_STORE_BUDGET_UTIL_THRESHOLD", "0")
import ray.data

SPARE_CPUS = 0.1
"""CPUs of a task that makes tasks. Workers leave as much free, or a full pool would keep it waiting for ever."""
SPLIT = "staging/split"
"""Where the rows of tasks that were split are kept, for as long as a graph runs."""
TASK_BYTES = 6000
"""Size of a task, roughly."""
_FEED_BLOCKS = 500
_STORE_SHARE = 0.25
"""Of the cluster's object stores; all that is on its way may lie on one of a few nodes, and would spill to its disk."""
_NO_PROGRESS_S = 6 * 3600
_MOST_FALSE_STARTS = 20
"""Actors that may die in a row before one is made; these are of nodes that have another environment."""


def tasks_in_blocks(tasks: Sequence[tuple[str, Any]], tasks_per_block: int = 1) -> ray.data.Dataset:
    """Feed a graph.

    Args:
        tasks: What is to be done, each with the name of its slide or study.
        tasks_per_block: Tasks that the graph keeps together from here on; a block costs the driver some 15 ms.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1 if tasks_per_block == 1 else tasks_per_block * TASK_BYTES
    context.execution_options.preserve_order = False
    context.override_object_store_memory_limit_fraction = _STORE_SHARE
    context.execution_no_progress_timeout_s = _NO_PROGRESS_S
    context.max_consecutive_actor_init_deaths = _MOST_FALSE_STARTS
    rows = [task_row(unit, task) for unit, task in tasks]
    return ray.data.from_items(rows, override_num_blocks=min(len(rows), _FEED_BLOCKS))


def task_row(unit: str, task: Any) -> Row:
    """A row that waits for its answer."""
    return {"unit": unit, "task": pickle.dumps(task), "answer": b"", "where": "", "fatal": ""}


def answer_row(unit: str, answer: Any) -> Row:
    """A row that has its answer."""
    return {"unit": unit, "task": b"", "answer": pickle.dumps(answer), "where": "", "fatal": ""}


def split(
    tasks: ray.data.Dataset, make: Callable[..., Iterable[Row]], arguments: tuple[object, ...], out: AnyPath
) -> ray.data.Dataset:
    """Make several tasks, or answers, of each.

    Args:
        tasks: Rows of them.
        make: Called with the parts of a task, and the arguments, it yields rows.
        arguments: What is the same for all tasks.
        out: Output folder, where the rows are kept: Ray splits a task again if it lost some of them, counts on the same
            rows in the same order, and would lose some without a word.
    """

    @wraps(make)  # Ray shows its name
    def made(row: Row) -> list[Row]:
        return _split(row, make, arguments, out / SPLIT)

    return tasks.flat_map(made, num_cpus=SPARE_CPUS)


def _split(row: Row, make: Callable[..., Iterable[Row]], arguments: tuple[object, ...], folder: AnyPath) -> list[Row]:
    path = folder / file_name(row["unit"])
    with suppress(OSError):
        if (content := store.content_of(path)) is not None:
            kept: list[Row] = pickle.loads(content)  # noqa: S301 -- written below
            return kept
    made = list(make(*pickle.loads(row["task"]), *arguments))  # noqa: S301 -- from our own driver
    if len(made) > 1:
        with suppress(OSError), store.put_atomic(path) as file:  # where nothing can be written, no part can be, either
            file.write(pickle.dumps(made))
    return made


def work(
    tasks: ray.data.Dataset, crew: Crew, placement: Placement, at_once: int = 1, at_least: int | None = None
) -> ray.data.Dataset:
    """Have workers do tasks.

    Args:
        tasks: Rows of them.
        crew: What the workers are made of.
        placement: How many there are, and on what.
        at_once: Tasks that a worker does at a time, in threads.
        at_least: Workers that stay while there is little to do; None: all of them. Where two stages share CPUs, workers
            of one that wait for the other would keep its only lost worker from coming back.
    """
    actors = ray.data.ActorPoolStrategy(
        min_size=at_least or placement.workers,
        initial_size=placement.workers,
        max_size=None if placement.may_grow else placement.workers,
        max_concurrent_calls_per_actor=at_once,
        enable_true_multi_threading=True,
    )
    named = type(crew.worker.__name__, (Worker,), {})  # Ray shows the name
    made_of: dict[str, Any] = {"fn_constructor_args": (crew,), "compute": actors}
    return tasks.map(named, **made_of, **worker_resources(placement))


def worker_resources(placement: Placement) -> dict[str, Any]:
    """What Ray reserves for one worker: its GPU, if it has one, and its CPUs less what making tasks needs."""
    gpus = {"num_gpus": placement.gpus} if placement.gpus else {}
    return gpus | {"num_cpus": max(0, placement.cpus - SPARE_CPUS)}
