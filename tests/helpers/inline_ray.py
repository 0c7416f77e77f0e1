"""Ray's calls, done at once in this process: for tests of jobs whose subject is not Ray.

Functions of Ray are replaced, none of histo's. Several training workers are processes that torch starts, and that talk
through gloo, as those of Ray Train do.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import ray
import ray.train.torch
import torch
from ray.train import WorkerGroupError

import histo.pipelines.training.run
import histo.run.stream.units
from helpers.worker_processes import call_in_processes
from histo.run.stream.worker import Crew

NODE = {"Alive": True, "NodeID": "0" * 56, "NodeManagerHostname": "here"}


@dataclass(frozen=True)
class Inline:
    """A remote function whose call is the function's own."""

    call: Callable[..., Any]

    def options(self, **_: Any) -> "Inline":
        return self

    def remote(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class InlineTrainer:
    """What Ray Train's TorchTrainer does for histo, without Ray."""

    def __init__(self, worker: Callable[[Any], None], *, train_loop_config: Any, scaling_config: Any, **_: Any) -> None:
        self._worker, self._config, self._workers = worker, train_loop_config, scaling_config.num_workers

    def fit(self) -> None:
        try:
            if self._workers == 1:
                self._worker(self._config)
            else:
                call_in_processes(self._worker, self._workers, self._config)
        except Exception as error:
            raise WorkerGroupError(str(error), {0: error}) from error


def gather_inline(crew: Crew, tasks: Mapping[str, tuple[Any, ...]], *_: Any) -> list[Any]:
    """Do the tasks of a run of one task for each slide, one after the other."""
    worker = crew.worker(*crew.arguments)
    return [worker(*task) for task in tasks.values()]


def call_inline(patch: pytest.MonkeyPatch) -> None:
    """Replace what `histo.pipelines` calls of Ray, but its pools of actors and its graphs of several stages."""
    cpus: list[int] = []
    patch.delenv("RAY_ADDRESS", raising=False)
    patch.setattr(ray, "init", lambda *, num_cpus, **_: cpus.append(num_cpus))
    patch.setattr(ray, "shutdown", lambda: None)
    patch.setattr(ray, "nodes", lambda: [NODE | {"Resources": {"CPU": cpus[-1]}}])
    patch.setattr(ray, "remote", lambda function=None, **_: Inline if function is None else Inline(function))
    patch.setattr(ray, "get", lambda answer: answer)
    patch.setattr(ray, "put", lambda value: value)
    patch.setattr(histo.run.stream.units, "gather", gather_inline)
    train_inline(patch)


def train_inline(patch: pytest.MonkeyPatch) -> None:
    """Train without Ray Train."""
    patch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    patch.setattr(histo.pipelines.training.run, "TorchTrainer", InlineTrainer)


@contextmanager
def inline() -> Iterator[None]:
    """Call inline what fixtures of a wider scope do."""
    with pytest.MonkeyPatch.context() as patch:
        call_inline(patch)
        yield
