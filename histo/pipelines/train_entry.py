"""The function that Ray Train calls in each worker of a training run. It loads torch when it is called.

Ray's controller of the run unpickles the function too, and calls it never.
"""

from typing import Any


def train_in_worker(config: dict[str, Any]) -> None:
    """See `train_worker.train_worker`."""
    from histo.pipelines.train_worker import train_worker  # noqa: PLC0415 -- the controller does without it

    train_worker(config)
