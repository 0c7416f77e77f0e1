import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from histo.errors import UsageError
from histo.run.lock import sole_run

HOLD = """
import sys, time
from pathlib import Path
from histo.run.lock import sole_run
with sole_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_with_the_process_that_holds_the_folder(tmp_path: Path) -> None:
    refusal = r"another run writes there \(process \d+ on .*\); wait"

    with sole_run(tmp_path), pytest.raises(UsageError, match=refusal), sole_run(tmp_path):
        pass


def test_a_run_that_has_ended_leaves_nothing(tmp_path: Path) -> None:
    with sole_run(tmp_path):
        pass
    with pytest.raises(RuntimeError), sole_run(tmp_path):
        raise RuntimeError

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_killed_does_not_block_the_next(tmp_path: Path, how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {holder.pid}"), sole_run(tmp_path):
            pass
        holder.send_signal(how)

    assert (tmp_path / ".lock").exists()
    with sole_run(tmp_path):
        pass


def test_a_dead_lock_of_another_user_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".lock").write_text("process 1 on another machine")
    can_open = Path.open

    def refuse(path: Path, mode: str = "r", **kwargs: Any) -> Any:  # root may write everything
        if mode != "r" and path.exists():
            raise PermissionError(13, "Permission denied", str(path))
        return can_open(path, mode, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with sole_run(tmp_path), pytest.raises(UsageError, match=f"process {os.getpid()} on"), sole_run(tmp_path):
        pass

    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_in_the_place_of_the_lock_is_named(tmp_path: Path) -> None:
    for number, make in enumerate((Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/full"))):
        out = tmp_path / str(number)
        out.mkdir()
        make(out / ".lock")

        with pytest.raises(UsageError, match=r"\.lock: is no file, as the lock of a run is; remove it"), sole_run(out):
            pass
