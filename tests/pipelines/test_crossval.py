"""The crossval job: once with Ray's workers, two folds side by side; else with Ray's calls done in this process."""

import json
import shutil
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.inline_ray import inline
from helpers.label_process import WITHIN_S
from helpers.plain_loop import rows_of
from PIL import Image

from histo.cli import main
from histo.errors import HistoError
from histo.learn.predict.torch_predictor import TorchPredictor
from histo.pipelines.training.folds import _read_scored
from histo.resample import resize

pytestmark = pytest.mark.slow

INLINE = pytest.mark.usefixtures("inline_ray")
FOLDS = 3
QUICK = ["--size-px", "32", "--fit.head.epochs", "8", "--fit.tune.epochs", "0", "--augment.preset", "none"]
QUICK += ["--fit.head.learning-rate", "0.01", "--fit.warmup-epochs", "0"]


def crossval(data: Path, out: Path, *flags: str) -> int:
    return main(["crossval", "--data", str(data), "--out", str(out), *QUICK, *flags])


def scores(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return found


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of two classes, each of 15 patients with one to three tiles; the classes differ in texture."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("patients")
    lines = ["path,label,group"]
    for patient in range(30):
        label = ("norma", "mts")[patient % 2]
        for tile in range(1 + patient % 3):
            noise = random.normal(128, 12 if label == "norma" else 45, (32, 32, 3))
            Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(folder / f"{patient}-{tile}.png")
            lines.append(f"{patient}-{tile}.png,{label},p{patient}")
    (folder / "cases.csv").write_text("\n".join(lines))
    return folder / "cases.csv"


@INLINE
def test_sixteen_patients_of_four_classes_are_cross_validated_by_default(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = np.repeat([30, 90, 150, 210], 4)
    noise = np.random.default_rng(0).normal(levels[:, None, None, None], 12, (16, 32, 32, 3))
    labels = np.repeat([0, 1, 2, 3], 4)
    np.savez(tmp_path / "cohort.npz", images=np.clip(noise, 0, 255).astype(np.uint8), labels=labels)
    flags = ["--classes", "A,B,C,D", "--fit.batch-size", "4"]

    assert crossval(tmp_path / "cohort.npz", tmp_path / "out", *tiny, *flags) == 0

    rows = rows_of(tmp_path / "out" / "predictions.parquet")
    told = capsys.readouterr().out
    assert "some of the 5 folds test no case of A (4 in all), B (4 in all), C (4 in all), D (4 in all)" in told
    assert "probabilities are not calibrated: " in told
    assert sorted({row["fold"] for row in rows}) == [0, 1, 2, 3, 4]
    assert len(rows) == 16


@pytest.fixture(scope="module")
def validated(patients: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("validated") / "out"
    with inline():
        assert crossval(patients, out, *tiny, "--folds", str(FOLDS), "--mpp", "1", "--side-by-side", "1") == 0
    return out


def test_every_case_is_predicted_once_by_the_fold_that_did_not_see_it(validated: Path, patients: Path) -> None:
    rows = rows_of(validated / "predictions.parquet")
    cases = [line.split(",")[0] for line in patients.read_text().splitlines()[1:]]

    assert [row["case_id"] for row in rows] == cases
    for fold in range(FOLDS):
        run = validated / f"fold_{fold}"
        splits = {row["case_id"]: row["split"] for row in rows_of(run / "split.parquet")}
        own = [row for row in rows if row["fold"] == fold]
        assert {row["case_id"] for row in own} == {case for case, split in splits.items() if split == "test"}
        assert set(splits.values()) == {"train", "val", "test"}
        images = [np.asarray(Image.open(patients.parent / row["case_id"])) for row in own]
        expected = TorchPredictor(run / "model")(np.stack([resize(image, 32) for image in images]))
        np.testing.assert_allclose([row["prob_mts"] for row in own], expected[:, 0], atol=1e-5)


def test_a_patient_is_in_one_fold_and_in_one_split_of_each_run(validated: Path) -> None:
    folds = defaultdict(set)
    for row in rows_of(validated / "split.parquet"):
        folds[row["group"]].add(row["fold"])
    assert len(folds) == 30
    assert all(len(own) == 1 for own in folds.values())

    for fold in range(FOLDS):
        splits = defaultdict(set)
        for row in rows_of(validated / f"fold_{fold}" / "split.parquet"):
            splits[row["group"]].add(row["split"])
        assert all(len(own) == 1 for own in splits.values())


def test_the_scores_of_all_folds_stand_beside_those_of_each(validated: Path) -> None:
    found = scores(validated)
    each = [scores(validated / f"fold_{fold}" / "test") for fold in range(FOLDS)]
    record = json.loads((validated / "run.json").read_text())

    assert found["n"] == sum(fold["n"] for fold in each) == 60
    assert found["macro_auc"] > 0.9, "the classes are easy to tell apart"
    for key in ("accuracy", "intervals"):
        assert [fold[key] for fold in found["folds"]] == [fold[key] for fold in each]
    assert found["folds"][0]["intervals"]["n_units"] == len(
        {row["group"] for row in rows_of(validated / "split.parquet") if row["fold"] == 0}
    )
    assert found["over_folds"]["accuracy"]["mean"] == pytest.approx(np.mean([fold["accuracy"] for fold in each]))
    assert found["over_folds"]["macro_auc"]["std"] == pytest.approx(np.std([f["macro_auc"] for f in each], ddof=1))
    assert found["over_folds"]["per_class"]["mts"]["recall"]["n"] == FOLDS
    assert found["accuracy"] == pytest.approx(sum(fold["accuracy"] * fold["n"] for fold in each) / 60)
    assert (found["intervals"]["unit"], found["intervals"]["n_units"]) == ("group", 30)
    assert (record["command"], record["exit_code"], record["spec"]["folds"]) == ("crossval", 0, FOLDS)
    curves = (validated / "figures" / "roc.csv").read_text()
    assert all(name in curves for name in ("all", *(f"fold {fold}" for fold in range(FOLDS))))


@INLINE
def test_a_cross_validation_goes_on_where_it_ended_and_ends_the_same(
    validated: Path, patients: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = tmp_path / "out", [*tiny, "--folds", str(FOLDS), "--mpp", "1"]
    shutil.copytree(validated, out)
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"exit_code": None, "finished": None}))
    shutil.rmtree(out / "fold_1")
    half = out / "fold_2"
    unfinished = json.loads((half / "run.json").read_text()) | {"exit_code": None}
    (half / "run.json").write_text(json.dumps(unfinished))
    splits = (half / "split.parquet").read_bytes()
    (out / "predictions.parquet").unlink()
    kept = (out / "fold_0" / "run.json").read_bytes()

    refused = crossval(patients, out, *flags)
    other = crossval(patients, out, *tiny, "--folds", "4", "--mpp", "1", "--resume")
    resumed = crossval(patients, out, *flags, "--resume", "--side-by-side", "1")
    again = crossval(patients, out, *flags, "--resume")

    shown = capsys.readouterr()
    assert (refused, other, resumed, again) == (2, 2, 0, 0)
    assert "already holds a run; continue it with --resume" in shown.err
    assert "--folds is 4, and was 3 when the run began" in shown.err
    assert "the cross-validation is complete" in shown.out
    assert (out / "fold_0" / "run.json").read_bytes() == kept
    assert (half / "split.parquet").read_bytes() == splits
    assert scores(out)["accuracy"] == scores(validated)["accuracy"]
    before, after = (rows_of(folder / "predictions.parquet") for folder in (validated, out))
    assert [(row["case_id"], row["fold"]) for row in after] == [(row["case_id"], row["fold"]) for row in before]
    np.testing.assert_allclose([row["prob_mts"] for row in after], [row["prob_mts"] for row in before], atol=1e-3)


@pytest.mark.parametrize("name", ["metrics.json", "predictions.parquet"])
def test_scores_of_a_fold_that_are_cut_are_one_line_with_the_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "metrics.json").write_text('{"accuracy": 1.0}')
    pq.write_table(pa.table({"case_id": ["a"]}), tmp_path / "test" / "predictions.parquet")
    assert _read_scored(tmp_path)[1] == {"accuracy": 1.0}
    whole = (tmp_path / "test" / name).read_bytes()
    (tmp_path / "test" / name).write_bytes(whole[:-5])

    with pytest.raises(
        HistoError, match=r"/test: cannot be read .*; remove .*, and --resume trains this fold"
    ) as caught:
        _read_scored(tmp_path)

    assert "\n" not in str(caught.value)


