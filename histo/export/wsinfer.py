"""Write labels in the layout of WSInfer: CSV files, and a record of the run.

A CSV file per slide in `model-outputs-csv` has the columns `minx`, `miny`, `width`, `height` (level-0 pixels) and
`prob_<CLASS>`, and `run_metadata_<TIME>.json` names the model and the command, as WSInfer 0.6 writes both
(`wsinfer/modellib/run_inference.py`, `wsinfer/cli/infer.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv

from histo import store, tables
from histo.remote.location import AnyPath

CSV_FOLDER = "model-outputs-csv"
_PLACES = {"x": "minx", "y": "miny", "width": "width", "height": "height"}
_ROWS = 20_000
"""Rows of a table that are held at a time."""


def write_csv(table: AnyPath, target: AnyPath, classes: Sequence[str]) -> None:
    """Write a tile table as WSInfer's CSV, atomically; a tile that could not be read has empty probabilities.

    Raises:
        OSError: If the table cannot be read.
        pyarrow.ArrowException: Likewise.
    """
    columns = [*_PLACES, *(f"prob_{name}" for name in classes)]
    names = [_PLACES.get(name, name) for name in columns]
    options = pyarrow.csv.WriteOptions(quoting_style="needed")
    with tables.open_table(table) as file:
        layout = pa.schema([(new, file.schema_arrow.field(old).type) for old, new in zip(columns, names, strict=True)])
        with store.put_atomic(target) as out, pyarrow.csv.CSVWriter(out, layout, write_options=options) as writer:
            for batch in file.iter_batches(_ROWS, columns=columns):
                writer.write_table(pa.table([batch.column(name) for name in columns], schema=layout))


def run_metadata(
    bundle: Mapping[str, Any], tiling: Mapping[str, Any], versions: Mapping[str, str], argv: Sequence[str], time: str
) -> dict[str, Any]:
    """Return what WSInfer's record of a run says, of a label run.

    Args:
        bundle: `path`, `architecture` and `classes` of the model.
        tiling: `size_px` and `mpp` of the tiles.
        versions: Of packages.
        argv: Command of the run.
        time: When it began.
    """
    return {
        "model": {
            "config": {
                "spec_version": "1.0",
                "architecture": bundle["architecture"],
                "num_classes": len(bundle["classes"]),
                "class_names": [*bundle["classes"]],
                "patch_size_pixels": tiling["size_px"],
                "spacing_um_px": tiling["mpp"],
                "transform": [],
            },
            "huggingface_location": None,
            "path": bundle["path"],
        },
        "runtime": {
            "version": f"histo {versions.get('histo', '')}",
            "args": " ".join(argv),
            "pytorch_version": versions.get("torch", ""),
        },
        "timestamp": time,
    }
