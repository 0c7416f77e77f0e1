"""What a second run does with what is there: it trusts fingerprints, and nothing else. No Ray."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.fake_slides import damage_block
from helpers.label_loop import found, label, tasks
from helpers.label_process import write_slide
from helpers.plain_loop import rows_of

from histo.demo.fabricate import write_pyramid
from histo.demo.textures import paint
from histo.errors import UsageError
from histo.learn.bundle import bundle_hash
from histo.pipelines.labelling import tile_tables
from histo.pipelines.labelling.lookup import find_slide_todo
from histo.pipelines.labelling.region_worker import RegionLabeler
from histo.pipelines.labelling.slide_ledger import SlideLedger
from histo.pipelines.labelling.tasks import LabelJob, SlideWork, Summary
from histo.run.run_folder import remove_traces
from histo.slides.finding.collection import Collection, FoundSlide
from histo.slides.grid import Indices, Region
from histo.tables import Row


@pytest.fixture
def slide(tmp_path: Path) -> FoundSlide:
    """A slide of two regions."""
    return found(write_slide(tmp_path / "slides" / "s.tif", 3840, 576))


def state(job: LabelJob, slide: FoundSlide, retry_failed: bool = False) -> str:
    """What a run finds a slide to be."""
    (name,) = find_slide_todo(
        job, Collection((slide,), {}), SlideLedger(job, Collection((slide,), {})), retry_failed
    ).states
    return name


def of_other_bundle(job: LabelJob) -> LabelJob:
    """Change the bundle a little."""
    model = job.out.parent / "other model"
    shutil.copytree(job.model, model)
    document = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps(document | {"temperature": 2.0}))
    return replace(job, model=model, model_hash=bundle_hash(model))


def never(region: Region, work: SlideWork) -> Summary:
    pytest.fail("a tile is read")


class Counting:
    """A worker that counts the tiles that it is asked to read."""

    def __init__(self, job: LabelJob) -> None:
        self._worker, self.read = RegionLabeler(job), 0
        read = self._worker._reader._read

        def counted(index: Indices, work: SlideWork, measured: object) -> object:
            self.read += len(index)
            return read(index, work, measured)  # type: ignore[arg-type]

        self._worker._reader._read = counted  # type: ignore[method-assign, assignment]

    def __call__(self, region: Region, work: SlideWork) -> Summary:
        return self._worker(region, work)


def rename_source(job: LabelJob, now: str, then: str) -> None:
    """Name the source of resolutions as an earlier histo did, in the ledger and in the tables' footers."""
    ledger = job.out / "slides.parquet"
    for path in (ledger, *(job.out / "tiles").rglob("*.parquet")):
        table = pq.ParquetFile(path).read()
        footer = {key: value.replace(now.encode(), then.encode()) for key, value in table.schema.metadata.items()}
        if path == ledger:
            place = table.column_names.index("mpp_source")
            names = pa.array(
                [name and name.replace(now, then) for name in table["mpp_source"].to_pylist()], pa.string()
            )
            table = table.set_column(place, table.schema.field(place), names)
        pq.write_table(table.replace_schema_metadata(footer), path)


def settled(row: Row) -> Row:
    """A row of the ledger, but what differs from run to run."""
    return {name: value for name, value in row.items() if name not in ("attempts", "seconds", "mtime_ns")}


def test_a_finished_slide_is_done(label_job: LabelJob, slide: FoundSlide) -> None:
    assert state(label_job, slide) == "new"
    label(label_job, slide)

    assert state(label_job, slide) == "done"
    assert state(replace(label_job, batch_size=3, read_timeout_s=5), slide) == "done"


@pytest.mark.parametrize(
    "change",
    [
        of_other_bundle,
        lambda job: replace(job, tissue=job.tissue | {"min_fraction": 0.5}),
        lambda job: replace(job, mpp=1.0),
        lambda job: replace(job, stride_px=48),
    ],
)
def test_other_settings_or_weights_begin_a_slide_anew(
    label_job: LabelJob, slide: FoundSlide, change: Callable[[LabelJob], LabelJob]
) -> None:
    before = label(label_job, slide)
    changed = change(label_job)

    assert state(changed, slide) == "settings"
    after = label(changed, slide)

    assert after["fingerprint"] != before["fingerprint"]
    assert (after["status"], after["attempts"]) == ("ok", 2)
    assert state(changed, slide) == "done"
    assert state(label_job, slide) == "settings"


