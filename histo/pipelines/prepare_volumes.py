"""Command `prepare volumes`: prepare MRI or CT studies."""

from histo.pipelines.studies.prepare import prepare_studies
from histo.pipelines.studies.prepare_spec import PrepareVolumesSpec

__all__ = ["PrepareVolumesSpec", "prepare_volumes"]


def prepare_volumes(spec: PrepareVolumesSpec) -> int:
    """Run a job that prepares volumes, or resume one; returns 0, or 3 if some studies are failed.

    Raises:
        HistoError: If the settings are bad, or the run cannot go on.
    """
    return prepare_studies(spec)
