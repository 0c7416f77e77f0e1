"""What one worker does with the settings of a run: each of them changes what is trained. No Ray is started."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.inline_ray import inline

from histo.learn.bundle import Bundle, read_bundle
from histo.learn.fit.calibration import LEAST_CASES, fit_temperature
from histo.learn.fit.checkpoint import read_validation
from histo.learn.fit.history import History
from histo.learn.openvino.frozen_backbone import FrozenBackbone
from histo.learn.predict.torch_predictor import TorchPredictor
from histo.learn.score.metrics import score
from histo.pipelines.training import run as job
from histo.pipelines.training import worker as train_worker_module
from histo.pipelines.training.data import TrainingData, gather, gather_folds, read_training_source
from histo.pipelines.training.network import describe_bundle, initial_network
from histo.pipelines.training.spec import CrossvalSpec, TrainSpec
from histo.pipelines.training.split_table import read_splits, write_cases
from histo.pipelines.training.worker import train_worker
from histo.run.placement import Placement
from histo.spec.command_line import read_spec

MEASURED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")
Measured = list[tuple[float, ...]]
pytestmark = [pytest.mark.usefixtures("inline_ray"), pytest.mark.slow]

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


def settings(data: Path, out: Path, *flags: str) -> TrainSpec:
    return read_spec(TrainSpec, ["--data", str(data), "--out", str(out), *flags], "histo train")


def begin(spec: TrainSpec, cases: TrainingData, loaders: int = 0) -> dict[str, Any]:
    """Write down the cases of a run, and return what each of its workers is given."""
    write_cases(spec.out, cases.source, cases.found, cases.splits)
    network = initial_network(spec, cases.source.classes, cases.source.images.layout)
    bundle = describe_bundle(spec, cases, network)
    return {"spec": spec.model_dump_json(), "bundle": bundle.model_dump_json(), "loaders": loaders}


def trained(data: Path, out: Path, *flags: str, loaders: int = 0) -> Measured:
    """Train as a worker does; returns what was measured in every epoch."""
    spec = settings(data, out, *flags)
    train_worker(begin(spec, gather(spec, read_training_source(spec), History(out)), loaders))
    return [tuple(line[name] for name in MEASURED) for line in History(out).past()]


@pytest.fixture(scope="module")
def baselines(unequal: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """What is measured with the settings that `SETTINGS` begin with."""
    out = tmp_path_factory.mktemp("baselines")
    with inline():
        return {
            " ".join(base): trained(unequal, out / str(number), *tiny, *base)
            for number, base in enumerate((HEAD, TUNE, SGD))
        }


@pytest.mark.parametrize(("base", "flags"), SETTINGS, ids=lambda value: " ".join(value[-2:]))
def test_every_setting_changes_what_is_trained(
    unequal: Path, tiny: list[str], baselines: dict[str, Measured], tmp_path: Path, base: list[str], flags: list[str]
) -> None:
    assert trained(unequal, tmp_path, *tiny, *base, *flags) != baselines[" ".join(base)]


def in_parts(path: Path, **changed: np.ndarray) -> Path:
    """A file with parts for training, validation (enough for a temperature) and test, some of its arrays changed."""
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for part, count in (("train", 16), ("val", LEAST_CASES), ("test", 16)):
        labels = np.arange(count) % 2
        noise = random.normal(0, 40, (count, 32, 32, 3)) + (90 + 60 * labels)[:, None, None, None]
        arrays |= {f"{part}_images": np.clip(noise, 0, 255).astype(np.uint8), f"{part}_labels": labels}
    np.savez(path, **(arrays | changed))
    return path


def test_the_temperature_is_fitted_on_validation_cases_and_never_on_test_cases(tiny: list[str], tmp_path: Path) -> None:
    other = np.random.default_rng(1).integers(0, 255, (16, 32, 32, 3), np.uint8)

    def temperatures(name: str, **changed: np.ndarray) -> list[float]:
        trained(in_parts(tmp_path / f"{name}.npz", **changed), tmp_path / name, *tiny, *HEAD)
        history = History(tmp_path / name)
        bundles = [read_bundle(history.checkpoint(epoch)).temperature for epoch in (1, 2)]
        assert bundles == [line["temperature"] for line in history.past()]
        return bundles

    fitted = temperatures("as-it-is")
    assert temperatures("other-test", test_images=other, test_labels=np.arange(16) // 8) == fitted
    assert temperatures("other-val", val_labels=np.arange(LEAST_CASES) // 2 % 2) != fitted
    assert 1 not in fitted


def test_the_temperature_of_an_epoch_is_that_of_its_validation_logits(tiny: list[str], tmp_path: Path) -> None:
    tiles = in_parts(tmp_path / "tiles.npz")
    trained(tiles, tmp_path, *tiny, *HEAD)

    spec = settings(tiles, tmp_path, *HEAD)
    source, history = read_training_source(spec), History(tmp_path)
    members = [i for i, split in enumerate(read_splits(tmp_path, source)) if split == "val"]
    logits = read_validation(history.checkpoint(2))
    assert history.past()[1]["temperature"] == fit_temperature(logits, source.labels()[members]) != 1


@pytest.mark.parametrize("flags", [[], ["--no-fit.head.augment"]], ids=["augmented", "cached"])
def test_a_stand_in_of_the_frozen_backbone_trains_the_same(
    unequal: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    flags = [*tiny, *BASE, "--fit.head.epochs", "2", "--fit.tune.epochs", "2", *flags]
    plain = trained(unequal, tmp_path / "plain", *flags)
    made = []

    def counted(*arguments: Any) -> FrozenBackbone:
        made.append(FrozenBackbone(*arguments))
        return made[-1]

    monkeypatch.setattr(train_worker_module, "LEAST_IMAGES", 1)
    monkeypatch.setattr(train_worker_module, "FrozenBackbone", counted)
    stood_in = trained(unequal, tmp_path / "stood in", *flags)

    assert len(made) == 1
    np.testing.assert_allclose(stood_in, plain, atol=2e-3)
    np.testing.assert_allclose(stood_in[:2], plain[:2], atol=1e-4)


def test_the_same_settings_train_the_same(
    unequal: Path, tiny: list[str], baselines: dict[str, Measured], tmp_path: Path
) -> None:
    assert trained(unequal, tmp_path, *tiny, *TUNE) == baselines[" ".join(TUNE)]


def test_loader_processes_train_the_same(
    unequal: Path, tiny: list[str], baselines: dict[str, Measured], tmp_path: Path
) -> None:
    assert trained(unequal, tmp_path, *tiny, *HEAD, loaders=2) == baselines[" ".join(HEAD)]


def test_workers_failures_and_loaders_are_those_of_the_settings(
    unequal: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trainer:
        def __init__(self, _: object, **settings: Any) -> None:
            seen.update(settings)

        def fit(self) -> None:
            pass

    seen: dict[str, Any] = {}
    monkeypatch.setattr(job, "TorchTrainer", Trainer)

    def asked(placement: Placement, *flags: str) -> tuple[int, int, int, dict[str, float]]:
        spec = settings(unequal, tmp_path, *tiny, *flags)
        config = begin(spec, gather(spec, read_training_source(spec), History(tmp_path)))
        job._run_workers(spec, placement, Bundle.model_validate_json(config["bundle"]), History(tmp_path))
        scaling, run = seen["scaling_config"], seen["run_config"]
        resources = scaling.resources_per_worker
        return scaling.num_workers, run.failure_config.max_failures, seen["train_loop_config"]["loaders"], resources

    assert asked(CPU) == (1, 3, 0, {"CPU": 1})
    assert asked(CPU, "--max-failures", "0", "--loaders", "2")[:3] == (1, 0, 2)
    assert asked(Placement(workers=4, cpus=8, gpus=1)) == (4, 3, 7, {"CPU": 8, "GPU": 1})


def cross_validated(data: Path, out: Path, *flags: str) -> float:
    """Train fold by fold in this process, and return the AUC over the cases that each run did not see."""
    words = [*flags, "--data", str(data), "--out", str(out), "--folds", "3", *BASE, "--augment.preset", "none"]
    words += ["--fit.head.epochs", "8", "--fit.tune.epochs", "0", "--fit.head.learning-rate", "0.01"]
    spec = read_spec(CrossvalSpec, words, "histo crossval")
    source = read_training_source(spec.of_fold(0, workers=1))
    folded = gather_folds(spec, source, has_begun=False)
    probabilities = np.full((len(source.cases), 2), np.nan)
    for fold in range(spec.folds):
        own = spec.of_fold(fold, workers=1)
        cases, history = folded.of_fold(fold, own), History(own.out)
        train_worker(begin(own, cases))
        tested = [i for i, split in enumerate(cases.splits) if split == "test"]
        best = history.chosen("best")
        assert best is not None
        predict = TorchPredictor(history.checkpoint(best["epoch"]))
        probabilities[tested] = predict(np.stack([source.images.load(i) for i in tested]))
    return float(score(source.labels(), probabilities, source.classes)["macro_auc"])


def test_shuffled_labels_are_not_predicted_and_true_ones_are(tiny: list[str], tmp_path: Path) -> None:
    random, labels = np.random.default_rng(0), np.repeat([0, 1], 30)
    images = random.normal(128, (12 + 33 * labels)[:, None, None, None], (60, 32, 32, 3))
    areas = []

    for number, said in enumerate([labels, *(random.permutation(labels) for _ in range(5))]):
        path = tmp_path / f"{number}.npz"
        np.savez(path, images=np.clip(images, 0, 255).astype(np.uint8), labels=said)
        areas.append(cross_validated(path, tmp_path / str(number), *tiny))

    assert areas[0] > 0.95
    assert 0.35 < np.mean(areas[1:]) < 0.65, f"something of the held-out cases reaches training: {areas[1:]}"
