"""`--quality`: two columns, which finished tables get without being labelled again."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.fake_slides import damage_block, noise, write_tiff
from helpers.label_loop import found, label, make_job

from histo.cli import main
from histo.demo.textures import paint
from histo.pipelines.labelling import region_worker
from histo.pipelines.labelling.lookup import find_slide_todo
from histo.pipelines.labelling.slide_ledger import SlideLedger
from histo.pipelines.labelling.tasks import LabelJob
from histo.slides.finding.collection import Collection, FoundSlide
from histo.slides.plan import plan_slide
from histo.slides.quality import measure_quality
from histo.slides.slide import open_slide
from histo.slides.spec import TilingSpec, TissueSpec
from histo.slides.tiles import read_tiles


@pytest.fixture
def slide(tmp_path: Path) -> FoundSlide:
    """A slide of four regions, one tile of which cannot be read."""
    path = write_tiff(tmp_path / "s.tif", [noise(2304, 1728), noise(144, 108)], mpp=0.5)
    damage_block(path, 0, 20)
    return found(Path(path))


@pytest.fixture
def job(tiny_bundle: Path, tmp_path: Path) -> LabelJob:
    return make_job(tiny_bundle, tmp_path / "out", tissue=TissueSpec(min_fraction=0).settings())


def table(job: LabelJob) -> Any:
    return pq.read_table(job.out / "tiles" / "s.tif.parquet")


def states(job: LabelJob, slide: FoundSlide) -> dict[str, int]:
    collection = Collection((slide,), {})
    return dict(find_slide_todo(job, collection, SlideLedger(job, collection), retry_failed=False).states)


def test_the_columns_are_those_of_the_pixels_that_the_network_saw(job: LabelJob, slide: FoundSlide) -> None:
    label(replace(job, quality=True), slide)

    rows = table(job)
    description, reader = open_slide(slide.path)
    plan = plan_slide(description, reader, job.size_px, job.mpp, TilingSpec(), TissueSpec(min_fraction=0))
    tiles, bad = read_tiles(reader, plan.slide, plan.sampling, plan.grid, plan.tile_index)
    reader.close()
    expected = measure_quality(tiles, 0.5)
    for number, name in enumerate(("focus", "ink")):
        assert rows[name].null_count == rows["pred"].null_count == bad.sum() > 0
        np.testing.assert_allclose(rows[name].drop_null().to_numpy(), expected[~bad, number], rtol=1e-6)


def test_a_finished_table_gets_the_columns_alone(
    job: LabelJob, slide: FoundSlide, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(job, slide)
    before = table(job)
    classified: list[int] = []
    classify = region_worker._Network.classify

    def counting(network: Any, blocks: Iterator[Any], count: int) -> Any:
        classified.append(count)
        return classify(network, blocks, count)

    monkeypatch.setattr(region_worker._Network, "classify", counting)
    more = replace(job, quality=True)
    assert states(more, slide) == {"more": 1}

    row = label(more, slide)

    after = table(job)
    assert after.drop_columns(["focus", "ink"]).equals(before)
    assert after.schema.metadata[b"histo.fingerprint"] == before.schema.metadata[b"histo.fingerprint"]
    assert row["status"] == "partial"
    assert len(classified) <= 1, "only the region with a tile that could not be read is read anew"
    assert states(more, slide) == states(job, slide) == {"done": 1}


def test_focus_falls_from_one_slide_to_the_next_that_is_more_blurred(job: LabelJob, tmp_path: Path) -> None:
    tissue = paint("NORM", 1152, 1152, np.random.default_rng(0), mpp=0.5)
    medians = []
    for sigma_um in (0, 0.5, 1, 2, 3):
        image = np.asarray(cv2.GaussianBlur(tissue, (0, 0), sigma_um / 0.5)) if sigma_um else tissue
        path = write_tiff(tmp_path / f"{sigma_um}.tif", [image, image[::16, ::16].copy()], mpp=0.5)
        label(replace(job, quality=True), found(Path(path)))
        rows = pq.read_table(job.out / "tiles" / f"{sigma_um}.tif.parquet", columns=["focus"])
        medians.append(np.median(rows["focus"].drop_null().to_numpy()))

    assert all(later < 0.95 * earlier for earlier, later in pairwise(medians)), medians


def test_copies_of_a_slide_keep_their_own_rows(job: LabelJob, slide: FoundSlide, tmp_path: Path) -> None:
    copies = [found(Path(shutil.copy(slide.path, tmp_path / f"{name}.tif"))) for name in "abc"]
    for copy in copies:
        label(job, copy)
    more = replace(job, quality=True)
    worker = region_worker.RegionLabeler(more)  # one worker for all

    for copy in copies:
        label(more, copy, worker)

    for copy in copies:
        rows = pq.read_table(job.out / "tiles" / f"{copy.slide_id}.parquet", columns=["slide_id", "focus"])
        assert set(rows["slide_id"].to_pylist()) == {copy.slide_id}


def test_a_table_with_the_columns_stays_as_it_is_without_the_flag(job: LabelJob, slide: FoundSlide) -> None:
    label(replace(job, quality=True), slide)
    before = table(job)

    label(job, slide)

    assert table(job).equals(before)


@pytest.mark.parametrize("first", [False, True])
def test_a_run_that_was_stopped_goes_on_with_or_without_the_columns(
    job: LabelJob, slide: FoundSlide, first: bool
) -> None:
    interrupted, then = replace(job, quality=first), replace(job, quality=not first)
    worker = region_worker.RegionLabeler(interrupted)
    left = [2]

    def stop(region: Any, work: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return worker(region, work)

    with pytest.raises(KeyboardInterrupt):
        label(interrupted, slide, stop)
    label(then, slide)

    plain = replace(then, out=job.out / "plain")
    label(plain, slide)
    assert table(then).equals(table(plain))


@pytest.mark.usefixtures("joined_ray")
def test_the_command_completes_tables_and_says_so(
    slide: FoundSlide, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["label", "--slides", slide.path, "--model", str(tiny_bundle), "--out", str(tmp_path / "o")]
    command += ["--tissue.min-fraction", "0"]
    assert main(command) == 3
    plain = pq.read_table(tmp_path / "o" / "tiles" / "s.tif.parquet")
    capsys.readouterr()

    assert main([*command, "--quality"]) == 3

    assert "1 to complete by what is asked for now" in capsys.readouterr().out
    completed = pq.read_table(tmp_path / "o" / "tiles" / "s.tif.parquet")
    assert completed.column_names == [*plain.column_names, "focus", "ink"]
    assert completed.drop_columns(["focus", "ink"]).equals(plain)
