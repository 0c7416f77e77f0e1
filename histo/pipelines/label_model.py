"""The bundle of a label job: its form for CPUs, and how far the precision that is asked for agrees with float32."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.exceptions

from histo.errors import HistoError
from histo.learn.converted import FOLDER, InferencePrecision, read_conversion, require_precision
from histo.pipelines.cluster import root_cause
from histo.pipelines.say import say

if TYPE_CHECKING:
    from histo.learn.conversion import Form


def converted_form(model: Path, out: Path) -> Path | None:
    """Return where the bundle's form for CPUs is; it is made where there is none, once, by a task that loads torch.

    Args:
        model: The bundle.
        out: Output folder, where the form is put if the bundle cannot be written.

    Raises:
        HistoError: If the task fails.
    """
    place = model / FOLDER
    if read_conversion(place, model) is not None:
        return place
    say(f"{model}: converting the network for CPUs, once")
    try:
        form = ray.get(ray.remote(num_cpus=0)(_convert).remote(model, out / "staging"))
    except ray.exceptions.RayError as error:
        raise HistoError(f"{model}: cannot be converted: {root_cause(error)}") from error
    if form.folder is None:
        say(f"{form.trouble}; it runs in torch, which takes longer")
    return form.folder


def _convert(model: Path, fallback: Path) -> "Form":
    from histo.learn.conversion import ensure_converted  # noqa: PLC0415 -- the driver must not load torch

    return ensure_converted(model, fallback)


def agreement(model: Path, precision: InferencePrecision) -> dict[str, Any] | None:
    """Return how far a precision agrees with float32; None for float32 itself.

    Raises:
        UsageError: If that is unknown, or not far enough.
    """
    if precision == "float32":
        return None
    conversion = read_conversion(model / FOLDER, model)
    require_precision(precision, conversion, model)
    assert conversion is not None, "it has been measured"
    assert conversion.bf16 is not None, "it has been measured"
    return conversion.bf16.model_dump()
