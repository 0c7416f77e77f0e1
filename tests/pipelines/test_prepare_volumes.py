"""The job that prepares volumes: as a process on a Ray of its own, and in a plain loop."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.label_process import FAULTY, ROOT, end, wait_until
from helpers.made_studies import SERIES, settle, write_study
from helpers.plain_loop import rows_of
from torchvision.datasets import DatasetFolder

from histo.cli import main
from histo.pipelines.studies.prepare import PrepareJob, StudyPreparer, prepared_layout, put_in_order
from histo.volume_file import read_header, read_volume
from histo.volumes.finding.studies import find_studies
from histo.volumes.spec import PreparationSpec

FLAGS = ("--preparation.size-px", "32", "--preparation.slices", "4", "--workers", "2")
SMALL = PreparationSpec(size_px=32, slices=4)
GOOD = ("A/p1/s1", "A/p1/s2", "A/p2/once-study", "B/p3/s3")


def start(studies: Path, out: Path, *flags: str, **environment: str) -> subprocess.Popen[str]:
    """Start the job; studies misbehave as the names of their folders say."""
    command = [sys.executable, str(ROOT / "jobs" / "prepare.py"), "volumes", "--studies", str(studies)]
    return subprocess.Popen(
        [*command, "--out", str(out), *FLAGS, *flags],
        env=os.environ | {"PYTHONPATH": FAULTY} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def ledger(out: Path) -> dict[str, dict[str, Any]]:
    return {row["study_id"]: row for row in rows_of(out / "studies.parquet")}


def manifest(out: Path) -> list[dict[str, str]]:
    with (out / "volumes" / "manifest.csv").open() as file:
        return list(csv.DictReader(file))


def changes(out: Path) -> dict[str, int]:
    """When each volume was written."""
    return {path.name: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good studies, of which one has its worker killed once; one that crashes its process, and two of no use."""
    root = tmp_path_factory.mktemp("studies")
    for number, name in enumerate((*GOOD, "B/p3/crash-study", "B/p4/broken")):
        write_study(root / name, seed=number)
    (root / "B" / "p4" / "broken" / "t1.nii.gz").write_bytes(b"not an image")
    (root / "B" / "p4" / "nothing").mkdir()
    (root / "B" / "p4" / "nothing" / "note.txt").write_text("no images here")
    return root


@dataclass(frozen=True)
class Run:
    """What a run left, and what it printed."""

    out: Path
    code: int
    log: str


