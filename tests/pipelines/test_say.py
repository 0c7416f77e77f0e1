"""What stands in names from outside does not steer the terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from histo.cli import main
from histo.run.progress import Line
from histo.run.say import say

NAME = "a\x1b[2J\u202eb\r\x07"
SHOWN = "a\\x1b[2J\\u202eb\\r\\x07"


def test_a_line_shows_control_characters_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{NAME}\nsecond line")
    Line().say(NAME)
    Line().show(NAME)

    *others, stamped = capsys.readouterr().out.splitlines()
    assert [*others, stamped.partition("  ")[2]] == [SHOWN, "second line", SHOWN, SHOWN]


@pytest.mark.parametrize("words", [["label", "--slides", NAME, "--model", "m", "--out", "o"], [NAME], ["train", NAME]])
def test_so_does_an_error(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(words) == 2
    assert all(character.isprintable() or character == "\n" for character in capsys.readouterr().err)


def test_the_kinds_of_other_files_are_shown_so_too(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "x.\x1b[31mred").touch()

    assert (
        main(["label", "--slides", str(tmp_path / "slides"), "--model", str(bundle), "--out", str(tmp_path / "o")]) == 2
    )
    assert ".\\x1b[31mred" in capsys.readouterr().err


def test_a_run_whose_output_nobody_takes_any_more_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as nobody:
        monkeypatch.setattr("sys.stdout", nobody)

        say("a line")
        say("another one")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no full device")
def test_a_run_whose_log_is_full_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr("sys.stdout", full)

        say("a line")
        say("another one")


def test_an_error_is_the_last_line_whatever_was_printed_before_and_waits_to_be_written(tmp_path: Path) -> None:
    script = "from histo.run.say import complain; print('of a library'); complain('the error')"
    log = tmp_path / "log"

    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

    with log.open("w", encoding="utf-8") as file:
        subprocess.run([sys.executable, "-c", script], stdout=file, stderr=file, env=buffered, check=True)

    assert log.read_text(encoding="utf-8") == "of a library\nthe error\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no full device")
@pytest.mark.parametrize(("words", "code"), [("--help", 0), ("--version", 0), ("lable", 2), ("train --nothing", 2)])
def test_a_command_whose_output_nobody_can_take_ends_with_its_exit_code(words: str, code: int) -> None:
    command = [sys.executable, "-c", "import sys; from histo.cli import main; sys.exit(main())", *words.split()]

    with Path("/dev/full").open("w", encoding="utf-8") as full:
        assert subprocess.run(command, stdout=full, stderr=full, check=False).returncode == code
