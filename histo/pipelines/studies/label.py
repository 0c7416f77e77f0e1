"""Label studies: collection, volumes, probabilities, one row per study."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from histo import store, tables
from histo.errors import HistoError, UsageError
from histo.learn.bundle import MODEL_JSON, Bundle, VolumeInput, bundle_hash, described
from histo.learn.network.spec import InferencePrecision
from histo.learn.predict.load import load_predictor
from histo.learn.predict.precision import agreement
from histo.pipelines.labelling.runtime import Runtime, find_runtime, here
from histo.pipelines.labelling.spec import LabelSpec
from histo.pipelines.studies.driver import check_apart, describe_found, finish, settle_studies
from histo.pipelines.studies.ledger import FILE, StudyLedger, ledger_file
from histo.pipelines.studies.lookup import find_study_todo
from histo.pipelines.studies.worker import StudyJob, StudyWorker
from histo.remote.cache import Cache
from histo.remote.location import AnyPath
from histo.run.cluster import describe, placed
from histo.run.placement import one_each
from histo.run.record import collection_facts, is_begun, past_record, versions
from histo.run.report import report
from histo.run.run_folder import RunFolder
from histo.run.say import say
from histo.tables import Row
from histo.volumes.finding.studies import FoundStudy, find_studies
from histo.volumes.preparation import ALGORITHM, Prepared
from histo.volumes.spec import PreparationSpec

COMMAND = "label studies"


@dataclass(frozen=True)
class LabelStudiesJob(StudyJob):
    """What is the same for every study that is labelled.

    Attributes:
        model: Bundle folder.
        model_hash: sha256 of the bundle, its document and its weights.
        classes: Names, in order.
        precision: Arithmetic of the network.
    """

    preparation_is_fixed: ClassVar[bool] = True

    model: AnyPath
    model_hash: str
    classes: tuple[str, ...]
    precision: InferencePrecision

    def settings(self) -> dict[str, Any]:
        """See `StudyJob.settings`."""
        return {"model": self.model_hash, "precision": self.precision}

    def has_result(self, row: Row) -> bool:
        """See `StudyJob.has_result`: the row is the result."""
        return row.get("pred") is not None


def _label_alone(job: LabelStudiesJob, runtime: Runtime, study: FoundStudy, row: Row) -> Row:
    return StudyLabeler(job, runtime).work(study, row)


class StudyLabeler(StudyWorker[LabelStudiesJob]):
    """Classifies studies."""

    def __init__(self, job: LabelStudiesJob, runtime: Runtime = Runtime()) -> None:  # noqa: B008 -- frozen
        super().__init__(job, (runtime,))
        self._copies = ExitStack()
        model, openvino = here(self._copies, Cache(), job.model, runtime)
        self._predict = load_predictor(model, runtime.device, runtime.threads, 1, job.precision, openvino)
        if bundle_hash(model) != job.model_hash:
            raise HistoError(f"{job.model}: the bundle was changed while the run went on; label again")

    def alone(self) -> Callable[..., Row]:
        """See `StudyWorker.alone`."""
        return _label_alone

    def earlier_result(self, study: FoundStudy, row: Row, fingerprint: str) -> Row | None:  # noqa: ARG002 -- the row knows it
        """See `StudyWorker.earlier_result`: files that were only touched keep their result."""
        same = row.get("fingerprint") == fingerprint and self._job.has_result(row)
        return {name: value for name, value in row.items() if name != "attempts"} if same else None

    def process(self, study: FoundStudy, prepared: Prepared, fingerprint: str) -> Row:  # noqa: ARG002 -- of a whole study
        """See `StudyWorker.process`."""
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


def label_studies(spec: LabelSpec, studies: Path, model: AnyPath, copy: Path, bundle: Bundle) -> int:
    """Label studies, or resume a run that does; returns 0, or 3 if some studies are failed.

    Args:
        spec: The settings.
        studies: Folder of the studies, or a manifest.
        model: Folder of the bundle.
        copy: The same on this node, if it is in object storage.
        bundle: What its document says.

    Raises:
        HistoError: If the settings are bad, or the run cannot go on.
    """
    job = _job(spec, model, copy, bundle)
    layout = labelled_layout(job, agreement(copy, spec.precision))
    check_apart(spec.out, studies)
    found = find_studies(studies, spec.study_is, flag="--studies", series=job.preparation.series)
    with RunFolder(spec.out, COMMAND) as folder:
        fresh = spec.overwrite and not is_begun(spec.out, spec)
        if not fresh:
            ledger_file(spec.out).check_classes("prob_", bundle.classes)
        ledger = StudyLedger(job, layout, found.studies, fresh)
        todo = find_study_todo(job, found.studies, ledger, spec.retry_failed)
        say(f"{describe_found(found)}: {todo.describe('label', 'model or settings')}")
        facts = collection_facts(found.others, found.linked, todo.states)
        earlier = None if fresh else past_record(spec.out)
        choose = partial(one_each, spec.workers, spec.device)
        with placed(bool(todo.tasks), spec.workers, choose, spec.out, studies, model) as placement:
            if fresh:
                store.remove(spec.out / FILE)
            with folder.record(spec, earlier, model=str(model), **facts, **describe(placement)) as record:
                if placement is not None:
                    runtime = find_runtime(model, spec.out, placement, copy)
                    settle_studies(StudyLabeler, (job, runtime), todo, ledger, placement)
                code = finish(record, found, ledger, spec.out)
    report(ledger, spec.out, "table", code)
    return code


def _job(spec: LabelSpec, model: AnyPath, copy: Path, bundle: Bundle) -> LabelStudiesJob:
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
        model=model,
        model_hash=bundle_hash(copy),
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
