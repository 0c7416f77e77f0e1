"""The workers of a label run, called in a plain loop: no Ray."""

import json
import os
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from helpers.fake_slides import damage_block, omit_block
from helpers.label_loop import found, label, make_job, plan, tasks
from helpers.mutated_slides import tissue, write_svs
from helpers.plain_loop import PlainLoop, assert_equal_to_plain_loop, rows_of
from hypothesis import given
from hypothesis import strategies as st

from histo.demo.fabricate import write_pyramid
from histo.demo.textures import paint
from histo.errors import HistoError
from histo.learn.bundle import hash_file
from histo.pipelines.labelling import graph, region_reader, tile_tables
from histo.pipelines.labelling.region_reader import RegionReader
from histo.pipelines.labelling.region_worker import RegionLabeler, TileClassifier, cut_batches
from histo.pipelines.labelling.runtime import Runtime
from histo.pipelines.labelling.slide_ledger import SlideLedger
from histo.pipelines.labelling.stages import LabelPlacement
from histo.pipelines.labelling.tasks import LabelJob, RegionTask, SlideTask, SlideWork, Summary
from histo.pipelines.labelling.work_clock import Clock
from histo.run.stream.worker import Handed
from histo.slides import tiles
from histo.slides.finding.collection import Collection
from histo.slides.finding.find import find_slides
from histo.slides.grid import Region
from histo.slides.spec import ReaderChoice
from histo.slides.tiles import cut_blocks

CLASSES = ("MUS", "STR", "TUM")


@pytest.fixture
def job(bundle: Path, tmp_path: Path) -> LabelJob:
    return make_job(bundle, tmp_path / "out")


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


@pytest.mark.slow
def test_rows_in_a_plain_loop_equal_the_plainest_loop(job: LabelJob, pyramid: Path, bundle: Path) -> None:
    path = pyramid / "two textures.tif"

    row = label(job, found(path))

    rows = rows_of(job.out / row["tiles_path"])
    assert len(tasks(replace(job, out=job.out / "other"), found(path))) == 2
    assert (row["status"], row["n_ok"], row["n_failed"]) == ("ok", len(rows), 0)
    assert [r["tile_index"] for r in rows] == sorted({r["tile_index"] for r in rows})
    assert_equal_to_plain_loop(rows, PlainLoop(path, block=2), bundle)


def test_what_travels_between_processes_is_what_it_was(job: LabelJob, jpeg_slide: Path) -> None:
    planned = plan(job, found(jpeg_slide))
    (row,) = graph.plan(SlideTask("s", (str(jpeg_slide),), again=True), job, None)
    region, work = pickle.loads(row["task"])

    assert work.grid == planned.work.grid
    assert region.tile_index.tolist() == planned.regions[0].tile_index.tolist()


def test_a_slide_of_which_no_tile_is_to_be_read_has_its_answer_at_once(job: LabelJob, jpeg_slide: Path) -> None:
    jpeg_slide.write_text("not a slide any more")

    (row,) = graph.plan(SlideTask("s", (str(jpeg_slide),)), job, None)

    assert row["task"] == b""
    assert pickle.loads(row["answer"]).error_code == "not_a_slide"


@pytest.mark.parametrize(
    ("slides", "gpus", "regions"), [(1, 0, 1), (499, 0, 1), (1000, 0, 4), (9000, 0, 16), (1, 1, 8)]
)
def test_large_collections_and_gpus_have_several_regions_in_a_block(slides: int, gpus: int, regions: int) -> None:
    assert graph.regions_per_block(slides, LabelPlacement(2, gpus, 1)) == regions


@pytest.mark.parametrize(("slides", "workers", "together"), [(8, 2, True), (7, 2, False), (100, 26, False)])
def test_regions_of_remote_slides_stay_together_where_there_are_enough(
    slides: int, workers: int, together: bool
) -> None:
    found = graph.regions_per_block(slides, LabelPlacement(workers, 0, 1), are_remote=True)

    assert (found > 100) == together
    assert graph.regions_per_block(slides, LabelPlacement(workers, 0, 1, readers=3), are_remote=True) == 1


