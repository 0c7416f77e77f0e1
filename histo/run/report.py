"""Last lines of a run: failures with their causes, and counts by status."""

from pathlib import Path

from histo.run.ledger import Ledger
from histo.run.say import say

_FAILURES_SHOWN = 50


def report(ledger: Ledger, out: Path, what: str) -> None:
    """Print the first fifty failures, and how many slides or studies are in which state.

    Args:
        ledger: The rows.
        out: Output folder.
        what: The results in it.
    """
    for number, row in enumerate(ledger.failures()):
        if number == _FAILURES_SHOWN:
            say(f"failed: more; see the column `error` of {ledger.path}")
            break
        say(f"failed: {row['error']}")
    say(f"{', '.join(f'{n} {state}' for state, n in ledger.counts().items())}; {what}: {out}")
