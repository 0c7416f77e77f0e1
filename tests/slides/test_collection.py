import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from helpers.trees import There, links, plant, tie, trees
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage, generate_uid

from histo.errors import UsageError
from histo.input_files import digest, readable, sampled_blocks, table_path
from histo.slides.finding.collection import FoundSlide
from histo.slides.finding.find import find_slides
from histo.slides.finding.grouping import SLIDE_EXTENSIONS

laws = settings(max_examples=100)
BLOCK = 64 * 1024
SERIES, OTHER_SERIES = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"


def digest_of(names: list[str]) -> str:
    return digest(sampled_blocks(names))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(name))


def write_dicom(path: Path, series: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    header.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    if series is not None:
        header.SeriesInstanceUID = series
    header.save_as(path, enforce_file_format=True)


def ids(root: Path) -> list[str]:
    return [slide.slide_id for slide in find_slides(root).slides]


def files(slide: FoundSlide, root: Path) -> list[str]:
    return [Path(file).relative_to(root).as_posix() for file in slide.files]


@pytest.mark.parametrize("extension", sorted(SLIDE_EXTENSIONS))
def test_a_known_extension_makes_a_candidate_in_any_case(tmp_path: Path, extension: str) -> None:
    touch(tmp_path, f"a{extension}", f"B{extension.upper()}", f"c{extension.title()}")

    assert ids(tmp_path) == [f"B{extension.upper()}", f"a{extension}", f"c{extension.title()}"]


def test_other_files_are_counted_by_extension(tmp_path: Path) -> None:
    touch(tmp_path, "s.svs", "a.txt", "b/c.TXT", "b/d.jpg", "README", ".hidden")

    collection = find_slides(tmp_path)

    assert [slide.slide_id for slide in collection.slides] == ["s.svs"]
    assert collection.others == {".jpg": 1, ".txt": 2, "hidden": 1, "no extension": 1}


def test_class_maps_among_the_slides_are_no_slides(tmp_path: Path) -> None:
    touch(tmp_path, "a.svs", "out/slides.parquet", "out/class_maps/a.svs.tif", "out/class_maps/b/c.svs.tif")
    touch(tmp_path, "class_maps/d.tif")

    found = find_slides(tmp_path)

    assert [slide.slide_id for slide in found.slides] == ["a.svs", "class_maps/d.tif"], "the latter are no run's"
    assert found.others == {".parquet": 1, "class_maps": 2}


def test_slides_are_named_by_their_path_and_sorted_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "z.svs", "a/y.svs", "a/b/x.ndpi", "a-b.svs", "B.svs")

    slides = find_slides(tmp_path).slides

    assert [slide.slide_id for slide in slides] == ["B.svs", "a-b.svs", "a/b/x.ndpi", "a/y.svs", "z.svs"]
    assert [Path(slide.path) for slide in slides] == [tmp_path / slide.slide_id for slide in slides]
    assert all(slide.files == (slide.path,) for slide in slides)


def test_one_file_is_a_collection_of_its_own(tmp_path: Path) -> None:
    touch(tmp_path, "a/s.svs", "a/t.svs", "a/n.txt")

    collection = find_slides(tmp_path / "a" / "s.svs")

    assert [slide.slide_id for slide in collection.slides] == ["s.svs"]
    assert collection.others == {}


def test_a_link_to_a_file_is_a_slide(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/s.svs")
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "linked.svs").symlink_to(tmp_path / "elsewhere" / "s.svs")

    assert ids(tmp_path / "slides") == ["linked.svs"]


def test_links_to_folders_are_followed_each_folder_once_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/s.svs", "slides/t.svs")
    (tmp_path / "slides" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "slides" / "loop").symlink_to(tmp_path / "slides", target_is_directory=True)

    collection = find_slides(tmp_path / "slides")

    assert [slide.slide_id for slide in collection.slides] == ["linked/s.svs", "t.svs"]
    assert (collection.linked, collection.others) == (1, {"linked folder met before": 1})