@pytest.mark.slow
def test_a_second_attempt_overwrites_its_own_part_and_nothing_else(job: LabelJob, pyramid: Path) -> None:
    first, second = tasks(job, found(pyramid / "two textures.tif"))
    work = RegionLabeler(job)
    work(first.region, first.work)
    (part,) = staged(job)
    part.write_bytes(b"of a worker that was killed by a disk")

    again = work(first.region, first.work)
    before = {path: path.read_bytes() for path in staged(job)}
    work(second.region, second.work)

    after = {path: path.read_bytes() for path in staged(job)}
    assert again.counts is not None
    assert again.counts.n_ok == len(first.region.tile_index)
    assert (len(before), len(after)) == (1, 2)
    assert before.items() <= after.items()


def staged(job: LabelJob) -> list[Path]:
    return sorted((job.out / "staging" / "parts").rglob("*.parquet"))


@pytest.mark.parametrize("name", ["tissue.tif", "two textures.tif"])
def test_the_footer_says_what_made_the_file(job: LabelJob, jpeg_slide: Path, pyramid: Path, name: str) -> None:
    row = label(job, found((jpeg_slide.parent if name == jpeg_slide.name else pyramid) / name))

    footer = pq.read_schema(job.out / row["tiles_path"]).metadata
    slide = json.loads(footer[b"histo.slide"])

    assert footer[b"histo.fingerprint"].decode() == row["fingerprint"]
    assert json.loads(footer[b"histo.classes"]) == list(CLASSES)
    assert json.loads(footer[b"histo.tiling"])["effective_mpp"] == [0.5, 0.5]
    assert json.loads(footer[b"histo.precision"]) == {"precision": "float32", "agreement": None}
    assert footer[b"histo.model_sha256"].decode() == hash_file(job.model / "model.safetensors")
    assert {name: row[name] for name in slide} == slide


def test_the_derived_columns_follow_from_the_probabilities(job: LabelJob, jpeg_slide: Path) -> None:
    label(job, found(jpeg_slide))

    for row in rows_of(tile_tables.tiles_file(job.out, jpeg_slide.name)):
        probabilities = np.array([row[f"prob_{name}"] for name in CLASSES])
        assert row["pred"] == probabilities.argmax()
        assert row["label"] == CLASSES[row["pred"]]
        assert row["confidence"] == pytest.approx(probabilities.max())
        assert row["entropy"] == pytest.approx(-(probabilities * np.log(probabilities)).sum(), abs=1e-5)


def test_an_unreadable_tile_keeps_its_place_and_has_nulls(job: LabelJob, jpeg_slide: Path) -> None:
    damage(jpeg_slide, share=0.001)
    job = replace(job, max_failed_fraction=0.5)

    row = label(job, found(jpeg_slide))

    rows = rows_of(job.out / row["tiles_path"])
    bad = [r for r in rows if r["status"] == "read_error"]
    assert (row["status"], row["n_ok"], row["n_failed"], row["n_tiles"]) == ("partial", 16 - len(bad), len(bad), 16)
    assert 1 <= len(bad) <= 4, "one block touches four tiles at most"
    for r in bad:
        assert (r["x"], r["y"], r["width"]) == (r["grid_x"] * 448, r["grid_y"] * 448, 448)
        assert r["tissue_fraction"] is not None
        assert {r[name] for name in ("pred", "label", "confidence", "entropy", "prob_TUM")} == {None}


