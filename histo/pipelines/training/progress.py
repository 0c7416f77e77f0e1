"""Show and record the progress of training runs.

The worker of rank 0 writes it down; the driver shows it, and writes TensorBoard's events.

The two meet in files of the run: `staging/progress.json`, replaced every second, and `metrics.jsonl`, a line per epoch.
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from histo import store
from histo.learn.distributed import rank
from histo.learn.fit.history import History
from histo.learn.fit.loop import Epoch, Tick
from histo.learn.fit.phases import Phase
from histo.remote.location import AnyPath
from histo.report.tensorboard import EventWriter
from histo.run.progress import Line, duration

_EVERY_S, _LOOK_S = 1.0, 0.5
_EVERY_S_REMOTE = 5.0
"""Where each is a few requests to object storage."""


def progress_path(run: AnyPath) -> AnyPath:
    """Return where a run says how far it is."""
    return run / "staging" / "progress.json"


class TickFile:
    """Writes down where training is, about once a second, in the worker of rank 0."""

    def __init__(self, run: AnyPath) -> None:
        self._path = progress_path(run)
        self._every_s = _EVERY_S if isinstance(run, Path) else _EVERY_S_REMOTE
        self._first: tuple[float, Tick] | None = None
        self._last = 0.0

    def epochs(self, events: Iterable[Tick | Epoch], phase: Phase) -> Iterator[Epoch]:
        """Take note of the ticks of `fit`, and pass its epochs on."""
        for event in events:
            if isinstance(event, Epoch):
                yield event
            elif rank() == 0:
                self._note(event, phase)

    def _note(self, tick: Tick, phase: Phase) -> None:
        now = time.monotonic()
        if self._first is None or self._first[1].epoch != tick.epoch:
            self._first = (now, tick)
        if now - self._last < self._every_s or now == self._first[0]:
            return
        self._last = now
        seconds, steps = now - self._first[0], tick.step - self._first[1].step
        steps_left = tick.steps - tick.step + (phase.end - tick.epoch) * tick.steps
        store.put_json(
            self._path,
            {
                "epoch": tick.epoch,
                "phase": phase.name,
                "step": tick.step,
                "steps": tick.steps,
                "loss": float(tick.loss),
                "images_per_second": (tick.images - self._first[1].images) / seconds,
                "seconds_left": steps_left * seconds / steps,
            },
        )


class _Run:
    """What of one run has been shown."""

    def __init__(self, history: History, run: AnyPath) -> None:
        self._history, self._progress = history, progress_path(run)
        self._events = EventWriter(run / "tensorboard")
        self.shown = 0
        store.remove(self._progress)

    def new_epochs(self) -> list[dict[str, Any]]:
        """Return the epochs that have ended since the last call, and write their events."""
        lines = self._history.seen()[self.shown :]
        steps = self._history.steps() if lines else []
        for line in lines:
            self._events.add(line, [step for step in steps if step["epoch"] == line["epoch"]])
        self.shown += len(lines)
        return lines

    def now(self) -> dict[str, Any] | None:
        """Return where it is within an epoch, if it is."""
        try:
            tick: dict[str, Any] = json.loads(store.content_of(self._progress) or b"")
        except (OSError, ValueError):
            return None
        return tick if tick["epoch"] > self.shown else None

    def close(self) -> None:
        self._events.close()


class Watcher:
    """Shows training runs while they go on, from a thread of its own: every epoch that ends, and where they are.

    Args:
        runs: The folder of each run by what its lines begin with; an empty name for a single run.
        epochs: Most epochs of a run.
        noun: What several cases are called.
    """

    def __init__(self, runs: Mapping[str, AnyPath], epochs: int, noun: str = "images") -> None:
        self._runs = {f"{name}  " if name else "": _Run(History(run), run) for name, run in runs.items()}
        self._epochs, self._noun = epochs, noun
        self._look_s = _LOOK_S if all(isinstance(run, Path) for run in runs.values()) else _EVERY_S_REMOTE
        self._line = Line()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        for run in self._runs.values():
            run.new_epochs()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._say_epochs()
        self._line.clear()
        for run in self._runs.values():
            run.close()

    def _watch(self) -> None:
        while not self._stop.wait(self._look_s):
            self._say_epochs()
            ticks = [(name, run.now()) for name, run in self._runs.items()] if self._line.is_due() else []
            parts = [f"{name}{_tick_text(tick, self._epochs, self._noun)}" for name, tick in ticks if tick is not None]
            if parts:
                self._line.show("  |  ".join(parts))

    def _say_epochs(self) -> None:
        for name, run in self._runs.items():
            for line in run.new_epochs():
                self._line.say(f"{name}{_epoch_text(line, self._epochs, self._noun)}")


def _tick_text(tick: dict[str, Any], epochs: int, noun: str) -> str:
    return (
        f"epoch {tick['epoch']}/{epochs} ({tick['phase']})  step {tick['step']}/{tick['steps']}  "
        f"loss {tick['loss']:.4f}  {tick['images_per_second']:.1f} {noun}/s  "
        f"{duration(tick['seconds_left'])} left of {tick['phase']}"
    )


def _epoch_text(metrics: dict[str, Any], epochs: int, noun: str) -> str:
    parts = [part for part in ("train", "val") if metrics[f"{part}_loss"] is not None]
    scores = [f"{part} loss {metrics[f'{part}_loss']:.4f} accuracy {metrics[f'{part}_accuracy']:.4f}" for part in parts]
    return (
        f"epoch {metrics['epoch']}/{epochs} ({metrics['phase']})  {'  '.join(scores)}  "
        f"{metrics['images_per_second']:.1f} {noun}/s  {duration(metrics['seconds'])}"
    )