def test_a_folder_of_nothing_but_links_holds_slides(tmp_path: Path) -> None:
    touch(tmp_path, "one/s.svs", "two/s.svs")
    (tmp_path / "slides").mkdir()
    for name in ("one", "two"):
        (tmp_path / "slides" / name).symlink_to(tmp_path / name, target_is_directory=True)

    assert ids(tmp_path / "slides") == ["one/s.svs", "two/s.svs"]


def test_copies_that_systems_keep_of_a_slide_are_no_slides(tmp_path: Path) -> None:
    touch(tmp_path, "s.tif", "._s.tif", ".snapshot/s.tif", ".Trash-1000/files/s.tif", "__MACOSX/._s.tif", "a/.c/s.svs")

    collection = find_slides(tmp_path)

    assert [slide.slide_id for slide in collection.slides] == ["s.tif"]
    assert collection.others == {"hidden": 4, "__MACOSX": 1}


@settings(max_examples=50)
@given(trees, trees, links)
def test_of_any_tree_what_is_taken_and_what_is_counted_is_all_that_is_there(
    tree: dict[str, Any], beside: dict[str, Any], wanted: list[tuple[int, str, int]]
) -> None:
    with TemporaryDirectory() as place:
        root = Path(place) / "root"
        plant(root, tree | {"always.svs": None})
        plant(Path(place) / "beside", beside)
        tie(Path(place), wanted)

        collection, there = find_slides(root), There().look(str(root))

        taken = [file for slide in collection.slides for file in slide.files]
        doors = there.doors - (len(there.folders) - 1)
        assert len({os.path.realpath(file) for file in taken}) == len(taken)
        assert len(taken) + sum(collection.others.values()) == len(there.files) + there.passed_over + doors


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--slides .*/gone: no such file or folder"):
        find_slides(tmp_path / "gone")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no slides in it; it holds nothing"):
        find_slides(tmp_path)


def test_a_folder_without_slides_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c/d.txt")

    with pytest.raises(UsageError, match=r"no slides in it; it holds 2 \.jpg, 1 \.txt$"):
        find_slides(tmp_path)


def test_a_folder_of_other_microscopes_files_says_what_makes_slides_of_them(tmp_path: Path) -> None:
    for name in ("a.vsi", "b.LIF", "c.nd2", "d.jp2", "e.txt"):
        (tmp_path / name).touch()

    with pytest.raises(UsageError, match=r"; convert \.lif, \.nd2, \.vsi with bfconvert .*; convert \.jp2 with vips "):
        find_slides(tmp_path)


def test_dicom_is_known_by_its_magic(tmp_path: Path) -> None:
    write_dicom(tmp_path / "IM0001", SERIES)
    (tmp_path / "IM0002").write_bytes(bytes(128) + b"DICX")

    collection = find_slides(tmp_path)

    assert [slide.slide_id for slide in collection.slides] == ["IM0001"]
    assert collection.others == {"no extension": 1}


def test_dicom_files_of_one_series_in_a_folder_are_one_slide(tmp_path: Path) -> None:
    for name in ("c.dcm", "a.dcm", "b"):
        write_dicom(tmp_path / name, SERIES)
    write_dicom(tmp_path / "d.dcm", OTHER_SERIES)

    slides = find_slides(tmp_path).slides

    assert [(slide.slide_id, files(slide, tmp_path)) for slide in slides] == [
        ("a.dcm", ["a.dcm", "b", "c.dcm"]),
        ("d.dcm", ["d.dcm"]),
    ]


def test_dicom_files_of_one_series_in_two_folders_are_two_slides(tmp_path: Path) -> None:
    write_dicom(tmp_path / "one" / "a.dcm", SERIES)
    write_dicom(tmp_path / "two" / "a.dcm", SERIES)

    assert ids(tmp_path) == ["one/a.dcm", "two/a.dcm"]


