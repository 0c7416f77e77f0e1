"""Studies through all jobs, from their files to predictions."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from plain_loop import rows_of
from volume_files import write_classes

from histo.cli import main
from histo.learn.predict import TorchPredictor
from histo.volume_file import read_volume

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PATIENTS, FOLDS, EPOCHS = 16, 3, 5
RANDOM = ["--network.initial", "random", "--size-px", "16", "--augment.preset", "volume", "--fit.head.epochs", "0"]
RANDOM += ["--fit.tune.epochs", str(EPOCHS), "--fit.tune.learning-rate", "0.002", "--fit.tune.layer-decay", "1"]
RANDOM += ["--fit.tune.exact-statistics", "--fit.batch-size", "8", "--keep-checkpoints", "1"]


def write_patient(folder: Path, seed: int, lesion: bool) -> None:
    """Two studies of two series; a lesion is a bright cube, elsewhere in each study."""
    random = np.random.default_rng(seed)
    for study in ("baseline", "follow-up"):
        (folder / study).mkdir(parents=True)
        x, y, z = random.integers(4, 14, 3)
        for series in ("flair", "t1"):
            voxels = random.integers(0, 300, (24, 24, 20), np.int16)
            if lesion:
                voxels[x : x + 6, y : y + 6, z : z + 6] += 700
            nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 1.0, 1.0])), folder / study / f"{series}.nii.gz")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies of each of 16 patients, half of whom have lesions."""
    root = tmp_path_factory.mktemp("studies")
    for patient in range(PATIENTS):
        label = ("mts", "norma")[patient % 2]
        write_patient(root / label / f"P{patient:02d}", patient, label == "mts")
    return root


@pytest.fixture(scope="module")
def volumes(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    flags = ["--preparation.series-count", "2", "--preparation.slices", "10", "--preparation.size-px", "24"]
    assert main(["prepare", "volumes", "--studies", str(studies), "--out", str(out), *flags]) == 0
    return out / "volumes"


@pytest.fixture(scope="module")
def validated(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-validation of the 3-D network."""
    out = tmp_path_factory.mktemp("validated") / "out"
    flags = ["--folds", str(FOLDS), "--network.backbone", "lenet_3d", *RANDOM]
    assert main(["crossval", "--data", str(volumes), "--out", str(out), *flags]) == 0
    return out


@pytest.fixture
def trained(validated: Path) -> Path:
    """Its first fold: a training run with a test set."""
    return validated / "fold_0"


def read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_every_study_is_predicted_once_by_the_fold_that_did_not_see_its_patient(validated: Path, volumes: Path) -> None:
    rows = rows_of(validated / "predictions.parquet")
    folds = defaultdict(set)
    for row in rows:
        folds[row["group"]].add(row["fold"])

    assert len({row["case_id"] for row in rows}) == len(rows) == 2 * PATIENTS
    assert len(folds) == PATIENTS
    assert all(len(own) == 1 for own in folds.values())
    for fold in range(FOLDS):
        own = [row for row in rows if row["fold"] == fold]
        splits = rows_of(validated / f"fold_{fold}" / "split.parquet")
        assert {row["case_id"] for row in own} == {case["case_id"] for case in splits if case["split"] == "test"}
        model = TorchPredictor(validated / f"fold_{fold}" / "model")
        layout = model.bundle.input.layout
        seen = np.stack([layout.fit(read_volume(volumes / row["case_id"])[0], 16) for row in own])
        assert seen.shape == (len(own), 2, 10, 16, 16)
        np.testing.assert_allclose([row["prob_mts"] for row in own], model(seen)[:, 0], atol=2e-4)


def test_lesions_are_found_and_every_area_has_an_interval(validated: Path) -> None:
    scores = read_json(validated / "metrics.json")

    assert scores["macro_auc"] > 0.9
    assert len(scores["folds"]) == FOLDS
    for part in (scores, *scores["folds"]):
        low, high = part["intervals"]["macro_auc"]
        assert 0 <= low <= part["macro_auc"] <= high <= 1
    assert (validated / "figures" / "roc.png").stat().st_size > 0


def test_training_has_a_loss_of_every_step_and_pictures(trained: Path) -> None:
    steps = [json.loads(line) for line in (trained / "steps.jsonl").read_text().splitlines()]

    assert len(steps) > EPOCHS
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    assert {line["epoch"] for line in steps} == set(range(1, EPOCHS + 1))
    assert all(line["loss"] >= 0 for line in steps)
    for name in ("curves.png", "samples.png"):
        assert (trained / "figures" / name).stat().st_size > 0


def test_a_study_gets_the_label_that_its_volume_got(trained: Path, studies: Path, tmp_path: Path) -> None:
    expected = {row["case_id"]: row for row in rows_of(trained / "test" / "predictions.parquet")}
    assert main(["label", "--studies", str(studies), "--model", str(trained), "--out", str(tmp_path / "out")]) == 0

    rows = {row["study_id"]: row for row in rows_of(tmp_path / "out" / "studies.parquet")}

    assert len(rows) == 2 * PATIENTS
    assert len(expected) >= 4
    for case, row in expected.items():
        study = case.removesuffix(".nii.gz").partition("/")[2].replace("__", "/")
        assert rows[study]["prob_mts"] == pytest.approx(row["prob_mts"], abs=2e-4)
        assert rows[study]["label"] == row["label"]


def test_an_evaluation_gives_what_the_run_gave(trained: Path, volumes: Path, tmp_path: Path) -> None:
    expected = {row["case_id"]: row["prob_mts"] for row in rows_of(trained / "test" / "predictions.parquet")}
    assert main(["evaluate", "--model", str(trained), "--data", str(volumes), "--out", str(tmp_path / "out")]) == 0

    rows = {row["case_id"]: row["prob_mts"] for row in rows_of(tmp_path / "out" / "predictions.parquet")}
    scores = read_json(tmp_path / "out" / "metrics.json")

    assert {case: rows[case] for case in expected} == pytest.approx(expected, abs=2e-4)
    assert (scores["n"], scores["seen_in_training"]) == (2 * PATIENTS, 2 * PATIENTS - len(expected))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["train", "--mpp", "0.5"], "--mpp"),
        (["prepare", "tiles"], "volumes"),
        (["train", "--augment.preset", "stain"], "give --augment.preset volume, or none"),
    ],
)
def test_what_volumes_do_not_have_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    data = write_classes(tmp_path / "data", per_class=10)

    code = main([*flags, "--data", str(data), "--out", str(tmp_path / "out")])

    assert code == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_colour_says_nothing_of_volumes(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["evaluate", "--model", str(trained), "--colour-baseline", "--out", str(tmp_path / "out")])

    assert code == 2
    assert "--colour-baseline" in capsys.readouterr().err
