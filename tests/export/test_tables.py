"""GeoParquet and WSInfer's CSV: read back equal to the tile tables; done once; what was there before is replaced."""

import csv
import json
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from helpers.fake_slides import damage_block, noise, write_tiff
from helpers.label_loop import found, label, make_job
from helpers.plain_loop import rows_of

from histo.cli import main
from histo.export.geoparquet import geo_metadata
from histo.pipelines.export_tables import _csv_names
from histo.pipelines.exports.spec import ExportGeojsonSpec
from histo.run.record import RunRecord
from histo.slides.spec import TissueSpec

pytestmark = pytest.mark.usefixtures("inline_ray")


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A label run of one slide of noise, one tile of which could not be read."""
    path = write_tiff(tmp_path / "_s.tif", [noise(1152, 768), noise(72, 48)], mpp=0.5)
    damage_block(path, 0, 20)
    job = make_job(tiny_bundle, tmp_path / "out", tissue=TissueSpec(min_fraction=0).settings())
    label(job, found(Path(path)))
    with RunRecord(job.out, "label", ExportGeojsonSpec(out=job.out), model=str(tiny_bundle)) as record:
        record.finish(0)
    return job.out


def test_geopandas_reads_the_tiles_of_the_table_with_their_outlines(run: Path) -> None:
    assert main(["export", "geoparquet", str(run)]) == 0

    table = pd.read_parquet(run / "tiles" / "%5Fs.tif.parquet")
    frame = geopandas.read_parquet(run / "geoparquet" / "%5Fs.tif.parquet")
    assert frame.crs is None
    pd.testing.assert_frame_equal(pd.DataFrame(frame.drop(columns="geometry")), table)
    expected = shapely.box(table.x, table.y, table.x + table.width, table.y + table.height)
    assert shapely.equals(frame.geometry.to_numpy(), expected).all()
    assert frame.total_bounds.tolist() == [0, 0, 1152, 768]


def test_what_is_exported_is_not_exported_again_and_what_changed_is(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for what in ("geoparquet", "wsinfer"):
        assert main(["export", what, str(run)]) == 0
        capsys.readouterr()
        assert main(["export", what, str(run)]) == 0
        assert "0 to export, 1 done before" in capsys.readouterr().out
    ledger = pq.read_table(run / "slides.parquet")  # as if a tile that could not be read was mended since
    (row,) = ledger.to_pylist()
    pq.write_table(
        pa.Table.from_pylist([row | {"n_failed": row["n_failed"] - 1}], ledger.schema), run / "slides.parquet"
    )

    for what in ("geoparquet", "wsinfer"):
        assert main(["export", what, str(run)]) == 0
        assert "1 to export" in capsys.readouterr().out


def test_the_csv_has_the_columns_and_values_of_wsinfer(run: Path) -> None:
    assert main(["export", "wsinfer", str(run)]) == 0

    file = run / "wsinfer" / "model-outputs-csv" / "%5Fs.csv"
    frame, rows = pd.read_csv(file), rows_of(run / "tiles" / "%5Fs.tif.parquet")
    classes = [name.removeprefix("prob_") for name in rows[0] if name.startswith("prob_")]
    with file.open(newline="") as opened:
        header = next(csv.reader(opened))
    assert header == ["minx", "miny", "width", "height", *(f"prob_{name}" for name in classes)]
    assert frame[["minx", "miny", "width", "height"]].to_numpy().tolist() == [
        [row[name] for name in ("x", "y", "width", "height")] for row in rows
    ]
    for name in classes:
        values = np.array([row[f"prob_{name}"] for row in rows], np.float32)
        np.testing.assert_array_equal(frame[f"prob_{name}"].to_numpy(np.float32), values)


def test_the_record_says_what_wsinfer_says_of_a_run(run: Path, tiny_bundle: Path) -> None:
    assert main(["export", "wsinfer", str(run)]) == 0

    (path,) = (run / "wsinfer").glob("run_metadata_*.json")
    record = json.loads(path.read_text())
    config = record["model"]["config"]
    assert (config["num_classes"], config["patch_size_pixels"], config["spacing_um_px"]) == (3, 96, 0.5)
    assert len(config["class_names"]) == 3
    assert config["architecture"]
    assert record["model"]["path"] == str(tiny_bundle)
    assert record["timestamp"]


def test_files_of_slides_that_are_gone_are_removed(run: Path) -> None:
    for what, name in (
        ("geoparquet", "geoparquet/gone.svs.parquet"),
        ("wsinfer", "wsinfer/model-outputs-csv/gone.csv"),
    ):
        assert main(["export", what, str(run)]) == 0
        gone = run / name
        gone.write_bytes(next(path for path in gone.parent.iterdir() if path.is_file()).read_bytes())

        assert main(["export", what, str(run)]) == 0

        assert not gone.exists()


def test_a_damaged_table_is_said_and_the_exit_code_is_3(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "tiles" / "%5Fs.tif.parquet"
    path.write_bytes(path.read_bytes()[:-100])

    for what in ("geoparquet", "wsinfer"):
        assert main(["export", what, str(run)]) == 3
        assert f"failed: {path}: damaged" in capsys.readouterr().out


def test_regions_are_read_by_geopandas_as_well(run: Path) -> None:
    assert main(["export", "geojson", str(run), "--regions"]) == 0

    frame = geopandas.read_parquet(run / "regions" / "%5Fs.tif.parquet")

    assert frame.geometry.is_valid.all()
    np.testing.assert_allclose(frame.geometry.area * 0.5**2 / 1e6, frame.area_mm2)
    assert frame.bounds.to_numpy().tolist() == frame[["x_min", "y_min", "x_max", "y_max"]].to_numpy().tolist()


def test_names_of_csv_files_stay_apart() -> None:
    assert _csv_names(["a/s.svs", "a/s.tif", "b/t.svs"]) == {
        "a/s.svs": "a/s.svs.csv", "a/s.tif": "a/s.tif.csv", "b/t.svs": "b/t.csv",
    }  # fmt: skip
    names = _csv_names(["x.tif", "x.svs", "x.svs.tif"])
    assert len({*names.values()}) == 3


def test_a_table_without_rows_has_no_bounds() -> None:
    column = json.loads(geo_metadata(["Polygon"], None)[b"geo"])["columns"]["geometry"]

    assert "bbox" not in column
    assert column["crs"] is None
