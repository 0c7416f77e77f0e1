"""The plan of a label run: slides are looked at, and a sample is labelled, before the run begins."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.drawn import make_slide
from helpers.label_loop import label_collection, make_job
from helpers.plain_loop import rows_of
from helpers.s3_server import BUCKET, s3_server, upload, use_server

import histo.slides.plan
from histo.cli import main
from histo.demo.fabricate import write_pyramid
from histo.learn.bundle import read_bundle
from histo.pipelines.labelling.spec import LabelSpec
from histo.pipelines.labelling.tasks import LabelJob
from histo.pipelines.planning import calibration
from histo.pipelines.planning.calibration import Pace
from histo.pipelines.planning.page import Totals

OF_THE_PLAN = ("size_bytes", "vendor", "reader", "width", "height", "mpp_x", "mpp_source", "level", "effective_mpp")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides, a copy of one, one of glass, one without a resolution, and two files that are no slides."""
    root = tmp_path_factory.mktemp("slides")
    make_slide(root, "a.tif", seed=1)
    make_slide(root / "below", "b.tif", seed=2)
    shutil.copyfile(root / "a.tif", root / "below" / "copy of a.tif")
    write_pyramid(root / "glass.tif", np.full((1200, 1200, 3), 244, np.uint8), mpp=0.25)
    write_pyramid(root / "unknown.tif", np.full((1200, 1200, 3), 244, np.uint8), mpp=None)
    (root / "broken.svs").write_bytes(b"no slide")
    (root / "empty.svs").write_bytes(b"")
    return root


def plan(slides: object, out: Path, *flags: str) -> int:
    return main(["plan", "--slides", str(slides), "--out", str(out), *flags])


def planned(out: Path) -> dict[str, dict[str, Any]]:
    return {row["slide_id"]: row for row in rows_of(out / "plan.parquet")}


