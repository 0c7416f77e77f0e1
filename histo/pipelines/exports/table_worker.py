"""Export the tile table of one slide as a table for other programs."""

from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from histo import tables
from histo.errors import Cause, InputError
from histo.export.geoparquet import write_geoparquet
from histo.export.wsinfer import write_csv
from histo.pipelines.exports.worker import Exported
from histo.remote.location import AnyPath
from histo.run.failure import describe_failure
from histo.run.isolation import guarded

ALGORITHM = 1
"""Version of what is written; a higher one exports all slides anew."""
_WORK = "table"


@dataclass(frozen=True)
class TableTask:
    """A slide whose table is to be exported.

    Attributes:
        slide_id: The slide.
        table: Its tile table.
        target: What is written: a CSV file of WSInfer's, or GeoParquet.
        key: What it is made of.
    """

    slide_id: str
    table: AnyPath
    target: AnyPath
    key: str


@dataclass(frozen=True)
class TableJob:
    """What is the same for every slide.

    Attributes:
        out: Folder of the label run.
        classes: All classes.
    """

    out: AnyPath
    classes: tuple[str, ...]
    read_timeout_s: float = 86_400.0


class TableExporter:
    """Exports tables. It lives as long as a Ray actor; a plain loop or a test calls it just as well."""

    def __init__(self, job: TableJob) -> None:
        self._job = job

    def __call__(self, task: TableTask) -> Exported:
        """Export one table; whatever goes wrong becomes its answer."""
        try:
            guarded(self._job, task.slide_id, _WORK, partial(export_table, self._job, task), export_table, task)
        except Exception as error:  # noqa: BLE001 -- a slide is a boundary: anything becomes its answer
            failure = describe_failure(error, task.slide_id, batches=False)
            return Exported(task.slide_id, False, failure["error_code"], failure["error"])
        return Exported(task.slide_id)


def export_table(job: TableJob, task: TableTask) -> None:
    """Write the table of a slide.

    Raises:
        InputError: If its tile table cannot be read.
    """
    try:
        tables.open_table(task.table).close()
    except OSError as error:
        raise InputError(Cause.UNREADABLE, f"{task.table}: {error.strerror or error}; label the slide again") from error
    except pa.ArrowException as error:
        raise _damaged(task, error) from error
    try:
        if task.target.suffix == ".csv":
            write_csv(task.table, task.target, job.classes)
        else:
            write_geoparquet(task.table, task.target, task.key)
    except pa.ArrowException as error:
        raise _damaged(task, error) from error


def _damaged(task: TableTask, error: Exception) -> InputError:
    what = " ".join(str(error).split())
    return InputError(Cause.UNREADABLE, f"{task.table}: damaged ({what}); label the slide again")
