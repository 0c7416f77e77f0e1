from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers.worker_processes import call_in_processes

from histo.learn.distributed import from_first_worker, rank, sum_over_workers, world_size

CPU = torch.device("cpu")


def _worker(folder: Path) -> None:
    number = dist.get_rank()
    values = torch.tensor([1.0, number], requires_grad=True)
    total = sum_over_workers(values)
    (total * (number + 1)).sum().backward()
    known = from_first_worker([{"epoch": 3 + number}], CPU)
    torch.save((known, total.tolist(), values.grad), folder / f"{number}.pt")


@pytest.mark.slow
@pytest.mark.xdist_group("pipelines/test_train")
def test_values_come_from_the_first_worker_and_sums_and_their_gradients_from_all(tmp_path: Path) -> None:
    call_in_processes(_worker, 2, tmp_path)

    for number in range(2):
        known, total, gradient = torch.load(tmp_path / f"{number}.pt")
        assert known == [{"epoch": 3}]
        assert total == [2.0, 1.0]
        assert gradient.tolist() == [3.0, 3.0]


def test_without_a_process_group_there_is_one_worker() -> None:
    values = torch.tensor([2.0])

    assert (rank(), world_size()) == (0, 1)
    assert sum_over_workers(values) is values
    assert from_first_worker("mine", CPU) == "mine"
