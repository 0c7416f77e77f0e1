from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo.errors import UsageError
from histo.learn.source import read_source, survey, tile_mpp


def save(path: Path, level: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (level,) * 3 if mode == "RGB" else level).save(path)


def test_class_folders_become_classes_in_alphabetical_order(tmp_path: Path) -> None:
    for name, level in (("TUM", 30), ("ADI", 10)):
        save(tmp_path / name / "a.png", level)
        save(tmp_path / name / "b.tif", level)
        (tmp_path / name / "notes.txt").write_text("not an image")

    source = read_source(tmp_path)

    assert source.classes == ("ADI", "TUM")
    assert [case.case_id for case in source.cases] == ["ADI/a.png", "ADI/b.tif", "TUM/a.png", "TUM/b.tif"]
    assert source.labels().tolist() == [0, 0, 1, 1]
    assert source.images.load(3)[0, 0].tolist() == [30, 30, 30]


def test_named_classes_choose_folders_and_their_order(tmp_path: Path) -> None:
    for name in ("A", "B", "C"):
        save(tmp_path / name / "a.png", 1)

    source = read_source(tmp_path, ["C", "A"])

    assert source.classes == ("C", "A")
    assert [case.case_id for case in source.cases] == ["C/a.png", "A/a.png"]


def test_grey_and_palette_images_become_rgb(tmp_path: Path) -> None:
    save(tmp_path / "A" / "a.png", 7, mode="L")
    save(tmp_path / "B" / "a.png", 7, mode="P")

    assert read_source(tmp_path).images.load(0).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("images", "labels"), [("data", "labels"), ("images", "labels"), ("test_images", "test_labels")]
)
def test_an_npz_of_one_part_says_nothing_about_a_split(tmp_path: Path, images: str, labels: str) -> None:
    pixels = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    np.savez(tmp_path / "t.npz", **{images: pixels, labels: np.array([[0], [1], [0], [1]])})

    source = read_source(tmp_path / "t.npz", ["STR", "TUM"])

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

    source = read_source(tmp_path / "t.npz")

    assert [case.split for case in source.cases] == ["train"] * 3 + ["val"] * 2 + ["test"]
    assert source.images.load(5).shape == (8, 8, 3)


def test_labels_may_be_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", data=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array(["TUM", "ADI"]))

    source = read_source(tmp_path / "t.npz")

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
        read_source(tmp_path / "t.npz", ["A", "B"])


@pytest.mark.parametrize("name", ["missing", "empty", "file.txt", "broken.npz", "hollow"])
def test_a_source_that_is_none_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "A").mkdir(parents=True)
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "broken.npz").write_bytes(b"PK broken")

    with pytest.raises(UsageError, match=name):
        read_source(tmp_path / name)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    save(tmp_path / "B" / "good.png", 1)
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "bad.png").write_bytes(b"not a picture")

    with pytest.raises(UsageError, match=r"A/bad\.png: not a readable image"):
        survey(read_source(tmp_path))


def test_an_image_that_is_not_square_is_named(tmp_path: Path) -> None:
    save(tmp_path / "A" / "wide.png", 1, size=(9, 8))
    save(tmp_path / "B" / "square.png", 1)

    with pytest.raises(UsageError, match=r"A/wide\.png: 9x8 px; tiles must be square"):
        survey(read_source(tmp_path))


def test_the_content_hash_is_of_the_pixels(tmp_path: Path) -> None:
    for name, level in (("A/a.png", 1), ("A/b.tif", 1), ("B/c.png", 2)):
        save(tmp_path / name, level)

    first, second, third = survey(read_source(tmp_path)).content_hashes

    assert first == second != third


def test_the_fingerprint_changes_with_pixels_and_labels(tmp_path: Path) -> None:
    def fingerprint(level: int, labels: list[int]) -> str:
        np.savez(tmp_path / "t.npz", data=np.full((2, 8, 8, 3), level, np.uint8), labels=np.array(labels))
        source = read_source(tmp_path / "t.npz", ["A", "B"])
        return survey(source).fingerprint(source)

    same, again, pixels, labels = (fingerprint(*a) for a in [(1, [0, 1]), (1, [0, 1]), (2, [0, 1]), (1, [1, 1])])

    assert same == again
    assert len({same, pixels, labels}) == 3


def test_one_resolution_needs_one_size() -> None:
    assert tile_mpp(None, [8, 9], 224) is None
    assert tile_mpp(0.5, [224, 224], 224) == 0.5
    with pytest.raises(UsageError, match="several sizes"):
        tile_mpp(0.5, [224, 112], 224)


@pytest.mark.realdata
def test_the_real_tiles_are_read(shared: Path) -> None:
    folder, npz = read_source(shared / "tiles" / "nct-crops"), read_source(shared / "tiles" / "pathmnist-718.npz")

    assert (len(folder.cases), len(folder.classes)) == (90, 9)
    assert np.bincount(npz.labels()).tolist() == [147, 78, 26, 60, 112, 60, 85, 28, 122]


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(tmp_path / name / "a.png")

    assert (read_source(tmp_path).images.load(0) == 255).all()


def test_an_image_of_16_bits_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / name / "deep.png")

    with pytest.raises(UsageError, match=r"A/deep\.png: pixels of mode I;16"):
        survey(read_source(tmp_path))


def test_one_class_is_not_enough_and_none_is_named_twice(tmp_path: Path) -> None:
    save(tmp_path / "A" / "a.png", 1)
    save(tmp_path / "B" / "a.png", 1)

    with pytest.raises(UsageError, match="a single class, A"):
        read_source(tmp_path, ["A"])
    with pytest.raises(UsageError, match="A is named twice"):
        read_source(tmp_path, ["A", "B", "A"])
