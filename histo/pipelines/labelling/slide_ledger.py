"""Ledger of slides: a row for every slide found, and its outcome."""

from dataclasses import dataclass, field

import pyarrow as pa

from histo import tables
from histo.errors import Cause
from histo.input_files import readable, table_path
from histo.pipelines.labelling.tasks import LabelJob, Summary
from histo.remote.location import AnyPath, shown
from histo.run.failure import one_line
from histo.run.ledger import Ledger, LedgerFile
from histo.run.progress import Tiles
from histo.slides.finding.collection import Collection
from histo.tables import Row

FILE = "slides.parquet"
_ORDER = ("ok", "partial", "empty", "failed", "pending")
_LABELLED = ("content_id", "fingerprint", "n_tiles", "n_ok", "n_failed", "mpp_x", "mpp_y", "mpp_source")
_NEEDED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("ok", "partial", "empty", "absent"), _LABELLED),
    "failed": ("error_code",),
    "pending": (),
}


@dataclass
class _Account:
    """The running account of one slide whose regions come in."""

    columns: Row
    class_counts: list[int]
    n_regions: int
    regions: set[str] = field(default_factory=set)
    n_kept: int = 0

    @property
    def is_planned(self) -> bool:
        """Whether its tiles are known, as they are not of a slide that failed before."""
        return not self.columns.get("error_code")


class SlideLedger(Ledger):
    """Keeps one row per slide, and `slides.parquet` up to date.

    Slides that have a table in the same folder, and are not in the collection now, keep their rows: `absent`. What a
    list says of a slide follows the columns that all ledgers have.

    Args:
        job: The run.
        collection: What was found.
        fresh: Whether nothing of an earlier run counts.

    Raises:
        UsageError: If an earlier ledger cannot be read.
    """

    def __init__(self, job: LabelJob, collection: Collection, fresh: bool = False) -> None:
        self._job = job
        layout = tables.schema(tables.SLIDES, job.classes, {"schema_version": str(tables.SCHEMA_VERSION)})
        listed = [pa.field(name, kind) for name, kind in collection.columns.items()]
        super().__init__(ledger_file(job.out), pa.schema([*layout, *listed], layout.metadata), _ORDER)
        self._own = frozenset(layout.names)
        self._listed = {slide.slide_id: slide for slide in collection.slides}
        self._accounts: dict[str, _Account] = {}
        self._fill({} if fresh else ledger_file(job.out).earlier(layout), collection)
        self._tiles_done = self._tiles_kept = self._planned_slides = self._planned_tiles = 0

    def _fill(self, earlier: dict[str, Row], collection: Collection) -> None:
        for slide in collection.slides:
            row = earlier.pop(slide.slide_id, None) or {"slide_id": slide.slide_id, "status": "pending", "attempts": 0}
            uri = readable(shown(slide.path))
            self.put(self._without_list(row) | slide.columns | {"uri": uri, "status": _back(row)})
        for row in earlier.values():
            if row.get("tiles_path"):
                self.put_uncounted(self._without_list(row) | {"status": "absent"})

    def _without_list(self, row: Row) -> Row:
        """Leave out of an earlier row what a list said, and columns of an older or newer histo."""
        return {name: value for name, value in row.items() if name in self._own}

    def begin(self, slide_id: str, columns: Row, n_regions: int, again: bool = False) -> None:
        """Enter what planning found out about a slide, and expect its regions.

        Args:
            slide_id: The slide.
            columns: What planning knows of it.
            n_regions: Number of its regions.
            again: Whether this run has begun it before.
        """
        earlier = self.row(slide_id)
        begun: Row = {"slide_id": slide_id, "uri": earlier["uri"], "status": "pending", "n_ok": 0, "n_failed": 0}
        attempts = {"attempts": (earlier.get("attempts") or 0) + (not again)}
        self.put_uncounted(earlier | attempts)
        begun |= columns | attempts | self._listed[slide_id].columns
        class_counts = begun.pop("classes", None) or [0] * len(self._job.classes)
        account = self._accounts[slide_id] = _Account(begun, class_counts, n_regions)
        self._planned_slides += account.is_planned
        self._planned_tiles += columns.get("n_tiles") or 0

    def drop(self, slide_id: str) -> None:
        """Forget the regions of a slide that is not settled, if it has begun."""
        account = self._accounts.pop(slide_id, None)
        if account is not None:
            self._planned_slides -= account.is_planned
            self._planned_tiles -= account.columns.get("n_tiles") or 0
            self._tiles_done -= account.columns["n_ok"] + account.columns["n_failed"]
            self._tiles_kept -= account.n_kept

    def add(self, slide_id: str, summary: Summary) -> bool:
        """Enter the summary of a region that was labelled; true if it was the last one of its slide."""
        assert summary.counts is not None, "a region that failed fails its slide"
        account = self._accounts[slide_id]
        if summary.region in account.regions:  # Ray does again what it may have lost
            return False
        account.regions.add(summary.region)
        account.columns["seconds"] = (account.columns.get("seconds") or 0.0) + summary.effort.worked_s
        account.columns["n_ok"] += summary.counts.n_ok
        account.columns["n_failed"] += summary.counts.n_failed
        account.class_counts = [a + b for a, b in zip(account.class_counts, summary.counts.classes, strict=True)]
        tiles = summary.counts.n_ok + summary.counts.n_failed
        self._tiles_done += tiles
        if summary.counts.is_kept:
            account.n_kept += tiles
            self._tiles_kept += tiles
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
        size_bytes, mtime_ns, mask = (columns.get(name) for name in ("size_bytes", "mtime_ns", "mask_sha256"))
        return self._job.failure_fingerprint(size_bytes, mtime_ns, mask, self._listed[columns["slide_id"]].mpp)

    def _close(self, slide_id: str) -> str:
        columns = self._accounts.pop(slide_id).columns
        self.put_settled(columns)
        return str(columns["status"])

    def _shares(self, account: _Account, tile_mm2: float) -> Row:
        """The columns that each class has: its share of the ok tiles, and the area that its tiles stand for."""
        n_ok = account.columns["n_ok"]
        counts = list(zip(self._job.classes, account.class_counts, strict=True))
        return {f"fraction_{name}": count / n_ok if n_ok else None for name, count in counts} | {
            f"area_mm2_{name}": count * tile_mm2 for name, count in counts
        }

    def tiles(self) -> Tiles:
        """Count the tiles of this run; slides that are not planned yet are expected to have as many as the others."""
        unplanned = self._found["pending"] - len(self._accounts)
        expected = self._planned_tiles * (1 + unplanned / max(1, self._planned_slides))
        return Tiles(self._tiles_done, self._tiles_kept, expected, is_estimate=unplanned > 0)


def ledger_file(out: AnyPath) -> LedgerFile:
    """Where the rows of slides stand."""
    return LedgerFile(out / FILE, "slide_id", "the tables are counted again", _NEEDED)


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
    message = f"{columns['slide_id']}: {which}; {_damage(columns)}"
    return {"error_code": Cause.BAD_TILES.value, "error": one_line(message)}


def _damage(columns: Row) -> str:
    """Say what is wrong with a file of which too many tiles cannot be read, and the way out."""
    if not columns.get("blocks_lost"):
        return "the file is damaged, copy or export it again"
    admit = ", or admit its unreadable tiles with a higher --max-failed-fraction" if columns["n_ok"] else ""
    return (
        f"{columns['blocks_lost']} of its file blocks on level {columns['level']} are empty, and no coarser level "
        f"shows that there is no tissue; copy or export it again{admit}"
    )
