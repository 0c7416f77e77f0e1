"""State files of runs that are cut, lost, or of another shape: the run goes on, or says so in one line."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histo.cli import main
from histo.errors import UsageError
from histo.pipelines.cases import FILE as SPLIT
from histo.pipelines.record import past_record
from histo.pipelines.rows import RowsFile

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


@given(st.data())
def test_rows_that_were_settled_are_read_up_to_where_their_lines_are_torn(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = RowsFile(tmp_path_factory.mktemp("out") / "slides.parquet", "slide_id", "the tables are counted again")
    lines = [json.dumps({"slide_id": f"é{number}", "status": "ok"}).encode() + b"\n" for number in range(3)]
    content = b"".join(lines)
    cut = data.draw(st.integers(0, len(content)))
    file.lines.parent.mkdir()
    file.lines.write_bytes(content[:cut] + data.draw(st.binary(max_size=9).filter(lambda junk: b"\n" not in junk)))

    whole = cut // len(lines[0])
    assert list(file.earlier())[:whole] == [f"é{number}" for number in range(whole)]


def test_lines_without_a_name_or_a_status_are_left_out(tmp_path: Path) -> None:
    file = RowsFile(tmp_path / "slides.parquet", "slide_id", "the tables are counted again")
    file.lines.parent.mkdir()
    file.lines.write_text(
        '{"slide_id": "a", "status": "ok"}\n{}\n{"slide_id": "b"}\n{"slide_id": "c", "status": "ok"}\n'
    )

    assert list(file.earlier()) == ["a", "c"]


@pytest.fixture
def stopped(finished: Path, tmp_path: Path) -> Path:
    """A run that was stopped when all epochs had ended, and beside it `settings.yaml`, which continues it."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"exit_code": None}))
    (tmp_path / "settings.yaml").write_text(json.dumps(record["spec"] | {"out": str(run), "resume": True}))
    return run


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
