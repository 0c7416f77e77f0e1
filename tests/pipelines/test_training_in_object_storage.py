"""Data, runs, bundles and evaluations in object storage, by the commands."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3fs
from helpers.s3_server import BUCKET, s3_server, upload, use_server
from PIL import Image
from upath import UPath

from histo.cli import main
from histo.learn.fit.history import History
from histo.pipelines.training.split_table import read_columns

pytestmark = pytest.mark.slow
TOP = f"s3://{BUCKET}/training"


@pytest.fixture(scope="module")
def port(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An S3 server that holds labelled tiles."""
    with s3_server() as port, pytest.MonkeyPatch.context() as patch:
        use_server(patch, port)
        s3fs.S3FileSystem().mkdirs(BUCKET, exist_ok=True)
        s3fs.S3FileSystem().put_file(str(tiles), f"{BUCKET}/training/data/{tiles.name}")
        yield port


def below(place: str) -> list[str]:
    """The files of a folder of the bucket, but TensorBoard's, whose names have a time."""
    names = (name.removeprefix(f"{place.removeprefix('s3://')}/") for name in s3fs.S3FileSystem().find(place))
    return sorted(name for name in names if "tensorboard" not in name)


def on_disk(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if "tensorboard" not in name)


def read(path: Path | UPath) -> Any:
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else None
    return json.loads(path.read_text()) if lines is None else [line["val_loss"] for line in lines]


@pytest.mark.usefixtures("inline_ray")
def test_runs_in_object_storage_are_those_of_a_disk(
    port: int, tiles: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--size-px", "32", "--fit.head.epochs", "1", "--fit.tune.epochs", "1", *tiny]
    for data, top in ((f"{TOP}/data/{tiles.name}", TOP), (str(tiles), str(tmp_path))):
        assert main(["train", "--data", data, "--out", f"{top}/run", *flags]) == 0
        assert main(["evaluate", "--model", f"{top}/run", "--out", f"{top}/scores", "--part", "val"]) == 0
        assert main(["evaluate", "--model", f"{top}/run", "--data", data, "--out", f"{top}/all"]) == 0
        assert main(["crossval", "--data", data, "--out", f"{top}/folds", "--folds", "2", *flags]) == 0
    for name in ("run", "scores", "all", "folds"):
        assert below(f"{TOP}/{name}") == on_disk(tmp_path / name)
    assert s3fs.S3FileSystem().find(f"{TOP}/run/tensorboard")
    for name in ("run/metrics.jsonl", "scores/metrics.json", "all/metrics.json", "folds/metrics.json"):
        assert read(UPath(TOP) / name) == read(tmp_path / name), name
    assert read_columns(UPath(TOP) / "run", "case_id", "split") == read_columns(tmp_path / "run", "case_id", "split")

    capsys.readouterr()
    assert main(["train", "--data", f"{TOP}/data/{tiles.name}", "--out", f"{TOP}/run", *flags, "--resume"]) == 0
    assert "the run is complete" in capsys.readouterr().out
    longer = [*flags[: -len(tiny)], "--start-from", f"{TOP}/run", "--network.backbone", "test_efficientnet"]
    assert main(["train", "--data", f"{TOP}/data/{tiles.name}", "--out", f"{TOP}/next", *longer]) == 0
    assert main(["train", "--data", f"{TOP}/nothing", "--out", f"{TOP}/no run", *flags]) == 2
    assert f"{TOP}/nothing: no such folder" in capsys.readouterr().err
    assert main(["train", "--data", f"{TOP}/data", "--out", f"{TOP}/data/run", *flags]) == 2
    assert "whose images are read; give another folder" in capsys.readouterr().err


@pytest.mark.usefixtures("inline_ray")
def test_a_run_that_was_stopped_goes_on(
    port: int, tiles: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = f"{TOP}/data/{tiles.name}", f"{TOP}/stopped"
    flags = ["--data", data, "--size-px", "32", "--fit.head.epochs", "2", "--fit.tune.epochs", "1", *tiny]
    entering, entered = History.entering, []

    @contextmanager
    def stops(self: History, metrics: dict[str, Any], steps: Any) -> Iterator[Any]:
        with entering(self, metrics, steps) as folder:
            yield folder
        entered.append(metrics["epoch"])
        if entered == [1]:
            raise KeyboardInterrupt

    monkeypatch.setattr(History, "entering", stops)
    assert main(["train", "--out", out, *flags]) == 1
    assert main(["train", "--out", out, *flags, "--resume"]) == 0
    assert entered == [1, 2, 3]
    assert main(["train", "--out", str(tmp_path), *flags]) == 0
    assert read(UPath(out) / "metrics.jsonl") == read(tmp_path / "metrics.jsonl")


@pytest.mark.ray
def test_a_folder_of_class_folders_is_copied_and_ray_trains_two_workers(
    port: int, tiny: list[str], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    for name, grey in (("A", 60), ("B", 180)):
        (tmp_path / "tiles" / name).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(grey - 30, grey + 30, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "tiles" / name / f"{number}.png")
    upload(tmp_path / "tiles", "training/class folders")
    out = f"{TOP}/by ray"
    words = ["train", "--data", f"{TOP}/class folders", "--out", out, "--size-px", "32", "--workers", "2", *tiny]
    words += ["--fit.head.epochs", "1", "--fit.tune.epochs", "1", "--fit.batch-size", "4"]

    run = subprocess.run([sys.executable, "-m", "histo", *words], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    assert {"model/model.json", "model/openvino/conversion.json", "split.parquet", "val/metrics.json"} <= {*below(out)}
    assert not [name for name in below(out) if name.startswith(("staging", ".lock"))]
    assert f"bundle: {out}/model" in run.stdout
