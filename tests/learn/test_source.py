from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.trees import There, links, plant, tie, trees
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from histo.errors import UsageError
from histo.folders import walk
from histo.learn.data.inspection import inspect_images, tile_mpp
from histo.learn.data.source import read_sources, read_test, with_test


def save(path: Path, level: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (level,) * 3 if mode == "RGB" else level).save(path)


def test_class_folders_become_classes_in_alphabetical_order(tmp_path: Path) -> None:
    for name, level in (("TUM", 30), ("ADI", 10)):
        save(tmp_path / name / "a.png", level)
        save(tmp_path / name / "b.tif", level)
        (tmp_path / name / "notes.txt").write_text("not an image")

    source = read_sources([tmp_path])

    assert source.classes == ("ADI", "TUM")
    assert [case.case_id for case in source.cases] == ["ADI/a.png", "ADI/b.tif", "TUM/a.png", "TUM/b.tif"]
    assert source.labels().tolist() == [0, 0, 1, 1]
    assert source.images.load(3)[0, 0].tolist() == [30, 30, 30]


@pytest.mark.parametrize("ending", ["jpg", "JPEG", "jpe", "jfif", "png", "ppm", "pgm", "bmp", "tif", "TIFF", "webp"])
def test_what_an_image_folder_takes_is_taken(tmp_path: Path, ending: str) -> None:
    save(tmp_path / "A" / f"a.{ending}", 7, mode="L" if ending == "pgm" else "RGB")
    save(tmp_path / "B" / "x" / "y" / f"b.{ending}", 7, mode="L" if ending == "pgm" else "RGB")

    source = read_sources([tmp_path])

    assert [case.case_id for case in source.cases] == [f"A/a.{ending}", f"B/x/y/b.{ending}"]
    assert source.images.load(1).shape == (8, 8, 3)
    assert source.others == {}


def test_the_class_of_a_nested_image_is_the_first_folder(tmp_path: Path) -> None:
    for place in ("TUM/p1/a.png", "TUM/p2/a.png", "STR/p1/x/a.png", "STR/b.png"):
        save(tmp_path / place, 1)

    source = read_sources([tmp_path])

    named = {case.case_id: source.classes[case.label] for case in source.cases}
    assert named == {"STR/b.png": "STR", "STR/p1/x/a.png": "STR", "TUM/p1/a.png": "TUM", "TUM/p2/a.png": "TUM"}


def test_what_is_not_taken_of_class_folders_is_counted_by_kind(tmp_path: Path) -> None:
    for place in ("A/a.png", "B/a.png", "A/.ipynb_checkpoints/a.png", "A/._a.png", "__MACOSX/A/a.png", "stray.png"):
        save(tmp_path / place, 1)
    for place in ("A/a.gif", "A/x/b.gif", "B/notes.txt", "README"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    (tmp_path / "A" / "gone.png").symlink_to("nowhere")

    source = read_sources([tmp_path])

    assert source.others == {
        ".gif": 2,
        ".png": 1,
        ".txt": 1,
        "__MACOSX": 1,
        "hidden": 2,
        "no extension": 1,
        "no regular file": 1,
    }
    assert source.describe() == (
        "2 images of 2 classes (and other files: 2 .gif, 1 .png, 1 .txt, 1 __MACOSX, 2 hidden, 1 no extension, "
        "1 no regular file)"
    )


def test_linked_class_folders_are_followed_and_counted(tmp_path: Path) -> None:
    for place in ("far/TUM/a.png", "far/deep/b.png", "data/STR/a.png"):
        save(tmp_path / place, 1)
    (tmp_path / "data" / "TUM").symlink_to(tmp_path / "far" / "TUM", target_is_directory=True)
    (tmp_path / "data" / "STR" / "more").symlink_to(tmp_path / "far" / "deep", target_is_directory=True)

    source = read_sources([tmp_path / "data"])

    assert [case.case_id for case in source.cases] == ["STR/a.png", "STR/more/b.png", "TUM/a.png"]
    assert source.describe() == "3 images of 2 classes (2 linked folders followed)"


@settings(max_examples=50)
@given(trees, trees, trees, links)
def test_of_any_tree_of_class_folders_what_is_taken_and_what_is_counted_is_all_that_is_there(
    one: dict[str, Any], two: dict[str, Any], beside: dict[str, Any], wanted: list[tuple[int, str, int]]
) -> None:
    with TemporaryDirectory() as place:
        root = Path(place) / "root"
        plant(root, {"one": without_volumes(one), "two": without_volumes(two)})
        plant(Path(place) / "beside", without_volumes(beside))
        tie(Path(place), wanted)
        walked, there = walk(root), There().look(str(root))
        tops = {top for folder in walked.folders if (top := folder.path.relative_to(root).parts[:1])}
        for number, (top,) in enumerate(tops):
            (root / top / f"always{number}.png").touch()
            there.files.add(f"always{number}")

        source = read_sources([root])

        doors = there.doors - (len(there.folders) - 1)
        assert len(source.cases) + sum(source.others.values()) == len(there.files) + there.passed_over + doors


def without_volumes(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        name: below and without_volumes(below)
        for name, below in tree.items()
        if below is not None or not name.endswith(".nii.gz")
    }


def written(path: Path, labels: list[str]) -> Path:
    """Write a source of one image for each label, in the form that the path's ending names."""
    pixels = np.zeros((len(labels), 8, 8, 3), np.uint8)
    if path.suffix == ".npz":
        np.savez(path, data=pixels, labels=np.array(labels))
        return path
    save(path.parent / "pictures" / "a.png", 1)
    image = (path.parent / "pictures" / "a.png").read_bytes()
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"image": [image] * len(labels), "label": labels}), path)
    elif path.suffix == ".csv":
        path.write_text("path,label\n" + "".join(f"{i}.png,{label}\n" for i, label in enumerate(labels)))
    else:
        for label in labels:
            save(path / label / "a.png", 1)
    return path


