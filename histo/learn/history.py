"""The finished epochs of a training run: `metrics.jsonl`, `steps.jsonl`, and `checkpoints/` with its index.

`checkpoints/index.json` is the truth, and is replaced last: an epoch that it does not name has not happened, whatever
else was written of it.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from histo import store
from histo.learn.bundle import Bundle
from histo.learn.checkpoint import Position, write_checkpoint
from histo.learn.loop import Epoch
from histo.learn.model import Network
from histo.learn.phases import EpochRule


class History:
    """Reads and writes the epochs of one run.

    Args:
        run: Folder of the run.
        keep: How many of the last checkpoints are kept, beside the best one.
    """

    def __init__(self, run: Path, keep: int = 1) -> None:
        self.metrics_path = run / "metrics.jsonl"
        self.steps_path = run / "steps.jsonl"
        self._checkpoints = run / "checkpoints"
        self._index_path = self._checkpoints / "index.json"
        self._keep = keep

    @property
    def last(self) -> int:
        """Number of the last finished epoch; 0 before the first."""
        return int(self._index()["last"])

    def past(self) -> list[dict[str, Any]]:
        """Return the metrics of all finished epochs."""
        last = self.last
        return [line for line in store.read_json_lines(self.metrics_path) if line["epoch"] <= last]

    def chosen(self, rule: EpochRule) -> dict[str, Any] | None:
        """Return the metrics of the epoch of least validation loss, the earliest one of equals; or of the last one."""
        past = self.past()
        return _best(past) if rule == "best" else next(reversed(past), None)

    def checkpoint(self, epoch: int) -> Path:
        """Return the folder of an epoch's checkpoint."""
        return self._checkpoints / f"epoch_{epoch:04d}"

    def rewind(self) -> None:
        """Remove what was written of an epoch that did not finish."""
        index = self._index()
        store.put_json_lines(self.metrics_path, self.past())
        steps = store.read_json_lines(self.steps_path)
        store.put_json_lines(self.steps_path, [step for step in steps if step["epoch"] <= index["last"]])
        self._prune(index["kept"])

    def record(
        self, epoch: Epoch, network: Network, optimizer: torch.optim.Optimizer, bundle: Bundle, seed: int
    ) -> None:
        """Write an epoch that has ended, its checkpoint first and the index last."""
        metrics = {name: value for name, value in vars(epoch).items() if name not in ("steps", "val_logits_NK")}
        described = bundle.model_copy(
            update={"origin": bundle.origin | {"metrics": metrics}, "temperature": epoch.temperature}
        )
        position = Position(epoch.phase, epoch.epoch, epoch.steps[-1].step, seed)
        folder = self.checkpoint(epoch.epoch)
        write_checkpoint(folder, network, described, optimizer, position, epoch.val_logits_NK)
        store.append_json_lines(self.steps_path, [asdict(step) for step in epoch.steps])
        store.append_json_lines(self.metrics_path, [metrics])
        kept = self._kept([*self.past(), metrics])
        store.put_json(self._index_path, {"last": epoch.epoch, "kept": kept})
        self._prune(kept)

    def _kept(self, lines: list[dict[str, Any]]) -> list[int]:
        """Choose the epochs whose checkpoints stay: the last ones, and the best."""
        kept = [*lines[-self._keep :], _best(lines) or lines[-1]]
        return sorted({line["epoch"] for line in kept})

    def _index(self) -> dict[str, Any]:
        if not self._index_path.exists():
            return {"last": 0, "kept": []}
        index: dict[str, Any] = json.loads(self._index_path.read_text())
        return index

    def _prune(self, kept: list[int]) -> None:
        wanted = {self.checkpoint(epoch) for epoch in kept} | {self._index_path}
        for found in self._checkpoints.glob("*") if self._checkpoints.exists() else ():
            if found not in wanted:
                store.remove(found)


def _best(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    finite = [line for line in lines if math.isfinite(line["val_loss"])]
    return min(finite, key=lambda line: line["val_loss"], default=None)
