"""Place workers: their number, their GPUs and their CPUs."""

import os
from dataclasses import dataclass
from typing import Literal

from histo.errors import UsageError

Device = Literal["auto", "cpu", "gpu"]


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
        may_grow: Whether there may be more of them on nodes that join the cluster later.
    """

    workers: int
    gpus: int
    cpus: int
    may_grow: bool = False

    @property
    def torch_device(self) -> str:
        """What a worker calls its device; Ray shows each worker its own GPU only."""
        return "cuda" if self.gpus else "cpu"


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
    may_grow = workers is None and resources.cpus_per_worker is not None
    return Placement(count, int(on_gpu), share or max(1, int(resources.cpus // count)), may_grow)


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
