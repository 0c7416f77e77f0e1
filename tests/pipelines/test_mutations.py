"""The label job on hundreds of damaged slides: it ends, knows what became of each, and labels no damaged pixels."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.label_process import ledger, run, tables
from helpers.mutated_slides import KINDS, fabricated, mutated
from helpers.rereads import Rectangles, readable

from histo.errors import Cause
from histo.slides.finding.find import find_slides

pytestmark = pytest.mark.slow

OWN_FAULT = {Cause.INTERNAL, Cause.STORAGE}
REMEDY = re.compile(r"copy or export|convert|correct|rescan|--mpp-if-missing|--tiling|--max-failed-fraction")


@dataclass(frozen=True)
class Labelled:
    """A finished run over damaged slides.

    Attributes:
        out: Its folder.
        paths: The damaged slides.
        exit_code: Of the run.
        slides: The ledger's row of each slide.
        tables: The rows of each table, by the slide's id.
    """

    out: Path
    paths: dict[str, Path]
    exit_code: int
    slides: dict[str, dict[str, Any]]
    tables: dict[str, list[dict[str, Any]]]


def label(ray_address: str, folder: Path, bundle: Path, out: Path, *flags: str) -> Labelled:
    """Run the job as a person does, in a process that a crash or a hang cannot take with it."""
    flags = ("--workers", "2", "--max-failed-fraction", "0.5", *flags)
    code, _ = run(folder, bundle, out, *flags, RAY_ADDRESS=ray_address)
    paths = {slide.slide_id: Path(slide.path) for slide in find_slides(folder).slides}
    return Labelled(out, paths, code, ledger(out), tables(out))


@pytest.fixture(scope="module", params=["fabricated", pytest.param("real", marks=pytest.mark.realdata)])
def labelled(
    request: pytest.FixtureRequest,
    shared: Path,
    tiny_bundle: Path,
    ray_address: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Labelled:
    """Five damaged copies of each kind from fabricated slides, one of each kind from real ones."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "fabricated":
        mutated(fabricated(folder / "sources"), folder / "slides", count=5 * len(KINDS), seed=1)
        return label(ray_address, folder / "slides", tiny_bundle, folder / "out")
    real = shared / "slides"
    sources = [*sorted((real / "format").iterdir()), *sorted(real.glob("*.svs"))]
    mutated(sources, folder / "slides", count=len(KINDS), seed=1)
    return label(ray_address, folder / "slides", tiny_bundle, folder / "out", "--mpp-if-missing", "0.5")


def test_the_run_ends_and_every_damaged_slide_has_its_row(labelled: Labelled) -> None:
    assert labelled.exit_code == 3
    assert labelled.slides.keys() == labelled.paths.keys()
    assert {row["status"] for row in labelled.slides.values()} == {"ok", "partial", "empty", "failed"}


def test_every_failed_slide_says_in_one_line_where_and_what_to_do(labelled: Labelled) -> None:
    failed = {name: row for name, row in labelled.slides.items() if row["status"] == "failed"}

    assert {row["error_code"] for row in failed.values()} <= set(Cause) - OWN_FAULT
    assert [row["error"] for name, row in failed.items() if name not in row["error"]] == []
    assert [row["error"] for row in failed.values() if "\n" in row["error"]] == []
    assert [row["error"] for row in failed.values() if not REMEDY.search(row["error"])] == []


def test_a_slide_that_is_only_called_otherwise_does_not_fail_because_others_crash(labelled: Labelled) -> None:
    unharmed = [row for name, row in labelled.slides.items() if "_named_" in name]

    assert len(unharmed) >= 11
    assert {row["error_code"] for row in unharmed} <= {None, Cause.IMPLAUSIBLE_MPP}, "one source has an absurd mpp"


def test_every_tile_that_was_planned_is_counted_once(labelled: Labelled) -> None:
    for name, rows in labelled.tables.items():
        slide, states = labelled.slides[name], Counter(row["status"] for row in rows)
        assert (states["ok"], states["read_error"]) == (slide["n_ok"], slide["n_failed"]), name
        assert len({row["tile_index"] for row in rows}) == len(rows) == slide["n_tiles"], name


def test_there_are_tables_of_the_slides_that_have_a_result_and_of_no_others(labelled: Labelled) -> None:
    with_result = {row["tiles_path"] for row in labelled.slides.values() if row["status"] != "failed"}

    found = {path.relative_to(labelled.out).as_posix() for path in (labelled.out / "tiles").rglob("*.parquet")}

    assert None not in with_result
    assert found == with_result


def test_a_tile_is_ok_if_and_only_if_its_pixels_can_be_read(labelled: Labelled) -> None:
    places = [
        Rectangles(
            labelled.paths[name],
            labelled.slides[name]["level"],
            [(row["x"], row["y"], row["width"], row["height"]) for row in rows],
            strict=labelled.slides[name]["reader"] == "direct",
        )
        for name, rows in labelled.tables.items()
    ]

    found = readable(places)

    states = {name: [row["status"] == "ok" for row in rows] for name, rows in labelled.tables.items()}
    assert dict(zip(labelled.tables, found, strict=True)) == states
    assert {ok for slide in found for ok in slide} == {True, False}, "both kinds were seen"
    assert {labelled.slides[name]["reader"] for name in labelled.tables} == {"direct", "openslide"}, "and both readers"
