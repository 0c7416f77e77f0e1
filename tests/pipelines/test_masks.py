"""Tissue masks from elsewhere: they restrict or replace the tissue that is found, and belong to the slide's files."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from helpers.drawn import feature, make_slide, outlines, write_features
from helpers.fake_slides import fake_slide
from helpers.label_loop import label, make_job
from helpers.plain_loop import rows_of

import histo
from histo.demo.fabricate import CLASSES, SlideTruth
from histo.errors import UsageError
from histo.pipelines.derived.slide_files import rows_id
from histo.pipelines.labelling.tasks import LabelJob
from histo.slides.annotations.mask import masked, with_masks
from histo.slides.finding.find import find_slides
from histo.slides.spec import TissueSpec
from histo.slides.tissue import TissueMask
from histo.tables import Row


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> SlideTruth:
    return make_slide(tmp_path_factory.mktemp("masked") / "slides")


def label_masked(bundle: Path, truth: SlideTruth, out: Path, mask: Path, **settings: Any) -> tuple[LabelJob, Row]:
    """Label the slide as `histo label --tissue.mask` does."""
    tissue = TissueSpec(mask=mask, **settings)
    (slide,) = with_masks(find_slides(truth.path), tissue).slides
    job = make_job(bundle, out, tissue=tissue.settings(), size_px=96, stride_px=96, masked=True)
    return job, label(job, slide)


def tiles(job: LabelJob, row: Row) -> dict[int, float]:
    return {tile["tile_index"]: tile["tissue_fraction"] for tile in rows_of(job.out / row["tiles_path"])}


def draw(folder: Path, truth: SlideTruth, form: str, bundle: Path) -> Path:
    """Draw what is TUM: as shapes, as an image of the map's own scale, or as tiles of a label run."""
    chosen = truth.classes == CLASSES.index("TUM")
    if form == "geojson":
        write_features(folder / "s.geojson", [feature(outlines(truth)["TUM"], "TUM")])
    elif form == "png":
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "s.png"), chosen.astype(np.uint8))
    return folder


def test_shapes_and_images_give_the_same_tiles(truth: SlideTruth, tiny_bundle: Path, tmp_path: Path) -> None:
    found = {}
    for form in ("geojson", "png"):
        folder = draw(tmp_path / form, truth, form, tiny_bundle)
        for use in ("restrict", "replace"):
            found[form, use] = tiles(*label_masked(tiny_bundle, truth, tmp_path / form / use, folder, mask_use=use))

    plain = make_job(tiny_bundle, tmp_path / "plain", size_px=96, stride_px=96)
    all_tiles = tiles(plain, label(plain, find_slides(truth.path).slides[0]))
    assert found["geojson", "restrict"] == found["png", "restrict"]
    assert found["geojson", "replace"] == found["png", "replace"]
    assert 0 < len(found["geojson", "restrict"]) < len(all_tiles)
    assert found["geojson", "restrict"].keys() <= all_tiles.keys()
    exact = {index: outlines(truth)["TUM"].intersection(_tile(index)).area / 192**2 for index in all_tiles}
    assert found["geojson", "replace"].keys() == {index for index, share in exact.items() if share >= 0.25}
    for index, share in found["geojson", "replace"].items():
        assert share == pytest.approx(exact[index], abs=1e-6), "cells of 32 px are pixels of the mask"


