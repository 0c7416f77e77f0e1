"""Which reader a slide gets: the direct one where it is suited and agrees with OpenSlide, and how that is said."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import tifffile
from helpers.coded_slides import (
    APERIO,
    FORMATS,
    RGB,
    YCBCR,
    Format,
    block_at,
    jpeg_2000,
    lossless_jpeg,
    overwrite,
    scenery,
    set_tag,
    write_coded,
)
from helpers.fake_slides import noise, omit_block, write_tiff

from histo.errors import Cause, InputError, SlideError
from histo.resample import Pixels
from histo.slides.plan import plan_slide
from histo.slides.readers import compare
from histo.slides.slide import open_reader, open_slide
from histo.slides.spec import ReaderChoice, TilingSpec, TissueSpec

PIXELS = scenery(332, 276)


def chosen(path: str | Path, reader: ReaderChoice = "auto") -> str:
    """Name the reader that a slide gets."""
    _, opened = open_slide(str(path), 0.25, reader)
    opened.close()
    return opened.name


def refusal(path: str | Path, reader: ReaderChoice) -> InputError:
    with pytest.raises(InputError) as caught:
        open_slide(str(path), 0.25, reader)
    return caught.value


def test_a_slide_is_read_by_openslide_unless_asked_otherwise(tmp_path: Path) -> None:
    _, reader = open_slide(write_coded(tmp_path / "a.tif", [PIXELS]))

    assert reader.name == "openslide"


@pytest.mark.parametrize("name", FORMATS)
def test_every_coding_that_it_knows_is_read_directly(tmp_path: Path, name: str) -> None:
    assert chosen(write_coded(tmp_path / "a.tif", [PIXELS], FORMATS[name])) == "direct"


def test_levels_that_openslide_interpolates_are_compared_where_it_does_not(tmp_path: Path) -> None:
    levels = [scenery(1003, 803), scenery(501, 401, step=2), scenery(250, 200, step=4)]
    path = write_coded(tmp_path / "a.tif", levels)

    slide, _ = open_slide(path)

    assert not any(level.exact for level in slide.levels[1:])
    assert chosen(path) == "direct"


def test_what_is_not_suited_is_read_by_openslide(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", [noise(300, 200)])

    error = refusal(path, "direct")

    assert chosen(path) == "openslide"
    assert error.cause is Cause.UNREADABLE
    assert str(error).startswith(f"{path}: --reader direct cannot read it: level 0 has a compression (")
    assert str(error).endswith("use --reader auto")


@pytest.mark.realdata
def test_a_file_that_is_no_tiff_is_read_by_openslide(dicom: Path) -> None:
    error = refusal(dicom, "direct")

    assert chosen(dicom) == "openslide"
    assert "its TIFF directories cannot be read (not a TIFF file" in str(error)


@pytest.fixture
def dicom(shared: Path) -> Path:
    return shared / "slides" / "format" / "boxes_0.dcm"


@pytest.mark.parametrize("extra", [{}, APERIO], ids=["generic", "Aperio"])
def test_a_sparse_file_is_read_directly(tmp_path: Path, extra: dict[str, str]) -> None:
    levels = [PIXELS, scenery(166, 138, step=2), scenery(83, 69, step=4)]
    path = write_coded(tmp_path / "a.tif", levels, replace(FORMATS["jpeg 4:2:0"], extra=extra))
    omit_block(path, level=0, block=3)

    assert chosen(path) == "direct"


def test_a_file_of_which_every_block_is_empty_is_left_to_openslide(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [PIXELS])
    for block in range(30):
        omit_block(path, level=0, block=block)

    assert chosen(path) == "openslide"
    assert "all of its blocks are empty" in str(refusal(path, "direct"))


def test_blocks_that_are_listed_where_strips_are_do_not_make_a_damaged_file(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [PIXELS])
    with tifffile.TiffFile(path) as file:
        places = {strips: file.pages[0].tags[tiles].offset for tiles, strips in ((324, 273), (325, 279))}
    for code, place in places.items():
        overwrite(path, place, code.to_bytes(2, "little"))

    slide, reader = open_slide(path, reader="auto")

    assert reader.name == "openslide"
    assert np.ptp(reader.read(slide.levels[0], 0, 0, 300, 200)) > 100
    assert "level 0 is stored otherwise than in the tiles that its directory describes" in str(refusal(path, "direct"))


def test_two_images_of_one_size_are_read_by_openslide(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [PIXELS, PIXELS])

    assert chosen(path) == "openslide"


def test_a_coding_of_jpeg_that_only_openslide_reads_is_left_to_it(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [PIXELS], Format(lossless_jpeg, RGB))

    assert chosen(path) == "openslide"
    assert "the block is JPEG of process 3 and 8 bits; use --reader auto" in str(refusal(path, "direct"))


def test_jpeg_2000_with_colours_of_a_lower_resolution_is_left_to_openslide(tmp_path: Path) -> None:
    def encode(block: Pixels) -> bytes:
        data = jpeg_2000(ycbcr=True)(block)
        return data[:46] + b"\2" + data[47:]  # the header says so, and neither reader can decode the rest

    path = write_coded(tmp_path / "a.svs", [PIXELS], replace(FORMATS["Aperio, JPEG 2000, YCbCr"], encode=encode))

    assert chosen(path) == "openslide"
    assert "the block has colours of a lower resolution" in str(refusal(path, "direct"))


def test_colours_that_cannot_be_trusted_are_left_to_openslide(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [PIXELS], FORMATS["jpeg, RGB without a marker"])
    set_tag(path, 0, "PhotometricInterpretation", 1)

    assert chosen(path) == "openslide"


def test_the_tag_says_how_colours_are_coded_and_not_the_markers_of_a_block(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [PIXELS], FORMATS["jpeg, RGB"])
    set_tag(path, 0, "PhotometricInterpretation", YCBCR)
    slide, direct = open_slide(path, 0.25, "auto")

    pixels = [reader.read(slide.levels[0], 0, 0, 332, 276) for reader in (direct, open_reader(slide, "openslide"))]

    assert direct.name == "direct"
    assert np.array_equal(*pixels)


def test_readers_that_disagree_are_named_with_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_coded(tmp_path / "a.tif", [PIXELS])
    monkeypatch.setattr(compare, "MOST_DIFFERENCE", -1)

    error = refusal(path, "direct")

    assert chosen(path) == "openslide"
    assert error.cause is Cause.UNREADABLE
    assert "level 0 at (" in str(error)
    assert "differs from OpenSlide by 0" in str(error)


def test_every_level_must_be_compared(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [PIXELS, scenery(166, 138, step=2)])
    for block in range(30):
        offset, count = block_at(path, 0, block)
        overwrite(path, offset, bytes(count))

    assert chosen(path) == "openslide"
    assert "level 0: no place was found that both readers decode" in str(refusal(path, "direct"))


def test_a_drive_that_fails_at_opening_does_not_choose_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_coded(tmp_path / "a.tif", [PIXELS])

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ESTALE, "Stale file handle")

    for module, name in ((os, "pread"), (os, "open"), (tifffile, "TiffFile")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            error = refusal(path, "auto")
        assert error.cause is Cause.NO_ACCESS
        assert "Stale file handle; make the file readable and run it again" in str(error)


def test_a_slide_of_which_nothing_can_be_compared_is_read_by_openslide(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [PIXELS])
    for block in range(30):
        offset, count = block_at(path, 0, block)
        overwrite(path, offset, bytes(count))

    assert chosen(path) == "openslide"
    assert "no place was found" in str(refusal(path, "direct"))


def test_damaged_blocks_are_passed_over(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [PIXELS])
    for block in range(0, 30, 2):
        offset, count = block_at(path, 0, block)
        overwrite(path, offset, bytes(count))

    assert chosen(path) == "direct"


@pytest.mark.parametrize("reader", ["auto", "direct"])
@pytest.mark.parametrize(("tag", "value"), [("ImageWidth", 1000), ("ImageLength", 100), ("TileWidth", 128)])
def test_an_index_that_contradicts_itself_fails_the_slide(
    tmp_path: Path, reader: ReaderChoice, tag: str, value: int
) -> None:
    path = write_coded(tmp_path / "a.tif", [PIXELS])
    set_tag(path, 0, tag, value, dtype="I")

    error = refusal(path, reader)

    assert error.cause is Cause.UNREADABLE
    assert "but the file lists 30 places and 30 lengths; its tags are damaged" in str(error)


def test_a_level_that_contradicts_itself_fails_a_slide_of_any_coding(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", [noise(400, 300), noise(200, 150)])
    set_tag(path, 1, "TileWidth", 256)

    assert "an image of 200 x 150 px needs 1 x 3 blocks" in str(refusal(path, "auto"))


@pytest.mark.parametrize("name", ["direct", "openslide"])
def test_a_worker_gets_the_reader_that_was_recorded(tmp_path: Path, name: ReaderChoice) -> None:
    slide, first = open_slide(write_coded(tmp_path / "a.tif", [PIXELS]), reader=name)

    again = open_reader(slide, first.name)

    assert type(again) is type(first)
    assert np.array_equal(again.read(slide.levels[0], 1, 2, 90, 80), first.read(slide.levels[0], 1, 2, 90, 80))
    again.close()
    first.close()


def test_a_file_that_is_another_one_by_now_has_changed(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [PIXELS])
    slide, reader = open_slide(path, reader="direct")
    write_tiff(tmp_path / "a.tif", [noise(300, 200)])

    with pytest.raises(SlideError, match="changed while it was read") as caught:
        open_reader(slide, reader.name)

    reader.close()
    assert caught.value.cause is Cause.CHANGED


def test_a_reader_that_does_not_exist_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    slide, _ = open_slide(write_coded(tmp_path / "a.tif", [PIXELS]))

    with pytest.raises(ValueError, match="reader 'auto'"):
        open_reader(slide, "auto")


@pytest.mark.parametrize("name", ["direct", "openslide"])
def test_a_plan_records_its_reader(tmp_path: Path, name: ReaderChoice) -> None:
    slide, reader = open_slide(write_coded(tmp_path / "a.tif", [PIXELS]), reader=name)

    plan = plan_slide(slide, reader, 64, 0.5, TilingSpec(), TissueSpec())

    reader.close()
    assert plan.reader == name


def test_both_readers_plan_the_same_tiles(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.tif", [scenery(1328, 1104)])
    plans = []
    for name in ("direct", "openslide"):
        slide, reader = open_slide(path, reader=name)
        plans.append(plan_slide(slide, reader, 64, 0.5, TilingSpec(), TissueSpec()))
        reader.close()

    assert len(plans[0].tile_index) > 0
    assert np.array_equal(plans[0].tile_index, plans[1].tile_index)
    assert np.array_equal(plans[0].tissue_fraction, plans[1].tissue_fraction)
