"""Settings of labelled cases: subset and split. Imports nothing heavy."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from histo.spec.base import Spec

PER_CLASS = {"tiny": 100, "small": 800}
_WHOLE = re.compile(r"[1-9]\d*")
_FRACTION = re.compile(r"\d*\.\d+")


def _checked(text: str) -> str:
    fraction = _FRACTION.fullmatch(text)
    if text not in ("full", *PER_CLASS) and not _WHOLE.fullmatch(text) and not (fraction and 0 < float(text) <= 1):
        raise ValueError("expected full, tiny, small, a fraction such as 0.1, or a number of images such as 500")
    return text


Subset = Annotated[str, BeforeValidator(str), AfterValidator(_checked)]
"""`full`, `tiny`, `small`, a fraction of the images with a decimal point (0.1; at most 1.0), or their number (500)."""


class SplitSpec(Spec):
    """How cases are held out, where the source does not say so itself."""

    val_fraction: float = Field(default=0.2, ge=0, lt=1)
    """Share of the cases for validation (0 to 1), stratified by class; 0 trains on all of them, and keeps the last
    epoch."""
    test_fraction: float = Field(default=0, ge=0, lt=1)
    """Share of the cases for testing (0 to 1), stratified by class."""
    allow_leaks: bool = False
    """Go on though the same image, or one group, is in more than one of training, validation and test."""
