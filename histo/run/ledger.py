"""Ledger: one row per slide or study, in a Parquet file that is kept up to date.

The file is rebuilt now and then, whole; between rebuilds, a file of lines has one for each row that was settled since.
Both are read when a run begins.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from histo import store, tables
from histo.errors import UsageError
from histo.remote.location import AnyPath
from histo.tables import Row

_REBUILD_S = 5.0
_REBUILD_SHARE = 0.05
"""Share of a run's time that rebuilding may take, however long the ledger is."""
_APPEND_S = 1.0


@dataclass(frozen=True)
class LedgerFile:
    """Where the rows of a ledger stand.

    Attributes:
        path: The Parquet file.
        key: The column that names a row.
        if_removed: What becomes of results whose rows are lost, for messages.
        needed: The columns that have a value in a row, by its status; there is no other status.
    """

    path: AnyPath
    key: str
    if_removed: str
    needed: Mapping[str, Sequence[str]]

    @property
    def lines(self) -> AnyPath:
        """The rows that were settled since the last rebuild."""
        return self.path.parent / "staging" / "ledger.jsonl"

    def read(self) -> pa.Table | None:
        """Read the table as it was rebuilt last, if there is one.

        Raises:
            UsageError: If it cannot be read.
        """
        if not store.is_there(self.path):
            return None
        try:
            table = tables.open_table(self.path).read()
        except OSError as error:
            reason = " ".join((error.strerror or str(error)).split())
        except pa.ArrowException as error:
            reason = " ".join(str(error).split())
        else:
            missing = {self.key, "status"} - set(table.column_names)
            if not missing:
                return table
            reason = f"no column {' and '.join(sorted(missing))}"
        raise UsageError(f"{self.path}: cannot be read ({reason}); remove it, and {self.if_removed}")

    def earlier(self, layout: pa.Schema) -> dict[str, Row]:
        """Return the rows of the table, and in their place those that were settled after it was rebuilt.

        A row without a name, of an unknown status, without a value that it needs, or with one that its column cannot
        have, is left out: what it stands for is looked up again.

        Args:
            layout: The columns.

        Raises:
            UsageError: If the table cannot be read.
        """
        table = self.read()
        rows = [*([] if table is None else table.to_pylist()), *store.read_json_lines(self.lines)]
        return {row[self.key]: row for row in _fitting([row for row in rows if self._is_whole(row)], layout)}

    def check_classes(self, prefix: str, classes: Sequence[str]) -> None:
        """Refuse rows that are of other classes.

        Args:
            prefix: Begins the name of a column that each class has.
            classes: Names, in order.

        Raises:
            UsageError: If there are such rows.
        """
        table = self.read()
        if table is None:
            return
        if [name for name in table.schema.names if name.startswith(prefix)] != [f"{prefix}{name}" for name in classes]:
            raise UsageError(
                f"--out {self.path.parent}: holds results of a bundle with other classes; give another folder, or "
                "remove them with --overwrite"
            )

    def _is_whole(self, row: Row) -> bool:
        name, status = row.get(self.key), row.get("status")
        if not (isinstance(name, str) and isinstance(status, str) and status in self.needed):
            return False
        return all(row.get(column) is not None for column in self.needed[status])


def _fitting(rows: Sequence[Row], layout: pa.Schema) -> list[Row]:
    """Leave out the rows that have a value of another type than its column."""
    if _fit(rows, layout):
        return list(rows)
    return [row for row in rows if _fit([row], layout)]


def _fit(rows: Sequence[Row], layout: pa.Schema) -> bool:
    known = [{name: value for name, value in row.items() if name in layout.names} for row in rows]
    try:
        tables.rows_table(known, layout)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return False
    return True


