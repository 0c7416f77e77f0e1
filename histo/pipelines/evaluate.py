"""Evaluate: source -> probabilities -> metrics, for a bundle that exists."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import ray
import ray.exceptions
from pydantic import Field

from histo import store, tables
from histo.errors import HistoError, UsageError
from histo.learn.bundle import Bundle, read_bundle
from histo.learn.metrics import score
from histo.learn.source import Source, read_source, survey
from histo.pipelines.cluster import Device, Placement, check_shared, place, root_cause, session
from histo.pipelines.record import RunRecord, claim_output
from histo.resample import resize
from histo.spec import AbsolutePath, Spec


class EvaluateSpec(Spec):
    """Measure a bundle on labelled tiles: accuracy, counts per class, confusion matrix. Nothing is trained."""

    model: AbsolutePath
    """Model bundle (a folder)."""
    data: AbsolutePath
    """Labelled tiles: a folder of class folders, or an .npz file; of one with several parts, the test part."""
    out: AbsolutePath
    """Folder of the results; must not hold a run yet."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    batch_size: int = Field(32, ge=1)
    """Images per forward pass."""


def evaluate(spec: EvaluateSpec) -> int:
    """Run an evaluation job; returns the exit code.

    Raises:
        HistoError: If the data or the settings are bad.
    """
    bundle = read_bundle(spec.model)
    if (spec.out / "metrics.json").exists():
        raise UsageError(f"--out {spec.out}: already holds a run; give another folder, or remove this one")
    source, truth = _labelled(spec, bundle)
    claim_output(spec.out)
    fingerprint = survey(source).fingerprint(source)
    with session(workers=None) as resources:
        placement = place(1, spec.device, resources, cpu_workers=1)
        check_shared(spec.out, spec.data, spec.model)
        facts = {"placement": asdict(placement), "data_fingerprint": fingerprint}
        with RunRecord(spec.out, "evaluate", spec, **facts) as record:
            probabilities = _predict_in_ray(spec, placement)
            _write_predictions(spec, bundle, source, truth, probabilities)
            metrics = score(truth, probabilities.argmax(axis=1), bundle.classes)
            store.put_json(spec.out / "metrics.json", metrics)
            record.finish(0, accuracy=metrics["accuracy"])
    print(format_confusion(metrics["confusion_matrix"], bundle.classes))
    print(f"accuracy {metrics['accuracy']:.4f} on {metrics['n']} images; tables: {spec.out}", flush=True)
    return 0


def _labelled(spec: EvaluateSpec, bundle: Bundle) -> tuple[Source, npt.NDArray[np.int64]]:
    """Read the source's test part, and its labels as indices into the bundle's classes."""
    source = _test_part(_read(spec, bundle))
    strangers = sorted({source.classes[case.label] for case in source.cases} - set(bundle.classes))
    if strangers:
        raise UsageError(
            f"--data {spec.data}: class {strangers[0]} is not one of the bundle's classes: {', '.join(bundle.classes)}"
        )
    return source, np.array([bundle.classes.index(source.classes[case.label]) for case in source.cases], np.int64)


def _read(spec: EvaluateSpec, bundle: Bundle) -> Source:
    """Read a source; labels of an npz file that are numbers mean the bundle's classes in their order."""
    return read_source(spec.data, bundle.classes if spec.data.suffix == ".npz" else None)


def _test_part(source: Source) -> Source:
    """Keep the cases that the source itself sets apart for testing, if it does."""
    members = [i for i, case in enumerate(source.cases) if case.split == "test"]
    return source.select(members) if members else source


def _predict_in_ray(spec: EvaluateSpec, placement: Placement) -> npt.NDArray[np.float32]:
    task = ray.remote(num_cpus=placement.cpus, num_gpus=placement.gpus, max_retries=1)(predict_source)
    try:
        result: npt.NDArray[np.float32] = ray.get(task.remote(spec, placement))
    except ray.exceptions.RayError as error:
        raise HistoError(f"{spec.model}: evaluation failed: {root_cause(error)}") from error
    return result


def predict_source(spec: EvaluateSpec, placement: Placement) -> npt.NDArray[np.float32]:
    """Classify every image of the source's test part; probabilities `(n, classes)`."""
    import torch  # noqa: PLC0415 -- the driver does not need it

    from histo.learn.predict import Predictor  # noqa: PLC0415 -- likewise

    torch.set_num_threads(placement.cpus)
    predict = Predictor(spec.model, placement.torch_device, spec.batch_size)
    source = _test_part(_read(spec, predict.bundle))
    size = predict.bundle.input.size_px
    batches = [
        predict(np.stack([resize(source.images.load(i), size) for i in range(start, stop)]))
        for start, stop in _ranges(len(source.cases), spec.batch_size)
    ]
    return np.concatenate(batches)


def _ranges(count: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def _write_predictions(
    spec: EvaluateSpec,
    bundle: Bundle,
    source: Source,
    truth: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
) -> None:
    rows = [
        {
            "case_id": case.case_id,
            "truth": bundle.classes[true],
            "label": bundle.classes[int(row.argmax())],
            "pred": int(row.argmax()),
            "confidence": float(row.max()),
            **{f"prob_{name}": float(value) for name, value in zip(bundle.classes, row, strict=True)},
        }
        for case, true, row in zip(source.cases, truth.tolist(), probabilities, strict=True)
    ]
    layout = tables.schema(tables.PREDICTIONS, bundle.classes)
    tables.write_table(spec.out / "predictions.parquet", tables.rows_table(rows, layout))


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
