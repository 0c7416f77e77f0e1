"""The folder of a run: writable, held by one run of one command, and clean at its end."""

import errno
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from histo import store
from histo.cli import main
from histo.errors import HistoError, UsageError
from histo.run.lock import sole_run
from histo.run.record import read_record
from histo.run.run_folder import RunFolder
from histo.spec.base import Spec


class Settings(Spec):
    """Of a command of tests."""


def test_its_record_says_which_command_it_holds_and_another_one_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out", "label") as folder, folder.record(Settings(), found={"new": 1}) as record:
        record.finish(0)

    assert read_record(tmp_path / "out")["command"] == "label"
    with pytest.raises(UsageError, match="holds the results of another job"), RunFolder(tmp_path / "out", "train"):
        pass
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match=r"--out .*file/out: cannot be written"):
        RunFolder(tmp_path / "file" / "out", "label").__enter__()


def test_one_run_holds_it_at_a_time(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path, "label"),
        pytest.raises(UsageError, match="another run writes there"),
        RunFolder(tmp_path, "label"),
    ):
        pass


@pytest.mark.parametrize(
    ("file", "where"),
    [(None, "--out {out}"), ("{out}/tiles/a.parquet", "--out {out}"), ("/somewhere/else", "/somewhere/else")],
)
def test_trouble_with_the_storage_is_one_line_that_names_the_place(
    tmp_path: Path, file: str | None, where: str
) -> None:
    name = file and file.format(out=tmp_path)

    with (
        pytest.raises(HistoError) as caught,
        RunFolder(tmp_path, "train", resume="--resume goes on"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", name)

    place = where.format(out=tmp_path)
    assert str(caught.value) == (
        f"{place}: No space left on device; mend the storage or make room on it; --resume goes on"
    )


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("no answer"),
        OSError("a library's own"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ProcessLookupError(errno.ESRCH, "No such process"),
        ChildProcessError(errno.ECHILD, "No child processes"),
    ],
)
def test_an_error_that_is_not_of_the_storage_is_not_blamed_on_it(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(type(error)) as caught, RunFolder(tmp_path, "train"):
        raise error

    assert caught.value is error


def test_a_lock_that_cannot_be_written_is_trouble_with_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fcntl.flock", full)

    with pytest.raises(HistoError, match="No space left on device; mend the storage"):
        RunFolder(tmp_path, "label").__enter__()


@pytest.mark.parametrize(
    ("command", "result"),
    [
        ("prepare tiles --data {tiles}", "part-00000.parquet"),
        ("evaluate --model {bundle} --data {tiles}", "metrics.json"),
    ],
)
def test_what_another_run_has_written_before_the_lock_was_taken_is_not_overwritten(
    command: str, result: str, tiles: Path, bare_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    enter = RunFolder.__enter__

    def another_run_ends_first(folder: RunFolder) -> RunFolder:
        out.mkdir()
        (out / result).write_text("of the other run")
        return enter(folder)

    monkeypatch.setattr(RunFolder, "__enter__", another_run_ends_first)
    words = [word.format(tiles=tiles, bundle=bare_bundle) for word in command.split()]

    assert main([*words, "--out", str(out)]) == 2
    assert (out / result).read_text() == "of the other run"


@pytest.mark.slow
@pytest.mark.usefixtures("inline_ray")
def test_training_does_not_go_on_from_epochs_of_a_run_that_it_did_not_look_at(
    tiles: Any, tiny: list[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", str(tiles), "--size-px", "64", "--mpp", "2", *tiny]
    flags += ["--fit.head.epochs", "1", "--fit.tune.epochs", "0"]
    assert main(["train", "--out", str(tmp_path / "other"), *flags]) == 0
    enter = RunFolder.__enter__

    def another_run_ends_first(folder: RunFolder) -> RunFolder:
        shutil.copytree(tmp_path / "other", tmp_path / "run")
        return enter(folder)

    monkeypatch.setattr(RunFolder, "__enter__", another_run_ends_first)

    assert main(["train", "--out", str(tmp_path / "run"), *flags]) == 2
    assert "another run has just written there; give the command again" in capsys.readouterr().err


def test_what_killed_processes_leave_is_removed_and_results_are_kept(tmp_path: Path) -> None:
    drafts = [f"{folder}.x{store.TEMPORARY_SUFFIX}" for folder in ("tiles/", "staging/", "")]
    left = [tmp_path / name for name in ("staging/attempts/a", *drafts)]
    kept = [tmp_path / name for name in ("tiles/x.parquet", f"other/.x{store.TEMPORARY_SUFFIX}", "staging/parts/p")]

    with suppress(KeyboardInterrupt), RunFolder(tmp_path, "label", ["tiles"]):
        for path in (*left, *kept):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        raise KeyboardInterrupt

    assert [path.exists() for path in (*left, *kept)] == [False] * 4 + [True] * 3


@pytest.mark.usefixtures("inline_ray")
def test_a_training_run_holds_its_folder(
    tiles: Any, tiny: list[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, held = tmp_path / "run", []

    def fit(_: object) -> None:
        with pytest.raises(UsageError, match="another run writes there"), sole_run(out):
            held.append("not")
        held.append("held")
        raise KeyboardInterrupt

    monkeypatch.setattr("helpers.inline_ray.InlineTrainer.fit", fit)
    flags = ["--data", str(tiles), "--out", str(out), "--size-px", "64", "--mpp", "2", *tiny]

    assert main(["train", *flags]) == 1
    assert held == ["held"]
    assert not (out / ".lock").exists()
