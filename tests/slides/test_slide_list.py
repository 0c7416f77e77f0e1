"""Lists of slides: what their rows may say, and the one line for each that is wrong."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histo.errors import UsageError
from histo.slides.finding.collection import FoundSlide
from histo.slides.finding.find import find_slides


def listed(folder: Path, text: str, name: str = "list.csv") -> list[FoundSlide]:
    """Read a list, and return its slides."""
    (folder / name).write_text(text, encoding="utf-8")
    return list(find_slides(folder / name).slides)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def test_relative_uris_start_at_the_list_and_name_slides_as_a_folder_does(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.svs", "2.tif", "b/3.ndpi")

    slides = listed(tmp_path, f"uri\n./a/1.svs\n2.tif\n{tmp_path}/b/3.ndpi\n")

    (tmp_path / "list.csv").unlink()
    found = find_slides(tmp_path).slides
    assert [(slide.slide_id, slide.files) for slide in slides] == [(slide.slide_id, slide.files) for slide in found]


def test_slides_elsewhere_are_named_by_their_whole_path(tmp_path: Path) -> None:
    text = "uri\n/other/x/1.svs\ns3://bucket/p/1.svs\nhttps://me:secret@host/a%20b.svs?sig=1\n"

    slides = listed(tmp_path, text)

    assert [slide.slide_id for slide in slides] == ["bucket/p/1.svs", "host/a b.svs", "other/x/1.svs"]


def test_columns_are_carried_and_text_stays_text(tmp_path: Path) -> None:
    touch(tmp_path, "1.svs", "2.svs")

    (tmp_path / "list.csv").write_text("uri,slide_id,mpp,case,stain\n1.svs,one,0.25,007,'=x\n2.svs,,,,\n")
    collection = find_slides(tmp_path / "list.csv")

    second, first = collection.slides
    assert (first.slide_id, first.mpp, first.columns) == ("one", 0.25, {"case": "007", "stain": "=x"})
    assert (second.slide_id, second.mpp, second.columns) == ("2.svs", None, {"case": None, "stain": None})
    assert collection.columns == {"case": pa.string(), "stain": pa.string()}


def test_parquet_columns_keep_their_types(tmp_path: Path) -> None:
    values: dict[str, Any] = {"uri": ["1.svs"], "mpp": [0.5], "age": [61], "score": [0.5], "old": [True]}
    table = pa.table(values | {"site": pa.array(["lung"]).dictionary_encode(), "day": pa.array([0], pa.date32())})
    pq.write_table(table, tmp_path / "list.parquet")

    collection = find_slides(tmp_path / "list.parquet")

    (slide,) = collection.slides
    assert slide.mpp == 0.5
    assert slide.columns == {"age": 61, "score": 0.5, "old": True, "site": "lung", "day": "1970-01-01"}
    assert collection.columns["age"] == pa.int64()
    assert collection.columns["day"] == pa.string()


def test_a_missing_resolution_may_be_written_as_pandas_does(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["1.svs", "2.svs"], "mpp": [float("nan"), None]}), tmp_path / "list.parquet")

    assert [slide.mpp for slide in find_slides(tmp_path / "list.parquet").slides] == [None, None]


def test_a_slide_that_is_not_there_is_in_the_collection(tmp_path: Path) -> None:
    (slide,) = listed(tmp_path, "uri\ngone/1.svs\n")

    assert slide.files == (f"{tmp_path}/gone/1.svs",)


def test_a_slide_of_any_extension_is_taken_as_named(tmp_path: Path) -> None:
    touch(tmp_path, "1.img")

    assert [slide.slide_id for slide in listed(tmp_path, "uri\n1.img\n")] == ["1.img"]


def test_companions_and_folders_of_one_slide_are_found(tmp_path: Path) -> None:
    touch(tmp_path, "m.mrxs", "m/Slidedat.ini", "m/Data0000.dat")
    touch(tmp_path, "two/a.svs", "two/b.svs", "one/a.svs", "one/notes.txt")

    mirax, one = listed(tmp_path, "uri,slide_id\nm.mrxs,a\none,b\n")

    assert mirax.files == tuple(f"{tmp_path}/{name}" for name in ("m.mrxs", "m/Data0000.dat", "m/Slidedat.ini"))
    assert one.files == (f"{tmp_path}/one/a.svs",)
    with pytest.raises(UsageError, match=r"row 1: .*/two is a folder of 2 slides; name one slide in each row"):
        listed(tmp_path, "uri\ntwo\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path\n1.svs\n", "no column uri; its columns: path"),
        ("URI\n1.svs\n", "column 'URI'; name it uri"),
        ("uri, mpp\n1.svs,1\n", "column ' mpp'; name it mpp"),
        ("uri\n", "holds no rows"),
        ("", "not a readable list"),
        ("uri;mpp\n1.svs;0,25\n", "not a readable list .its columns are separated by semicolons"),
        ("uri,mpp\n1.svs,\n,0.5\n", "row 2: no uri"),
        ("uri,mpp\n1.svs,0.5 um\n", "row 1: mpp '0.5 um' is no resolution of a slide; give µm/px, 0.05 to 20"),
        ("uri,mpp\n1.svs,250\n", "row 1: mpp '250' is no resolution"),
        ("uri,mpp\n1.svs,nan\n", "row 1: mpp 'nan' is no resolution"),
        ("uri\n1.svs\n2.svs\n1.svs\n", "row 3: 1.svs is also the slide of row 1; leave one of them out"),
        ("uri,slide_id\n1.svs,x\n2.svs,x\n", "row 2: x is also the slide of row 1"),
        ("uri,status\n1.svs,good\n", "column 'status' is a column of the ledger; rename it, or leave it out"),
        ("uri,fraction_TUM\n1.svs,1\n", "column 'fraction_TUM' is a column of the ledger"),
        ("uri,\n1.svs,1\n", "column '' is a column of the ledger"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as raised:
        listed(tmp_path, text)

    assert str(raised.value).startswith(f"--slides {tmp_path}/list.csv: ")
    assert "\n" not in str(raised.value)


def test_a_parquet_file_that_is_none_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_bytes(b"no table")

    with pytest.raises(UsageError, match=r"list.parquet: not a readable list"):
        find_slides(tmp_path / "list.parquet")


def test_a_column_that_is_no_text_or_number_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["1.svs"], "genes": [["TP53"]]}), tmp_path / "list.parquet")

    with pytest.raises(UsageError, match=r"column genes is list.*; leave it out, or make it text or a number"):
        find_slides(tmp_path / "list.parquet")
