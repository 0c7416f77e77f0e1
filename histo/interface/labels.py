"""Labels: the tables of a label run."""

from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.dataset

from histo import tables
from histo.errors import UsageError
from histo.interface.paths import StrPath, full_place
from histo.pipelines.labelling import slide_ledger
from histo.remote.location import AnyPath


class Labels:
    """Tables of a label run, read when they are asked for.

    Attributes:
        out: Folder of the run.
    """

    def __init__(self, out: AnyPath) -> None:
        self.out = out
        if self._slides is None and self._studies is None:
            raise UsageError(f"{out}: no label run is there; give the folder of `histo label`")

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities."""
        table, prefix = (self.studies, "prob_") if self._slides is None else (self.slides, "fraction_")
        return [name.removeprefix(prefix) for name in table.column_names if name.startswith(prefix)]

    @cached_property
    def slides(self) -> pa.Table:
        """A row per slide, also of each that failed; columns: docs/reference/tables.md.

        Raises:
            UsageError: If the run is one of studies, or its table cannot be read.
        """
        if self._slides is None:
            raise UsageError(f"{self.out}: a run of studies; its table is `studies`")
        return self._slides

    @cached_property
    def studies(self) -> pa.Table:
        """A row per study, also of each that failed; columns: docs/reference/tables.md.

        Raises:
            UsageError: If the run is one of slides, or its table cannot be read.
        """
        if self._studies is None:
            raise UsageError(f"{self.out}: a run of slides; its tables are `slides` and `tiles`")
        return self._studies

    @cached_property
    def tiles(self) -> "pyarrow.dataset.Dataset":
        """A row per tile of all slides that have a table, as a dataset, of which only what is asked for is read.

        `labels.tiles.to_table(columns=["slide_id", "label"])`, or `labels.tiles.to_table().to_pandas()`; columns:
        docs/reference/tables.md, those of quality among them if the first table has them.

        Raises:
            UsageError: If the run is one of studies.
        """
        files = [self.out / path for path in self.slides["tiles_path"].to_pylist() if path]
        measured = bool(files) and tables.QUALITY[0].name in tables.open_table(files[0]).schema_arrow.names
        columns = (*tables.TILES, *(tables.QUALITY if measured else ()))
        return tables.dataset(files, tables.schema(columns, self.classes, {}))

    @cached_property
    def _slides(self) -> Any:
        return slide_ledger.ledger_file(self.out).read()

    @cached_property
    def _studies(self) -> Any:
        from histo.pipelines.studies.ledger import ledger_file  # noqa: PLC0415 -- slides do without what decodes studies

        return ledger_file(self.out).read()

    def __repr__(self) -> str:
        """Say which run it is."""
        count = f"{len(self._slides)} slides" if self._slides is not None else f"{len(self._studies)} studies"
        return f"<histo.Labels {self.out}: {count}>"


def read_labels(out: StrPath) -> Labels:
    """Read the tables of a label run.

    Args:
        out: The folder that `histo label` wrote.

    Raises:
        UsageError: If no label run is there, or its table cannot be read.

    Examples:
        labels = histo.read_labels("OUT")
        labels.slides.to_pandas()[["slide_id", "status", "fraction_TUM"]]
    """
    return Labels(full_place(out))
