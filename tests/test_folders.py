import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from helpers.trees import There, links, plant, tie, trees
from hypothesis import given, settings

from histo.folders import BINS, HIDDEN, MET_BEFORE, UNREADABLE_FOLDER, walk


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for folder in walk(root).folders for path in folder.files]


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def test_linked_folders_are_followed_and_named_as_they_are_walked(tmp_path: Path) -> None:
    touch(tmp_path, "far/deep/s.svs", "root/t.svs")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "far", target_is_directory=True)

    walked = walk(tmp_path / "root")

    assert names(tmp_path / "root") == ["t.svs", "link/deep/s.svs"]
    assert (walked.linked, walked.others) == (1, {})


def test_a_real_folder_is_walked_once_and_the_first_link_to_it_wins(tmp_path: Path) -> None:
    touch(tmp_path, "far/s.svs", "root/t.svs")
    for name in ("b", "a", "c"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "far", target_is_directory=True)

    walked = walk(tmp_path / "root")

    assert names(tmp_path / "root") == ["t.svs", "a/s.svs"]
    assert (walked.linked, walked.others) == (1, {MET_BEFORE: 2})


def test_a_folder_that_is_really_there_keeps_its_name_whatever_links_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "z/s.svs")
    (tmp_path / "a").symlink_to("z", target_is_directory=True)

    assert names(tmp_path) == ["z/s.svs"]


@pytest.mark.parametrize("to", [".", "..", "../../a"])
def test_links_in_circles_end(tmp_path: Path, to: str) -> None:
    touch(tmp_path, "a/b/s.svs", "a/t.svs")
    (tmp_path / "a" / "b" / "round").symlink_to(to, target_is_directory=True)
    (tmp_path / "a" / "round").symlink_to("round", target_is_directory=True)

    assert sorted(names(tmp_path)) == ["a/b/s.svs", "a/round", "a/t.svs"]  # a link to itself is no folder


def test_what_is_hidden_and_what_systems_put_there_is_passed_over_and_counted(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "s.svs",
        "._s.svs",
        ".snapshot/s.svs",
        "x/.ipynb_checkpoints/s.svs",
        *(f"{bin_}/s.svs" for bin_ in BINS.values()),
    )

    assert names(tmp_path) == ["s.svs"]
    assert walk(tmp_path).others == {HIDDEN: 3, **dict.fromkeys(BINS.values(), 1)}


def test_a_root_is_walked_whatever_it_is_called(tmp_path: Path) -> None:
    assert names(touch(tmp_path / ".hidden", "s.svs")) == ["s.svs"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "shut/s.svs", "t.svs")
    (tmp_path / "shut").chmod(0)

    walked = walk(tmp_path)
    (tmp_path / "shut").chmod(0o700)

    assert (walked.others, walked.unreadable) == ({UNREADABLE_FOLDER: 1}, (tmp_path / "shut",))


@settings(max_examples=100)
@given(trees, trees, links)
def test_of_any_tree_every_file_is_met_once_and_the_rest_is_counted(
    tree: dict[str, Any], beside: dict[str, Any], wanted: list[tuple[int, str, int]]
) -> None:
    with TemporaryDirectory() as place:
        root = Path(place) / "root"
        plant(root, tree)
        plant(Path(place) / "beside", beside)
        tie(Path(place), wanted)

        walked, there = walk(root), There().look(str(root))

        met = [os.path.realpath(file) for folder in walked.folders for file in folder.files]
        assert sorted(met) == sorted(there.files)
        assert len(walked.folders) == len(there.folders)
        assert walked.others[MET_BEFORE] == there.doors - (len(there.folders) - 1)
        assert walked.others.total() - walked.others[MET_BEFORE] == there.passed_over
        assert {folder.path for folder in walked.folders if folder.leaf} == {
            folder.path
            for folder in walked.folders
            if not any(other.path.parent == folder.path for other in walked.folders)
        }
