"""Read settings from keyword arguments in Python: names are those of fields."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from histo.errors import UsageError
from histo.spec.base import SpecType
from histo.spec.explain import Wording, explain

_WORDING = Wording(
    place=".".join,
    missing=lambda name: f"{name} is missing",
    cannot_read="is no list; give a list",
)


def from_keywords(spec: type[SpecType], values: Mapping[str, Any]) -> SpecType:
    """Make settings of keyword arguments; one that is None is as if it were not given.

    Raises:
        UsageError: For an unknown name or a wrong value; one line for each.

    Examples:
        >>> from histo.slides.spec import TilingSpec
        >>> from_keywords(TilingSpec, {"stride_px": 112, "mpp": None}).stride_px
        112
        >>> from_keywords(TilingSpec, {"stride": 112})
        Traceback (most recent call last):
        histo.errors.UsageError: stride: unknown field; did you mean stride_px?
        >>> from_keywords(TilingSpec, {"tissue.mpp": 8})
        Traceback (most recent call last):
        histo.errors.UsageError: tissue.mpp: a section is a dictionary: tissue={'mpp': ...}
    """
    for name in values:
        section, _, field = name.partition(".")
        if field:
            raise UsageError(f"{name}: a section is a dictionary: {section}={{{field!r}: ...}}")
    try:
        return spec.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        raise UsageError("\n".join(explain(error, spec, _WORDING))) from None
