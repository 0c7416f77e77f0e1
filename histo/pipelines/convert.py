"""Command `convert`: convert a bundle for OpenVINO."""

from histo.pipelines.conversion.job import convert_run
from histo.pipelines.conversion.spec import ConvertSpec

__all__ = ["ConvertSpec", "convert"]


def convert(spec: ConvertSpec) -> int:
    """Run a conversion job; returns the exit code.

    Raises:
        HistoError: If the bundle or the data are bad, the network cannot be converted, or the bundle not be written.
    """
    return convert_run(spec)
