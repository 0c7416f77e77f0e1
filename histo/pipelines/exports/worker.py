"""Export one slide as GeoJSON; a failure becomes the answer."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from histo import store, tables
from histo.errors import Cause, InputError
from histo.export.geojson import (
    TooLargeError,
    least_certain,
    read_said,
    region_features,
    region_id,
    tile_features,
    write_features,
)
from histo.export.geoparquet import geo_metadata
from histo.export.regions import Region, merge, smoothed
from histo.input_files import safe_path, table_path
from histo.remote.location import AnyPath
from histo.report.slide.colours import class_colours
from histo.report.slide.labels import NO_TILE, SlideLabels, read_labels
from histo.run.failure import describe_failure
from histo.run.isolation import guarded

GEOJSON, REGIONS = FOLDERS = ("geojson", "regions")
ALGORITHM = 2
"""Version of what is written; a higher one exports all slides anew."""
_WORK = "export"


@dataclass(frozen=True)
class ExportTask:
    """A slide that is to be exported.

    Attributes:
        slide_id: The slide.
        table: Its tile table.
        fingerprint: Of the table.
        rows_id: Of its rows.
        origin: What is subtracted from places, level-0 pixels.
    """

    slide_id: str
    table: AnyPath
    fingerprint: str
    rows_id: str
    origin: tuple[int, int]


@dataclass(frozen=True)
class ExportJob:
    """What is the same for every slide.

    Attributes:
        out: Folder of the label run.
        regions: Whether tiles are merged.
        smooth: Rounds of smoothing before.
        classes: Those that are exported; None for all.
        colours: Chosen colours of classes.
        most_bytes: Of a file.
        least_certain: Number of tiles of a slide; None for all.
    """

    out: AnyPath
    regions: bool
    smooth: int
    classes: tuple[str, ...] | None
    colours: Mapping[str, str]
    most_bytes: int
    least_certain: int | None = None
    read_timeout_s: float = 86_400.0

    def key(self, task: ExportTask) -> str:
        """Return the sha256 of all that the files of a slide depend on."""
        made_of = [ALGORITHM, task.rows_id, task.origin, self.regions, self.smooth, self.classes]
        made_of += [sorted(self.colours.items()), self.most_bytes, self.least_certain]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

    def file(self, slide_id: str) -> AnyPath:
        """Where a slide's GeoJSON stands."""
        return self.out / GEOJSON / f"{safe_path(slide_id)}.geojson"

    def table(self, slide_id: str) -> AnyPath:
        """Where the table of a slide's regions stands."""
        return self.out / REGIONS / table_path(slide_id)

    def is_done(self, task: ExportTask) -> bool:
        """Whether a slide's files are there, made of what they would be made of now."""
        key = self.key(task)
        said = _said(self.file(task.slide_id))
        return said.get("key") == key and (not said.get("merged") or key_of(self.table(task.slide_id)) == key)


def key_of(path: AnyPath) -> str | None:
    """Return what a GeoJSON or a table of regions says that it was made of; nothing if it is none of histo's."""
    if path.suffix != ".parquet":
        return _said(path).get("key")
    return tables.footer_value(path, "key")


def _said(path: AnyPath) -> dict[str, Any]:
    """Return what a GeoJSON says of itself; nothing if it is none of histo's."""
    try:
        said = read_said(path)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return said if isinstance(said, dict) else {}


@dataclass(frozen=True)
class Exported:
    """What became of a slide.

    Attributes:
        unit: Its `slide_id`.
        merged: Whether it was merged because its file would have been too large.
        error_code: Cause of the failure, if there was one.
        error: What is wrong, and what to do.
    """

    unit: str
    merged: bool = False
    error_code: str | None = None
    error: str | None = None