@pytest.mark.parametrize("pair", [("TUM", "TUM "), ("TUM", "tum"), ("T UM", "TUM"), ("caf\u00e9", "cafe\u0301")])
@pytest.mark.parametrize("name", ["t.npz", "t.csv", "t.parquet", "t"])
def test_labels_that_differ_only_in_blanks_case_or_form_are_refused_by_both_names(
    tmp_path: Path, name: str, pair: tuple[str, str]
) -> None:
    source = written(tmp_path / name, [*pair, "STR"])

    with pytest.raises(UsageError, match=r"differ only in blanks or case") as caught:
        read_sources([source])

    assert all(repr(label) in str(caught.value) for label in pair)


def test_labels_of_two_sources_or_of_the_settings_are_not_written_in_two_ways(tmp_path: Path) -> None:
    one, two = written(tmp_path / "a.npz", ["TUM", "STR"]), written(tmp_path / "b.npz", ["tum", "STR"])

    with pytest.raises(UsageError, match="'TUM' and 'tum' differ only in blanks or case"):
        read_sources([one, two])
    with pytest.raises(UsageError, match="'TUM' and 'tum' differ only in blanks or case"):
        read_sources([two], ["TUM", "STR"])


@pytest.mark.parametrize("ending", ["csv", "parquet", "npz"])
def test_whole_numbers_that_pandas_wrote_as_floats_are_whole_numbers(tmp_path: Path, ending: str) -> None:
    path, labels, pixels = tmp_path / f"t.{ending}", [1.0, 0.0, 11.0], np.zeros((3, 8, 8, 3), np.uint8)
    if ending == "npz":
        np.savez(path, data=pixels, labels=np.array(labels))
    elif ending == "parquet":
        pq.write_table(pa.table({"path": ["a.png", "b.png", "c.png"], "label": labels}), path)
    else:
        path.write_text("path,label\na.png,1.0\nb.png,0.0\nc.png,11.0\n")

    source = read_sources([path])

    assert source.classes == tuple(map(str, range(12)))
    assert source.labels().tolist() == [1, 0, 11]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_of_any_precision_may_be_whole_numbers(tmp_path: Path, kind: type[np.floating[Any]]) -> None:
    np.savez(tmp_path / "t.npz", data=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array([0, 1], kind))

    assert read_sources([tmp_path / "t.npz"]).labels().tolist() == [0, 1]


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf"), -1.0])
def test_floats_that_are_no_whole_numbers_from_0_are_no_labels(tmp_path: Path, value: float) -> None:
    np.savez(tmp_path / "t.npz", data=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array([0.0, value]))
    pq.write_table(pa.table({"path": ["a.png", "b.png"], "label": [0.0, value]}), tmp_path / "t.parquet")

    for name in ("t.npz", "t.parquet"):
        with pytest.raises(UsageError, match="label"):
            read_sources([tmp_path / name])


