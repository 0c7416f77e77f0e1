import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from histo.errors import UsageError
from histo.learn.data.inspection import inspect_images
from histo.learn.data.source import Source, read_sources, with_test
from histo.store import put_csv


def write_csv(root: Path, text: str) -> Path:
    for name, level in (("a.png", 10), ("b.png", 20), ("sub/c.png", 30)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (level,) * 3).save(root / name)
    (root / "list.csv").write_text(text, encoding="utf-8")
    return root / "list.csv"


def write_parquet(root: Path, columns: dict[str, Any], **settings: Any) -> Path:
    pq.write_table(pa.table(columns), root / "list.parquet", **settings)
    return root / "list.parquet"


def columns_of(source: Source) -> list[tuple[str, str, str | None, str | None]]:
    return [(case.case_id, source.classes[case.label], case.group, case.split) for case in source.cases]


def encoded(root: Path, *levels: int) -> list[bytes]:
    files = []
    for level in levels:
        Image.new("RGB", (8, 8), (level,) * 3).save(root / "x.png")
        files.append((root / "x.png").read_bytes())
    return files


def test_a_csv_names_images_by_paths_that_start_at_its_folder(tmp_path: Path) -> None:
    text = (
        "path,label,group,split,scanner\na.png,TUM,007,train,1\nsub/c.png,ADI,,,2\n" + f"{tmp_path}/b.png,TUM,8,val,3\n"
    )

    source = read_sources([write_csv(tmp_path, text)])

    assert source.classes == ("ADI", "TUM")
    assert columns_of(source) == [
        ("a.png", "TUM", "007", "train"),
        ("sub/c.png", "ADI", None, None),
        (f"{tmp_path}/b.png", "TUM", "8", "val"),
    ]
    assert [int(source.images.load(i)[0, 0, 0]) for i in range(3)] == [10, 30, 20]


def test_a_parquet_manifest_is_read_as_a_csv_is(tmp_path: Path) -> None:
    csv = write_csv(tmp_path, "path,label,group,split\na.png,TUM,7,test\nb.png,ADI,,\n")
    categories = pa.array(["TUM", "ADI"]).dictionary_encode()
    columns = {"path": ["a.png", "b.png"], "label": categories, "group": pa.array([7, None]), "split": ["test", ""]}

    assert columns_of(read_sources([write_parquet(tmp_path, columns)])) == columns_of(read_sources([csv]))


def test_a_parquet_manifest_may_hold_the_images(tmp_path: Path) -> None:
    columns = {"image": encoded(tmp_path, 1, 2, 3), "label": pa.array(["A", "B", "A"], pa.large_string())}

    source = read_sources([write_parquet(tmp_path, columns)])

    assert [case.case_id for case in source.cases] == ["list.parquet#0", "list.parquet#1", "list.parquet#2"]
    assert [int(source.images.load(i)[0, 0, 0]) for i in (2, 0, 1)] == [3, 1, 2]


def test_whole_numbers_are_numbers_of_classes(tmp_path: Path) -> None:
    csv = write_csv(tmp_path, "path,label\na.png,1\nb.png,0\nsub/c.png,1\n")
    parquet = write_parquet(tmp_path, {"path": ["a.png", "b.png", "sub/c.png"], "label": [1, 0, 1]})

    for path in (csv, parquet):
        source = read_sources([path], ["STR", "TUM"])
        assert [source.classes[case.label] for case in source.cases] == ["TUM", "STR", "TUM"]
        assert read_sources([path]).classes == ("0", "1")


@pytest.mark.parametrize("labels", ["001,002", "1,2a", "1.5,2.0", "01.0,2.0", "-1,2"])
def test_other_text_stays_text(tmp_path: Path, labels: str) -> None:
    one, two = labels.split(",")

    source = read_sources([write_csv(tmp_path, f"path,label\na.png,{one}\nb.png,{two}\n")])

    assert source.classes == (one, two)


def test_named_classes_choose_the_rows(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "path,label\na.png,A\nb.png,B\nsub/c.png,C\n")

    source = read_sources([path], ["C", "A"])

    assert [(case.case_id, case.label) for case in source.cases] == [("a.png", 1), ("sub/c.png", 0)]
    assert source.images.load(1)[0, 0, 0] == 30
    with pytest.raises(UsageError, match=r"list\.csv: no images for class D"):
        read_sources([path], ["A", "D"])


def test_a_file_that_a_manifest_names_and_that_is_not_there_is_a_broken_image(tmp_path: Path) -> None:
    found = inspect_images(read_sources([write_csv(tmp_path, "path,label\na.png,A\nnowhere.png,B\n")]))

    assert found.usable() == [0]
    assert "nowhere.png: not readable (No such file" in str(found.errors[1])


