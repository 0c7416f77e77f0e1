"""Jobs from Python: train, label, evaluate and draw, with the settings of the commands."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from helpers.label_process import write_slide
from helpers.plain_loop import rows_of
from PIL import Image

import histo
from histo.errors import HistoError, UsageError
from histo.interface.jobs import _settings
from histo.pipelines.labelling.spec import LabelSpec
from histo.pipelines.training.spec import TrainSpec
from histo.slides.spec import TissueSpec
from histo.spec.command_line import read_spec

ROOT = Path(__file__).resolve().parents[2]
NETWORK = {"network": {"backbone": "resnet18"}}


def test_settings_are_those_of_the_command_line(tmp_path: Path) -> None:
    flags = ["--data", f"{tmp_path}/a,{tmp_path}/b", "--out", f"{tmp_path}/run", "--mpp", "0.5"]
    flags += ["--fit.head.epochs", "5", "--network.backbone", "resnet18"]
    given = {"data": [tmp_path / "a", str(tmp_path / "b")], "out": tmp_path / "run"}

    made = _settings(TrainSpec, given["data"], given, {"mpp": 0.5, "fit": {"head": {"epochs": 5}}} | NETWORK)

    assert made == read_spec(TrainSpec, flags, "histo train")


def test_sections_are_dictionaries_or_objects_and_an_object_may_be_all_settings(tmp_path: Path) -> None:
    given = {"slides": tmp_path, "model": tmp_path, "out": tmp_path / "out"}

    one = _settings(LabelSpec, tmp_path, given, {"tissue": {"min_fraction": 0.5}})
    other = _settings(LabelSpec, tmp_path, given, {"tissue": TissueSpec(min_fraction=0.5)})

    assert one == other
    assert _settings(LabelSpec, one, given, {}) is one
    with pytest.raises(TypeError, match="give LabelSpec alone"):
        histo.label(one, mpp_override=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_sise": 4}, "batch_sise: unknown field; did you mean batch_size?"),
        ({"batch_size": 0}, "batch_size: 0: input should be greater than or equal to 1"),
        ({"tissue": {"min_fractoin": 1}}, r"tissue.min_fractoin: unknown field; did you mean tissue.min_fraction"),
        ({"tissue.min_fraction": 0.5}, r"tissue.min_fraction: a section is a dictionary: tissue=\{'min_fraction'"),
        ({"out": ""}, "out: '': value error, the path is empty"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    settings: dict[str, object], message: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        histo.label(tmp_path, tiny_bundle, **{"out": tmp_path / "out"} | settings)

    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_job_needs_its_inputs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="model is missing"):
        histo.label(tmp_path)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="out is missing"):
        histo.train(tmp_path)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="no label run is there"):
        histo.read_labels(tmp_path)
    with pytest.raises(UsageError, match="no label run of slides is there"):
        histo.draw(tmp_path)
    with pytest.raises(HistoError, match="no such folder"):
        histo.label(tmp_path, tmp_path / "nothing", tmp_path / "out")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    write_slide(folder / "a" / "good.tif", 1152, 576)
    (folder / "bad.tif").write_bytes(b"no slide")
    return folder


def test_a_temporary_folder_is_there_as_long_as_python_is() -> None:
    program = "from histo.interface.jobs import _temporary_folder as f; from pathlib import Path; p = f(); print(p)"
    shown = subprocess.run(
        [sys.executable, "-c", f"{program}; assert Path(p).is_dir()"], capture_output=True, text=True, check=True
    )

    assert "histo-labels-" in shown.stdout
    assert not Path(shown.stdout.strip()).exists()


def test_labels_are_read_and_drawn_without_an_output_folder(slides: Path, tiny_bundle: Path, joined_ray: None) -> None:
    model = histo.load_model(tiny_bundle, device="cpu")

    labels = histo.label(slides, model, workers=1, tissue={"min_fraction": 0.0})
    pictures = histo.draw(labels, probabilities=["TUM"], workers=1)

    assert dict(zip(*(labels.slides[name].to_pylist() for name in ("slide_id", "status")), strict=True)) == {
        "a/good.tif": "ok",
        "bad.tif": "failed",
    }
    rows = rows_of(labels.out / "tiles" / "a" / "good.tif.parquet")
    assert labels.tiles.to_table().to_pylist() == rows
    assert labels.tiles.count_rows() == 18
    assert labels.tiles.to_table(columns=["label"]).column_names == ["label"]
    assert labels.classes == ["MUS", "STR", "TUM"]
    assert "2 slides" in repr(labels)
    assert list(pictures) == ["a/good.tif"]
    with Image.open(pictures["a/good.tif"]) as picture:
        assert picture.width > 600
    assert (labels.out / "probabilities" / "TUM" / "a" / "good.tif.png").exists()
    (exported,) = histo.export_geojson(labels, least_certain=5, workers=1).values()
    assert len(json.loads(exported.read_text())["features"]) == 5
    assert (
        histo.label(slides, model, labels.out, workers=1, tissue={"min_fraction": 0.0}, quality=True)
        .tiles.to_table(columns=["focus"])
        .num_rows
        == 18
    )
    with pytest.raises(UsageError, match="a run of slides"):
        _ = labels.studies
    assert labels.out.name.startswith("histo-labels-")


def test_a_process_keeps_the_ray_that_it_has(slides: Path, tiny_bundle: Path, ray_address: str, tmp_path: Path) -> None:
    ray.init(address=ray_address, log_to_driver=False)
    try:
        labels = histo.label(slides / "a" / "good.tif", str(tiny_bundle), str(tmp_path / "out"), workers=1)

        assert ray.is_initialized()
        assert labels.slides["status"].to_pylist() == ["ok"]
    finally:
        ray.shutdown()


def test_a_run_without_tables_has_no_tiles_and_all_columns(tmp_path: Path, tiny_bundle: Path, joined_ray: None) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "bad.tif").write_bytes(b"no slide")

    labels = histo.label(tmp_path / "slides", tiny_bundle, tmp_path / "out", workers=1)

    assert labels.tiles.count_rows() == 0
    assert {"slide_id", "prob_TUM", "status"} <= set(labels.tiles.schema.names)
    assert labels.slides["error_code"].to_pylist() == ["not_a_slide"]
    assert histo.draw(labels) == {}


@pytest.mark.usefixtures("inline_ray")
def test_a_model_is_trained_and_measured(tiles: Path, tiny: list[str], tmp_path: Path) -> None:
    network = {"backbone": tiny[1], "weights": tiny[3]}
    fit = {"head": {"epochs": 2, "augment": False}, "tune": {"epochs": 0}}

    model = histo.train(
        tiles, tmp_path / "run", mpp=2, size_px=64, classes=["MUS", "STR", "TUM"], network=network, fit=fit
    )
    again = histo.train(
        histo.TrainSpec.model_validate(
            json.loads((tmp_path / "run" / "run.json").read_text())["spec"] | {"resume": True}
        )
    )
    metrics = histo.evaluate(model, tiles, tmp_path / "evaluation", mpp=2, resamples=10)

    assert (model.classes, model.mpp, model.size_px) == (("MUS", "STR", "TUM"), 1.0, 64)
    assert again.path == model.path == tmp_path / "run" / "model"
    assert metrics == json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["n"] == 36
    with np.load(tiles) as arrays, pytest.raises(ValueError, match=r"sees uint8 \(64, 64, 3\) at 1 µm/px"):
        model(arrays["images"])
    with pytest.raises(UsageError, match="already holds a run"):
        histo.train(tiles, tmp_path / "run", mpp=2)
    held_out = histo.evaluate(model, None, tmp_path / "held out", part="val")
    assert 0 < held_out["n"] < 36


@pytest.mark.slow
def test_the_code_of_the_pages_runs(
    tiny_bundle: Path, slides: Path, joined_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_bundle, tmp_path / "RUN")
    shutil.copytree(slides, tmp_path / "SLIDES")
    write_slide(tmp_path / "slide.svs", 1152, 576)
    for name in ("tile.png", "a.png", "b.png"):
        Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(tmp_path / name)
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/python.md")]
    blocks = [re.search(r"```python\n(import histo\n.*?)```", page, flags=re.DOTALL) for page in pages]

    for block in blocks:  # of which the second finds everything done
        found: dict[str, Any] = {}
        assert block
        exec(block[1], found)
        assert found["labels"].tiles.count_rows() == 18

    assert (tmp_path / "OUT" / "pictures" / "a" / "good.tif.png").exists()