def test_folders_of_splits_are_not_taken_for_classes(tmp_path: Path) -> None:
    for place in ("train/TUM/a.png", "train/STR/a.png", "test/TUM/b.png", "test/STR/b.png"):
        save(tmp_path / place, 1)

    with pytest.raises(UsageError, match=r"its folders are splits \(test, train\), not classes; give --data .*/train"):
        read_sources([tmp_path])


def test_of_folders_of_splits_the_training_one_is_named(tmp_path: Path) -> None:
    for place in ("Train/TUM/a.png", "Valid/TUM/a.png"):
        save(tmp_path / place, 1)

    with pytest.raises(UsageError, match=r"\(Train, Valid\), not classes; give --data .*/Train, and"):
        read_sources([tmp_path])


def test_labels_of_an_npz_that_are_python_objects_are_refused_with_the_way_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", data=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array(["TUM", "STR"], object))

    with pytest.raises(UsageError, match=r"labels\.npy: Python objects, .*; save text with \.astype\(str\)"):
        read_sources([tmp_path / "t.npz"])


def test_a_class_without_images_is_refused_with_what_the_source_holds(tmp_path: Path) -> None:
    save(tmp_path / "A" / "a.png", 1)
    (tmp_path / "B").mkdir()
    (tmp_path / "B" / "b.gif").touch()

    with pytest.raises(UsageError, match=r"no images for class B \(.*\); beside images the source holds 1 \.gif"):
        read_sources([tmp_path])


def test_images_of_classes_that_are_not_asked_for_are_counted(tmp_path: Path) -> None:
    for place in ("A/a.png", "B/a.png", "C/a.png", "C/x/b.png"):
        save(tmp_path / place, 1)
    np.savez(tmp_path / "t.npz", data=np.zeros((3, 8, 8, 3), np.uint8), labels=np.array(["A", "B", "C"]))

    folder, table = read_sources([tmp_path], ["A", "B"]), read_sources([tmp_path / "t.npz"], ["A", "B"])

    assert (folder.others["images of other classes"], table.others) == (2, {"images of other classes": 1})


def test_arrays_and_files_beside_a_table_are_counted(tmp_path: Path) -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "t.npz", train_images=pixels, train_labels=np.array([0, 1]), test_images=pixels)
    table = tmp_path / "table"
    save(table / "A" / "a.png", 1)
    image = (table / "A" / "a.png").read_bytes()
    pq.write_table(pa.table({"image": [image, image], "label": ["A", "B"]}), table / "part.parquet")
    (table / "run.json").touch()
    (table / "._part.parquet").write_bytes(b"macOS")

    assert read_sources([tmp_path / "t.npz"]).others == {"array test_images": 1}
    assert read_sources([table]).others == {"folder": 1, "hidden": 1}


def test_named_classes_choose_folders_and_their_order(tmp_path: Path) -> None:
    for name in ("A", "B", "C"):
        save(tmp_path / name / "a.png", 1)

    source = read_sources([tmp_path], ["C", "A"])

    assert source.classes == ("C", "A")
    assert [case.case_id for case in source.cases] == ["C/a.png", "A/a.png"]


def test_grey_and_palette_images_become_rgb(tmp_path: Path) -> None:
    save(tmp_path / "A" / "a.png", 7, mode="L")
    save(tmp_path / "B" / "a.png", 7, mode="P")

    assert read_sources([tmp_path]).images.load(0).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("images", "labels"), [("data", "labels"), ("images", "labels"), ("test_images", "test_labels")]
)
def test_an_npz_of_one_part_says_nothing_about_a_split(tmp_path: Path, images: str, labels: str) -> None:
    pixels = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    np.savez(tmp_path / "t.npz", **{images: pixels, labels: np.array([[0], [1], [0], [1]])})

    source = read_sources([tmp_path / "t.npz"], ["STR", "TUM"])

    assert source.classes == ("STR", "TUM")
    assert [case.split for case in source.cases] == [None] * 4
    assert source.cases[2].case_id == f"t.npz#{images}/2"
    np.testing.assert_array_equal(source.images.load(3), pixels[3])


