"""Slides whose classes are known, and annotations drawn from them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from histo.demo.fabricate import CLASSES, Area, Layout, SlideTruth, fabricate_slide

AREAS = (Area("TUM", 200, 200, 1500, 1900), Area("LYM", 1500, 300, 2600, 1900))


def make_slide(folder: Path, name: str = "s.tif", seed: int = 0) -> SlideTruth:
    """Fabricate a slide of 0.7 x 0.55 mm with two classes on glass."""
    return fabricate_slide(folder, Layout(name, 0.25, AREAS, None, 2816, 2176), np.random.default_rng(seed))


def outlines(truth: SlideTruth) -> dict[str, shapely.Geometry]:
    """Return what each class of tissue covers, level-0 pixels."""
    found = {}
    for number, name in enumerate(CLASSES):
        rows, columns = np.nonzero(truth.classes == number)
        if len(rows) and name != "BACK":
            cell = truth.cell_px
            boxes = shapely.box(columns * cell, rows * cell, (columns + 1) * cell, (rows + 1) * cell)
            found[name] = shapely.coverage_union_all(boxes)
    return found


def feature(area: shapely.Geometry, name: str | None, kind: str = "annotation") -> dict[str, Any]:
    """Return a feature as QuPath writes it."""
    named = {"classification": {"name": name, "color": [200, 0, 0]}} if name else {}
    geometry = json.loads(shapely.to_geojson(area))
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": kind, **named}}


def write_features(path: Path, features: Iterable[dict[str, Any]]) -> Path:
    """Write a feature collection."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [*features]}))
    return path