@pytest.mark.usefixtures("inline_ray")
def test_headers_say_formats_copies_failures_and_the_tiles_of_whole_grids(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(slides, tmp_path) == 3

    rows, said = planned(tmp_path), capsys.readouterr().out
    assert {name: row["status"] for name, row in rows.items()} == {
        "a.tif": "ready",
        "below/b.tif": "ready",
        "below/copy of a.tif": "ready",
        "broken.svs": "fails",
        "empty.svs": "fails",
        "glass.tif": "ready",
        "unknown.tif": "fails",
    }
    assert rows["a.tif"]["n_grid"] == -(-2816 // 448) * -(-2176 // 448)
    assert rows["a.tif"]["n_tiles"] is None
    assert rows["below/copy of a.tif"]["duplicate_of"] == "a.tif"
    assert [name for name, row in rows.items() if row["duplicate_of"]] == ["below/copy of a.tif"]
    assert "slides    ready 4, fails 3" in said
    assert "µm/px     0.25 (metadata) 4, missing 1 (--mpp-if-missing, or a list that says it)" in said
    assert f"tiles     at most {sum(row['n_grid'] or 0 for row in rows.values())} of 224 px at 0.5 µm/px" in said
    assert "copies    1 slides have the content of another one" in said
    assert "fails     not_a_slide 2, no_mpp 1" in said
    assert "time " not in said, "there is no bundle to measure it with"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.parquet"]


@pytest.mark.usefixtures("inline_ray")
def test_an_exact_plan_says_what_becomes_of_every_slide(slides: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    size_px = str(read_bundle(tiny_bundle).input.size_px)
    assert plan(slides, tmp_path / "plan", "--exact", "--size-px", size_px) == 3

    rows = planned(tmp_path / "plan")
    labelled = label_collection(make_job(tiny_bundle, tmp_path / "out"), slides)
    assert {name: row["n_tiles"] for name, row in rows.items()} == {n: row["n_tiles"] for n, row in labelled.items()}
    assert {name: (row["error_code"], row["error"]) for name, row in rows.items()} == {
        name: (row["error_code"], row["error"]) for name, row in labelled.items()
    }
    for name in OF_THE_PLAN:
        assert {n: row[name] for n, row in rows.items()} == {n: row[name] for n, row in labelled.items()}, name
    assert rows["glass.tif"]["status"] == "empty"


def spec_of(slides: Path, bundle: Path, out: Path, **settings: Any) -> LabelJob:
    """The job that `histo label` makes."""
    from histo.pipelines.labelling.slides import label_job  # noqa: PLC0415 -- of this test alone

    spec = LabelSpec(slides=str(slides), model=bundle, out=out, **settings)
    return label_job(spec, bundle, bundle, read_bundle(bundle))


@pytest.mark.usefixtures("inline_ray")
def test_a_label_run_takes_tiles_from_a_fresh_plan_and_from_no_other(
    slides: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, out = Path(shutil.copytree(slides, tmp_path / "slides")), tmp_path / "out"
    reference = label_collection(spec_of(mine, tiny_bundle, tmp_path / "plain"), mine)
    flags = ["--exact", "--size-px", str(read_bundle(tiny_bundle).input.size_px)]
    assert plan(mine, out, *flags) == 3
    searched: list[str] = []
    real = histo.slides.plan.find_tissue

    def find_tissue(reader: Any, slide: Any, *settings: Any) -> Any:
        searched.append(Path(slide.path).name)
        return real(reader, slide, *settings)

    monkeypatch.setattr(histo.slides.plan, "find_tissue", find_tissue)

    def label(**settings: Any) -> dict[str, Any]:
        searched.clear()
        return label_collection(spec_of(mine, tiny_bundle, out, **settings), mine)

    rows = label()
    assert searched == []
    assert [(row["status"], row["n_tiles"], row["tissue_mm2"]) for row in rows.values()] == [
        (row["status"], row["n_tiles"], row["tissue_mm2"]) for row in reference.values()
    ]
    for name in ("a.tif", "below/b.tif"):
        assert rows_of(out / f"tiles/{name}.parquet") == rows_of(tmp_path / f"plain/tiles/{name}.parquet")

    label(tissue={"min_fraction": 0.9})
    assert sorted(searched) == ["a.tif", "b.tif", "copy of a.tif", "glass.tif"], "other settings, other tiles"

    make_slide(mine, "a.tif", seed=9)
    os.utime(mine / "a.tif", (1, 1))
    rows = label()
    assert searched == ["a.tif"], "another slide in its place"
    (kept,) = (out / "plan" / "below").glob("b.tif.parquet")
    kept.write_bytes(kept.read_bytes()[:-20])
    shutil.rmtree(out / "tiles")
    label()
    assert sorted(searched) == ["a.tif", "b.tif"], "a damaged plan is none"


@pytest.mark.usefixtures("inline_ray")
def test_a_list_gives_resolutions_and_columns(slides: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"uri,slide_id,mpp,scanner\n{slides}/unknown.tif,u,0.5,old\n")

    assert plan(tmp_path / "list.csv", tmp_path) == 0

    row = planned(tmp_path)["u"]
    assert (row["mpp_x"], row["mpp_source"], row["scanner"], row["status"]) == (0.5, "list", "old", "ready")


@pytest.mark.usefixtures("inline_ray")
def test_remote_slides_are_fetched_for_an_exact_plan_alone(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as port:
        use_server(monkeypatch, port)
        upload(slides, "plan")
        where, cache = f"s3://{BUCKET}/plan", ["--cache.folder", str(tmp_path / "cache")]

        assert plan(where, tmp_path / "quick", *cache) == 0
        assert {row["status"] for row in planned(tmp_path / "quick").values()} == {"unseen"}
        assert planned(tmp_path / "quick")["a.tif"]["size_bytes"] == (slides / "a.tif").stat().st_size
        assert not (tmp_path / "cache").exists()

        assert plan(where, tmp_path / "exact", "--exact", *cache) == 3
    assert plan(slides, tmp_path / "local", "--exact") == 3
    remote, local = planned(tmp_path / "exact"), planned(tmp_path / "local")
    assert {name: (row["status"], row["n_tiles"]) for name, row in remote.items()} == {
        name: (row["status"], row["n_tiles"]) for name, row in local.items()
    }


@pytest.mark.usefixtures("joined_ray")
@pytest.mark.parametrize("exact", [True, False])
def test_a_bundle_gives_the_time_and_the_disk(
    slides: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    exact: bool,
) -> None:
    monkeypatch.setattr(calibration, "_AIM_S", 2.0)
    flags = ["--model", str(tiny_bundle), "--workers", "1", *(["--exact"] if exact else [])]
    assert plan(slides, tmp_path / "plan", *flags) == 3

    rows, said = planned(tmp_path / "plan"), capsys.readouterr().out
    assert "time      about " in said
    assert "with 1 worker: " in said
    seconds = {name: row["label_seconds"] for name, row in rows.items()}
    assert all((seconds[name] is not None) == (row["status"] == "ready") for name, row in rows.items())
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == ["plan", "plan.parquet"]
    if exact:
        assert (
            main(["label", "--slides", str(slides), "--model", str(tiny_bundle), "--out", str(tmp_path / "out")]) == 3
        )
        tables = list((tmp_path / "out" / "tiles").rglob("*.parquet"))
        row_bytes = sum(path.stat().st_size for path in tables) / sum(
            pq.read_metadata(path).num_rows for path in tables
        )
        told = next(line for line in said.splitlines() if line.startswith("disk "))
        kilobytes = float(told.split()[2])
        assert told.split()[3] == "kB"
        assert kilobytes * 1000 == pytest.approx(sum(path.stat().st_size for path in tables), rel=0.3), row_bytes


@pytest.mark.usefixtures("inline_ray")
def test_a_size_of_tiles_contradicts_a_bundle(
    slides: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(slides, tmp_path, "--model", str(tiny_bundle), "--size-px", "96") == 2
    assert "--size-px" in capsys.readouterr().err


@pytest.mark.usefixtures("inline_ray")
def test_a_plan_is_made_in_the_folder_of_no_other_job(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text('{"command": "train", "spec": {}}')

    assert plan(slides, tmp_path) == 2
    assert "holds the results of another job" in capsys.readouterr().err


def row(status: str, n_grid: int | None = None, n_tiles: int | None = None) -> dict[str, Any]:
    return {"status": status, "n_grid": n_grid, "n_tiles": n_tiles, "seconds": 2.0}


def test_totals_of_headers_are_scaled_by_the_sample() -> None:
    pace = Pace(10.0, 0.5, 0.01, 4, 1000.0, 50.0, 2, 30)
    rows = [row("ready", 1000), row("ready", 3000), row("unseen"), row("fails")]
    sample = [row("ready", 1000, 200), row("ready", 3000, 600)]

    totals = Totals.of(rows, sample, False, pace, 8)

    assert (totals.slides, totals.most_tiles, totals.tiles) == (3, 4000, 800 + 400)
    assert totals.wall_s == pytest.approx(10 + (3 * 0.5 + 1200 * 0.01) / 4 + 3 * 2.0 / 8)
    assert totals.disk_bytes == 3 * 1000 + 1200 * 50
    assert totals.tiles_of(rows[1]) == 600


def test_totals_of_an_exact_plan_are_its_tiles() -> None:
    rows = [row("ready", 1000, 10), row("empty", 50, 0), row("fails")]

    totals = Totals.of(rows, [rows[0]], True, Pace(10.0, 0.5, 0.01, 4, 0.0, 0.0, 1, 10), 8)

    assert (totals.slides, totals.tiles) == (1, 10)
    assert totals.wall_s == pytest.approx(10 + (0.5 + 10 * 0.01) / 4)
