"""The evaluate job: once in Ray tasks, the other times with Ray's calls done in this process."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.plain_loop import rows_of
from PIL import Image

from histo.cli import main
from histo.learn.bundle import bundle_hash, read_bundle
from histo.learn.predict.torch_predictor import TorchPredictor
from histo.pipelines.training.finished_run import FinishedRun

pytestmark = pytest.mark.slow

INLINE = pytest.mark.usefixtures("inline_ray")


def test_metrics_and_predictions_are_those_of_the_bundle(bundle: Path, joined_ray: None, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 224, 224, 3), np.uint8)
    labels = np.array([0, 1, 2, 2, 2, 0, 1])
    np.savez(tmp_path / "t.npz", test_images=images, test_labels=labels)
    probabilities = TorchPredictor(bundle)(images)

    code = main(["evaluate", "--model", str(bundle), "--data", str(tmp_path / "t.npz"), "--out", str(tmp_path / "out")])

    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    rows = rows_of(tmp_path / "out" / "predictions.parquet")
    assert code == 0
    assert metrics["accuracy"] == pytest.approx((probabilities.argmax(1) == labels).mean())
    assert [sum(counts) for counts in metrics["confusion_matrix"]] == [2, 2, 3]
    assert [row["truth"] for row in rows] == ["MUS", "STR", "TUM", "TUM", "TUM", "MUS", "STR"]
    np.testing.assert_allclose([row["prob_TUM"] for row in rows], probabilities[:, 2], atol=1e-5)


@INLINE
def test_only_the_test_part_of_a_file_with_parts_is_used_and_the_rest_is_said(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == "1 images of 3 classes (and other files: 4 images of other parts)"


@INLINE
def test_the_resolution_of_the_images_is_compared_with_the_bundles(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    np.savez(tmp_path / "t.npz", images=images, labels=np.arange(3))
    given = read_bundle(bundle).input
    flags = ["--model", str(bundle), "--data", str(tmp_path / "t.npz"), "--resamples", "0"]

    unknown = evaluate(tmp_path / "unknown", *flags)
    said = capsys.readouterr().out
    refused = evaluate(tmp_path / "refused", *flags, "--mpp", str(2.36 * given.mpp))
    error = capsys.readouterr().err
    fitting = evaluate(tmp_path / "fitting", *flags, "--mpp", str(given.mpp * given.size_px / 224))

    assert (unknown, refused, fitting) == (0, 2, 0)
    assert "resolution: that of the images is not known; the bundle expects tiles of" in said
    assert "the bundle was trained on tiles of" in error
    assert "resolution:" not in capsys.readouterr().out


@INLINE
def test_several_sources_are_measured_together_and_each(bundle: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 224, 224, 3), np.uint8)
    pred = TorchPredictor(bundle)(images).argmax(1)
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
    assert {name: (part["n"], part["accuracy"]) for name, part in metrics["per_source"].items()} == {
        "data": (2, pytest.approx((pred[:2] == 2).mean())),
        "t.npz": (4, pytest.approx((pred[2:] == [0, 1, 2, 2]).mean())),
    }
    assert metrics["n"] == 6
    assert [row["source"] for row in rows] == ["data"] * 2 + ["t.npz"] * 4
    assert [row["truth"] for row in rows] == ["TUM", "TUM", "MUS", "STR", "TUM", "TUM"]
    assert len(record["broken"]) == 1


@INLINE
def test_a_subset_is_drawn_from_each_class_of_the_test_part(bundle: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "t.npz", test_images=images, test_labels=np.arange(12) % 3)
    flags = ["--model", str(bundle), "--data", str(tmp_path / "t.npz"), "--resamples", "0"]

    assert evaluate(tmp_path / "six", *flags, "--subset", "6") == 0
    assert evaluate(tmp_path / "more", *flags, "--subset", "0.75") == 0

    six, more = (rows_of(tmp_path / name / "predictions.parquet") for name in ("six", "more"))
    assert sorted(row["truth"] for row in six) == ["MUS", "MUS", "STR", "STR", "TUM", "TUM"]
    assert {row["case_id"] for row in six} < {row["case_id"] for row in more}


def evaluate(out: Path, *flags: str) -> int:
    return main(["evaluate", "--out", str(out), *flags])


def scores(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return found


@INLINE
def test_a_run_is_measured_on_what_it_held_out_itself(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = bundle_hash(finished / "model")

    assert evaluate(tmp_path / "test", "--model", str(finished), "--workers", "2", "--colour-baseline") == 0
    assert evaluate(tmp_path / "val", "--model", str(finished / "model"), "--part", "val", "--resamples", "0") == 0

    found, known = scores(tmp_path / "test"), scores(finished / "test")
    assert found.keys() - {"colour_baseline"} == known.keys()
    assert all(found[name] == known[name] for name in ("n", "accuracy", "confusion_matrix", "temperature", "intervals"))
    rows, same = (rows_of(out / "predictions.parquet") for out in (tmp_path / "test", finished / "test"))
    assert [row["case_id"] for row in rows] == [row["case_id"] for row in same]
    np.testing.assert_allclose([row["prob_TUM"] for row in rows], [row["prob_TUM"] for row in same], atol=1e-5)
    assert scores(tmp_path / "val")["accuracy"] == scores(finished / "val")["accuracy"]
    assert (found["seen_in_training"], scores(tmp_path / "val")["seen_in_training"]) == (0, 8)
    assert found["temperature"] == read_bundle(finished / "model").temperature
    assert bundle_hash(finished / "model") == before, "evaluation changes no bundle"
    assert sorted(path.name for path in (tmp_path / "test" / "figures").iterdir()) == sorted(
        f"{name}.{kind}" for name in ("confusion", "mistakes", "reliability", "roc") for kind in ("csv", "png")
    )
    shown = capsys.readouterr().out
    assert f"accuracy {found['accuracy']:.4f} (95 % interval" in shown
    assert "colour alone, mean rgb: accuracy 1.0000" in shown


@INLINE
def test_colour_alone_tells_bright_and_dark_classes_apart(finished: Path, tiles: Path, tmp_path: Path) -> None:
    flags = ["--model", str(finished), "--data", str(tiles), "--resamples", "20"]

    assert evaluate(tmp_path / "out", *flags, "--colour-baseline") == 0

    baseline = scores(tmp_path / "out")["colour_baseline"]
    assert set(baseline) == {"mean_rgb", "colour_histogram"}
    assert baseline["mean_rgb"]["accuracy"] == 1
    assert baseline["mean_rgb"]["n"] == 36
    assert set(baseline["mean_rgb"]["per_class"]) == {"MUS", "STR", "TUM"}


@INLINE
def test_images_that_were_trained_on_are_counted_and_said(
    finished: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(tiles) as known:
        fresh = 255 - known["images"][:1]
        np.savez(tmp_path / "t.npz", images=np.concatenate([known["images"], fresh]), labels=[*known["labels"], 0])

    assert evaluate(tmp_path / "out", "--model", str(finished), "--data", str(tmp_path / "t.npz")) == 0

    assert scores(tmp_path / "out")["seen_in_training"] == 27
    assert "27 of these images were trained on, or chose the epoch" in capsys.readouterr().out


@pytest.mark.parametrize("edit", [{"start_from": "empty"}, {"start_from": "copy", "epoch": 1}])
def test_a_run_that_began_with_weights_that_are_gone_counts_its_own_images(
    finished: Path, tmp_path: Path, edit: dict[str, Any]
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("copy", "run"):
        shutil.copytree(finished, tmp_path / name)
    record = json.loads((finished / "run.json").read_text())
    start: dict[str, Any] = {**edit, "start_from": str(tmp_path / edit["start_from"])}
    start["network"] = record["spec"]["network"] | {"weights": None}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"spec": record["spec"] | start}))

    learned = FinishedRun(tmp_path / "run").learned_from("train", "val")

    assert learned == set(FinishedRun(finished).content_hashes("train", "val"))
    assert len(learned) == 27


def test_what_needs_the_training_run_is_refused_without_it(
    finished: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "moved")
    record = json.loads((finished / "run.json").read_text())
    gone = record | {"spec": record["spec"] | {"data": [str(tmp_path / "gone.npz")]}}
    (tmp_path / "moved" / "run.json").write_text(json.dumps(gone))
    bare = tmp_path / "bare"
    shutil.copytree(finished / "model", bare)
    text = (bare / "model.json").read_text()
    (bare / "model.json").write_text(text.replace(str(finished), "/not/there"))

    codes = [
        evaluate(tmp_path / "a", "--model", str(bare)),
        evaluate(tmp_path / "b", "--model", str(bare), "--data", str(tiles), "--colour-baseline"),
        evaluate(tmp_path / "c", "--model", str(tmp_path / "moved")),
        evaluate(tmp_path / "d", "--model", str(finished), "--data", str(tiles), "--part", "val"),
        evaluate(tmp_path / "moved", "--model", str(finished)),
    ]

    shown = capsys.readouterr().err.splitlines()
    assert codes == [2, 2, 2, 2, 2]
    assert f"without --data: needs the training run of --model {bare}; give the run's folder" in shown[0]
    assert "--colour-baseline: needs the training run" in shown[1]
    assert "the images of this run cannot be had" in shown[2]
    assert "gone.npz" in shown[2]
    assert "--part names a part of the training run's own images" in shown[3]
    assert "moved: holds the results of another job" in shown[4]
    assert json.loads((tmp_path / "moved" / "run.json").read_text()) == gone


@INLINE
def test_a_class_without_images_is_said_and_left_out_of_averages(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 224, 224, 3), np.uint8)
    np.savez(tmp_path / "t.npz", images=images, labels=np.array([0, 0, 0, 2, 2, 2]))

    code = evaluate(tmp_path / "out", "--model", str(bundle), "--data", str(tmp_path / "t.npz"), "--resamples", "50")

    found, output = scores(tmp_path / "out"), capsys.readouterr()
    assert code == 0
    assert found["classes_missing"] == ["STR"]
    assert found["per_class"]["STR"]["recall"] is None
    recalls = [found["per_class"][name]["recall"] for name in ("MUS", "TUM")]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert "no images of STR: averages leave it out" in output.out
    assert "Warning" not in output.out + output.err


@INLINE
def test_intervals_are_by_patient_where_a_manifest_names_them(bundle: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = ["path,label,group"]
    for i in range(8):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{('MUS', 'TUM')[i % 2]},patient {i // 2}")
    (tmp_path / "t.csv").write_text("\n".join(lines))

    code = evaluate(tmp_path / "out", "--model", str(bundle), "--data", str(tmp_path / "t.csv"), "--resamples", "50")

    found = scores(tmp_path / "out")["intervals"]
    assert code == 0
    assert (found["unit"], found["n_units"], found["resamples"], found["coverage"]) == ("group", 4, 50, 0.95)
    assert {row["group"] for row in rows_of(tmp_path / "out" / "predictions.parquet")} == {
        f"patient {i}" for i in range(4)
    }