def test_a_block_that_is_damaged_under_the_tissue_mask_costs_its_own_tiles_only(job: LabelJob, tmp_path: Path) -> None:
    path = tmp_path / "one level.tif"
    write_pyramid(path, paint("TUM", 1792, 1792, np.random.default_rng(0)), mpp=0.25, downsamples=(1,))
    damage(path, share=0.001)
    job = replace(job, max_failed_fraction=0.5)

    row = label(job, found(path))

    assert (row["status"], row["n_tiles"], row["n_ok"] + row["n_failed"]) == ("partial", 16, 16)
    assert 1 <= row["n_failed"] <= 4, "one block touches four tiles at most"


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("blocks", [(0,), (1,), (8,), (48,), (8, 24, 40)])
def test_damaged_blocks_cost_the_tiles_whose_pixels_they_hold_and_no_others(
    job: LabelJob, jpeg_slide: Path, blocks: tuple[int, ...], threads: int
) -> None:
    for block in blocks:
        damage_block(str(jpeg_slide), level=0, block=block)
    job = replace(job, max_failed_fraction=0.9)

    row = label(job, found(jpeg_slide), RegionLabeler(job, Runtime(threads=threads)))

    rows = rows_of(job.out / row["tiles_path"])
    bad = {(r["grid_x"], r["grid_y"]) for r in rows if r["status"] == "read_error"}
    assert bad == {tile for block in blocks for tile in tiles_over(block)}
    assert (row["status"], row["n_ok"], row["n_failed"]) == ("partial", 16 - len(bad), len(bad))


@pytest.mark.parametrize("reader", ["auto", "openslide"])
def test_empty_blocks_of_glass_are_counted_and_those_of_tissue_cost_their_tiles(
    job: LabelJob, tmp_path: Path, reader: ReaderChoice
) -> None:
    path, image = tmp_path / "half.tif", np.full((1792, 1792, 3), 244, np.uint8)
    image[:, :896] = paint("TUM", 1792, 896, np.random.default_rng(0))
    write_pyramid(path, image, mpp=0.25)
    job = replace(job, max_failed_fraction=0.5, reader=reader)
    before = label(job, found(path))
    for block in (0, 6, 13, 20):  # of 7 x 7: a corner of tissue, and three of glass
        omit_block(str(path), level=0, block=block)

    row = label(job, found(path))

    assert (before["status"], before["blocks_left_out"], before["blocks_lost"]) == ("ok", 0, 0)
    assert (row["status"], row["blocks_left_out"], row["blocks_lost"]) == ("partial", 3, 1)
    assert (row["n_tiles"], row["n_failed"]) == (before["n_tiles"], 1)
    bad = [(r["grid_x"], r["grid_y"]) for r in rows_of(job.out / row["tiles_path"]) if r["status"] == "read_error"]
    assert bad == [(0, 0)]


@pytest.mark.parametrize("reader", ["auto", "openslide"])
def test_a_tile_of_tissue_that_touches_an_empty_block_of_glass_is_read(
    job: LabelJob, tmp_path: Path, reader: ReaderChoice
) -> None:
    path, image = tmp_path / "edge.tif", np.full((1792, 1792, 3), 244, np.uint8)
    image[:, :1020] = paint("TUM", 1792, 1020, np.random.default_rng(0))
    write_pyramid(path, image, mpp=0.25)
    omit_block(str(path), level=0, block=2 * 7 + 4)  # x 1024 to 1280, which the tile at x 896 to 1344 touches

    row = label(replace(job, reader=reader), found(path))

    assert (row["status"], row["blocks_left_out"], row["n_failed"]) == ("ok", 1, 0)
    assert row["n_tiles"] == 12


@pytest.mark.parametrize("reader", ["auto", "openslide"])
def test_an_aperio_slide_is_judged_by_its_levels_as_they_are_stored(
    job: LabelJob, tmp_path: Path, reader: ReaderChoice
) -> None:
    path = write_svs(tmp_path / "a.svs", tissue(1536, 1344), mpp=0.25)
    for block in (6, 3 * 7 + 3):  # of 7 x 6: glass, and tissue
        omit_block(str(path), level=0, block=block)
    job = replace(job, max_failed_fraction=0.9, reader=reader)

    row = label(job, found(path))

    assert (row["status"], row["blocks_left_out"], row["blocks_lost"]) == ("partial", 1, 1)
    assert 1 <= row["n_failed"] <= 4, "one block touches four tiles at most"


