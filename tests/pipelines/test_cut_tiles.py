"""Tiles cut from slides: their pixels, classes and groups, what is left out and said, and how a run goes on."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from helpers.drawn import feature, make_slide, outlines, write_features
from helpers.fake_slides import damage_block
from helpers.label_loop import label, make_job
from helpers.plain_loop import rows_of
from PIL import Image

import histo
from histo.cli import main
from histo.demo.fabricate import SlideTruth
from histo.errors import UsageError
from histo.learn.data.inspection import inspect_images, tile_mpp
from histo.learn.data.source import read_sources
from histo.learn.data.tile_table import read_index
from histo.pipelines.tiles.cutter import Cutter
from histo.pipelines.tiles.slides import _classes, _groups, _job, _task, _write_index
from histo.pipelines.tiles.spec import PrepareTilesSpec
from histo.pipelines.tiles.tasks import Cut
from histo.resample import Window
from histo.slides.annotations.files import AnnotationFolder
from histo.slides.annotations.naming import Naming
from histo.slides.finding.find import find_slides
from histo.slides.resolution import choose_sampling
from histo.slides.slide import open_slide
from histo.slides.window import read_window


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> SlideTruth:
    """A slide of two classes on glass, with its annotation beside it."""
    folder = tmp_path_factory.mktemp("drawn")
    truth = make_slide(folder / "slides")
    write_features(folder / "drawn" / "s.geojson", [feature(area, name) for name, area in outlines(truth).items()])
    return truth


def drawn(truth: SlideTruth) -> Path:
    return truth.path.parent.parent / "drawn"


def cut(slides: Path, annotations: Path | None, out: Path, **settings: Any) -> Cut:
    """Cut the only slide of a folder, in this process."""
    tiling = settings.pop("tiling", {"mpp": 0.5})
    settings = {"sheets": False} | settings
    spec = PrepareTilesSpec(slides=slides, annotations=annotations, out=out, tiling=tiling, **settings)
    (slide,) = find_slides(slides).slides
    path = annotations and AnnotationFolder(annotations, {slide.slide_id: slide.path}, "--annotations").of(
        slide.slide_id
    )
    naming = Naming(spec.names or {}, frozenset(spec.drop or ()), tuple(spec.classes) if spec.classes else None)
    job = _job(spec, str(slides), naming, _classes(spec, naming, [path] if path else []))
    task = _task(job, "settings", _groups(spec, [slide.slide_id]), slide, path)
    answer = Cutter(job)(task)
    if answer.error is None:
        _write_index(job, [task])
    return answer


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for part in sorted(out.glob("part-*.parquet")) for row in rows_of(part)]


def parts_of(out: Path) -> list[Path]:
    """The parts of a table, in the order of its slides."""
    index = read_index(out)
    assert index is not None
    return [out / name for name in index.parts]


def test_tiles_have_the_classes_that_were_painted(truth: SlideTruth, tmp_path: Path) -> None:
    answer = cut(truth.path.parent, drawn(truth), tmp_path, size_px=112, tissue={"min_fraction": 0}, rest="BACK")

    assert answer.error is None
    found = rows(tmp_path)
    judged = [
        (row, name) for row in found if (name := truth.pure_class(*(row[k] for k in ("x", "y", "width", "height"))))
    ]
    assert len(judged) > 40
    assert all(row["label"] == name for row, name in judged)
    assert {"TUM", "LYM", "BACK"} == set(answer.counts) == {name for _, name in judged}
    assert sum(answer.counts.values()) == len(found)


def test_pixels_are_those_that_a_label_run_reads(truth: SlideTruth, tmp_path: Path) -> None:
    cut(truth.path.parent, drawn(truth), tmp_path)

    slide, reader = open_slide(str(truth.path))
    sampling = choose_sampling(slide, 0.5, 0.02, allow_upsample=False)
    images = read_sources([tmp_path]).images
    for index, row in enumerate(rows(tmp_path)):
        columns, lines = (Window(row[axis] // 2, 224, sampling.ratio_x) for axis in ("x", "y"))
        np.testing.assert_array_equal(images.load(index), read_window(reader, slide, sampling.level, columns, lines))
    reader.close()


@pytest.mark.parametrize("min_share", [0.3, 0.5, 0.9, 1.0])
def test_a_tile_takes_the_class_that_has_most_of_it_if_that_is_enough(
    truth: SlideTruth, tmp_path: Path, min_share: float
) -> None:
    answer = cut(truth.path.parent, drawn(truth), tmp_path, min_share=min_share, tissue={"min_fraction": 0})

    expected: Counter[str | None] = Counter()
    for x in range(0, 2816, 448):
        for y in range(0, 2176, 448):
            box = shapely.box(x, y, x + 448, y + 448)
            shares = {name: area.intersection(box).area / box.area for name, area in outlines(truth).items()}
            best = max(shares, key=lambda name: shares[name])
            if any(shares.values()):
                expected[best if shares[best] >= min_share - 1e-9 else None] += 1
    assert answer.left_out["too little of one class"] == expected.pop(None, 0)
    assert answer.counts == expected
    assert all(row["share"] >= min_share - 1e-6 for row in rows(tmp_path))


def test_a_label_map_gives_the_tiles_of_the_shapes_that_it_was_drawn_from(truth: SlideTruth, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    values = np.zeros(truth.classes.shape, np.uint8)
    for value, name in ((1, "TUM"), (2, "LYM")):
        values[truth.classes == ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM").index(name)] = value
    cv2.imwrite(str(tmp_path / "maps" / "s.png"), values)

    cut(truth.path.parent, drawn(truth), tmp_path / "shapes")
    answer = cut(truth.path.parent, tmp_path / "maps", tmp_path / "map", names={"1": "TUM", "2": "LYM"})

    assert answer.error is None
    shapes, of_map = (
        [{**row, "share": round(row["share"], 5)} for row in rows(tmp_path / name)] for name in ("shapes", "map")
    )
    assert shapes == of_map


def test_plain_tiles_are_all_tiles_of_tissue_without_labels(truth: SlideTruth, tmp_path: Path) -> None:
    answer = cut(truth.path.parent, None, tmp_path)

    found = rows(tmp_path)
    assert answer.counts == {"": len(found)}
    assert {row["label"] for row in found} == {None}
    assert all(row["tissue_fraction"] >= 0.25 for row in found)
    with pytest.raises(UsageError, match="its tiles have no labels, since they were cut without --annotations"):
        read_sources([tmp_path])


def test_annotated_tiles_of_little_tissue_are_left_out_and_counted(truth: SlideTruth, tmp_path: Path) -> None:
    write_features(tmp_path / "drawn" / "s.geojson", [feature(shapely.box(0, 0, 2816, 2176), "ALL")])

    answer = cut(truth.path.parent, tmp_path / "drawn", tmp_path / "out")

    assert answer.counts["ALL"] + answer.left_out["little tissue"] == 6 * 5, (
        "of the last column less than half lies on the slide"
    )
    assert answer.left_out["little tissue"] > 5


def test_tiles_that_cannot_be_read_are_counted_and_never_invented(truth: SlideTruth, tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    shutil.copy(truth.path, tmp_path / "slides" / "s.tif")
    before = cut(tmp_path / "slides", drawn(truth), tmp_path / "before")
    damage_block(str(tmp_path / "slides" / "s.tif"), 0, 3 * 11 + 4)

    answer = cut(tmp_path / "slides", drawn(truth), tmp_path / "out", reader="openslide")

    assert answer.left_out["not readable"] >= 1
    assert answer.counts.total() + answer.left_out["not readable"] == before.counts.total()
    kept = {row["case_id"]: row["content_hash"] for row in rows(tmp_path / "before")}
    assert all(kept[row["case_id"]] == row["content_hash"] for row in rows(tmp_path / "out"))


def test_repairs_and_contradictions_are_said(truth: SlideTruth, tmp_path: Path) -> None:
    open_ring = feature(shapely.box(300, 300, 900, 900), "TUM")
    open_ring["geometry"]["coordinates"][0].pop()
    write_features(
        tmp_path / "drawn" / "s.geojson",
        [open_ring, feature(shapely.box(600, 300, 1400, 900), "LYM"), feature(shapely.Point(5, 5), "X")],
    )

    answer = cut(truth.path.parent, tmp_path / "drawn", tmp_path / "out")

    assert answer.notes == (
        "1 open rings, closed",
        "1 points and lines, left out",
        "1 overlaps of different classes, whose common part has none",
    )


def test_rest_is_what_no_annotation_touches_also_beside_a_label_map(truth: SlideTruth, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    values = np.zeros((2001, round(2001 * 2816 / 2176)), np.uint8)  # pixels of no round size
    values[300:900, 300:900] = 1
    cv2.imwrite(str(tmp_path / "maps" / "s.png"), values)

    answer = cut(truth.path.parent, tmp_path / "maps", tmp_path / "out", names={"1": "TUM"}, rest="NORM", size_px=64)

    scale = 2176 / 2001
    block = shapely.box(300 * scale, 300 * scale, 900 * scale, 900 * scale)
    untouched = [row for row in rows(tmp_path / "out") if row["label"] == "NORM"]
    assert len(untouched) > 100
    assert all(
        not shapely.box(row["x"], row["y"], row["x"] + 128, row["y"] + 128).intersection(block).area
        for row in untouched
    )
    assert answer.left_out["in no annotation"] == 0
    assert answer.left_out["too little of one class"] <= 4 * 11, "tiles at the edge of the block"


def test_a_tile_of_no_share_has_no_class(truth: SlideTruth, tmp_path: Path) -> None:
    write_features(tmp_path / "drawn" / "s.geojson", [feature(shapely.box(460, 460, 760, 760), "TUM")])

    answer = cut(truth.path.parent, tmp_path / "drawn", tmp_path / "out", min_share=1e-12)

    assert answer.counts == {"TUM": 1}


def test_a_table_of_a_label_run_has_its_labels(truth: SlideTruth, tiny_bundle: Path, tmp_path: Path) -> None:
    job = make_job(tiny_bundle, tmp_path / "run")
    row = label(job, find_slides(truth.path).slides[0])

    answer = cut(truth.path.parent, job.out, tmp_path / "out", size_px=96)

    labels = {(tile["x"], tile["y"]): tile["label"] for tile in rows_of(job.out / row["tiles_path"])}
    assert {(tile["x"], tile["y"]): tile["label"] for tile in rows(tmp_path / "out")} == labels
    assert sum(answer.counts.values()) == len(labels)


def test_a_renamed_slide_is_another_one(truth: SlideTruth, tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    shutil.copy2(truth.path, tmp_path / "slides" / "t.tif")
    cut(truth.path.parent, None, tmp_path / "out", sheets=False)

    cut(tmp_path / "slides", None, tmp_path / "out", sheets=False)

    assert {row["slide_id"] for row in rows(tmp_path / "out")} == {"s.tif", "t.tif"}, "each in a part of its own"


def test_a_shape_beside_the_slide_fails_the_slide(truth: SlideTruth, tmp_path: Path) -> None:
    write_features(tmp_path / "drawn" / "s.geojson", [feature(shapely.box(9000, 0, 9900, 900), "TUM")])

    answer = cut(truth.path.parent, tmp_path / "drawn", tmp_path / "out")

    assert answer.error_code == "bad_annotation"
    assert answer.error is not None
    assert "feature 1 is at x 9000 to 9900" in answer.error


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides, their annotations, and their patients."""
    folder = tmp_path_factory.mktemp("annotated")
    for number in range(3):
        truth = make_slide(folder / "slides", f"s{number}.tif", seed=number)
        features = [feature(area, f"{name} tissue") for name, area in outlines(truth).items()]
        write_features(folder / "drawn" / f"s{number}.geojson", features)
    (folder / "patients.csv").write_text("slide,patient\ns0.tif,A\ns1.tif,A\ns2.tif,B\n")
    return folder