@pytest.mark.parametrize("status", ["ok", "failed"])
def test_a_row_that_lacks_a_value_or_has_a_status_of_another_version_is_looked_up_again(
    label_job: LabelJob, slide: FoundSlide, status: str
) -> None:
    if status == "failed":
        Path(slide.path).write_bytes(b"no slide")
    label(label_job, slide)
    ledger = label_job.out / "slides.parquet"
    whole = pq.read_table(ledger)
    (row,) = whole.to_pylist()
    assert row["status"] == status
    changes = [{name: None} for name in row] + [{"status": "quarantined"}, {"status": "ok"}, {"status": "failed"}]

    for change in changes:
        pq.write_table(pa.Table.from_pylist([row | change], whole.schema), ledger)
        assert state(label_job, slide)
    for name in row:
        pq.write_table(whole.drop_columns([name]), ledger)
        if name not in ("slide_id", "status"):
            assert state(label_job, slide)
    pq.write_table(pa.Table.from_pylist([row | {"status": "quarantined"}], whole.schema), ledger)
    assert state(label_job, slide) == "new"


def test_a_changed_file_begins_its_slide_anew(label_job: LabelJob, slide: FoundSlide) -> None:
    before = label(label_job, slide)
    write_slide(Path(slide.path), 1920, 576, seed=1)

    assert state(label_job, slide) == "files"
    after = label(label_job, slide)

    assert (after["status"], after["n_tiles"]) == ("ok", before["n_tiles"] // 2)
    assert after["content_id"] != before["content_id"]


def test_a_file_that_was_only_copied_is_recognised_without_reading_a_tile(
    label_job: LabelJob, slide: FoundSlide
) -> None:
    before = label(label_job, slide)
    os.utime(slide.path, ns=(1, 1))

    assert state(label_job, slide) == "files"
    after = label(label_job, slide, never)

    assert after["mtime_ns"] == 1
    assert settled(after) == settled(before)
    assert state(label_job, slide) == "done"


def test_a_lost_ledger_is_made_again_from_the_tables(label_job: LabelJob, slide: FoundSlide) -> None:
    before = label(label_job, slide)
    (label_job.out / "slides.parquet").unlink()

    assert state(label_job, slide) == "new"
    assert settled(label(label_job, slide, never)) == settled(before)


def test_a_spoilt_ledger_is_refused_with_the_way_out(label_job: LabelJob, slide: FoundSlide) -> None:
    label(label_job, slide)
    (label_job.out / "slides.parquet").write_bytes(b"PAR1 of another program PAR1")

    with pytest.raises(UsageError, match=r"slides\.parquet: cannot be read .*; remove it, and the tables are counted"):
        SlideLedger(label_job, Collection((slide,), {}))


def test_a_lost_or_spoilt_table_is_made_again(label_job: LabelJob, slide: FoundSlide) -> None:
    table = label_job.out / label(label_job, slide)["tiles_path"]
    rows = rows_of(table)

    for spoil in (table.unlink, lambda: table.write_bytes(b"PAR1 of another program PAR1")):
        spoil()
        assert state(label_job, slide) == "result"
        label(label_job, slide)
        assert rows_of(table) == rows


def test_a_half_done_slide_goes_on_from_its_finished_regions(label_job: LabelJob, slide: FoundSlide) -> None:
    first, second = tasks(label_job, slide)
    RegionLabeler(label_job)(first.region, first.work)
    worker = Counting(label_job)

    row = label(label_job, slide, worker)

    assert worker.read == len(second.region.tile_index)
    assert (row["status"], row["n_ok"]) == ("ok", len(first.region.tile_index) + worker.read)
    whole = label(replace(label_job, out=label_job.out / "whole"), slide)
    assert rows_of(label_job.out / row["tiles_path"]) == rows_of(label_job.out / "whole" / whole["tiles_path"])


def test_finished_regions_of_other_settings_are_not_used(label_job: LabelJob, slide: FoundSlide) -> None:
    first, _ = tasks(label_job, slide)
    RegionLabeler(label_job)(first.region, first.work)
    changed = of_other_bundle(label_job)
    worker = Counting(changed)

    row = label(changed, slide, worker)

    assert worker.read == row["n_tiles"]


def test_a_failure_of_the_slides_own_stays_until_it_is_asked_for_or_something_changes(
    label_job: LabelJob, tmp_path: Path
) -> None:
    slide = found(tmp_path / "s.svs")
    Path(slide.path).write_text("not a slide")
    label(label_job, slide)

    assert state(label_job, slide) == "failed"
    assert state(label_job, slide, retry_failed=True) == "asked"
    assert state(replace(label_job, mpp_if_missing=0.25), slide) == "settings"
    Path(slide.path).write_text("not a slide either")
    assert state(label_job, slide) == "files"


def test_a_failure_that_may_be_mended_is_tried_again(label_job: LabelJob, tmp_path: Path) -> None:
    slide = found(tmp_path / "gone.svs")
    row = label(label_job, slide)

    assert (row["error_code"], state(label_job, slide)) == ("no_access", "failed_again")


def test_a_table_is_back_when_the_drive_that_its_slide_is_on_is_back(label_job: LabelJob, slide: FoundSlide) -> None:
    before = label(label_job, slide)
    table, hidden = label_job.out / before["tiles_path"], Path(slide.path).with_suffix(".hidden")
    Path(slide.path).rename(hidden)

    assert state(label_job, slide) == "files"
    assert label(label_job, slide)["error_code"] == "no_access"
    assert not table.exists()
    tile_tables.sweep(label_job.out, keep=[slide.slide_id])
    hidden.rename(slide.path)

    assert settled(label(label_job, slide, never)) == settled(before)
    assert table.exists()
    tile_tables.sweep(label_job.out, keep=[])
    assert not (label_job.out / "staging").exists()


def test_drafts_of_killed_processes_are_removed_and_whole_parts_are_not(label_job: LabelJob) -> None:
    part, table = label_job.out / "staging" / "parts" / "f" / "s" / "r.parquet", label_job.out / "tiles" / "t.parquet"
    for path in (part, table):
        path.parent.mkdir(parents=True)
        path.touch()
        path.with_name(".0123.tmp").touch()

    remove_traces(label_job.out, "tiles")

    assert {path for path in label_job.out.rglob("*") if path.is_file()} == {part, table}


def test_a_table_of_a_slide_that_is_no_slide_any_more_is_removed(label_job: LabelJob, slide: FoundSlide) -> None:
    table = label_job.out / label(label_job, slide)["tiles_path"]
    Path(slide.path).write_text("not a slide")

    assert label(label_job, slide)["status"] == "failed"
    assert not table.exists()
    assert list((label_job.out / "staging").rglob("*.table")) == []


def test_a_partial_slide_is_done_and_is_labelled_again_only_if_asked(label_job: LabelJob, slide: FoundSlide) -> None:
    damage_block(slide.path, level=0, block=5)
    row = label(label_job, slide)

    assert row["status"] == "partial"
    assert state(label_job, slide) == "done"
    assert state(label_job, slide, retry_failed=True) == "asked"
    assert state(replace(label_job, max_failed_fraction=0), slide) != "done"
    strict = label(replace(label_job, max_failed_fraction=0), slide, never)
    assert (strict["status"], strict["error_code"]) == ("failed", "bad_tiles")


def test_a_stopped_run_leaves_the_rows_that_it_did_not_come_to(label_job: LabelJob, slide: FoundSlide) -> None:
    before = label(label_job, slide)
    stopped = SlideLedger(replace(label_job, verify=True), Collection((slide,), {}))
    find_slide_todo(replace(label_job, verify=True), Collection((slide,), {}), stopped, retry_failed=False)
    assert stopped.counts() == {"pending": 1}
    stopped.write(force=True)

    (row,) = rows_of(label_job.out / "slides.parquet")
    assert row == before
    assert state(label_job, slide) == "done"


def test_a_stopped_retry_is_asked_for_again_by_the_same_command(label_job: LabelJob, slide: FoundSlide) -> None:
    damage_block(slide.path, level=0, block=5)
    label(label_job, slide)
    stopped = SlideLedger(label_job, Collection((slide,), {}))
    find_slide_todo(label_job, Collection((slide,), {}), stopped, retry_failed=True)
    stopped.write(force=True)

    assert state(label_job, slide, retry_failed=True) == "asked"


def test_a_retry_does_not_use_regions_that_an_earlier_attempt_could_not_read(
    label_job: LabelJob, slide: FoundSlide
) -> None:
    damage_block(slide.path, level=0, block=5)
    label(label_job, slide)
    first, _ = tasks(label_job, slide)
    RegionLabeler(label_job)(first.region, first.work)

    assert list((label_job.out / "staging" / "parts").rglob("*.parquet"))
    state(label_job, slide, retry_failed=True)

    assert not list((label_job.out / "staging" / "parts").rglob("*.parquet"))


def test_what_another_plan_left_among_the_parts_is_not_joined(label_job: LabelJob, slide: FoundSlide) -> None:
    first, second = tasks(label_job, slide)
    for task in (first, second):
        RegionLabeler(label_job)(task.region, task.work)
    folder = tile_tables.parts_folder(label_job.out, slide.slide_id, first.work.fingerprint)
    shutil.copy(folder / f"{first.region.name}.parquet", folder / "r0099_0099.parquet")
    shutil.copy(folder / f"{first.region.name}.parquet", folder / f"{second.region.name}.parquet")
    worker = Counting(label_job)

    row = label(label_job, slide, worker)

    assert (row["status"], worker.read) == ("ok", len(second.region.tile_index))


def test_a_merge_that_was_killed_while_it_cleaned_up_is_ended(label_job: LabelJob, slide: FoundSlide) -> None:
    first, second = tasks(label_job, slide)
    row = label(label_job, slide)
    RegionLabeler(label_job)(first.region, first.work)
    names = [first.region.name, second.region.name]

    tile_tables.merge_slide(label_job, slide.slide_id, row["fingerprint"], names, row["n_tiles"])

    assert len(rows_of(label_job.out / row["tiles_path"])) == row["n_tiles"]
    assert not tile_tables.parts_folder(label_job.out, slide.slide_id, row["fingerprint"]).exists()


def test_attempts_count_how_often_a_slide_was_begun(label_job: LabelJob, slide: FoundSlide) -> None:
    stopped = SlideLedger(label_job, Collection((slide,), {}))
    stopped.begin(slide.slide_id, {"n_tiles": 7}, n_regions=2)
    stopped.write(force=True)

    assert label(label_job, slide)["attempts"] == 2


def test_a_given_resolution_counts_where_the_slide_names_none_and_only_there(
    label_job: LabelJob, slide: FoundSlide, tmp_path: Path
) -> None:
    nameless = found(tmp_path / "nameless.tif")
    write_pyramid(tmp_path / "nameless.tif", paint("TUM", 400, 400, np.random.default_rng(0)), mpp=None)
    given = replace(label_job, mpp_if_missing=0.25)

    for each in (slide, nameless):
        assert label(given, each)["status"] == "ok"

    assert [state(job, slide) for job in (given, label_job)] == ["done", "done"]
    assert [state(job, nameless) for job in (given, replace(given, mpp_if_missing=0.3))] == ["done", "settings"]


def test_a_resolution_that_is_given_for_every_slide_begins_those_anew_that_it_changes(
    label_job: LabelJob, slide: FoundSlide
) -> None:
    assert label(label_job, slide)["mpp_source"] == "metadata"
    same, other = (replace(label_job, mpp_override=mpp) for mpp in (0.25, 0.125))

    assert [state(job, slide) for job in (same, other)] == ["done", "settings"]
    row = label(other, slide)

    assert (row["status"], row["mpp_source"], row["mpp_x"]) == ("ok", "override", 0.125)
    assert [state(job, slide) for job in (other, label_job)] == ["done", "settings"]


def test_a_slide_that_no_scanner_can_have_made_is_labelled_with_the_resolution_that_is_given(
    label_job: LabelJob, tmp_path: Path
) -> None:
    wrong = found(tmp_path / "wrong.tif")
    write_pyramid(tmp_path / "wrong.tif", paint("TUM", 400, 400, np.random.default_rng(0)), mpp=352.8)

    assert label(label_job, wrong)["error_code"] == "implausible_mpp"

    given = replace(label_job, mpp_override=0.25)
    assert state(given, wrong) == "settings"
    assert label(given, wrong)["status"] == "ok"


def test_a_slide_that_was_finished_when_a_filled_resolution_had_another_name_is_not_read_again(
    label_job: LabelJob, tmp_path: Path
) -> None:
    nameless, given = found(tmp_path / "nameless.tif"), replace(label_job, mpp_if_missing=0.25)
    write_pyramid(tmp_path / "nameless.tif", paint("TUM", 400, 400, np.random.default_rng(0)), mpp=None)
    label(given, nameless)
    rename_source(given, "if_missing", "override")
    worker = Counting(given)

    row = label(given, nameless, worker)

    assert (worker.read, row["mpp_source"], state(given, nameless)) == (0, "if_missing", "done")


def test_an_edit_that_the_samples_miss_is_found_by_verifying(label_job: LabelJob, slide: FoundSlide) -> None:
    path = Path(slide.path)
    with path.open("ab") as file:
        file.truncate(100 * 2**20)  # large enough that samples leave gaps
    careful = replace(label_job, verify=True)
    first = label(careful, slide)
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(50 * 2**20)
        file.write(b"changed")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert state(label_job, slide) == "done"
    assert state(careful, slide) == "verify"
    second = label(careful, slide)

    assert first["sha256"] != second["sha256"] == second["content_id"]
    assert first["fingerprint"] != second["fingerprint"]
    assert state(label_job, slide) == "done"
    assert settled(label(careful, slide, never)) == settled(second)


def test_slides_that_are_gone_keep_their_rows_only_if_they_have_a_table(
    label_job: LabelJob, slide: FoundSlide, tmp_path: Path
) -> None:
    bad = found(tmp_path / "bad.svs")
    Path(bad.path).write_text("not a slide")
    label(label_job, slide)
    label(label_job, bad)
    label(label_job, found(write_slide(tmp_path / "other.tif", 400, 400)))

    rows = {row["slide_id"]: row["status"] for row in rows_of(label_job.out / "slides.parquet")}
    assert rows == {"s.tif": "absent", "other.tif": "ok"}
    assert state(label_job, slide) == "done", "it is back, as it was"
