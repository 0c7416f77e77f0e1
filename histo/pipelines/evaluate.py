"""Evaluate: sources -> probabilities -> metrics, for a bundle that exists."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import ray.exceptions
from pydantic import Field

from histo import store, tables
from histo.errors import HistoError, UsageError
from histo.learn.bundle import Bundle, find_bundle, read_bundle
from histo.learn.metrics import score
from histo.learn.source import Source, read_sources
from histo.learn.survey import check_broken, survey
from histo.pipelines.cluster import Device, Placement, check_shared, place, root_cause, session
from histo.pipelines.record import RunRecord, claim_output
from histo.resample import resize
from histo.spec import AbsolutePath, AbsolutePaths, Spec


class EvaluateSpec(Spec):
    """Measure a bundle on labelled tiles: accuracy, counts per class, confusion matrix. Nothing is trained."""

    model: AbsolutePath
    """Model bundle (a folder), or a training run, of which the best bundle is taken."""
    epoch: int | None = Field(None, ge=1)
    """Which epoch of the training run in --model; default: its best."""
    data: AbsolutePaths
    """Labelled tiles: folders of class folders, .npz files, .csv or .parquet manifests, tile tables; one or several.
    Of a source with several parts, the test part."""
    out: AbsolutePath
    """Folder of the results; must not hold a run yet."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    batch_size: int = Field(32, ge=1)
    """Images per forward pass."""
    max_broken: float = Field(0.01, ge=0, le=1)
    """Share of images (0 to 1) that may be unusable; they are left out and listed."""


def evaluate(spec: EvaluateSpec) -> int:
    """Run an evaluation job; returns the exit code.

    Raises:
        HistoError: If the data or the settings are bad.
    """
    model = find_bundle(spec.model, spec.epoch)
    bundle = read_bundle(model)
    if (spec.out / "metrics.json").exists():
        raise UsageError(f"--out {spec.out}: already holds a run; give another folder, or remove this one")
    listed = _test_part(read_sources(spec.data, numbers=bundle.classes))
    class_numbers(listed, bundle)
    claim_output(spec.out)
    found = survey(listed)
    for line in check_broken(found, spec.max_broken):
        print(line)
    source = listed.select(found.usable())
    with session(workers=None) as resources:
        placement = place(1, spec.device, resources, cpu_workers=1)
        check_shared(spec.out, *spec.data, model)
        facts: dict[str, Any] = {
            "placement": asdict(placement),
            "data_fingerprint": found.fingerprint(listed),
            "broken": [error for error in found.errors if error is not None],
            "model": str(model),
        }
        with RunRecord(spec.out, "evaluate", spec, **facts) as record:
            metrics = evaluate_cases(model, source, spec.out, placement, spec.batch_size)
            record.finish(0, accuracy=metrics["accuracy"])
    print(format_confusion(metrics["confusion_matrix"], bundle.classes))
    print(f"accuracy {metrics['accuracy']:.4f} on {metrics['n']} images; tables: {spec.out}", flush=True)
    return 0


def evaluate_cases(model: Path, source: Source, out: Path, placement: Placement, batch_size: int) -> dict[str, Any]:
    """Classify all cases of a source in a Ray task, and write `predictions.parquet` and `metrics.json`.

    Args:
        model: The bundle.
        source: Usable cases, at least one.
        out: Folder that the results are written to.
        placement: What the task gets.
        batch_size: Images per forward pass.

    Returns:
        The content of `metrics.json`.

    Raises:
        UsageError: If a case is of a class that the bundle does not know.
        HistoError: If the task fails.
    """
    bundle = read_bundle(model)
    truth = class_numbers(source, bundle)
    probabilities = _predict_in_ray(model, source, placement, batch_size)
    pred = probabilities.argmax(axis=1)
    metrics = score(truth, pred, bundle.classes) | _score_each_source(source, truth == pred)
    _write_predictions(out, bundle, source, truth, probabilities)
    store.put_json(out / "metrics.json", metrics)
    return metrics