def spoil(checkpoints: Path) -> None:
    """Put a file where a worker needs a folder, as soon as the driver has had that folder."""
    while not (checkpoints / "index.json").exists():
        time.sleep(0.05)
    shutil.rmtree(checkpoints)
    checkpoints.write_text("a file where a folder is needed")


def test_a_fold_that_fails_on_ray_is_named_and_the_one_beside_it_is_finished(
    patients: Path, tiny: list[str], joined_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    spoiler = threading.Thread(target=spoil, args=(out / "fold_1" / "checkpoints",), daemon=True)
    spoiler.start()

    code = crossval(patients, out, *tiny, "--folds", "2", "--max-failures", "0")

    spoiler.join(timeout=WITHIN_S)
    error = capsys.readouterr().err
    record = json.loads((out / "run.json").read_text())
    finished, failed = (json.loads((out / f"fold_{fold}" / "run.json").read_text()) for fold in (0, 1))
    assert code == 1
    assert "fold 1: " in error
    assert "training failed: " in error
    assert "checkpoints" in error, "what the worker raised"
    assert "--resume goes on" in error
    assert (finished["exit_code"], failed["exit_code"], record["exit_code"]) == (0, 1, 1)
    assert record["side_by_side"] == 2
    assert (out / "fold_0" / "test" / "predictions.parquet").exists()
    assert not (out / "metrics.json").exists()


@INLINE
def test_wrong_settings_are_one_line(patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = [
        crossval(patients, tmp_path / "a", "--folds", "31"),
        crossval(patients, tmp_path / "b", "--split.test-fraction", "0.2"),
        crossval(patients, tmp_path / "c", "--test", str(patients)),
        crossval(patients, tmp_path / "d", "--side-by-side", "2", "--workers", "3", "--device", "gpu"),
    ]

    shown = capsys.readouterr().err.splitlines()
    assert codes == [2, 2, 2, 2]
    assert "--folds 31: there are 30 cases" in shown[0]
    assert "--split.test-fraction: each fold is tested once" in shown[1]
    assert "--test" in shown[2]
    assert "no GPU" in shown[3]
    assert len(shown) == 4
