"""State files of runs that are cut, lost, or of another shape: the run goes on, or says so in one line."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histo import store, tables
from histo.cli import main
from histo.errors import UsageError
from histo.pipelines.labelling import tile_tables
from histo.pipelines.training.split_table import FILE as SPLIT
from histo.pipelines.training.split_table import read_columns
from histo.run.ledger import LedgerFile
from histo.run.record import past_record

LAYOUT = tables.schema(tables.SLIDES)
JUNK = [
    b"",
    b"null",
    b"[1]",
    b"{}",
    b'{"command": "train"}',
    b'{"command": 3, "spec": {}}',
    b"\xff\xfe",
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", JUNK, ids=range(len(JUNK)))
def test_a_record_of_another_shape_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)

    with pytest.raises(UsageError, match=r"run\.json: cannot be read \(it is damaged\); put back a copy") as caught:
        past_record(tmp_path)

    assert "\n" not in str(caught.value)


def rows_file(out: Path) -> LedgerFile:
    return LedgerFile(
        out / "slides.parquet", "slide_id", "the tables are counted again", {"ok": (), "failed": ("error",)}
    )


@given(st.data())
def test_rows_that_were_settled_are_read_up_to_where_their_lines_are_torn(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = rows_file(tmp_path_factory.mktemp("out"))
    lines = [json.dumps({"slide_id": f"é{number}", "status": "ok"}).encode() + b"\n" for number in range(3)]
    content = b"".join(lines)
    cut = data.draw(st.integers(0, len(content)))
    file.lines.parent.mkdir()
    file.lines.write_bytes(content[:cut] + data.draw(st.binary(max_size=9).filter(lambda junk: b"\n" not in junk)))

    whole = cut // len(lines[0])
    assert list(file.earlier(LAYOUT))[:whole] == [f"é{number}" for number in range(whole)]


def test_lines_without_a_name_or_a_status_are_left_out(tmp_path: Path) -> None:
    file = rows_file(tmp_path)
    file.lines.parent.mkdir()
    file.lines.write_text(
        '{"slide_id": "a", "status": "ok"}\n{}\n{"slide_id": "b"}\n{"slide_id": "c", "status": "ok"}\n'
    )

    assert list(file.earlier(LAYOUT)) == ["a", "c"]


@pytest.mark.parametrize(
    "odd",
    [
        {"slide_id": [1]},
        {"slide_id": None},
        {"status": ["ok"]},
        {"status": "held"},
        {"status": "failed"},
        {"n_tiles": "x"},
        {"n_ok": 10**30},
        {"error": 5},
    ],
    ids=str,
)
def test_a_row_that_no_histo_writes_is_left_out_and_the_others_count(tmp_path: Path, odd: dict[str, Any]) -> None:
    file = rows_file(tmp_path)
    lines = [{"slide_id": name, "status": "ok"} for name in "abc"]
    store.put_json_lines(file.lines, [lines[0], lines[1] | odd, lines[2]])

    assert list(file.earlier(LAYOUT)) == ["a", "c"]


def test_rows_of_another_type_in_the_table_are_left_out(tmp_path: Path) -> None:
    file = rows_file(tmp_path)
    tables.write_table(file.path, pa.table({"slide_id": ["a", "b"], "status": ["ok"] * 2, "n_ok": ["x", None]}))

    assert list(file.earlier(LAYOUT)) == ["b"]


@pytest.mark.parametrize("place", ["slides.parquet", "staging/ledger.jsonl"])
def test_a_ledger_that_is_a_pipe_is_not_waited_for(tmp_path: Path, place: str) -> None:
    (tmp_path / "staging").mkdir()
    os.mkfifo(tmp_path / place)

    with pytest.raises(UsageError, match=r"cannot be read \(is a named pipe, not a regular file\)"):
        rows_file(tmp_path).earlier(LAYOUT)


def test_tables_and_splits_that_are_pipes_are_not_waited_for(tmp_path: Path) -> None:
    tile_tables.tiles_file(tmp_path, "a").parent.mkdir()
    os.mkfifo(tile_tables.tiles_file(tmp_path, "a"))
    os.mkfifo(tmp_path / SPLIT)

    assert not tile_tables.is_finished(tmp_path, "a", "fingerprint", 1)
    with pytest.raises(UsageError, match="is a named pipe"):
        read_columns(tmp_path, "case_id")


@pytest.fixture
def stopped(finished: Path, tmp_path: Path) -> Path:
    """A run that was stopped when all epochs had ended, and beside it `settings.yaml`, which continues it."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"exit_code": None}))
    (tmp_path / "settings.yaml").write_text(json.dumps(record["spec"] | {"out": str(run), "resume": True}))
    return run


@pytest.mark.slow
@pytest.mark.usefixtures("inline_ray")
@pytest.mark.parametrize(
    "job", ["train --config {run}/../settings.yaml", "evaluate --model {run} --out {run}/out", "convert --model {run}"]
)
@pytest.mark.parametrize("name", ["checkpoints/index.json", "metrics.jsonl", "run.json", SPLIT])
def test_a_job_on_a_run_with_a_damaged_file_does_its_work_or_says_which(
    stopped: Path, job: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = sorted((stopped / "checkpoints").glob("epoch_*"))
    (stopped / name).write_bytes((stopped / name).read_bytes()[:-9])

    code = main(job.format(run=stopped).split())

    shown = capsys.readouterr().err
    assert code in ((2,) if job.startswith("train") else (0, 2))
    assert code == 0 or (name in shown and shown.count("\n") == 1)
    assert sorted((stopped / "checkpoints").glob("epoch_*")) == kept
