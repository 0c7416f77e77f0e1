"""Run one training: workers, checkpoints, the best bundle, its scores."""

import tempfile
import threading
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray.train.torch import TorchTrainer
from scipy.special import softmax

from histo import store
from histo.errors import HistoError
from histo.learn.array_layout import batch_axes
from histo.learn.bundle import Bundle, read_bundle
from histo.learn.conversion import convert
from histo.learn.data.sampling import load_evenly
from histo.learn.fit.augment import augment
from histo.learn.fit.checkpoint import extract_bundle, read_validation
from histo.learn.fit.history import History
from histo.learn.openvino.record import FOLDER as FORM
from histo.learn.openvino.record import Conversion
from histo.learn.openvino.trace import NotConvertibleError
from histo.learn.score.predictions import Predictions
from histo.learn.score.spec import RESAMPLES
from histo.pipelines.training.checks import check_finite, is_finite
from histo.pipelines.training.data import TrainingData
from histo.pipelines.training.entry import train_in_worker
from histo.pipelines.training.finished_run import FinishedRun
from histo.pipelines.training.prediction import predict_cases
from histo.pipelines.training.spec import TrainSpec
from histo.pipelines.training.split_table import write_cases
from histo.remote.cache import held
from histo.remote.location import AnyPath, connect
from histo.report.curves import draw_curves
from histo.report.evaluation import write_evaluation
from histo.report.samples import draw_samples, draw_unchanged
from histo.resample import Pixels
from histo.run.cluster import describe, place_waited_for, root_cause
from histo.run.placement import Placement, usable_cpus
from histo.run.run_folder import RunFolder
from histo.run.say import say

CHANGED_PER_SAMPLE = 6
_DRAWING = threading.Lock()
"""Held while pictures are drawn: folds run in threads of one driver, and matplotlib is not made for that."""
_CONVERTING = threading.Lock()
"""Held while a bundle is converted, which takes all CPUs of the driver, and changes which warnings it shows."""
MEASURED = 300
"""Validation images that bfloat16 is measured on: if no class changes among them, fewer than 1 in 100 do (95 %)."""
_FIRST_LOOK_S, _LOOK_S = 15.0, 60.0
KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
"""Environment of the workers: glibc gives the memory of a step's tensors to the next one instead of to the system, from
which it would come back page by page; a tenth of the time on CPUs (docs/decisions/0008-batches-and-speed.md)."""


def run_training(
    folder: RunFolder,
    spec: TrainSpec,
    data: TrainingData,
    bundle: Bundle,
    placement: Placement,
    earlier: dict[str, Any] | None,
) -> dict[str, Any]:
    """Train on what was gathered, within a Ray session, and write everything that stands in a run's folder.

    Args:
        folder: The run's, held.
        spec: The settings.
        data: The cases and their splits.
        bundle: Describes the bundle that is to be trained.
        placement: Workers, and what each of them gets.
        earlier: Record of the execution that is continued.

    Returns:
        What `run.json` says of the result: `best`, the metrics of the bundle's epoch, and `test`, its scores or None.

    Raises:
        HistoError: If training failed.
    """
    history = History(spec.out)
    facts = describe(placement) | {"data_fingerprint": bundle.origin["data_fingerprint"]} | data.source.facts()
    with folder.record(spec, earlier, **facts) as record:
        write_cases(spec.out, data.source, data.found, data.splits)
        with _DRAWING:
            _draw_samples(spec, data)
        _run_workers(spec, placement, bundle, history)
        with _DRAWING:
            _draw_curves(spec, history)
        best = _finish(spec, history)
        with _CONVERTING:
            _convert(spec, data)
        _score_val(spec, data, history.checkpoint(best["epoch"]))
        result = {"best": best, "test": _score_test(spec, data, placement)}
        record.finish(0, **result)
    return result


def _draw_curves(spec: TrainSpec, history: History) -> None:
    """Draw how training went, also where it failed."""
    chosen = history.chosen(spec.fit.bundle_epoch) if is_finite(history.past()[-1]) else None
    target = spec.out / "figures" / "curves.png"
    draw_curves(history.past(), history.steps(), chosen["epoch"] if chosen else None, target)


def _draw_samples(spec: TrainSpec, data: TrainingData) -> None:
    """Draw a training image of each class as it is, and as augmentation changes it."""
    train = [i for i, split in enumerate(data.splits) if split == "train"]
    first = {data.source.cases[i].label: i for i in reversed(train)}
    members = [first[label] for label in sorted(first)]
    layout = data.source.images.layout
    arrays = [layout.fit(data.source.images.load(i), spec.size_px) for i in members]
    originals = np.stack([layout.picture(array) for array in arrays])
    titles = [data.source.classes[data.source.cases[i].label] for i in members]
    target = spec.out / "figures" / "samples.png"
    if spec.augment.settings().changes_nothing:
        draw_unchanged(originals, titles, target, f"Training {layout.noun}; nothing changes them (no augmentation)")
        return
    batch = torch.from_numpy(np.stack(arrays)).permute(batch_axes(layout))
    back = np.argsort(batch_axes(layout)).tolist()
    changed = [
        augment(batch, spec.augment, [(spec.seed, epoch, i, 0) for i in members]).permute(back).numpy()
        for epoch in range(1, CHANGED_PER_SAMPLE + 1)
    ]
    preset = spec.augment.preset
    caption = (
        f"Training {layout.noun} as they are, and as augment.preset {preset} changes them, drawn {len(changed)} times"
    )
    pictures = np.stack([np.stack([layout.picture(array) for array in batch]) for batch in changed], axis=1)
    draw_samples(originals, pictures, titles, target, caption)


