"""The settings of a job that prepares volumes."""

from typing import ClassVar, Literal

from pydantic import Field

from histo.spec.base import AbsolutePath, Spec
from histo.volumes.spec import PatientIs, PreparationSpec


class PrepareVolumesSpec(Spec):
    """Make one volume of a fixed shape of every study (MRI or CT) in a folder, from which training reads them fast."""

    COMMON: ClassVar[frozenset[str]] = frozenset(
        (
            *("workers", "study_is", "patient_is", "classes", "retry_failed"),
            *("preparation.series", "preparation.series_count", "preparation.slices", "preparation.size_px"),
            "preparation.intensity",
        )
    )

    studies: AbsolutePath
    """Folder of studies, searched in depth, or a manifest (.csv or .parquet)."""
    out: AbsolutePath
    """Folder of the results; what is finished there is not done again."""
    workers: int | None = Field(default=None, ge=1)
    """Studies that are prepared at the same time; default: one for each CPU."""
    study_is: Literal["folder", "file"] = "folder"
    """Unit that is a study: a folder that holds images, or every NIfTI file."""
    patient_is: PatientIs = "files"
    """Source of a patient's name: the files (DICOM's PatientID), and folders where they have none; or folders alone."""
    classes: list[str] | None = None
    """Class names: the folders that are classes; default: the first folder of each path, if there is one."""
    retry_failed: bool = False
    """Prepare failed studies again, also where that was the study's own fault."""
    read_timeout_s: float = Field(default=300.0, gt=0, le=86_400)
    """Seconds that preparing one study may take, after which its worker is ended, and the study is tried alone."""
    preparation: PreparationSpec = PreparationSpec()
