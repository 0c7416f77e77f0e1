"""Prepare this process for a job: its Ray, and the folders that it imports from."""

import logging
import os
import warnings
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
    """Set what Ray reads from the environment, where it is not set, and import from installed packages alone.

    In a notebook Ray and tqdm ask for widgets, which histo has no use for.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
    with own_path(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield
