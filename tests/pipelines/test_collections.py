"""Slides of lists, of object storage and of web servers are labelled as those of a folder."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import gcsfs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from helpers.drawn import make_slide
from helpers.gs_server import gs_server
from helpers.label_loop import label, label_collection, make_job
from helpers.plain_loop import rows_of
from helpers.s3_server import BUCKET, s3_server, serving, troubled, upload, use_server
from PIL import Image
from upath import UPath

from histo.cli import main
from histo.demo.fabricate import write_pyramid
from histo.errors import Cause
from histo.pipelines.labelling import tile_tables
from histo.pipelines.labelling.tasks import LabelJob
from histo.remote import objects
from histo.remote.cache import Cache
from histo.slides.finding.find import find_slides
from histo.tables import Row

OF_A_COPY = {"uri", "mtime_ns", "seconds", "attempts", "error"}
"""Columns of the ledger that depend on the place of a slide."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides, and a file that is none."""
    root = tmp_path_factory.mktemp("collection")
    make_slide(root, "a.tif", seed=1)
    make_slide(root / "below", "b c.tif", seed=2)
    (root / "broken.svs").write_bytes(b"no slide")
    return root


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    """An S3 server that holds them."""
    with s3_server() as port, pytest.MonkeyPatch.context() as patch:
        use_server(patch, port)
        upload(folder, "c")
        (folder.parent / "list.csv").write_text("uri\n")
        yield port


@pytest.fixture(scope="module")
def plain(folder: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Row]]:
    """The tables and rows of the folder."""
    job = make_job(tiny_bundle, tmp_path_factory.mktemp("plain") / "out")
    return job.out, label_collection(job, folder)


@pytest.fixture
def job(tiny_bundle: Path, tmp_path: Path) -> LabelJob:
    return make_job(tiny_bundle, tmp_path / "out", cache=Cache(tmp_path / "cache", patience_s=20))


def assert_as_plain(out: Path, rows: dict[str, Row], plain: tuple[Path, dict[str, Row]]) -> None:
    """The rows of all tables are the same, and so is what the ledger says of the slides."""
    plain_out, plain_rows = plain
    assert {name: _without_place(row) for name, row in rows.items()} == {
        name: _without_place(row) for name, row in plain_rows.items()
    }
    tables = [path.relative_to(plain_out) for path in plain_out.rglob("tiles/**/*.parquet")]
    assert len(tables) == 2
    for table in tables:
        assert rows_of(out / table) == rows_of(plain_out / table)


def _without_place(row: Row) -> Row:
    left_out = OF_A_COPY | ({"fingerprint"} if row["status"] == "failed" else set())  # that of a failure has its time
    return {name: value for name, value in row.items() if name not in left_out}


def write_list(path: Path, base: str, quoted: bool = False) -> Path:
    names = {
        "a.tif": "a.tif",
        "below/b c.tif": "below/b%20c.tif" if quoted else "below/b c.tif",
        "broken.svs": "broken.svs",
    }
    path.write_text("uri,slide_id\n" + "".join(f"{base}/{uri},{name}\n" for name, uri in names.items()))
    return path


def test_a_list_gives_the_tables_of_the_folder(
    folder: Path, plain: tuple[Path, dict[str, Row]], job: LabelJob, tmp_path: Path
) -> None:
    rows = label_collection(job, write_list(tmp_path / "list.csv", str(folder)))

    assert_as_plain(job.out, rows, plain)
    assert not (tmp_path / "cache").exists(), "local files are not copied"


@pytest.mark.parametrize("where", ["s3://slides/c", "s3://slides/c/**/*.*", "list"])
def test_object_storage_gives_the_tables_of_the_folder(
    port: int, plain: tuple[Path, dict[str, Row]], job: LabelJob, tmp_path: Path, where: str
) -> None:
    given = str(write_list(tmp_path / "list.csv", f"s3://{BUCKET}/c")) if where == "list" else where

    rows = label_collection(job, given)

    assert_as_plain(job.out, rows, plain)
    assert rows["a.tif"]["uri"] == "s3://slides/c/a.tif"
    assert rows["broken.svs"]["error"].startswith("s3://slides/c/broken.svs: "), "the file is named, not its copy"
    assert str(tmp_path) not in str(rows)


def test_a_web_server_gives_the_tables_of_the_folder(
    folder: Path, plain: tuple[Path, dict[str, Row]], job: LabelJob, tmp_path: Path
) -> None:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))) as server:
        base = f"http://me:secret@127.0.0.1:{server.server_address[1]}"
        rows = label_collection(job, write_list(tmp_path / "list.csv", base, quoted=True))

    assert_as_plain(job.out, rows, plain)
    assert "secret" not in str(rows)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


