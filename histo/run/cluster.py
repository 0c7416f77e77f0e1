"""Session of a run: its Ray, its nodes, and the folders that each must see."""

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from importlib import import_module
from typing import Any, TypeVar
from uuid import uuid4

import ray
import ray.exceptions
from ray.util import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from histo.errors import HistoError, UsageError
from histo.remote.location import AnyPath
from histo.run.placement import Node, Placement, Resources, usable_cpus
from histo.run.ray_start import Watch, is_private, join, last_word, start_private
from histo.store import TEMPORARY_SUFFIX, is_there, put_atomic, remove

_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # reports are collected that often, not every 2 s
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # no line twice
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray's own notes stay out of the terminal; ours say what failed
}
_MOST_PER_CORE = 16
"""Workers of a private Ray for each CPU of the machine; each is a process of some 0.5 GB."""

PlacementT = TypeVar("PlacementT", bound=Placement)


@contextmanager
def session(workers: int | None, asked: str = "--workers") -> Iterator[Resources]:
    """Join the cluster that RAY_ADDRESS names, or start a private Ray on this machine, and leave it at the end.

    A process that has a Ray already, as a notebook may, keeps it.

    Args:
        workers: Asked for by the user. A private Ray admits more workers than there are cores.
        asked: The flags that asked for them.

    Raises:
        UsageError: If the cluster cannot be reached, or this machine can never run so many workers.
        HistoError: If a private Ray cannot be started, or is ended by others.
    """
    if ray.is_initialized():
        yield _resources(is_private())
        return
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS") or "local"
    local = address == "local"
    if local:
        start_private(**_local_settings(workers, asked))
    else:
        join(address, log_to_driver=True)
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")  # one slide, many regions
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    watch = Watch()
    try:
        watch.begin()
        try:
            with last_word():
                yield _resources(local)
        except Exception:
            watch.look()
            raise
    except KeyboardInterrupt:
        if watch.reason is None:
            raise
        raise HistoError(watch.reason) from None
    finally:
        watch.end()
        ray.shutdown()