def test_a_path_of_windows_is_a_broken_image_with_the_way_out(tmp_path: Path) -> None:
    _, error = inspect_images(read_sources([write_csv(tmp_path, "path,label\na.png,A\nsub\\c.png,B\n")])).errors

    assert str(error).endswith("c.png: not readable (No such file or directory); write its path with / in place of \\")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\na.png,A\n", "no column label; its columns: path, class"),
        ("path;label\na.png;A\n", "its columns are separated by semicolons; separate them by commas"),
        ('\ufeff"path";"label"\r\na.png;"A, B"\r\n', "its columns are separated by semicolons"),
        ("path\tlabel\na.png\tA\n", "its columns are separated by tabs"),
        ("path,label\na.png, A\nb.png,B\n", "label ' A' begins or ends with a blank; remove it"),
        ("label,group\nA,1\n", "neither path nor image"),
        ("image,label\nx,A\n", "a CSV file cannot hold images"),
        ("path,image,label\na.png,x,A\n", "both path and image"),
        ("path,label,label\na.png,A,B\n", "two columns label"),
        ("path,label, group\na.png,A,1\n", "column ' group'; name it group"),
        ("path,label,Split\na.png,A,val\n", "column 'Split'; name it split"),
        ("path,label\n", "holds no rows"),
        ("", "not a readable CSV file"),
        ("path,label\na.png,A\nb.png\n", "not a readable CSV file"),
        ("path,label\na.png,A\nb.png,\n", "row 2 has no label"),
        ("path,label\na.png,A\n,B\n", "row 2 has no path"),
        ("path,label\na.png,A\nb.png,B\na.png,B\n", "rows 1 and 3 name the same path, a.png"),
        ("path,label,split\na.png,A,train\nb.png,B,valid\n", "row 2 has split 'valid'; expected train, val, test"),
    ],
)
def test_a_wrong_csv_is_refused_with_its_name_and_the_row(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_sources([write_csv(tmp_path, text)])

    assert str(caught.value).startswith(f"--data {tmp_path / 'list.csv'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": ["text", "text"], "label": ["A", "B"]}, "image is string; expected binary"),
        ({"image": [b"", b""], "label": [0.5, 1.0]}, "label is double; expected names or whole numbers"),
        ({"image": [b"", b""], "label": [0, -1]}, "row 2 has label -1; they count from 0"),
        ({"image": [b"", b""], "label": ["A", None]}, "row 2 has no label"),
        ({"image": [b"", b""], "label": ["A", "B"], "split": [0.5, 0.5]}, "split is double; expected text"),
    ],
)
def test_a_wrong_parquet_table_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_sources([write_parquet(tmp_path, columns)])


def test_a_file_that_is_no_parquet_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_text("text")

    with pytest.raises(UsageError, match=r"list\.parquet: not a readable Parquet table"):
        read_sources([tmp_path / "list.parquet"])


def test_a_byte_order_mark_belongs_to_no_column(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "\ufeffpath,label\na.png,A\nb.png,B\n")

    assert read_sources([path]).classes == ("A", "B")


def test_a_class_named_na_is_a_class(tmp_path: Path) -> None:
    assert read_sources([write_csv(tmp_path, "path,label\na.png,NA\nb.png,null\n")]).classes == ("NA", "null")


@pytest.mark.parametrize("name", ["list.csv", "list.parquet", "parts/part-0.parquet"])
def test_a_table_that_is_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "parts").mkdir()
    os.mkfifo(tmp_path / name)

    with pytest.raises(UsageError, match=r"not a readable .* \(is a named pipe, not a regular file\)"):
        read_sources([tmp_path / "parts" if "/" in name else tmp_path / name])


def test_an_image_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "path,label\na.png,TUM\npipe.png,ADI\n")
    os.mkfifo(tmp_path / "pipe.png")

    _, error = inspect_images(read_sources([path])).errors

    assert "pipe.png: not readable (is a named pipe, not a regular file)" in str(error)


def test_a_table_that_histo_wrote_is_read_as_it_was_meant(tmp_path: Path) -> None:
    rows = [("a.png", "=SUM(A1)", "@p1", None), ("b.png", "-STR", "'p2", "val"), ("sub/c.png", "+", "'=p3", "train")]
    write_csv(tmp_path, "")
    put_csv(tmp_path / "list.csv", ("path", "label", "group", "split"), rows)

    assert columns_of(read_sources([tmp_path / "list.csv"])) == rows
    assert "\n=" not in (tmp_path / "list.csv").read_text().replace(",", "\n")


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [("path,label\n", "utf-16", "UTF-16"), ("path,label,Gr\u00f6\u00dfe\n", "cp1252", "not UTF-8")],
)
def test_a_header_of_another_encoding_is_one_line(tmp_path: Path, text: str, encoding: str, said: str) -> None:
    (tmp_path / "list.csv").write_bytes((text + "a.png,A,1\n").encode(encoding))

    with pytest.raises(UsageError, match=rf"list\.csv: not a readable CSV file \(it is {said}; save it as UTF-8"):
        read_sources([tmp_path / "list.csv"])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_patients_whose_numbers_pandas_wrote_as_floats_are_numbers(tmp_path: Path, ending: str) -> None:
    path = write_csv(tmp_path, "path,label,group\na.png,A,7.0\nb.png,B,\nsub/c.png,B,12.0\n")
    columns = {"path": ["a.png", "b.png", "sub/c.png"], "label": ["A", "B", "B"], "group": [7.0, float("nan"), 12.0]}
    if ending == "parquet":
        path = write_parquet(tmp_path, columns)

    assert [case.group for case in read_sources([path]).cases] == ["7", None, "12"]


