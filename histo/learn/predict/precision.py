"""Admit a precision only if its agreement with float32 is measured and high."""

from pathlib import Path
from typing import Any

from histo.errors import UsageError
from histo.learn.network.spec import InferencePrecision
from histo.learn.openvino.record import (
    FOLDER,
    LEAST_SAME_CLASS,
    LEAST_TILES,
    MOST_MEAN_DIFFERENCE,
    Conversion,
    read_conversion,
)


def require_precision(precision: InferencePrecision, conversion: Conversion | None, bundle: Path) -> None:
    """Make sure that a bundle may be run in a precision.

    Args:
        precision: What is asked for; float32 always may.
        conversion: Of the bundle's converted form, which holds what was measured.
        bundle: The bundle, for messages.

    Raises:
        UsageError: If the agreement with float32 was not measured, or is too low.
    """
    if precision == "float32":
        return
    asked = f"--precision {precision}: {bundle}"
    measured = conversion.bf16 if conversion else None
    if measured is None:
        raise UsageError(
            f"{asked}: its agreement with float32 was not measured; use float32, or measure it with "
            f"`histo convert --model {bundle} --data LABELLED_IMAGES`{_where()}"
        )
    if not measured.enough:
        raise UsageError(
            f"{asked}: agrees too little with float32: {measured}; needed are {LEAST_SAME_CLASS:.0%} of at least "
            f"{LEAST_TILES} cases, and {MOST_MEAN_DIFFERENCE} on average; use float32, or measure more cases with "
            f"`histo convert`{_where()}"
        )


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


def _where() -> str:
    """Say where bfloat16 can be measured, unless that is here."""
    from histo.learn.openvino.core import has_bf16  # noqa: PLC0415 -- loads OpenVINO

    return "" if has_bf16() else " on another machine, since this CPU has no bfloat16 arithmetic"
