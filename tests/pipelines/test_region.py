"""The workers of a label run, called in a plain loop: no Ray."""

import json
import os
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from plain_loop import PlainLoop, assert_equal_to_plain_loop, rows_of
from slides.fakes import damage_block

from histo import tables
from histo.demo.fabricate import write_pyramid
from histo.demo.textures import paint
from histo.errors import Cause
from histo.learn.bundle import bundle_hash, hash_file, read_bundle
from histo.pipelines import parts
from histo.pipelines.ledger import Ledger
from histo.pipelines.region import RegionLabeler, plan_regions
from histo.pipelines.work import LabelJob, Row, parse_region
from histo.slides.collection import Collection, FoundSlide, find_slides
from histo.slides.plan import TilingSpec, TissueSpec

CLASSES = ("MUS", "STR", "TUM")


@pytest.fixture
def job(bundle: Path, tmp_path: Path) -> LabelJob:
    return LabelJob(
        out=tmp_path / "out",
        model=bundle,
        model_hash=bundle_hash(bundle),
        weights_sha256=read_bundle(bundle).weights_sha256,
        classes=CLASSES,
        size_px=224,
        stride_px=224,
        mpp=0.5,
        tiling=TilingSpec().model_dump(mode="json"),
        tissue=TissueSpec().model_dump(mode="json"),
        mpp_if_missing=None,
        max_failed_fraction=0.1,
        device="cpu",
        threads=1,
        batch_size=16,
        versions={},
    )


def plan(job: LabelJob, path: Path) -> list[Row]:
    return list(plan_regions({"slide_id": path.name, "files": [os.fsencode(path)]}, job))


def finish(job: LabelJob, path: Path, summaries: list[Row]) -> dict[str, Any]:
    """Enter summaries as the driver does, and return the slide's ledger row."""
    ledger = Ledger(job.out, Collection((FoundSlide(path.name, str(path), (str(path),)),), {}), CLASSES)
    assert [ledger.add(summary) for summary in summaries] == [False] * (len(summaries) - 1) + [True]
    ledger.settle(job, path.name)
    ledger.write(force=True)
    return rows_of(job.out / "slides.parquet")[0]


