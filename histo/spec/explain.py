"""Explain settings that are not valid, a line each: place, value, nearest name."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from histo.spec.base import Spec
from histo.spec.names import field_names, nearest

_MOST_SHOWN = 200
"""Letters of a value in a message."""


@dataclass(frozen=True)
class Wording:
    """Messages of one way to give settings.

    Attributes:
        place: Names the place of a setting, given the parts of its name.
        missing: Says that a setting is missing, given its name.
        cannot_read: Says how a list is given instead.
    """

    place: Callable[[Sequence[str]], str]
    missing: Callable[[str], str]
    cannot_read: str


def explain(error: ValidationError, spec: type[Spec], wording: Wording) -> Iterator[str]:
    """Yield a line for each setting that is not valid."""
    for detail in error.errors():
        names = [str(part) for part in detail["loc"] if not isinstance(part, int)]
        name = ".".join(names)
        where = wording.place(names)
        match detail["type"]:
            case "extra_forbidden":
                yield f"{where}: unknown field{nearest(name, list(field_names(spec)))}"
            case "missing":
                yield wording.missing(name)
            case "list_type" if isinstance(detail["input"], str):
                yield f"{where}: {_shown(detail['input'])}: {wording.cannot_read}"
            case _ if isinstance(detail["input"], dict):
                yield f"{f'{where}: ' if name else ''}{detail['msg'].removeprefix('Value error, ')}"
            case _:
                yield f"{where}: {_shown(detail['input'])}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of so many digits
        return "a number of thousands of digits"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
