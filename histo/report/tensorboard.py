"""Write TensorBoard's event files of a training run.

`metrics.jsonl` and `steps.jsonl` hold the same numbers.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from histo import store
from histo.remote.location import AnyPath


class EventWriter:
    """Writes epochs to an event file; the x axis of everything is the step.

    Args:
        folder: Folder of the event files; those of an earlier execution are removed.
    """

    def __init__(self, folder: AnyPath) -> None:
        store.remove(folder)
        self._folder = folder
        self._here = folder if isinstance(folder, Path) else Path(tempfile.mkdtemp())
        self._writer = SummaryWriter(str(self._here))

    def add(self, epoch: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> None:
        """Write a line of `metrics.jsonl`, and its lines of `steps.jsonl`.

        Args:
            epoch: Metrics of the epoch.
            steps: Its steps, at least one.
        """
        for step in steps:
            for name in ("loss", "accuracy", "learning_rate"):
                self._writer.add_scalar(f"step/{name}", step[name], step["step"])
            for name in ("loss", "accuracy"):
                if step.get(f"val_{name}") is not None:
                    self._writer.add_scalar(f"{name}/val", step[f"val_{name}"], step["step"])
        for part in ("train", "val"):
            for name in ("loss", "accuracy"):
                if epoch[f"{part}_{name}"] is not None:
                    self._writer.add_scalar(f"{name}/{part}", epoch[f"{part}_{name}"], steps[-1]["step"])
        self._writer.add_scalar("images_per_second", epoch["images_per_second"], steps[-1]["step"])
        self._writer.flush()
        if self._here is not self._folder:
            store.put_folder(self._here, self._folder)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
        if self._here is not self._folder:
            store.put_folder(self._here, self._folder)
            store.remove(self._here)
