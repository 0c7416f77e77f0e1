"""Train: source -> split -> stream -> loop (a generator of epochs) -> checkpoints -> bundle."""

import json
import math
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from ray.train.torch import TorchTrainer

from histo import store
from histo.errors import HistoError, UsageError
from histo.learn.augment import augment
from histo.learn.bundle import Architecture, Bundle, TileInput, read_bundle
from histo.learn.checkpoint import extract_bundle
from histo.learn.history import History
from histo.learn.model import Network, check_size
from histo.learn.optimizer import make_optimizer
from histo.learn.phases import Phase
from histo.learn.split import split_hash
from histo.pipelines.cases import write_cases
from histo.pipelines.cluster import Placement, check_shared, place, root_cause, session
from histo.pipelines.evaluate import evaluate_cases
from histo.pipelines.record import FILE, RunRecord, claim_output, read_record, versions
from histo.pipelines.train_data import TrainingData, gather, read_training_source
from histo.pipelines.train_spec import FREE_TO_CHANGE, TrainSpec
from histo.pipelines.train_worker import initial_network, train_worker
from histo.report.samples import draw_samples
from histo.resample import resize

CHANGED_PER_SAMPLE = 6
KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
"""Environment of the workers: glibc gives the memory of a step's tensors to the next one instead of to the system, from
which it would come back page by page; a tenth of the time on CPUs (docs/decisions/0008-batches-and-speed.md)."""


def train(spec: TrainSpec) -> int:
    """Run a training job; returns the exit code.

    Raises:
        HistoError: If the data or the settings are bad, or training failed.
    """
    history = History(spec.out)
    earlier = _earlier(spec, history)
    if earlier and earlier["exit_code"] == 0:
        print(f"{spec.out}: the run is complete; bundle: {spec.out / 'model'}", flush=True)
        return 0
    inside = [path for path in (*spec.data, *(spec.test or [])) if path.is_dir() and spec.out.is_relative_to(path)]
    if inside:
        raise UsageError(f"--out {spec.out}: lies in {inside[0]}, whose images are read; give another folder")
    source = read_training_source(spec)
    network = initial_network(spec, source.classes)
    _check(spec, network)
    claim_output(spec.out)
    data = gather(spec, source, history)
    bundle = _describe(spec, data, network)
    print(_summary(data), flush=True)
    with session(spec.workers) as resources:
        placement = place(spec.workers, spec.device, resources, cpu_workers=1)
        single = [path for path in (spec.start_from, spec.network.weights) if path]
        check_shared(spec.out, *spec.data, *(spec.test or []), *single)
        facts = {"placement": asdict(placement), "data_fingerprint": bundle.origin["data_fingerprint"]}
        with RunRecord(spec.out, "train", spec, earlier, **facts) as record:
            write_cases(spec.out, data.source, data.found, data.splits)
            _draw_samples(spec, data)
            _run_workers(spec, placement, bundle, history)
            best = _finish(spec.out, history)
            test = _score_test(spec, data, placement)
            record.finish(0, best=best, test=test)
    print(f"best epoch {best['epoch']}: val_accuracy {best['val_accuracy']:.4f}; bundle: {spec.out / 'model'}")
    return 0


def _earlier(spec: TrainSpec, history: History) -> dict[str, Any] | None:
    """Return the record of the run that is to be continued, if there is one.

    Raises:
        UsageError: If there is a run that is not to be continued, or with other settings.
    """
    if (spec.out / FILE).exists() and read_record(spec.out)["command"] != "train":
        raise UsageError(f"--out {spec.out}: holds the results of another job; give another folder")
    if not history.last:
        return None
    if not spec.resume:
        raise UsageError(f"--out {spec.out}: already holds a run; continue it with --resume, or give another folder")
    earlier = read_record(spec.out)
    changed = _differences(earlier["spec"], spec.model_dump(mode="json"), "")
    if changed:
        raise UsageError(f"--resume: {'; '.join(changed)}; resume with the same settings, or give another --out")
    _check_finite(spec.out, history)
    read_bundle(history.checkpoint(history.last), "--resume")
    return earlier


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str) -> list[str]:
    """Name the settings that differ and that change the result."""
    found = []
    for name, value in now.items():
        if prefix == "" and name in FREE_TO_CHANGE:
            continue
        if isinstance(value, dict):
            found += _differences(before.get(name) or {}, value, f"{prefix}{name}.")
        elif before.get(name) != value:
            flag = f"{prefix}{name}".replace("_", "-")
            found.append(f"--{flag} is {value}, and was {before.get(name)} when the run began")
    return found


def _check(spec: TrainSpec, network: Network) -> None:
    """Make sure that the network can see the images, and that every phase can be trained."""
    check_size(network, spec.network.backbone, spec.size_px)
    if spec.fit.tune.epochs:
        make_optimizer(network, Phase("tune", spec.fit))


def _describe(spec: TrainSpec, data: TrainingData, network: Network) -> Bundle:
    """Describe the bundle that is to be trained; its weights, and the metrics of its epoch, are yet to come."""
    return Bundle(
        architecture=Architecture(backbone=spec.network.backbone, dropout=spec.network.dropout),
        classes=data.source.classes,
        input=TileInput(
            size_px=spec.size_px, mpp=data.mpp, mean=network.normalisation.mean, std=network.normalisation.std
        ),
        origin={
            "data_fingerprint": data.found.fingerprint(data.source),
            "split_sha256": split_hash(data.source, data.splits),
            "run": str(spec.out),
            "start_from": spec.start_from and str(spec.start_from),
            "versions": versions(),
        },
        weights_sha256="",
    )


