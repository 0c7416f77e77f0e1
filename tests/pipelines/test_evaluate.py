"""The evaluate job, in a Ray of its own."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plain_loop import rows_of

from histo.cli import main
from histo.learn.predict import Predictor

pytestmark = pytest.mark.ray


def test_metrics_and_predictions_are_those_of_the_bundle(bundle: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 224, 224, 3), np.uint8)
    labels = np.array([0, 1, 2, 2, 2, 0, 1])
    np.savez(tmp_path / "t.npz", test_images=images, test_labels=labels)
    probabilities = Predictor(bundle)(images)

    code = main(["evaluate", "--model", str(bundle), "--data", str(tmp_path / "t.npz"), "--out", str(tmp_path / "out")])

    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    rows = rows_of(tmp_path / "out" / "predictions.parquet")
    assert code == 0
    assert metrics["accuracy"] == pytest.approx((probabilities.argmax(1) == labels).mean())
    assert [sum(counts) for counts in metrics["confusion_matrix"]] == [2, 2, 3]
    assert [row["truth"] for row in rows] == ["MUS", "STR", "TUM", "TUM", "TUM", "MUS", "STR"]
    np.testing.assert_allclose([row["prob_TUM"] for row in rows], probabilities[:, 2], atol=1e-5)


def test_only_the_test_part_of_a_file_with_parts_is_used(bundle: Path, tmp_path: Path) -> None:
    pixels = np.zeros((4, 32, 32, 3), np.uint8)
    np.savez(
        tmp_path / "t.npz",
        train_images=pixels,
        train_labels=np.zeros(4, int),
        test_images=pixels[:1],
        test_labels=np.ones(1, int),
    )

    main(["evaluate", "--model", str(bundle), "--data", str(tmp_path / "t.npz"), "--out", str(tmp_path / "out")])

    assert [row["case_id"] for row in rows_of(tmp_path / "out" / "predictions.parquet")] == ["t.npz#test_images/0"]


def test_several_sources_are_measured_together_and_each(bundle: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 224, 224, 3), np.uint8)
    pred = Predictor(bundle)(images).argmax(1)
    (tmp_path / "data" / "TUM").mkdir(parents=True)
    for i in range(2):
        Image.fromarray(images[i]).save(tmp_path / "data" / "TUM" / f"{i}.png")
    (tmp_path / "data" / "TUM" / "broken.png").write_bytes(b"not a picture")
    np.savez(tmp_path / "t.npz", data=images[2:], labels=np.array([0, 1, 2, 2]))
    command = ["evaluate", "--model", str(bundle), "--data", f"{tmp_path / 'data'},{tmp_path / 't.npz'}"]

    refused = main([*command, "--out", str(tmp_path / "none")])
    code = main([*command, "--out", str(tmp_path / "out"), "--max-broken", "0.2"])

    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    rows = rows_of(tmp_path / "out" / "predictions.parquet")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (refused, code) == (2, 0)
    assert metrics["per_source"] == {
        "data": {"n": 2, "accuracy": pytest.approx((pred[:2] == 2).mean())},
        "t.npz": {"n": 4, "accuracy": pytest.approx((pred[2:] == [0, 1, 2, 2]).mean())},
    }
    assert metrics["n"] == 6
    assert [row["source"] for row in rows] == ["data"] * 2 + ["t.npz"] * 4
    assert [row["truth"] for row in rows] == ["TUM", "TUM", "MUS", "STR", "TUM", "TUM"]
    assert len(record["broken"]) == 1
