"""What a training run says while it goes on. No Ray is started."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from histo import store
from histo.learn.fit.loop import Epoch, Step, Tick
from histo.learn.fit.phases import FitSpec, Phase
from histo.pipelines.training import progress as train_progress
from histo.pipelines.training.progress import TickFile, Watcher, progress_path
from histo.run import progress

PHASE = Phase("tune", FitSpec(), begin=4)


def ticks(clock: list[float], epoch: int = 5) -> Iterator[Tick | Epoch]:
    """Ten steps of four images, a second each, and the end of the epoch."""
    for step in range(1, 11):
        clock[0] += 1
        yield Tick(epoch, step, 10, 4 * step, torch.tensor(1 / step))
    yield ended(epoch)


def ended(number: int) -> Epoch:
    steps = tuple(Step(number, 10 * number + i, 0.5, 0.5, 0.1) for i in range(2))
    return Epoch(number, "tune", 0.4, 0.9, 0.3, 0.8, 0.1, 4.0, 70.0, 1.2, steps, np.zeros((1, 2)))


def write_epoch(run: Path, number: int) -> None:
    """Write what `History` writes of an epoch for those who read along."""
    epoch = ended(number)
    hidden = ("steps", "val_logits_NK")
    store.append_json_lines(run / "steps.jsonl", [vars(step) for step in epoch.steps])
    store.append_json_lines(run / "metrics.jsonl", [{k: v for k, v in vars(epoch).items() if k not in hidden}])
    store.put_json(run / "checkpoints" / "index.json", {"last": number, "kept": [number]})


def test_ticks_are_written_down_and_epochs_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(train_progress.time, "monotonic", lambda: clock[0])

    epochs = list(TickFile(tmp_path).epochs(ticks(clock), PHASE))

    said: dict[str, Any] = json.loads(progress_path(tmp_path).read_text())
    assert [epoch.epoch for epoch in epochs] == [5]
    assert said["images_per_second"] == 4
    assert said["seconds_left"] == 8 * 10, "epochs 6 to 13, ten steps each, a second a step"
    assert (said["epoch"], said["phase"], said["step"], said["steps"]) == (5, "tune", 10, 10)
    assert said["loss"] == pytest.approx(0.1)


def test_only_the_first_worker_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_progress, "rank", lambda: 1)

    epochs = list(TickFile(tmp_path).epochs(ticks([0.0]), PHASE))

    assert len(epochs) == 1
    assert not progress_path(tmp_path).exists()


def test_the_driver_shows_new_epochs_and_where_the_run_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_LOG_EVERY_S", 0.0)
    write_epoch(tmp_path, 1)
    store.put_json(progress_path(tmp_path), {"epoch": 9})

    with Watcher({"fold 0": tmp_path}, epochs=13) as _:
        write_epoch(tmp_path, 2)
        values = {"epoch": 3, "phase": "tune", "step": 7, "steps": 10, "loss": 0.25}
        store.put_json(progress_path(tmp_path), values | {"images_per_second": 80.0, "seconds_left": 75.0})
        store.append_json_lines(tmp_path / "metrics.jsonl", [{"epoch": 3}])  # not in the index: it has not happened
        train_progress.time.sleep(1.2)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "fold 0  epoch 2/13 (tune)  train loss 0.4000 accuracy 0.9000  val loss 0.3000 accuracy 0.8000  "
        "4.0 images/s  1 min 10 s"
    )
    assert (
        lines[1].partition("  ")[2]
        == "fold 0  epoch 3/13 (tune)  step 7/10  loss 0.2500  80.0 images/s  1 min 15 s left of tune"
    )
    assert not any("epoch 1/13" in line or "epoch 9" in line for line in lines), "what was before is not told again"


def test_a_terminal_has_one_line_that_is_written_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "_TERMINAL_EVERY_S", 0.0)
    line = progress.Line()

    assert line.is_due()
    line.show("step 1")
    line.show("x" * 500)
    line.say("epoch 1")

    shown = capsys.readouterr().out
    columns = progress.shutil.get_terminal_size().columns
    assert shown == f"{progress.CLEAR}step 1{progress.CLEAR}{'x' * (columns - 1)}{progress.CLEAR}epoch 1\n"
