"""Command `report`: pictures of all slides of a label run."""

import json
import shutil
from pathlib import Path

import openslide
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.label_loop import found, label
from helpers.label_process import write_slide
from PIL import Image

from histo.cli import main
from histo.pipelines.labelling.tasks import LabelJob
from histo.pipelines.pictures.worker import FOLDERS, Drawer, PictureJob, PictureTask, key_of
from histo.pipelines.report import _remove_others


@pytest.fixture
def drawing(label_job: LabelJob, tmp_path: Path) -> tuple[PictureJob, PictureTask]:
    """A labelled slide that is to be drawn, in a folder and with a name that Parquet readers would skip."""
    slide = found(write_slide(tmp_path / "slides" / "_s.tif", 1152, 576))
    label(label_job, slide)
    (table,) = (label_job.out / "tiles").rglob("*.parquet")
    return PictureJob(label_job.out, 60, ("STR",), {}), PictureTask("_s.tif", slide.files, table, "f")


def test_a_worker_draws_a_slide_and_says_in_each_file_what_it_was_made_of(
    drawing: tuple[PictureJob, PictureTask],
) -> None:
    job, task = drawing
    assert not job.is_done(task)

    drawn = Drawer(job)(task)

    made = [job.picture("_s.tif"), job.picture("_s.tif", "STR"), job.class_map("_s.tif")]
    assert drawn.error is None
    assert {key_of(path) for path in made} == {job.key("f")}
    assert sorted(path for name in FOLDERS for path in (job.out / name).rglob("*.*")) == sorted(made)
    assert job.is_done(task)
    assert not PictureJob(job.out, 60, ("STR",), {"STR": "red"}).is_done(task)
    with openslide.OpenSlide(job.class_map("_s.tif")) as map_:
        assert float(map_.properties["openslide.mpp-x"]) * 16 == pytest.approx(
            pq.read_table(task.table)["width"][0].as_py() * 0.25
        )


def test_what_cannot_be_drawn_is_said_in_one_line(drawing: tuple[PictureJob, PictureTask]) -> None:
    job, task = drawing
    Path(task.files[0]).write_bytes(b"no slide any more")

    drawn = Drawer(job)(task)

    assert drawn.error_code == "not_a_slide"
    assert drawn.error is not None
    assert "_s.tif" in drawn.error
    assert not job.picture("_s.tif").exists()


def test_a_damaged_table_is_said_and_is_no_mistake_of_histos(drawing: tuple[PictureJob, PictureTask]) -> None:
    job, task = drawing
    task.table.write_bytes(task.table.read_bytes()[:-100])

    drawn = Drawer(job)(task)

    assert drawn.error_code == "unreadable"
    assert "not a whole tile table of a label run" in str(drawn.error)
    assert "please report" not in str(drawn.error)


def test_pictures_stay_as_long_as_their_tables(drawing: tuple[PictureJob, PictureTask]) -> None:
    job, task = drawing
    Drawer(job)(task)

    _remove_others(job, ["_s.tif"])
    assert job.is_done(task)
    _remove_others(job, ["other.tif"])
    assert not any(path.is_file() for name in FOLDERS for path in (job.out / name).rglob("*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no label run of slides is there"),
        (["--probabilities", "TU"], "--probabilities TU: no class of these tables"),
        (["--colours", "TUM=redd"], "--colours TUM: 'redd' is no colour"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_line_before_ray_starts(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    if flags:
        classes = {f"fraction_{name}": [0.5] for name in ("STR", "TUM")}
        row = {"slide_id": ["a"], "status": ["ok"], "error_code": [None], "uri": ["a"], "tiles_path": [None]}
        pq.write_table(pa.table({**row, **classes}), tmp_path / "slides.parquet")

    assert main(["report", str(tmp_path), *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_is_drawn_once_and_goes_on_and_follows_its_slides(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], joined_ray: None
) -> None:
    slides, out = tmp_path / "slides", tmp_path / "out"
    write_slide(slides / "a.tif", 1152, 576)
    write_slide(slides / "b" / "b.tif", 1152, 576, seed=1)
    assert main(["label", "--slides", str(slides), "--model", str(tiny_bundle), "--out", str(out), "--pictures"]) == 0
    pictures = [out / "pictures" / "a.tif.png", out / "pictures" / "b" / "b.tif.png"]
    assert "labelled slides: 2; 2 to draw" in capsys.readouterr().out
    for path in pictures:
        with Image.open(path) as image:
            assert image.width > 1000
    assert sorted(path.name for path in (out / "class_maps").rglob("*.tif")) == ["a.tif.tif", "b.tif.tif"]
    before, mine = json.loads((out / "run.json").read_text()), out / "pictures" / "mine.png"
    shutil.copy(slides / "a.tif", mine)

    pictures[1].unlink()
    shutil.move(slides, tmp_path / "moved")
    assert main(["report", str(out)]) == 2
    assert f"--slides is missing: {slides}, where they were labelled, is not there" in capsys.readouterr().err
    (tmp_path / "moved" / "a.tif").unlink()
    assert main(["report", str(out), "--slides", str(tmp_path / "moved")]) == 0, "a.tif is drawn, and need not be there"
    assert "labelled slides: 2; 1 to draw, 1 done before" in capsys.readouterr().out
    assert pictures[1].exists()

    assert main(["report", str(out), "--slides", str(tmp_path / "moved"), "--colours", "STR=red"]) == 3
    said = capsys.readouterr().out
    assert f"failed: a.tif: not found below {tmp_path / 'moved'}; give --slides" in said
    assert "1 drawn, 1 failed (exit code 3)" in said
    assert json.loads((out / "run.json").read_text()) == before, "the record is that of the label run"
    assert mine.exists()
    assert sorted(path.name for path in out.iterdir()) == [
        "class_maps",
        "pictures",
        "run.json",
        "slides.parquet",
        "tiles",
    ]
