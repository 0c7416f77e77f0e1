"""A label job that is stopped, killed, started twice, or that cannot write: it can always be continued."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers.label_loop import label_folder, make_job
from helpers.label_process import ROOT, WITHIN_S, assert_same_tables, end, ledger, run, start, wait_until, write_slide
from helpers.mounts import OWN_MOUNTS

from histo.pipelines.labelling.slide_ledger import FILE, ledger_file
from histo.run.ray_start import _LAST_WORD
from histo.store import read_json_lines

pytestmark = [pytest.mark.ray, pytest.mark.slow]

N_SLIDES = 6


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides of two regions of which each read may take a while."""
    folder = tmp_path_factory.mktemp("slides")
    for number in range(N_SLIDES):
        write_slide(folder / f"slow-tiles {number}.tif", 3840, 576, seed=number, lossless=True)
    return folder


@pytest.fixture(scope="module")
def undisturbed(slides: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label_folder(make_job(tiny_bundle, tmp_path_factory.mktemp("undisturbed")), slides)


def settled(out: Path) -> int:
    return len(list((out / "tiles").rglob("*.parquet"))) if (out / "tiles").exists() else 0


def entered(out: Path) -> int:
    """Count the slides that the driver has entered as `ok`."""
    rows = [*(ledger(out).values() if (out / FILE).exists() else ()), *read_json_lines(ledger_file(out).lines)]
    return len({row["slide_id"] for row in rows if row["status"] == "ok"})


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_a_true_ledger_and_goes_on(
    how: signal.Signals, slides: Path, undisturbed: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    process = start(slides, tiny_bundle, tmp_path, "--workers", "2", SLOW_S="0.08")
    wait_until((tmp_path / ".lock").exists, process)
    refused, refusal = run(slides, tiny_bundle, tmp_path)
    wait_until(lambda: entered(tmp_path) >= 1, process)

    process.send_signal(how)
    stopped = time.monotonic()
    code, log = end(process, timeout_s=60)
    took_s = time.monotonic() - stopped

    assert refused == 2
    assert f"another run writes there (process {process.pid} on " in refusal
    rows = ledger(tmp_path)
    assert len(rows) == N_SLIDES
    assert all((tmp_path / row["tiles_path"]).exists() for row in rows.values() if row["status"] == "ok")
    if how is not signal.SIGKILL:
        assert code == 1, log
        assert "stopping; the same command goes on from here" in log
        assert took_s < 20, "generous, for a busy machine; it takes about 3 s"
        assert {row["status"] for row in rows.values()} == {"ok", "pending"}
        assert not (tmp_path / "staging" / "attempts").exists(), "a worker that the run stops is not lost"
        assert json.loads((tmp_path / "run.json").read_text())["exit_code"] == 1
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "tiles").rglob("*.parquet")}
    again, log = run(slides, tiny_bundle, tmp_path)
    assert again == 0, log
    assert_same_tables(tmp_path, undisturbed)
    assert all(path.stat().st_mtime_ns == before[path] for path in before), "what was finished is not done again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "slides.parquet", "tiles"]


def test_a_run_whose_ray_is_killed_says_so_in_its_last_line(slides: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    process = start(slides, tiny_bundle, tmp_path, SLOW_S="0.08")
    wait_until(lambda: settled(tmp_path) >= 1, process)

    for child in psutil.Process(process.pid).children():
        if child.name() == "raylet":
            child.kill()
    code, log = end(process, timeout_s=60)

    assert code == 1
    last = log.splitlines()[-1]
    assert "Ray was ended by signal 9, most likely" in last or _LAST_WORD in last, "the latter where Ray ended the run"
    assert "most likely for want of memory; give the command again" in last
    rows = ledger(tmp_path)
    assert all((tmp_path / row["tiles_path"]).exists() for row in rows.values() if row["status"] == "ok")


def test_a_run_that_finds_nothing_to_do_starts_no_ray(
    slides: Path, undisturbed: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.tif.parquet")}
    start_s = time.monotonic()

    code, log = run(slides, tiny_bundle, undisturbed, SLOW_S="1", RAY_ADDRESS="127.0.0.1:1")

    assert code == 0, log
    assert f"{N_SLIDES} slides: {N_SLIDES} done before" in log
    assert time.monotonic() - start_s < 60, "generous, for a busy machine; it takes about 3 s"
    assert {path: path.stat().st_mtime_ns for path in before} == before


FULL = """
set -e
mount -t tmpfs -o size=48k histo {out}
set +e
{command}
echo "first: $?"
find {out} -name '*.tmp' | sed 's/^/left over: /'
mount -o remount,size=16m {out}
{command}
echo "second: $?"
cp -r {out}/. {copy}
"""

READ_ONLY = """
set -e
mount --bind {out} {out}
mount -o remount,bind,ro {out}
set +e
{command}
echo "first: $?"
mount -o remount,bind,rw {out}
{command}
echo "second: $?"
cp -r {out}/. {copy}
"""


@pytest.mark.mounts
@pytest.mark.parametrize(
    ("script", "first", "words"),
    [(FULL, 1, "No space left on device"), (READ_ONLY, 2, "cannot be written (Read-only file system)")],
)
def test_an_output_that_cannot_be_written_is_said_and_the_run_goes_on_when_it_can(
    script: str, first: int, words: str, slides: Path, undisturbed: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    out, copy = tmp_path / "out", tmp_path / "copy"
    out.mkdir()
    copy.mkdir()
    command = f"{sys.executable} {ROOT}/jobs/label.py --slides '{slides}' --model {tiny_bundle} --out {out}"

    ended = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", script.format(command=command, out=out, copy=copy)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )

    assert f"first: {first}\n" in ended.stdout, ended.stdout
    assert words in ended.stdout
    assert "Traceback" not in ended.stdout
    assert "left over" not in ended.stdout
    assert "second: 0\n" in ended.stdout, ended.stdout
    assert_same_tables(copy, undisturbed)