@pytest.fixture
def command(annotated: Path, tmp_path: Path) -> list[str]:
    """A command that cuts copies of them; sheets take half of its time."""
    shutil.copytree(annotated, tmp_path, dirs_exist_ok=True)
    return [
        *("prepare", "tiles", "--slides", str(tmp_path / "slides"), "--annotations", str(tmp_path / "drawn")),
        *("--tiling.mpp", "0.5", "--names", "TUM tissue=TUM,LYM tissue=LYM", "--out", str(tmp_path / "out")),
        *("--patients", str(tmp_path / "patients.csv"), "--no-sheets"),
    ]


@pytest.mark.usefixtures("inline_ray")
class TestCommand:
    """`histo prepare tiles --slides`; that it runs on Ray is tested by the loop of labelling and correcting."""

    def test_the_table_is_a_source_whose_groups_are_patients(
        self, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:

        assert main([*command[:-1], "--sheets"]) == 0

        said = capsys.readouterr().out
        source = read_sources([tmp_path / "out"])
        assert source.classes == ("LYM", "TUM")
        assert Counter(case.group for case in source.cases).keys() == {"A", "B"}
        assert f"{len(source.cases)} tiles of 3 slides; table: {tmp_path / 'out'}" in said
        record = json.loads((tmp_path / "out" / "run.json").read_text())
        assert sum(record["tiles"].values()) == len(source.cases)
        for number in range(3):
            with Image.open(tmp_path / "out" / "sheets" / f"s{number}.tif.png") as sheet:
                assert sheet.width > 1000
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            *sorted(path.name for path in parts_of(tmp_path / "out")), "run.json", "sheets", "table.json",
        ]  # fmt: skip

    def test_a_run_goes_on_and_does_again_what_changed(
        self, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        main(command)
        parts = parts_of(tmp_path / "out")
        first = [part.stat().st_mtime_ns for part in parts]
        parts[1].unlink()
        write_features(tmp_path / "drawn" / "s2.geojson", [feature(shapely.box(300, 300, 1400, 1400), "TUM tissue")])
        capsys.readouterr()

        assert main(command) == 0

        assert (
            "1 to cut, 1 to cut anew, since slides, annotations or settings changed, 1 done before"
            in capsys.readouterr().out
        )
        assert [part.stat().st_mtime_ns == before for part, before in zip(parts, first, strict=True)] == [
            True,
            False,
            False,
        ]
        assert {row["label"] for row in rows_of(parts[2])} == {"TUM"}
        assert main(command) == 0
        assert "\n3 done before" in capsys.readouterr().out

    def test_one_more_annotation_cuts_one_more_slide(
        self, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "drawn" / "s0.geojson").rename(tmp_path / "later")
        main(command)
        (tmp_path / "later").rename(tmp_path / "drawn" / "s0.geojson")
        capsys.readouterr()

        assert main(command) == 0

        assert "1 to cut, 2 done before" in capsys.readouterr().out
        assert {case.group for case in read_sources([tmp_path / "out"]).cases} == {"A", "B"}

    def test_another_form_leaves_nothing_of_the_former_one(self, command: list[str], tmp_path: Path) -> None:
        main([*command, "--form", "images"])
        before = len(read_sources([tmp_path / "out"]).cases)

        assert main([*command, "--size-px", "112"]) == 0

        source = read_sources([tmp_path / "out"])
        assert len(source.cases) > 2 * before
        assert source.images.load(0).shape == (112, 112, 3)
        assert not any((tmp_path / "out" / name).exists() for name in ("images", "manifest.csv", "slides"))
        assert main([*command, "--form", "images", "--size-px", "128"]) == 0
        listed = [case.case_id for case in read_sources([tmp_path / "out"]).cases]
        assert sorted(listed) == sorted(
            path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out" / "images").rglob("*.png")
        )
        assert not any((tmp_path / "out").glob("*.parquet"))

    def test_a_table_that_is_not_finished_is_no_source(self, command: list[str], tmp_path: Path) -> None:
        main(command)
        parts = parts_of(tmp_path / "out")
        (tmp_path / "out" / "table.json").rename(tmp_path / "table.json")
        with pytest.raises(UsageError, match="a table that is not finished; give the command that made it again"):
            read_sources([tmp_path / "out"])
        (tmp_path / "table.json").rename(tmp_path / "out" / "table.json")
        with pytest.raises(UsageError, match=r"1 parts, which are not the 3 of its table\.json"):
            read_sources([parts[0]])
        parts[1].unlink()
        with pytest.raises(UsageError, match=r"2 parts, which are not the 3 of its table\.json"):
            read_sources([tmp_path / "out"])

    def test_training_knows_the_resolution_of_a_table(self, command: list[str], tmp_path: Path) -> None:
        main(command)
        source = read_sources([tmp_path / "out"])
        found = inspect_images(source)

        assert source.mpps == (0.5,)
        assert tile_mpp(None, source, found, 224) == 0.5
        assert tile_mpp([0.5], source, found, 112) == 1.0
        with pytest.raises(UsageError, match=r"--mpp 0\.25: the tiles of .* were cut at 0\.5 µm/px"):
            tile_mpp([0.25], source, found, 224)

    def test_other_settings_leave_no_part_of_the_former_ones(self, command: list[str], tmp_path: Path) -> None:
        main(command)

        assert main([*command, "--size-px", "112"]) == 0

        sizes = {row["size_px"] for row in rows(tmp_path / "out")}
        assert sizes == {112}

    def test_a_slide_that_fails_is_said_and_the_table_is_whole_without_it(
        self, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        good = (tmp_path / "slides" / "s1.tif").read_bytes()
        (tmp_path / "slides" / "s1.tif").write_bytes(good[:5000])

        assert main(command) == 3

        said = capsys.readouterr().out
        assert "failed: " in said
        assert "tiles of 2 slides, 1 failed (exit code 3)" in said
        parts = pq.read_table([*(tmp_path / "out").glob("*.parquet")], columns=["slide_id"])
        assert set(parts["slide_id"].to_pylist()) == {"s0.tif", "s2.tif"}
        assert len(read_sources([tmp_path / "out"]).cases) > 10
        (tmp_path / "slides" / "s1.tif").write_bytes(good)
        assert main(command) == 0
        assert "1 to cut anew, since slides, annotations or settings changed, 2 done before" in capsys.readouterr().out

    def test_images_have_a_manifest_that_training_reads(self, command: list[str], tmp_path: Path) -> None:
        main(command)

        assert main([*command, "--form", "images", "--out", str(tmp_path / "images")]) == 0

        table, images = read_sources([tmp_path / "out"]), read_sources([tmp_path / "images"])
        assert table.classes == images.classes
        assert [case.label for case in table.cases] == [case.label for case in images.cases]
        assert [case.group for case in table.cases] == [case.group for case in images.cases]
        for index in range(0, len(table.cases), 7):
            np.testing.assert_array_equal(table.images.load(index), images.images.load(index))
        with (tmp_path / "images" / "manifest.csv").open() as file:
            assert next(csv.reader(file))[:4] == ["path", "source", "label", "group"]

    def test_python_prepares_tiles_likewise(self, command: list[str], tmp_path: Path) -> None:
        main(command)

        table = histo.prepare_tiles(
            tmp_path / "python",
            slides=tmp_path / "slides",
            annotations=tmp_path / "drawn",
            tiling={"mpp": 0.5},
            names={"TUM tissue": "TUM", "LYM tissue": "LYM"},
            sheets=False,
        )

        ours, theirs = (sorted(row["case_id"] for row in rows(folder)) for folder in (table, tmp_path / "out"))
        assert ours == theirs

    def test_slides_and_annotations_without_each_other_are_named(
        self, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "drawn" / "s1.geojson").rename(tmp_path / "drawn" / "typo.geojson")

        assert main(command) == 0

        said = capsys.readouterr().out
        assert "1 without annotations, left out: s1.tif" in said
        assert "1 annotations without a slide: typo.geojson" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "give one of --data (labelled tiles) and --slides (to cut tiles from)"),
        (["--data", "x", "--slides", "y"], "give one of --data"),
        (["--data", "x", "--rest", "BACK"], "--rest has no meaning with --data"),
        (["--slides", "y"], "--tiling.mpp is missing"),
        (["--slides", "y", "--tiling.mpp", "0.5", "--rest", "BACK"], "--rest is a setting of annotations"),
        (["--slides", "y", "--tiling.mpp", "0.5", "--max-broken", "0.5"], "--max-broken has no meaning with --slides"),
    ],
)
def test_settings_that_do_not_go_together_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    assert main(["prepare", "tiles", *flags, "--out", str(tmp_path / "out")]) == 2

    assert said in capsys.readouterr().err