TROUBLES = {
    "drops connections": ["drop", "ok", "ok"],
    "is slow": ["slow"],
    "is busy for a while": ["busy"] * 6 + ["ok"] * 1000,
    "sends half": ["ok", "half", "ok", "ok"],
}


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_bad_server_costs_only_time(
    port: int, plain: tuple[Path, dict[str, Row]], job: LabelJob, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    what = TROUBLES[trouble]
    monkeypatch.setattr(objects, "_LONGEST_WAIT_S", 0.5)
    with troubled(port, lambda number, _: what[number % len(what)]) as bad:
        use_server(monkeypatch, bad)
        rows = label_collection(job, "s3://slides/c")
        s3fs.S3FileSystem.clear_instance_cache()

    assert_as_plain(job.out, rows, plain)


def test_a_slide_that_cannot_be_had_is_a_row_and_is_tried_again(
    port: int, folder: Path, job: LabelJob, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text(f"uri,slide_id\ns3://{BUCKET}/c/a.tif,a\ns3://{BUCKET}/c/late.tif,late\n")

    before = label_collection(job, tmp_path / "list.csv")
    s3fs.S3FileSystem().put_file(str(folder / "a.tif"), f"{BUCKET}/c/late.tif")
    after = label_collection(job, tmp_path / "list.csv")
    s3fs.S3FileSystem().rm_file(f"{BUCKET}/c/late.tif")

    assert [before[name]["status"] for name in ("a", "late")] == ["ok", "failed"]
    assert before["late"]["error_code"] == Cause.NO_ACCESS
    assert "s3://slides/c/late.tif: no such file" in before["late"]["error"]
    assert after["late"]["status"] == "ok"


def test_slides_that_moved_to_object_storage_are_not_labelled_anew(
    port: int, folder: Path, job: LabelJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_collection(job, folder)
    monkeypatch.setattr(tile_tables, "tile_table", lambda *_: pytest.fail("a tile was labelled"))

    rows = label_collection(job, "s3://slides/c")

    assert rows["a.tif"]["status"] == "ok"
    assert rows["a.tif"]["uri"] == "s3://slides/c/a.tif"


def test_a_copy_that_is_lost_is_not_the_fault_of_the_slide(port: int, job: LabelJob, tmp_path: Path) -> None:
    found = next(slide for slide in find_slides("s3://slides/c").slides if slide.slide_id == "a.tif")

    def lose_the_copy() -> None:
        (copy,) = (tmp_path / "cache").glob("*/files/a.tif")
        copy.write_bytes(b"")

    row = label(job, found, between=lose_the_copy)

    assert row["status"] == "failed"
    assert Cause(row["error_code"]).transient, "the next run tries it again"


@pytest.fixture(scope="module")
def small_slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty slides of one tile or a few."""
    root, random = tmp_path_factory.mktemp("twenty"), np.random.default_rng(0)
    for number in range(20):
        image = random.integers(0, 200, (512, 512, 3), np.uint8)
        image[..., 1] //= 2
        write_pyramid(root / f"{number:02d}.tif", image, mpp=0.5, downsamples=(1, 4), quality=None)
    return root


def test_twenty_slides_pass_through_a_cache_of_three(
    port: int, small_slides: Path, job: LabelJob, tmp_path: Path
) -> None:
    upload(small_slides, "twenty")
    size = max(path.stat().st_size for path in small_slides.iterdir())
    bounded = replace(job, cache=Cache(tmp_path / "cache", 3 * size))
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, sum(path.stat().st_size for path in (tmp_path / "cache").glob("*/files/*")))

    slides = find_slides("s3://slides/twenty").slides
    rows = [label(bounded, slide, between=look) for slide in slides]

    assert {row["status"] for row in rows} == {"ok"}
    assert size < most <= 3 * size


def test_the_resolution_of_a_list_wins_over_the_metadata(folder: Path, job: LabelJob, tmp_path: Path) -> None:
    shutil.copy(folder / "a.tif", tmp_path / "named.tif")
    with Image.open(folder / "a.tif") as image:
        write_pyramid(tmp_path / "nameless.tif", np.asarray(image.convert("RGB")), mpp=None)
    (tmp_path / "list.csv").write_text("uri,mpp\nnamed.tif,\nnameless.tif,\n")
    before = label_collection(job, tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("uri,mpp\nnamed.tif,0.5\nnameless.tif,0.25\n")
    after = label_collection(job, tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("uri,mpp\nnamed.tif,0.25\nnameless.tif,0.25\n")
    again = label_collection(job, tmp_path / "list.csv")
    overridden = label_collection(replace(job, mpp_override=0.5), tmp_path / "list.csv")

    assert (before["named.tif"]["mpp_x"], before["named.tif"]["mpp_source"]) == (0.25, "metadata")
    assert before["nameless.tif"]["error_code"] == Cause.NO_MPP
    assert "in a column mpp of a list" in before["nameless.tif"]["error"]
    assert (after["named.tif"]["mpp_x"], after["named.tif"]["mpp_source"]) == (0.5, "list")
    assert (after["nameless.tif"]["status"], after["nameless.tif"]["mpp_source"]) == ("ok", "list")
    assert again["named.tif"]["mpp_x"] == 0.25
    assert again["nameless.tif"]["attempts"] == after["nameless.tif"]["attempts"], "nothing changed for this one"
    assert overridden["named.tif"]["mpp_source"] == "override", "that is for every slide, whatever is said of it"


def test_columns_of_a_list_are_in_the_ledger_of_this_run(folder: Path, job: LabelJob, tmp_path: Path) -> None:
    values = {"uri": [str(folder / "a.tif"), "gone.tif"], "slide_id": ["a.tif", "gone"]}
    pq.write_table(pa.table(values | {"age": [61, None], "case": ["007", "008"]}), tmp_path / "one.parquet")
    pq.write_table(pa.table(values | {"age": ["old", "young"]}), tmp_path / "two.parquet")

    first = label_collection(job, tmp_path / "one.parquet")
    second = label_collection(job, tmp_path / "two.parquet")
    third = label_collection(job, folder)

    assert [(first[name]["age"], first[name]["case"]) for name in ("a.tif", "gone")] == [(61, "007"), (None, "008")]
    assert pq.read_schema(job.out / "slides.parquet").names[-1].startswith("area_mm2_"), "the folder says nothing"
    assert (second["a.tif"]["age"], second["gone"]["age"]) == ("old", "young"), "also of a slide that failed"
    assert "case" not in second["a.tif"]
    assert "age" not in third["a.tif"]
    assert {each["a.tif"]["attempts"] for each in (first, second, third)} == {1}, "labelled once"


@pytest.mark.usefixtures("inline_ray")
def test_pictures_and_tiles_of_remote_slides_are_those_of_the_folder(
    port: int, folder: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    cache = ["--cache.folder", str(tmp_path / "cache")]
    cut = ["prepare", "tiles", "--tiling.mpp", "0.5", "--no-sheets", "--workers", "1"]
    for name, where, more in (("local", str(folder), []), ("remote", "s3://slides/c", cache)):
        out = tmp_path / name
        label_collection(make_job(tiny_bundle, out / "labels", cache=Cache(tmp_path / "cache")), where)
        assert main(["report", str(out / "labels"), "--slides", where, "--workers", "1", *more]) == 0
        assert main([*cut, "--slides", where, "--out", str(out / "tiles"), *more]) == 3

    for pattern in ("labels/tiles/**/*.parquet", "labels/pictures/**/*.png", "tiles/part-*.parquet"):
        paths = [path.relative_to(tmp_path / "local") for path in (tmp_path / "local").glob(pattern)]
        assert len(paths) >= 2
        for path in paths:
            assert _content(tmp_path / "remote" / path) == _content(tmp_path / "local" / path)


def _content(path: Path) -> object:
    if path.suffix == ".parquet":
        return [{name: value for name, value in row.items() if name != "source"} for row in rows_of(path)]
    with Image.open(path) as image:
        return image.tobytes()


@pytest.mark.slow
@pytest.mark.ray
def test_a_job_labels_a_bucket(
    port: int, plain: tuple[Path, dict[str, Row]], tiny_bundle: Path, tmp_path: Path
) -> None:
    """The command as it is typed, on a Ray of its own."""
    command = [sys.executable, "-m", "histo", "label", "--slides", "s3://slides/c", "--model", str(tiny_bundle)]
    command += ["--out", str(tmp_path / "out"), "--cache.folder", str(tmp_path / "cache"), "--workers", "1"]

    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)

    assert done.returncode == 3, done.stderr
    assert "2 ok, 1 failed" in done.stdout
    assert_as_plain(tmp_path / "out", {row["slide_id"]: row for row in rows_of(tmp_path / "out/slides.parquet")}, plain)


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # of gcsfs, which sends whole files
def test_google_cloud_storage_gives_the_tables_of_the_folder_and_takes_them(
    folder: Path, plain: tuple[Path, dict[str, Row]], job: LabelJob
) -> None:
    with gs_server(BUCKET):
        files = gcsfs.GCSFileSystem()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            files.put_file(str(path), f"{BUCKET}/c/{path.relative_to(folder).as_posix()}")
        out = UPath(f"gs://{BUCKET}/out")

        rows = label_collection(replace(job, out=out), f"gs://{BUCKET}/c")

        files.get(f"{BUCKET}/out/tiles", str(job.out / "tiles"), recursive=True)
    assert_as_plain(cast(Path, job.out), rows, plain)
    assert rows["a.tif"]["uri"] == "gs://slides/c/a.tif"