def fingerprint_of(facts: dict[str, Any]) -> str:
    """Return the sha256 of canonical JSON: what a result depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Ledger:
    """Keeps rows by their name, counts them by their status, and keeps their file up to date.

    Args:
        file: Where they stand; nothing there is read.
        layout: Their columns, `status` among them.
        order: Every status that is counted, in the order in which they are shown.
    """

    def __init__(self, file: LedgerFile, layout: pa.Schema, order: Sequence[str]) -> None:
        self._file, self._layout, self._order = file, layout, order
        self._table = layout.empty_table()
        self._places: dict[str, int] = {}
        self._changed: dict[str, Row] = {}
        self._removed: list[str] = []
        self._unsaved: list[Row] = []
        self._states: dict[str, str] = {}
        self._found: Counter[str] = Counter()
        self._rebuilt = self._appended = time.monotonic()
        self._rebuild_every_s = _REBUILD_S

    @property
    def path(self) -> AnyPath:
        """The Parquet file."""
        return self._file.path

    def declared(self, row: Row) -> Row:
        """Leave out columns that an older or newer histo wrote."""
        return {name: value for name, value in row.items() if name in self._layout.names}

    def put(self, row: Row) -> None:
        """Enter a row, and count it."""
        name = row[self._file.key]
        self._count(name, row["status"])
        self._changed[name] = row

    def put_settled(self, row: Row) -> None:
        """Enter a row that must not be lost: it is appended to the lines before the next rebuild."""
        self.put(row)
        self._unsaved.append(row)

    def put_uncounted(self, row: Row) -> None:
        """Enter a row, or change one, without counting its status."""
        self._changed[row[self._file.key]] = row

    def remove_uncounted(self, name: str) -> None:
        """Remove a row whose status was not counted."""
        assert name not in self._states, f"{name}: its status is counted"
        self._changed.pop(name, None)
        self._removed.append(name)

    def row(self, name: str) -> Row:
        """Return what is known of one thing."""
        if name in self._changed:
            return self._changed[name]
        (row,) = self._table.slice(self._places[name], 1).to_pylist()
        return dict(row)

    def expect(self, name: str) -> None:
        """Count as `pending` what is to be done; its row stays true, as its result does, until it is settled."""
        self._count(name, "pending")

    def _count(self, name: str, status: str) -> None:
        self._found.subtract([self._states[name]] if name in self._states else [])
        self._found.update([status])
        self._states[name] = status

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each status."""
        return {state: self._found[state] for state in self._order if self._found[state]}

    @property
    def settled(self) -> int:
        """Number of rows that are done."""
        return len(self._states) - self._found["pending"]

    def failures(self) -> Iterator[Row]:
        """Yield every row that is failed."""
        return (self.row(name) for name, state in self._states.items() if state == "failed")

    def write(self, force: bool = False) -> None:
        """Append what was settled, and rebuild the table atomically; each only now and then unless `force`."""
        start = time.monotonic()
        if force or start - self._rebuilt >= self._rebuild_every_s:
            self._rebuild()
            self._rebuilt = time.monotonic()
            self._rebuild_every_s = max(_REBUILD_S, (self._rebuilt - start) / _REBUILD_SHARE)
        elif self._unsaved and start - self._appended >= _APPEND_S:
            store.append_json_lines(self._file.lines, self._unsaved)
            self._unsaved, self._appended = [], time.monotonic()

    def _rebuild(self) -> None:
        """Put the rows that changed in the place of those that they were; ten thousand rows stay a few MB of Arrow."""
        key = self._file.key
        changed = tables.rows_table(list(self._changed.values()), self._layout)
        gone = pa.array([*self._changed, *self._removed], pa.string())
        kept = self._table.filter(pc.invert(pc.is_in(self._table[key], value_set=gone)))
        self._table = pa.concat_tables([kept, changed]).sort_by(key).combine_chunks()
        self._places = {name: place for place, name in enumerate(self._table[key].to_pylist())}
        tables.write_table(self._file.path, self._table)
        store.remove(self._file.lines)
        self._changed, self._removed, self._unsaved = {}, [], []
