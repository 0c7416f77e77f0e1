"""Slides of every vendor that the README names, labelled in one run, beside a plain loop over OpenSlide."""

from pathlib import Path

import pytest
from helpers.label_loop import found, make_job
from helpers.label_loop import label as label_alone
from helpers.plain_loop import PlainLoop, assert_equal_to_plain_loop, rows_of
from helpers.vendor_slides import WRITERS, picture

from histo.cli import main


@pytest.mark.slow
@pytest.mark.usefixtures("joined_ray")
def test_a_slide_of_every_vendor_gets_the_table_of_a_plain_loop(shared: Path, bundle: Path, tmp_path: Path) -> None:
    image, paths = picture(shared, height=768), {}
    for name, (_, write) in WRITERS.items():
        (tmp_path / "slides" / name).mkdir(parents=True)
        paths[name] = write(tmp_path / "slides" / name, image, 0.5)

    flags = ["--slides", str(tmp_path / "slides"), "--model", str(bundle), "--out", str(tmp_path / "out")]
    code = main(["label", *flags, "--workers", "2"])

    slides = {Path(row["slide_id"]).parent.name: row for row in rows_of(tmp_path / "out" / "slides.parquet")}
    assert {name: (row["status"], row["vendor"], row["reader"]) for name, row in slides.items()} == {
        name: ("ok", vendor, "openslide") for name, (vendor, _) in WRITERS.items()
    }
    assert code == 0
    assert min(row["n_tiles"] for row in slides.values()) >= 4
    for name, path in paths.items():
        rows = rows_of(tmp_path / "out" / slides[name]["tiles_path"])
        assert_equal_to_plain_loop(rows, PlainLoop(path, block=1), bundle)


@pytest.mark.realdata
def test_a_slide_from_the_field_is_what_it_is_and_not_damaged(shared: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    (path,) = (shared / "field").glob("*.ndpi")

    slide = label_alone(make_job(tiny_bundle, tmp_path), found(path))

    assert (slide["status"], slide["error_code"]) == ("failed", "not_brightfield")
    assert "as are fluorescence and" in slide["error"]