def test_a_medmnist_file_says_its_own_split(tmp_path: Path) -> None:
    parts = {}
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        labels = np.arange(count)[:, None] % 2
        parts |= {f"{part}_images": np.zeros((count, 8, 8), np.uint8), f"{part}_labels": labels}
    np.savez(tmp_path / "t.npz", **parts)

    source = read_sources([tmp_path / "t.npz"])

    assert [case.split for case in source.cases] == ["train"] * 3 + ["val"] * 2 + ["test"]
    assert source.images.load(5).shape == (8, 8, 3)


def test_labels_may_be_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", data=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array(["TUM", "ADI"]))

    source = read_sources([tmp_path / "t.npz"])

    assert (source.classes, source.labels().tolist()) == (("ADI", "TUM"), [1, 0])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "expected data and labels"),
        ({"data": np.zeros((2, 8, 8, 3), np.float32), "labels": np.zeros(2, int)}, "expected uint8"),
        ({"data": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.zeros(3, int)}, "2 images in data, but 3 labels"),
        (
            {"data": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.array([0, 9])},
            "label 9 needs 10 class names, there are 2",
        ),
        ({"data": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.array([0.5, 1])}, "labels must be names or whole"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "t.npz", **arrays)

    with pytest.raises(UsageError, match=message):
        read_sources([tmp_path / "t.npz"], ["A", "B"])


@pytest.mark.parametrize("name", ["missing", "empty", "file.txt", "broken.npz", "hollow"])
def test_a_source_that_is_none_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "A").mkdir(parents=True)
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "broken.npz").write_bytes(b"PK broken")

    with pytest.raises(UsageError, match=name):
        read_sources([tmp_path / name])


@pytest.mark.realdata
def test_the_real_tiles_are_read(shared: Path) -> None:
    folder, npz = read_sources([shared / "tiles" / "nct-crops"]), read_sources([shared / "tiles" / "pathmnist-718.npz"])

    assert (len(folder.cases), len(folder.classes)) == (90, 9)
    assert np.bincount(npz.labels()).tolist() == [147, 78, 26, 60, 112, 60, 85, 28, 122]


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(tmp_path / name / "a.png")

    assert (read_sources([tmp_path]).images.load(0) == 255).all()


def test_no_class_is_named_twice_and_each_named_folder_has_images(tmp_path: Path) -> None:
    save(tmp_path / "A" / "a.png", 1)
    save(tmp_path / "B" / "a.png", 1)

    with pytest.raises(UsageError, match="A is named twice"):
        read_sources([tmp_path], ["A", "B", "A"])
    with pytest.raises(UsageError, match="no images for class C"):
        read_sources([tmp_path], ["A", "B", "C"])


def folder(root: Path, *classes: str, level: int = 1) -> Path:
    for name in classes:
        save(root / name / "a.png", level)
    return root


def numbered(path: Path, labels: list[int], size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, data=np.zeros((len(labels), size, size, 3), np.uint8), labels=np.array(labels))
    return path