def test_dicom_files_without_a_series_stand_alone(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", None)
    write_dicom(tmp_path / "b.dcm", None)
    (tmp_path / "c").write_bytes(bytes(128) + b"DICM")

    assert ids(tmp_path) == ["a.dcm", "b.dcm", "c"]


@pytest.mark.realdata
def test_the_two_files_of_a_real_dicom_slide_are_found_as_one(shared: Path) -> None:
    slides = find_slides(shared / "slides" / "format").slides

    dicom = next(slide for slide in slides if slide.slide_id.endswith(".dcm"))
    assert files(dicom, shared / "slides" / "format") == ["boxes_0.dcm", "boxes_1.dcm"]


def test_the_companions_of_a_mirax_slide_belong_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "a.b.mrxs", "a.b/Slidedat.ini", "a.b/Data0001.dat", "a.b/Data0000.dat", "other.dat", "a/Data.dat")

    collection = find_slides(tmp_path)

    assert [files(slide, tmp_path) for slide in collection.slides] == [
        ["a.b.mrxs", "a.b/Data0000.dat", "a.b/Data0001.dat", "a.b/Slidedat.ini"]
    ]
    assert collection.others == {".dat": 2}


def test_the_companions_of_a_vms_slide_belong_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "s1.jpg", "s1(1,0).jpg", "s1_map2.jpg", "s10.vms", "s10.jpg", "t.jpg")
    (tmp_path / "s1.vms").write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nImageFile=s1.jpg\nImageFile(1,0)=s1(1,0).jpg\nMapFile=s1_map2.jpg\n"
    )

    collection = find_slides(tmp_path)

    assert [files(slide, tmp_path) for slide in collection.slides] == [
        ["s1.vms", "s1(1,0).jpg", "s1.jpg", "s1_map2.jpg"],
        ["s10.vms"],
    ]
    assert collection.others == {".jpg": 2}


