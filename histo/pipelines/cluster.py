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
    """What a Ray cluster has in all."""

    cpus: float
    gpus: float
    local: bool


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
        total = ray.cluster_resources()  # type: ignore[no-untyped-call] # Ray's own
        yield Resources(total.get("CPU", 0), total.get("GPU", 0), local)
    finally:
        ray.shutdown()


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
    share = max(1, int(resources.cpus // count)) if resources.local else 1
    return Placement(count, int(on_gpu), share)