def class_numbers(source: Source, bundle: Bundle) -> npt.NDArray[np.int64]:
    """Return the labels of a source as indices into the bundle's classes.

    Raises:
        UsageError: If a case is of another class.
    """
    strangers = sorted({source.classes[case.label] for case in source.cases} - set(bundle.classes))
    if strangers:
        raise UsageError(
            f"{', '.join(source.names)}: class {strangers[0]} is not one of the bundle's classes: "
            f"{', '.join(bundle.classes)}"
        )
    return np.array([bundle.classes.index(source.classes[case.label]) for case in source.cases], np.int64)


def _test_part(source: Source) -> Source:
    """Keep of each source the cases that it sets apart for testing, if it does."""
    with_test = {case.source for case in source.cases if case.split == "test"}
    return source.select([i for i, c in enumerate(source.cases) if c.split == "test" or c.source not in with_test])


def _score_each_source(source: Source, correct: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return `per_source` counts and accuracies where there are several sources."""
    if len(source.names) == 1:
        return {}
    origins = np.array([case.source for case in source.cases])
    parts = {name: correct[origins == name] for name in source.names}
    scores = {name: {"n": len(part), "accuracy": float(part.mean())} for name, part in parts.items() if len(part)}
    return {"per_source": scores}


def _predict_in_ray(model: Path, source: Source, placement: Placement, batch_size: int) -> npt.NDArray[np.float32]:
    task = ray.remote(num_cpus=placement.cpus, num_gpus=placement.gpus, max_retries=1)(predict_source)
    try:
        result: npt.NDArray[np.float32] = ray.get(task.remote(model, ray.put(source), placement, batch_size))
    except ray.exceptions.RayError as error:
        raise HistoError(f"{model}: evaluation failed: {root_cause(error)}") from error
    return result


def predict_source(model: Path, source: Source, placement: Placement, batch_size: int) -> npt.NDArray[np.float32]:
    """Classify every image of a source; probabilities `(n, classes)`."""
    import torch  # noqa: PLC0415 -- the driver does not need it

    from histo.learn.predict import Predictor  # noqa: PLC0415 -- likewise

    torch.set_num_threads(placement.cpus)
    predict = Predictor(model, placement.torch_device, batch_size)
    size = predict.bundle.input.size_px
    batches = [
        predict(np.stack([resize(source.images.load(i), size) for i in range(start, stop)]))
        for start, stop in _ranges(len(source.cases), batch_size)
    ]
    return np.concatenate(batches)


def _ranges(count: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def _write_predictions(
    out: Path,
    bundle: Bundle,
    source: Source,
    truth: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
) -> None:
    rows = [
        {
            "case_id": case.case_id,
            "source": case.source,
            "truth": bundle.classes[true],
            "label": bundle.classes[int(row.argmax())],
            "pred": int(row.argmax()),
            "confidence": float(row.max()),
            **{f"prob_{name}": float(value) for name, value in zip(bundle.classes, row, strict=True)},
        }
        for case, true, row in zip(source.cases, truth.tolist(), probabilities, strict=True)
    ]
    layout = tables.schema(tables.PREDICTIONS, bundle.classes)
    tables.write_table(out / "predictions.parquet", tables.rows_table(rows, layout))


def format_confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Lay a confusion matrix out as text: a row for each true class, a column for each predicted one.

    Examples:
        >>> print(format_confusion([[3, 1], [0, 4]], ["STR", "TUM"]))
        truth  n  STR  TUM  correct
        STR    4    3    1    75.0%
        TUM    4    0    4   100.0%
    """
    rows = [["truth", "n", *classes, "correct"]]
    for i, (name, counts) in enumerate(zip(classes, matrix, strict=True)):
        total = sum(counts)
        rows.append([name, str(total), *map(str, counts), f"{counts[i] / total:.1%}" if total else "-"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
