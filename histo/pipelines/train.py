"""Train: source -> split -> stream -> loop (a generator of epochs) -> checkpoints -> bundle."""

import json
import math
import platform
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray.train
import torch
from pydantic import Field
from ray.train.torch import TorchTrainer

from histo import store, tables
from histo.errors import HistoError, UsageError
from histo.learn.augment import AugmentSpec
from histo.learn.bundle import Architecture, Bundle, TileInput
from histo.learn.checkpoint import extract_bundle, write_checkpoint
from histo.learn.collective import rank
from histo.learn.leaks import check_leaks
from histo.learn.listing import Split
from histo.learn.loop import FitSpec, fit, make_optimizer
from histo.learn.model import DEFAULT_BACKBONE, Network, Normalisation, check_size, pretrained_network
from histo.learn.source import Source, read_sources
from histo.learn.split import SplitSpec, assign_splits, split_hash
from histo.learn.stream import Stream
from histo.learn.survey import Survey, check_broken, survey, tile_mpp
from histo.pipelines.cluster import Device, Placement, check_shared, place, root_cause, session
from histo.pipelines.record import RunRecord, claim_output, versions
from histo.spec import AbsolutePath, Spec


class NetworkSpec(Spec):
    """Which network is fine-tuned."""

    backbone: str = DEFAULT_BACKBONE
    """timm's name of an ImageNet-pretrained backbone."""
    weights: AbsolutePath | None = None
    """Safetensors file with the backbone's weights; default: the installed weight package, or timm's hub cache."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of features that is dropped before the last layer in training (0 to 1)."""


class TrainSpec(Spec):
    """Fine-tune an ImageNet-pretrained network on labelled tiles; the result is a model bundle in OUT/model."""

    data: AbsolutePath
    """Labelled tiles: a folder of class folders, or an .npz file."""
    out: AbsolutePath
    """Folder of the run; must not hold a run yet."""
    workers: int | None = Field(None, ge=1)
    """Training workers; default: one for each GPU, or 1 without GPUs."""
    device: Device = "auto"
    """Where to compute; auto takes GPUs where there are some."""
    classes: list[str] | None = None
    """Class names: of the labels 0, 1, ... of an npz file, or the class folders to use; in this order."""
    mpp: float | None = Field(None, gt=0)
    """Resolution of the images in the source (µm/px); a bundle without it labels slides only with --tiling.mpp."""
    size_px: int = Field(224, ge=16)
    """Edge of the images that the network sees (px); others are resampled."""
    seed: int = Field(0, ge=0)
    """Fixes split, order, augmentation and initial weights."""
    loaders: int = Field(0, ge=0)
    """Processes that decode images, per worker; 0 decodes in the worker itself."""
    network: NetworkSpec = NetworkSpec()
    split: SplitSpec = SplitSpec()
    augment: AugmentSpec = AugmentSpec()
    fit: FitSpec = FitSpec()


def train(spec: TrainSpec) -> int:
    """Run a training job; returns the exit code.

    Raises:
        HistoError: If the data or the settings are bad, or training failed.
    """
    if (spec.out / "metrics.jsonl").exists():
        raise UsageError(f"--out {spec.out}: already holds a run; give another folder, or remove this one")
    source = read_sources([spec.data], spec.classes)
    network = pretrained_network(_architecture(spec), len(source.classes), spec.network.weights)
    check_size(network, spec.network.backbone, spec.size_px)
    claim_output(spec.out)
    found = survey(source)
    check_broken(found, limit=0)
    splits = assign_splits(source, found, spec.split, spec.seed)
    for line in check_leaks(source, found, splits, spec.split.allow_leaks):
        print(line, flush=True)
    bundle = _describe(spec, source, splits, found, network.normalisation)
    counts = ", ".join(f"{splits.count(name)} {name}" for name in ("train", "val", "test") if name in splits)
    print(f"{len(source.cases)} images of {len(source.classes)} classes: {counts}", flush=True)
    with session(spec.workers) as resources:
        placement = place(spec.workers, spec.device, resources, cpu_workers=1)
        check_shared(spec.out, spec.data)
        facts = {"placement": asdict(placement), "data_fingerprint": bundle.origin["data_fingerprint"]}
        with RunRecord(spec.out, "train", spec, **facts) as record:
            _write_split(spec.out, source, found, splits)
            _run_workers(spec, placement, bundle)
            best = _finish(spec.out)
            record.finish(0, best=best)
    accuracy = f"val_accuracy {best['val_accuracy']:.4f}"
    print(f"best epoch {best['epoch']}: {accuracy}; bundle: {spec.out / 'model'}", flush=True)
    return 0


