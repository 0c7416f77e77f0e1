"""Event files of a training run."""

from pathlib import Path

from helpers.event_files import read_events

from histo.report.tensorboard import EventWriter


def test_validation_within_an_epoch_is_a_point_at_its_step(tmp_path: Path) -> None:
    steps = [{"step": step, "loss": 1.0, "accuracy": 0.5, "learning_rate": 0.1} for step in (1, 2, 3)]
    steps[1] |= {"val_loss": 0.75, "val_accuracy": 0.25}
    epoch = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 0.5, "val_accuracy": 0.125, "images_per_second": 9.0}

    writer = EventWriter(tmp_path / "tensorboard")
    writer.add(epoch, steps)
    writer.close()

    (file,) = (tmp_path / "tensorboard").iterdir()
    found = [(v.tag, event.step, v.simple_value) for event in read_events(file) for v in event.summary.value]
    assert [point[1:] for point in found if point[0] == "loss/val"] == [(2, 0.75), (3, 0.5)]
    assert [point[1:] for point in found if point[0] == "accuracy/val"] == [(2, 0.25), (3, 0.125)]
