"""Results in object storage: the same functions, on servers that speak S3 and Google Cloud Storage."""

from collections.abc import Iterator
from contextlib import ExitStack

import pyarrow as pa
import pytest
from helpers.gs_server import gs_server
from helpers.s3_server import BUCKET, have_bucket, s3_server, use_server
from upath import UPath

from histo import store, tables


@pytest.fixture(scope="module", params=["s3", "gs"])
def top(request: pytest.FixtureRequest) -> Iterator[UPath]:
    """A folder in object storage."""
    with ExitStack() as stack:
        if request.param == "s3":
            use_server(stack.enter_context(pytest.MonkeyPatch.context()), stack.enter_context(s3_server()))
            have_bucket()
        else:
            stack.enter_context(gs_server(BUCKET))
        yield UPath(f"{request.param}://{BUCKET}/out")


@pytest.fixture
def place(request: pytest.FixtureRequest, top: UPath) -> UPath:
    """A folder of its own for each test."""
    return top / str(request.node.originalname)


def names(place: UPath) -> list[str]:
    return sorted(str(path).removeprefix(f"{place}/") for path in store.list_files(place))


def test_a_file_appears_whole_or_not_at_all(place: UPath) -> None:
    with store.put_atomic(place / "a" / "b.txt") as file:
        file.write(b"half")
        file.flush()
        assert not store.is_there(place / "a" / "b.txt")
        file.write(b" whole")

    def fails() -> None:
        with store.put_atomic(place / "c.txt") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert store.content_of(place / "a" / "b.txt") == b"half whole"
    assert names(place) == ["a/b.txt"]


def test_lines_are_appended_and_read(place: UPath) -> None:
    assert store.read_json_lines(place / "log.jsonl") == []
    store.append_json_lines(place / "log.jsonl", [{"a": 1}])
    store.append_json_lines(place / "log.jsonl", [{"a": 2}, {"a": 3}])

    assert store.read_json_lines(place / "log.jsonl") == [{"a": 1}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize("name", ["plain.txt", "a b.txt", "ü#?%&=+.txt", "*.txt", "[a].txt", "{a}.txt"])
def test_files_of_any_name_are_written_listed_and_removed(place: UPath, name: str) -> None:
    store.put_json(place / "folder" / name, 1)

    assert names(place) == [f"folder/{name}"]
    assert store.is_there(place / "folder" / name)
    assert store.content_of(place / "folder" / name) == b"1\n"
    store.remove(place / "folder" / name)
    assert names(place) == []
    assert not store.is_there(place / "folder")


def test_a_folder_is_removed_and_its_neighbour_stays(place: UPath) -> None:
    for path in (place / "tiles" / "a", place / "tiles" / "b" / "c", place / "tiles2" / "d", place / "tiles.txt"):
        store.put_json(path, 1)

    store.remove(place / "tiles")
    store.remove(place / "nothing")

    assert names(place) == ["tiles.txt", "tiles2/d"]


def test_a_pattern_is_that_of_names_at_any_depth(place: UPath) -> None:
    for name in ("a.json", "b/c.json", "b/d.txt"):
        store.put_json(place / name, 1)

    assert sorted(path.name for path in store.list_files(place, "*.json")) == ["a.json", "c.json"]


def test_a_file_is_moved(place: UPath) -> None:
    store.put_json(place / "a", 5)

    store.move(place / "a", place / "b" / "c")

    assert names(place) == ["b/c"]


@pytest.mark.parametrize("rows", [3, 400_000])
def test_a_table_is_read_as_it_was_written(place: UPath, rows: int) -> None:
    place /= str(rows)
    table = pa.table({"n": pa.array(range(rows)), "text": pa.array([f"row {n}" for n in range(rows)])})

    tables.write_table(place / "t.parquet", table)

    assert tables.open_table(place / "t.parquet").read().equals(table)
    assert tables.open_table(place / "t.parquet").read(["n"]).column_names == ["n"]


def test_what_is_not_there_is_nothing(place: UPath) -> None:
    assert store.content_of(place / "a") is None
    assert not store.is_there(place)
    assert names(place) == []
    with pytest.raises(FileNotFoundError) as error:
        tables.open_table(place / "t.parquet")
    assert error.value.filename == f"{place}/t.parquet"
