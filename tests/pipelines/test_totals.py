"""What a label run shows: its progress, a line for each slide, and its last lines."""

import re
import time
from pathlib import Path

import pytest
from helpers.label_loop import found, label, tasks

from histo.pipelines.labelling.region_worker import RegionLabeler
from histo.pipelines.labelling.slide_ledger import ledger_file
from histo.pipelines.labelling.tasks import LabelJob
from histo.pipelines.labelling.totals import say_next, say_totals
from histo.run.ledger import Ledger
from histo.run.progress import CLEAR, Progress, Tiles
from histo.tables import SLIDES, rows_table, schema

CLASSES = ("STR", "TUM")
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def test_tiles_and_area_are_summed_over_slides_that_have_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    shares = {"fraction_STR": 0.25, "fraction_TUM": 0.75, "area_mm2_STR": 1.0, "area_mm2_TUM": 3.0}
    rows = [
        {"slide_id": "a", "status": "ok", "n_ok": 40, **shares},
        {
            "slide_id": "b",
            "status": "partial",
            "n_ok": 8,
            "fraction_STR": 1.0,
            "fraction_TUM": 0.0,
            "area_mm2_STR": 2.0,
        },
        {"slide_id": "c", "status": "absent", "n_ok": 100, **shares},
        {"slide_id": "d", "status": "empty", "n_ok": 0},
        {"slide_id": "e", "status": "failed"},
    ]

    say_totals(rows_table(rows, schema(SLIDES, CLASSES)), CLASSES)

    shown = capsys.readouterr().out.splitlines()
    assert shown == ["tiles by class: STR 18 (38%, 3.0 mm²), TUM 30 (62%, 3.0 mm²)", "empty, no tissue found: d"]


def test_the_totals_are_those_of_the_tables(
    label_job: LabelJob, pyramid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = label(label_job, found(pyramid / "two textures.tif"))
    table = ledger_file(label_job.out).read()
    assert table is not None

    say_totals(table, label_job.classes)

    (shown,) = capsys.readouterr().out.splitlines()
    counts = [int(part.split()[1]) for part in shown.removeprefix("tiles by class: ").split("), ")]
    assert sum(counts) == row["n_ok"]
    assert counts == [round(row[f"fraction_{name}"] * row["n_ok"]) for name in label_job.classes]


class _Failures(Ledger):
    def __init__(self, *codes: str) -> None:
        self._codes = codes

    def failures(self):  # type: ignore[no-untyped-def]
        return iter({"error_code": code} for code in self._codes)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((), ""),
        (("timeout",), "next: the same command tries failed slides again whose cause may pass: 1\n"),
        (("no_mpp",), "next: --mpp-if-missing labels slides without a resolution: 1\n"),
        (
            ("crash", "unreadable"),
            "next: files to mend, see above: 2; the same command tries those that changed, --retry-failed all\n",
        ),
    ],
)
def test_the_next_step_depends_on_the_causes(
    codes: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say_next(_Failures(*codes))

    assert capsys.readouterr().out == expected


def test_progress_names_the_bottleneck_and_failed_slides(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histo.run.progress._LOG_EVERY_S", 0.0)
    progress = Progress(3)

    progress.show(0, 0, Tiles(0, 0, 0.0, is_estimate=True), None)
    progress.show(1, 0, Tiles(110, 100, 130.0, is_estimate=True), 0.9)
    time.sleep(0.01)
    progress.show(2, 1, Tiles(120, 100, 130.0, is_estimate=False), 0.1)
    progress.settle("s.tif: ok, 20 tiles")
    progress.end(Tiles(130, 100, 130.0, is_estimate=False))

    begun, first, second, settled, ended = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{TIME}  0 of 3 slides  waiting for the first tiles for 0 s", begun)
    assert re.fullmatch(rf"{TIME}  1 of 3 slides  bottleneck: reading  110 tiles", first)
    assert re.fullmatch(
        rf"{TIME}  2 of 3 slides \(1 failed\)  0 s left  [\d.]+ tiles/s  bottleneck: classifying  120 tiles", second
    )
    rate = float(second.split("  ")[3].split()[0])
    assert rate <= 1000, "10 new tiles in 10 ms or more; those of an earlier run do not count"
    assert settled == "s.tif: ok, 20 tiles"
    assert re.fullmatch(rf"{TIME}  30 tiles in 0 s; 100 more were there", ended)


def test_a_narrow_terminal_shows_whole_parts_and_time_left_is_a_least_one_while_slides_are_unknown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histo.run.progress._TERMINAL_EVERY_S", 0.0)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    progress = Progress(16)
    progress.show(1, 0, Tiles(10, 0, 130.0, is_estimate=True), 0.9)
    time.sleep(0.01)
    capsys.readouterr()

    progress.show(2, 0, Tiles(20, 0, 130.0, is_estimate=True), 0.1)

    shown = capsys.readouterr().out.removeprefix(CLEAR)
    assert re.fullmatch(r"2 of 16 slides  at least \d+ s left  [\d.]+ tiles/s", shown)


def test_tiles_of_an_earlier_run_are_told_apart(label_job: LabelJob, pyramid: Path) -> None:
    slide = found(pyramid / "two textures.tif")
    region, work = tasks(label_job, slide)[0]
    labeler = RegionLabeler(label_job)

    first, second = labeler(region, work), labeler(region, work)

    assert first.counts is not None
    assert not first.counts.is_kept
    assert second.counts == first.counts._replace(is_kept=True)
