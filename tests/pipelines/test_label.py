"""The label job from the command line to the tables."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers.label_loop import found, make_job
from helpers.label_loop import label as label_slide
from helpers.plain_loop import PlainLoop, assert_equal_to_plain_loop, rows_of

from histo.cli import main
from histo.learn.openvino.core import has_bf16
from histo.learn.openvino.record import FOLDER, read_conversion
from histo.pipelines.labelling.runtime import openvino_form

pytestmark = pytest.mark.usefixtures("joined_ray")


def label(slides: Path, bundle: Path, out: Path, *flags: str) -> int:
    return main(["label", "--slides", str(slides), "--model", str(bundle), "--out", str(out), *flags])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_rows_of_a_pyramid_equal_those_of_a_plain_loop(
    pyramid: Path, bundle: Path, tmp_path: Path, workers: str
) -> None:
    code = label(pyramid, bundle, tmp_path, "--workers", workers)

    (slide,) = rows_of(tmp_path / "slides.parquet")
    rows = rows_of(tmp_path / "tiles" / "two textures.tif.parquet")
    assert (code, slide["status"], slide["n_tiles"], slide["level"]) == (0, "ok", len(rows), 0)
    assert (slide["effective_mpp"], slide["mpp_source"], slide["vendor"]) == (0.5, "metadata", "generic-tiff")
    assert [row["tile_index"] for row in rows] == sorted(row["tile_index"] for row in rows)
    assert_equal_to_plain_loop(rows, PlainLoop(pyramid / "two textures.tif", block=2), bundle)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "slides.parquet", "tiles"]


@pytest.mark.realdata
def test_every_real_slide_gets_its_ledger_row(shared: Path, bundle: Path, tmp_path: Path) -> None:
    code = label(shared / "slides", bundle, tmp_path)

    slides = {row["slide_id"]: row for row in rows_of(tmp_path / "slides.parquet")}
    assert code == 3
    assert {name: (row["status"], row["error_code"]) for name, row in slides.items()} == {
        "CMU-1-Small-Region.svs": ("ok", None),
        "bad/broken.svs": ("failed", "not_a_slide"),
        "bad/kidney-48-5.tif": ("failed", "not_a_slide"),
        "bad/small_dicom.dcm": ("failed", "not_a_slide"),
        "bad/unopenable.tiff": ("failed", "not_a_slide"),
        "bad/unreadable.svs": ("failed", "unreadable"),
        "format/boxes.tiff": ("failed", "implausible_mpp"),
        "format/boxes_0.dcm": ("empty", None),
        "format/small.svs": ("empty", None),
        "tcga-cr-7395-01a-01-ts1.svs": ("failed", "no_mpp"),
    }
    assert all(row["error"] for row in slides.values() if row["status"] == "failed")
    assert "--mpp-if-missing" in slides["tcga-cr-7395-01a-01-ts1.svs"]["error"]
    assert {name for name, row in slides.items() if row["tiles_path"]} == {
        path.relative_to(tmp_path / "tiles").as_posix().removesuffix(".parquet")
        for path in (tmp_path / "tiles").rglob("*.parquet")
    }
    cmu = rows_of(tmp_path / slides["CMU-1-Small-Region.svs"]["tiles_path"])
    assert slides["CMU-1-Small-Region.svs"]["effective_mpp"] == pytest.approx(0.499)
    assert_equal_to_plain_loop(cmu, PlainLoop(shared / "slides" / "CMU-1-Small-Region.svs", block=1), bundle)


@pytest.mark.realdata
def test_a_slide_without_resolution_is_ok_with_the_one_given(shared: Path, bundle: Path, tmp_path: Path) -> None:
    path = shared / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    job = make_job(bundle, tmp_path, mpp_if_missing=0.5)

    slide = label_slide(replace(job, tissue=job.tissue | {"min_fraction": 0.95}), found(path))

    rows = rows_of(tmp_path / slide["tiles_path"])
    assert (slide["status"], slide["mpp_source"], slide["mpp_x"]) == ("ok", "if_missing", 0.5)
    assert len(rows) > 100
    assert_equal_to_plain_loop(rows[:10], PlainLoop(path, block=1), bundle)


def test_a_refused_run_changes_nothing_and_one_that_overwrites_leaves_nothing_of_before(
    bundle: Path, pyramid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = tmp_path / "renamed"
    shutil.copytree(bundle, renamed)
    document = json.loads((renamed / "model.json").read_text())
    (renamed / "model.json").write_text(json.dumps(document | {"classes": ["MUS", "STR", "LYM"]}))
    strict = ["--tissue.min-fraction", "1", "--workers", "1"]
    assert label(pyramid, bundle, tmp_path / "out", *strict) == 0
    first = rows_of(tmp_path / "out" / "tiles" / "two textures.tif.parquet")
    records = {name: (tmp_path / "out" / name).read_bytes() for name in ("run.json", "slides.parquet")}

    assert label(pyramid, renamed, tmp_path / "out", *strict) == 2
    assert "holds results of a bundle with other classes" in capsys.readouterr().err
    assert label(pyramid, bundle, tmp_path / "out", "--device", "gpu", "--workers", "999") == 2
    assert records == {name: (tmp_path / "out" / name).read_bytes() for name in records}
    assert rows_of(tmp_path / "out" / "tiles" / "two textures.tif.parquet") == first

    assert label(pyramid, renamed, tmp_path / "out", *strict, "--overwrite") == 0

    again = rows_of(tmp_path / "out" / "tiles" / "two textures.tif.parquet")
    assert [row["prob_LYM"] for row in again] == pytest.approx([row["prob_TUM"] for row in first], abs=1e-6)
    (slide,) = rows_of(tmp_path / "out" / "slides.parquet")
    assert (slide["status"], slide["attempts"], "fraction_TUM" in slide) == ("ok", 1, False)

    record = json.loads((tmp_path / "out" / "run.json").read_text())
    (tmp_path / "out" / "run.json").write_text(json.dumps(record | {"exit_code": None}))
    capsys.readouterr()
    assert label(pyramid, renamed, tmp_path / "out", *strict, "--overwrite") == 0
    assert "1 done before" in capsys.readouterr().out, "a run that was to overwrite, and was killed, goes on"


def test_a_bundle_that_is_not_converted_is_converted_once(
    pyramid: Path, bare_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(bare_bundle, tmp_path / "model"))

    assert label(pyramid, bundle, tmp_path / "out") == 0
    first = capsys.readouterr().out

    assert f"{bundle}: converting the network for CPUs, once" in first
    assert read_conversion(bundle / FOLDER, bundle) is not None
    assert openvino_form(bundle, tmp_path / "out", bundle) == bundle / FOLDER
    assert "converting" not in capsys.readouterr().out


def test_bf16_is_refused_until_it_is_known_to_agree_and_then_stands_in_the_footer(
    pyramid: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "model"))
    record = bundle / FOLDER / "conversion.json"
    agreement = {"tiles": 100, "same_class": 1.0, "mean_difference": 0.001, "max_difference": 0.01, "device": "cpu"}

    def refusal() -> str:
        assert label(pyramid, bundle, tmp_path / "out", "--precision", "bf16") == 2
        return capsys.readouterr().err

    assert (
        "its agreement with float32 was not measured; use float32, or measure it with `histo convert --model"
        in refusal()
    )
    record.write_text(json.dumps(json.loads(record.read_text()) | {"bf16": agreement | {"same_class": 0.9}}))
    assert "same class on 90.00% of 100 cases" in refusal()
    assert not (tmp_path / "out").exists()

    record.write_text(json.dumps(json.loads(record.read_text()) | {"bf16": agreement}))
    code = label(pyramid, bundle, tmp_path / "out", "--precision", "bf16")

    if not has_bf16():
        assert code == 1
        assert "this CPU has no bfloat16 arithmetic" in capsys.readouterr().err
        return
    assert code == 0
    footer = pq.read_schema(tmp_path / "out" / "tiles" / "two textures.tif.parquet").metadata
    assert json.loads(footer[b"histo.precision"]) == {"precision": "bf16", "agreement": agreement}
    assert 0 <= json.loads((tmp_path / "out" / "run.json").read_text())["waiting_for_pixels"] < 1
