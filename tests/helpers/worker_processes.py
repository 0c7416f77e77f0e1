"""Processes that train together, as the workers of Ray Train do: they talk through gloo. No Ray."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train.torch
import torch
from torch import multiprocessing

multiprocessing.set_forkserver_preload(["histo.pipelines.training.run", "ray.train.torch"])
"""Their imports take ten seconds: once, in the process that all workers are forked from."""


def call_in_processes(function: Callable[..., None], workers: int, *arguments: Any) -> None:
    """Call a function in as many processes, which are the workers of a training run."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.start_processes(  # type: ignore[attr-defined, no-untyped-call] # torch's
            _call_in_process,
            (workers, Path(folder) / "store", function, arguments),
            nprocs=workers,
            start_method="forkserver",
        )


def _call_in_process(
    rank: int, workers: int, store: Path, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    ray.train.torch.get_device = lambda: torch.device("cpu")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=workers)
    function(*arguments)
    torch.distributed.destroy_process_group()
