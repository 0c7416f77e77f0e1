"""Studies from their files to a verdict: prepared, learned from, cross-validated, measured and labelled."""

import json
import math
from collections import defaultdict
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.inline_ray import inline
from helpers.made_studies import settle, write_study
from helpers.plain_loop import rows_of

from histo.cli import main
from histo.learn.array_layout import VolumeLayout
from histo.learn.bundle import read_bundle
from histo.learn.predict.torch_predictor import TorchPredictor
from histo.pipelines.studies.prepare import PrepareJob, StudyPreparer, prepared_layout, put_in_order
from histo.volume_file import read_volume
from histo.volumes.finding.studies import find_studies
from histo.volumes.preparation import ALGORITHM
from histo.volumes.spec import PreparationSpec

pytestmark = pytest.mark.slow

PREPARATION = PreparationSpec(size_px=24, slices=4)
SIZE_PX = 16
FOLDS, EPOCHS, BATCH = 3, 6, 6
FLAGS = f"--size-px {SIZE_PX} --network.initial random --augment.preset none --fit.batch-size {BATCH} --device cpu"
FLAGS += f" --fit.head.epochs 0 --fit.tune.epochs {EPOCHS} --fit.tune.learning-rate 0.003 --fit.tune.layer-decay 1"
FLAGS += " --fit.tune.exact-statistics --fit.warmup-epochs 0 --split.val-fraction 0.25"


@dataclass(frozen=True)
class Chain:
    """What the jobs read, and where each of them wrote."""

    root: Path

    @property
    def known(self) -> Path:
        return self.root / "known" / "volumes"

    @property
    def fresh(self) -> Path:
        return self.root / "fresh" / "volumes"

    @property
    def fresh_studies(self) -> Path:
        return self.root / "fresh-studies"

    def out(self, job: str) -> Path:
        return self.root / job

    def said(self, job: str) -> Path:
        return self.root / f"{job}.log"

    def __call__(self, job: str, flags: str) -> None:
        with self.said(job).open("w") as log, redirect_stdout(log):
            assert main([*job.split(), *flags.split(), "--out", str(self.out(job))]) == 0, job


