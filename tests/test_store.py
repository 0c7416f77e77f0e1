import json
from pathlib import Path

import pytest

from histo.store import append_json_lines, put_atomic, put_json, read_json_lines, remove, replace_folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def write_half(path: Path, failure: BaseException) -> None:
    with put_atomic(path) as file:
        file.write(b"half of the new")
        raise failure


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a long old text")

    with put_atomic(path) as file:
        file.write(b"new")

    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.txt"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    with put_atomic(path) as file:
        file.write(b"half of the new")
        file.flush()
        seen = path.read_bytes()

    assert seen == b"old"


@pytest.mark.parametrize("failure", [OSError, ValueError, KeyboardInterrupt])
def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    with pytest.raises(failure):
        write_half(path, failure())

    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


def test_a_first_write_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk"):
        write_half(tmp_path / "a.txt", OSError("disk full"))

    assert names(tmp_path) == []


def test_a_file_that_cannot_take_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()

    with pytest.raises(OSError, match="taken"), put_atomic(tmp_path / "taken") as file:
        file.write(b"whole")

    assert names(tmp_path) == ["taken"]


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"

    with put_atomic(path) as first, put_atomic(path) as second:
        first.write(b"first")
        second.write(b"second")

    assert path.read_bytes() == b"first"  # the outer block ends last
    assert names(tmp_path) == ["a.txt"]


def test_json_reads_back_as_it_was_put(tmp_path: Path) -> None:
    value = {"µm": [1, 2.5, None], "имя": "s1.svs"}

    put_json(tmp_path / "a" / "b.json", value)

    assert json.loads((tmp_path / "a" / "b.json").read_text(encoding="utf-8")) == value


def test_json_lines_are_added_behind_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "lines.jsonl"

    append_json_lines(path, [{"n": 1}])
    append_json_lines(path, [{"n": 2, "text": "two\nlines"}])

    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"n": 1}, {"n": 2, "text": "two\nlines"}]


@pytest.mark.parametrize(
    "torn", [b'{"a": 3', b'{"a": 3}\xff', b"\xe2\x82", b"null", b"[3]", b"3", b"[" * 100_000, b"\0" * 10], ids=range(8)
)
def test_json_lines_are_read_up_to_what_is_no_whole_line(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n' + torn + b'\n{"a": 4}\n')

    assert read_json_lines(path) == [{"a": 1}, {"a": 2}]


def test_a_folder_takes_the_place_of_another_whole(tmp_path: Path) -> None:
    old, new = tmp_path / "model", tmp_path / "next"
    for folder, name in ((old, "old.txt"), (new, "new.txt")):
        folder.mkdir()
        (folder / name).touch()

    replace_folder(new, old)

    assert names(tmp_path) == ["model", "model/new.txt"]


def test_a_folder_is_put_where_none_was(tmp_path: Path) -> None:
    new, target = tmp_path / "next", tmp_path / "a" / "model"
    new.mkdir()
    (new / "new.txt").touch()

    replace_folder(new, target)

    assert names(tmp_path) == ["a", "a/model", "a/model/new.txt"]


def test_a_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.touch()

    remove(path)

    assert names(tmp_path) == []


def test_a_folder_is_removed_with_all_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.txt").touch()

    remove(tmp_path / "a")

    assert names(tmp_path) == []


def test_what_is_not_there_is_removed_in_silence(tmp_path: Path) -> None:
    remove(tmp_path / "a.txt")

    assert names(tmp_path) == []


def test_a_link_to_a_folder_is_removed_and_the_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)

    remove(tmp_path / "link")

    assert names(tmp_path) == ["real", "real/a.txt"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "kept").touch()

    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "missing", tmp_path / "target")

    assert [path.name for path in tmp_path.rglob("*")] == ["target", "kept"]
