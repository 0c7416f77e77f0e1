"""The ledger: a row for every slide found, and what became of it.

`slides.parquet` is rebuilt now and then, whole; between rebuilds, `staging/ledger.jsonl` has a line for each slide that
was settled since. Both are read when a run begins.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from histo import store, tables
from histo.errors import Cause, UsageError
from histo.pipelines.work import LabelJob, Row, Summary, one_line
from histo.slides.collection import Collection, readable, table_path

FILE = "slides.parquet"
_REBUILD_S = 5.0
_REBUILD_SHARE = 0.05
"""Share of a run's time that rebuilding may take, however long the ledger is."""
_APPEND_S = 1.0
_ORDER = ("ok", "partial", "empty", "failed", "pending")


@dataclass
class _Account:
    """The running account of one slide whose regions come in."""

    columns: Row
    class_counts: list[int]
    n_regions: int
    regions: set[str] = field(default_factory=set)


class Ledger:
    """Keeps one row per slide, and `slides.parquet` up to date.

    Slides that have a table in the same folder, and are not in the collection now, keep their rows: `absent`.

    Args:
        job: The run.
        collection: What was found.
        fresh: Whether nothing of an earlier run counts.

    Attributes:
        tiles_done: Number of tiles that were done in this run.

    Raises:
        UsageError: If an earlier ledger cannot be read.
    """

    def __init__(self, job: LabelJob, collection: Collection, fresh: bool = False) -> None:
        self._job = job
        self._layout = tables.schema(tables.SLIDES, job.classes, {"schema_version": str(tables.SCHEMA_VERSION)})
        self._table = self._layout.empty_table()
        self._places: dict[str, int] = {}
        self._changed: dict[str, Row] = {}
        self._unsaved: list[Row] = []
        self._states: dict[str, str] = {}
        self._found: Counter[str] = Counter()
        self._accounts: dict[str, _Account] = {}
        self._fill({} if fresh else dict(_earlier(job.out)), collection)
        self.tiles_done = self._planned_slides = self._planned_tiles = 0
        self._rebuilt = self._appended = time.monotonic()
        self._rebuild_every_s = _REBUILD_S

    def _fill(self, earlier: dict[str, Row], collection: Collection) -> None:
        for slide in collection.slides:
            row = earlier.pop(slide.slide_id, None) or {"slide_id": slide.slide_id, "status": "pending", "attempts": 0}
            self._put(self._known(row) | {"uri": readable(slide.path), "status": _back(row)})
        for slide_id, row in earlier.items():
            if row["tiles_path"]:
                self._changed[slide_id] = self._known(row) | {"status": "absent"}

    def _known(self, row: Row) -> Row:
        """Leave out columns that an older or newer histo wrote."""
        return {name: value for name, value in row.items() if name in self._layout.names}

    def _put(self, row: Row) -> None:
        slide_id, status = row["slide_id"], row["status"]
        self._found.subtract([self._states[slide_id]] if slide_id in self._states else [])
        self._found.update([status])
        self._states[slide_id] = status
        self._changed[slide_id] = row

    def row(self, slide_id: str) -> Row:
        """Return what is known of a slide."""
        if slide_id in self._changed:
            return self._changed[slide_id]
        (row,) = self._table.slice(self._places[slide_id], 1).to_pylist()
        return dict(row)

    def expect(self, slide_id: str) -> None:
        """Count a slide as `pending` that is to be done; its row stays true, as its table does, until it is settled."""
        self._found.subtract([self._states[slide_id]])
        self._found.update(["pending"])
        self._states[slide_id] = "pending"

    def begin(self, slide_id: str, columns: Row, n_regions: int) -> None:
        """Enter what planning found out about a slide, and expect its regions."""
        earlier = self.row(slide_id)
        begun: Row = {"slide_id": slide_id, "uri": earlier["uri"], "status": "pending", "n_ok": 0, "n_failed": 0}
        attempts = {"attempts": (earlier.get("attempts") or 0) + 1}
        self._changed[slide_id] = earlier | attempts
        begun |= columns | attempts
        class_counts = begun.pop("classes", None) or [0] * len(self._job.classes)
        self._accounts[slide_id] = _Account(begun, class_counts, n_regions)
        self._planned_slides += 1
        self._planned_tiles += columns.get("n_tiles") or 0

    def add(self, slide_id: str, region: str, summary: Summary) -> bool:
        """Enter the summary of a region that was labelled; true if it was the last one of its slide."""
        assert summary.counts is not None, "a region that failed fails its slide"
        account = self._accounts[slide_id]
        account.regions.add(region)
        account.columns["seconds"] = (account.columns.get("seconds") or 0.0) + summary.seconds
        account.columns["n_ok"] += summary.counts.n_ok
        account.columns["n_failed"] += summary.counts.n_failed
        account.class_counts = [a + b for a, b in zip(account.class_counts, summary.counts.classes, strict=True)]
        self.tiles_done += summary.counts.n_ok + summary.counts.n_failed
        return len(account.regions) == account.n_regions

    def regions(self, slide_id: str) -> list[str]:
        """Return the names of the regions of a slide that are in."""
        return sorted(self._accounts[slide_id].regions)

    def is_open(self, slide_id: str) -> bool:
        """Whether a slide has begun and is not settled."""
        return slide_id in self._accounts

    def has_result(self, slide_id: str) -> bool:
        """Whether a slide whose regions are all in gets a table."""
        columns = self._accounts[slide_id].columns
        return not columns.get("error_code") and self._job.tolerates(columns["n_ok"], columns["n_failed"])

    def settle(self, slide_id: str) -> str:
        """Enter what became of a slide, once its table is in place if it has one; returns its status."""
        account = self._accounts[slide_id]
        columns = account.columns
        if columns.get("error_code"):
            return self.fail(slide_id, {})
        if self.has_result(slide_id):
            columns |= {"status": _status(columns), "tiles_path": f"tiles/{table_path(slide_id)}"}
            columns |= self._shares(account, tile_mm2=(self._job.stride_px * columns["effective_mpp"]) ** 2 / 1e6)
        else:
            columns |= _too_many_failed(columns, self._job.max_failed_fraction)
            columns |= {"status": "failed", "fingerprint": self._failure_fingerprint(columns)}
        return self._close(slide_id)

    def fail(self, slide_id: str, failure: Row) -> str:
        """Enter a slide as failed for a reason that leaves its tiles unknown; returns `failed`."""
        columns = self._accounts[slide_id].columns
        columns |= failure | {"status": "failed", "n_ok": None, "n_failed": None}
        columns["fingerprint"] = self._failure_fingerprint(columns)
        return self._close(slide_id)

    def _failure_fingerprint(self, columns: Row) -> str:
        return self._job.failure_fingerprint(columns.get("size_bytes"), columns.get("mtime_ns"))

    def _close(self, slide_id: str) -> str:
        columns = self._accounts.pop(slide_id).columns
        self._put(columns)
        self._unsaved.append(columns)
        return str(columns["status"])

    def _shares(self, account: _Account, tile_mm2: float) -> Row:
        """The columns that each class has: its share of the ok tiles, and the area that its tiles stand for."""
        n_ok = account.columns["n_ok"]
        counts = list(zip(self._job.classes, account.class_counts, strict=True))
        return {f"fraction_{name}": count / n_ok if n_ok else None for name, count in counts} | {
            f"area_mm2_{name}": count * tile_mm2 for name, count in counts
        }

    def counts(self) -> dict[str, int]:
        """Return the number of slides of each status."""
        return {state: self._found[state] for state in _ORDER if self._found[state]}

    @property
    def settled(self) -> int:
        """Number of slides that are done."""
        return len(self._states) - self._found["pending"]

    def tiles_expected(self) -> float:
        """Estimate the tiles of this run: the slides that are not planned yet count like the others."""
        unplanned = self._found["pending"] - len(self._accounts)
        return self._planned_tiles * (1 + unplanned / max(1, self._planned_slides))

    def write(self, force: bool = False) -> None:
        """Append what was settled, and rebuild `slides.parquet` atomically; each only now and then unless `force`."""
        start = time.monotonic()
        if force or start - self._rebuilt >= self._rebuild_every_s:
            self._rebuild()
            self._rebuilt = time.monotonic()
            self._rebuild_every_s = max(_REBUILD_S, (self._rebuilt - start) / _REBUILD_SHARE)
        elif self._unsaved and start - self._appended >= _APPEND_S:
            store.append_json_lines(_lines(self._job.out), self._unsaved)
            self._unsaved, self._appended = [], time.monotonic()

    def _rebuild(self) -> None:
        """Put the rows that changed in the place of those that they were; ten thousand rows stay a few MB of Arrow."""
        changed = tables.rows_table(list(self._changed.values()), self._layout)
        kept = self._table.filter(
            pc.invert(pc.is_in(self._table["slide_id"], value_set=changed["slide_id"].combine_chunks()))
        )
        self._table = pa.concat_tables([kept, changed]).sort_by("slide_id").combine_chunks()
        self._places = {slide_id: place for place, slide_id in enumerate(self._table["slide_id"].to_pylist())}
        tables.write_table(self._job.out / FILE, self._table)
        store.remove(_lines(self._job.out))
        self._changed, self._unsaved = {}, []

    def failures(self) -> Iterator[Row]:
        """Yield the row of every failed slide."""
        return (self.row(slide_id) for slide_id, state in self._states.items() if state == "failed")


