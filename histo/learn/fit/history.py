"""Commit the epochs of a training run: metrics, steps, checkpoints, index.

`checkpoints/index.json` is the truth, and is replaced last: an epoch that it does not name has not happened, whatever
else was written of it.
"""

import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

from histo import store
from histo.errors import UsageError
from histo.learn.epoch_index import STATE, EpochIndex, index_path, read_index, write_index
from histo.learn.fit.phases import EpochRule, PhaseName
from histo.remote.location import AnyPath

_TRAINED = ("train_loss", "train_accuracy", "learning_rate")
_VALIDATED = ("val_loss", "val_accuracy")
"""What every line of metrics has beside its epoch and its phase; the latter are null without validation cases."""
_STEP = ("step", "loss", "accuracy", "learning_rate")
"""What every line of steps has beside its epoch."""
_CONTINUED = 3
"""How many of the last checkpoints have the state to go on from."""


class History:
    """Reads and writes the epochs of one run. What cannot be continued is a `UsageError`, in every method that reads.

    Args:
        run: Folder of the run.
        keep: How many of the last checkpoints are kept, beside the best one; None keeps all. Those that training goes
            on from, the last three, have the optimiser's state.
    """

    def __init__(self, run: AnyPath, keep: int | None = None) -> None:
        self.metrics_path = run / "metrics.jsonl"
        self.steps_path = run / "steps.jsonl"
        self._run = run
        self._checkpoints = run / "checkpoints"
        self._keep = keep

    @property
    def last(self) -> int:
        """Number of the last finished epoch; 0 before the first."""
        return self._index().last

    def past(self) -> list[dict[str, Any]]:
        """Return the metrics of all finished epochs.

        Raises:
            UsageError: If those of one are missing.
        """
        last, past = self.last, self.seen()
        if [line["epoch"] for line in past] != list(range(1, last + 1)):
            raise UsageError(
                f"{self.metrics_path}: has {len(past)} of the {last} epochs that have ended; put back a copy of it, or "
                "give another folder"
            )
        return past

    def seen(self) -> list[dict[str, Any]]:
        """Return the metrics of the finished epochs that can be seen; on another node that may be fewer for a while."""
        last = self.last
        return [line for line in store.read_json_lines(self.metrics_path) if _is_whole(line) and line["epoch"] <= last]

    def steps(self) -> list[dict[str, Any]]:
        """Return the optimiser's steps that can be seen, also those of an epoch that goes on."""
        return [line for line in store.read_json_lines(self.steps_path) if _has(line, _STEP)]

    def chosen(self, rule: EpochRule) -> dict[str, Any] | None:
        """Return the metrics of the epoch of least validation loss, the earliest one of equals; or of the last one.

        It is the last one, too, where there are no validation cases; None before the first.
        """
        past = self.past()
        validated = bool(past) and past[-1]["val_loss"] is not None
        return _best(past) if rule == "best" and validated else next(reversed(past), None)

    def checkpoint(self, epoch: int) -> AnyPath:
        """Return the folder of an epoch's checkpoint."""
        return self._checkpoints / f"epoch_{epoch:04d}"

    def rewind(self) -> None:
        """Remove what was written of an epoch that did not finish."""
        index = self._index()
        self._check_kept(index)
        write_index(self._run, index)  # one that is missing later is lost, and does not mean that nothing has happened
        store.put_json_lines(self.metrics_path, self.past())
        store.put_json_lines(self.steps_path, [step for step in self.steps() if step["epoch"] <= index.last])
        self._prune(index.kept)

    @contextmanager
    def entering(self, metrics: dict[str, Any], steps: Iterable[dict[str, Any]]) -> Iterator[AnyPath]:
        """Enter an epoch that has ended, once the block has written its checkpoint to the folder that it is given.

        Args:
            metrics: Its line of `metrics.jsonl`.
            steps: Its lines of `steps.jsonl`.
        """
        epoch, kept = metrics["epoch"], self._kept([*self.past(), metrics])
        yield self.checkpoint(epoch)
        store.append_json_lines(self.steps_path, steps)
        store.append_json_lines(self.metrics_path, [metrics])
        write_index(self._run, EpochIndex(last=epoch, kept=kept))
        self._prune(kept)

    def _kept(self, lines: list[dict[str, Any]]) -> list[int]:
        """Choose the epochs whose checkpoints stay: all, or the last ones and the best."""
        kept = lines if self._keep is None else [*lines[-self._keep :], _best(lines) or lines[-1]]
        return sorted({line["epoch"] for line in kept})

    def _index(self) -> EpochIndex:
        index = read_index(self._run)
        if index is None and (store.read_json_lines(self.metrics_path) or self._checkpoints_there()):
            raise UsageError(
                f"{index_path(self._run)}: is missing, though epochs have ended; put back a copy of it, or give another"
                " folder"
            )
        return index or EpochIndex()

    def _checkpoints_there(self) -> bool:
        return any(path.name.startswith("epoch_") for path in store.children(self._checkpoints))

    def _check_kept(self, index: EpochIndex) -> None:
        """Refuse an index that is older than the run, before what it does not name is removed."""
        seen = [line["epoch"] for line in store.read_json_lines(self.metrics_path) if _is_whole(line)]
        missing = [epoch for epoch in index.kept if not store.is_there(self.checkpoint(epoch))]
        if max(seen, default=0) > index.last + 1 or missing:
            raise UsageError(
                f"{index_path(self._run)}: does not fit the epochs that are there; put back the latest copy of it and "
                "of the checkpoints, or give another folder"
            )

    def _prune(self, kept: list[int]) -> None:
        wanted = {self.checkpoint(epoch) for epoch in kept} | {index_path(self._run)}
        for found in store.children(self._checkpoints):
            if found not in wanted:
                store.remove(found)
        for epoch in kept[:-_CONTINUED]:
            store.remove(self.checkpoint(epoch) / STATE)


def _best(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    finite = [line for line in lines if line["val_loss"] is not None and math.isfinite(line["val_loss"])]
    return min(finite, key=lambda line: line["val_loss"], default=None)


def _is_whole(line: dict[str, Any]) -> bool:
    validated = [name for name in _VALIDATED if line.get(name, "") is not None]
    return line.get("phase") in get_args(PhaseName) and _has(line, (*_TRAINED, *validated))


def _has(line: dict[str, Any], names: Iterable[str]) -> bool:
    """Whether a line has an epoch, and under these names what a float can be."""
    numbers = [line.get(name) for name in names]
    return type(line.get("epoch")) is int and all(
        isinstance(value, float) or (type(value) is int and abs(value) <= sys.float_info.max) for value in numbers
    )
