"""Label a folder of studies: collection -> study -> volume -> probabilities -> one row of the ledger."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from histo import store, tables
from histo.errors import HistoError, UsageError
from histo.learn.bundle import MODEL_JSON, Bundle, VolumeInput, bundle_hash, described
from histo.learn.converted import InferencePrecision
from histo.learn.predictor import load_predictor
from histo.pipelines.cluster import describe
from histo.pipelines.label_model import agreement, converted_form
from histo.pipelines.label_spec import LabelSpec
from histo.pipelines.record import RunRecord, is_begun, past_record, versions
from histo.pipelines.say import say
from histo.pipelines.study_ledger import FILE, StudyLedger, find_study_work, study_rows_file
from histo.pipelines.study_run import check_apart, claimed, describe_found, finish, placed, report, settle_studies
from histo.pipelines.study_work import StudyJob, StudyWorker
from histo.pipelines.work import Row
from histo.volumes.preparation import ALGORITHM, PreparationSpec, Prepared
from histo.volumes.studies import FoundStudy, find_studies

COMMAND = "label studies"


@dataclass(frozen=True)
class LabelStudiesJob(StudyJob):
    """What is the same for every study that is labelled.

    Attributes:
        model: Bundle folder.
        model_hash: sha256 of the bundle, its document and its weights.
        classes: Names, in order.
        precision: Arithmetic of the network.
        device: What torch calls the device.
        threads: CPU threads of a worker.
        converted: Where the bundle's form for the CPU stands, if there is one.
    """

    preparation_is_fixed: ClassVar[bool] = True

    model: Path
    model_hash: str
    classes: tuple[str, ...]
    precision: InferencePrecision
    device: str = "cpu"
    threads: int = 1
    converted: Path | None = None

    def settings(self) -> dict[str, Any]:
        """See `StudyJob.settings`."""
        return {"model": self.model_hash, "precision": self.precision}

    def has_result(self, row: Row) -> bool:
        """See `StudyJob.has_result`: the row is the result."""
        return row.get("pred") is not None


def _label_alone(job: LabelStudiesJob, study: FoundStudy, row: Row) -> Row:
    return StudyLabeler(job).work(study, row)


class StudyLabeler(StudyWorker[LabelStudiesJob]):
    """Classifies studies."""

    def __init__(self, job: LabelStudiesJob) -> None:
        super().__init__(job)
        self._predict = load_predictor(job.model, job.device, job.threads, 1, job.precision, job.converted)
        if bundle_hash(job.model) != job.model_hash:
            raise HistoError(f"{job.model}: the bundle was changed while the run went on; label again")

    def alone(self) -> Callable[[LabelStudiesJob, FoundStudy, Row], Row]:
        """See `StudyWorker.alone`."""
        return _label_alone

    def known(self, study: FoundStudy, row: Row, fingerprint: str) -> Row | None:  # noqa: ARG002 -- the row knows it
        """See `StudyWorker.known`: files that were only touched keep their result."""
        same = row.get("fingerprint") == fingerprint and self._job.has_result(row)
        return {name: value for name, value in row.items() if name != "attempts"} if same else None

    def use(self, study: FoundStudy, prepared: Prepared, fingerprint: str) -> Row:  # noqa: ARG002 -- of a whole study
        """See `StudyWorker.use`."""
        bundle = self._predict.bundle
        array = bundle.input.layout.fit(prepared.volume_SDHW, bundle.input.size_px)
        return prediction(self._predict(array[None])[0], bundle.classes)


def prediction(probabilities_K: npt.NDArray[np.float32], classes: tuple[str, ...]) -> Row:
    """Return the columns of a study that its class probabilities give."""
    pred = int(probabilities_K.argmax())
    logs_K = np.log(np.maximum(probabilities_K, np.finfo(np.float32).tiny))
    return {
        "pred": pred,
        "label": classes[pred],
        "confidence": float(probabilities_K[pred]),
        "entropy": float(-(probabilities_K * logs_K).sum()),
        **{f"prob_{name}": float(value) for name, value in zip(classes, probabilities_K, strict=True)},
    }


def label_studies(spec: LabelSpec, bundle: Bundle) -> int:
    """Run a job that labels studies, or go on with one; returns 0, or 3 if some studies are failed.

    Raises:
        HistoError: If the settings are bad, or the run cannot go on.
    """
    assert spec.studies is not None, "it is what is to be labelled"
    job = _job(spec, bundle)
    layout = labelled_layout(job, agreement(spec.model, spec.precision))
    check_apart(spec.out, spec.studies)
    found = find_studies(spec.studies, spec.study_is, flag="--studies", series=job.preparation.series)
    with claimed(spec.out, COMMAND):
        fresh = spec.overwrite and not is_begun(spec.out, spec)
        if not fresh:
            _check_classes(spec.out, bundle)
        ledger = StudyLedger(job, layout, found.studies, fresh)
        todo = find_study_work(job, found.studies, ledger, spec.retry_failed)
        say(f"{describe_found(found)}: {todo.describe('label')}")
        earlier = None if fresh else past_record(spec.out)
        facts: dict[str, Any] = {
            "other_files": found.others,
            "linked_folders": found.linked,
            "found": dict(todo.states),
            "earlier": earlier,
        }
        with placed(todo, spec.workers, spec.device, spec.out, spec.studies, spec.model) as placement:
            where = {} if placement is None else describe(placement)
            if fresh:
                store.remove(spec.out / FILE)
            with RunRecord(spec.out, COMMAND, spec, **facts, **where) as run:
                if placement is not None:
                    job = replace(job, device=placement.torch_device, threads=placement.cpus)
                    if job.device == "cpu":
                        job = replace(job, converted=converted_form(job.model, job.out))
                    settle_studies(StudyLabeler, job, todo, ledger, placement)
                code = finish(run, found, ledger, spec.out)
    report(ledger, spec.out, "table")
    return code


def _job(spec: LabelSpec, bundle: Bundle) -> LabelStudiesJob:
    where = f"--model {spec.model}"
    if not isinstance(bundle.input, VolumeInput):
        raise UsageError(f"{where}: classifies tiles; give --slides, or a bundle that classifies studies")
    preparation = bundle.input.preparation
    if preparation is None:
        raise UsageError(
            f"{where}: the bundle does not say how a study becomes a volume; train it on what `histo prepare volumes` "
            "makes"
        )
    if preparation.get("algorithm") != ALGORITHM:
        raise UsageError(
            f"{where}: studies were prepared by algorithm {preparation.get('algorithm')}, this version of histo has "
            f"{ALGORITHM}; prepare and train again, or use the version that {MODEL_JSON} names"
        )
    chosen = {name: value for name, value in preparation.items() if name != "algorithm"}
    with described(f"{where}: {MODEL_JSON}: preparation", "the bundle is damaged or was edited, copy it again"):
        prepared = PreparationSpec.model_validate(chosen)
    if (prepared.channels, prepared.slices) != (bundle.input.series, bundle.input.slices):
        raise UsageError(
            f"{where}: {MODEL_JSON}: preparation makes {prepared.channels} series of {prepared.slices} slices, and "
            f"the network sees {bundle.input.layout}; the bundle is damaged or was edited, copy it again"
        )
    return LabelStudiesJob(
        out=spec.out,
        read_timeout_s=spec.read_timeout_s,
        preparation=prepared,
        model=spec.model,
        model_hash=bundle_hash(spec.model),
        classes=bundle.classes,
        precision=spec.precision,
    )


def labelled_layout(job: LabelStudiesJob, measured: dict[str, Any] | None) -> pa.Schema:
    """Describe the ledger: the columns, and in the footer what made the predictions."""
    footer = {
        "schema_version": str(tables.SCHEMA_VERSION),
        "model_hash": job.model_hash,
        "classes": json.dumps(job.classes),
        "preparation": json.dumps(job.preparation.model_dump(mode="json") | {"algorithm": ALGORITHM}),
        "precision": json.dumps({"precision": job.precision, "agreement": measured}),
        "versions": json.dumps(versions()),
    }
    return tables.schema(tables.LABELLED_STUDIES, job.classes, footer)


def _check_classes(out: Path, bundle: Bundle) -> None:
    """Refuse a folder that holds results of other classes."""
    if (table := study_rows_file(out).read()) is not None:
        before = [name for name in table.schema.names if name.startswith("prob_")]
        if before != [f"prob_{name}" for name in bundle.classes]:
            raise UsageError(
                f"--out {out}: holds results of a bundle with other classes; give another folder, or remove them with "
                "--overwrite"
            )