def _describe(
    spec: TrainSpec, source: Source, splits: tuple[Split | None, ...], found: Survey, normalisation: Normalisation
) -> Bundle:
    """Describe the bundle that is to be trained; its weights, and the metrics of its epoch, are yet to come."""
    return Bundle(
        architecture=_architecture(spec),
        classes=source.classes,
        input=TileInput(
            size_px=spec.size_px,
            mpp=tile_mpp([spec.mpp] if spec.mpp else None, source, found, spec.size_px),
            mean=normalisation.mean,
            std=normalisation.std,
        ),
        origin={
            "data_fingerprint": found.fingerprint(source),
            "split_sha256": split_hash(source, splits),
            "run": str(spec.out),
            "versions": versions(),
        },
        weights_sha256="",
    )


def _write_split(out: Path, source: Source, found: Survey, splits: tuple[Split | None, ...]) -> None:
    rows = [
        {
            "case_id": case.case_id,
            "source": case.source,
            "label": source.classes[case.label],
            "group": case.group,
            "split": split,
            "content_hash": content,
            "error": error,
        }
        for case, split, content, error in zip(source.cases, splits, found.content_hashes, found.errors, strict=True)
    ]
    tables.write_table(out / "split.parquet", tables.rows_table(rows, tables.schema(tables.CASES)))


def _run_workers(spec: TrainSpec, placement: Placement, bundle: Bundle) -> None:
    """Train in Ray Train's workers; the epochs appear here as they are written."""
    storage = spec.out / "staging"
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"spec": spec.model_dump_json(), "bundle": bundle.model_dump_json()},
        scaling_config=ray.train.ScalingConfig(
            num_workers=placement.workers,
            use_gpu=bool(placement.gpus),
            resources_per_worker={"CPU": placement.cpus} | ({"GPU": 1} if placement.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=1),  # type: ignore[call-arg] # as V1
        ),
    )
    with EpochPrinter(spec.out / "metrics.jsonl", spec.fit.epochs):
        try:
            trainer.fit()
        except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
            raise HistoError(f"{spec.out}: training failed: {root_cause(error)}") from error
    store.remove(storage)


def train_worker(config: dict[str, Any]) -> None:
    """Train in one of the workers; the one of rank 0 writes."""
    spec = TrainSpec.model_validate_json(config["spec"])
    bundle = Bundle.model_validate_json(config["bundle"])
    run = _prepare(spec)
    run.network.to(ray.train.torch.get_device())
    optimizer = make_optimizer(run.network, spec.fit)
    for epoch in fit(run.network, optimizer, run.train, run.val, spec.fit.epochs):
        if rank() == 0:
            metrics = {name: value for name, value in asdict(epoch).items() if name != "steps"}
            described = bundle.model_copy(update={"origin": bundle.origin | {"metrics": metrics}})
            checkpoint = spec.out / "checkpoints" / f"epoch_{epoch.epoch:04d}"
            write_checkpoint(checkpoint, run.network, described, optimizer, epoch.epoch)
            store.append_json_lines(spec.out / "steps.jsonl", [asdict(step) for step in epoch.steps])
            store.append_json_lines(spec.out / "metrics.jsonl", [metrics])


@dataclass(frozen=True)
class _Run:
    """What every worker has before the first epoch, the same on all of them."""

    network: Network
    train: Stream
    val: Stream


def _prepare(spec: TrainSpec) -> _Run:
    source = read_sources([spec.data], spec.classes)
    written = pq.read_table(spec.out / "split.parquet", columns=["case_id", "split"]).to_pydict()
    if written["case_id"] != [case.case_id for case in source.cases]:
        raise HistoError(f"{spec.data}: its files changed after the run began, or differ on node {platform.node()}")
    torch.manual_seed(spec.seed)
    network = pretrained_network(_architecture(spec), len(source.classes), spec.network.weights)

    def stream(split: str, augment: AugmentSpec | None) -> Stream:
        members = tuple(i for i, name in enumerate(written["split"]) if name == split)
        return Stream(source, members, spec.size_px, spec.fit.batch_size, spec.seed, augment, spec.loaders)

    return _Run(network, stream("train", spec.augment), stream("val", None))


def _architecture(spec: TrainSpec) -> Architecture:
    return Architecture(backbone=spec.network.backbone, dropout=spec.network.dropout)


def _finish(out: Path) -> dict[str, Any]:
    """Copy the bundle of the epoch with the least validation loss to `model/`."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    finite = [line for line in lines if math.isfinite(line["val_loss"])]
    if not finite:
        raise HistoError(
            f"{out}: the loss is not finite in any epoch; lower --fit.learning-rate, and look at the images"
        )
    best: dict[str, Any] = min(finite, key=lambda line: (line["val_loss"], line["epoch"]))
    extract_bundle(out / "checkpoints" / f"epoch_{best['epoch']:04d}", out / "model")
    return best


class EpochPrinter:
    """Prints each line of `metrics.jsonl` as it is written, from a thread of its own."""

    def __init__(self, path: Path, epochs: int) -> None:
        self._path, self._epochs, self._printed = path, epochs, 0
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