def test_a_name_that_is_not_utf8_becomes_readable(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.svs")).touch()

    slide = find_slides(tmp_path).slides[0]

    assert slide.slide_id.startswith("caf%E9.svs~")
    assert Path(slide.path).exists()


def test_a_name_that_is_not_utf8_is_told_from_one_that_looks_like_it(tmp_path: Path) -> None:
    touch(tmp_path, os.fsdecode(b"c\xe9.svs"), "c%E9.svs", os.fsdecode(b"x.t\xe9"))

    collection = find_slides(tmp_path)

    assert len({slide.slide_id for slide in collection.slides}) == 2
    assert collection.others == {".t%E9": 1}


@pytest.mark.parametrize(
    "header", [b"\x02\0\0\0ZZ\x04\0abcd", b"\x08\0\x05\0UL\x03\0abc", b"\x02\0"], ids=["no type", "short", "cut"]
)
def test_a_damaged_dicom_file_is_a_slide_of_its_own_and_stops_no_other(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x.dcm").write_bytes(bytes(128) + b"DICM" + header)
    touch(tmp_path, "a.svs")

    assert [slide.slide_id for slide in find_slides(tmp_path).slides] == ["a.svs", "x.dcm"]


def test_a_folder_is_never_called_as_the_table_of_a_slide_beside_it() -> None:
    table = table_path("a.svs")

    assert not table_path("a.svs.parquet/b.svs").startswith(table)


def test_a_shortened_name_is_told_from_one_that_is_called_so() -> None:
    shortened = table_path("x" * 300).removesuffix(".parquet")

    assert table_path(shortened) != table_path("x" * 300)


@laws
@given(st.binary(min_size=1, max_size=40))
def test_every_name_becomes_valid_utf8(name: bytes) -> None:
    text = readable(os.fsdecode(name))

    assert text.encode().decode() == text


@laws
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_name_in_utf8_stays_as_it_is(name: str) -> None:
    assert readable(name) == name


def slide_ids() -> st.SearchStrategy[str]:
    """Paths with what is hard: leading marks, percent signs, foreign letters, names up to a file system's limit."""
    short = st.text("_.%~2a5FEbЖé ", min_size=1, max_size=6)
    any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=12)
    long = st.builds(lambda text, times: text * times, st.text("_%aЖ語", min_size=1, max_size=3), st.integers(30, 85))
    component = (short | any_text | long).filter(lambda part: part not in {".", ".."} and len(part.encode()) <= 255)
    return st.lists(component, min_size=1, max_size=3).map("/".join)


@laws
@given(st.lists(slide_ids(), min_size=2, max_size=8, unique=True))
@example(["_a", "%5Fa", "%255Fa"])
@example(["a/b", "a%2Fb", "a/_b", "a/%5Fb"])
@example(["x" * 250 + end for end in ("a", "b", "")])
def test_two_slides_never_share_a_table(names: list[str]) -> None:
    assert len({table_path(name) for name in names}) == len(names)


@laws
@given(slide_ids())
def test_every_part_of_a_tables_path_is_safe(name: str) -> None:
    parts = table_path(name).split("/")

    assert len(parts) == len(name.split("/"))
    assert parts[-1].endswith(".parquet")
    assert max(len(part.encode()) for part in parts) <= 255
    assert not any(part.startswith(("_", ".")) for part in parts)


@pytest.mark.parametrize("letter", ["x", "%", "_", "Ж", "語"])
def test_the_name_of_a_table_fits_a_file_system_however_long_the_slides_is(letter: str) -> None:
    for length in range(1, 256 // len(letter.encode())):
        assert len(table_path(letter * length).encode()) <= 255


@laws
@given(st.lists(st.text("abcЖ_.- ", min_size=1, max_size=20), min_size=1, max_size=3))
def test_a_plain_name_is_its_tables_path(parts: list[str]) -> None:
    assume(not any(part.startswith(("_", ".")) for part in parts))

    assert table_path("/".join(parts)) == "/".join(parts) + ".parquet"


def written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return digest_of([str(path)])


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_copy_under_another_name_has_the_same_content(tmp_path: Path) -> None:
    content = os.urandom(3 * BLOCK + 5)

    assert written(tmp_path / "a.svs", content) == written(tmp_path / "b.tif", content)


@settings(max_examples=25)
@given(st.integers(1, 3 * BLOCK) | st.just(64 * BLOCK), st.data())
def test_any_byte_of_a_small_file_counts(
    tmp_path_factory: pytest.TempPathFactory, size: int, data: st.DataObject
) -> None:
    path, content = tmp_path_factory.getbasetemp() / "small", bytes(size)
    place = data.draw(st.integers(0, size - 1))

    assert written(path, content) != written(path, flipped(content, place))


@pytest.mark.parametrize("place", [0, BLOCK - 1, -BLOCK, -1])
def test_the_first_and_the_last_block_of_a_large_file_count(tmp_path: Path, place: int) -> None:
    content = bytes(100 * BLOCK)

    assert written(tmp_path / "s", content) != written(tmp_path / "s", flipped(content, place % len(content)))


@settings(max_examples=12)
@given(st.integers(64 * BLOCK + 1, 160 * BLOCK), st.data())
def test_the_samples_leave_no_larger_gap_than_a_63rd_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, size: int, data: st.DataObject
) -> None:
    path, content, length = tmp_path_factory.getbasetemp() / "large", bytes(size), size // 63
    start = data.draw(st.integers(0, size - length))

    changed = content[:start] + b"\1" * length + content[start + length :]

    assert written(path, content) != written(path, changed)


@pytest.mark.parametrize("size", [0, 1, BLOCK, 70 * BLOCK])
def test_the_size_counts(tmp_path: Path, size: int) -> None:
    assert written(tmp_path / "s", bytes(size)) != written(tmp_path / "s", bytes(size + 1))


def test_every_file_of_a_slide_counts(tmp_path: Path) -> None:
    main, companion = tmp_path / "s.mrxs", tmp_path / "Data0000.dat"
    main.write_bytes(b"main")
    companion.write_bytes(b"data")
    before = digest_of([str(main), str(companion)])

    companion.write_bytes(b"date")

    assert digest_of([str(main), str(companion)]) != before


def test_bytes_that_move_from_one_file_to_the_next_count(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"ab")
    second.write_bytes(b"c")
    before = digest_of([str(first), str(second)])

    first.write_bytes(b"a")
    second.write_bytes(b"bc")

    assert digest_of([str(first), str(second)]) != before
