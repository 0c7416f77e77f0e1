"""Last lines of a run: failures with their causes, and counts by status."""

from histo.remote.location import AnyPath
from histo.run.ledger import Ledger
from histo.run.say import say

_FAILURES_SHOWN = 50


def report(ledger: Ledger, out: AnyPath, what: str, code: int) -> None:
    """Print the first fifty failures, and how many slides or studies are in which state.

    Args:
        ledger: The rows.
        out: Output folder.
        what: The results in it.
        code: What the run ends with.
    """
    for number, row in enumerate(ledger.failures()):
        if number == _FAILURES_SHOWN:
            say(f"failed: more; see the column `error` of {ledger.path}")
            break
        say(f"failed: {row['error']}")
    counts = ", ".join(f"{n} {state}" for state, n in ledger.counts().items())
    say(f"{counts}{f' (exit code {code})' if code else ''}; {what}: {out}")
