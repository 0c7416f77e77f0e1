"""Sum over the workers of a training run; one worker's sum is its own value."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist


def rank() -> int:
    """Number of this worker, 0 the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of workers."""
    return dist.get_world_size() if dist.is_initialized() else 1


T = TypeVar("T")


def from_first_worker(value: T, device: torch.device) -> T:
    """Return the value that the worker of rank 0 has, sent from the given device; every worker waits for it."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=device)
    return box[0]


def sum_over_workers(values: torch.Tensor) -> torch.Tensor:
    """Add a tensor up over all workers; gradients flow back to every worker's share."""
    if world_size() == 1:
        return values
    return _AllReduceSum.apply(values)  # type: ignore[no-any-return] # autograd's API is untyped


def gather_rows(own: torch.Tensor, rows: torch.Tensor, count: int) -> torch.Tensor:
    """Put the rows that each worker has at their places among those of all workers.

    Args:
        own: This worker's rows, `(n, ...)`.
        rows: Their places, int64 `(n,)`; no place is another worker's.
        count: Rows of all workers.

    Returns:
        All rows, `(count, ...)`.
    """
    everything = own.new_zeros((count, *own.shape[1:]))
    everything[rows.to(own.device)] = own
    return sum_over_workers(everything)


class _AllReduceSum(torch.autograd.Function):
    """An all-reduce whose gradient is the all-reduce of the gradients."""

    @staticmethod
    def forward(_ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Add the gradients of all workers up, in one message; a missing gradient counts as zero."""
    if world_size() == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]  # with their memory layouts
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    pieces = torch.split(flat, [gradient.numel() for gradient in gradients])
    for parameter, gradient, piece in zip(parameters, gradients, pieces, strict=True):
        parameter.grad = gradient.copy_(piece.view_as(gradient))
