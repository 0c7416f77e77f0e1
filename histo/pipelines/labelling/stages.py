"""Choose the stages of a label run: reading and network in one worker, or apart."""

from dataclasses import dataclass
from itertools import product
from math import floor

from histo.errors import UsageError
from histo.run.placement import Device, Node, Placement, Resources, check_cpus, is_on_gpus, may_grow, place, share

MOST_ON_A_GPU = 4
"""Workers that share a GPU at most; each holds a network of its own there."""
_READ_BY_A_CPU, _READ_BY_A_PROCESS = 600, 4000
"""Tiles per second that are read; the threads of one process wait for each other, however many CPUs they have."""
_TAKEN_BY_A_GPU = 10_000
"""Tiles per second of a small network. Not measured yet: an estimate for a recent card."""
_PASSED_BY_THE_DRIVER = 8500
"""Tiles per second that cross the object store: two blocks for 256 tiles cost the driver some 30 ms."""
_LEFT_BY_THE_STORE = 0.85
"""Share of a reader's CPU that reads; the rest puts tiles into the object store."""
_WORTH_IT = 1.2


@dataclass(frozen=True)
class LabelPlacement(Placement):
    """Workers of a label run.

    Attributes:
        readers: Processes that only read, of one CPU each, on any node; the workers then only classify. 0: they read,
            too.
        readers_may_grow: Whether there may be more readers on nodes that join later.
    """

    readers: int = 0
    readers_may_grow: bool = False

    @property
    def reading(self) -> Placement:
        """Placement of the readers."""
        return Placement(self.readers, 0, 1, self.readers_may_grow)

    def __str__(self) -> str:
        many, one = ("classify", "classifies") if self.readers else ("read and classify", "reads and classifies")
        gpu = "a GPU each" if self.gpus == 1 else f"{round(1 / self.gpus)} on a GPU" if self.gpus else ""
        cpus = f"{_counted(self.cpus, 'CPU')} each" if self.cpus else ""
        workers = f"{_counted(self.workers, 'worker')} that {one if self.workers == 1 else many}"
        readers = [f"{_counted(self.readers, 'reader')}, 1 CPU each"] if self.readers else []
        return "; ".join([*readers, ", ".join(filter(None, (workers, gpu, cpus)))])


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def place_label(workers: int | None, readers: int | None, device: Device, resources: Resources) -> LabelPlacement:
    """Decide which processes label, and on what.

    Without GPUs each worker reads and classifies on a CPU. With GPUs as many workers share each of them as its node has
    CPUs for; where nodes without GPUs can read much more than these, readers take all CPUs, and tiles cross the object
    store. The rule goes by rates that were measured on CPUs, and an estimate for the GPU.

    Args:
        workers: Asked for; None leaves it to the cluster.
        readers: Asked for; 0: workers read; None leaves it to the cluster.
        device: `auto` takes GPUs where there are some.
        resources: What the cluster has.

    Raises:
        UsageError: If the cluster cannot hold them.
    """
    on_gpus = is_on_gpus(device, resources)
    is_apart = bool(readers)
    if readers is None and on_gpus and not resources.is_private:
        is_apart = _is_better_apart(workers, resources)
    if is_apart:
        return _apart(workers, readers, on_gpus, resources)
    if on_gpus and workers is None:
        on_a_gpu, cpus = _best_share(resources)
        count = max(1, sum(_room(resources, node, on_a_gpu, cpus) for node in resources.gpu_nodes))
        return LabelPlacement(count, share(on_a_gpu), cpus, may_grow(workers, resources))
    placement = place(workers, device, resources, max(1, int(resources.cpus)), MOST_ON_A_GPU)
    return LabelPlacement(placement.workers, placement.gpus, placement.cpus, placement.may_grow)


def _apart(workers: int | None, asked: int | None, on_gpus: bool, resources: Resources) -> LabelPlacement:
    """A worker on a GPU reserves no CPU: readers, which may fill its node, would keep it from its place."""
    readers = asked or _most_readers(resources)
    grow = may_grow(workers, resources), may_grow(asked, resources)
    if on_gpus:
        gpus = place(workers, "gpu", resources, 1, MOST_ON_A_GPU)
        check_cpus(f"--readers {readers}", readers, resources)
        return LabelPlacement(gpus.workers, gpus.gpus, 0, grow[0], readers, grow[1])
    if workers is None and readers >= resources.cpus:
        raise UsageError(f"--readers {readers}: this cluster has {resources.cpus:g} CPUs; leave some to the network")
    count = workers or int(resources.cpus) - readers
    check_cpus(f"--readers {readers} --workers {count}", readers + count, resources)
    return LabelPlacement(count, 0, 1, grow[0], readers, grow[1])


def _best_share(resources: Resources) -> tuple[int, int]:
    """Return how many workers on a GPU, with how many CPUs each, read most; of equals, the fewest on the most GPUs."""
    most_cpus = max(1, *(resources.free_cpus(node) for node in resources.gpu_nodes))
    ways = product(range(1, MOST_ON_A_GPU + 1), range(1, most_cpus + 1))
    return max(ways, key=lambda way: (_rate(resources, *way), _gpus_taken(resources, *way), -way[0], way[1]))


def _rate(resources: Resources, on_a_gpu: int, cpus: int) -> float:
    """Return the tiles per second of workers that read and classify."""
    of_a_worker = min(cpus * _READ_BY_A_CPU, _READ_BY_A_PROCESS)
    return sum(
        min(node.gpus * _TAKEN_BY_A_GPU, _room(resources, node, on_a_gpu, cpus) * of_a_worker)
        for node in resources.gpu_nodes
    )


def _gpus_taken(resources: Resources, on_a_gpu: int, cpus: int) -> float:
    return sum(min(node.gpus, _room(resources, node, on_a_gpu, cpus)) for node in resources.gpu_nodes)


def _room(resources: Resources, node: Node, on_a_gpu: int, cpus: int) -> int:
    """Return how many workers a node holds."""
    return min(floor(node.gpus) * on_a_gpu, resources.free_cpus(node) // cpus)


def _is_better_apart(workers: int | None, resources: Resources) -> bool:
    """Whether all CPUs, through the object store, read much more than those that the GPUs have beside them."""
    if len(resources.gpu_nodes) == len(resources.nodes):
        return False
    gpus = min(workers or resources.gpus, resources.gpus)
    apart = _most_readers(resources) * _READ_BY_A_CPU * _LEFT_BY_THE_STORE
    apart = min(apart, gpus * _TAKEN_BY_A_GPU, _PASSED_BY_THE_DRIVER)
    return apart > _WORTH_IT * _rate(resources, *_best_share(resources))


def _most_readers(resources: Resources) -> int:
    """Return how many readers there is room for; a CPU is left to planning and the job's own process."""
    return max(1, int(resources.cpus) - 1)