def _run_workers(spec: TrainSpec, placement: Placement, bundle: Bundle, history: History) -> None:
    """Train in Ray Train's workers; the epochs appear here as they are written."""
    storage = spec.out / "staging"
    store.remove(storage)
    history.rewind()
    loaders = spec.loaders if spec.loaders is not None else (placement.cpus - 1 if placement.gpus else 0)
    trainer = TorchTrainer(
        train_in_worker,
        train_loop_config={
            "spec": spec.model_dump_json(),
            "bundle": bundle.model_dump_json(),
            "loaders": loaders,
            "gpus": placement.gpus if spec.loaders is None else 0,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=placement.workers,
            use_gpu=bool(placement.gpus),
            resources_per_worker={"CPU": placement.cpus} | ({"GPU": 1} if placement.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            **_storage(storage),
            worker_runtime_env={"env_vars": KEEP_FREED_MEMORY},
            failure_config=ray.train.FailureConfig(max_failures=spec.max_failures, controller_failure_limit=1),  # type: ignore[call-arg] # as V1
        ),
    )
    try:
        _fit(trainer, placement)
    except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
        raise HistoError(f"{spec.out}: training failed: {root_cause(error)}") from error
    store.remove(storage)


def _storage(place: AnyPath) -> dict[str, Any]:
    """Say where Ray Train keeps its own records."""
    if isinstance(place, Path):
        return {"storage_path": str(place)}
    files, path = connect(str(place))
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(files))}


def _fit(trainer: TorchTrainer, placement: Placement) -> None:
    """Train in a thread: in the main one Ray Train takes SIGINT to itself, and is silent for a quarter of a minute.

    Ray Train waits for a place without a word; this says so.
    """
    ended = Future[None]()

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001 -- raised by the thread that waits
            ended.set_exception(error)
        else:
            ended.set_result(None)

    threading.Thread(target=fit, daemon=True).start()
    wait_s = _FIRST_LOOK_S
    while not wait([ended], wait_s).done:
        if (waited_for := place_waited_for(placement)) is not None:
            say(waited_for)
        wait_s = _LOOK_S
    ended.result()


def _finish(spec: TrainSpec, history: History) -> dict[str, Any]:
    """Copy the bundle of the epoch that is asked for to `model/`; returns its metrics.

    Raises:
        HistoError: If training ended because the loss was no longer finite.
    """
    check_finite(spec.out, history)
    chosen = history.chosen(spec.fit.bundle_epoch)
    assert chosen is not None, "the loss of the last epoch, if of no other, is finite"
    extract_bundle(history.checkpoint(chosen["epoch"]), spec.out / "model")
    return chosen


def _convert(spec: TrainSpec, data: TrainingData) -> None:
    """Give the best bundle its converted form, with bfloat16 measured on validation images; a run can do without it."""
    source = data.source.select([i for i, split in enumerate(data.splits) if split == "val"])
    tiles, broken = load_evenly(source, spec.size_px, MEASURED) if source.cases else (None, [])
    for error in broken:
        say(f"left out: {error}")
    try:
        say(f"converted for CPUs: {_converted(spec.out / 'model', tiles)}")
    except NotConvertibleError as error:
        say(f"not converted for CPUs, torch is used there: {error}")


def _converted(model: AnyPath, tiles: Pixels | None) -> Conversion:
    if isinstance(model, Path):
        return convert(model, tiles=tiles, threads=usable_cpus())
    with tempfile.TemporaryDirectory() as folder:
        form = Path(folder) / FORM
        conversion = convert(held(model), form, tiles, usable_cpus())
        store.put_folder(form, model / FORM)
    return conversion


def _score_val(spec: TrainSpec, data: TrainingData, checkpoint: AnyPath) -> None:
    """Write the scores of the best bundle on the validation split, from the logits that the workers saw.

    They are too good, since these images chose the epoch and the temperature; intervals would claim too much.
    """
    members = [i for i, split in enumerate(data.splits) if split == "val"]
    if not members:
        return
    source, bundle = data.source.select(members), read_bundle(held(checkpoint))
    predictions = Predictions(
        cases=source.cases,
        classes=bundle.classes,
        truth_N=source.labels(),
        probabilities_NK=softmax(read_validation(checkpoint) / bundle.temperature, axis=1).astype(np.float32),
        temperatures_N=np.full(len(members), bundle.temperature),
    )
    more = {"seen_in_training": len(members)}
    with _DRAWING:
        write_evaluation(spec.out / "val", predictions, source.images, resamples=0, seed=spec.seed, more=more)


def _score_test(spec: TrainSpec, data: TrainingData, placement: Placement) -> dict[str, Any] | None:
    """Score the best bundle on the test split, if there is one."""
    members = [i for i, split in enumerate(data.splits) if split == "test"]
    if not members:
        return None
    source = data.source.select(members)
    predictions = predict_cases(spec.out / "model", source, placement, spec.fit.batch_size)
    run = FinishedRun(spec.out)
    more = {"seen_in_training": run.count_seen(run.content_hashes("test"))}  # none, unless leaks are allowed
    with _DRAWING:
        return write_evaluation(spec.out / "test", predictions, source.images, RESAMPLES, spec.seed, more)