def _lines(out: Path) -> Path:
    return out / "staging" / "ledger.jsonl"


def _earlier(out: Path) -> Iterator[tuple[str, Row]]:
    """Yield the rows of the last ledger, and then those that were settled after it was rebuilt."""
    if (table := read_ledger(out)) is not None:
        yield from ((row["slide_id"], row) for row in table.to_pylist())
    yield from ((row["slide_id"], {"tiles_path": None} | row) for row in store.read_json_lines(_lines(out)))


def read_ledger(out: Path) -> pa.Table | None:
    """Read the ledger as it was rebuilt last, if there is one.

    Raises:
        UsageError: If it cannot be read.
    """
    if not (out / FILE).exists():
        return None
    try:
        return pq.ParquetFile(out / FILE).read()
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{out / FILE}: cannot be read ({reason}); remove it, and the tables are counted again"
        ) from None


def _back(row: Row) -> str:
    """Give a slide that was absent, and is back, the status that it had."""
    return _status(row) if row["status"] == "absent" else str(row["status"])


def _status(columns: Row) -> str:
    if columns["n_tiles"] == 0:
        return "empty"
    return "partial" if columns["n_failed"] else "ok"


def _too_many_failed(columns: Row, limit: float) -> Row:
    share = (
        f"{columns['n_failed']} of {columns['n_tiles']} tiles cannot be read, more than --max-failed-fraction {limit:g}"
    )
    which = f"{share} admits" if columns["n_ok"] else f"none of {columns['n_tiles']} tiles can be read"
    message = f"{columns['slide_id']}: {which}; the file is damaged, copy or export it again"
    return {"error_code": Cause.BAD_TILES.value, "error": one_line(message)}