@pytest.fixture(scope="module")
def first(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The first run over the studies."""
    out, faults = tmp_path_factory.mktemp("prepared") / "out", tmp_path_factory.mktemp("faults")
    code, log = end(start(studies, out, FAULTS=str(faults)))
    assert (faults / "once-study").exists(), log
    return Run(out, code, log)


@pytest.mark.ray
def test_every_study_is_a_volume_or_a_row_with_its_reason(first: Run) -> None:
    rows = ledger(first.out)

    assert first.code == 3, first.log
    assert {name: (row["status"], row["error_code"]) for name, row in rows.items()} == {
        **dict.fromkeys(GOOD, ("ok", None)),
        "B/p3/crash-study": ("failed", "crash"),
        "B/p4/broken": ("failed", "unreadable"),
        "B/p4/nothing": ("failed", "no_images"),
    }
    assert "SIGSEGV" in rows["B/p3/crash-study"]["error"]
    assert all(name in row["error"] and row["error"] in first.log for name, row in rows.items() if row["error"])
    assert "7 studies" in first.log
    assert "7 to prepare" in first.log
    assert f"4 ok, 3 failed (exit code 3); volumes: {first.out}" in first.log
    assert first.log.splitlines()[-1] == "2 classes: A 2 patients, B 1; 4 studies"
    assert "4 patients (studies named 7 by folder)" in first.log
    assert {row["attempts"] for row in rows.values()} == {1}
    assert rows["A/p1/s1"]["series"] == list(SERIES)
    assert rows["A/p1/s1"]["n_slices"] == [6, 6, 6]
    assert (rows["A/p1/s1"]["label"], rows["A/p1/s1"]["group"]) == ("A", "p1")


@pytest.mark.ray
def test_the_output_is_what_the_ledger_and_the_manifest_say(first: Run) -> None:
    rows = [ledger(first.out)[name] for name in GOOD]

    assert sorted(path.name for path in first.out.iterdir()) == ["run.json", "sheets", "studies.parquet", "volumes"]
    assert changes(first.out).keys() == {Path(row["volume_path"]).name for row in rows}
    assert {path.name for path in (first.out / "sheets").iterdir()} == {Path(row["sheet_path"]).name for row in rows}
    for row in rows:
        shape, facts = read_header(first.out / row["volume_path"])
        assert shape == (3, 4, 32, 32)
        assert facts["fingerprint"] == row["fingerprint"]
    assert manifest(first.out) == [
        {"path": f"{name[0]}/{name.replace('/', '__')}.nii.gz", "label": name[0], "group": name[2:4], "split": ""}
        for name in GOOD
    ]
    record = json.loads((first.out / "run.json").read_text())
    assert (record["command"], record["exit_code"], record["studies"]) == ("prepare volumes", 3, {"ok": 4, "failed": 3})


@pytest.mark.ray
def test_torchvision_reads_the_folder_of_volumes(first: Run) -> None:
    found = DatasetFolder(
        str(first.out / "volumes"), loader=lambda path: read_volume(Path(path))[0], extensions=(".nii.gz",)
    )

    assert found.classes == ["A", "B"]
    assert [Path(path).name for path, _ in found.samples] == [Path(row["path"]).name for row in manifest(first.out)]
    assert all(volume.shape == (3, 4, 32, 32) for volume, _ in found)


@pytest.mark.ray
def test_a_second_run_finds_nothing_to_do_and_starts_no_ray(
    first: Run, studies: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    before = changes(first.out), ledger(first.out), manifest(first.out)

    code = main(["prepare", "volumes", "--studies", str(studies), "--out", str(first.out), *FLAGS])

    assert code == 3
    assert "4 done before, 3 failed before, which --retry-failed tries again" in capsys.readouterr().out
    assert (changes(first.out), ledger(first.out), manifest(first.out)) == before


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.alone
def test_a_run_whose_driver_was_killed_goes_on_to_the_result_of_a_plain_loop(studies: Path, tmp_path: Path) -> None:
    slow, out = tmp_path / "studies", tmp_path / "out"
    for name in GOOD:
        shutil.copytree(studies / name, slow / name.replace("once-study", "s9"))
    for number in range(2):
        write_study(slow / "A" / "p9" / f"slow-study{number}", seed=number)
    process = start(slow, out, SLOW_S="0.3")
    wait_until(lambda: len(list((out / "volumes").rglob("*.nii.gz"))) >= 2, process)

    process.send_signal(signal.SIGKILL)
    end(process)
    before = changes(out)
    code, log = end(start(slow, out, SLOW_S="0"))

    assert code == 0, log
    after = changes(out)
    assert len(after) == 6
    assert all(after[name] == when for name, when in before.items()), "what was finished is not done again"
    job = PrepareJob(tmp_path / "plain", 60, SMALL)
    found = find_studies(slow, "folder", None, flag="--studies").studies
    settle(StudyPreparer(job), job, prepared_layout(job), found, put_in_order)
    for path in (out / "volumes").rglob("*.nii.gz"):
        assert path.read_bytes() == (job.out / path.relative_to(out)).read_bytes()
    assert len(manifest(out)) == 6
    assert not list(out.rglob("*.tmp"))
    assert sorted(path.name for path in out.iterdir()) == ["run.json", "sheets", "studies.parquet", "volumes"]


class Preparing:
    """A collection of three studies, prepared in a plain loop as often as one likes."""

    def __init__(self, root: Path) -> None:
        self.root, self.out = root / "studies", root / "out"
        for number, name in enumerate(("p1", "p2", "p3")):
            write_study(self.root / name, seed=number)
        self.labels = {"p1": "A", "p2": "A", "p3": "B"}
        self.job = PrepareJob(self.out, 60, SMALL)
        self.calls = 0

    def __call__(self, retry_failed: bool = False) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
        lines = [f"{name},{label},{name}" for name, label in self.labels.items()]
        (self.root / "list.csv").write_text("\n".join(["study,label,group", *lines]) + "\n")
        found = find_studies(self.root / "list.csv", "folder", None, flag="--studies").studies
        layout = prepared_layout(self.job)
        return settle(StudyPreparer(self.job), self.job, layout, found, put_in_order, retry_failed)

    def listed(self) -> list[tuple[str, str]]:
        return [(row["path"], row["label"]) for row in manifest(self.out)]

    def files(self) -> list[str]:
        return sorted(p.relative_to(self.out).as_posix() for p in self.out.rglob("*") if p.suffix in (".gz", ".png"))


@pytest.fixture
def prepare(tmp_path: Path) -> Preparing:
    return Preparing(tmp_path)


def test_a_changed_preparation_prepares_all_studies_anew(prepare: Preparing) -> None:
    before, _ = prepare()
    prepare.job = replace(prepare.job, preparation=SMALL.model_copy(update={"slices": 3}))

    after, found = prepare()

    assert found == {"settings": 3}
    assert {read_header(prepare.out / row["volume_path"])[0] for row in after.values()} == {(3, 3, 32, 32)}
    assert not {row["fingerprint"] for row in after.values()} & {row["fingerprint"] for row in before.values()}
    assert prepare()[1] == {"done": 3}


def test_a_study_that_is_a_file_has_a_volume_of_one_ending(tmp_path: Path) -> None:
    write_study(tmp_path / "studies" / "A", series=("ct",))
    job = PrepareJob(tmp_path / "out", 60, SMALL.model_copy(update={"series_count": 1}))
    found = find_studies(tmp_path / "studies", "file").studies

    rows, _ = settle(StudyPreparer(job), job, prepared_layout(job), found, put_in_order)

    assert rows["A/ct.nii.gz"]["volume_path"] == "volumes/A/A__ct.nii.gz"
    assert [path.name for path in (job.out / "volumes" / "A").iterdir()] == ["A__ct.nii.gz"]


def test_studies_that_would_have_one_volume_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.csv").write_text("study,study_id\ns1,a\ns2,a.nii.gz\n")

    code = main(["prepare", "volumes", "--studies", str(tmp_path / "list.csv"), "--out", str(tmp_path / "out")])

    assert code == 2
    assert "studies a and a.nii.gz would have one volume; rename one of them" in capsys.readouterr().err


def rename_a_series(prepare: Preparing) -> None:
    (prepare.root / "p1" / "t1.nii.gz").rename(prepare.root / "p1" / "t1c.nii.gz")


def change_a_voxel(prepare: Preparing) -> None:
    write_study(prepare.root / "p1", seed=77)


@pytest.mark.parametrize("change", [rename_a_series, change_a_voxel])
def test_a_changed_study_is_prepared_anew_and_no_other(prepare: Preparing, change: Callable[[Preparing], None]) -> None:
    before, _ = prepare()
    change(prepare)

    after, found = prepare()

    assert found == {"files": 1, "done": 2}
    assert after["p1"]["fingerprint"] != before["p1"]["fingerprint"]
    assert after["p1"]["attempts"] == 2
    assert read_header(prepare.out / after["p1"]["volume_path"])[1]["fingerprint"] == after["p1"]["fingerprint"]


def test_a_study_that_was_only_copied_keeps_its_volume(prepare: Preparing) -> None:
    before, _ = prepare()
    written = changes(prepare.out)
    os.utime(prepare.root / "p1" / "t1.nii.gz")

    after, found = prepare()

    assert found == {"files": 1, "done": 2}
    assert changes(prepare.out) == written
    assert after["p1"] == before["p1"] | {
        name: after["p1"][name] for name in ("mtime_ns", "files_id", "seconds", "attempts")
    }
    assert prepare()[1] == {"done": 3}


def test_a_lost_ledger_is_made_again_from_the_volumes(prepare: Preparing) -> None:
    before, _ = prepare()
    written = changes(prepare.out)
    (prepare.out / "studies.parquet").unlink()

    after, found = prepare()

    assert found == {"new": 3}
    assert changes(prepare.out) == written
    assert {**after["p1"], "seconds": 0} == {**before["p1"], "seconds": 0}


@pytest.mark.parametrize("lost", ["volume_path", "sheet_path"])
def test_a_lost_volume_or_sheet_is_made_again(prepare: Preparing, lost: str) -> None:
    rows, _ = prepare()
    path = prepare.out / rows["p2"][lost]
    content = path.read_bytes()
    path.unlink()

    _, found = prepare()

    assert found == {"result": 1, "done": 2}
    assert path.read_bytes() == content


def test_a_study_of_another_class_moves_and_one_without_a_class_is_not_in_the_manifest(prepare: Preparing) -> None:
    prepare()
    written = changes(prepare.out)
    prepare.labels |= {"p2": "C/x", "p3": ""}

    rows, found = prepare()

    assert found == {"done": 3}, "nothing is prepared again"
    assert changes(prepare.out) == written
    assert prepare.listed() == [("A/p1.nii.gz", "A"), ("C__x/p2.nii.gz", "C/x")]
    volumes = {name for name in prepare.files() if name.endswith(".gz")}
    assert volumes == {"volumes/A/p1.nii.gz", "volumes/C__x/p2.nii.gz", "unlabelled/p3.nii.gz"}
    assert {row["volume_path"] for row in rows.values()} == volumes
    assert sorted(path.name for path in (prepare.out / "volumes").iterdir()) == ["A", "C__x", "manifest.csv"]


def test_a_study_that_is_gone_is_absent_and_its_volume_stays(prepare: Preparing) -> None:
    prepare()
    files, label = prepare.files(), prepare.labels.pop("p2")

    rows, _ = prepare()

    assert rows["p2"]["status"] == "absent"
    assert prepare.files() == files
    assert prepare.listed() == [("A/p1.nii.gz", "A"), ("B/p3.nii.gz", "B")]
    prepare.labels["p2"] = label
    rows, found = prepare()
    assert found == {"done": 3}, "it is back, as it was"
    assert rows["p2"]["status"] == "ok"


def test_a_study_that_was_renamed_leaves_nothing_under_its_old_name(prepare: Preparing) -> None:
    prepare()
    prepare.labels["p4"] = prepare.labels.pop("p2")
    (prepare.root / "p2").rename(prepare.root / "p4")

    rows, _ = prepare()

    assert sorted(rows) == ["p1", "p3", "p4"]
    assert not [name for name in prepare.files() if "p2" in name]


def test_a_study_that_is_of_no_use_any_more_loses_its_volume(prepare: Preparing) -> None:
    prepare()
    (prepare.root / "p3" / "t1.nii.gz").write_bytes(b"not an image")

    rows, _ = prepare()

    assert (rows["p3"]["status"], rows["p3"]["error_code"], rows["p3"]["volume_path"]) == ("failed", "unreadable", None)
    assert not [name for name in prepare.files() if "p3" in name]
    assert prepare.listed() == [("A/p1.nii.gz", "A"), ("A/p2.nii.gz", "A")]
    assert prepare()[1] == {"failed": 1, "done": 2}
    assert prepare(retry_failed=True)[1] == {"asked": 1, "done": 2}
    prepare.job = replace(prepare.job, preparation=SMALL.model_copy(update={"slices": 3}))
    assert prepare()[1] == {"settings": 3}


def test_a_volume_is_kept_while_its_study_cannot_be_reached(prepare: Preparing) -> None:
    before, _ = prepare()
    written = changes(prepare.out)
    path = prepare.root / "p3" / "t1.nii.gz"
    path.rename(prepare.root / "hidden")
    path.symlink_to("nowhere")

    rows, _ = prepare()

    assert (rows["p3"]["status"], rows["p3"]["error_code"]) == ("failed", "no_access")
    assert prepare.listed() == [("A/p1.nii.gz", "A"), ("A/p2.nii.gz", "A")]
    assert changes(prepare.out) == written
    (prepare.root / "hidden").replace(path)
    rows, found = prepare()
    assert found == {"failed_again": 1, "done": 2}
    assert changes(prepare.out) == written
    assert rows["p3"]["fingerprint"] == before["p3"]["fingerprint"]
    assert len(prepare.listed()) == 3


def test_volumes_of_one_flat_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("A/b__c", "A/b/c"):
        write_study(tmp_path / "studies" / name)
    found = find_studies(tmp_path / "studies", "folder", None, flag="--studies").studies
    job = PrepareJob(tmp_path / "out", 60, SMALL)

    rows, _ = settle(StudyPreparer(job), job, prepared_layout(job), found, put_in_order)

    assert len({row["volume_path"] for row in rows.values()}) == 2
    assert len(changes(tmp_path / "out")) == 2