class Exporter:
    """Exports slides. It lives as long as a Ray actor; a plain loop or a test calls it just as well."""

    def __init__(self, job: ExportJob) -> None:
        self._job = job

    def __call__(self, task: ExportTask) -> Exported:
        """Export one slide; whatever goes wrong becomes its answer."""
        here = partial(export_slide, self._job, task)
        try:
            merged = guarded(self._job, task.slide_id, _WORK, here, export_slide, task)
        except Exception as error:  # noqa: BLE001 -- a slide is a boundary: anything becomes its answer
            failure = describe_failure(error, task.slide_id, batches=False)
            return Exported(task.slide_id, False, failure["error_code"], failure["error"])
        return Exported(task.slide_id, merged)


def export_slide(job: ExportJob, task: ExportTask) -> bool:
    """Write a slide's GeoJSON, and the table of its regions; returns whether it had to be merged.

    Raises:
        InputError: If its table cannot be read, or its file would be too large though it is merged.
    """
    labels = read_labels(task.table, task.slide_id)
    colours = class_colours(labels.classes, job.colours)
    key, target = job.key(task), job.file(task.slide_id)
    said = {"key": key, "model_sha256": labels.model_sha256}
    names_in = f"{task.slide_id}/{task.fingerprint}"
    if tables.footer_value(job.table(task.slide_id), "rows") != task.rows_id:
        store.remove(job.table(task.slide_id))
    if not job.regions:
        try:
            chosen = None if job.least_certain is None else least_certain(task.table, job.least_certain, job.classes)
            names = job.classes if chosen is None else None
            features = tile_features(task.table, labels.classes, colours, task.origin, names_in, names, chosen)
            write_features(target, said | {"merged": False}, features, job.most_bytes)
        except TooLargeError:
            pass
        except pa.ArrowException as error:
            what = " ".join(str(error).split())
            raise InputError(Cause.UNREADABLE, f"{task.table}: damaged ({what}); label the slide again") from error
        else:
            return False
    regions = _regions(job, labels)
    names_in += f"/{job.smooth}/{job.classes}"
    tables.write_table(job.table(task.slide_id), _table(task, key, names_in, regions))
    try:
        features = region_features(regions, colours, task.origin, names_in)
        write_features(target, said | {"merged": True}, features, job.most_bytes)
    except TooLargeError:
        for path in (target, job.table(task.slide_id)):
            store.remove(path)
        raise InputError(
            Cause.TOO_LARGE,
            f"{task.slide_id}: {len(regions)} regions are more than {job.most_bytes / 1e6:g} MB; raise --max-mb, or "
            "merge more with --smooth",
        ) from None
    return not job.regions


def _regions(job: ExportJob, labels: SlideLabels) -> list[Region]:
    pred = smoothed(labels.pred, len(labels.classes), job.smooth)
    if job.classes is not None:
        chosen = [number for number, name in enumerate(labels.classes) if name in job.classes]
        pred = np.where(np.isin(pred, chosen), pred, NO_TILE).astype(np.int16)
    return [*merge(labels, pred)]


def _table(task: ExportTask, key: str, names_in: str, regions: Sequence[Region]) -> pa.Table:
    """A row per region, see `tables.REGIONS`; it is GeoParquet."""
    rows = [
        {
            "slide_id": task.slide_id,
            "region_id": region_id(names_in, number),
            "label": region.name,
            "n_tiles": region.n_tiles,
            "area_mm2": region.area_mm2,
            "mean_confidence": region.mean_confidence,
            "n_holes": len(region.polygon.interiors),
            **dict(zip(("x_min", "y_min", "x_max", "y_max"), map(int, region.polygon.bounds), strict=True)),
            "geometry": shapely.to_wkb(region.polygon),
        }
        for number, region in enumerate(regions)
    ]
    layout = tables.schema(tables.REGIONS, metadata={"key": key, "rows": task.rows_id})
    bounds = tuple(shapely.total_bounds([region.polygon for region in regions]).tolist()) if regions else None
    geo = geo_metadata(["Polygon"], bounds)
    return tables.rows_table(rows, layout.with_metadata({**layout.metadata, **geo}))
