"""Prepare this process for a job: its Ray, and the folders that it imports from."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from histo.own_path import own_path

_SETTINGS = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # what a thread of Ray's still does later joins no other Ray
}
"""Ray reads these when it is imported."""


@contextmanager
def job_environment() -> Iterator[None]:
    """Set what Ray reads from the environment, where it is not set, and import from installed packages alone."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    with own_path():
        yield