BOX = shapely.box(0, 0, 9, 9)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("drawn/s.geojson", "{", "s.geojson: not JSON"),
        ("drawn/s.geojson", None, "none is named as a slide, and it holds none; that of s.tif would be s.tif.geojson"),
        ("drawn", None, "no such file or folder"),
        ("drawn/s.geojson", [feature(BOX, None)], "no shape has a class"),
        ("drawn/s.geojson", [feature(BOX, "TUM"), feature(BOX, "tum")], "differ only in blanks or case"),
        ("patients.csv", "slide,patient\nt.tif,A\n", "1 slides have no row, the first is s.tif"),
        ("patients.csv", "slide,name\nt.tif,A\n", "no column patient"),
        ("patients.csv", "slide,patient\ns.tif,A\ns.tif,B\n", "s.tif has two patients, A and B"),
        ("patients.csv", "slide,patient\ns.tif,\n", "row 1 has no patient"),
    ],
)
def test_what_cannot_be_used_is_said_before_ray_starts(
    truth: SlideTruth, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: Any, said: str
) -> None:
    shutil.copytree(drawn(truth), tmp_path / "drawn")
    (tmp_path / "patients.csv").write_text("slide,patient\ns.tif,A\n")
    if content is None:
        (tmp_path / name).rename(tmp_path / "gone")
    else:
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))

    code = main(
        [
            *("prepare", "tiles", "--slides", str(truth.path.parent), "--annotations", str(tmp_path / "drawn")),
            *("--tiling.mpp", "0.5", "--patients", str(tmp_path / "patients.csv"), "--out", str(tmp_path / "out")),
        ]
    )

    assert code == 2
    said_at_all = capsys.readouterr()
    assert said in said_at_all.err
    assert "starting Ray" not in said_at_all.out


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("TUM,TUM", "--classes: TUM is named twice"),
        ("TUM,tum", "differ only in blanks or case"),
        ('""', "is no name of a class"),
        ("LYM", "--rest TUM: not one of --classes"),
    ],
)
def test_classes_are_checked_before_ray_starts(
    truth: SlideTruth, tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: str, said: str
) -> None:
    command = ["prepare", "tiles", "--slides", str(truth.path.parent), "--annotations", str(drawn(truth))]

    code = main([*command, "--tiling.mpp", "0.5", "--classes", classes, "--rest", "TUM", "--out", str(tmp_path / "o")])

    assert code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("of", ["--slides", "--data"])
def test_a_folder_that_holds_something_else_is_no_output(
    truth: SlideTruth, tiles: Path, capsys: pytest.CaptureFixture[str], of: str
) -> None:
    given = truth.path.parent if of == "--slides" else tiles
    flags = ["--tiling.mpp", "0.5"] if of == "--slides" else []

    code = main(["prepare", "tiles", of, str(given), *flags, "--out", str(truth.path.parent)])

    assert code == 2
    assert "holds s.tif, and no prepared tiles; give an empty folder" in capsys.readouterr().err
    assert [path.name for path in truth.path.parent.iterdir()] == ["s.tif"]
