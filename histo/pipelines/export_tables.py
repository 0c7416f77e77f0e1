"""Commands `export wsinfer`, `export geoparquet`: tables for other programs."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from histo import tables
from histo.errors import HistoError
from histo.export.wsinfer import CSV_FOLDER, run_metadata
from histo.input_files import safe_path, table_path
from histo.learn.bundle import read_bundle
from histo.pipelines.derived.slide_files import (
    classes_of,
    end,
    labelled_rows,
    read_ledger,
    remove_others,
    rows_id,
    say_found,
    settle,
)
from histo.pipelines.exports.spec import ExportGeoparquetSpec, ExportWsinferSpec
from histo.pipelines.exports.table_worker import ALGORITHM, TableExporter, TableJob, TableTask
from histo.pipelines.exports.worker import Exported
from histo.remote.location import AnyPath
from histo.run.ledger import fingerprint_of
from histo.run.record import past_record, versions
from histo.run.run_folder import RunFolder
from histo.store import is_there, list_files, put_json, read_document, remove
from histo.tables import Row

__all__ = ["ExportGeoparquetSpec", "ExportWsinferSpec", "export_geoparquet", "export_wsinfer"]

GEOPARQUET, WSINFER = "geoparquet", "wsinfer"
_RECORD = "run_metadata_*.json"


def export_geoparquet(spec: ExportGeoparquetSpec) -> int:
    """Write the tile table of every slide as GeoParquet, or go on where a run stopped; returns 0, or 3 if some failed.

    Raises:
        HistoError: If the folder holds no label run, or the run cannot go on.
    """
    with RunFolder(spec.out, "label", written=[GEOPARQUET]) if is_there(spec.out) else nullcontext():
        ledger = read_ledger(spec.out)
        rows = labelled_rows(ledger)
        folder = spec.out / GEOPARQUET
        tasks = [_task(spec.out, row, folder / table_path(row["slide_id"])) for row in rows]
        kept = {folder / table_path(row["slide_id"]) for row in ledger.to_pylist() if row["tiles_path"]}
        remove_others(spec.out, [GEOPARQUET], kept, (".parquet",), partial(tables.footer_value, name="key"))
        todo = [task for task in tasks if tables.footer_value(task.target, "key") != task.key]
        failed = _export(spec, ledger, rows, todo)
    return end(spec.out, len(rows), [*failed.values()], "exported", f"GeoParquet: {folder}")


def export_wsinfer(spec: ExportWsinferSpec) -> int:
    """Write the tile table of every slide as WSInfer does, with a record of the run; returns 0, or 3 if some failed.

    Raises:
        HistoError: If the folder holds no label run, or the run cannot go on.
    """
    with RunFolder(spec.out, "label", written=[WSINFER]) if is_there(spec.out) else nullcontext():
        ledger = read_ledger(spec.out)
        rows = labelled_rows(ledger)
        folder = spec.out / WSINFER
        names = _csv_names([row["slide_id"] for row in rows])
        tasks = [_task(spec.out, row, folder / CSV_FOLDER / names[row["slide_id"]]) for row in rows]
        before = _written(folder)
        for path in list(list_files(folder / CSV_FOLDER, "*.csv")):
            if path not in {task.target for task in tasks}:
                remove(path)
        todo = [task for task in tasks if before.get(task.slide_id) != task.key or not is_there(task.target)]
        failed = _export(spec, ledger, rows, todo)
        if todo:
            _write_record(spec.out, folder, classes_of(ledger), [task for task in tasks if task.slide_id not in failed])
    return end(spec.out, len(rows), [*failed.values()], "exported", f"in WSInfer's layout: {folder}")


def _task(out: AnyPath, row: Row, target: AnyPath) -> TableTask:
    table = out / row["tiles_path"]
    made_of = {"algorithm": ALGORITHM, "rows": rows_id(row), "columns": _columns(table)}
    return TableTask(row["slide_id"], table, target, fingerprint_of(made_of))


def _columns(table: AnyPath) -> list[str]:
    with suppress(OSError, pa.ArrowException), tables.open_table(table) as file:
        return [*file.schema_arrow.names]
    return []


def _export(
    spec: ExportGeoparquetSpec | ExportWsinferSpec, ledger: pa.Table, rows: list[Row], tasks: list[TableTask]
) -> dict[str, str]:
    """Export tables; returns the reasons of those that failed, by `slide_id`."""
    say_found(ledger, rows, len(tasks), len(rows) - len(tasks), "export")
    job = TableJob(spec.out, tuple(classes_of(ledger)))
    done: list[Exported] = settle(TableExporter, job, {task.slide_id: task for task in tasks}, spec.workers)
    return {answer.unit: answer.error for answer in done if answer.error is not None}


def _csv_names(slide_ids: Sequence[str]) -> dict[str, str]:
    """Name the CSV of each slide as WSInfer does, without the slide's extension, unless two would have one name."""
    bare = {name: PurePosixPath(safe_path(name)).with_suffix("").as_posix() for name in slide_ids}
    counts = Counter(bare.values()) + Counter(map(safe_path, slide_ids))
    return {name: f"{short if counts[short] == 1 else safe_path(name)}.csv" for name, short in bare.items()}


def _written(folder: AnyPath) -> dict[str, str]:
    """Return what the CSV files were made of, by `slide_id`, as the record beside them says."""
    for path in list_files(folder, _RECORD):
        with suppress(OSError, ValueError, KeyError, TypeError):
            return dict(json.loads(read_document(path))["histo"]["tables"])
    return {}


def _write_record(out: AnyPath, folder: AnyPath, classes: Sequence[str], tasks: Sequence[TableTask]) -> None:
    """Write the record of the run in the place of the former one."""
    past = past_record(out) or {}
    model = Path(str(past.get("model", "")))
    tiling: dict[str, Any] = {"size_px": None, "mpp": None}
    for task in tasks:
        with (
            suppress(OSError, KeyError, ValueError, TypeError, pa.ArrowException),
            tables.open_table(task.table) as file,
        ):
            tiling = json.loads(file.schema_arrow.metadata[b"histo.tiling"])
            break
    try:
        backbone = read_bundle(model).architecture.backbone
    except HistoError:  # the bundle is not there any more
        backbone = ""
    began = str(past.get("started", ""))
    bundle = {"path": str(model), "architecture": backbone, "classes": classes}
    document = run_metadata(bundle, tiling, past.get("versions") or versions(), past.get("argv") or [], began)
    document["histo"] = {"tables": {task.slide_id: task.key for task in tasks}}
    for path in list(list_files(folder, _RECORD)):
        remove(path)
    put_json(folder / f"run_metadata_{datetime.now(UTC):%Y%m%dT%H%M%S}.json", document)
