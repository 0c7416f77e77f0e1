"""Train: source -> split -> stream -> loop (a generator of epochs) -> checkpoints -> bundle."""

import json
import platform
import shutil
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray.train
from pydantic import Field
from ray.train.torch import TorchTrainer

from histo import store, tables
from histo.errors import HistoError, UsageError
from histo.learn.augment import AugmentSpec
from histo.learn.bundle import MODEL_JSON, WEIGHTS, Architecture, Bundle, TileInput
from histo.learn.checkpoint import write_checkpoint
from histo.learn.collective import rank
from histo.learn.loop import Epoch, FitSpec, fit, make_optimizer
from histo.learn.model import DEFAULT_BACKBONE, Network, pretrained_network
from histo.learn.source import Source, Survey, read_source, survey, tile_mpp
from histo.learn.split import SplitSpec, assign_splits, split_hash
from histo.learn.stream import Stream
from histo.pipelines.cluster import Device, Placement, place, session
from histo.pipelines.record import RunRecord, versions
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
    """Resolution of the images in the source (µm/px); without it the bundle cannot label slides."""
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
    if (spec.out / "run.json").exists():
        raise UsageError(f"--out {spec.out}: already holds a run; give another folder, or remove this one")
    source = read_source(spec.data, spec.classes)
    splits = assign_splits(source, spec.split, spec.seed)
    found = survey(source)
    mpp = tile_mpp(spec.mpp, found.edges_px, spec.size_px)
    pretrained_network(_architecture(spec), len(source.classes), spec.network.weights)  # fails here, not in a worker
    record = RunRecord(spec.out, "train", spec)
    _write_split(spec.out, source, found, splits)
    origin = {
        "data_fingerprint": found.fingerprint(source),
        "split_sha256": split_hash(source, splits),
        "run": str(spec.out),
        "versions": versions(),
    }
    record.add(data_fingerprint=origin["data_fingerprint"], classes=list(source.classes))
    counts = ", ".join(f"{splits.count(name)} {name}" for name in ("train", "val", "test") if name in splits)
    print(f"{len(source.cases)} images of {len(source.classes)} classes: {counts}", flush=True)
    with session(spec.workers) as resources:
        placement = place(spec.workers, spec.device, resources, cpu_workers=1)
        record.add(placement=asdict(placement))
        _run_workers(spec, placement, mpp, origin)
    best = _finish(spec.out)
    print(
        f"best epoch {best['epoch']}: val_accuracy {best['val_accuracy']:.4f}; bundle: {spec.out / 'model'}", flush=True
    )
    return record.finish(0, best=best)


def _write_split(out: Path, source: Source, found: Survey, splits: tuple[str, ...]) -> None:
    rows = [
        {"case_id": case.case_id, "label": source.classes[case.label], "split": split, "content_hash": content}
        for case, split, content in zip(source.cases, splits, found.content_hashes, strict=True)
    ]
    tables.write_table(out / "split.parquet", tables.rows_table(rows, tables.schema(tables.CASES)))


def _run_workers(spec: TrainSpec, placement: Placement, mpp: float | None, origin: dict[str, Any]) -> None:
    """Train in Ray Train's workers; the epochs appear here as they are written."""
    storage = spec.out / "staging"
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"spec": spec.model_dump_json(), "mpp": mpp, "origin": json.dumps(origin)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=placement.workers,
            use_gpu=bool(placement.gpus),
            resources_per_worker={"CPU": placement.cpus} | ({"GPU": 1} if placement.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=1),  # type: ignore[call-arg] # annotated for V1,
        ),
    )
    with EpochPrinter(spec.out / "metrics.jsonl", spec.fit.epochs):
        try:
            trainer.fit()
        except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
            raise HistoError(f"{spec.out}: training failed: {_root_cause(error)}") from error
    store.remove(storage)


def _root_cause(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", None) or {}
    cause: BaseException = next(iter(failures.values()), error)
    lines = [line for line in str(cause).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(cause).__name__


def train_worker(config: dict[str, Any]) -> None:
    """Train in one of the workers; the one of rank 0 writes."""
    spec = TrainSpec.model_validate_json(config["spec"])
    if not (spec.out / "split.parquet").exists():
        raise HistoError(f"{spec.out} is not visible on node {platform.node()}; it must be a shared folder")
    run = _prepare(spec)
    device = ray.train.torch.get_device()
    run.network.to(device)
    optimizer = make_optimizer(run.network, spec.fit)
    bundle = _describe(spec, run, config["mpp"], json.loads(config["origin"]))
    for epoch in fit(run.network, optimizer, run.train, run.val, spec.fit.epochs):
        if rank() == 0:
            metrics = {name: value for name, value in asdict(epoch).items() if name != "steps"}
            described = bundle.model_copy(update={"origin": bundle.origin | {"metrics": metrics}})
            checkpoint = spec.out / "checkpoints" / f"epoch_{epoch.epoch:04d}"
            write_checkpoint(checkpoint, run.network, described, optimizer, epoch.epoch)
            _log(spec.out, epoch, metrics)


@dataclass(frozen=True)
class _Run:
    """What every worker has before the first epoch, the same on all of them."""

    source: Source
    network: Network
    train: Stream
    val: Stream


def _prepare(spec: TrainSpec) -> _Run:
    import torch  # noqa: PLC0415 -- only workers need it

    source = read_source(spec.data, spec.classes)
    written = pq.read_table(spec.out / "split.parquet", columns=["case_id", "split"]).to_pydict()
    if written["case_id"] != [case.case_id for case in source.cases]:
        raise HistoError(f"{spec.data}: its files changed after the run began, or differ on this node")
    torch.manual_seed(spec.seed)
    network = pretrained_network(_architecture(spec), len(source.classes), spec.network.weights)

    def stream(split: str, augment: AugmentSpec | None) -> Stream:
        members = tuple(i for i, name in enumerate(written["split"]) if name == split)
        return Stream(source, members, spec.size_px, spec.fit.batch_size, spec.seed, augment, spec.loaders)

    return _Run(source, network, stream("train", spec.augment), stream("val", None))


def _architecture(spec: TrainSpec) -> Architecture:
    return Architecture(backbone=spec.network.backbone, dropout=spec.network.dropout)


def _describe(spec: TrainSpec, run: _Run, mpp: float | None, origin: dict[str, Any]) -> Bundle:
    normalisation = run.network.normalisation
    seen = TileInput(size_px=spec.size_px, mpp=mpp, mean=normalisation.mean, std=normalisation.std)
    return Bundle(
        architecture=_architecture(spec), classes=run.source.classes, input=seen, origin=origin, weights_sha256=""
    )


def _log(out: Path, epoch: Epoch, metrics: dict[str, Any]) -> None:
    for step in epoch.steps:
        store.append_json_line(out / "steps.jsonl", asdict(step))
    store.append_json_line(out / "metrics.jsonl", metrics)


def _finish(out: Path) -> dict[str, Any]:
    """Copy the bundle of the epoch with the least validation loss to `model/`."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    best: dict[str, Any] = min(lines, key=lambda line: (line["val_loss"], line["epoch"]))
    draft = out / ".model.tmp"
    draft.mkdir()
    for name in (MODEL_JSON, WEIGHTS):
        shutil.copyfile(out / "checkpoints" / f"epoch_{best['epoch']:04d}" / name, draft / name)
    store.replace_folder(draft, out / "model")
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