@pytest.mark.parametrize("reader", ["auto", "openslide"])
def test_a_slide_whose_blocks_are_all_empty_is_failed_and_the_line_says_so(
    job: LabelJob, jpeg_slide: Path, reader: ReaderChoice
) -> None:
    for block in range(49):
        omit_block(str(jpeg_slide), level=0, block=block)

    row = label(replace(job, reader=reader), found(jpeg_slide))

    assert (row["status"], row["error_code"], row["blocks_lost"]) == ("failed", "bad_tiles", 49)
    assert row["error"] == (
        "tissue.tif: none of 16 tiles can be read; 49 of its file blocks on level 0 are empty, and no coarser level "
        "shows that there is no tissue; copy or export it again"
    )


def test_too_many_empty_blocks_name_the_limit(job: LabelJob, jpeg_slide: Path) -> None:
    for block in range(30):
        omit_block(str(jpeg_slide), level=0, block=block)

    row = label(job, found(jpeg_slide))

    assert (row["status"], row["error_code"]) == ("failed", "bad_tiles")
    assert row["error"].endswith(
        "copy or export it again, or admit its unreadable tiles with a higher --max-failed-fraction"
    )


def tiles_over(block: int) -> set[tuple[int, int]]:
    """Which of the tiles of 448 level-0 pixels share pixels with one of the file's 7 x 7 blocks of 256."""
    left, top = 256 * (block % 7), 256 * (block // 7)
    return set(product(range(left // 448, (left + 255) // 448 + 1), range(top // 448, (top + 255) // 448 + 1)))


def test_a_slide_with_too_many_unreadable_tiles_is_failed_and_has_no_table(job: LabelJob, jpeg_slide: Path) -> None:
    damage(jpeg_slide, share=0.3)

    row = label(job, found(jpeg_slide))

    assert (row["status"], row["error_code"], row["tiles_path"]) == ("failed", "bad_tiles", None)
    assert "--max-failed-fraction 0.1" in row["error"]
    assert not tile_tables.tiles_file(job.out, jpeg_slide.name).exists()


def test_a_slide_without_tissue_is_empty_and_has_a_table_without_rows(job: LabelJob, tmp_path: Path) -> None:
    path = tmp_path / "glass.tif"
    write_pyramid(path, np.full((900, 900, 3), 244, np.uint8), mpp=0.25, downsamples=(1,))

    row = label(job, found(path))

    assert (row["status"], row["n_tiles"], row["fraction_TUM"], row["area_mm2_TUM"]) == ("empty", 0, None, 0)
    assert rows_of(job.out / row["tiles_path"]) == []


def test_areas_do_not_count_overlap_twice(job: LabelJob, jpeg_slide: Path) -> None:
    job = replace(job, stride_px=112, tiling=job.tiling | {"stride_px": 112})

    row = label(job, found(jpeg_slide))

    area = sum(row[f"area_mm2_{name}"] for name in CLASSES)
    assert area == pytest.approx(row["n_ok"] * (112 * 0.5) ** 2 / 1e6)
    assert area <= row["tissue_mm2"] * 1.3
    assert sum(row[f"fraction_{name}"] for name in CLASSES) == pytest.approx(1)


def test_a_failure_that_nobody_foresaw_keeps_its_traceback(job: LabelJob, jpeg_slide: Path) -> None:
    labeler = RegionLabeler(job)

    def broken(region: Region, work: SlideWork) -> Summary:
        return labeler(replace(region, tissue_fraction=region.tissue_fraction[:1]), work)

    row = label(job, found(jpeg_slide), broken)

    assert (row["status"], row["error_code"]) == ("failed", "internal")
    assert "please report this" in row["error"]
    assert "Traceback" in row["traceback"]


def test_a_slide_that_vanishes_is_failed_by_name(job: LabelJob, jpeg_slide: Path) -> None:
    while_read = label(job, found(jpeg_slide), between=jpeg_slide.unlink)
    before = label(job, found(jpeg_slide))

    for row in (while_read, before):
        assert (row["status"], row["error_code"]) == ("failed", "no_access")
        assert row["error"].startswith(f"{jpeg_slide}: No such file or directory; ")


def test_a_slide_that_changes_while_it_is_read_is_failed_and_leaves_nothing(job: LabelJob, jpeg_slide: Path) -> None:
    def change() -> None:
        with jpeg_slide.open("ab") as file:
            file.write(b"more")

    row = label(job, found(jpeg_slide), between=change)
    again = label(job, found(jpeg_slide))

    assert (row["status"], row["error_code"], row["tiles_path"]) == ("failed", "changed", None)
    assert "label again when it is complete" in row["error"]
    assert (again["status"], again["attempts"]) == ("ok", 2)


@pytest.mark.parametrize("good", [True, False])
def test_a_name_that_is_not_utf8_is_labelled_and_reported_like_any_other(
    job: LabelJob, jpeg_slide: Path, good: bool
) -> None:
    path = jpeg_slide.with_name(os.fsdecode(b"caf\xe9.tif"))
    jpeg_slide.rename(path)
    if not good:
        path.write_text("not a slide")
    (slide,) = find_slides(path.parent).slides

    row = label(job, slide)

    assert row["status"] == ("ok" if good else "failed")
    assert row["slide_id"].startswith("caf%E9.tif~")


def test_one_block_more_than_there_are_threads_is_read_ahead(
    label_job: LabelJob, pyramid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tasks(label_job, found(pyramid / "two textures.tif"))[0]
    started: list[int] = []

    def read(*of: Any) -> Any:
        started.append(len(of[-1]))
        return tiles.read_tiles(*of)

    monkeypatch.setattr(region_reader, "read_tiles", read)

    places, pixels = next(iter(RegionReader(label_job)._read_ahead(task.region, task.work, None)))

    assert len(places) == len(pixels) == started[0]
    assert len(started) <= Runtime().threads + 1 < len(list(cut_blocks(task.work.grid, task.region.tile_index)))


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 8))
def test_batches_have_every_tile_once_and_only_the_last_one_is_smaller(sizes: list[int], size: int) -> None:
    places = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]) if sizes else []
    blocks = [(block, block.astype(np.uint8)[:, None]) for block in places]

    batches = list(cut_batches(blocks, size))

    assert [place for where, _ in batches for place in where.tolist()] == list(range(sum(sizes)))
    assert all((tiles[:, 0] == where).all() for where, tiles in batches)
    assert [len(where) for where, _ in batches[:-1]] == [size] * (len(batches) - 1)
    assert all(0 < len(where) <= size for where, _ in batches)


@pytest.mark.slow
def test_regions_that_are_labelled_at_once_by_one_worker_are_those_of_one_after_the_other(
    label_job: LabelJob, pyramid: Path
) -> None:
    both = tasks(label_job, found(pyramid / "two textures.tif"))
    at_once = replace(label_job, out=label_job.out / "at once")
    in_turn, together = RegionLabeler(label_job), RegionLabeler(at_once, Runtime(threads=3))

    with ThreadPoolExecutor(2) as threads:
        one = list(threads.map(lambda task: together(task.region, task.work), both))
    other = [in_turn(task.region, task.work) for task in both]

    assert [summary.counts for summary in one] == [summary.counts for summary in other]
    for task in both:
        ours, theirs = (
            tile_tables.staged_part(job, task.region, task.work).to_pydict() for job in (at_once, label_job)
        )
        for name in ours:
            if name.startswith(("prob_", "confidence", "entropy")):
                np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4)
            else:
                assert ours[name] == theirs[name]


