"""Find the work of a run, by files, rows of the ledger, and results."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from histo.run.failure import is_transient
from histo.run.ledger import Ledger
from histo.tables import Row

_LOOKS = 16
"""Slides or studies that are looked up at once; on a network file system each look is a wait."""
_AT_REST = ("done", "failed")

ItemT = TypeVar("ItemT")
TaskT = TypeVar("TaskT")


class Lookup(ABC, Generic[ItemT]):
    """Compares slides or studies with what the ledger says of them."""

    @abstractmethod
    def name(self, item: ItemT) -> str:
        """Return the key of the item's row."""

    @abstractmethod
    def is_unchanged(self, item: ItemT, row: Row) -> bool:
        """Whether the files are as the row says."""

    @abstractmethod
    def expected_fingerprint(self, item: ItemT, row: Row) -> str | None:
        """Return what the fingerprint of an unchanged item would be now; None if only opening it can tell."""

    @abstractmethod
    def has_result(self, item: ItemT, row: Row) -> bool:
        """Whether the result of a row that is not failed is in its place."""

    def is_complete(self, item: ItemT, row: Row) -> bool:  # noqa: ARG002 -- for those that ask for more
        """Whether a result that is in its place has everything that this run asks for."""
        return True


@dataclass(frozen=True)
class Todo(Generic[TaskT]):
    """What a run has to do.

    Attributes:
        tasks: One for each slide or study that is to be done.
        states: Number of slides or studies by what they were found to be.
    """

    tasks: tuple[TaskT, ...]
    states: Counter[str]

    def describe(self, verb: str, settings: str) -> str:
        """Say it in one line.

        Args:
            verb: What is done to a slide or study.
            settings: What a result depends on beside the files.
        """
        words = {
            "done": "done before",
            "failed": "failed before, which --retry-failed tries again",
            "new": f"to {verb}",
            "failed_again": f"to {verb} again, since what failed may be mended",
            "files": f"to {verb} anew, since their files changed",
            "settings": f"to {verb} anew, since {settings} changed",
            "result": f"to {verb} again, since their results are not there",
            "more": "to complete by what is asked for now",
            "asked": f"to {verb} again, as asked",
            "verify": "to verify",
        }
        return ", ".join(f"{self.states[state]} {text}" for state, text in words.items() if self.states[state])


def find_todo(
    items: Sequence[ItemT],
    lookup: Lookup[ItemT],
    ledger: Ledger,
    make_task: Callable[[ItemT, Row, bool], TaskT],
    retry_failed: bool,
    verify: bool = False,
) -> Todo[TaskT]:
    """Look at the files, row and result of every slide or study; the ledger expects those that are to be done.

    One is done if its files are as its row says, and its result has the fingerprint that a run would give it now.

    Args:
        items: The collection.
        lookup: Compares an item with its row.
        ledger: The rows.
        make_task: Makes a task of an item, its row, and whether to do it again was asked for.
        retry_failed: Whether failed and partial ones are done again in any case.
        verify: Whether those that are done are compared as wholes.
    """
    rows = [ledger.row(lookup.name(item)) for item in items]
    with ThreadPoolExecutor(_LOOKS) as threads:
        states = list(threads.map(lambda item, row: _state(lookup, item, row, retry_failed, verify), items, rows))
    tasks = []
    for item, row, state in zip(items, rows, states, strict=True):
        if state not in _AT_REST:
            ledger.expect(lookup.name(item))
            tasks.append(make_task(item, row, state == "asked"))
    return Todo(tuple(tasks), Counter(states))


def _state(lookup: Lookup[ItemT], item: ItemT, row: Row, retry_failed: bool, verify: bool) -> str:
    failed = row["status"] == "failed"
    if row["status"] == "pending":
        state = "new"
    elif failed and is_transient(row["error_code"]):
        state = "failed_again"
    elif retry_failed and (failed or row["status"] == "partial"):
        state = "asked"
    elif not lookup.is_unchanged(item, row):
        state = "files"
    elif verify and not failed:
        state = "verify"
    elif row.get("fingerprint") != lookup.expected_fingerprint(item, row):
        state = "settings"
    elif failed:
        state = "failed"
    elif not lookup.has_result(item, row):
        state = "result"
    else:
        state = "done" if lookup.is_complete(item, row) else "more"
    return state
