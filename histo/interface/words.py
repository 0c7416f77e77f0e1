"""Errors in Python's words: settings are named as keyword arguments, not as flags."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from histo.errors import HistoError

_FLAG = re.compile(r"(?<![\w-])--(?:no-)?([a-z]+(?:[-.][a-z]+)*)")


@contextmanager
def in_python() -> Iterator[None]:
    """Write the flags in messages as the names of settings.

    Examples:
        >>> with in_python():
        ...     raise HistoError("s.svs: no resolution; give one with --mpp-if-missing")
        Traceback (most recent call last):
        histo.errors.HistoError: s.svs: no resolution; give one with mpp_if_missing
    """
    try:
        yield
    except HistoError as error:
        *others, message = error.args
        error.args = (*others, _FLAG.sub(lambda flag: flag[1].replace("-", "_"), str(message)))
        raise
