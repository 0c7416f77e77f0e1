"""GeoJSON for QuPath: values are those of the table, and the file is what QuPath's importer reads."""

import dataclasses
import json
import re
import uuid
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from helpers.fake_slides import damage_block, noise, write_tiff
from helpers.label_loop import found, label, make_job
from helpers.plain_loop import rows_of
from helpers.vendor_slides import write_scn
from matplotlib.colors import to_rgb

from histo.cli import main
from histo.errors import UsageError
from histo.export.geojson import MEASURED, TooLargeError, read_said, write_features
from histo.pipelines.derived.slide_files import read_ledger
from histo.pipelines.export_geojson import _job, _task
from histo.pipelines.exports.spec import ExportGeojsonSpec
from histo.pipelines.exports.worker import Exporter, ExportJob, ExportTask, key_of
from histo.report.slide.colours import class_colours
from histo.slides.spec import TissueSpec

NO_MINIMUM = TissueSpec(min_fraction=0).settings()


def export(out: Path, **settings: Any) -> tuple[ExportJob, ExportTask]:
    """Export the only slide of a label run."""
    spec = ExportGeojsonSpec(out=out, **settings)
    (row,) = read_ledger(out).to_pylist()
    job, task = _job(spec, read_ledger(out)), _task(spec, row)
    answer = Exporter(job)(task)
    assert answer.error is None, answer.error
    return job, task


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A label run of one slide of noise, one tile of which could not be read."""
    path = write_tiff(tmp_path / "_s.tif", [noise(1152, 768), noise(72, 48)], mpp=0.5)
    damage_block(path, 0, 20)
    job = make_job(tiny_bundle, tmp_path / "out", tissue=NO_MINIMUM)
    label(job, found(Path(path)))
    return job.out


def test_tiles_are_read_back_equal_to_the_table(run: Path) -> None:
    job, task = export(run)

    frame = geopandas.read_file(job.file("_s.tif"))
    document = json.loads(job.file("_s.tif").read_text(encoding="utf-8"))

    rows = rows_of(task.table)
    assert len(rows) == len(frame) == len(document["features"]) == 96
    colours = class_colours(["MUS", "STR", "TUM"])
    measured = [*MEASURED, "prob_MUS", "prob_STR", "prob_TUM"]
    for row, feature, geometry in zip(rows, document["features"], frame.geometry, strict=True):
        place = shapely.box(row["x"], row["y"], row["x"] + row["width"], row["y"] + row["height"])
        assert geometry.equals(place)
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        for name in measured:
            value = properties["measurements"].get(name)
            assert (None if value is None else np.float32(value)) == row[name], name
        if row["status"] == "ok":
            rgb = [round(255 * part) for part in to_rgb(colours[row["label"]])]
            assert properties["classification"] == {"name": row["label"], "color": rgb}
        else:
            assert "classification" not in properties
            assert properties["name"] == "read_error"
    assert {row["status"] for row in rows} == {"ok", "read_error"}
    ids = [uuid.UUID(feature["id"]) for feature in document["features"]]
    assert len(set(ids)) == 96
    assert job.is_done(task)
    again = job.file("_s.tif").read_bytes()
    export(run)
    assert job.file("_s.tif").read_bytes() == again
    export(run, colours={"TUM": "red"}, bounds=False, max_mb=9, classes=["TUM"])
    red = json.loads(job.file("_s.tif").read_text(encoding="utf-8"))["features"]
    assert {feature["id"] for feature in red} <= set(map(str, ids)), "the same UUIDs in every export"


def test_regions_are_annotations_and_rows_of_a_table(run: Path) -> None:
    job, task = export(run, regions=True, smooth=1)

    frame = geopandas.read_file(job.file("_s.tif"))
    document = json.loads(job.file("_s.tif").read_text(encoding="utf-8"))

    table = pq.read_table(job.table("_s.tif")).to_pylist()
    assert len(frame) == len(table) > 0
    assert sum(row["n_tiles"] for row in table) == sum(row["status"] == "ok" for row in rows_of(task.table))
    for row, feature, geometry in zip(table, document["features"], frame.geometry, strict=True):
        assert feature["properties"]["objectType"] == "annotation"
        assert feature["properties"]["classification"]["name"] == row["label"]
        assert feature["properties"]["measurements"]["n_tiles"] == row["n_tiles"]
        assert feature["properties"]["measurements"]["area_mm2"] == row["area_mm2"]
        assert feature["id"] == row["region_id"]
        assert geometry.bounds == (row["x_min"], row["y_min"], row["x_max"], row["y_max"])
        assert geometry.is_valid
        assert geometry.area * 0.5**2 / 1e6 == pytest.approx(row["area_mm2"])


def test_lesions_are_counted_as_the_page_shows(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, _ = export(run, regions=True)
    page = (Path(__file__).resolve().parents[2] / "docs" / "qupath.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)\n([^\n]*)\n```", page, flags=re.DOTALL)
    assert block
    (run.parent / "OUT").symlink_to(run)
    monkeypatch.chdir(run.parent)

    names: dict[str, Any] = {}
    exec(block[1], names)
    lesions = eval(block[2], names)

    own = [row for row in pq.read_table(job.table("_s.tif")).to_pylist() if row["label"] == "TUM"]
    assert lesions.reset_index().to_dict("records") == [
        {"slide_id": "_s.tif", "lesions": len(own), "mm2": pytest.approx(sum(row["area_mm2"] for row in own))}
    ]


def test_regions_stay_beside_another_export_of_the_same_labels(run: Path) -> None:
    job, task = export(run, regions=True)
    table = job.table("_s.tif").read_bytes()

    export(run, least_certain=3)
    assert job.table("_s.tif").read_bytes() == table
    assert len(json.loads(job.file("_s.tif").read_text())["features"]) == 3

    job, _ = export(run)
    other = dataclasses.replace(task, rows_id="of other labels")
    assert Exporter(job)(other).error is None
    assert not job.table("_s.tif").exists()


def test_the_least_certain_tiles_are_those_of_least_confidence(run: Path) -> None:
    job, task = export(run, least_certain=10)

    features = json.loads(job.file("_s.tif").read_text())["features"]
    rows = [row for row in rows_of(task.table) if row["status"] == "ok"]
    least = sorted(rows, key=lambda row: row["confidence"])[:10]
    assert sorted(tuple(feature["geometry"]["coordinates"][0][0]) for feature in features) == sorted(
        (row["x"], row["y"]) for row in least
    )


def test_a_file_that_fails_is_not_left_from_an_earlier_export(run: Path) -> None:
    job, task = export(run)

    answer = Exporter(dataclasses.replace(job, most_bytes=500))(task)

    assert answer.error is not None
    assert not job.file("_s.tif").exists()


def test_a_slide_is_done_if_both_of_its_files_are_there(run: Path) -> None:
    job, task = export(run, regions=True)
    assert job.is_done(task)

    job.table("_s.tif").unlink()

    assert not job.is_done(task)


def test_a_ledger_that_does_not_know_of_bounds_is_refused(run: Path) -> None:
    old = read_ledger(run).drop_columns(["bounds_x", "bounds_y", "bounds_width", "bounds_height"])

    with pytest.raises(UsageError, match="label again, or give --no-bounds"):
        _job(ExportGeojsonSpec(out=run), old)
    assert _job(ExportGeojsonSpec(out=run, bounds=False), old)


def test_some_classes_are_exported_and_unreadable_tiles_are_of_none(run: Path) -> None:
    rows = rows_of(run / "tiles" / "%5Fs.tif.parquet")
    most = max(("MUS", "STR", "TUM"), key=[row["label"] for row in rows].count)

    job, _ = export(run, classes=[most])

    document = json.loads(job.file("_s.tif").read_text(encoding="utf-8"))
    assert len(document["features"]) == sum(row["label"] == most for row in rows)


def test_a_file_that_would_be_too_large_is_merged_and_that_is_said(run: Path) -> None:
    job = _job(ExportGeojsonSpec(out=run, max_mb=0.03), read_ledger(run))
    (row,) = read_ledger(run).to_pylist()
    task = _task(ExportGeojsonSpec(out=run), row)

    answer = Exporter(job)(task)

    assert answer.merged
    assert job.file("_s.tif").stat().st_size < 30_000
    assert job.table("_s.tif").exists()
    small = _job(ExportGeojsonSpec(out=run, max_mb=0.0005), read_ledger(run))
    assert "regions are more than 0.0005 MB; raise --max-mb" in str(Exporter(small)(task).error)
    assert not job.table("_s.tif").exists(), "no table without its file"
    assert not job.is_done(task)


def test_a_file_is_never_larger_than_it_may_be(tmp_path: Path) -> None:
    with pytest.raises(TooLargeError):
        write_features(tmp_path / "a.geojson", {"key": "k"}, iter(['{"a":1}'] * 100), 500)

    assert [*tmp_path.iterdir()] == []
    write_features(tmp_path / "b.geojson", {"key": "k"}, iter([]), 500)
    assert read_said(tmp_path / "b.geojson") == {"key": "k"}
    assert json.loads((tmp_path / "b.geojson").read_text())["features"] == []
    assert key_of(tmp_path / "missing") is None


def test_places_are_counted_from_the_scanned_part_as_qupath_does(tiny_bundle: Path, tmp_path: Path) -> None:
    path = write_scn(tmp_path, np.full((768, 1280, 3), (200, 90, 160), np.uint8), 0.25)
    job = make_job(tiny_bundle, tmp_path / "out")
    row = label(job, found(path))
    assert (row["bounds_x"], row["bounds_y"], row["bounds_width"], row["bounds_height"]) == (640, 512, 1664, 1024)
    (table,) = (job.out / "tiles").rglob("*.parquet")

    for settings, origin in ({}, (640, 512)), ({"bounds": False}, (0, 0)):
        exported, _ = export(job.out, **settings)
        document = json.loads(exported.file(row["slide_id"]).read_text(encoding="utf-8"))
        corners = [tuple(feature["geometry"]["coordinates"][0][0]) for feature in document["features"]]
        assert corners == [(tile["x"] - origin[0], tile["y"] - origin[1]) for tile in rows_of(table)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--classes", "TU"], "--classes TU: no class of these tables; did you mean TUM"),
        (["--smooth", "1"], "--smooth: changes the classes of tiles before they are merged; give --regions"),
        (["--colours", "TUM=redd"], "--colours TUM: 'redd' is no colour"),
        (["--colours", "TUM"], "--colours: cannot be read; give NAME=VALUE, several with commas"),
    ],
)
def test_settings_are_checked_first(
    run: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "geojson", str(run), *flags]) == 2

    assert message in capsys.readouterr().err


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no label run of slides is there"):
        read_ledger(tmp_path)


def test_a_run_is_exported_once_and_follows_its_slides(
    run: Path, joined_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "geojson", str(run), "--workers", "1"]) == 0
    assert "labelled slides: 1; 1 to export" in capsys.readouterr().out
    (run / "geojson" / "gone.tif.geojson").write_bytes((run / "geojson" / "%5Fs.tif.geojson").read_bytes())
    (run / "geojson" / "own.geojson").write_text("{}")

    assert main(["export", "geojson", str(run), "--workers", "1"]) == 0

    assert "0 to export, 1 done before" in capsys.readouterr().out
    assert sorted(path.name for path in (run / "geojson").iterdir()) == ["%5Fs.tif.geojson", "own.geojson"]
    assert main(["export", "geojson", str(run), "--workers", "1", "--regions"]) == 0
    assert (run / "regions" / "%5Fs.tif.parquet").exists()