def damage(path: Path, share: float) -> None:
    """Zero the middle of the largest compressed blocks of level 0 of a slide."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        blocks = sorted(zip(page.databytecounts, page.dataoffsets, strict=True), reverse=True)
    with path.open("r+b") as file:
        for count, offset in blocks[: max(1, int(share * len(blocks)))]:
            file.seek(offset)
            file.write(bytes(count))


@pytest.fixture
def jpeg_slide(tmp_path: Path) -> Path:
    path = tmp_path / "tissue.tif"
    write_pyramid(path, paint("TUM", 1792, 1792, np.random.default_rng(0)), mpp=0.25)
    return path


def test_rows_in_a_plain_loop_equal_the_plainest_loop(job: LabelJob, pyramid: Path, bundle: Path) -> None:
    path = pyramid / "two textures.tif"
    regions, work = plan(job, path), RegionLabeler(job)

    summaries = [work(region) for region in regions]
    row = finish(job, path, summaries)
    parts.merge_slide(job, path.name, summaries[0]["fingerprint"], row["n_tiles"])

    rows = rows_of(job.out / row["tiles_path"])
    assert len(regions) == 2
    assert (row["status"], row["n_ok"], row["n_failed"]) == ("ok", len(rows), 0)
    assert [r["tile_index"] for r in rows] == sorted({r["tile_index"] for r in rows})
    assert_equal_to_plain_loop(rows, PlainLoop(path, block=2), bundle)


def test_the_rows_that_travel_have_the_columns_that_are_declared(job: LabelJob, jpeg_slide: Path) -> None:
    (region,) = plan(job, jpeg_slide)
    jpeg_slide.write_text("not a slide any more")
    (settled,) = plan(job, jpeg_slide)
    work = RegionLabeler(job)

    assert [list(region), list(settled)] == [[column.name for column in tables.REGIONS]] * 2
    assert [list(work(region)), list(work(settled))] == [[column.name for column in tables.SUMMARIES]] * 2


def test_a_second_attempt_overwrites_its_own_part_and_nothing_else(job: LabelJob, pyramid: Path) -> None:
    first, second = plan(job, pyramid / "two textures.tif")
    work = RegionLabeler(job)
    work(first)
    before = {path: path.read_bytes() for path in (job.out / "staging" / "parts").rglob("*.parquet")}

    again = work(first)
    work(second)

    after = {path: path.read_bytes() for path in (job.out / "staging" / "parts").rglob("*.parquet")}
    assert again["n_ok"] == len(first["tile_index"])
    assert len(before) == 1
    assert len(after) == 2
    assert before.items() <= after.items()


def test_the_footer_says_what_made_the_file(job: LabelJob, jpeg_slide: Path) -> None:
    (region,) = plan(job, jpeg_slide)
    summary = RegionLabeler(job)(region)

    footer = pq.read_schema(parts.tiles_file(job.out, jpeg_slide.name)).metadata

    assert footer[b"histo.fingerprint"].decode() == summary["fingerprint"]
    assert json.loads(footer[b"histo.classes"]) == list(CLASSES)
    assert json.loads(footer[b"histo.tiling"])["effective_mpp"] == [0.5, 0.5]
    assert footer[b"histo.model_sha256"].decode() == hash_file(job.model / "model.safetensors")


def test_the_derived_columns_follow_from_the_probabilities(job: LabelJob, jpeg_slide: Path) -> None:
    (region,) = plan(job, jpeg_slide)
    RegionLabeler(job)(region)

    for row in rows_of(parts.tiles_file(job.out, jpeg_slide.name)):
        probabilities = np.array([row[f"prob_{name}"] for name in CLASSES])
        assert row["pred"] == probabilities.argmax()
        assert row["label"] == CLASSES[row["pred"]]
        assert row["confidence"] == pytest.approx(probabilities.max())
        assert row["entropy"] == pytest.approx(-(probabilities * np.log(probabilities)).sum(), abs=1e-5)


def test_an_unreadable_tile_keeps_its_place_and_has_nulls(job: LabelJob, jpeg_slide: Path) -> None:
    damage(jpeg_slide, share=0.001)
    job = replace(job, max_failed_fraction=0.5)
    (region,) = plan(job, jpeg_slide)

    row = finish(job, jpeg_slide, [RegionLabeler(job)(region)])

    rows = rows_of(job.out / row["tiles_path"])
    bad = [r for r in rows if r["status"] == "read_error"]
    assert (row["status"], row["n_ok"], row["n_failed"], row["n_tiles"]) == ("partial", 16 - len(bad), len(bad), 16)
    assert 1 <= len(bad) <= 4, "one block touches four tiles at most"
    for r in bad:
        assert (r["x"], r["y"], r["width"]) == (r["grid_x"] * 448, r["grid_y"] * 448, 448)
        assert r["tissue_fraction"] is not None
        assert {r[name] for name in ("pred", "label", "confidence", "entropy", "prob_TUM")} == {None}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("blocks", [(0,), (1,), (8,), (48,), (8, 24, 40)])
def test_damaged_blocks_cost_the_tiles_whose_pixels_they_hold_and_no_others(
    job: LabelJob, jpeg_slide: Path, blocks: tuple[int, ...], threads: int
) -> None:
    for block in blocks:
        damage_block(str(jpeg_slide), level=0, block=block)
    job = replace(job, threads=threads, max_failed_fraction=0.9)
    (region,) = plan(job, jpeg_slide)

    row = finish(job, jpeg_slide, [RegionLabeler(job)(region)])

    rows = rows_of(job.out / row["tiles_path"])
    bad = {(r["grid_x"], r["grid_y"]) for r in rows if r["status"] == "read_error"}
    assert bad == {tile for block in blocks for tile in tiles_over(block)}
    assert (row["status"], row["n_ok"], row["n_failed"]) == ("partial", 16 - len(bad), len(bad))


def tiles_over(block: int) -> set[tuple[int, int]]:
    """Which of the tiles of 448 level-0 pixels share pixels with one of the file's 7 x 7 blocks of 256."""
    left, top = 256 * (block % 7), 256 * (block // 7)
    return set(product(range(left // 448, (left + 255) // 448 + 1), range(top // 448, (top + 255) // 448 + 1)))


def test_a_slide_with_too_many_unreadable_tiles_is_failed_and_has_no_table(job: LabelJob, jpeg_slide: Path) -> None:
    damage(jpeg_slide, share=0.3)
    (region,) = plan(job, jpeg_slide)

    row = finish(job, jpeg_slide, [RegionLabeler(job)(region)])

    assert (row["status"], row["error_code"], row["tiles_path"]) == ("failed", "bad_tiles", None)
    assert "--max-failed-fraction 0.1" in row["error"]
    assert not parts.tiles_file(job.out, jpeg_slide.name).exists()


def test_a_slide_without_tissue_is_empty_and_has_a_table_without_rows(job: LabelJob, tmp_path: Path) -> None:
    path = tmp_path / "glass.tif"
    write_pyramid(path, np.full((900, 900, 3), 244, np.uint8), mpp=0.25, downsamples=(1,))
    (region,) = plan(job, path)

    row = finish(job, path, [RegionLabeler(job)(region)])

    assert (row["status"], row["n_tiles"], row["fraction_TUM"], row["area_mm2_TUM"]) == ("empty", 0, None, 0)
    assert rows_of(job.out / row["tiles_path"]) == []


def test_areas_do_not_count_overlap_twice(job: LabelJob, jpeg_slide: Path) -> None:
    job = replace(job, stride_px=112)
    (region,) = plan(replace(job, tiling=job.tiling | {"stride_px": 112}), jpeg_slide)

    row = finish(job, jpeg_slide, [RegionLabeler(job)(region)])

    area = sum(row[f"area_mm2_{name}"] for name in CLASSES)
    assert area == pytest.approx(row["n_ok"] * (112 * 0.5) ** 2 / 1e6)
    assert area <= row["tissue_mm2"] * 1.3
    assert sum(row[f"fraction_{name}"] for name in CLASSES) == pytest.approx(1)


def test_work_that_took_two_workers_with_it_is_not_tried_again(job: LabelJob, jpeg_slide: Path) -> None:
    (region,) = plan(job, jpeg_slide)
    marker = job.out / "staging" / "attempts" / jpeg_slide.name / region["region"]
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_bytes(b"..")

    row = finish(job, jpeg_slide, [RegionLabeler(job)(region)])

    assert (row["status"], row["error_code"]) == ("failed", Cause.WORKER_LOST)
    assert "2 workers were lost" in row["error"]


def test_a_failure_that_nobody_foresaw_keeps_its_traceback(job: LabelJob, jpeg_slide: Path) -> None:
    (region,) = plan(job, jpeg_slide)
    labeler = RegionLabeler(job)

    row = finish(job, jpeg_slide, [labeler(region | {"tissue_fraction": [0.5]})])

    assert (row["status"], row["error_code"]) == ("failed", "internal")
    assert "please report this" in row["error"]
    assert "Traceback" in row["traceback"]


def test_a_slide_that_vanishes_is_failed_by_name(job: LabelJob, jpeg_slide: Path) -> None:
    (region,) = plan(job, jpeg_slide)
    jpeg_slide.unlink()

    row = finish(job, jpeg_slide, [RegionLabeler(job)(region)])
    late = finish(job, jpeg_slide, [RegionLabeler(job)(plan(job, jpeg_slide)[0])])

    assert (row["status"], row["error_code"]) == ("failed", "not_a_slide")
    assert (late["status"], late["error_code"]) == ("failed", "unreadable")
    assert "No such file" in late["error"]


@pytest.mark.parametrize("good", [True, False])
def test_a_name_that_is_not_utf8_is_labelled_and_reported_like_any_other(
    job: LabelJob, jpeg_slide: Path, good: bool
) -> None:
    path = jpeg_slide.with_name(os.fsdecode(b"caf\xe9.tif"))
    jpeg_slide.rename(path)
    if not good:
        path.write_text("not a slide")
    (found,) = find_slides(path.parent).slides
    (region,) = plan_regions({"slide_id": found.slide_id, "files": [os.fsencode(found.path)]}, job)
    ledger = Ledger(job.out, Collection((found,), {}), CLASSES)

    ledger.add(RegionLabeler(job)(region))
    status = ledger.settle(job, found.slide_id)
    ledger.write(force=True)

    assert status == ("ok" if good else "failed")
    assert rows_of(job.out / "slides.parquet")[0]["slide_id"].startswith("caf%E9.tif~")


def test_slides_of_an_earlier_run_keep_their_rows(job: LabelJob, jpeg_slide: Path) -> None:
    for name in ("a.tif", "b.tif"):
        Ledger(job.out, Collection((FoundSlide(name, name, (name,)),), {}), CLASSES).write(force=True)

    assert [(row["slide_id"], row["status"]) for row in rows_of(job.out / "slides.parquet")] == [
        ("a.tif", "absent"),
        ("b.tif", "pending"),
    ]


def test_no_more_tiles_are_read_ahead_than_two_batches(job: LabelJob, jpeg_slide: Path) -> None:
    job = replace(job, batch_size=2)
    (region,) = plan(job, jpeg_slide)
    labeler = RegionLabeler(job)
    started: list[int] = []
    read = labeler._read
    labeler._read = lambda index, work: started.append(index) or read(index, work)  # type: ignore[method-assign, func-returns-value]

    first = next(iter(labeler._read_ahead(*parse_region(region))))

    assert first is not None
    assert len(started) <= 2 * job.batch_size + job.threads + 1 < len(region["tile_index"])


def test_the_fingerprint_follows_what_the_rows_depend_on(job: LabelJob, jpeg_slide: Path) -> None:
    def fingerprint(job: LabelJob) -> str:
        return str(json.loads(plan(job, jpeg_slide)[0]["work"])["fingerprint"])

    base = fingerprint(job)

    same = [replace(job, batch_size=3), replace(job, threads=7), replace(job, out=job.out / "elsewhere")]
    other = [
        replace(job, model_hash="x"),
        replace(job, mpp=0.4),
        replace(job, tissue=job.tissue | {"min_fraction": 0.3}),
        replace(job, stride_px=112),
    ]
    assert {fingerprint(j) for j in same} == {base}
    assert len({base, *(fingerprint(j) for j in other)}) == 5
