"""The train job from the command line to the bundle, in a Ray of its own."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from histo.cli import main
from histo.learn.bundle import read_bundle

pytestmark = pytest.mark.ray

MEASURED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


def train(data: Path, out: Path, *flags: str) -> int:
    return main(["train", "--data", str(data), "--out", str(out), *flags])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def measured(run: Path) -> list[tuple[float, ...]]:
    return [tuple(line[name] for name in MEASURED) for line in lines(run / "metrics.jsonl")]


def test_a_run_ends_with_its_records_and_the_best_bundle(tiles: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    refused = train(tiles, run, "--device", "gpu", "--workers", "999")
    code = train(tiles, run, "--fit.epochs", "3", "--size-px", "64", "--mpp", "2", "--classes", "MUS,STR,TUM")

    metrics = lines(run / "metrics.jsonl")
    best = min(metrics, key=lambda line: line["val_loss"])
    bundle = read_bundle(run / "model")
    record = json.loads((run / "run.json").read_text())
    splits = pq.read_table(run / "split.parquet").to_pydict()
    assert (refused, code) == (2, 0)
    assert [line["epoch"] for line in metrics] == [1, 2, 3]
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]
    assert bundle.classes == ("MUS", "STR", "TUM")
    assert (bundle.input.size_px, bundle.input.mpp) == (64, 1.0)
    assert bundle.origin["metrics"]["epoch"] == best["epoch"]
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["epoch_0001", "epoch_0002", "epoch_0003"]
    assert torch.load(run / "checkpoints" / "epoch_0002" / "state.pt", weights_only=True)["epoch"] == 2
    assert len(lines(run / "steps.jsonl")) == 3
    assert (record["exit_code"], record["best"]["epoch"]) == (0, best["epoch"])
    assert record["spec"]["fit"]["epochs"] == 3
    assert (splits["split"].count("train"), splits["split"].count("val")) == (28, 8)
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints", "metrics.jsonl", "model", "run.json", "split.parquet", "steps.jsonl",
    ]  # fmt: skip


def test_two_workers_train_as_one_does(tiles: Path, tmp_path: Path) -> None:
    flags = ["--fit.epochs", "2", "--size-px", "64", "--network.dropout", "0", "--fit.batch-size", "9"]

    assert train(tiles, tmp_path / "one", *flags, "--workers", "1") == 0
    assert train(tiles, tmp_path / "two", *flags, "--workers", "2") == 0

    for one, two in zip(measured(tmp_path / "one"), measured(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("source", ["pathmnist-718.npz", "nct-crops"])
def test_two_runs_of_one_seed_give_equal_metrics_on_real_tiles(shared: Path, tmp_path: Path, source: str) -> None:
    flags = ["--fit.epochs", "2", "--size-px", "96", "--seed", "7"]

    assert train(shared / "tiles" / source, tmp_path / "a", *flags) == 0
    assert train(shared / "tiles" / source, tmp_path / "b", *flags) == 0

    assert measured(tmp_path / "a") == measured(tmp_path / "b")
    assert measured(tmp_path / "a")[1][0] < measured(tmp_path / "a")[0][0]


def test_a_failure_in_a_worker_is_one_line_and_exit_1(
    tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").write_text("a file where a folder is needed")

    code = train(tiles, run, "--fit.epochs", "1", "--size-px", "64")

    error = capsys.readouterr().err.strip()
    record = json.loads((run / "run.json").read_text())
    assert (record["exit_code"], "training failed" in record["error"]) == (1, True)
    assert code == 1
    assert "training failed" in error
    assert "checkpoints" in error
