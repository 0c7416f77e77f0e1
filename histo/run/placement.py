"""Place workers: their number, their GPUs and their CPUs."""

import os
from dataclasses import dataclass
from math import ceil
from typing import Literal

from histo.errors import UsageError

Device = Literal["auto", "cpu", "gpu"]

_CPUS_FOR_OTHERS = 2
"""CPUs beside each GPU of a cluster that are left to planning, and to the job's own process."""
_PARTS_OF_A_GPU = 10_000
"""Ray counts GPUs in ten thousandths; a third is 0.3333, of which three fit."""


@dataclass(frozen=True)
class Node:
    """CPUs and GPUs of one node."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Resources:
    """What a Ray cluster has.

    Attributes:
        nodes: Its nodes.
        is_private: Whether it is a Ray of this machine for this run alone, whose workers share all CPUs.
    """

    nodes: tuple[Node, ...]
    is_private: bool

    @property
    def cpus(self) -> float:
        """CPUs in all."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs in all."""
        return sum(node.gpus for node in self.nodes)

    @property
    def gpu_nodes(self) -> tuple[Node, ...]:
        """Nodes with a GPU at least."""
        return tuple(node for node in self.nodes if node.gpus >= 1)

    def free_cpus(self, node: Node) -> int:
        """CPUs of a node that the workers on its GPUs may take: one for each, where there are so many, at least."""
        free = node.cpus if self.is_private else max(node.cpus - _CPUS_FOR_OTHERS * node.gpus, node.gpus)
        return int(min(free, node.cpus))

    @property
    def cpus_per_gpu(self) -> int:
        """CPUs that a GPU's worker may take wherever it is placed."""
        return max(1, min((int(self.free_cpus(node) // node.gpus) for node in self.gpu_nodes), default=1))


@dataclass(frozen=True)
class Placement:
    """Workers, and what each of them gets.

    Attributes:
        workers: Their number.
        gpus: GPUs of each: 1, a part of one, or 0.
        cpus: CPUs of each; 0 if none is reserved.
        may_grow: Whether there may be more of them on nodes that join the cluster later.
    """

    workers: int
    gpus: float
    cpus: int
    may_grow: bool = False

    @property
    def torch_device(self) -> str:
        """What a worker calls its device; Ray shows each worker its own GPU only."""
        return "cuda" if self.gpus else "cpu"


def place(
    workers: int | None, device: Device, resources: Resources, cpu_workers: int, most_on_a_gpu: int = 1
) -> Placement:
    """Decide how many workers run, and on what.

    Args:
        workers: Asked for; None leaves it to the cluster: one for each GPU, or `cpu_workers`.
        device: `auto` takes GPUs where there are some.
        resources: What the cluster has.
        cpu_workers: Number of workers without GPUs if none is asked for.
        most_on_a_gpu: Workers that may share a GPU, if so many are asked for.

    Raises:
        UsageError: If the cluster cannot hold them; it would wait for ever.
    """
    on_gpu = is_on_gpus(device, resources)
    count = workers or (max(1, int(min(resources.gpus, resources.cpus))) if on_gpu else cpu_workers)
    if on_gpu and count > resources.gpus * most_on_a_gpu:
        raise UsageError(
            f"--workers {count}: this cluster has {resources.gpus:g} GPUs; ask for at most "
            f"{'that many' if most_on_a_gpu == 1 else f'{most_on_a_gpu} on each'}, or for --device cpu"
        )
    check_cpus(f"--workers {count}", count, resources)
    on_a_gpu = ceil(count / resources.gpus) if on_gpu else 1
    in_a_cluster = resources.cpus_per_gpu // on_a_gpu if on_gpu else 1
    cpus = max(1, int(resources.cpus // count) if resources.is_private else in_a_cluster)
    return Placement(count, share(on_a_gpu) if on_gpu else 0, cpus, may_grow(workers, resources))


def one_each(workers: int | None, device: Device, resources: Resources) -> Placement:
    """Place one worker on each GPU, or on each CPU where there is none, unless a number is asked for; see `place`."""
    return place(workers, device, resources, max(1, int(resources.cpus)))


def is_on_gpus(device: Device, resources: Resources) -> bool:
    """Whether workers compute on GPUs.

    Raises:
        UsageError: If they are asked to, and there is none.
    """
    if device == "gpu" and resources.gpus < 1:
        raise UsageError("--device gpu: this cluster has no GPU; leave the flag out to use its CPUs")
    return device != "cpu" and resources.gpus >= 1


def check_cpus(asked: str, processes: int, resources: Resources) -> None:
    """Make sure that each process has a CPU.

    Raises:
        UsageError: If there are too few.
    """
    if processes > resources.cpus:
        raise UsageError(f"{asked}: this cluster has {resources.cpus:g} CPUs; ask for at most that many")


def may_grow(asked: int | None, resources: Resources) -> bool:
    """Whether nodes that join later get workers: only if their number is left to the cluster."""
    return asked is None and not resources.is_private


def share(workers: int) -> float:
    """Return the part of a GPU that each of several workers gets, as Ray counts it.

    Examples:
        >>> share(1), share(3)
        (1.0, 0.3333)
    """
    return _PARTS_OF_A_GPU // workers / _PARTS_OF_A_GPU


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