def prepare(studies: Path, out: Path, patients: int, first_seed: int) -> None:
    """Make two studies of every patient, and their volumes; `mts` has a bright block in the middle."""
    for number in range(patients * 2):
        label = ("mts", "norma")[number // 2 % 2]
        folder = studies / label / f"p{number // 2:02d}" / f"s{number % 2}"
        write_study(folder, first_seed + number, bright=3000 if label == "mts" else 0)
    found = find_studies(studies, "folder", None, flag="--studies").studies
    job = PrepareJob(out, 60, PREPARATION)
    settle(StudyPreparer(job), job, prepared_layout(job), found, put_in_order)


@pytest.fixture(scope="module")
def chain(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Train, evaluate, cross-validate and label, once: 24 studies of 12 patients to learn from, 12 of 6 others.

    Labelling is Ray's. Training takes two processes; the rest is done in this one.
    """
    made = Chain(tmp_path_factory.mktemp("chain"))
    prepare(made.root / "known-studies", made.root / "known", patients=12, first_seed=0)
    prepare(made.fresh_studies, made.root / "fresh", patients=6, first_seed=100)
    with inline():
        made("train", f"--data {made.known} {FLAGS} --network.backbone lenet_3d --workers 2")
        made("evaluate", f"--data {made.fresh} --model {made.out('train')} --device cpu --workers 2 --resamples 200")
        folds = f"--folds {FOLDS} --side-by-side 1"
        made("crossval", f"--data {made.known} {FLAGS} --network.backbone test_efficientnet_ln {folds}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", ray_address)
        made("label", f"--studies {made.fresh_studies} --model {made.out('train')} --device cpu --workers 2")
    return made


def read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def classify(model: Path, volumes: Path, case_ids: list[str]) -> np.ndarray:
    """Classify prepared volumes one by one, without histo's jobs."""
    layout, predict = VolumeLayout(3, PREPARATION.slices), TorchPredictor(model)
    arrays = [layout.fit(read_volume(volumes / case_id)[0], SIZE_PX) for case_id in case_ids]
    return np.concatenate([predict(array[None]) for array in arrays])


def assert_every_step_has_a_loss(run: Path) -> None:
    splits = [row["split"] for row in rows_of(run / "split.parquet")]
    per_epoch, steps = math.ceil(splits.count("train") / BATCH), lines(run / "steps.jsonl")

    assert [(step["epoch"], step["step"]) for step in steps] == [
        (number // per_epoch + 1, number + 1) for number in range(EPOCHS * per_epoch)
    ]
    assert all(math.isfinite(step["loss"]) for step in steps)
    assert (run / "figures" / "curves.png").stat().st_size > 0


def test_training_ends_with_a_bundle_that_knows_how_its_studies_were_prepared(chain: Chain) -> None:
    run = chain.out("train")
    bundle = read_bundle(run / "model")
    metrics = lines(run / "metrics.jsonl")

    assert bundle.classes == ("mts", "norma")
    facts = PREPARATION.model_dump(mode="json") | {"algorithm": ALGORITHM}
    assert bundle.input.layout == VolumeLayout(3, PREPARATION.slices, facts)
    assert bundle.array_shape == (3, PREPARATION.slices, SIZE_PX, SIZE_PX)
    assert len(metrics) == EPOCHS
    assert metrics[-1]["train_loss"] < 0.5 * metrics[0]["train_loss"]
    assert read_json(run / "run.json")["placement"]["workers"] == 2
    assert_every_step_has_a_loss(run)


@pytest.mark.parametrize("job", ["train", "evaluate", "crossval", "label"])
def test_cases_that_are_studies_are_called_so(chain: Chain, job: str) -> None:
    said = chain.said(job).read_text()

    assert "studies" in said
    assert "images" not in said


def test_evaluation_is_what_the_network_makes_of_the_prepared_volumes(chain: Chain) -> None:
    out = chain.out("evaluate")
    rows, scores = rows_of(out / "predictions.parquet"), read_json(out / "metrics.json")
    expected = classify(chain.out("train") / "model", chain.fresh, [row["case_id"] for row in rows])

    np.testing.assert_allclose([row["prob_mts"] for row in rows], expected[:, 0], atol=1e-4)
    assert len(rows) == scores["n"] == 12
    assert scores["accuracy"] == np.mean([row["truth"] == row["label"] for row in rows]) > 0.9
    assert scores["seen_in_training"] == 0


def test_evaluation_has_intervals_by_patient_and_a_roc(chain: Chain) -> None:
    out = chain.out("evaluate")
    scores = read_json(out / "metrics.json")
    intervals = scores["intervals"]
    low, high = intervals["macro_auc"]

    assert (intervals["unit"], intervals["n_units"], intervals["resamples"]) == ("group", 6, 200)
    assert 0.5 < low <= scores["macro_auc"] <= high <= 1
    assert {row["group"] for row in rows_of(out / "predictions.parquet")} == {f"p{number:02d}" for number in range(6)}
    assert {"roc.png", "roc.csv", "confusion.png"} <= {path.name for path in (out / "figures").iterdir()}


def test_labelling_studies_says_what_evaluation_says_of_their_volumes(chain: Chain) -> None:
    evaluated = {row["case_id"]: row for row in rows_of(chain.out("evaluate") / "predictions.parquet")}
    labelled = rows_of(chain.out("label") / "studies.parquet")

    assert len(labelled) == len(evaluated) == 12
    for row in labelled:
        label, *_ = row["study_id"].split("/")
        same = evaluated[f"{label}/{row['study_id'].replace('/', '__')}.nii.gz"]
        assert row["label"] == same["label"]
        assert row["prob_mts"] == pytest.approx(same["prob_mts"], abs=1e-4)


def test_every_study_is_predicted_once_by_the_fold_that_did_not_see_its_patient(chain: Chain) -> None:
    out = chain.out("crossval")
    rows = rows_of(out / "predictions.parquet")

    assert sorted(row["case_id"] for row in rows) == sorted(
        path.relative_to(chain.known).as_posix() for path in chain.known.rglob("*.nii.gz")
    )
    for fold in range(FOLDS):
        run, own = out / f"fold_{fold}", [row for row in rows if row["fold"] == fold]
        splits = defaultdict(set)
        for row in rows_of(run / "split.parquet"):
            splits[row["group"]].add(row["split"])
        assert all(len(names) == 1 for names in splits.values()), "a patient is in one part"
        assert {row["group"] for row in own} == {group for group, names in splits.items() if names == {"test"}}
        expected = classify(run / "model", chain.known, [row["case_id"] for row in own])
        np.testing.assert_allclose([row["prob_mts"] for row in own], expected[:, 0], atol=1e-4)
        assert_every_step_has_a_loss(run)


def test_the_scores_of_a_cross_validation_have_intervals_together_and_by_fold(chain: Chain) -> None:
    out = chain.out("crossval")
    scores = read_json(out / "metrics.json")
    curves = (out / "figures" / "roc.csv").read_text()

    assert scores["n"] == 24
    assert scores["macro_auc"] > 0.9
    assert (scores["intervals"]["unit"], scores["intervals"]["n_units"]) == ("group", 12)
    assert [fold["intervals"]["n_units"] for fold in scores["folds"]] == [12 // FOLDS] * FOLDS
    for score in (scores, *scores["folds"]):
        low, high = score["intervals"]["macro_auc"]
        assert low <= score["macro_auc"] <= high
    assert (out / "figures" / "roc.png").stat().st_size > 0
    assert all(name in curves for name in ("all", *(f"fold {fold}" for fold in range(FOLDS))))
    assert all((out / f"fold_{fold}" / "test" / "figures" / "roc.png").exists() for fold in range(FOLDS))