def test_several_sources_have_the_union_of_their_classes_in_alphabetical_order(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one", "C", "A"), folder(tmp_path / "two", "B", "C", level=9)

    source = read_sources([one, two])

    assert (source.classes, source.names) == (("A", "B", "C"), ("one", "two"))
    assert [case.case_id for case in source.cases] == ["one/A/a.png", "one/C/a.png", "two/B/a.png", "two/C/a.png"]
    assert [case.source for case in source.cases] == ["one", "one", "two", "two"]
    assert source.labels().tolist() == [0, 2, 1, 2]
    assert [int(source.images.load(i)[0, 0, 0]) for i in range(4)] == [1, 1, 9, 9]


@given(st.lists(st.lists(st.sampled_from("ABCD"), min_size=1, max_size=6), min_size=1, max_size=4), st.data())
def test_combined_sources_hold_every_case_once_with_its_own_class_and_image(
    labels: list[list[str]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as root:
        pixels = iter(range(99))
        paths, told = [], []
        for number, names in enumerate(labels):
            shown = [["A", next(pixels)], *([name, next(pixels)] for name in names)]
            told += [(f"s{number}.npz", name, level) for name, level in shown]
            paths.append(Path(root) / f"s{number}.npz")
            images = np.stack([np.full((2, 2, 3), level, np.uint8) for _, level in shown])
            np.savez(paths[-1], data=images, labels=np.array([name for name, _ in shown]))

        source = read_sources(paths)
        order = data.draw(st.permutations(range(len(source.cases))))
        chosen = source.select(order)

    found = [
        (case.source, chosen.classes[case.label], int(chosen.images.load(i)[0, 0, 0]))
        for i, case in enumerate(chosen.cases)
    ]
    assert len({case.case_id for case in chosen.cases}) == len(told)
    assert sorted(found) == sorted(told)


def test_numbers_beside_names_need_classes(tmp_path: Path) -> None:
    sources = [folder(tmp_path / "named", "A", "B"), numbered(tmp_path / "t.npz", [0, 1, 2])]

    with pytest.raises(UsageError, match=r"shares no class with the other sources .* give --classes"):
        read_sources(sources)
    source = read_sources(sources, ["B", "C", "A"])

    assert [source.classes[case.label] for case in source.cases] == ["B", "A", "B", "C", "A"]


def test_numbers_of_several_files_stay_in_the_order_of_numbers(tmp_path: Path) -> None:
    source = read_sources([numbered(tmp_path / "a.npz", [0, 11]), numbered(tmp_path / "b.npz", [2])])

    assert source.classes == tuple(str(number) for number in range(12))
    assert source.labels().tolist() == [0, 11, 2]


def test_sources_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [folder(tmp_path / place / "tiles", "A", "B") for place in ("x", "y")]

    source = read_sources(paths)

    assert source.names == ("x/tiles", "y/tiles")
    assert source.cases[-1].case_id == "y/tiles/B/a.png"
    with pytest.raises(UsageError, match="given twice"):
        read_sources([paths[0], paths[0]])
    with pytest.raises(UsageError, match="given twice"):
        read_sources([paths[0], tmp_path / "y" / ".." / "x" / "tiles"])


def test_a_test_set_stands_behind_the_training_source(tmp_path: Path) -> None:
    source = read_sources([folder(tmp_path / "train", "C", "A", "B")])
    test = read_test([folder(tmp_path / "test", "C", "A", level=7)], source)

    joined = with_test(source, test)

    assert (joined.classes, joined.names) == (("A", "B", "C"), ("train", "test:test"))
    assert [case.split for case in joined.cases] == [None] * 3 + ["test"] * 2
    assert [case.case_id for case in joined.cases[3:]] == ["test:A/a.png", "test:C/a.png"]
    assert [joined.classes[case.label] for case in joined.cases[3:]] == ["A", "C"]
    assert joined.images.load(4)[0, 0, 0] == 7


def test_numbers_of_a_test_set_mean_the_training_classes(tmp_path: Path) -> None:
    source = read_sources([folder(tmp_path / "train", "A", "B")])

    test = read_test([numbered(tmp_path / "t.npz", [1, 1])], source)

    assert [test.classes[case.label] for case in test.cases] == ["B", "B"]


def test_a_test_set_of_another_class_is_refused(tmp_path: Path) -> None:
    source = read_sources([folder(tmp_path / "train", "A", "B")])

    with pytest.raises(UsageError, match=r"--test .*: class X is not one of the training classes: A, B"):
        read_test([folder(tmp_path / "test", "A", "X")], source)


@pytest.mark.realdata
def test_real_sources_of_two_forms_make_one(shared: Path) -> None:
    classes = ["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"]
    paths = [shared / "tiles" / "nct-crops", shared / "tiles" / "pathmnist-718.npz"]

    source = read_sources(paths, classes)
    found = inspect_images(source)

    assert np.bincount(source.labels()).tolist() == [10 + n for n in (147, 78, 26, 60, 112, 60, 85, 28, 122)]
    assert found.usable() == list(range(808))
    assert tile_mpp([1.179, 4.0], source, found, 224) == pytest.approx(0.5, rel=0.01)
    with pytest.raises(UsageError, match=r"images of nct-crops show 47.5 µm .* those of pathmnist-718.npz 14 µm"):
        tile_mpp([0.5], source, found, 224)
