"""Slides of patterns and of object storage are those of the same folder on a disk, under the same names."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from histo.errors import UsageError
from histo.slides.finding.collection import Collection
from histo.slides.finding.find import find_slides, fixed_folder


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def plant(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def upload(memory: MemoryFileSystem, folder: Path) -> str:
    """Copy a folder into a bucket; returns its URI."""
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe(f"/bucket/{folder.name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"memory://bucket/{folder.name}"


def described(collection: Collection, base: str) -> list[tuple[str, list[str]]]:
    return [(slide.slide_id, [file.removeprefix(base) for file in slide.files]) for slide in collection.slides]


def test_a_bucket_holds_the_slides_of_the_folder(tmp_path: Path, memory: MemoryFileSystem) -> None:
    folder = plant(
        tmp_path / "c",
        *("z.svs", "a/y.TIF", "a/b/x.ndpi", "m.mrxs", "m/Slidedat.ini", "m/Data0000.dat", "notes.txt", "README"),
        *(".hidden/h.svs", ".DS_Store", "__MACOSX/q.svs", "a/._y.svs", "labels/slides.parquet"),
        *("labels/class_maps/z.svs.tif", "labels/class_maps/a/y.TIF.tif", "class_maps/own.tif"),
    )
    (folder / "v.vms").write_text("[Virtual Microscope Specimen]\nImageFile=v(0,0).jpg\nMapFile=v_map.jpg\n")
    plant(folder, "v(0,0).jpg", "v_map.jpg", "v_other.jpg")

    local, remote = find_slides(folder), find_slides(upload(memory, folder))

    assert described(remote, "memory://bucket/c") == described(local, str(folder))
    assert remote.others == local.others
    assert all(slide.state() for slide in remote.slides)
    assert [sum(state.size_bytes for state in slide.states) for slide in remote.slides] == [
        slide.state()[0] for slide in local.slides
    ]


@pytest.mark.realdata
def test_dicom_in_a_bucket_is_grouped_by_series(tmp_path: Path, memory: MemoryFileSystem, shared: Path) -> None:
    folder = tmp_path / "format"
    shutil.copytree(shared / "slides" / "format", folder)
    (folder / "boxes_0.dcm").rename(folder / "no_extension")

    local, remote = find_slides(folder), find_slides(upload(memory, folder))

    assert described(remote, "memory://bucket/format") == described(local, str(folder))
    assert any(len(slide.files) == 2 for slide in local.slides)


def test_one_slide_of_a_bucket(tmp_path: Path, memory: MemoryFileSystem) -> None:
    root = upload(memory, plant(tmp_path / "c", "a/.x.svs", "b.svs"))

    assert [slide.slide_id for slide in find_slides(f"{root}/b.svs").slides] == ["b.svs"]
    assert [slide.slide_id for slide in find_slides(f"{root}/a/.x.svs").slides] == [".x.svs"]


def test_what_a_bucket_does_not_hold_is_said(tmp_path: Path, memory: MemoryFileSystem) -> None:
    root = upload(memory, plant(tmp_path / "c", "a.txt", "b.lif"))

    with pytest.raises(UsageError, match=r"--slides memory://bucket/gone: no such file or folder"):
        find_slides("memory://bucket/gone")
    with pytest.raises(UsageError, match=r"--slides memory://bucket/c: no slides in it; it holds 1 .lif, 1 .txt"):
        find_slides(root)
    with pytest.raises(UsageError, match=r"--slides zz://bucket: protocol not known: zz; give a path"):
        find_slides("zz://bucket")


def test_a_folder_of_a_web_server_is_refused() -> None:
    with pytest.raises(UsageError, match=r"https://host/slides/: a web server's folder cannot be listed; give a list"):
        find_slides("https://host/slides/")


PATTERNS = {
    "**/*.svs": ["a/1.svs", "a/b/2.svs", "c/3.svs"],
    "a/*.svs": ["1.svs"],
    "a*": ["a/1.svs", "a/4.tif", "a/b/2.svs", "a5.tif"],
    "[ac]/[13].*": ["a/1.svs", "c/3.svs"],
    "?/b/2.svs": ["a/b/2.svs"],
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_chooses_files_and_what_is_below_folders(
    tmp_path: Path, memory: MemoryFileSystem, pattern: str
) -> None:
    names = ("a/1.svs", "a/b/2.svs", "c/3.svs", "a/4.tif", "a5.tif", "a/notes.txt", "c/.old/6.svs")
    root = plant(tmp_path / "p", *names)

    assert [slide.slide_id for slide in find_slides(f"{root}/{pattern}").slides] == PATTERNS[pattern]
    assert [slide.slide_id for slide in find_slides(f"{upload(memory, root)}/{pattern}").slides] == PATTERNS[pattern]


def test_a_pattern_that_chooses_nothing_is_said(tmp_path: Path, memory: MemoryFileSystem) -> None:
    plant(tmp_path, "a.txt")

    with pytest.raises(UsageError, match=r"--slides .*/\*\.svs: no slides in it; it holds nothing"):
        find_slides(tmp_path / "*.svs")
    with pytest.raises(UsageError, match=r"--slides memory://bucket/\*\.svs: no slides in it; it holds nothing"):
        find_slides("memory://bucket/*.svs")


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    plant(tmp_path, "a[1].svs", "a1.svs")

    assert [slide.slide_id for slide in find_slides(tmp_path / "a[1].svs").slides] == ["a[1].svs"]


def test_nodes_must_see_the_folder_of_a_pattern(tmp_path: Path) -> None:
    assert fixed_folder(f"{tmp_path}/a/**/*.svs") == [tmp_path / "a"]
    assert fixed_folder(f"{tmp_path}/list.csv") == [tmp_path / "list.csv"]
    assert fixed_folder("s3://bucket/a") == []


def test_a_list_may_be_in_a_bucket(memory: MemoryFileSystem) -> None:
    memory.pipe({"/bucket/x/list.csv": b"uri,mpp\n1.svs,0.5\ny/2.svs,\n", "/bucket/x/1.svs": b"1"})

    slides = find_slides("memory://bucket/x/list.csv").slides

    assert [(slide.slide_id, slide.path, slide.mpp) for slide in slides] == [
        ("1.svs", "memory://bucket/x/1.svs", 0.5),
        ("y/2.svs", "memory://bucket/x/y/2.svs", None),
    ]
