"""The job that labels studies: through the command, and in a plain loop."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import fake_dicom as fake
from helpers.made_studies import settle, write_study
from helpers.plain_loop import rows_of

import histo
from histo.cli import main
from histo.demo.bundle import STUDY_CLASSES, random_volume_bundle
from histo.errors import HistoError, UsageError
from histo.learn.array_layout import VolumeLayout
from histo.learn.bundle import bundle_hash, read_bundle
from histo.learn.predict.torch_predictor import TorchPredictor
from histo.pipelines.labelling.spec import LabelSpec
from histo.pipelines.studies.label import LabelStudiesJob, StudyLabeler, labelled_layout
from histo.spec.command_line import read_spec
from histo.volumes.finding.studies import find_studies
from histo.volumes.preparation import ALGORITHM, prepare
from histo.volumes.spec import PreparationSpec

SMALL = PreparationSpec(size_px=24, slices=4)
GOOD = ("p1/s1", "p1/s2", "p2/s3")


def bundle_for(folder: Path, preparation: dict[str, Any] | None) -> Path:
    return random_volume_bundle(folder, VolumeLayout(3, 4, preparation), size_px=16)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that sees 16 px of volumes of 24 px."""
    return bundle_for(tmp_path_factory.mktemp("bundle"), SMALL.model_dump(mode="json") | {"algorithm": ALGORITHM})


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Three studies, and one of which a series is broken."""
    for number, name in enumerate((*GOOD, "p3/broken")):
        write_study(tmp_path / "studies" / name, seed=number)
    (tmp_path / "studies" / "p3" / "broken" / "t1.nii.gz").write_bytes(b"not an image")
    return tmp_path / "studies"


def job_for(model: Path, out: Path) -> LabelStudiesJob:
    return LabelStudiesJob(
        out=out,
        read_timeout_s=60,
        preparation=SMALL,
        model=model,
        model_hash=bundle_hash(model),
        classes=STUDY_CLASSES,
        precision="float32",
    )


def label(job: LabelStudiesJob, studies: Path, **flags: Any) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    return settle(StudyLabeler(job), job, labelled_layout(job, None), find_studies(studies).studies, **flags)


def test_a_row_has_what_the_bundle_says_of_the_volume_that_training_would_see(
    model: Path, studies: Path, tmp_path: Path
) -> None:
    rows, _ = label(job_for(model, tmp_path / "out"), studies)

    study = find_studies(studies).studies[0]
    volume = prepare(study.study_id, study.files, SMALL).volume_SDHW
    array = VolumeLayout(3, 4).fit(volume, 16)
    expected = TorchPredictor(model)(array[None])[0]
    row = rows["p1/s1"]
    assert [row[f"prob_{name}"] for name in STUDY_CLASSES] == pytest.approx(expected.tolist(), abs=1e-6)
    assert row["pred"] == int(expected.argmax())
    assert row["label"] == STUDY_CLASSES[row["pred"]]
    assert row["confidence"] == pytest.approx(float(expected.max()), abs=1e-6)
    assert row["entropy"] == pytest.approx(float(-(expected * np.log(expected)).sum()), abs=1e-5)


def test_a_broken_study_is_a_row_without_a_prediction_and_stops_nothing(
    model: Path, studies: Path, tmp_path: Path
) -> None:
    rows, _ = label(job_for(model, tmp_path / "out"), studies)

    assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(GOOD, "ok") | {"p3/broken": "failed"}
    assert rows["p3/broken"]["error_code"] == "unreadable"
    assert [rows["p3/broken"][name] for name in ("pred", "label", "confidence", "prob_mts")] == [None] * 4


def rename_a_series(study: Path) -> None:
    (study / "t1.nii.gz").rename(study / "t1_old.nii.gz")


def double_a_series(study: Path) -> None:
    shutil.copy(study / "t1.nii.gz", study / "t1_again.nii.gz")


def forget_the_orientation(study: Path) -> None:
    image = nib.load(study / "t1.nii.gz")
    bare = nib.Nifti1Image(np.asanyarray(image.dataobj), None)
    bare.set_sform(None, code=0)
    bare.set_qform(None, code=0)
    bare.to_filename(study / "t1.nii.gz")


def leave_out_a_slice(study: Path) -> None:
    fake.save(study, [one for number, one in enumerate(fake.planes(shape=(6, 6, 7))) if number != 2])
    for path in study.glob("*.nii.gz"):
        path.unlink()


@pytest.mark.parametrize(
    ("fault", "series", "said"),
    [
        (double_a_series, [], "expected 3, as the model was trained; leave others out of its folder, or leave"),
        (rename_a_series, ["flair", "t1", "t2"], "by which the model names its series; rename the study's series"),
        (double_a_series, ["flair", "t1*g*", "t1_*"], "two of the model's series, flair, t1*g*, t1_*, mean 't1_again'"),
        (double_a_series, ["flair", "*t1*", "t2"], "the model's series *t1* matches 2 series ('t1', 't1_again')"),
        (forget_the_orientation, [], "so left and right are not known; repair the header"),
        (leave_out_a_slice, ["Thorax"] * 1, "find the missing files, or leave the study out"),
    ],
)
def test_messages_of_studies_name_no_flag_that_label_does_not_have(
    model: Path, tmp_path: Path, fault: Callable[[Path], None], series: list[str], said: str
) -> None:
    fault(write_study(tmp_path / "studies" / "p1"))
    job = replace(job_for(model, tmp_path / "out"), preparation=SMALL.model_copy(update={"series": series}))

    rows, _ = label(job, tmp_path / "studies")

    assert said in rows["p1"]["error"]
    assert "--preparation" not in rows["p1"]["error"]


def test_nothing_is_done_twice_and_what_changed_is_done_anew(model: Path, studies: Path, tmp_path: Path) -> None:
    job = job_for(model, tmp_path / "out")
    before, _ = label(job, studies)

    _, states = label(job, studies)
    assert states == {"done": 3, "failed": 1}

    write_study(studies / "p1" / "s1", seed=99)
    after, states = label(job, studies)
    assert states == {"files": 1, "done": 2, "failed": 1}
    assert after["p1/s1"]["prob_mts"] != before["p1/s1"]["prob_mts"]
    assert after["p1/s2"] == before["p1/s2"]

    _, states = label(replace(job, preparation=SMALL.model_copy(update={"intensity": "zscore"})), studies)
    assert states == {"settings": 4}


def test_files_that_were_only_touched_keep_their_result(model: Path, studies: Path, tmp_path: Path) -> None:
    job = job_for(model, tmp_path / "out")
    before, _ = label(job, studies)
    file = studies / "p1" / "s1" / "t1.nii.gz"
    file.write_bytes(file.read_bytes())

    after, states = label(job, studies)

    assert states["files"] == 1
    assert after["p1/s1"]["prob_mts"] == before["p1/s1"]["prob_mts"]
    assert after["p1/s1"]["attempts"] == 2


def test_the_command_labels_a_folder_and_then_has_nothing_to_do(
    model: Path, studies: Path, joined_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, out = Path(shutil.copytree(model, tmp_path / "model")), tmp_path / "out"
    command = ["label", "--studies", str(studies), "--model", str(own), "--out", str(out), "--workers", "2"]

    assert main(command) == 3
    first, log = rows_of(out / "studies.parquet"), capsys.readouterr().out
    assert main(command) == 3
    again = capsys.readouterr().out

    assert "4 studies: 4 to label" in log
    assert "3 ok, 1 failed" in log
    assert "p3/broken" in log
    assert "3 done before, 1 failed before" in again
    assert rows_of(out / "studies.parquet") == first
    labels = histo.label(str(studies), own, out, workers=2)  # Python knows by the bundle that these are studies
    assert labels.studies.to_pylist() == first
    assert labels.classes == list(STUDY_CLASSES)
    with pytest.raises(UsageError, match="a run of studies"):
        _ = labels.tiles
    loop, _ = label(job_for(own, tmp_path / "loop"), studies)
    for row in first:
        if row["status"] == "ok":
            assert row["prob_mts"] == pytest.approx(loop[row["study_id"]]["prob_mts"], abs=1e-4)
            assert row["fingerprint"] == loop[row["study_id"]]["fingerprint"]
    footer = pq.read_schema(out / "studies.parquet").metadata
    assert json.loads(footer[b"histo.classes"]) == list(STUDY_CLASSES)
    assert sorted(path.name for path in out.iterdir()) == ["run.json", "studies.parquet"]
    other = random_volume_bundle(
        tmp_path / "other", VolumeLayout(3, 4, read_bundle(own).input.layout.preparation), 16, classes=("a", "b")
    )
    assert main([*command, "--model", str(other)]) == 2
    assert "holds results of a bundle with other classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--slides", "x", "--studies", "x"], "--slides and --studies are two kinds of input"),
        (["--studies", "x", "--tiling.mpp", "1"], "--tiling.mpp is a setting of slides; leave it out with --studies"),
        (["--studies", "x", "--verify"], "--verify is a setting of slides"),
        (["--studies", "x", "--reader", "openslide"], "--reader is a setting of slides"),
        (["--slides", "x", "--study-is", "file"], "--study-is is a setting of studies; leave it out with --slides"),
        ([], "--slides is missing (or --studies, for a bundle that classifies studies)"),
        (["--slides", "x"], "classifies studies; give --studies"),
    ],
)
def test_the_input_is_of_one_kind_and_that_of_the_bundle(
    model: Path, flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", *flags, "--model", str(model), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["slides", "studies"])
def test_the_settings_of_a_run_are_settings_of_the_next_one(kind: str, tmp_path: Path) -> None:
    spec = read_spec(LabelSpec, [f"--{kind}", "x", "--model", "m", "--out", "o"], "histo label")
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json")))

    assert read_spec(LabelSpec, ["--config", str(tmp_path / "again.yaml")], "histo label") == spec


def test_a_bundle_of_tiles_does_not_label_studies(
    bare_bundle: Path, studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--studies", str(studies), "--model", str(bare_bundle), "--out", str(tmp_path / "out")]

    assert main(["label", *flags]) == 2
    assert "classifies tiles; give --slides" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("preparation", "message"),
    [(None, "does not say how a study becomes a volume"), ({"algorithm": 0}, "prepared by algorithm 0")],
)
def test_a_bundle_that_cannot_prepare_studies_is_refused(
    studies: Path,
    tmp_path: Path,
    preparation: dict[str, Any] | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = bundle_for(tmp_path / "bundle", preparation)

    assert main(["label", "--studies", str(studies), "--model", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_a_changed_bundle_ends_a_worker(model: Path, tmp_path: Path) -> None:
    with pytest.raises(HistoError, match="the bundle was changed while the run went on"):
        StudyLabeler(replace(job_for(model, tmp_path), model_hash="other"))


def test_results_do_not_come_to_lie_among_the_studies(
    model: Path, studies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", "--studies", str(studies), "--model", str(model), "--out", str(studies / "out")]) == 2
    assert "lies in --studies" in capsys.readouterr().err
