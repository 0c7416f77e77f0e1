"""Last lines of a label run: tiles and area by class, empty slides, next step."""

import pyarrow as pa
import pyarrow.compute as pc

from histo.errors import Cause
from histo.run.failure import is_transient
from histo.run.ledger import Ledger
from histo.run.say import say

_EMPTY_SHOWN = 10


def say_totals(slides: pa.Table, classes: tuple[str, ...]) -> None:
    """Print the tiles and the area of each class, and the slides without tissue.

    Args:
        slides: The ledger.
        classes: Names, in order.
    """
    counted = slides.filter(pc.is_in(slides["status"], value_set=pa.array(["ok", "partial"])))
    n_ok = counted["n_ok"].cast(pa.float64())
    total = pc.sum(n_ok).as_py() or 0
    if total:
        words = []
        for name in classes:
            tiles = pc.sum(pc.multiply(counted[f"fraction_{name}"].cast(pa.float64()), n_ok)).as_py() or 0.0
            area = pc.sum(counted[f"area_mm2_{name}"]).as_py() or 0.0
            words.append(f"{name} {round(tiles)} ({tiles / total:.0%}, {area:.1f} mm²)")
        say(f"tiles by class: {', '.join(words)}")
    empty = slides.filter(pc.equal(slides["status"], "empty"))["slide_id"].to_pylist()
    if empty:
        more = f" and {len(empty) - _EMPTY_SHOWN} more" if len(empty) > _EMPTY_SHOWN else ""
        say(f"empty, no tissue found: {', '.join(empty[:_EMPTY_SHOWN])}{more}")


def say_next(ledger: Ledger) -> None:
    """Print what the same command does with the slides that failed, if some did."""
    codes = [row["error_code"] for row in ledger.failures()]
    again, unscaled = sum(map(is_transient, codes)), codes.count(Cause.NO_MPP)
    to_mend = len(codes) - again - unscaled
    if again:
        say(f"next: the same command tries failed slides again whose cause may pass: {again}")
    if unscaled:
        say(f"next: --mpp-if-missing labels slides without a resolution: {unscaled}")
    if to_mend:
        say(f"next: files to mend, see above: {to_mend}; the same command tries those that changed, --retry-failed all")
