"""Where a run takes place: a Ray session, and the workers that it offers."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import ray

from histo.errors import UsageError

Device = Literal["auto", "cpu", "gpu"]

_SETTINGS = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers use the driver's interpreter, also under `uv run`
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # reports are collected that often, not every 2 s
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # no line twice
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray's own notes stay out of the terminal; ours say what failed
}


@dataclass(frozen=True)
class Resources:
    """What a Ray cluster has.

    Attributes:
        cpus: In all.
        gpus: In all.
        cpus_per_worker: CPUs that a worker may take wherever it is placed, beside its GPU if there are any; None leaves
            it to the number of workers, which then share one machine.
    """

    cpus: float
    gpus: float
    cpus_per_worker: int | None


@dataclass(frozen=True)
class Placement:
    """Workers, and what each of them gets.

    Attributes:
        workers: Their number.
        gpus: GPUs of each, 0 or 1.
        cpus: CPUs of each.
    """

    workers: int
    gpus: int
    cpus: int

    @property
    def torch_device(self) -> str:
        """What a worker calls its device; Ray shows each worker its own GPU only."""
        return "cuda" if self.gpus else "cpu"


@contextmanager
def session(workers: int | None) -> Iterator[Resources]:
    """Join the cluster that RAY_ADDRESS names, or start a private Ray on this machine, and leave it at the end.

    Args:
        workers: Asked for by the user. A private Ray admits more workers than there are cores.

    Raises:
        UsageError: If the cluster cannot be reached.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS", "local")
    local = address == "local"
    try:
        ray.init(**(_local_settings(workers) if local else {"address": address, "log_to_driver": True}))
    except (ConnectionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"RAY_ADDRESS={address}: no Ray cluster can be joined there ({reason})") from None
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")  # one slide, many regions
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    try:
        yield _resources(local)
    finally:
        ray.shutdown()


def _resources(local: bool) -> Resources:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call] # Ray's own
    gpu_nodes = [node for node in nodes if node.get("GPU", 0) >= 1]
    beside_a_gpu = min((int(node.get("CPU", 0) // node["GPU"]) for node in gpu_nodes), default=1)
    return Resources(
        cpus=sum(node.get("CPU", 0) for node in nodes),
        gpus=sum(node.get("GPU", 0) for node in nodes),
        cpus_per_worker=None if local else max(1, beside_a_gpu),
    )


def _local_settings(workers: int | None) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "address": "local",
        "num_cpus": workers if workers and workers > cores else None,
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": "ERROR",
    }


def place(workers: int | None, device: Device, resources: Resources, cpu_workers: int) -> Placement:
    """Decide how many workers run, and on what.

    Args:
        workers: Asked for; None leaves it to the cluster: one for each GPU, or `cpu_workers`.
        device: `auto` takes GPUs where there are some.
        resources: What the cluster has.
        cpu_workers: Number of workers without GPUs if none is asked for.

    Raises:
        UsageError: If the cluster cannot hold them; it would wait for ever.
    """
    if device == "gpu" and resources.gpus < 1:
        raise UsageError("--device gpu: this cluster has no GPU; leave the flag out to use its CPUs")
    on_gpu = device != "cpu" and resources.gpus >= 1
    count = workers or (int(resources.gpus) if on_gpu else cpu_workers)
    if on_gpu and count > resources.gpus:
        raise UsageError(
            f"--workers {count}: this cluster has {resources.gpus:g} GPUs; ask for at most that many, "
            "or for --device cpu"
        )
    if count > resources.cpus:
        raise UsageError(f"--workers {count}: this cluster has {resources.cpus:g} CPUs; ask for at most that many")
    share = resources.cpus_per_worker if on_gpu or resources.cpus_per_worker is None else 1
    return Placement(count, int(on_gpu), share or max(1, int(resources.cpus // count)))
