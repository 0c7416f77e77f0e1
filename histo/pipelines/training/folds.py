"""Cross-validate a source: train the folds, and score them together."""

import json
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from histo import store
from histo.errors import HistoError, UsageError
from histo.learn.bundle import read_bundle
from histo.learn.data.source import Source
from histo.learn.fit.history import History
from histo.learn.fit.shortages import calibration_shortage
from histo.learn.network.model import Network
from histo.learn.score.predictions import Predictions, spread
from histo.learn.score.spec import RESAMPLES
from histo.pipelines.training.checks import check_start, check_untouched, earlier_record
from histo.pipelines.training.data import FoldedData, TrainingData, gather_folds
from histo.pipelines.training.job import GOES_ON, WRITTEN
from histo.pipelines.training.network import check_history, check_network, describe_bundle, initial_network
from histo.pipelines.training.progress import Watcher
from histo.pipelines.training.run import run_training
from histo.pipelines.training.spec import CrossvalSpec
from histo.pipelines.training.split_table import FILE, write_folds
from histo.remote.cache import held
from histo.remote.location import AnyPath
from histo.report.evaluation import write_evaluation
from histo.report.text import format_folds, format_scores
from histo.run.cluster import check_shared, describe, session
from histo.run.interruption import interruptible
from histo.run.placement import Placement, Resources, place
from histo.run.run_folder import RunFolder
from histo.run.say import say
from histo.tables import open_table


def crossval_source(spec: CrossvalSpec, source: Source, earlier: dict[str, Any] | None) -> int:
    """Train and score all folds of a source; returns the exit code.

    Args:
        spec: The settings.
        source: The cases.
        earlier: Record of the execution that is continued.

    Raises:
        HistoError: If the data or the settings are bad, or training failed.
    """
    network = initial_network(spec, source.classes, source.images.layout)
    check_network(spec, network, source.images.layout)
    with RunFolder(spec.out, "crossval", ["figures"], resume="--resume goes on") as folder:
        check_untouched(spec, begun_before=earlier is not None, begun_now=store.is_there(spec.out / FILE))
        metrics = _crossval(folder, spec, source, network, earlier)
    say(format_folds(metrics["folds"], metrics["over_folds"], source.noun))
    say(f"all folds together:\n{format_scores(metrics, source.noun)}")
    say(f"tables and pictures: {spec.out}")
    return 0


def _crossval(
    folder: RunFolder, spec: CrossvalSpec, source: Source, network: Network, earlier: dict[str, Any] | None
) -> dict[str, Any]:
    """Train and score all folds; returns the scores of all of them together."""
    data = gather_folds(spec, source, has_begun=store.is_there(spec.out / FILE))
    members = [i for i, fold in enumerate(data.folds) if fold is not None]
    check_start(spec, [], [data.found.content_hashes[i] for i in members])
    folds = [data.of_fold(fold, spec.of_fold(fold, workers=1)) for fold in range(spec.folds)]
    fewest = min((fold.splits for fold in folds), key=lambda splits: splits.count("val"))
    notes = [*data.notes, *calibration_shortage(fewest)]
    notes += [f"fold {number}: {note}" for number, fold in enumerate(folds) for note in fold.notes]
    say("\n".join([f"{source.describe()}: {len(members)} in {spec.folds} folds", *notes]))
    with session((spec.workers or 1) * (spec.side_by_side or 1)) as resources:
        placement, side_by_side = _place(spec, resources)
        check_shared(spec.out, *spec.data, *spec.weight_files)
        facts = describe(placement) | {"side_by_side": side_by_side, "data_fingerprint": data.found.fingerprint(source)}
        facts |= source.facts()
        with folder.record(spec, earlier, **facts) as record:
            write_folds(spec.out, source, data.found, data.folds)
            _train_folds(partial(_train_fold, spec, folds, network, placement), spec, side_by_side, source.noun)
            metrics = _pool(spec, data)
            record.finish(0, accuracy=metrics["accuracy"])
    return metrics