def test_a_worker_knows_how_long_its_network_waited_for_pixels(
    label_job: LabelJob, pyramid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tasks(label_job, found(pyramid / "two textures.tif"))[0]
    monkeypatch.setattr(region_reader, "read_tiles", lambda *of: (time.sleep(0.1), tiles.read_tiles(*of))[1])

    effort = RegionLabeler(label_job)(task.region, task.work).effort

    assert effort.waited_s > 0.1
    assert effort.network_s > 0
    assert effort.read_s > 0.1
    assert effort.bytes_read > len(task.region.tile_index)


def test_a_network_waits_while_all_regions_in_work_wait_for_pixels() -> None:
    clock = Clock()

    def slow() -> Iterator[int]:
        time.sleep(0.3)
        yield 1

    def label(work_s: float) -> None:
        with clock.region():
            for _ in clock.waiting_for(slow()):
                time.sleep(work_s)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(label, [0.4, 0.1]))
    effort = clock.take()

    assert effort.network_s == pytest.approx(0.4, abs=0.1)
    assert effort.waited_s == pytest.approx(0.3, abs=0.1)
    assert clock.take()[:3] == (0, 0, 0)


def test_a_network_that_others_feed_waits_while_it_has_no_region() -> None:
    clock = Clock(is_fed=True)
    time.sleep(0.2)
    start, worked_s = time.monotonic(), 0.0
    for _ in range(2):
        begun = time.monotonic()
        with clock.region():
            time.sleep(0.1)
        worked_s += time.monotonic() - begun
        time.sleep(0.3)
    waited_s = time.monotonic() - start - worked_s

    effort = clock.take()

    assert effort.network_s == pytest.approx(worked_s, abs=0.05), "on a machine however busy"
    assert effort.waited_s == pytest.approx(waited_s, abs=0.05)


