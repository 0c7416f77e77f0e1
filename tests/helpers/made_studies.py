"""Studies of three small series whose voxels are known, and runs over them in a plain loop, without Ray."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa

from helpers.plain_loop import rows_of
from histo.pipelines.studies.ledger import FILE, StudyLedger
from histo.pipelines.studies.lookup import find_study_todo
from histo.pipelines.studies.worker import JobT, StudyWorker
from histo.volumes.finding.studies import FoundStudy

SERIES = ("adc", "flair", "t1")
SLICES, EDGE = 6, 24


def write_study(folder: Path, seed: int = 0, series: Sequence[str] = SERIES, bright: int = 0) -> Path:
    """Write a study of NIfTI files: noise, and in its middle a block that is brighter by `bright`."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name in series:
        voxels = random.integers(0, 1000, (EDGE, EDGE, SLICES), np.int16)
        voxels[8:16, 8:16, 2:4] += np.int16(bright)
        image = nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 5.0, 1.0]))  # type: ignore[no-untyped-call] # nibabel's
        nib.save(image, folder / f"{name}.nii.gz")
    return folder


def settle(
    worker: StudyWorker[JobT],
    job: JobT,
    layout: pa.Schema,
    studies: Sequence[FoundStudy],
    put_in_order: Callable[[Any, StudyLedger], None] | None = None,
    retry_failed: bool = False,
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Do what a driver does; returns the rows of the ledger by study, and what the studies were found to be."""
    ledger = StudyLedger(job, layout, studies)
    todo = find_study_todo(job, studies, ledger, retry_failed)
    for study, row in todo.tasks:
        ledger.begin(study.study_id)
        ledger.settle(study.study_id, worker(study, row).columns)
    if put_in_order is not None:
        put_in_order(job.out, ledger)
    ledger.write(force=True)
    return {row["study_id"]: row for row in rows_of(job.out / FILE)}, dict(todo.states)
