"""Entry of Ray Train's workers; it loads torch when it is called.

Ray's controller of the run unpickles the function too, and calls it never.
"""

from typing import Any


def train_in_worker(config: dict[str, Any]) -> None:
    """See `worker.train_worker`."""
    from histo.pipelines.training.worker import train_worker  # noqa: PLC0415 -- the controller does without it

    train_worker(config)