def handed(job: LabelJob, task: RegionTask) -> Handed:
    """What a reader makes of a region."""
    read = RegionReader(job)(task.region, task.work)
    assert isinstance(read, Handed)
    return read


@pytest.mark.slow
@pytest.mark.parametrize(("most_tiles", "quality"), [(None, False), (7, False), (7, True)])
def test_regions_that_one_worker_reads_and_another_classifies_make_the_same_table(
    label_job: LabelJob, pyramid: Path, most_tiles: int | None, quality: bool
) -> None:
    label_job = replace(label_job, quality=quality)
    slide, apart = found(pyramid / "two textures.tif"), replace(label_job, out=label_job.out / "apart")
    reader, classifier = RegionReader(apart), TileClassifier(apart)
    ledger = SlideLedger(apart, Collection((slide,), {}))
    rows = list(graph.plan(SlideTask(slide.slide_id, slide.files), apart, most_tiles))
    for row in rows:
        region, work = pickle.loads(row["task"])
        read = reader(region, work)
        summary = classifier(read.array, *read.task)
        if not ledger.is_open(slide.slide_id):
            ledger.begin(slide.slide_id, summary.columns, summary.n_regions)
        is_last = ledger.add(slide.slide_id, summary)
        assert is_last == (row is rows[-1])
        assert summary.effort.bytes_read > 0
    tile_tables.merge_slide(
        apart, slide.slide_id, work.fingerprint, ledger.regions(slide.slide_id), work.columns["n_tiles"]
    )
    label(label_job, slide)

    assert len(rows) == (
        2 if most_tiles is None else sum(-(-len(t.region.tile_index) // 7) for t in tasks(apart, slide))
    )
    ours, theirs = (pq.read_table(tile_tables.tiles_file(job.out, slide.slide_id)) for job in (apart, label_job))
    assert ours.equals(theirs)
    assert quality == ("focus" in ours.column_names)


def test_a_reader_hands_no_pixels_over_of_a_region_that_was_done_before(label_job: LabelJob, pyramid: Path) -> None:
    task = tasks(label_job, found(pyramid / "two textures.tif"))[0]
    done = RegionLabeler(label_job)(task.region, task.work)

    again = RegionReader(label_job)(task.region, task.work)

    assert isinstance(again, Summary)
    assert done.counts is not None
    assert again.counts == done.counts._replace(is_kept=True)


def test_tiles_that_a_reader_cannot_read_are_not_classified(label_job: LabelJob, pyramid: Path) -> None:
    task = tasks(label_job, found(pyramid / "two textures.tif"))[0]
    read = handed(label_job, task)
    region, work, bad, quality, effort = read.task
    bad = bad.copy()
    bad[3] = True

    summary = TileClassifier(label_job)(read.array, region, work, bad, quality, effort)

    assert summary.counts is not None
    assert (summary.counts.n_ok, summary.counts.n_failed) == (len(bad) - 1, 1)
    assert tile_tables.staged_part(label_job, region, work)["status"].to_pylist()[3] == "read_error"


def test_a_reader_says_why_a_slide_cannot_be_read(label_job: LabelJob, jpeg_slide: Path) -> None:
    (task,) = tasks(label_job, found(jpeg_slide))
    jpeg_slide.write_bytes(b"another file")

    summary = RegionReader(label_job)(task.region, task.work)

    assert isinstance(summary, Summary)
    assert summary.error_code == "changed"


def test_a_file_that_is_lost_while_it_is_read_directly_makes_no_tile_unreadable(
    label_job: LabelJob, jpeg_slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, left = os.pread, [20]

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(116, "Stale file handle")
        return read(descriptor, count, offset)

    row = label(label_job, found(jpeg_slide), between=lambda: monkeypatch.setattr(os, "pread", pread))

    assert (row["status"], row["error_code"]) == ("failed", "no_access")
    assert "Stale file handle" in row["error"]


def test_a_worker_beside_a_gpu_has_enough_regions_in_work_for_all_its_threads() -> None:
    assert Runtime().regions_at_once == 1
    assert [Runtime("cuda", threads).regions_at_once for threads in (1, 4, 16)] == [2, 3, 6]


def test_the_fingerprint_follows_what_the_rows_depend_on(job: LabelJob) -> None:
    def fingerprint(job: LabelJob) -> str:
        return job.fingerprint("content", 0.25, 0.25)

    same = [replace(job, batch_size=3), replace(job, out=job.out / "elsewhere")]
    same += [replace(job, mpp_if_missing=0.3), replace(job, read_timeout_s=1), replace(job, verify=True)]
    other = [
        replace(job, model_hash="x"),
        replace(job, mpp=0.4),
        replace(job, tissue=job.tissue | {"min_fraction": 0.3}),
        replace(job, stride_px=112),
        replace(job, reader="openslide"),
        replace(job, precision="bf16"),
    ]
    base = fingerprint(job)
    assert {fingerprint(j) for j in same} == {base}
    assert len({base, *(fingerprint(j) for j in other), job.fingerprint("other", 0.25, 0.25)}) == 8
    assert job.fingerprint("content", 0.25, 0.26) != base


def test_a_bundle_that_changes_while_a_run_goes_on_is_refused_by_the_next_worker(job: LabelJob) -> None:
    with pytest.raises(HistoError, match="the bundle was changed while the run went on; label again"):
        RegionLabeler(replace(job, model_hash="as it was when the run began"))


def test_a_drive_that_is_lost_is_not_blamed_on_the_slide(
    job: LabelJob, jpeg_slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage_block(str(jpeg_slide), level=0, block=8)
    can_open = Path.open

    def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == jpeg_slide:
            raise OSError(5, "Input/output error")
        return can_open(path, *args, **kwargs)

    row = label(job, found(jpeg_slide), between=lambda: monkeypatch.setattr(Path, "open", refuse))

    assert (row["status"], row["error_code"]) == ("failed", "no_access")
    assert "Input/output error; make the file readable" in row["error"]
