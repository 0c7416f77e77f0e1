from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from histo.errors import UsageError
from histo.learn.source import read_sources, read_test, with_test
from histo.learn.survey import survey, tile_mpp


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
    found = survey(source)

    assert np.bincount(source.labels()).tolist() == [10 + n for n in (147, 78, 26, 60, 112, 60, 85, 28, 122)]
    assert found.usable() == list(range(808))
    assert tile_mpp([1.179, 4.0], source, found, 224) == pytest.approx(0.5, rel=0.01)
    with pytest.raises(UsageError, match=r"images of nct-crops show 47.5 µm .* those of pathmnist-718.npz 14 µm"):
        tile_mpp([0.5], source, found, 224)
