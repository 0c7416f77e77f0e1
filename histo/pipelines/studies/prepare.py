"""Prepare volumes: one file and contact sheet per study, and a manifest."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from histo import store, tables
from histo.errors import ImageError
from histo.pipelines.studies.driver import check_apart, describe_found, finish, settle_studies
from histo.pipelines.studies.ledger import StudyLedger
from histo.pipelines.studies.lookup import find_study_todo
from histo.pipelines.studies.prepare_spec import PrepareVolumesSpec
from histo.pipelines.studies.volume_paths import (
    FOLDERS,
    arrange,
    check_places,
    count_classes,
    sheet_place,
    volume_place,
    write_manifest,
)
from histo.pipelines.studies.worker import StudyJob, StudyWorker
from histo.report.contact_sheet import draw_contact_sheet
from histo.run.cluster import describe, placed
from histo.run.placement import one_each
from histo.run.record import collection_facts, past_record, versions
from histo.run.report import report
from histo.run.run_folder import RunFolder
from histo.run.say import say
from histo.tables import Row
from histo.volume_file import read_header, write_volume
from histo.volumes.finding.patients import check_patients, describe_patients
from histo.volumes.finding.studies import FoundStudy, find_studies
from histo.volumes.preparation import ALGORITHM, Prepared


@dataclass(frozen=True)
class PrepareJob(StudyJob):
    """What is the same for every study that is prepared."""

    out: Path

    def settings(self) -> dict[str, Any]:
        """See `StudyJob.settings`: there are no others than those of the preparation."""
        return {}

    def describe(self, study: FoundStudy) -> Row:
        """See `StudyJob.describe`."""
        return super().describe(study) | {"label": study.label, "group": study.group, "split": study.split}

    def has_result(self, row: Row) -> bool:
        """See `StudyJob.has_result`."""
        facts = _facts(self.out, row["volume_path"])
        return bool(facts.get("fingerprint") == row["fingerprint"]) and (self.out / row["sheet_path"]).exists()


def _facts(out: Path, volume_path: str | None) -> dict[str, Any]:
    """Return what the file of a volume says of it: nothing, if there is none."""
    try:
        return read_header(out / volume_path)[1] if volume_path else {}
    except ImageError:
        return {}


def _prepare_alone(job: PrepareJob, study: FoundStudy, row: Row) -> Row:
    return StudyPreparer(job).work(study, row)


class StudyPreparer(StudyWorker[PrepareJob]):
    """Writes the volume of a study, and its contact sheet."""

    def alone(self) -> Callable[..., Row]:
        """See `StudyWorker.alone`."""
        return _prepare_alone

    def earlier_result(self, study: FoundStudy, row: Row, fingerprint: str) -> Row | None:
        """See `StudyWorker.earlier_result`: a volume bears its fingerprint, and its columns of the ledger."""
        out, sheet_path = self._job.out, sheet_place(study.study_id)
        for volume_path in (row.get("volume_path"), volume_place(study.study_id, study.label)):
            facts = _facts(out, volume_path)
            if facts.get("fingerprint") == fingerprint and (out / sheet_path).exists():
                columns: Row = facts["study"]
                return columns | {"volume_path": volume_path, "sheet_path": sheet_path}
        return None

    def process(self, study: FoundStudy, prepared: Prepared, fingerprint: str) -> Row:
        """See `StudyWorker.process`: the volume is written last, since it alone says that a study is done."""
        places = {
            "volume_path": volume_place(study.study_id, study.label),
            "sheet_path": sheet_place(study.study_id),
        }
        sheet = self._job.out / places["sheet_path"]
        draw_contact_sheet(prepared.volume_SDHW, prepared.columns["series"], study.study_id, sheet)
        facts = prepared.facts | {"fingerprint": fingerprint, "study": prepared.columns}
        with store.put_atomic(self._job.out / places["volume_path"]) as file:
            write_volume(file, prepared.volume_SDHW, prepared.spacing_mm, facts)
        return places


def prepare_studies(spec: PrepareVolumesSpec) -> int:
    """Prepare studies, or resume a run that does; returns 0, or 3 if some studies are failed.

    Raises:
        HistoError: If the settings are bad, or the run cannot go on.
    """
    check_apart(spec.out, spec.studies)
    series = spec.preparation.series
    found = find_studies(spec.studies, spec.study_is, spec.classes, "--studies", series, spec.patient_is)
    groups = [study.group or "" for study in found.studies]
    check_patients(f"--studies {spec.studies}", found.named, groups, spec.patient_is)
    check_places(f"--studies {spec.studies}", [(study.study_id, study.label) for study in found.studies])
    job = PrepareJob(spec.out, spec.read_timeout_s, spec.preparation)
    with RunFolder(spec.out, "prepare volumes", FOLDERS) as folder:
        ledger = StudyLedger(job, prepared_layout(job), found.studies)
        todo = find_study_todo(job, found.studies, ledger, spec.retry_failed)
        say(f"{describe_found(found)}: {todo.describe('prepare', 'settings')}")
        say(describe_patients(found.named, groups, spec.patient_is))
        facts = collection_facts(found.others, found.linked, todo.states)
        choose = partial(one_each, spec.workers, "cpu")
        with (
            placed(bool(todo.tasks), spec.workers, choose, spec.out, spec.studies) as placement,
            folder.record(spec, past_record(spec.out), **facts, **describe(placement)) as record,
        ):
            if placement is not None:
                settle_studies(StudyPreparer, (job,), todo, ledger, placement)
            put_in_order(spec.out, ledger)
            code = finish(record, found, ledger, spec.out)
    report(ledger, spec.out, "volumes", code)
    say(count_classes(ledger.present()))
    return code


def prepared_layout(job: PrepareJob) -> pa.Schema:
    """Describe the ledger: the columns, and in the footer what made the volumes."""
    footer = {
        "schema_version": str(tables.SCHEMA_VERSION),
        "preparation": json.dumps(job.preparation.model_dump(mode="json") | {"algorithm": ALGORITHM}),
        "versions": json.dumps(versions()),
    }
    return tables.schema(tables.PREPARED_STUDIES, metadata=footer)


def put_in_order(out: Path, ledger: StudyLedger) -> None:
    """Leave each volume in its place, none that is not to be used, and a manifest of those that have a class."""
    fingerprints = {row["fingerprint"] for row in ledger.present() if row["status"] == "ok"}
    renamed = [row for row in ledger.absent.values() if row["fingerprint"] in fingerprints]
    for row in renamed:
        for name in ("volume_path", "sheet_path"):
            store.remove(out / row[name])
        ledger.drop(row["study_id"])
    for row in arrange(out, ledger.present()):
        ledger.put(row)
    write_manifest(out, ledger.present())
