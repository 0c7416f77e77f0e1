"""The train job from the command line to the bundle.

Ray Train trains one run here, of two workers on real tiles; others are in `test_recipe.py`, in `test_crossval.py` (two
folds side by side, of which one fails), in `test_job_submit.py`, and in `test_train_recovery.py`, which kills workers
and drivers. All other runs call the same function in this process, or in processes that torch starts: `inline_ray.py`.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers.event_files import read_events
from helpers.inline_ray import inline
from PIL import Image
from safetensors.torch import load_file

from histo import store
from histo.cli import main
from histo.learn.array_layout import TILES
from histo.learn.bundle import read_bundle
from histo.learn.fit.checkpoint import read_state
from histo.learn.fit.phases import is_stalled
from histo.learn.predict.torch_predictor import TorchPredictor
from histo.pipelines.training.network import initial_network
from histo.pipelines.training.spec import TrainSpec
from histo.resample import resize
from histo.spec.command_line import read_spec

pytestmark = pytest.mark.slow

INLINE = pytest.mark.usefixtures("inline_ray")
MEASURED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
SHORT = ["--size-px", "64", "--fit.head.epochs", "1", "--fit.tune.epochs", "1"]


def train(data: Path, out: Path, *flags: str) -> int:
    return main(["train", "--data", str(data), "--out", str(out), *flags])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def measured(run: Path) -> list[tuple[float, ...]]:
    return [tuple(line[name] for name in MEASURED) for line in lines(run / "metrics.jsonl")]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_ends_with_its_records_and_the_best_bundle(finished: Path) -> None:
    metrics = lines(finished / "metrics.jsonl")
    best = min(metrics, key=lambda line: line["val_loss"])
    bundle = read_bundle(finished / "model")
    record = json.loads((finished / "run.json").read_text())
    kept = sorted({3, 4, best["epoch"]})

    assert [(line["epoch"], line["phase"]) for line in metrics] == [(1, "head"), (2, "head"), (3, "tune"), (4, "tune")]
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]
    assert bundle.classes == ("MUS", "STR", "TUM")
    assert (bundle.input.size_px, bundle.input.mpp) == (64, 1.0)
    assert bundle.origin["metrics"]["epoch"] == best["epoch"]
    assert names(finished / "checkpoints") == [*(f"epoch_{epoch:04d}" for epoch in kept), "index.json"]
    assert read_state(finished / "checkpoints" / "epoch_0004")[0].phase == "tune"
    assert len(lines(finished / "steps.jsonl")) == 4
    assert (record["exit_code"], record["best"]["epoch"], record["earlier"]) == (0, best["epoch"], [])
    assert record["spec"]["fit"]["tune"]["epochs"] == 2
    assert names(finished) == [
        "checkpoints", "figures", "metrics.jsonl", "model", "run.json", "split.parquet", "steps.jsonl", "tensorboard",
        "test", "val",
    ]  # fmt: skip
    assert names(finished / "figures") == ["curves.png", "samples.png"]
    assert record["nodes"][0]["cpus"] >= 1
    assert record["host"]["memory_gib"] > 0
    assert bundle.temperature == metrics[best["epoch"] - 1]["temperature"]


def test_the_validation_split_is_scored_from_what_the_workers_saw(finished: Path, tiles: Path) -> None:
    splits = pq.read_table(finished / "split.parquet").to_pydict()
    scores = json.loads((finished / "val" / "metrics.json").read_text())
    rows = pq.read_table(finished / "val" / "predictions.parquet").to_pydict()
    best = json.loads((finished / "run.json").read_text())["best"]

    held_out = [i for i, split in enumerate(splits["split"]) if split == "val"]
    with np.load(tiles) as known:
        enlarged = np.stack([resize(known["images"][i], 64) for i in held_out])
    assert rows["case_id"] == [splits["case_id"][i] for i in held_out]
    np.testing.assert_allclose(rows["prob_TUM"], TorchPredictor(finished / "model")(enlarged)[:, 2], atol=1e-5)
    assert scores["accuracy"] == pytest.approx(best["val_accuracy"])
    assert (scores["temperature"], scores["intervals"], scores["seen_in_training"]) == (best["temperature"], None, 8)


def test_event_files_hold_every_epoch_and_step(finished: Path) -> None:
    (events,) = (finished / "tensorboard").iterdir()
    scalars = [(v.tag, event.step, v.simple_value) for event in read_events(events) for v in event.summary.value]

    expected = [
        ("loss/val", number, line["val_loss"]) for number, line in enumerate(lines(finished / "metrics.jsonl"), 1)
    ]
    expected += [("step/accuracy", line["step"], line["accuracy"]) for line in lines(finished / "steps.jsonl")]
    found = {(tag, step): value for tag, step, value in scalars}
    assert {(tag, step): found[tag, step] for tag, step, _ in expected} == {
        (tag, step): pytest.approx(value, rel=1e-5) for tag, step, value in expected
    }
    assert {tag for tag, _, _ in scalars} == {
        "loss/train", "loss/val", "accuracy/train", "accuracy/val", "images_per_second",
        "step/loss", "step/accuracy", "step/learning_rate",
    }  # fmt: skip


def test_the_test_split_is_scored_with_the_best_bundle(finished: Path) -> None:
    splits = pq.read_table(finished / "split.parquet").to_pydict()
    scores = json.loads((finished / "test" / "metrics.json").read_text())
    predicted = pq.read_table(finished / "test" / "predictions.parquet").to_pydict()["case_id"]

    held_out = [case for case, split in zip(splits["case_id"], splits["split"], strict=True) if split == "test"]
    assert {split: splits["split"].count(split) for split in ("train", "val", "test")} == {
        "train": 19, "val": 8, "test": 9,
    }  # fmt: skip
    assert predicted == held_out
    assert json.loads((finished / "run.json").read_text())["test"] == scores


def test_a_complete_run_is_neither_overwritten_nor_trained_again(
    finished: Path, tiles: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*tiny, "--fit.head.epochs", "2", "--fit.tune.epochs", "2", "--no-fit.head.augment"]
    flags += ["--size-px", "64", "--mpp", "2", "--classes", "MUS,STR,TUM", "--split.test-fraction", "0.25"]
    before = (finished / "run.json").read_bytes()

    assert train(tiles, finished, *flags) == 2
    assert train(tiles, finished, *flags, "--resume", "--seed", "5") == 2
    assert train(tiles, finished, *flags, "--resume", "--workers", "2") == 0

    shown = capsys.readouterr()
    assert "already holds a run; continue it with --resume" in shown.err
    assert "--seed is 5, and was 0 when the run began" in shown.err
    assert "the run is complete" in shown.out
    assert (finished / "run.json").read_bytes() == before


@pytest.mark.parametrize("epoch", [3, 4])
def test_a_new_run_starts_with_the_weights_of_a_chosen_epoch(
    finished: Path, tiles: Path, tiny: list[str], epoch: int
) -> None:
    flags = ["--data", str(tiles), "--out", "unused", "--start-from", str(finished), "--epoch", str(epoch), *tiny[:2]]
    spec = read_spec(TrainSpec, flags, "histo train")

    weights = initial_network(spec, ("MUS", "STR", "TUM"), TILES).state_dict()

    trained = load_file(finished / "checkpoints" / f"epoch_{epoch:04d}" / "model.safetensors")
    assert weights.keys() == trained.keys()
    assert all(torch.equal(weights[name], trained[name]) for name in trained)


@INLINE
def test_a_chosen_epoch_is_evaluated(finished: Path, tiles: Path, tmp_path: Path) -> None:
    flags = ["--model", str(finished), "--epoch", "3", "--data", str(tiles), "--out", str(tmp_path / "third")]

    assert main(["evaluate", *flags]) == 0

    rows = pq.read_table(tmp_path / "third" / "predictions.parquet").to_pydict()
    with np.load(tiles) as known:
        enlarged = np.stack([resize(image, 64) for image in known["images"]])
    expected = TorchPredictor(finished / "checkpoints" / "epoch_0003")(enlarged)
    assert len(rows["case_id"]) == 36
    np.testing.assert_allclose(rows["prob_TUM"], expected[:, 2], atol=1e-5)
    assert json.loads((tmp_path / "third" / "run.json").read_text())["model"].endswith("epoch_0003")


@INLINE
def test_a_run_that_cannot_be_continued_is_refused_in_one_line(
    finished: Path, tiles: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"exit_code": None}))
    flags = [*tiny, "--fit.head.epochs", "2", "--fit.tune.epochs", "2", "--no-fit.head.augment", "--resume"]
    flags += ["--size-px", "64", "--mpp", "2", "--classes", "MUS,STR,TUM", "--split.test-fraction", "0.25"]
    weights = run / "checkpoints" / "epoch_0004" / "model.safetensors"
    whole = weights.read_bytes()

    weights.write_bytes(whole[:-1])
    damaged = train(tiles, run, *flags)
    weights.write_bytes(whole)
    (run / "split.parquet").write_bytes(b"")
    without_split = train(tiles, run, *flags)
    last = lines(run / "metrics.jsonl")
    store.put_json_lines(run / "metrics.jsonl", [*last[:-1], last[-1] | {"val_loss": float("nan")}])
    diverged = train(tiles, run, *flags)

    shown = capsys.readouterr().err.splitlines()
    assert (damaged, without_split, diverged) == (2, 2, 1)
    assert "model.safetensors: sha256 is" in shown[0]
    assert "split.parquet: cannot be read" in shown[1]
    assert "the loss is not finite in epoch 4" in shown[2]


@INLINE
def test_other_classes_start_from_the_backbone_alone(finished: Path, tiny: list[str], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", images=random.integers(0, 255, (12, 32, 32, 3), np.uint8), labels=np.arange(12) % 2)

    assert train(tmp_path / "t.npz", tmp_path / "run", *SHORT, *tiny[:2], "--start-from", str(finished)) == 0

    assert read_bundle(tmp_path / "run" / "model").classes == ("0", "1")


@INLINE
def test_weights_that_learned_from_images_that_are_held_out_are_no_start(
    finished: Path, tiles: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(1)
    other = tmp_path / "other.npz"
    np.savez(other, images=random.integers(0, 255, (12, 32, 32, 3), np.uint8), labels=np.arange(12) % 3)
    named = ["--classes", "MUS,STR,TUM", "--size-px", "64", *tiny[:2]]

    codes = [
        train(
            tiles, tmp_path / "a", *named, "--start-from", str(finished), "--split.test-fraction", "0.3", "--seed", "3"
        ),
        train(tiles, tmp_path / "b", *named, "--start-from", str(finished), "--seed", "4"),
        train(other, tmp_path / "c", *SHORT, *named, "--start-from", str(finished)),
        train(other, tmp_path / "d", *named, "--test", str(tiles), "--start-from", str(tmp_path / "c")),
    ]

    shown = capsys.readouterr().err.splitlines()
    assert codes == [2, 2, 0, 2]
    assert re.search(r"learned from \d+ of the test images; start from another run", shown[0])
    assert re.search(r"learned from \d+ of the validation images", shown[1])
    assert "learned from 27 of the test images" in shown[2], "by way of the run before"


@INLINE
def test_two_workers_train_as_one_does(tiles: Path, tiny: list[str], tmp_path: Path) -> None:
    flags = [*SHORT, *tiny, "--fit.batch-size", "9", "--fit.balance", "sampling", "--network.dropout", "0.3"]
    flags += ["--fit.precision", "float64"]

    assert train(tiles, tmp_path / "one", *flags, "--workers", "1") == 0
    assert train(tiles, tmp_path / "two", *flags, "--workers", "2") == 0

    for one, two in zip(measured(tmp_path / "one"), measured(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-9)


REAL = ["--size-px", "64", "--subset", "95", "--network.dropout", "0", "--augment.preset", "stain"]
REAL += ["--fit.head.epochs", "1", "--fit.tune.epochs", "2", "--fit.batch-size", "30"]


@INLINE
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("precision", "learning_rate", "tolerance"), [("float32", "3e-5", 1e-4), ("float64", "3e-4", 1e-8)]
)
def test_one_two_and_three_workers_give_equal_losses_over_three_epochs_on_real_tiles(
    shared: Path, tiny: list[str], tmp_path: Path, precision: str, learning_rate: str, tolerance: float
) -> None:
    flags = [*REAL, *tiny, "--fit.precision", precision, "--fit.tune.learning-rate", learning_rate]

    for workers in ("1", "2", "3"):
        assert train(shared / "tiles" / "pathmnist-718.npz", tmp_path / workers, *flags, "--workers", workers) == 0

    one, two, three = ([(line[0], line[2]) for line in measured(tmp_path / workers)] for workers in ("1", "2", "3"))
    assert len(one) == 3
    for alone, both, all_three in zip(one, two, three, strict=True):
        assert both == pytest.approx(alone, rel=tolerance)
        assert all_three == pytest.approx(alone, rel=tolerance)


@pytest.mark.realdata
def test_two_workers_of_ray_train_as_one_does_on_real_tiles(
    shared: Path, tiny: list[str], joined_ray: None, tmp_path: Path
) -> None:
    flags = [*REAL, *tiny, "--fit.precision", "float64"]
    data = shared / "tiles" / "pathmnist-718.npz"

    assert train(data, tmp_path / "two", *flags, "--workers", "2") == 0
    with inline():
        assert train(data, tmp_path / "one", *flags, "--workers", "1") == 0

    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["placement"]["workers"] == 2
    assert names(tmp_path / "two") == names(tmp_path / "one"), "nothing of Ray's is left"
    for alone, both in zip(measured(tmp_path / "one"), measured(tmp_path / "two"), strict=True):
        assert both == pytest.approx(alone, rel=1e-8)


@INLINE
@pytest.mark.realdata
def test_two_runs_of_one_seed_give_equal_metrics_on_real_tiles(shared: Path, tiny: list[str], tmp_path: Path) -> None:
    flags = [*SHORT, *tiny, "--seed", "7", "--subset", "54"]

    assert train(shared / "tiles" / "nct-crops", tmp_path / "a", *flags) == 0
    assert train(shared / "tiles" / "nct-crops", tmp_path / "b", *flags) == 0

    assert measured(tmp_path / "a") == measured(tmp_path / "b")
    assert measured(tmp_path / "a")[1][0] < measured(tmp_path / "a")[0][0]


@INLINE
@pytest.mark.realdata
def test_two_sources_of_one_field_are_trained_together_and_scored_apart(
    shared: Path, tiny: list[str], tmp_path: Path
) -> None:
    sources = ",".join(str(shared / "tiles" / name) for name in ("pathmnist-718.npz", "nct-crops"))
    flags = ["--classes", "ADI,BACK,DEB,LYM,MUC,MUS,NORM,STR,TUM", "--mpp", "4,1.179", "--split.test-fraction", "0.2"]

    code = main(["train", "--data", sources, "--out", str(tmp_path / "run"), *SHORT, *tiny, *flags])

    scores = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    assert code == 0
    assert read_bundle(tmp_path / "run" / "model").input.mpp == pytest.approx(4 * 28 / 64)
    assert set(scores["per_source"]) == {"pathmnist-718.npz", "nct-crops"}
    assert sum(part["n"] for part in scores["per_source"].values()) == scores["n"] > 140


def write_cohort(folder: Path, patients: int, classes: int) -> Path:
    """Write a manifest of patients with two tiles each, whose classes differ in brightness."""
    random, rows = np.random.default_rng(0), ["path,label,group"]
    for number in range(2 * patients):
        label = number // 2 % classes
        noise = random.normal(50 + 50 * label, 20, (32, 32, 3))
        Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,class {label},p{number // 2}")
    (folder / "cohort.csv").write_text("\n".join(rows))
    return folder / "cohort.csv"


@INLINE
def test_a_phase_ends_when_the_validation_loss_has_stalled(tiny: list[str], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 255, (40, 32, 32, 3), np.uint8), random.integers(0, 2, 40)
    np.savez(tmp_path / "noise.npz", images=images, labels=labels)
    flags = ["--fit.head.epochs", "30", "--fit.tune.epochs", "0", "--augment.preset", "none", "--size-px", "32"]

    assert train(tmp_path / "noise.npz", tmp_path / "run", *flags, *tiny, "--fit.patience", "2") == 0

    losses = [line["val_loss"] for line in lines(tmp_path / "run" / "metrics.jsonl")]
    assert len(losses) < 30
    assert is_stalled(losses, 2)
    assert not any(is_stalled(losses[:end], 2) for end in range(len(losses)))


@INLINE
def test_a_run_without_validation_learns_from_everything_and_keeps_the_last_epoch(
    tiles: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    flags = [*SHORT, *tiny, "--split.val-fraction", "0", "--fit.patience", "1"]

    assert train(tiles, run, *flags) == 0

    told = capsys.readouterr().out
    bundle = read_bundle(run / "model")
    assert "36 train" in told
    assert "last epoch 2: nothing was held out to validate it" in told
    assert [line["val_loss"] for line in lines(run / "metrics.jsonl")] == [None, None]
    assert (bundle.origin["metrics"]["epoch"], bundle.temperature) == (2, 1)
    assert not (run / "val").exists()
    assert train(tiles, run, *flags, "--resume") == 0
    measured_on = ["evaluate", "--model", str(run), "--data", str(tiles), "--out", str(tmp_path / "e")]
    assert main([*measured_on, "--colour-baseline"]) == 2
    assert "is tuned on validation images, and the run has none" in capsys.readouterr().err
    assert main(["convert", "--model", str(run)]) == 0


@INLINE
@pytest.mark.parametrize("classes", [2, 4])
def test_a_cohort_of_eight_patients_is_trained_on_by_default(
    classes: int, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = write_cohort(tmp_path, patients=8, classes=classes)

    assert train(cohort, tmp_path / "run", *SHORT, *tiny) == 0

    table = pq.read_table(tmp_path / "run" / "split.parquet")
    seen = set(zip(table["label"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert len(seen) == 2 * classes, "each class is on both sides"
    told = capsys.readouterr().out
    assert f"probabilities are not calibrated: {2 * classes} validation cases" in told
    assert ("validation has 8 of 16 cases, 0.50 of them; 0.2 was asked for" in told) == (classes == 4)


@INLINE
def test_a_loss_that_is_not_finite_ends_the_run_with_advice(
    tiles: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--size-px", "32", "--fit.head.epochs", "0", "--fit.tune.epochs", "9", "--fit.tune.layer-decay", "1"]

    code = train(tiles, tmp_path / "run", *tiny, *flags, "--fit.tune.learning-rate", "1e30", "--fit.optimizer", "sgd")

    assert code == 1
    assert re.search(r"the loss is not finite in epoch \d; lower --fit", capsys.readouterr().err)
    assert len(lines(tmp_path / "run" / "metrics.jsonl")) < 9
    assert (tmp_path / "run" / "figures" / "curves.png").is_file(), "which shows what happened"


@INLINE
def test_a_failure_in_a_worker_is_one_line_and_exit_1(
    tiles: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails = Mock(side_effect=OSError("no room for a checkpoint"))
    monkeypatch.setattr("histo.learn.fit.checkpoint.write_checkpoint", fails)
    run = tmp_path / "run"

    code = train(tiles, run, *SHORT, *tiny, "--max-failures", "0")

    error = capsys.readouterr().err.strip()
    record = json.loads((run / "run.json").read_text())
    assert (record["exit_code"], "training failed" in record["error"]) == (1, True)
    assert code == 1
    assert "training failed" in error
    assert "no room for a checkpoint" in error


@INLINE
def test_an_output_that_cannot_be_written_is_one_line_and_exit_1(
    tiles: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").write_text("a file where a folder is needed")

    assert train(tiles, run, *SHORT, *tiny) == 1

    error = capsys.readouterr().err
    assert error == f"histo train: --out {run}: File exists; mend the storage or make room on it; --resume goes on\n"
