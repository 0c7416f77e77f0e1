"""Every kind of bad input, file by file: its row of the ledger, and what the row tells a person to do. No Ray."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from helpers.fake_slides import write_tiff
from helpers.label_loop import label as label_slide
from helpers.label_loop import make_job
from helpers.mutated_slides import tissue
from helpers.plain_loop import rows_of
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from histo.demo.fabricate import write_pyramid
from histo.demo.textures import GLASS
from histo.pipelines.labelling.tasks import LabelJob
from histo.resample import Pixels
from histo.slides.finding.collection import Collection
from histo.slides.finding.find import find_slides
from histo.slides.spec import TissueSpec

CLASSES = ("MUS", "STR", "TUM")
GLASS_ONLY = np.full((600, 700, 3), GLASS, np.uint8)
IMAGE = tissue(1024, 768)


@pytest.fixture
def job(tiny_bundle: Path, tmp_path: Path) -> LabelJob:
    return make_job(tiny_bundle, tmp_path / "out")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "slides").mkdir()
    return tmp_path / "slides"


def label(job: LabelJob, collection: Collection) -> dict[str, dict[str, Any]]:
    return {slide.slide_id: label_slide(job, slide) for slide in collection.slides}


def write(path: Path, image: Pixels = IMAGE, mpp: float | None = 0.25, downsamples: tuple[int, ...] = (1, 4)) -> None:
    write_pyramid(path, image, mpp, downsamples)


def pen_on_glass() -> Pixels:
    image = GLASS_ONLY.copy()
    image[100:400, 50:650] = (40, 80, 190)
    return image


def glowing() -> Pixels:
    """Return a specimen that is blue where it is dense, on black."""
    dense = 255 - IMAGE.min(axis=2, keepdims=True)
    dense[:, :400] = 0
    return (dense * np.array((0.1, 0.15, 1.0))).astype(np.uint8)


def grey() -> Pixels:
    return IMAGE.mean(axis=2).astype(np.uint8)


def write_raw(path: Path, pixels: npt.NDArray[np.integer[Any]]) -> None:
    """Write a slide of one level without loss, of 0.25 µm per pixel: grey `(H, W)`, or of 16 bits."""
    kind = "minisblack" if pixels.ndim == 2 else "rgb"
    tifffile.imwrite(
        path, pixels, tile=(64, 64), photometric=kind, compression="zlib", metadata=None,
        resolution=(40_000, 40_000), resolutionunit="CENTIMETER",
    )  # fmt: skip


def write_uneven(path: Path) -> None:
    """Write a slide of 0.25 µm per pixel along x and 0.2 along y."""
    write(path, downsamples=(1,))
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["YResolution"].overwrite((50_000, 1))


def write_compressed(path: Path) -> None:
    """Write a slide whose compression nobody knows."""
    write_raw(path, IMAGE)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["Compression"].overwrite(52_479)


def write_dicom(path: Path, modality: str) -> None:
    """Write the header of a slice of a study, in a series of its own."""
    header = FileDataset(path, {}, file_meta=FileMetaDataset(), preamble=bytes(128))
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = MRImageStorage
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[modality])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=["series", modality])
    header.Modality = modality
    header.save_as(path, enforce_file_format=True)


@dataclass(frozen=True)
class Case:
    """A file that is bad, or only strange.

    Attributes:
        name: Of the file.
        make: Writes it.
        status: What it becomes.
        error_code: Of the failed ones.
        remedy: What their error tells to do.
    """

    name: str
    make: Callable[[Path], object]
    status: str
    error_code: str | None = None
    remedy: str = ""


CASES = (
    Case("zero bytes.svs", Path.touch, "failed", "not_a_slide", "has to be converted"),
    Case("text.svs", lambda path: path.write_text("a letter"), "failed", "not_a_slide", "has to be converted"),
    Case("strips.tif", lambda path: tifffile.imwrite(path, IMAGE), "failed", "not_a_slide", "convert it with vips"),
    Case("jpeg 2000.tif", lambda path: Image.fromarray(IMAGE).save(path, "JPEG2000"), "failed", "not_a_slide", "vips"),
    Case("lif.tiff", lambda path: path.write_bytes(b"p\0\0\0" + bytes(99)), "failed", "not_a_slide", "with bfconvert"),
    Case("unknown compression.tif", write_compressed, "failed", "not_a_slide", "convert it with vips"),
    Case("ct.dcm", lambda path: write_dicom(path, "CT"), "failed", "not_a_slide", "is of a CT study (DICOM)"),
    Case("mr.dcm", lambda path: write_dicom(path, "MR"), "failed", "not_a_slide", "with --studies"),
    Case("gone.svs", lambda path: path.symlink_to("nowhere.svs"), "failed", "no_access", "make the file readable"),
    Case("itself.svs", lambda path: path.symlink_to(path.name), "failed", "no_access", "make the file readable"),
    Case("coarse.tif", lambda path: write(path, mpp=2.0), "failed", "too_coarse", "rescan it, or accept"),
    Case("no mpp.tif", lambda path: write(path, mpp=None), "failed", "no_mpp", "give one with --mpp-if-missing"),
    Case("absurd mpp.tif", lambda path: write(path, mpp=300), "failed", "implausible_mpp", "correct the file's"),
    Case("fine mpp.tif", lambda path: write(path, mpp=0.01), "failed", "implausible_mpp", "correct the file's"),
    Case("one pixel.tif", lambda path: write_tiff(path, [GLASS_ONLY[:1, :1]]), "empty"),
    Case("glass.tif", lambda path: write(path, GLASS_ONLY), "empty"),
    Case("pen.tif", lambda path: write(path, pen_on_glass()), "empty"),
    Case("one level.tif", lambda path: write(path, downsamples=(1,)), "ok"),
    Case("level missing.tif", lambda path: write(path, downsamples=(1, 16)), "ok"),
    Case("uneven.tif", write_uneven, "ok"),
    Case("fluorescence.tif", lambda path: write(path, glowing()), "failed", "not_brightfield", "as in fluorescence"),
    Case("grey.tif", lambda path: write_raw(path, grey()), "failed", "not_brightfield", "it is grey"),
    Case("12 bits.tif", lambda path: write_raw(path, np.uint16(IMAGE) * 16), "failed", "not_brightfield", "black ("),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_becomes_what_it_is_and_its_error_says_what_to_do(case: Case, job: LabelJob, folder: Path) -> None:
    case.make(folder / case.name)

    row = label(job, find_slides(folder))[case.name]

    assert (row["status"], row["error_code"]) == (case.status, case.error_code)
    assert case.remedy in (row["error"] or "")
    assert case.status != "failed" or case.name in row["error"]
    assert (row["tiles_path"] is None) == (case.status == "failed")


def test_a_slide_that_is_not_brightfield_is_labelled_where_it_is_asked_for(job: LabelJob, folder: Path) -> None:
    write(folder / "fluorescence.tif", glowing())
    asked = replace(job, tissue=TissueSpec(any_image=True).settings())

    failed = label(job, find_slides(folder))["fluorescence.tif"]
    labelled = label(asked, find_slides(folder))["fluorescence.tif"]

    assert (failed["status"], failed["error_code"]) == ("failed", "not_brightfield")
    assert labelled["status"] == "ok"
    assert labelled["n_tiles"] == len(rows_of(asked.out / labelled["tiles_path"])) > 0


@pytest.mark.slow
def test_a_bad_file_does_not_touch_the_good_one_beside_it(job: LabelJob, folder: Path) -> None:
    for case in CASES:
        case.make(folder / case.name)

    rows = label(job, find_slides(folder))

    assert {name: row["status"] for name, row in rows.items()} == {case.name: case.status for case in CASES}


def test_a_file_that_may_not_be_read_is_failed(job: LabelJob, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "secret.svs")
    can_open = Path.open

    def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:  # root may read everything, so no mode of a file will do
        if path.name == "secret.svs":
            raise PermissionError(13, "Permission denied", str(path))
        return can_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    row = label(job, find_slides(folder))["secret.svs"]

    assert (row["status"], row["error_code"]) == ("failed", "no_access")
    assert row["error"].endswith("secret.svs: Permission denied; make the file readable and run it again, or remove it")


def test_a_file_that_has_no_size_to_tell_is_failed(
    job: LabelJob, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "stale.svs")
    collection, can_stat = find_slides(folder), Path.stat

    def refuse(path: Path, **kwargs: Any) -> os.stat_result:
        if path.name == "stale.svs":
            raise OSError(116, "Stale file handle", str(path))
        return can_stat(path, **kwargs)

    monkeypatch.setattr(Path, "stat", refuse)
    row = label(job, collection)["stale.svs"]

    assert (row["status"], row["error_code"]) == ("failed", "no_access")
    assert row["error"].endswith("stale.svs: Stale file handle; make the file readable and run it again, or remove it")


def test_a_folder_called_like_a_slide_is_a_folder(job: LabelJob, folder: Path) -> None:
    (folder / "x.svs").mkdir()
    write(folder / "x.svs" / "inside.tif")
    (folder / "x.svs" / "round").symlink_to(folder, target_is_directory=True)

    rows = label(job, find_slides(folder))

    assert {name: row["status"] for name, row in rows.items()} == {"x.svs/inside.tif": "ok"}


def test_tiles_of_uneven_pixels_are_not_square_at_level_0(job: LabelJob, folder: Path) -> None:
    write_uneven(folder / "uneven.tif")

    row = label(job, find_slides(folder))["uneven.tif"]

    tiles = rows_of(job.out / row["tiles_path"])
    assert (row["mpp_x"], row["mpp_y"], row["effective_mpp"]) == pytest.approx((0.25, 0.2, 0.5))
    assert {(tile["width"], tile["height"]) for tile in tiles} == {(192, 240)}
    assert {tile["y"] % 240 for tile in tiles} == {tile["x"] % 192 for tile in tiles} == {0}


def test_slides_of_one_stem_have_a_table_each(job: LabelJob, folder: Path) -> None:
    write(folder / "a.svs")
    write(folder / "a.tif", IMAGE[:, :500])

    rows = label(job, find_slides(folder))

    counts = {name: len(rows_of(job.out / row["tiles_path"])) for name, row in rows.items()}
    assert counts == {name: row["n_tiles"] for name, row in rows.items()}
    assert counts["a.svs"] > counts["a.tif"] > 0


NAMES = (
    "with space.tif",
    " .tif",
    'quote\'s "both" `ticks` $HOME.tif',
    "Препарат №5 (ткань).tif",
    "ткань" * 25 + ".tif",
    "x" * 251 + ".tif",
    "new\nline\ttab.tif",
    "%2F..%00\\.tif",
    "_hidden/_from/~readers.tif",
    "a/b/c/d/e/f/deep.tif",
)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_slide_of_any_name_has_its_table(job: LabelJob, folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    write(folder / name)

    row = label(job, find_slides(folder))[name]

    tiles = rows_of(job.out / row["tiles_path"])
    assert (row["status"], row["uri"]) == ("ok", str(folder / name))
    assert {tile["slide_id"] for tile in tiles} == {name}
    assert len(tiles) == row["n_tiles"] > 0


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_bad_slide_of_any_name_has_an_error_of_one_line(job: LabelJob, folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("not a slide")

    row = label(job, find_slides(folder))[name]

    assert (row["status"], row["error_code"]) == ("failed", "not_a_slide")
    assert len(row["error"].splitlines()) == 1
