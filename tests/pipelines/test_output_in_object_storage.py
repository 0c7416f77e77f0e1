"""A label run whose output, bundle and slides are in object storage, by the command, on a private Ray."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import s3fs
from helpers.drawn import make_slide
from helpers.label_loop import label_collection, make_job
from helpers.s3_server import BUCKET, s3_server, troubled, upload, use_server
from upath import UPath

from histo import read_labels

pytestmark = pytest.mark.ray
TOP = f"s3://{BUCKET}/label"
SOON = "import sys; from histo.remote import lease; from histo.cli import main; lease.DEAD_S = 12; sys.exit(main())"
"""The command; the lock of a dead run is taken away sooner."""


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slides")
    make_slide(root, "a.tif", seed=1)
    make_slide(root / "below", "b c.tif", seed=2)
    (root / "broken.svs").write_bytes(b"no slide")
    return root


@pytest.fixture(scope="module")
def port(slides: Path, bare_bundle: Path) -> Iterator[int]:
    """An S3 server that holds the slides, and a bundle that is not converted."""
    with s3_server() as port, pytest.MonkeyPatch.context() as patch:
        use_server(patch, port)
        upload(slides, "label/slides")
        upload(bare_bundle, "label/run/model")
        yield port


@pytest.fixture(scope="module")
def plain(slides: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of a plain loop over local files."""
    job = make_job(tiny_bundle, tmp_path_factory.mktemp("plain") / "out")
    label_collection(job, slides)
    return job.out  # type: ignore[return-value] # it is local


def words(out: str, *more: str) -> list[str]:
    return ["label", "--slides", f"{TOP}/slides", "--model", f"{TOP}/run", "--out", out, *more]


def ran(*words: str) -> tuple[int, str]:
    """Run a command in a process of its own; returns its exit code, and all that it says."""
    run = subprocess.run(histo(*words), capture_output=True, text=True, check=False)
    return run.returncode, run.stdout + run.stderr


def histo(*words: str) -> list[str]:
    return [sys.executable, "-c", SOON, *words]


def assert_complete(out: str, plain: Path) -> None:
    """The tables are those of a run on a disk, and nothing else is left of the run."""
    files = s3fs.S3FileSystem()
    names = sorted(name.removeprefix(out.removeprefix("s3://") + "/") for name in files.find(out))
    tables = sorted(path.relative_to(plain).as_posix() for path in (plain / "tiles").rglob("*.parquet"))
    assert names == sorted(["run.json", "slides.parquet", *tables])
    for table in tables:
        with files.open(f"{out}/{table}") as file:
            found = pq.ParquetFile(file).read()
        assert found.equals(pq.ParquetFile(plain / table).read())


@pytest.mark.slow
def test_a_run_in_object_storage_is_complete_and_is_not_done_again(port: int, plain: Path, tmp_path: Path) -> None:
    out = f"{TOP}/out"
    label = words(out, "--workers", "2", "--cache.folder", str(tmp_path / "cache"))

    code, said = ran(*label)
    assert code == 3, said
    assert_complete(out, plain)
    assert f"1 failed (exit code 3); tables: {out}" in said
    assert f"failed: {TOP}/slides/broken.svs" in said

    code, said = ran(*label)
    assert "2 done before, 1 failed before" in said
    assert_complete(out, plain)

    labels = read_labels(out)
    assert labels.tiles.count_rows() == sum(len(pq.read_table(path)) for path in (plain / "tiles").rglob("*.parquet"))
    for command in (["report"], ["export", "geojson"]):
        assert ran(*command, out, "--workers", "1")[0] == 0
        code, said = ran(*command, out, "--workers", "1")
        assert ", 2 done before" in said
    assert (UPath(out) / "pictures" / "below" / "b c.tif.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.chaos
def test_a_killed_run_goes_on_behind_a_server_with_troubles(port: int, plain: Path, tmp_path: Path) -> None:
    out = f"{TOP}/troubled"
    troubles = [*["ok"] * 9, "drop", *["ok"] * 9, "busy", *["ok"] * 9, "half"]
    with (
        troubled(port, lambda number, _: troubles[number % len(troubles)]) as bad,
        pytest.MonkeyPatch.context() as patch,
    ):
        label = words(out, "--workers", "1", "--cache.folder", str(tmp_path / "cache"))
        files = s3fs.S3FileSystem()
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bad}")
        run = subprocess.Popen(histo(*label), start_new_session=True)
        while not files.find(f"{out}/tiles") and run.poll() is None:
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        assert files.exists(f"{out}/.lock"), "a process that is killed takes nothing away"

        code, said = ran(*label)

    assert code == 3, said
    assert "the lock of another run is there" in said
    assert_complete(out, plain)
