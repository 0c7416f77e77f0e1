"""What travels through the graph of a label run: how to read a slide, and the rows of regions and summaries."""

import hashlib
import json
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histo.errors import Cause, SlideError
from histo.slides.collection import readable
from histo.slides.grid import Grid, Region
from histo.slides.resolution import Sampling
from histo.slides.slide import Level, Slide
from histo.tables import SCHEMA_VERSION

ALGORITHM_VERSION = 1
"""Raised whenever the same slide, settings and bundle would give other rows."""

Row = dict[str, Any]


@dataclass(frozen=True)
class LabelJob:
    """What is the same for every slide of a run.

    Attributes:
        out: Output folder.
        model: Bundle folder.
        model_hash: sha256 of the bundle, its document and its weights.
        weights_sha256: sha256 of the weights' file alone.
        classes: Names, in order.
        size_px: Edge of a tile, target pixels.
        stride_px: Distance of tile origins, target pixels.
        mpp: Requested resolution, µm per target pixel.
        tiling: Settings of the grid, as a JSON document.
        tissue: Settings of the mask, as a JSON document.
        mpp_if_missing: µm per level-0 pixel for slides that name none.
        max_failed_fraction: Share of unreadable tiles above which a slide is `failed`.
        device: What torch calls the device.
        threads: CPU threads of a worker.
        batch_size: Tiles per forward pass.
        versions: Of the packages, for the files' footers.
    """

    out: Path
    model: Path
    model_hash: str
    weights_sha256: str
    classes: tuple[str, ...]
    size_px: int
    stride_px: int
    mpp: float
    tiling: dict[str, Any]
    tissue: dict[str, Any]
    mpp_if_missing: float | None
    max_failed_fraction: float
    device: str
    threads: int
    batch_size: int
    versions: dict[str, str]

    def tolerates(self, n_ok: int, n_failed: int) -> bool:
        """Whether a slide with so many readable and unreadable tiles still has a result."""
        return n_failed == 0 or (n_ok > 0 and n_failed <= self.max_failed_fraction * (n_ok + n_failed))

    def fingerprint(self, content: str, slide: Slide, reader: str) -> str:
        """Return the sha256 of everything that the rows of a slide depend on; not of workers, batches or Ray."""
        facts = {
            "schema": SCHEMA_VERSION,
            "algorithm": ALGORITHM_VERSION,
            "content_id": content,
            "model": self.model_hash,
            "mpp": [slide.mpp_x, slide.mpp_y],
            "tiling": self.tiling | {"mpp": self.mpp, "size_px": self.size_px, "stride_px": self.stride_px},
            "tissue": self.tissue,
            "precision": "float32",
            "reader": reader,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class SlideWork:
    """What a worker needs to read the regions of one slide.

    Attributes:
        slide: Its description.
        sampling: Which level is read, and how it is reduced.
        grid: All tiles.
        n_regions: Number of its regions.
        fingerprint: Of the slide's result.
    """

    slide: Slide
    sampling: Sampling
    grid: Grid
    n_regions: int
    fingerprint: str


def region_row(slide_id: str, region: Region, work: SlideWork, ledger: Row) -> Row:
    """Make the row of one region; see `tables.REGIONS`."""
    return {
        "slide_id": slide_id,
        "region": region.name,
        "tile_index": region.tile_index.tolist(),
        "tissue_fraction": region.tissue_fraction.tolist(),
        "work": json.dumps(asdict(work)),
        "slide": json.dumps(ledger),
    }


def settled_row(slide_id: str, ledger: Row) -> Row:
    """Make the row of a slide that is settled without reading a tile: it is empty, or cannot be used."""
    return {
        "slide_id": slide_id,
        "region": "",
        "tile_index": [],
        "tissue_fraction": [],
        "work": "",
        "slide": json.dumps(ledger),
    }


def parse_region(row: Row) -> tuple[Region, SlideWork]:
    """Read a region's row."""
    region = Region(
        row["region"], np.asarray(row["tile_index"], np.int64), np.asarray(row["tissue_fraction"], np.float32)
    )
    return region, _parse_work(json.loads(row["work"]))


def _parse_work(values: Row) -> SlideWork:
    slide = values["slide"]
    levels, bounds = tuple(Level(**level) for level in slide["levels"]), slide["bounds"] and tuple(slide["bounds"])
    return SlideWork(
        slide=Slide(**slide | {"levels": levels, "bounds": bounds}),
        sampling=Sampling(**values["sampling"]),
        grid=Grid(**values["grid"]),
        n_regions=values["n_regions"],
        fingerprint=values["fingerprint"],
    )


def summary_row(
    row: Row,
    work: SlideWork | None = None,
    counts: tuple[int, int] = (0, 0),
    class_counts: list[int] | None = None,
    seconds: float = 0.0,
    failure: Row | None = None,
) -> Row:
    """Make the one summary of a region; see `tables.SUMMARIES`. `counts` are the ok and the failed tiles."""
    return {
        "slide_id": row["slide_id"],
        "region": row["region"],
        "n_regions": work.n_regions if work else 0,
        "fingerprint": work.fingerprint if work else "",
        "n_ok": counts[0],
        "n_failed": counts[1],
        "class_counts": class_counts or [],
        "seconds": seconds,
        "failure": json.dumps(failure) if failure else "",
        "slide": row["slide"],
    }


def describe_failure(error: Exception, where: str) -> Row:
    """Turn an exception into the ledger's error columns; one that was not foreseen keeps its traceback."""
    if isinstance(error, SlideError):
        return {"error_code": error.cause.value, "error": one_line(str(error)), "traceback": None}
    if isinstance(error, OSError):
        message = f"{where}: {error.strerror or error}; mend the storage, or make room on it, and label again"
        return {
            "error_code": Cause.STORAGE.value,
            "error": one_line(message),
            "traceback": readable(traceback.format_exc()),
        }
    return {
        "error_code": Cause.INTERNAL.value,
        "error": one_line(f"{where}: {type(error).__name__}: {error}; please report this with the traceback"),
        "traceback": readable(traceback.format_exc()),
    }


def one_line(message: str) -> str:
    r"""Make a message valid UTF-8 of a single line: a line break, as a file's name may have, becomes `%0A`.

    Examples:
        >>> one_line("new\nline.svs: not a slide")
        'new%0Aline.svs: not a slide'
    """
    return "%0A".join(readable(message).splitlines())
