"""What one worker does with the settings of a run: each of them changes what is trained. No Ray is started."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from histo.learn.bundle import Architecture, Bundle, TileInput
from histo.learn.history import History
from histo.pipelines import train as job
from histo.pipelines.cases import write_cases
from histo.pipelines.cluster import Placement
from histo.pipelines.train_data import gather, read_training_source
from histo.pipelines.train_spec import TrainSpec
from histo.pipelines.train_worker import train_worker
from histo.spec import read_spec

MEASURED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")
CPU = Placement(workers=1, cpus=1, gpus=0)
BASE = ["--size-px", "32", "--split.val-fraction", "0.25", "--fit.batch-size", "8"]
HEAD = [*BASE, "--fit.head.epochs", "2", "--fit.tune.epochs", "0"]
TUNE = [*BASE, "--fit.head.epochs", "0", "--fit.tune.epochs", "2"]
SGD = [*HEAD, "--fit.optimizer", "sgd"]
SETTINGS = [
    (HEAD, ["--seed", "1"]),
    (HEAD, ["--size-px", "48"]),
    (HEAD, ["--subset", "24"]),
    (HEAD, ["--network.dropout", "0.5"]),
    (HEAD, ["--augment.preset", "original"]),
    (HEAD, ["--augment.zoom", "0"]),
    (HEAD, ["--no-fit.head.augment"]),
    (HEAD, ["--fit.batch-size", "4"]),
    (HEAD, ["--fit.head.learning-rate", "0.01"]),
    (HEAD, ["--fit.optimizer", "sgd"]),
    (SGD, ["--fit.momentum", "0"]),
    (HEAD, ["--fit.weight-decay", "10"]),
    (HEAD, ["--fit.warmup-epochs", "0"]),
    (HEAD, ["--fit.schedule", "constant"]),
    (HEAD, ["--fit.label-smoothing", "0.2"]),
    (HEAD, ["--fit.balance", "weights"]),
    (HEAD, ["--fit.balance", "sampling"]),
    (HEAD, ["--fit.precision", "bf16"]),
    (HEAD, ["--fit.precision", "float64"]),
    (SGD, ["--fit.clip-norm", "0.001"]),
    (TUNE, ["--fit.tune.learning-rate", "0.001"]),
    (TUNE, ["--fit.tune.layers", "1"]),
    (TUNE, ["--fit.tune.layer-decay", "0.1"]),
    (TUNE, ["--augment.preset", "none"]),
]


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 18, 9 and 5 tiles."""
    random, labels = np.random.default_rng(0), np.repeat([0, 1, 2], [18, 9, 5])
    images = random.normal(0, 30, (32, 32, 32, 3)) + (60 + 60 * labels)[:, None, None, None]
    path = tmp_path_factory.mktemp("unequal") / "tiles.npz"
    np.savez(path, images=np.clip(images, 0, 255).astype(np.uint8), labels=labels)
    return path


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.train.torch.get_device", lambda: torch.device("cpu"))


def settings(data: Path, out: Path, *flags: str) -> TrainSpec:
    return read_spec(TrainSpec, ["--data", str(data), "--out", str(out), *flags], "histo train")


def description(spec: TrainSpec, classes: tuple[str, ...]) -> Bundle:
    tile_input = TileInput(size_px=spec.size_px, mpp=None, mean=(127.0,) * 3, std=(128.0,) * 3)
    architecture = Architecture(backbone=spec.network.backbone)
    return Bundle(architecture=architecture, classes=classes, input=tile_input, origin={}, weights_sha256="")


def trained(data: Path, out: Path, *flags: str) -> list[tuple[float, ...]]:
    """Train as a worker does; returns what was measured in every epoch."""
    spec = settings(data, out, *flags)
    source = read_training_source(spec)
    cases = gather(spec, source, History(out))
    write_cases(out, cases.source, cases.found, cases.splits)
    bundle = description(spec, source.classes)
    train_worker({"spec": spec.model_dump_json(), "bundle": bundle.model_dump_json(), "loaders": 0})
    return [tuple(line[name] for name in MEASURED) for line in History(out).past()]


@pytest.mark.parametrize(("base", "flags"), SETTINGS, ids=lambda value: " ".join(value[-2:]))
def test_every_setting_changes_what_is_trained(
    unequal: Path, tmp_path: Path, base: list[str], flags: list[str]
) -> None:
    assert trained(unequal, tmp_path / "with", *base, *flags) != trained(unequal, tmp_path / "without", *base)


def test_the_same_settings_train_the_same(unequal: Path, tmp_path: Path) -> None:
    assert trained(unequal, tmp_path / "a", *TUNE) == trained(unequal, tmp_path / "b", *TUNE)


def test_loader_processes_train_the_same(unequal: Path, tmp_path: Path) -> None:
    spec = settings(unequal, tmp_path / "b", *HEAD)
    alone = trained(unequal, tmp_path / "a", *HEAD)
    cases = gather(spec, read_training_source(spec), History(spec.out))
    write_cases(spec.out, cases.source, cases.found, cases.splits)
    bundle = description(spec, cases.source.classes)

    train_worker({"spec": spec.model_dump_json(), "bundle": bundle.model_dump_json(), "loaders": 2})

    assert [tuple(line[name] for name in MEASURED) for line in History(spec.out).past()] == alone


def test_workers_failures_and_loaders_are_those_of_the_settings(
    unequal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trainer:
        def __init__(self, _: object, **settings: Any) -> None:
            seen.update(settings)

        def fit(self) -> None:
            pass

    seen: dict[str, Any] = {}
    monkeypatch.setattr(job, "TorchTrainer", Trainer)

    def asked(placement: Placement, *flags: str) -> tuple[int, int, int, dict[str, float]]:
        spec = settings(unequal, tmp_path, *flags)
        job._run_workers(spec, placement, description(spec, ("0", "1", "2")), History(tmp_path))
        scaling, run = seen["scaling_config"], seen["run_config"]
        resources = scaling.resources_per_worker
        return scaling.num_workers, run.failure_config.max_failures, seen["train_loop_config"]["loaders"], resources

    assert asked(CPU) == (1, 3, 0, {"CPU": 1})
    assert asked(CPU, "--max-failures", "0", "--loaders", "2")[:3] == (1, 0, 2)
    assert asked(Placement(workers=4, cpus=8, gpus=1)) == (4, 3, 7, {"CPU": 8, "GPU": 1})
