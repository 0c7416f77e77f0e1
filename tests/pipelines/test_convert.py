"""The convert job. It starts no Ray."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo.cli import main
from histo.learn.openvino.core import has_bf16
from histo.learn.openvino.record import FOLDER, read_conversion

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(bare_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bare_bundle, tmp_path / "model"))


def test_a_bundle_without_tiles_is_converted_and_bf16_stays_unmeasured(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "--model", str(copy)]) == 0

    conversion = read_conversion(copy / FOLDER, copy)
    assert conversion is not None
    assert conversion.bf16 is None
    shown = capsys.readouterr().out
    assert "no images to measure bf16 on" in shown
    assert "bf16 unmeasured" in shown


@pytest.mark.skipif(not has_bf16(), reason="this CPU has no bfloat16")
def test_bf16_is_measured_on_tiles_evenly_taken(
    copy: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "--model", str(copy), "--data", str(tiles), "--tiles", "20"]) == 0

    conversion = read_conversion(copy / FOLDER, copy)
    assert conversion is not None
    assert conversion.bf16 is not None
    assert conversion.bf16.tiles == 20
    assert "bf16 is refused: same class on" in capsys.readouterr().out, "20 tiles are too few"


def test_evaluation_in_bf16_is_refused_before_anything_is_written(
    copy: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(copy), "--data", str(tiles), "--out", str(tmp_path / "out"), "--precision", "bf16"]

    assert main(["evaluate", *flags]) == 2

    assert "its agreement with float32 was not measured" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_training_run_converts_its_bundle_and_its_validation_images_measure_it(finished: Path) -> None:
    conversion = read_conversion(finished / "model" / FOLDER, finished / "model")

    assert conversion is not None
    assert conversion.float32_difference < 1e-4
    assert (conversion.bf16 is not None) == has_bf16()


@pytest.mark.skipif(not has_bf16(), reason="this CPU has no bfloat16")
def test_a_runs_own_validation_images_are_measured_where_no_data_are_given(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(run / "model" / FOLDER)
    held_out = json.loads((run / "val" / "metrics.json").read_text())["n"]

    assert main(["convert", "--model", str(run)]) == 0

    conversion = read_conversion(run / "model" / FOLDER, run / "model")
    assert conversion is not None
    assert conversion.bf16 is not None
    assert conversion.bf16.tiles == held_out


def test_broken_images_are_left_out(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data" / "TUM").mkdir(parents=True)
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / "data" / "TUM" / "a.png")
    (tmp_path / "data" / "TUM" / "b.png").write_bytes(b"not a picture")

    assert main(["convert", "--model", str(copy), "--data", str(tmp_path / "data")]) == 0

    assert "left out: " in capsys.readouterr().out
