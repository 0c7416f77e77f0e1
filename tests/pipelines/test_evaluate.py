"""The evaluate job, in a Ray of its own."""

import json
from pathlib import Path

import numpy as np
import pytest
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