def _tile(index: int) -> shapely.Geometry:
    y, x = divmod(index, -(-2816 // 192))
    return shapely.box(x * 192, y * 192, (x + 1) * 192, (y + 1) * 192)


def test_a_table_of_another_bundle_gives_its_tiles_of_the_chosen_classes(
    truth: SlideTruth, tiny_bundle: Path, tmp_path: Path
) -> None:
    other = make_job(tiny_bundle, tmp_path / "other", size_px=96, stride_px=96)
    row = label(other, find_slides(truth.path).slides[0])
    rows = rows_of(other.out / row["tiles_path"])
    kept = max(other.classes, key=lambda name: sum(tile["label"] == name for tile in rows))

    job, masked = label_masked(
        tiny_bundle, truth, tmp_path / "out", other.out, mask_classes=[kept], mask_use="replace", min_fraction=0.6
    )

    assert tiles(job, masked).keys() == {tile["tile_index"] for tile in rows if tile["label"] == kept}
    with pytest.raises(UsageError, match=r"a table of labels; name those that count with --tissue\.mask-classes: "):
        label_masked(tiny_bundle, truth, tmp_path / "none", other.out)


def test_names_that_do_not_count_are_cut_out_of_those_that_do(
    truth: SlideTruth, tiny_bundle: Path, tmp_path: Path
) -> None:
    whole, fold = shapely.box(192, 192, 1920, 1920), shapely.box(576, 576, 960, 960)
    write_features(tmp_path / "m" / "s.geojson", [feature(whole, "Tissue"), feature(fold, "Fold")])

    job, row = label_masked(
        tiny_bundle,
        truth,
        tmp_path / "out",
        tmp_path / "m",
        mask_classes=["Tissue"],
        mask_use="replace",
        min_fraction=1,
    )

    inside = whole.difference(fold)
    assert tiles(job, row).keys() == {i for i in range(15 * 12) if inside.contains(_tile(i))}


def test_a_slide_without_a_mask_fails_and_is_labelled_once_it_has_one(
    truth: SlideTruth, tiny_bundle: Path, tmp_path: Path
) -> None:
    write_features(tmp_path / "m" / "other.geojson", [])
    tissue = TissueSpec(mask=tmp_path / "m")
    with pytest.raises(
        UsageError, match=r"none is named as a slide, and it holds other\.geojson; that of s\.tif would be"
    ):
        with_masks(find_slides(truth.path), tissue)
    job = make_job(tiny_bundle, tmp_path / "out", tissue=tissue.settings(), size_px=96, stride_px=96, masked=True)

    failed = label(job, find_slides(truth.path).slides[0])
    write_features(tmp_path / "m" / "s.geojson", [feature(outlines(truth)["TUM"], "TUM")])
    (slide,) = with_masks(find_slides(truth.path), tissue).slides
    done = label(job, slide)

    assert (failed["status"], failed["error_code"]) == ("failed", "bad_annotation")
    assert "no mask is named as this slide" in failed["error"]
    assert done["status"] == "ok"


def test_a_changed_mask_is_a_changed_slide_and_a_moved_one_is_not(
    truth: SlideTruth, tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = draw(tmp_path / "m", truth, "geojson", tiny_bundle)
    _, first = label_masked(tiny_bundle, truth, tmp_path / "out", folder)
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))

    _, same = label_masked(tiny_bundle, truth, tmp_path / "out", moved)
    write_features(moved / "s.geojson", [feature(shapely.box(300, 300, 900, 900), "TUM")])
    _, other = label_masked(tiny_bundle, truth, tmp_path / "out", moved)

    assert first["fingerprint"] == same["fingerprint"] != other["fingerprint"]
    assert other["n_tiles"] < first["n_tiles"]


def test_another_mask_of_the_same_size_and_an_older_time_is_another_mask(
    truth: SlideTruth, tiny_bundle: Path, tmp_path: Path
) -> None:
    left, right = (tmp_path / name for name in ("left", "right"))
    for folder, x in ((left, 200), (right, 350)):
        write_features(folder / "s.geojson", [feature(shapely.box(x, 300, x + 600, 900), "TUM")])
        os.utime(folder / "s.geojson", (1, 1))
    assert (left / "s.geojson").stat().st_size == (right / "s.geojson").stat().st_size

    first_job, first = label_masked(tiny_bundle, truth, tmp_path / "out", left)
    before = tiles(first_job, first)
    job, second = label_masked(tiny_bundle, truth, tmp_path / "out", right)

    assert first["mask_sha256"] != second["mask_sha256"]
    assert tiles(job, second).keys() != before.keys()


def test_a_class_that_no_mask_has_is_refused(truth: SlideTruth, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path / "m", truth, "geojson", tiny_bundle)

    with pytest.raises(UsageError, match=r"--tissue\.mask-classes Tumour: in no mask; they have TUM"):
        label_masked(tiny_bundle, truth, tmp_path / "out", folder, mask_classes=["Tumour"])
    with pytest.raises(UsageError, match=r"--tissue\.mask-classes: a setting of masks; give --tissue\.mask, too"):
        with_masks(find_slides(truth.path), TissueSpec(mask_classes=["TUM"]))


@pytest.mark.parametrize(("bounds", "left"), [(True, 1000), (False, 0)])
def test_coordinates_of_a_mask_count_from_the_scanned_part_unless_it_is_said(
    tmp_path: Path, bounds: bool, left: int
) -> None:
    path = write_features(tmp_path / "s.geojson", [feature(shapely.box(0, 0, 320, 160), "TUM")])
    slide = replace(fake_slide(3200, 1600), bounds=(1000, 0, 1600, 1600))
    tissue = TissueSpec(mask=path, mask_bounds=bounds)

    found = masked(TissueMask(np.ones((50, 100), np.bool_), 32, 32), slide, tissue, str(path)).mask

    columns = np.flatnonzero(found.any(axis=0))
    assert columns[0] == round(left / 32)
    assert len(columns) == 10


def test_tiles_that_were_mended_are_other_rows() -> None:
    row: Row = {"fingerprint": "f", "n_failed": 0}

    assert rows_id(row) == "f"
    assert rows_id(row | {"n_failed": 2}) != rows_id(row | {"n_failed": 1}) != "f"


def test_a_damaged_mask_fails_the_slide(truth: SlideTruth, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "s.geojson").write_text("{")

    _, row = label_masked(tiny_bundle, truth, tmp_path / "out", tmp_path / "m")

    assert (row["status"], row["error_code"]) == ("failed", "bad_annotation")
    assert "s.geojson: not JSON" in row["error"]


def test_python_finds_the_tiles_of_the_command(truth: SlideTruth, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path / "m", truth, "geojson", tiny_bundle)
    job, row = label_masked(tiny_bundle, truth, tmp_path / "out", folder)

    with histo.open_slide(truth.path) as slide:
        found = slide.tiles(0.5, 96, tissue={"mask": folder})
        alone = slide.tiles(0.5, 96, tissue=TissueSpec(mask=folder / "s.geojson"))

    assert found.tile_index.tolist() == alone.tile_index.tolist() == [*tiles(job, row)]


def test_settings_of_runs_without_masks_are_what_they_were() -> None:
    assert TissueSpec().settings() == {"min_fraction": 0.25, "mpp": 8.0, "exclude_ink": True}