def _summary(data: TrainingData) -> str:
    names = ("train", "val", "test", None)
    counts = [f"{data.splits.count(name)} {name or 'not usable'}" for name in names if name in data.splits]
    first = f"{len(data.source.cases)} images of {len(data.source.classes)} classes: {', '.join(counts)}"
    return "\n".join([first, *data.notes])


def _draw_samples(spec: TrainSpec, data: TrainingData) -> None:
    """Draw a training image of each class as it is, and as augmentation changes it."""
    train = [i for i, split in enumerate(data.splits) if split == "train"]
    first = {data.source.cases[i].label: i for i in reversed(train)}
    members = [first[label] for label in sorted(first)]
    images = np.stack([resize(data.source.images.load(i), spec.size_px) for i in members])
    batch_BCHW = torch.from_numpy(images).permute(0, 3, 1, 2)
    changed = [
        augment(batch_BCHW, spec.augment, [(spec.seed, epoch, i, 0) for i in members]).permute(0, 2, 3, 1).numpy()
        for epoch in range(1, CHANGED_PER_SAMPLE + 1)
    ]
    titles = [data.source.classes[data.source.cases[i].label] for i in members]
    preset = spec.augment.preset
    caption = f"Training images as they are, and as augment.preset {preset} changes them in epochs 1 to {len(changed)}"
    draw_samples(images, np.stack(changed, axis=1), titles, spec.out / "figures" / "samples.png", caption)


def _run_workers(spec: TrainSpec, placement: Placement, bundle: Bundle, history: History) -> None:
    """Train in Ray Train's workers; the epochs appear here as they are written."""
    storage = spec.out / "staging"
    store.remove(storage)
    history.rewind()
    loaders = spec.loaders if spec.loaders is not None else (placement.cpus - 1 if placement.gpus else 0)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "spec": spec.model_dump_json(),
            "bundle": bundle.model_dump_json(),
            "loaders": loaders,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=placement.workers,
            use_gpu=bool(placement.gpus),
            resources_per_worker={"CPU": placement.cpus} | ({"GPU": 1} if placement.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(storage),
            worker_runtime_env={"env_vars": KEEP_FREED_MEMORY},
            failure_config=ray.train.FailureConfig(max_failures=spec.max_failures, controller_failure_limit=1),  # type: ignore[call-arg] # as V1
        ),
    )
    with EpochPrinter(history.metrics_path, spec.fit.head.epochs + spec.fit.tune.epochs, printed=history.last):
        try:
            trainer.fit()
        except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
            raise HistoError(f"{spec.out}: training failed: {root_cause(error)}") from error
    store.remove(storage)


def _finish(out: Path, history: History) -> dict[str, Any]:
    """Copy the bundle of the best epoch to `model/`.

    Raises:
        HistoError: If training ended because the loss was no longer finite.
    """
    _check_finite(out, history)
    best = history.best()
    assert best is not None, "the loss of the last epoch, if of no other, is finite"
    extract_bundle(history.checkpoint(best["epoch"]), out / "model")
    return best


def _check_finite(out: Path, history: History) -> None:
    last = history.past()[-1]
    if not math.isfinite(last["train_loss"] + last["val_loss"]):
        raise HistoError(
            f"{out}: the loss is not finite in epoch {last['epoch']}; lower --fit.head.learning-rate or "
            "--fit.tune.learning-rate, look at the images, and give another --out"
        )


def _score_test(spec: TrainSpec, data: TrainingData, placement: Placement) -> dict[str, Any] | None:
    """Score the best bundle on the test split, if there is one."""
    members = [i for i, split in enumerate(data.splits) if split == "test"]
    if not members:
        return None
    source = data.source.select(members)
    scores = evaluate_cases(spec.out / "model", source, spec.out / "test", placement, spec.fit.batch_size)
    print(f"test accuracy {scores['accuracy']:.4f} on {scores['n']} images; tables: {spec.out / 'test'}", flush=True)
    return scores


class EpochPrinter:
    """Prints each line of `metrics.jsonl` as it is written, from a thread of its own."""

    def __init__(self, path: Path, epochs: int, printed: int) -> None:
        self._path, self._epochs, self._printed = path, epochs, printed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._print_new()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self._print_new()

    def _print_new(self) -> None:
        if not self._path.exists():
            return
        complete = self._path.read_text().rpartition("\n")[0].splitlines()
        for line in complete[self._printed :]:
            print(_epoch_line(json.loads(line), self._epochs), flush=True)
        self._printed = len(complete)


def _epoch_line(metrics: dict[str, Any], epochs: int) -> str:
    left = metrics["seconds"] * (epochs - metrics["epoch"])
    return (
        f"epoch {metrics['epoch']}/{epochs}  "
        f"train loss {metrics['train_loss']:.4f} accuracy {metrics['train_accuracy']:.4f}  "
        f"val loss {metrics['val_loss']:.4f} accuracy {metrics['val_accuracy']:.4f}  "
        f"{metrics['images_per_second']:.1f} images/s  {left:.0f} s left"
    )
