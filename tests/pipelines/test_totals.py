"""What a label run shows: its progress, a line for each slide, and its last lines."""

from pathlib import Path

import pytest
from helpers.label_loop import found, label

from histo.pipelines.labelling.slide_ledger import ledger_file
from histo.pipelines.labelling.tasks import LabelJob
from histo.pipelines.labelling.totals import say_next, say_totals
from histo.run.ledger import Ledger
from histo.run.progress import Progress
from histo.tables import SLIDES, rows_table, schema

CLASSES = ("STR", "TUM")


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
        (("timeout",), "next: the same command tries 1 failed slides again\n"),
        (("crash", "no_mpp"), "next: with --retry-failed it tries 2 whose files are to blame\n"),
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

    progress.show(1, 0, 10, 30.0, 0.9)
    progress.show(2, 1, 20, 30.0, 0.1)
    progress.settle("s.tif", "ok", 20)
    progress.settle("t.tif", "failed, no_mpp", None)

    first, second, settled, failed = capsys.readouterr().out.splitlines()
    assert first.endswith("bottleneck: reading")
    assert "failed" not in first
    assert second.startswith("2/3 slides  1 failed  20 tiles")
    assert second.endswith("bottleneck: network")
    assert [settled, failed] == ["s.tif: ok, 20 tiles", "t.tif: failed, no_mpp"]