def _place(spec: CrossvalSpec, resources: Resources) -> tuple[Placement, int]:
    """Decide what the workers of a fold get, and how many folds are trained at a time."""
    each = spec.workers or 1
    on_gpu = spec.device != "cpu" and resources.gpus >= 1
    room = int(min(resources.gpus, resources.cpus) if on_gpu else resources.cpus)
    side_by_side = min(spec.folds, spec.side_by_side or max(1, room // each))
    if side_by_side > 1 and each * side_by_side > room:
        raise UsageError(
            f"--side-by-side {side_by_side}, --workers {each}: this cluster has room for {room} workers in all; leave "
            "out --side-by-side"
        )
    together = place(each * side_by_side, spec.device, resources, cpu_workers=1)
    return replace(together, workers=each), side_by_side


def _train_folds(train_one: Callable[[int], str | None], spec: CrossvalSpec, side_by_side: int, noun: str) -> None:
    """Train all folds, some at a time; one that fails does not stop the others.

    Raises:
        HistoError: If one has failed.
    """
    names = {f"fold {fold}": spec.out / f"fold_{fold}" for fold in range(spec.folds)}
    pool = ThreadPoolExecutor(side_by_side)
    try:
        with interruptible(spec.out, GOES_ON), Watcher(names, spec.most_epochs, noun):
            failures = [found for found in pool.map(train_one, range(spec.folds)) if found is not None]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failures:
        raise HistoError(f"{'; '.join(failures)}. Finished folds are kept; with the cause gone, --resume goes on")


def _train_fold(
    spec: CrossvalSpec, folds: Sequence[TrainingData], network: Network, placement: Placement, fold: int
) -> str | None:
    """Train one fold, unless it is finished; returns why it failed, if it did."""
    own = spec.of_fold(fold, placement.workers)
    history = History(own.out)
    try:
        earlier = earlier_record(own, "train", has_begun=bool(history.last))
        if earlier is None or earlier["exit_code"] != 0:
            check_history(own.out, history)
            bundle = describe_bundle(own, folds[fold], network)
            with RunFolder(own.out, "train", WRITTEN, resume="--resume goes on") as folder:
                run_training(folder, own, folds[fold], bundle, placement, earlier)
    except HistoError as error:
        return f"fold {fold}: {error}"
    except Exception as error:  # noqa: BLE001 -- whatever befalls one fold must not end the others
        traceback.print_exc()
        return f"fold {fold}: {type(error).__name__}: {error}"
    return None


def _pool(spec: CrossvalSpec, data: FoldedData) -> dict[str, Any]:
    """Put the predictions of all folds together, each case by the run that did not see it, and score them."""
    places = [i for i, fold in enumerate(data.folds) if fold is not None]
    source = data.source.select(places)
    fold_N = np.array([data.folds[i] for i in places])
    row_of = {case.case_id: row for row, case in enumerate(source.cases)}
    probabilities_NK = np.full((len(places), len(source.classes)), np.nan, np.float32)
    temperatures_N = np.ones(len(places))
    scores = []
    for fold in range(spec.folds):
        run = spec.out / f"fold_{fold}"
        table, own_scores = _read_scored(run)
        rows = [row_of[case_id] for case_id in table["case_id"].to_pylist()]
        assert sorted(rows) == np.flatnonzero(fold_N == fold).tolist(), "a fold's run predicts its cases, and no others"
        probabilities_NK[rows] = np.stack([table[f"prob_{name}"].to_numpy() for name in source.classes], axis=1)
        temperatures_N[rows] = read_bundle(held(run / "model")).temperature
        scores.append(own_scores)
    predictions = Predictions(
        cases=source.cases,
        classes=source.classes,
        truth_N=source.labels(),
        probabilities_NK=probabilities_NK,
        temperatures_N=temperatures_N,
        fold_N=fold_N,
    )
    seen = sum(fold["seen_in_training"] for fold in scores)
    more = {"folds": _fold_lines(scores), "over_folds": spread(scores), "seen_in_training": seen}
    return write_evaluation(spec.out, predictions, source.images, RESAMPLES, spec.seed, more, scores)


def _read_scored(run: AnyPath) -> tuple[pa.Table, dict[str, Any]]:
    """Read what a fold's run predicted, and its scores.

    Raises:
        HistoError: If they cannot be read.
    """
    try:
        scores: dict[str, Any] = json.loads(store.read_document(run / "test" / "metrics.json"))
        return open_table(run / "test" / "predictions.parquet").read(), scores
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise HistoError(
            f"{run / 'test'}: cannot be read ({reason}); remove {run}, and --resume trains this fold again"
        ) from None


def _fold_lines(scores: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the scores of each fold that are single numbers, and their intervals."""
    return [
        {"fold": fold}
        | {name: value for name, value in each.items() if isinstance(value, int | float)}
        | {"intervals": each["intervals"]}
        for fold, each in enumerate(scores)
    ]
