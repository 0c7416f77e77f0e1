"""Which processes label a cluster's slides: workers that read, or readers apart; no Ray."""

import pytest

from histo.errors import UsageError
from histo.pipelines.labelling.stages import LabelPlacement, place_label
from histo.run.placement import Node, Resources

LAPTOP = Resources((Node(8, 0),), is_private=True)
CLUSTER = Resources((Node(16, 0),) * 4, is_private=False)
GPU_NODES = Resources((Node(32, 1),) * 4, is_private=False)
FEW_CORES = Resources((Node(8, 2), Node(16, 0), Node(16, 0)), is_private=False)
UNLIKE = Resources((Node(192, 8), Node(4, 1)), is_private=False)
WORKSTATION = Resources((Node(16, 1),), is_private=True)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (LAPTOP, LabelPlacement(8, 0, 1)),
        (CLUSTER, LabelPlacement(64, 0, 1, may_grow=True)),
        (GPU_NODES, LabelPlacement(12, 0.3333, 10, may_grow=True)),
        (FEW_CORES, LabelPlacement(2, 1, 0, may_grow=True, readers=39, readers_may_grow=True)),
        (WORKSTATION, LabelPlacement(4, 0.25, 4)),
    ],
)
def test_the_cluster_decides_how_many_workers_share_a_gpu_and_whether_readers_are_apart(
    resources: Resources, expected: LabelPlacement
) -> None:
    assert place_label(None, None, "auto", resources) == expected


def test_a_small_node_does_not_keep_the_cpus_of_a_large_one_idle() -> None:
    placed = place_label(None, None, "auto", UNLIKE)

    assert placed.workers * placed.cpus > 100
    assert placed.readers == 0


@pytest.mark.parametrize(
    ("workers", "readers", "device", "resources", "expected"),
    [
        (None, 0, "auto", FEW_CORES, LabelPlacement(2, 1, 2, may_grow=True)),
        (1, 3, "auto", FEW_CORES, LabelPlacement(1, 1, 0, readers=3)),
        (4, None, "gpu", FEW_CORES, LabelPlacement(4, 0.5, 0, readers=39, readers_may_grow=True)),
        (None, 3, "auto", FEW_CORES, LabelPlacement(2, 1, 0, may_grow=True, readers=3)),
        (3, 5, "cpu", FEW_CORES, LabelPlacement(3, 0, 1, readers=5)),
        (None, 2, "auto", LAPTOP, LabelPlacement(6, 0, 1, readers=2)),
        (3, None, "auto", WORKSTATION, LabelPlacement(3, 0.3333, 5)),
        (2, None, "cpu", LAPTOP, LabelPlacement(2, 0, 4)),
    ],
)
def test_what_is_asked_for_is_kept(
    workers: int | None, readers: int | None, device: str, resources: Resources, expected: LabelPlacement
) -> None:
    assert place_label(workers, readers, device, resources) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("workers", "readers", "device", "resources", "message"),
    [
        (9, None, "gpu", FEW_CORES, "--workers 9: this cluster has 2 GPUs; ask for at most 4 on each"),
        (None, 8, "auto", LAPTOP, "--readers 8: this cluster has 8 CPUs; leave some to the network"),
        (4, 5, "auto", LAPTOP, "--readers 5 --workers 4: this cluster has 8 CPUs"),
        (None, 41, "auto", FEW_CORES, "--readers 41: this cluster has 40 CPUs"),
        (None, None, "gpu", LAPTOP, "--device gpu: this cluster has no GPU"),
    ],
)
def test_what_the_cluster_cannot_hold_is_refused(
    workers: int | None, readers: int | None, device: str, resources: Resources, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        place_label(workers, readers, device, resources)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("placed", "text"),
    [
        (LabelPlacement(2, 0, 1), "2 workers that read and classify, 1 CPU each"),
        (LabelPlacement(1, 0, 2, readers=1), "1 reader, 1 CPU each; 1 worker that classifies, 2 CPUs each"),
        (LabelPlacement(4, 1, 8), "4 workers that read and classify, a GPU each, 8 CPUs each"),
        (LabelPlacement(6, 0.3333, 5), "6 workers that read and classify, 3 on a GPU, 5 CPUs each"),
        (LabelPlacement(2, 0.5, 0, readers=39), "39 readers, 1 CPU each; 2 workers that classify, 2 on a GPU"),
    ],
)
def test_a_run_says_in_one_line_what_it_is_placed_on(placed: LabelPlacement, text: str) -> None:
    assert str(placed) == text