@pytest.mark.parametrize("other", ["p1 ", "P1", "\uff501"])
def test_a_patient_who_is_written_in_two_ways_is_refused_by_both(tmp_path: Path, other: str) -> None:
    path = write_csv(tmp_path, f"path,label,group\na.png,A,p1\nb.png,B,{other}\n")

    with pytest.raises(UsageError, match="differ only in blanks or case, and would be two patients") as caught:
        read_sources([path])

    assert "'p1'" in str(caught.value)
    assert repr(other) in str(caught.value)


def test_blanks_within_the_name_of_a_patient_count(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "path,label,group\na.png,A,1 1\nb.png,B,11\n")

    assert [case.group for case in read_sources([path]).cases] == ["1 1", "11"]


def test_a_patient_is_not_written_otherwise_in_the_test_set(tmp_path: Path) -> None:
    train = read_sources([write_csv(tmp_path, "path,label,group\na.png,A,p1\nb.png,B,p2\n")])
    test = read_sources([write_csv(tmp_path, "path,label,group\nsub/c.png,A,p1 \n")])

    with pytest.raises(UsageError, match="--data and --test: groups 'p1' and 'p1 '"):
        with_test(train, test)


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_labels_that_are_not_utf_8_are_one_line(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path, "")
    if name == "list.csv":
        (tmp_path / name).write_bytes(b"path,label\na.png,T\xfcM\n")
    else:
        broken = pa.array([b"T\xfcM"], pa.binary()).view(pa.string())
        pq.write_table(pa.table({"path": ["a.png"], "label": broken}), tmp_path / name)

    with pytest.raises(UsageError, match=name) as caught:
        read_sources([tmp_path / name])

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "footer", [{}, {"histo.classes": "[", "histo.parts": "1"}, {"histo.classes": "3", "histo.parts": "1"}]
)
def test_a_tile_table_with_a_damaged_footer_is_one_line(tmp_path: Path, footer: dict[str, str]) -> None:
    table = pa.table({"image": [b""], "label": ["A"]})
    write_csv(tmp_path, "")
    path = tmp_path / "part.parquet"
    pq.write_table(table.replace_schema_metadata({"histo.table": "tiles", **footer}), path)

    with pytest.raises(UsageError, match=r"part\.parquet: not a readable Parquet table \(its footer is damaged"):
        read_sources([path])


@pytest.mark.parametrize(
    "other",
    [
        {"split": ["test", "test"]},
        {"group": ["p", "p"]},
        {"image": ["a", "b"]},
        {"label": [0, 1]},
        {"image": None},
    ],
    ids=str,
)
def test_a_column_that_one_part_has_is_not_left_out_because_the_first_lacks_it(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    first = {"image": encoded(tmp_path, 1, 2), "label": ["a", "b"]}
    folder = tmp_path / "parts"
    folder.mkdir()
    second = {name: values for name, values in (first | other).items() if values is not None}
    for name, columns in (("0.parquet", first), ("1.parquet", second)):
        pq.write_table(pa.table(columns), folder / name)

    with pytest.raises(UsageError, match=r"0\.parquet has the columns image .*, 1\.parquet has .*; give all parts the"):
        read_sources([folder])


@pytest.mark.parametrize("end", ["", "2.png,b,\n" * 20_000], ids=["short", "long"])
def test_quotes_that_are_not_closed_swallow_no_rows(tmp_path: Path, end: str) -> None:
    path = write_csv(tmp_path, f'path,label,note\n0.png,a,"note\n1.png,b,\n{end}')

    with pytest.raises(UsageError, match=r"not a readable CSV file \(line .*; quotes may be opened and not closed\)"):
        read_sources([path])


def test_a_cell_may_hold_the_outline_of_a_whole_tumour(tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    outline = "1.5 2.5, " * 40_000

    source = read_sources([write_csv(tmp_path, f'path,label,wkt\n0.png,a,"POLYGON (({outline}))"\n1.png,b,\n')])

    assert source.classes == ("a", "b")


@pytest.mark.parametrize("label", ["a\0", " ", "a\nb", "x" * 201, "a\u200b"], ids=ascii)
def test_a_label_that_no_bundle_takes_is_refused_before_anything_is_learned(tmp_path: Path, label: str) -> None:
    path = write_parquet(tmp_path, {"image": encoded(tmp_path, 1, 2), "label": ["b", label]})

    with pytest.raises(UsageError, match="is no name of a class; give 1 to 200 printable characters"):
        read_sources([path])


@pytest.mark.parametrize("label", [1e300, 2**63], ids=str)
def test_a_label_of_absurd_size_is_one_line(tmp_path: Path, label: float) -> None:
    kind = pa.float64() if isinstance(label, float) else pa.uint64()
    path = write_parquet(tmp_path, {"image": encoded(tmp_path, 1, 2), "label": pa.array([0, label], kind)})

    with pytest.raises(UsageError, match="numbered labels count the classes from 0"):
        read_sources([path])