def _resources(is_private: bool) -> Resources:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call] # Ray's own
    return Resources(tuple(Node(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes), is_private)


def describe(placement: Placement | None) -> dict[str, Any]:
    """Say what a run was placed on, for its record: its workers, and what every node has; nothing if it needed none."""
    if placement is None:
        return {}
    nodes = [
        {
            "name": node["NodeManagerHostname"],
            "cpus": node["Resources"].get("CPU", 0),
            "gpus": node["Resources"].get("GPU", 0),
            "accelerators": [
                name.partition(":")[2] for name in node["Resources"] if name.startswith("accelerator_type:")
            ],
            "memory_gib": round(node["Resources"].get("memory", 0) / 2**30, 1),
        }
        for node in ray.nodes()  # type: ignore[no-untyped-call] # Ray's own
        if node["Alive"]
    ]
    return {"placement": asdict(placement), "nodes": nodes}


def _local_settings(workers: int | None, asked: str) -> dict[str, Any]:
    cores = usable_cpus()
    if workers and workers > _MOST_PER_CORE * cores:
        raise UsageError(
            f"{asked}: {workers} processes, more than {_MOST_PER_CORE} for each of the {cores} CPUs of this machine; "
            "ask for fewer"
        )
    most_would_idle = workers is not None and cores > 2 * (workers + 1)  # one plans
    return {
        "num_cpus": max(cores, workers or 0),
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": "ERROR",
        # Ray starts a process for each CPU ahead; without, it starts them as they are needed
        "_system_config": {"prestart_worker_first_driver": False} if most_would_idle else {},
    }


@contextmanager
def placed(
    is_needed: bool,
    processes: int | None,
    choose: Callable[[Resources], PlacementT],
    *shared: AnyPath,
    asked: str = "--workers",
) -> Iterator[PlacementT | None]:
    """Join or start Ray, unless nothing is to do; yields where the workers are.

    Args:
        is_needed: Whether something is to do.
        processes: That the user asked for, of all kinds.
        choose: Decides where they are.
        shared: The output folder, and the inputs, which every node must see.
        asked: The flags that asked for processes.

    Raises:
        UsageError: If the workers cannot be placed, or a node does not see what is shared.
    """
    with ExitStack() as stack:
        placement = None
        if is_needed:
            threading.Thread(target=_load_stream, daemon=True).start()
            placement = choose(stack.enter_context(session(processes, asked)))
            check_shared(*shared)
        yield placement


def _load_stream() -> None:
    """Load Ray Data, which whoever is placed needs, while this process waits for Ray; what is wrong is said there."""
    with suppress(Exception):
        import_module("histo.run.stream.drive")


def check_shared(out: AnyPath, *inputs: AnyPath) -> None:
    """Make sure that every node of the cluster sees the same output folder, and the inputs.

    Raises:
        UsageError: If one does not, or cannot reach the object storage where they are; its part of the results would
            be lost.
    """
    if is_private():  # the one node is this process's own machine
        return
    marker = out / f".shared-{uuid4().hex}{TEMPORARY_SUFFIX}"
    with put_atomic(marker):
        pass
    try:
        for node in (node for node in ray.nodes() if node["Alive"]):  # type: ignore[no-untyped-call] # Ray's own
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            look = ray.remote(_missing).options(num_cpus=0, scheduling_strategy=here)
            with suppress(ray.exceptions.RayError):  # the node has just been lost, and does no work either
                for path, reason in ray.get(look.remote([marker, *inputs])):
                    seen = path if path != marker else out
                    raise UsageError(f"{seen}: not visible on node {node['NodeManagerHostname']}; {reason}")
    finally:
        remove(marker)


def _missing(paths: list[AnyPath]) -> list[tuple[AnyPath, str]]:
    """Return what this node does not see, each with a reason."""
    missing: list[tuple[AnyPath, str]] = []
    for path in paths:
        try:
            if not is_there(path):
                missing.append((path, "it must be a shared folder, or in object storage that all nodes reach"))
        except OSError as error:
            missing.append((path, error.strerror or str(error)))
    return missing


def cpus_here(gpus: float, cpus: int) -> int:
    """Return the CPUs that a worker with a GPU, or a part of one, may use on the node that it is on.

    Ray reserves as many for each worker, and so no more than the smallest node has for each of its GPUs. What larger
    nodes have beyond is their own workers'.

    Args:
        gpus: GPUs of each worker.
        cpus: CPUs that are reserved for each.
    """
    me = ray.get_runtime_context().get_node_id()
    mine = [node["Resources"] for node in ray.nodes() if node["NodeID"] == me]  # type: ignore[no-untyped-call] # Ray's own
    if not mine or not gpus or mine[0].get("GPU", 0) < 1:
        return cpus
    node = Node(mine[0].get("CPU", 0), mine[0]["GPU"])
    return max(cpus, Resources((node,), is_private()).free_cpus(node) // round(node.gpus / gpus))


def place_waited_for(placement: Placement) -> str | None:
    """Say for what the workers of a training run wait; nothing if they have their places."""
    if not ray.is_initialized():
        return None
    asked = {"CPU": float(placement.cpus)} | ({"GPU": float(placement.gpus)} if placement.gpus else {})
    groups = placement_group_table().values()
    if not any(group["state"] == "PENDING" and asked in group["bundles"].values() for group in groups):
        return None
    free, whole = ray.available_resources(), ray.cluster_resources()  # type: ignore[no-untyped-call] # Ray's own
    each = " and ".join(_amount(kind, number) for kind, number in asked.items())
    there = ", ".join(f"{free.get(kind, 0):g} of {_amount(kind, whole.get(kind, 0))}" for kind in asked)
    return f"waiting for a place for {_amount('worker', placement.workers)} of {each} each; free are {there}"


def _amount(kind: str, number: float) -> str:
    return f"{number:g} {kind}{'s' if number != 1 else ''}"


def root_cause(error: BaseException) -> str:
    """Say in one line what an exception of Ray is about: the message of the error that a worker raised."""
    failures = getattr(error, "worker_failures", None) or {}
    cause: BaseException = next(iter(failures.values()), error)
    while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None:
        cause = inner
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    if isinstance(cause, HistoError):
        return " ".join(lines)
    return f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"
